//! The Discard Protocol of RFC 863, at up to 1 MB/s for each connection, with a report every ten seconds.
//!
//!     cargo run --example discard
//!     head -c 3M /dev/zero | nc -N 127.0.0.1 7777

use std::time::Duration;

use edgecho::protocol::{Post, Protocol, Reply, Timer};
use edgecho::server::{Builder, Server};

const REPORT: u32 = 1;

/// Counts the bytes that it discards.
#[derive(Debug, Default)]
pub(crate) struct Discard {
    bytes: u64,
}

impl Protocol for Discard {
    type Session = ();

    fn start(&mut self, post: &mut Post) {
        post.set_timer(Timer::every(REPORT, Duration::from_secs(10)));
    }

    fn open(&mut self, _reply: &mut impl Reply) {}

    fn receive(&mut self, (): &mut (), input: &[u8], _reply: &mut impl Reply) {
        self.bytes += input.len() as u64;
    }

    fn on_server_timer(&mut self, _timer: u32, _post: &mut Post) {
        println!("{} bytes discarded", self.bytes);
    }
}

/// Sets the rate limit. The server reads no faster, and TCP slows the peer.
pub(crate) fn limited(builder: Builder, bytes_per_second: u64) -> Builder {
    builder.configure(|config| config.limits.rate_limit = Some(bytes_per_second))
}

#[allow(dead_code, reason = "the tests have another")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let builder = Server::builder().listen("127.0.0.1:7777".parse()?);
    limited(builder, 1_000_000).bind(Discard::default())?.run()?;
    Ok(())
}
