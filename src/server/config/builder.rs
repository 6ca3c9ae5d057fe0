//! A builder for a server's configuration.

use std::time::Duration;

use super::{Config, Limits, ListenAddress, SocketOptions, Timeouts};

/// Builds a [`Config`], and a server from it.
///
/// ```no_run
/// use std::time::Duration;
///
/// use edgecho::protocol::Line;
/// use edgecho::server::Server;
///
/// let server = Server::builder()
///     .listen("127.0.0.1:7777".parse()?)
///     .listen("[::1]:7777".parse()?)
///     .configure(|config| config.timeouts.idle = Some(Duration::from_secs(60)))
///     .bind(Line::default())?;
/// server.run()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Builder {
    config: Config,
    listens: bool,
}

impl Builder {
    /// Adds an address to listen on. The first one replaces the default.
    #[must_use]
    pub fn listen(mut self, address: ListenAddress) -> Self {
        if !std::mem::replace(&mut self.listens, true) {
            self.config.listen.clear();
        }
        self.config.listen.push(address);
        self
    }

    /// Sets the limits.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.config.limits = limits;
        self
    }

    /// Sets the timeouts.
    #[must_use]
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.config.timeouts = timeouts;
        self
    }

    /// Sets the socket options.
    #[must_use]
    pub fn sockets(mut self, sockets: SocketOptions) -> Self {
        self.config.sockets = sockets;
        self
    }

    /// Changes any field of the configuration.
    #[must_use]
    pub fn configure(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// Sets [`Config::busy_poll`].
    #[must_use]
    pub fn busy_poll(mut self, duration: Duration) -> Self {
        self.config.busy_poll = duration;
        self
    }

    /// Sets [`Config::status_interval`].
    #[must_use]
    pub fn status_interval(mut self, interval: Duration) -> Self {
        self.config.status_interval = Some(interval);
        self
    }

    /// Sets [`Config::heartbeat`].
    #[must_use]
    pub fn heartbeat(mut self, quiet: Duration) -> Self {
        self.config.heartbeat = Some(quiet);
        self
    }

    /// Sets [`Config::signals`].
    #[must_use]
    pub fn signals(mut self, are_read: bool) -> Self {
        self.config.signals = are_read;
        self
    }

    /// Listens on the addresses that were added, and not on the default one.
    pub(in crate::server) fn without_default_address(mut self) -> Self {
        if !self.listens {
            self.config.listen.clear();
        }
        self
    }

    /// Returns the configuration.
    #[must_use]
    pub fn config(self) -> Config {
        self.config
    }
}
