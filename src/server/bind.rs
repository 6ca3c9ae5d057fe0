//! From a [`Config`] to a listening [`Server`].

use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use tracing::warn;

use super::accept::{Acceptor, Listener};
use super::config::{Builder, Config, ConfigError, Limits, ListenAddress, SocketOptions};
use super::connection::Host;
use super::connections::Connections;
use super::drain::Drain;
use super::error::Error;
use super::fault::Fault;
use super::handle::{Handle, HandleEnd};
use super::inherited::Inherited;
use super::kernel::{Kernel, Linux};
use super::observer::{Observer, Watch};
use super::pressure::Pressure;
#[cfg(feature = "proxy")]
use super::proxy::Waiting;
use super::run::{EVENTS_PER_TURN, OTHER_DESCRIPTORS, Options, Server};
use super::statistics::Statistics;
use super::time::Time;
use super::tokens::{self, HANDLE, SIGNALS};
use super::turn::TurnBuffers;
use crate::event::{EventLoop, Signals, Token};
use crate::protocol::{Post, Protocol};
use crate::stream::Pipe;
use crate::sys::epoll::EpollFlags;
use crate::sys::limits::{self, Limit};
use crate::sys::signal::{self, Signal};

impl<P: Protocol> Server<P, Linux> {
    /// Listens on the addresses of `config`. SIGINT, SIGTERM, SIGHUP and SIGUSR1 are blocked in this thread from here on, and read by the loop; the
    /// soft limit on open descriptors is raised to the hard one.
    ///
    /// # Errors
    /// Returns [`Error::Config`] for a wrong configuration, [`Error::Listen`] for an address that the server cannot listen on,
    /// [`Error::Option`] for a socket option that cannot be set, and [`Error::System`] for any other failed call.
    pub fn bind(protocol: P, config: &Config) -> Result<Self, Error> {
        Self::bind_with(protocol, config, [])
    }

    /// Listens as [`bind`](Self::bind) does, and also on sockets that another process has opened and passes on, such as a service manager
    /// (systemd.socket(5)). To listen on these sockets only, clear [`Config::listen`].
    ///
    /// Clients that were queued before are served. The server sets the options and the backlog of [`Config::sockets`]; an option that is not
    /// given stays as the other process has set it. When a drain begins, the server stops accepting from an inherited socket at once, and leaves
    /// the queue to the next process.
    ///
    /// ```
    /// use std::net::{TcpListener, TcpStream};
    ///
    /// use edgecho::protocol::Echo;
    /// use edgecho::server::Server;
    ///
    /// let socket = TcpListener::bind("127.0.0.1:0")?;
    /// let address = socket.local_addr()?;
    /// let client = TcpStream::connect(address)?; // before there is a server
    ///
    /// let mut server = Server::builder().signals(false).bind_with(Echo, [socket.try_clone()?.into()])?;
    /// let handle = server.handle()?;
    /// let thread = std::thread::spawn(move || server.run());
    /// std::io::Write::write_all(&mut &client, b"hello")?;
    /// client.shutdown(std::net::Shutdown::Write)?;
    /// assert_eq!(std::io::read_to_string(&client)?, "hello");
    /// handle.drain();
    /// thread.join().expect("no panic")?;
    ///
    /// let _next = TcpStream::connect(address)?; // it waits for the next server
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Returns the errors of [`bind`](Self::bind), [`Error::Inherited`] for a descriptor that is not a listening TCP socket, and
    /// [`Error::TooLate`] for an option that the other process should have set.
    pub fn bind_with(protocol: P, config: &Config, inherited: impl IntoIterator<Item = Inherited>) -> Result<Self, Error> {
        let inherited = inherited.into_iter().map(Inherited::into_listener).collect::<Result<Vec<_>, _>>()?;
        config.check_with(inherited.iter().map(|(_, address)| *address))?;
        let limit = raise_descriptor_limit();
        warn_if_backlog_is_cut(config.sockets.backlog);
        let signals = config.signals.then(read_signals).transpose()?;
        let event_loop = EventLoop::new().map_err(Error::system("make an event loop (epoll_create1)"))?;
        if let Some(signals) = &signals {
            let watch = Error::system("watch for signals (epoll_ctl)");
            event_loop.watch(signals, Token::fixed(SIGNALS), EpollFlags::IN).map_err(watch)?;
        }

        let pipe = pipe_for::<P>(config)?;
        let mut listeners = Vec::new();
        let mut watch = |listener: Listener<OwnedFd, OwnedFd>| {
            event_loop.watch(&listener, tokens::of_listener(listeners.len()), EpollFlags::IN)?;
            listeners.push(listener);
            Ok(())
        };
        for (socket, address) in inherited {
            let listener = Listener::inherit(socket, address, &config.sockets)?;
            watch(listener).map_err(Error::system("watch for connections (epoll_ctl)"))?;
        }
        for address in &config.listen {
            for listener in bind_all(address, &config.sockets)? {
                watch(listener).map_err(Error::system("watch for connections (epoll_ctl)"))?;
            }
        }
        // The server's own descriptors, and the inherited ones, have the lowest numbers.
        let own = pipe.iter().flat_map(Pipe::ends).chain([event_loop.as_fd()]);
        let highest = own.chain(listeners.iter().map(AsFd::as_fd)).map(|fd| fd.as_raw_fd()).max().unwrap_or_default();
        let max_connections = max_connections(&config.limits, limit, highest)?;
        Ok(Self::assemble(protocol, config, Linux { event_loop, signals }, pipe, listeners, max_connections))
    }

    /// Returns a handle to this server, for use in other threads.
    ///
    /// # Errors
    /// Returns the errors of eventfd(2) and epoll_ctl(2).
    pub fn handle(&mut self) -> io::Result<Handle> {
        if let Some(handle) = self.handle_end.handle() {
            return Ok(handle);
        }
        let event_loop = &self.kernel.event_loop;
        let watch = |eventfd: &OwnedFd| event_loop.watch(eventfd, Token::fixed(HANDLE), EpollFlags::IN);
        self.handle_end.create(self.acceptor.addresses().collect(), watch)
    }
}

impl<P: Protocol, K: Kernel> Server<P, K> {
    /// Sets the observer, which the loop calls on its own thread. It replaces the one before. Without an observer the loop pays one branch a
    /// turn.
    pub fn set_observer(&mut self, observer: impl Observer + 'static) {
        self.watch = Some(Box::new(Watch::new(observer)));
    }

    /// Returns a server on another kernel than the real one, with listeners that are watched already: the n-th of them, counted from 0,
    /// under [`Server::listener_token`], and signals under [`Server::signals_token`]. The inherited ones come first. The limit on descriptors
    /// is ignored.
    ///
    /// # Errors
    /// Returns [`Error::Config`] for a wrong configuration, and [`Error::System`] if there is no pipe.
    #[doc(hidden)]
    pub fn on_kernel(
        protocol: P,
        config: &Config,
        kernel: K,
        inherited: impl IntoIterator<Item = (K::Listener, SocketAddr)>,
        listeners: impl IntoIterator<Item = (K::Listener, SocketAddr)>,
    ) -> Result<Self, Error> {
        config.check()?;
        let inherited = inherited.into_iter().map(|(socket, address)| Listener::inherited(socket, address, &config.sockets));
        let listeners = listeners.into_iter().map(|(socket, address)| Listener::new(socket, address));
        let listeners = inherited.chain(listeners).collect();
        let max_connections = config.limits.max_connections.unwrap_or(usize::MAX);
        Ok(Self::assemble(protocol, config, kernel, pipe_for::<P>(config)?, listeners, max_connections))
    }

    /// Returns the token for signals.
    #[doc(hidden)]
    #[must_use]
    pub fn signals_token() -> Token {
        Token::fixed(SIGNALS)
    }

    /// Returns the token for a listener.
    #[doc(hidden)]
    #[must_use]
    pub fn listener_token(index: usize) -> Token {
        tokens::of_listener(index)
    }

    fn assemble(
        protocol: P,
        config: &Config,
        kernel: K,
        pipe: Option<Pipe>,
        listeners: Vec<Listener<K::Listener, K::Stream>>,
        max_connections: usize,
    ) -> Self {
        let acceptor = Acceptor::new(listeners, max_connections, &config.limits);
        #[cfg(feature = "proxy")]
        let acceptor = if config.proxy.is_some() { acceptor.with_later_sources() } else { acceptor };
        Self {
            protocol: Host::new(protocol),
            connections: Connections::new(max_connections),
            acceptor,
            pressure: Pressure::new(&config.limits),
            time: Time::new(&kernel, config),
            kernel,
            drain: Drain::new(config.timeouts.drain_delay, config.timeouts.drain),
            buffers: TurnBuffers::new(EVENTS_PER_TURN, pipe),
            post: Post::default(),
            statistics: Statistics::new(config.time_turns),
            handle_end: HandleEnd::default(),
            options: Options { outbox_limit: config.limits.outbox_limit, resets_on_close: config.sockets.reset_on_close },
            end: None,
            watch: None,
            others: OTHER_DESCRIPTORS,
            #[cfg(feature = "proxy")]
            proxy: Waiting::from_config(config).map(Box::new),
        }
    }
}

impl Server<crate::protocol::Echo, Linux> {
    /// Returns a builder with the defaults of [`Config`]. The protocol comes last, in [`Builder::bind`].
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }
}

impl Builder {
    /// Listens. [`Server::run`] then serves `protocol`.
    ///
    /// # Errors
    /// Returns the errors of [`Server::bind`].
    pub fn bind<P: Protocol>(self, protocol: P) -> Result<Server<P, Linux>, Error> {
        Server::bind(protocol, &self.config())
    }

    /// Listens as [`bind`](Self::bind) does, and also on sockets that another process has opened, as [`Server::bind_with`] does. If there are
    /// any, the server listens on no other address than those of [`listen`](Self::listen).
    ///
    /// # Errors
    /// Returns the errors of [`Server::bind_with`].
    pub fn bind_with<P: Protocol>(
        self,
        protocol: P,
        inherited: impl IntoIterator<Item = Inherited>,
    ) -> Result<Server<P, Linux>, Error> {
        let inherited: Vec<_> = inherited.into_iter().collect();
        let builder = if inherited.is_empty() { self } else { self.without_default_address() };
        Server::bind_with(protocol, &builder.config(), inherited)
    }
}

/// Opens a signalfd(2) for the signals that drain the server or request statistics. A SIGHUP that is ignored at the start stays ignored, as
/// nohup(1) intends.
fn read_signals() -> Result<Signals, Error> {
    let mut names = vec![Signal::SIGINT, Signal::SIGTERM, Signal::SIGUSR1];
    if !signal::is_ignored(Signal::SIGHUP).map_err(Error::system("look at SIGHUP (rt_sigaction)"))? {
        names.push(Signal::SIGHUP);
    }
    Signals::new(&names).map_err(Error::system("read signals (signalfd4)"))
}

/// Returns a pipe for zero-copy echo, if the protocol returns its input unchanged. splice(2) has no `MSG_NOSIGNAL`: unless SIGPIPE is
/// ignored, as Rust's runtime sets it, a peer that vanishes could end the process. Then every byte is copied through the read buffer.
fn pipe_for<P: Protocol>(config: &Config) -> Result<Option<Pipe>, Error> {
    if config.copy
        || !P::RETURNS_INPUT
        || !signal::is_ignored(Signal::SIGPIPE).map_err(Error::system("look at SIGPIPE (rt_sigaction)"))?
    {
        return Ok(None);
    }
    Pipe::new().map(Some).map_err(Error::system("make a pipe (pipe2)"))
}

/// Returns the connection limit: the configured one, or the number that the limit on descriptors leaves room for above the highest descriptor
/// of the server itself and for the reserved ones.
fn max_connections(limits: &Limits, limit: u64, highest: RawFd) -> Result<usize, ConfigError> {
    let own = usize::try_from(highest + 1).unwrap_or_default().saturating_add(limits.reserved_descriptors);
    let possible = usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(own);
    match limits.max_connections {
        Some(wanted) if wanted > possible => Err(ConfigError::TooManyConnections { wanted, possible, limit }),
        None if possible == 0 => Err(ConfigError::TooManyConnections { wanted: 1, possible, limit }),
        Some(wanted) => Ok(wanted),
        None => Ok(possible),
    }
}

/// Warns if the kernel's backlog is shorter than the configured one: listen(2) cuts it silently.
fn warn_if_backlog_is_cut(backlog: i32) {
    let mut text = [0; 15];
    let read = File::open("/proc/sys/net/core/somaxconn").and_then(|mut file| file.read(&mut text));
    let text = str::from_utf8(&text[..read.unwrap_or_default()]).unwrap_or_default();
    if let Ok(somaxconn) = text.trim().parse::<i32>()
        && somaxconn < backlog
    {
        warn!("the backlog of {backlog} is cut to {somaxconn}: raise it with 'sysctl net.core.somaxconn={backlog}'");
    }
}

/// Listens on all addresses of a name. An address of a family that this host does not support is skipped, if there is another one.
fn bind_all(address: &ListenAddress, options: &SocketOptions) -> Result<Vec<Listener<OwnedFd, OwnedFd>>, Error> {
    let mut listeners = Vec::new();
    let mut failure = None;
    for &address in address.addresses() {
        match Listener::bind(&address, options) {
            Ok(listener) => listeners.push(listener),
            Err(Error::Listen { address, error })
                if matches!(Fault::of(&error), Fault::FamilyNotSupported | Fault::AddressNotAvailable) =>
            {
                failure = Some(Error::Listen { address, error });
            }
            Err(error) => return Err(error),
        }
    }
    match failure {
        Some(error) if listeners.is_empty() => Err(error),
        Some(error) => {
            warn!("{error}");
            Ok(listeners)
        }
        None => Ok(listeners),
    }
}

/// Raises the soft limit on descriptors to the hard one, because each connection takes one, and returns the limit in force. A server whose
/// limit cannot be raised serves as many connections as it allows.
fn raise_descriptor_limit() -> u64 {
    const USUAL_LIMIT: u64 = 1024;
    let limit = match limits::descriptors() {
        Ok(limit) if limit.soft < limit.hard => limit,
        Ok(limit) => return limit.soft,
        Err(error) => {
            warn!("cannot read the limit on open descriptors (getrlimit), taken to be {USUAL_LIMIT}: {error}");
            return USUAL_LIMIT;
        }
    };
    match limits::set_descriptors(Limit { soft: limit.hard, ..limit }) {
        Ok(()) => limit.hard,
        Err(error) => {
            warn!("cannot raise the limit on open descriptors (setrlimit): {error}");
            limit.soft
        }
    }
}
