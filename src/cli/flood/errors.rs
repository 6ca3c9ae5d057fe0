//! The errors of a flood in the words of the command line: flags instead of fields.

use edgecho::client::ConnectError;
use edgecho::client::flood::{Error, OptionsError};

use crate::cli::connecting;

/// Describes an error of a flood, with flags instead of fields.
pub(super) fn describe(error: &Error) -> String {
    match error {
        Error::Options(error) => describe_options(error),
        Error::Connect { error: cause, .. } => format!("{error}{}", advice(cause)),
        error => error.to_string(),
    }
}

fn describe_options(error: &OptionsError) -> String {
    let flag = match error.field() {
        "sizes" => "--size".to_owned(),
        "sources" => "--source".to_owned(),
        field => format!("--{}", field.replace('_', "-")),
    };
    format!("{flag} {}", error.problem())
}

/// Returns the flag that helps, as an addition to the text of the error.
fn advice(error: &ConnectError) -> &'static str {
    match error {
        ConnectError::Local(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => " (--source 127.0.0.1-127.0.0.8)",
        ConnectError::Local(error) if error.raw_os_error() == Some(libc::EMFILE) => " (--threads)",
        _ => connecting::advice(error),
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::Duration;

    use clap::CommandFactory;
    use edgecho::client::Framing;
    use edgecho::client::flood::{Load, Options, Sizes};

    use super::*;

    #[test]
    fn every_option_that_an_error_names_has_a_flag() {
        let command = crate::cli::Cli::command();
        let flood = command.find_subcommand("flood").expect("the command");
        let changes: [fn(&mut Options); 15] = [
            |options| options.connections = 0,
            |options| options.threads = 0,
            |options| options.threads = 60,
            |options| options.duration = Some(Duration::ZERO),
            |options| options.duration = None,
            |options| options.messages = Some(0),
            |options| options.warmup = Duration::MAX,
            |options| options.ramp_up = Duration::MAX,
            |options| options.timeout = Duration::ZERO,
            |options| options.busy_poll = Duration::MAX,
            |options| options.sizes = Sizes::List(Vec::new()),
            |options| options.load = Load::Closed { pipeline: 0 },
            |options| options.load = Load::Open { rate: 0.0, pipeline: 1 },
            |options| (options.framing, options.sizes) = (Framing::Line, Sizes::Range(1, 2)),
            |options| options.sources = vec![IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])],
        ];
        for change in changes {
            let mut options = Options::new("127.0.0.1".parse().expect("an address"));
            change(&mut options);
            let text = describe(&options.check().expect_err("an invalid option").into());
            let flag = text.split(' ').next().and_then(|word| word.strip_prefix("--")).expect("a flag first");
            assert!(flood.get_arguments().any(|argument| argument.get_long() == Some(flag)), "{text}");
        }
    }
}
