//! The errors of the library in the words of the command line: flags instead of fields.

use std::borrow::Cow;

use edgecho::server::{ConfigError, Error, Fault};

/// Describes an error of a server, with flags instead of fields.
pub(super) fn describe(error: &Error) -> String {
    match error {
        Error::Config(error) => describe_config(error),
        Error::Listen { address, error } if Fault::of(error) == Fault::AddressInUse => format!(
            "cannot listen on {address}: {error}; another socket has this port: choose another port with --listen, or find its owner with \
             'ss -ltnp'"
        ),
        Error::Listen { address, error } if Fault::of(error) == Fault::NotPermitted => format!(
            "cannot listen on {address}: {error}; ports under 1024 need CAP_NET_BIND_SERVICE: choose a higher port with --listen, start as root \
             with --user, or let systemd open the socket"
        ),
        Error::Option { option, address, error } => format!("cannot set {} on {address}: {error}", flag(option)),
        Error::TooLate { option, .. } => error.to_string().replacen(option, &flag(option), 1),
        error => error.to_string(),
    }
}

fn describe_config(error: &ConfigError) -> String {
    match error {
        ConfigError::OutOfBounds { field, bounds } => format!("{} must be {bounds}", flag(field)),
        ConfigError::TooManyConnections { .. } => error.to_string().replace("limits.max_connections", "--max-connections"),
        ConfigError::NeverReached { field, smaller } => {
            format!("{} is more than {}, so it can never be reached", flag(field), flag(smaller))
        }
        ConfigError::NoIpv6Address => {
            "--ipv6-only has no effect: there is no IPv6 address to listen on; give one with --listen '[::]:7777'".to_owned()
        }
        error => error.to_string(),
    }
}

/// Returns the flag of a field of `Config`. Anything else, such as `SO_REUSEADDR`, is returned as it is.
fn flag(field: &str) -> Cow<'_, str> {
    match field {
        "timeouts.idle" => "--idle-timeout".into(),
        "timeouts.write" => "--write-timeout".into(),
        "timeouts.lifetime" => "--max-lifetime".into(),
        "timeouts.drain" => "--drain-timeout".into(),
        "sockets.reset_on_close" => "--linger".into(),
        "proxy.from" => "--proxy-from".into(),
        "proxy.timeout" => "--proxy-timeout".into(),
        _ if field.starts_with(|letter: char| letter.is_ascii_uppercase()) => field.into(),
        _ => format!("--{}", field.rsplit('.').next().unwrap_or(field).replace('_', "-")).into(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use edgecho::server::Config;

    use super::*;

    #[test]
    fn every_field_that_an_error_names_has_a_flag() {
        let command = crate::cli::Cli::command();
        let serve = command.find_subcommand("serve").expect("the command");
        let mut config = Config::default();
        config.limits.max_connections = Some(0);
        let error = config.check().expect_err("out of bounds");
        assert_eq!(describe(&error.into()), "--max-connections must be at least 1");
        for field in [
            "limits.max_connections",
            "limits.max_per_ip",
            "limits.rate_limit",
            "limits.memory_limit",
            "limits.outbox_limit",
            "timeouts.idle",
            "timeouts.write",
            "timeouts.lifetime",
            "timeouts.drain",
            "timeouts.drain_delay",
            "busy_poll",
            "stats_interval",
            "status_interval",
            "heartbeat",
            "sockets.backlog",
            "sockets.keepalive",
            "sockets.reset_on_close",
            "sockets.recv_buffer",
            "sockets.send_buffer",
            "sockets.reuse_port",
            "sockets.defer_accept",
            "sockets.user_timeout",
            "sockets.ipv6_only",
            "sockets.bind_device",
            "proxy.from",
            "proxy.timeout",
        ] {
            let flag = flag(field);
            let is_there = serve.get_arguments().any(|argument| argument.get_long() == flag.strip_prefix("--"));
            assert!(is_there, "{field} has no flag {flag}");
        }
        assert_eq!(flag("SO_REUSEADDR"), "SO_REUSEADDR");
    }
}
