//! The flag of the admin endpoint, and its start.

use std::net::SocketAddr;

use clap::Args;
use edgecho::protocol::Protocol;
use edgecho::server::{Error, Fault, ListenAddress, Server};
use edgecho::service::admin::Admin;

use super::failure::Failure;

#[derive(Debug, Args)]
#[command(next_help_heading = "Monitoring")]
pub(super) struct AdminFlags {
    /// Serve metrics, health checks and a live page over HTTP on this address
    ///
    /// IPV4:PORT, [IPV6]:PORT or NAME:PORT; off by default. Port 0 lets the kernel choose a free port. The server prints
    /// 'admin endpoint on http://ADDR' after all 'listening on ADDR'. Paths: /metrics, /livez, /readyz and / for browsers. There is no
    /// access control: use an address that only the monitoring can reach.
    #[arg(long, value_name = "ADDR", env = "EDGECHO_ADMIN")]
    pub(super) admin: Option<ListenAddress>,
}

impl AdminFlags {
    /// Returns whether there is an endpoint.
    pub(super) fn is_given(&self) -> bool {
        self.admin.is_some()
    }

    /// Returns the number of descriptors that the endpoint takes from the connections of the server.
    pub(super) fn descriptors(&self) -> usize {
        if self.is_given() { Admin::DESCRIPTORS } else { 0 }
    }

    /// Starts the endpoint of a server, if it is wanted. Returns its addresses. It answers until the process ends.
    pub(super) fn start(&self, server: &mut Server<impl Protocol>) -> Result<Vec<SocketAddr>, Failure> {
        let Some(address) = &self.admin else { return Ok(Vec::new()) };
        let handle = server.handle();
        let handle =
            handle.map_err(|error| Failure::new(format_args!("cannot make a handle (eventfd2, epoll_ctl): {error}")))?;
        let admin = Admin::start_with_log(address, handle).map_err(|error| Failure::new(describe(error)))?;
        let addresses = admin.local_addresses().to_vec();
        std::mem::forget(admin); // dropping it would end it
        Ok(addresses)
    }
}

/// Describes an error of the endpoint in the words of the command line.
fn describe(error: Error) -> String {
    match error {
        Error::Listen { address, error } => {
            let hint = match Fault::of(&error) {
                Fault::AddressInUse => {
                    "; another socket has this port: choose another port with --admin, or find its owner with 'ss -ltnp'"
                }
                fault => fault.hint(),
            };
            format!("cannot listen on {address} for the admin endpoint (--admin): {error}{hint}")
        }
        error => format!("cannot start the admin endpoint (--admin): {error}"),
    }
}
