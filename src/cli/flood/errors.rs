//! The errors of a flood, with the flags that they concern.

use edgecho::client::ConnectError;
use edgecho::client::flood::Error;

use crate::cli::connecting;

/// Describes an error of a flood. The library names fields; this names flags.
pub(super) fn describe(error: &Error) -> String {
    match error {
        Error::Options(error) => format!("--{} {}", flag(error.field()), error.problem()),
        Error::Connect { error: cause, .. } => format!("{error}{}", advice(cause)),
        _ => error.to_string(),
    }
}

/// Returns the flag of a field of the options.
fn flag(field: &'static str) -> String {
    match field {
        "sizes" => "size".to_owned(),
        "sources" => "source".to_owned(),
        _ => field.replace('_', "-"),
    }
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
    use super::*;
    use edgecho::client::flood::Options;

    #[test]
    fn an_invalid_option_is_named_by_its_flag() {
        let mut options = Options::new("127.0.0.1".parse().expect("an address"));
        options.ramp_up = std::time::Duration::MAX;
        let error = options.check().expect_err("too long");
        assert_eq!(describe(&error.into()), "--ramp-up must be from 0s to 1day");
    }
}
