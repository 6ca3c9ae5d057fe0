//! Values of flags that are refused: the message names the flag and what it expects.

use crate::support::{edgecho, run};

/// Runs a command that must be refused, and checks that its stderr names the flag and says what is expected.
#[track_caller]
fn assert_refused(arguments: &str, flag: &str, expected: &str) {
    let (status, _, stderr) = run(&mut edgecho(&arguments.split(' ').collect::<Vec<_>>()));
    assert_eq!(status.code(), Some(2), "{arguments}: {stderr}");
    assert!(stderr.starts_with("error: invalid value ") && stderr.contains(flag), "{arguments}: {stderr}");
    assert!(stderr.contains(&format!(": expected {expected}\n")), "{arguments}: {stderr}");
}

#[test]
fn a_number_out_of_its_bounds_is_refused_with_the_bounds() {
    let any = "a whole number from 0 to 18446744073709551615";
    for value in ["x", "1.5", "99999999999999999999", "1e3"] {
        assert_refused(&format!("ping 127.0.0.1 -c {value}"), "--count", any);
        assert_refused(&format!("flood 127.0.0.1 --seed {value}"), "--seed", any);
        assert_refused(&format!("flood 127.0.0.1 -c {value}"), "--connections", "a whole number from 1 to 1000000");
        assert_refused(&format!("flood 127.0.0.1 --threads {value}"), "--threads", "a whole number from 1 to 256");
        assert_refused(&format!("flood 127.0.0.1 --pipeline {value}"), "--pipeline", "a whole number from 1 to 4096");
        assert_refused(&format!("ping 127.0.0.1 --retry {value}"), "--retry", "a whole number from 0 to 4294967295");
        assert_refused(&format!("serve --backlog {value}"), "--backlog", "a whole number from 1 to 2147483647");
        assert_refused(&format!("serve --max-per-ip {value}"), "--max-per-ip", "a whole number from 1 to 4294967295");
    }
    assert_refused("flood 127.0.0.1 -n 0", "--messages", "a whole number from 1 to 18446744073709551615");
    assert_refused("serve --queue 0", "--queue", "a whole number from 1 to 4294967295");
    let rate = "messages per second such as 50000 or 50k, from 0.001 to 100000000";
    assert_refused("flood 127.0.0.1 --rate 0", "--rate", rate);
    assert_refused("flood 127.0.0.1 --rate 1000M", "--rate", rate);
}

#[test]
fn a_size_out_of_its_bounds_is_refused_with_the_bounds() {
    for value in ["x", "0", "1.5", "17MiB", "4Kib5"] {
        let expected = "a size such as 64, 4KiB or 1MiB, from 1B to 16MiB";
        assert_refused(&format!("ping 127.0.0.1 -s {value}"), "--size", expected);
    }
    assert_refused("serve --recv-buffer 5", "--recv-buffer", "a size such as 64, 4KiB or 1MiB, from 1KiB to 1GiB");
    assert_refused("serve --memory-limit x", "--memory-limit", "a size such as 64, 4KiB or 1MiB, of at least 64KiB");
}

#[test]
fn a_duration_out_of_its_bounds_is_refused_with_the_bounds() {
    let from_to = |bounds: &str| format!("a duration such as 300ms, 5s or 2m, {bounds}");
    for value in ["x", "0", "1e400", "2h", "0.0001"] {
        let expected = from_to("from 1ms to 1h");
        for (command, flag) in [
            ("ping 127.0.0.1 -W", "--timeout"),
            ("ping 127.0.0.1 --connect-timeout", "--connect-timeout"),
            ("flood 127.0.0.1 --handshake-timeout", "--handshake-timeout"),
            ("send 127.0.0.1 --connect-timeout", "--connect-timeout"),
        ] {
            assert_refused(&format!("{command} {value}"), flag, &expected);
        }
    }
    assert_refused("ping 127.0.0.1 -i 2days", "--interval", &from_to("from 0s to 1day"));
    assert_refused("ping 127.0.0.1 --busy-poll 2", "--busy-poll", &from_to("from 0s to 1s"));
    assert_refused("serve --write-timeout x", "--write-timeout", &from_to("from 10ms to 20days, or 'off'"));
    let (status, _, stderr) = run(edgecho(&["serve"]).env("EDGECHO_IDLE_TIMEOUT", "bad"));
    assert_eq!(status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("--idle-timeout") && stderr.contains(&from_to("from 10ms to 20days")), "{stderr}");
}

#[test]
fn a_negative_value_is_refused_by_its_own_flag() {
    for (arguments, flag) in [
        ("ping 127.0.0.1 -c -1", "--count"),
        ("ping 127.0.0.1 -i -0.2", "--interval"),
        ("ping 127.0.0.1 -W -1s", "--timeout"),
        ("ping 127.0.0.1 -s -64", "--size"),
        ("flood 127.0.0.1 -n -1", "--messages"),
        ("flood 127.0.0.1 -s -4KiB", "--size"),
        ("flood 127.0.0.1 --rate -5k", "--rate"),
        ("serve --queue -1", "--queue"),
        ("serve --idle-timeout -5s", "--idle-timeout"),
        ("serve --write-timeout -5s", "--write-timeout"),
    ] {
        let (status, _, stderr) = run(&mut edgecho(&arguments.split(' ').collect::<Vec<_>>()));
        assert_eq!(status.code(), Some(2), "{arguments}: {stderr}");
        assert!(stderr.starts_with("error: invalid value '-") && stderr.contains(flag), "{arguments}: {stderr}");
        assert!(stderr.contains("expected "), "{arguments}: {stderr}");
    }
}
