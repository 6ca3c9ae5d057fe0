//! The flags of the PROXY protocol.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use edgecho::server::{ProxyMode, ProxyOptions};
use ipnet::IpNet;

use crate::cli::values::duration;

#[derive(Debug, Args)]
#[command(next_help_heading = "Load balancer")]
pub(super) struct ProxyFlags {
    /// Read the client's address from a header that a load balancer sends (PROXY protocol)
    ///
    /// Version 1 or 2. Needs --proxy-from. Logs, --max-per-ip and statistics then go by the client's address. Off by default.
    #[arg(long, value_name = "MODE", env = "EDGECHO_PROXY_PROTOCOL", value_enum)]
    proxy_protocol: Option<Mode>,

    /// Networks of the load balancers, which may send a header
    ///
    /// Such as 10.0.0.0/8,2001:db8::/32, or single addresses; '0.0.0.0/0,::/0' for all peers. A header can name any address as the
    /// client's, so only trusted peers may send one. An IPv4 client of [::]:PORT is matched by its IPv4 address.
    #[arg(long, value_name = "CIDR", env = "EDGECHO_PROXY_FROM", value_delimiter = ',', value_parser = network)]
    proxy_from: Vec<IpNet>,

    /// Time for the whole header to arrive
    ///
    /// From 10ms to 1h; the default is 5s. Less than 3s may be too short for a lost segment.
    #[arg(long, value_name = "DURATION", env = "EDGECHO_PROXY_TIMEOUT", value_parser = duration(ProxyOptions::MIN_TIMEOUT..=ProxyOptions::MAX_TIMEOUT))]
    proxy_timeout: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Close connections without a valid header, and connections of peers that are not in --proxy-from
    Require,
    /// Serve connections without a header, too; bytes of peers that are not in --proxy-from are never a header
    Optional,
}

/// Writes the name as the command line takes it.
impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_possible_value().map_or(Ok(()), |value| f.write_str(value.get_name()))
    }
}

impl ProxyFlags {
    /// Checks that the flags belong together.
    pub(super) fn check(&self) -> Result<(), String> {
        match self.proxy_protocol {
            Some(mode) if self.proxy_from.is_empty() => Err(format!(
                "--proxy-protocol {mode} needs --proxy-from (or EDGECHO_PROXY_FROM): a header can name any address as the client's, so \
                 give the networks of the load balancers, such as 10.0.0.0/8, or '0.0.0.0/0,::/0' to trust every peer"
            )),
            None if !self.proxy_from.is_empty() => Err(without_effect("--proxy-from", "EDGECHO_PROXY_FROM")),
            None if self.proxy_timeout.is_some() => Err(without_effect("--proxy-timeout", "EDGECHO_PROXY_TIMEOUT")),
            _ => Ok(()),
        }
    }

    /// Returns the options of the library.
    pub(super) fn options(self) -> Option<ProxyOptions> {
        let mode = match self.proxy_protocol? {
            Mode::Require => ProxyMode::Require,
            Mode::Optional => ProxyMode::Optional,
        };
        let mut options = ProxyOptions::new(mode, self.proxy_from);
        options.timeout = self.proxy_timeout.unwrap_or(options.timeout);
        Some(options)
    }
}

fn without_effect(flag: &str, variable: &str) -> String {
    format!("{flag} (or {variable}) has no effect without --proxy-protocol")
}

/// Reads a network, or a single address.
fn network(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse()
        .ok()
        .or_else(address)
        .ok_or_else(|| "expected a network or an address, such as 10.0.0.0/8, 192.0.2.7 or 2001:db8::/32".to_owned())
}
