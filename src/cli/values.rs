//! Parsers for the values of flags.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;
use edgecho::client::flood;
use edgecho::client::ping::Options;
use edgecho::server::Keepalive;

/// A duration that may be `off`.
#[derive(Debug, Clone, Copy)]
pub(super) struct OrOff(pub(super) Option<Duration>);

/// The addresses of a range. The `Arc` keeps clap from taking a `Vec` for a flag with several values.
pub(super) type Sources = Arc<[IpAddr]>;

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; expected a duration such as 5s or 500ms"))
}

pub(super) fn duration_or_off(text: &str) -> Result<OrOff, String> {
    if text == "off" { Ok(OrOff(None)) } else { duration(text).map(|duration| OrOff(Some(duration))) }
}

pub(super) fn linger(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Ok(Duration::ZERO),
        _ => {
            Err("the only value is 0s: with any other, close(2) blocks, and every other connection waits (socket(7))"
                .to_owned())
        }
    }
}

pub(super) fn keepalive(text: &str) -> Result<Keepalive, String> {
    let parts: Vec<&str> = text.split(',').collect();
    let count = |text: &str| text.parse().map_err(|_| format!("'{text}' is not a number of probes"));
    match parts[..] {
        [idle] => Ok(Keepalive::new(duration(idle)?)),
        [idle, interval, probes] => {
            let mut keepalive = Keepalive::new(duration(idle)?);
            (keepalive.interval, keepalive.count) = (Some(duration(interval)?), Some(count(probes)?));
            Ok(keepalive)
        }
        _ => Err("expected IDLE or IDLE,INTERVAL,COUNT, such as 60s,10s,6".to_owned()),
    }
}

pub(super) fn buffer_size(text: &str) -> Result<u32, String> {
    let size: ByteSize = text.parse().map_err(|error| format!("{error}; expected a size such as 64KiB"))?;
    let bounds = 1 << 10..=1 << 30;
    u32::try_from(size.as_u64())
        .ok()
        .filter(|size| bounds.contains(size))
        .ok_or("expected a size from 1KiB to 1GiB".to_owned())
}

/// Reads the name of a network interface: 1 to 15 bytes (netdevice(7), `IFNAMSIZ`). The kernel cuts a longer name, and takes an empty
/// one for all interfaces.
pub(super) fn interface(text: &str) -> Result<String, String> {
    match text.len() {
        1..=15 => Ok(text.to_owned()),
        _ => Err("expected the name of a network interface, such as eth0; 'ip link' lists them".to_owned()),
    }
}

/// Reads the length limit of a line or a frame, at most 1 GiB.
pub(super) fn piece_size(text: &str) -> Result<usize, String> {
    let size: ByteSize = text.parse().map_err(|error| format!("{error}; expected a size such as 64KiB"))?;
    usize::try_from(size.as_u64()).ok().filter(|&size| size <= 1 << 30).ok_or("expected a size up to 1GiB".to_owned())
}

/// Reads a duration, or a bare number of seconds as ping(8) does.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) => {
            Duration::try_from_secs_f64(seconds).map_err(|error| format!("{error}; expected seconds, such as 0.2"))
        }
        Err(_) => duration(text),
    }
}

/// Reads the size of a message, from 1 byte to 16 MiB.
pub(super) fn message_size(text: &str) -> Result<usize, String> {
    let size: ByteSize = text.parse().map_err(|error| format!("{error}; expected a size such as 64 or 4KiB"))?;
    usize::try_from(size.as_u64())
        .ok()
        .filter(|size| (1..=Options::MAX_SIZE).contains(size))
        .ok_or("expected a size from 1 to 16MiB".to_owned())
}

/// Reads messages per second: `50000`, `50k` or `1.5M`.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    let (digits, factor) = match text.trim_end_matches(['k', 'K', 'M']) {
        digits if digits.len() == text.len() => (digits, 1.0),
        digits if text.ends_with('M') && digits.len() + 1 == text.len() => (digits, 1e6),
        digits if digits.len() + 1 == text.len() => (digits, 1e3),
        _ => return Err("expected messages per second, such as 50000 or 50k".to_owned()),
    };
    let rate = digits.parse().ok().filter(|rate: &f64| rate.is_finite() && *rate > 0.0);
    rate.map(|rate| rate * factor).ok_or("expected messages per second, such as 50000 or 50k".to_owned())
}

/// Reads one address, or all from one to another.
pub(super) fn sources(text: &str) -> Result<Sources, String> {
    const EXPECTED: &str = "expected ADDR or ADDR-ADDR, such as 127.0.0.1-127.0.0.8";
    let address = |text: &str| text.parse::<IpAddr>().map_err(|_| format!("'{text}' is not an address; {EXPECTED}"));
    let Some((first, last)) = text.split_once('-') else { return Ok([address(text)?].into()) };
    let (first, last) = (address(first)?, address(last)?);
    let too_many = || format!("more than {} addresses", flood::Options::MAX_SOURCES);
    let range: Vec<IpAddr> = match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            let numbers = first.to_bits()..=last.to_bits();
            numbers.take(flood::Options::MAX_SOURCES + 1).map(|bits| Ipv4Addr::from_bits(bits).into()).collect()
        }
        (IpAddr::V6(first), IpAddr::V6(last)) => {
            let numbers = first.to_bits()..=last.to_bits();
            numbers.take(flood::Options::MAX_SOURCES + 1).map(|bits| Ipv6Addr::from_bits(bits).into()).collect()
        }
        _ => return Err(EXPECTED.to_owned()),
    };
    match range.len() {
        0 => Err(format!("{first} comes after {last}; {EXPECTED}")),
        length if length > flood::Options::MAX_SOURCES => Err(too_many()),
        _ => Ok(range.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_ranges_are_read() {
        assert_eq!([rate("50000"), rate("50k"), rate("1.5M")], [Ok(50_000.0), Ok(50_000.0), Ok(1_500_000.0)]);
        for text in ["", "k", "0", "-1", "1kk", "NaN", "inf"] {
            assert!(rate(text).is_err(), "{text}");
        }
        assert_eq!(sources("127.0.0.1-127.0.1.0").expect("a range").len(), 256);
        assert_eq!(sources("::1").expect("an address").len(), 1);
        for text in ["127.0.0.2-127.0.0.1", "127.0.0.1-::1", "0.0.0.0-255.255.255.255", "localhost", "-"] {
            assert!(sources(text).is_err(), "{text}");
        }
    }

    #[test]
    fn seconds_may_go_without_a_unit() {
        assert_eq!(seconds("0.2"), Ok(Duration::from_millis(200)));
        assert_eq!(seconds("0"), Ok(Duration::ZERO));
        assert_eq!(seconds("5ms"), Ok(Duration::from_millis(5)));
        for text in ["-1", "NaN", "1e300", "soon", ""] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
