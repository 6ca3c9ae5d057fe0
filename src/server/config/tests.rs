//! Tests of the bounds and combinations.

use super::*;

#[test]
fn the_default_makes_sense() {
    assert_eq!(Config::default().check(), Ok(()));
}

#[test]
fn what_is_out_of_bounds_or_pointless_is_named() {
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let limits = |limits| Config { limits, ..Config::default() };
    let sockets = |sockets| Config { sockets, ..Config::default() };
    for (field, config) in [
        ("limits.max_connections", limits(Limits { max_connections: Some(0), ..Limits::default() })),
        ("limits.rate_limit", limits(Limits { rate_limit: Some(1), ..Limits::default() })),
        ("limits.memory_limit", limits(Limits { memory_limit: Some(1_000), ..Limits::default() })),
        ("sockets.ipv6_only", sockets(SocketOptions { ipv6_only: true, ..SocketOptions::default() })),
    ] {
        let error = config.check().expect_err(field).to_string();
        assert!(error.starts_with(&format!("{field} ")), "{error}");
    }
    let mut config = Config::default();
    (config.timeouts.idle, config.timeouts.lifetime) = (seconds(60), seconds(30));
    assert!(config.check().expect_err("pointless").to_string().contains("timeouts.lifetime"));
}
