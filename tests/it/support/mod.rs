//! Servers and clients as processes and sockets. The tools in `scripts/` use this folder, too.

pub mod client;
pub mod http;
pub mod proc;
mod process;
mod program;
mod wait;

use std::io::Write;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

pub use process::{Process, Server, announced};
pub use program::{PROGRAM, Program, edgecho, program, run, signal};
pub use wait::{PATIENCE, eventually, in_one_of_five_rounds, pause, quiet, wait_until};

/// Makes a test of each function, for each of the two servers.
#[macro_export]
macro_rules! for_both_servers {
    ($($test:ident),* $(,)?) => {
        mod rust {
            use $crate::support::{Server, run_test};
            $( #[test] fn $test() { run_test(Server::Rust, stringify!($test), super::$test); } )*
        }
        mod c_reference {
            use $crate::support::{Server, run_test};
            $( #[test] fn $test() { run_test(Server::C, stringify!($test), super::$test); } )*
        }
    };
}

/// Runs a test against a server. Skips it if the server was not compiled.
pub fn run_test(server: Server, name: &str, test: fn(Server)) {
    if server.program().is_some() { test(server) } else { skip(name, "the C reference was not compiled") }
}

/// Reports on the terminal, past the test runner's capture, that a test is skipped.
///
/// # Panics
/// If `CI` is `true`: CI installs everything that the tests need.
pub fn skip(test: &str, reason: &str) {
    assert!(std::env::var_os("CI").is_none_or(|value| value != "true"), "{test} cannot be skipped in CI: {reason}");
    writeln!(std::io::stderr(), "skipped: {test}: {reason}").expect("a terminal");
}

/// Raises this process's limit on descriptors to the hard limit, for tests with thousands of clients. Returns the limit.
pub fn raise_descriptor_limit() -> u64 {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("getrlimit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("setrlimit");
    hard
}
