//! `edgecho serve`: starts a server from the flags, and turns its end into an exit status.

mod admin;
mod errors;
mod failure;
mod flags;
mod privileges;
mod proxy;
mod service;

use std::num::NonZeroUsize;
use std::process::ExitCode;

use edgecho::protocol::{Collect, Echo, Frame, Line, Protocol};
use edgecho::server::Config;
use edgecho::service::sandbox::Use;
use edgecho::sys::signal;

use super::status::{FAILURE, WRONG_FLAG};
use super::stderr;
pub(super) use flags::Serve;
use flags::{Name, ProtocolFlags};
use service::{Announcement, ServiceFlags, Setup};

impl From<Serve> for Config {
    fn from(flags: Serve) -> Self {
        flags.into_config().0
    }
}

impl Serve {
    /// Returns the configuration of the server, and the flags of the service around it.
    fn into_config(self) -> (Config, ServiceFlags) {
        let Self { listen, protocol: _, limits, proxy, times, sockets, privileges: _, service } = self;
        let mut config = Config::default();
        if let Some(addresses) = listen {
            config.listen = addresses;
        }
        config.limits.max_connections = limits.max_connections;
        config.limits.max_per_ip = limits.max_per_ip;
        config.limits.rate_limit = limits.rate_limit;
        config.limits.memory_limit = limits.memory_limit;
        config.limits.outbox_limit = usize::try_from(limits.outbox_limit).unwrap_or(usize::MAX);
        config.timeouts.idle = times.idle_timeout;
        config.timeouts.write = times.write_timeout.0;
        config.timeouts.lifetime = times.max_lifetime;
        config.timeouts.drain = times.drain_timeout;
        config.timeouts.drain_delay = times.drain_delay;
        config.sockets.backlog = limits.backlog;
        config.sockets.nodelay = !sockets.no_nodelay;
        config.sockets.keepalive = sockets.keepalive;
        config.sockets.reset_on_close = sockets.linger.is_some();
        config.sockets.recv_buffer = sockets.recv_buffer;
        config.sockets.send_buffer = sockets.send_buffer;
        config.sockets.reuse_port = sockets.reuse_port;
        config.sockets.defer_accept = sockets.defer_accept;
        config.sockets.user_timeout = sockets.user_timeout;
        config.sockets.ipv6_only = sockets.ipv6_only;
        config.sockets.bind_device = sockets.bind_device;
        config.busy_poll = times.busy_poll;
        config.stats_interval = times.stats_interval;
        config.status_interval = times.status_interval;
        config.heartbeat = times.heartbeat;
        config.copy = sockets.copy;
        config.proxy = proxy.options();
        config.time_turns = service.admin.is_given();
        config.limits.reserved_descriptors = service.admin.descriptors();
        (config, service)
    }
}

/// Serves until a signal ends the server, and returns the exit status.
pub(super) fn serve(options: Serve) -> ExitCode {
    if let Err(reason) = options.protocol.check(options.limits.memory_limit).and_then(|()| options.proxy.check()) {
        stderr::say(format_args!("error: {reason}"));
        return ExitCode::from(WRONG_FLAG);
    }
    let rights = match options.privileges.prepare() {
        Ok(rights) => rights,
        Err(failure) => return failure.report(),
    };
    let ProtocolFlags { protocol, max_line, max_frame, queue, output } = &options.protocol;
    let (protocol, max_line, max_frame, queue) = (*protocol, *max_line, *max_frame, *queue);
    let output = output.clone().filter(|path| path.as_os_str() != "-");
    let max_frame = max_frame.unwrap_or(Frame::MAX);
    let collect = (protocol == Name::Collect)
        .then(|| Collect::new(output.as_deref(), queue.map_or(Collect::QUEUE, NonZeroUsize::get), max_frame))
        .transpose();
    let collect = match collect {
        Ok(collect) => collect,
        Err(failure) => {
            let name = output.as_deref().map_or("stdout".to_owned(), |path| path.display().to_string());
            stderr::say(format_args!("error: cannot write to {name}: {failure}"));
            return ExitCode::from(FAILURE);
        }
    };
    // Stdout holds collected lines only.
    let announcement = if collect.is_some() && output.is_none() { Announcement::ToStderr } else { Announcement::ToStdout };
    let has_listen = options.listen.is_some();
    let (config, flags) = options.into_config();
    let uses = if collect.is_some() { Use::COLLECT } else { Use::empty() };
    let setup = Setup { config, has_listen, flags, rights, uses, announcement };
    if let Some(collect) = collect {
        return serve_protocol(collect, setup);
    }
    match protocol {
        Name::Echo | Name::Collect => serve_protocol(Echo, setup),
        Name::Line => serve_protocol(Line::new(max_line.unwrap_or(Line::MAX)), setup),
        Name::Frame => serve_protocol(Frame::new(max_frame), setup),
    }
}

fn serve_protocol(protocol: impl Protocol, setup: Setup) -> ExitCode {
    let result = service::start(protocol, setup).and_then(|server| Ok(server.run()?));
    match result {
        Ok(summary) => {
            if tracing::enabled!(tracing::Level::DEBUG) {
                stderr::say(&summary.statistics);
            }
            if let Some(number) = summary.interrupted_by {
                stderr::finish();
                // The parent process then sees which signal ended this one (wait(2)).
                let _ = signal::default_action(number);
                // Process 1 of a container survives the default action. It exits with the status that a shell would report.
                return ExitCode::from(u8::try_from(128 + number).unwrap_or(FAILURE));
            }
            if summary.aborted == 0 { ExitCode::SUCCESS } else { ExitCode::from(FAILURE) }
        }
        Err(failure) => failure.report(),
    }
}
