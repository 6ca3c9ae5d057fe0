//! The parts of `src/service/` and the order in which they take effect.

use std::io::Write;
use std::net::SocketAddr;

use clap::Args;
use edgecho::protocol::Protocol;
use edgecho::server::{Config, Server};
use edgecho::service::activation;
use edgecho::service::notify::Notifier;
use edgecho::service::sandbox::Use;
use tracing::warn;

use super::admin::AdminFlags;
use super::failure::Failure;
use super::privileges::Rights;
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
    pub(super) rights: Rights,
    /// The protocol's work besides serving connections.
    pub(super) uses: Use,
    pub(super) announcement: Announcement,
}

/// Starts a server: everything that happens before its loop. The order matters: each step that needs a right comes before the process gives up
/// its rights, and no step is left when the parent process learns that the server is ready.
pub(super) fn start<P: Protocol>(protocol: P, setup: Setup) -> Result<Server<P>, Failure> {
    let Setup { mut config, has_listen, flags: ServiceFlags { admin }, rights, mut uses, announcement } = setup;
    // 1. Take the sockets that the environment names.
    let sockets = activation::take().map_err(Failure::new)?;
    // Connected now: later the process may lack the right, or the system call.
    let notifier = Notifier::from_environment().map_err(Failure::new)?;
    uses.set(Use::INHERITED, !sockets.is_empty());
    // 2. Listen.
    if !sockets.is_empty() && !has_listen {
        config.listen.clear();
    }
    let mut server = Server::bind_with(protocol, &config, sockets)?;
    // 3. Start the admin endpoint.
    uses.set(Use::ADMIN, admin.is_given());
    let admin = admin.start(&mut server)?;
    // 4. Give up privileges, and install the sandbox. From here on nothing can be opened, and no thread can start.
    uses.set(Use::ZERO_COPY, P::RETURNS_INPUT && !config.copy);
    rights.give_up(uses)?;
    // 5. Announce the addresses.
    announce(&server, admin, announcement);
    // 6. Notify the service manager. The loop does it, before it accepts the first connection.
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

/// Prints each address that the server listens on, and then the addresses of the admin endpoint. The first line tells the parent process that the
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
