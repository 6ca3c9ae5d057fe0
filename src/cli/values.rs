//! Parsers for the values of flags.

use std::any::TypeId;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;
use clap::builder::ValueParser;
use edgecho::client::flood;
use edgecho::server::Keepalive;

/// A duration that may be `off`.
#[derive(Debug, Clone, Copy)]
pub(super) struct OrOff(pub(super) Option<Duration>);

/// The addresses of a range. The `Arc` keeps clap from taking a `Vec` for a flag with several values.
pub(super) type Sources = Arc<[IpAddr]>;

// Bounds of durations.
pub(super) const MILLISECOND: Duration = Duration::from_millis(1);
pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const HOUR: Duration = Duration::from_secs(60 * 60);
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Returns whether the values of a parser are numbers, sizes or durations.
pub(super) fn is_quantity(parser: &ValueParser) -> bool {
    let values = parser.type_id();
    [
        TypeId::of::<usize>(),
        TypeId::of::<u64>(),
        TypeId::of::<u32>(),
        TypeId::of::<i32>(),
        TypeId::of::<f64>(),
        TypeId::of::<NonZeroUsize>(),
        TypeId::of::<flood::Sizes>(),
        TypeId::of::<Duration>(),
        TypeId::of::<OrOff>(),
        TypeId::of::<Keepalive>(),
    ]
    .iter()
    .any(|quantity| values == *quantity)
}

/// Returns a parser of whole numbers within `bounds`.
pub(super) fn number<T: TryFrom<u64> + 'static>(
    bounds: RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
    move |text| {
        let number = text.parse().ok().filter(|number| bounds.contains(number)).and_then(|number| number.try_into().ok());
        number.ok_or_else(|| format!("expected a whole number from {} to {}", bounds.start(), bounds.end()))
    }
}

/// Returns a parser of sizes within `bounds`, in bytes. Without an upper bound, `bounds` ends at `u64::MAX`.
pub(super) fn size<T: TryFrom<u64> + 'static>(
    bounds: RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
    move |text| {
        let bytes = text.parse().ok().map(|size: ByteSize| size.as_u64()).filter(|bytes| bounds.contains(bytes));
        bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| {
            let bounds = match (*bounds.start(), *bounds.end()) {
                (least, u64::MAX) => format!("of at least {}", in_units(least)),
                (least, most) => format!("from {} to {}", in_units(least), in_units(most)),
            };
            format!("expected a size such as 64, 4KiB or 1MiB, {bounds}")
        })
    }
}

/// Formats a bound of sizes as the command line takes it, without rounding.
fn in_units(bytes: u64) -> String {
    let units = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit = units.iter().find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit));
    unit.map_or_else(|| format!("{bytes}B"), |(unit, name)| format!("{}{name}", bytes / unit))
}

/// Returns a parser of durations within `bounds`.
pub(super) fn duration(
    bounds: RangeInclusive<Duration>,
) -> impl Fn(&str) -> Result<Duration, String> + Clone + Send + Sync + 'static {
    move |text| within(&bounds, humantime::parse_duration(text).ok())
}

/// Returns a parser of durations within `bounds`. A bare number is a number of seconds, as in ping(8).
pub(super) fn seconds(
    bounds: RangeInclusive<Duration>,
) -> impl Fn(&str) -> Result<Duration, String> + Clone + Send + Sync + 'static {
    move |text| {
        let duration = match text.parse() {
            Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
            Err(_) => humantime::parse_duration(text).ok(),
        };
        within(&bounds, duration)
    }
}

/// Returns a parser of durations within `bounds`, or `off`.
pub(super) fn duration_or_off(
    bounds: RangeInclusive<Duration>,
) -> impl Fn(&str) -> Result<OrOff, String> + Clone + Send + Sync + 'static {
    let duration = duration(bounds);
    move |text| match text {
        "off" => Ok(OrOff(None)),
        _ => duration(text).map(|duration| OrOff(Some(duration))).map_err(|error| format!("{error}, or 'off'")),
    }
}

fn within(bounds: &RangeInclusive<Duration>, duration: Option<Duration>) -> Result<Duration, String> {
    duration.filter(|duration| bounds.contains(duration)).ok_or_else(|| {
        let [least, most] = [bounds.start(), bounds.end()].map(|&bound| humantime::format_duration(bound));
        format!("expected a duration such as 300ms, 5s or 2m, from {least} to {most}")
    })
}

/// Reads the one value of SO_LINGER that does not block.
pub(super) fn linger(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Ok(Duration::ZERO),
        _ => {
            Err("the only value is 0s: with any other, close(2) blocks, and every other connection waits (socket(7))"
                .to_owned())
        }
    }
}

/// Reads whole seconds within the bounds that the kernel has for its timers (tcp(7)).
pub(super) fn whole_seconds(text: &str) -> Result<Duration, String> {
    let is_good = |time: &Duration| (1..=32_767).contains(&time.as_secs()) && time.subsec_nanos() == 0;
    let duration = humantime::parse_duration(text).ok().filter(is_good);
    duration.ok_or_else(|| "expected whole seconds such as 60s, from 1s to 32767s".to_owned())
}

pub(super) fn keepalive(text: &str) -> Result<Keepalive, String> {
    let parts: Vec<&str> = text.split(',').collect();
    match parts[..] {
        [idle] => Ok(Keepalive::new(whole_seconds(idle)?)),
        [idle, interval, probes] => {
            let mut keepalive = Keepalive::new(whole_seconds(idle)?);
            keepalive.interval = Some(whole_seconds(interval)?);
            keepalive.count = Some(number(1..=127)(probes).map_err(|error| format!("COUNT: {error}"))?);
            Ok(keepalive)
        }
        _ => Err("expected IDLE or IDLE,INTERVAL,COUNT, such as 60s,10s,6".to_owned()),
    }
}

/// Reads the number of frames in a queue.
pub(super) fn queue(text: &str) -> Result<NonZeroUsize, String> {
    number::<usize>(1..=u64::from(u32::MAX))(text).map(|frames| NonZeroUsize::MIN.saturating_add(frames - 1))
}

/// Reads the name of a network interface: 1 to 15 bytes (netdevice(7), `IFNAMSIZ`). The kernel cuts a longer name, and takes an empty
/// one for all interfaces.
pub(super) fn interface(text: &str) -> Result<String, String> {
    match text.len() {
        1..=15 => Ok(text.to_owned()),
        _ => Err("expected the name of a network interface, such as eth0; 'ip link' lists them".to_owned()),
    }
}

/// Reads messages per second: `50000`, `50k` or `1.5M`.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    let (digits, factor) = match text.as_bytes() {
        [.., b'k' | b'K'] => (&text[..text.len() - 1], 1e3),
        [.., b'M'] => (&text[..text.len() - 1], 1e6),
        _ => (text, 1.0),
    };
    let rate = digits.parse().ok().map(|rate: f64| rate * factor);
    rate.filter(|rate| (0.001..=flood::Options::MAX_RATE).contains(rate))
        .ok_or_else(|| "expected messages per second such as 50000 or 50k, from 0.001 to 100000000".to_owned())
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
        let seconds = seconds(Duration::ZERO..=DAY);
        assert_eq!(seconds("0.2"), Ok(Duration::from_millis(200)));
        assert_eq!(seconds("0"), Ok(Duration::ZERO));
        assert_eq!(seconds("5ms"), Ok(Duration::from_millis(5)));
        for text in ["-1", "NaN", "1e300", "1e400", "86401", "2days", "soon", ""] {
            let error = seconds(text).expect_err(text);
            assert_eq!(error, "expected a duration such as 300ms, 5s or 2m, from 0s to 1day");
        }
    }

    #[test]
    fn numbers_and_sizes_name_their_bounds() {
        let port = number::<u16>(1..=1_000_000);
        assert_eq!([port("1"), port("65535")], [Ok(1), Ok(65_535)]);
        for text in ["0", "-1", "1.5", "x", "", "65536", "1000001", "99999999999999999999"] {
            assert_eq!(port(text).expect_err(text), "expected a whole number from 1 to 1000000");
        }
        let bytes = size::<usize>(1..=16 << 20);
        assert_eq!([bytes("1"), bytes("4KiB"), bytes("16MiB")], [Ok(1), Ok(4096), Ok(16 << 20)]);
        for text in ["0", "-1", "x", "", "17MiB", "99999TiB"] {
            assert_eq!(bytes(text).expect_err(text), "expected a size such as 64, 4KiB or 1MiB, from 1B to 16MiB");
        }
        let error = size::<u64>(65_536..=u64::MAX)("1KiB").expect_err("too small");
        assert_eq!(error, "expected a size such as 64, 4KiB or 1MiB, of at least 64KiB");
    }
}
