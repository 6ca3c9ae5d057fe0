//! The parts of `src/service/` and the order in which they take effect.

use std::io::Write;
use std::net::SocketAddr;

use clap::Args;
use edgecho::protocol::Protocol;
use edgecho::server::{Config, Error, Server};
use edgecho::service::activation;
use edgecho::service::notify::Notifier;
use tracing::warn;

use super::admin::AdminFlags;
use super::errors;
use crate::cli::status::{FAILURE, WRONG_FLAG};
use crate::cli::{stderr, stdout};

/// The flags of the parts of the service.
#[derive(Debug, Args)]
#[command(next_help_heading = "Service")]
pub(super) struct ServiceFlags {
    #[command(flatten)]
    pub(super) admin: AdminFlags,
}

/// All that a server is started with, besides its protocol.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) config: Config,
    /// `--listen` is given.
    pub(super) has_listen: bool,
    pub(super) flags: ServiceFlags,
    pub(super) announcement: Announcement,
}

/// The reason why the server did not start, or has ended.
#[derive(Debug)]
pub(super) struct Failure {
    /// A message with flags instead of fields.
    pub(super) text: String,
    pub(super) status: u8,
}

impl Failure {
    /// Returns the failure of a part of the service, which has a message of its own.
    pub(super) fn new(error: impl std::fmt::Display) -> Self {
        Self { text: error.to_string(), status: FAILURE }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = if matches!(error, Error::Config(_)) { WRONG_FLAG } else { FAILURE };
        Self { text: errors::describe(&error), status }
    }
}

/// Starts a server: everything that happens before its loop. The order matters: what needs a right happens before the process gives up its
/// rights, and no step is left when the parent process learns that the server is ready.
pub(super) fn start<P: Protocol>(protocol: P, setup: &Setup) -> Result<Server<P>, Failure> {
    let Setup { config, has_listen, flags: ServiceFlags { admin }, announcement } = setup;
    // 1. Take the sockets that the environment names.
    let sockets = activation::take().map_err(Failure::new)?;
    // Connected now: later the process may lack the right, or the system call.
    let notifier = Notifier::from_environment().map_err(Failure::new)?;
    // 2. Listen.
    let mut server = if sockets.is_empty() || *has_listen {
        Server::bind_with(protocol, config, sockets)?
    } else {
        let mut config = config.clone();
        config.listen.clear();
        Server::bind_with(protocol, &config, sockets)?
    };
    // 3. Start the admin endpoint.
    let admin = admin.start(&mut server).map_err(Failure::new)?;
    // 4. Give up privileges.
    // 5. Install the sandbox.
    // 6. Announce the addresses.
    announce(&server, admin, *announcement);
    // 7. Notify the service manager. The loop does it, before it accepts the first connection.
    if let Some(notifier) = notifier {
        server.set_observer(notifier);
    }
    Ok(server)
}

/// The output for 'listening on ADDR'.
#[derive(Debug, Clone, Copy)]
pub(super) enum Announcement {
    ToStdout,
    ToStderr,
}

/// Prints each address that the server listens on, and then those of the admin endpoint. The first line tells the parent process that the
/// server is ready.
fn announce(server: &Server<impl Protocol>, admin: Vec<SocketAddr>, announcement: Announcement) {
    let listeners = server.local_addresses().map(|address| format!("listening on {address}"));
    for line in listeners.chain(admin.into_iter().map(|address| format!("admin endpoint on http://{address}"))) {
        let result = match announcement {
            Announcement::ToStderr => {
                stderr::say(&line);
                Ok(())
            }
            Announcement::ToStdout => {
                let mut out = stdout::lines();
                writeln!(out, "{line}").and_then(|()| out.flush())
            }
        };
        if let Err(failure) = result {
            warn!("{line}, but cannot say so: {failure}");
        }
    }
}
