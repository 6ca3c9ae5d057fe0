//! The flag of the admin endpoint, and its start.

use clap::Args;
use edgecho::server::{Error, Fault, Handle, ListenAddress};
use edgecho::service::admin::Admin;

#[derive(Debug, Args)]
#[command(next_help_heading = "Service")]
pub(super) struct AdminFlags {
    /// Serve metrics, health checks and a live page over HTTP on this address
    ///
    /// IPV4:PORT, [IPV6]:PORT or NAME:PORT; off by default. Port 0 lets the kernel choose a free port. The server prints
    /// 'admin endpoint on http://ADDR' after all 'listening on ADDR'. Paths: /metrics, /livez, /readyz and / for browsers. There is no
    /// access control: use an address that only the monitoring can reach.
    #[arg(long, value_name = "ADDR", env = "EDGECHO_ADMIN")]
    pub(super) admin: Option<ListenAddress>,
}

/// Starts the endpoint.
///
/// # Errors
/// Returns a description in the words of the command line.
pub(super) fn start(address: &ListenAddress, service: Handle) -> Result<Admin, String> {
    Admin::start(address, service).map_err(|error| match error {
        Error::Listen { address, error } if Fault::of(&error) == Fault::AddressInUse => format!(
            "cannot listen on {address} for the admin endpoint: {error}; another socket has this port: choose another port with --admin, or \
             find its owner with 'ss -ltnp'"
        ),
        Error::Listen { address, error } => format!("cannot listen on {address} for the admin endpoint (--admin): {error}"),
        error => format!("cannot start the admin endpoint (--admin): {error}"),
    })
}
