//! Whatever is given as an address to listen on is read or refused.
#![no_main]

use edgecho::server::ListenAddress;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    // A name would be looked up, and a resolver is not what is tested here.
    let may_be_name = text.rsplit_once(':').is_some_and(|(host, _)| host.chars().any(|c| c.is_alphabetic()));
    if !may_be_name || text.starts_with('[') {
        let _ = text.parse::<ListenAddress>();
    }
});
