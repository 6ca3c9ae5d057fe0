//! Parsing a listen address either succeeds or returns an error.
#![no_main]

use edgecho::server::ListenAddress;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    // Skip names: they would be resolved, and the resolver is not under test.
    let may_be_name = text.rsplit_once(':').is_some_and(|(host, _)| host.chars().any(|c| c.is_alphabetic()));
    if !may_be_name || text.starts_with('[') {
        let _ = text.parse::<ListenAddress>();
    }
});
