//! `ping`, `flood` and `send` with `--send-proxy`, through a real HAProxy that accepts the PROXY protocol.
//!
//! The clients connect to the section `outside`, which knows the real addresses of a connection and passes on every byte to the section
//! `inside`. That accepts the PROXY protocol, so it logs the addresses that the header holds.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::Value;

use crate::addresses::{free_address, free_ipv6_address};
use crate::haproxy::Haproxy;
use crate::support::{Process, edgecho, run, wait_until};
use crate::tools::tool;

const VERSIONS: [&str; 2] = ["v1", "v2"];

/// Starts HAProxy with both sections in front of an echo server.
fn start(path: &Path, outside: SocketAddr, echo: SocketAddr) -> Haproxy {
    let inside = free_address();
    let sections = format!(
        "\
listen outside
    bind {outside}
    log-format \"outside %ci %cp %fi %fp\"
    server inside {inside}

listen inside
    bind {inside} accept-proxy
    log-format \"inside %ci %cp %fi %fp\"
    server echo {echo}
"
    );
    Haproxy::start(path, &sections)
}

/// Returns the addresses of all connections that a section has logged, sorted.
fn addresses(haproxy: &Haproxy, section: &str) -> Vec<String> {
    let log = haproxy.log();
    let mut lines: Vec<String> =
        log.lines().filter_map(|line| line.strip_prefix(section)?.strip_prefix(' ').map(ToOwned::to_owned)).collect();
    lines.sort_unstable();
    lines
}

/// Checks that the header of each of `count` connections held the real addresses.
fn check(haproxy: &Haproxy, count: usize, source: &str) {
    for section in ["outside", "inside"] {
        wait_until(&format!("{section} has logged {count} connections"), || addresses(haproxy, section).len() == count);
    }
    let (outside, inside) = (addresses(haproxy, "outside"), addresses(haproxy, "inside"));
    assert_eq!(outside, inside, "the real addresses, and the addresses in the headers");
    assert!(outside.iter().all(|line| line.starts_with(source)), "{outside:?}");
}

#[test]
fn the_headers_of_ping_hold_the_real_addresses_over_ipv4_and_ipv6() {
    let Some(path) = tool("the_headers_of_ping_hold_the_real_addresses_over_ipv4_and_ipv6", "haproxy") else { return };
    let server = Process::rust(&[]);
    for (outside, source) in [(free_address(), "127.0.0.1 "), (free_ipv6_address(), "::1 ")] {
        let haproxy = start(&path, outside, server.address);
        let target = outside.to_string();
        for version in VERSIONS {
            for more in [&[] as &[&str], &["--no-handshake"]] {
                let arguments = ["ping", "-c", "3", "-i", "0", "--send-proxy", version, &target];
                let (status, stdout, stderr) = run(edgecho(&arguments).args(more));
                assert!(status.success(), "{version} {more:?}: {stdout}{stderr}");
            }
        }
        check(&haproxy, 4, source);
    }
}

#[test]
fn the_headers_of_flood_hold_the_real_addresses_and_are_counted_apart() {
    let Some(path) = tool("the_headers_of_flood_hold_the_real_addresses_and_are_counted_apart", "haproxy") else { return };
    let server = Process::rust(&[]);
    for version in VERSIONS {
        for load in [&["--connections", "10"] as &[&str], &["--connections", "4", "--churn"], &["--no-handshake"]] {
            let outside = free_address();
            let haproxy = start(&path, outside, server.address);
            let target = outside.to_string();
            let common =
                ["--messages", "200", "--size", "1000", "--source", "127.0.0.9", "--send-proxy", version, "--json", "-"];
            let (status, stdout, stderr) = run(edgecho(&["flood", &target]).args(common).args(load));
            assert!(status.success(), "{version} {load:?}: {stdout}{stderr}");
            let report: Value = serde_json::from_str(&stdout).expect("JSON");
            let [sent, received] = ["sent", "received"].map(|name| report["bytes"][name].as_u64().expect("a number"));
            // The first connections of a churn send a message before its time begins.
            assert!(sent == received && (200_000..=204_000).contains(&sent), "{sent} sent, {received} received");
            let opened = report["connections"]["opened"].as_u64().expect("a number");
            let header_bytes = report["bytes"]["proxy_headers"].as_u64().expect("a number");
            match version {
                "v2" => assert_eq!(header_bytes, 28 * opened),
                _ => assert!((40 * opened..=56 * opened).contains(&header_bytes), "{header_bytes} of {opened} headers"),
            }
            assert_eq!(report["options"]["send_proxy"], version);
            check(&haproxy, opened as usize, "127.0.0.9 ");
        }
    }
}

#[test]
fn the_header_of_send_holds_the_real_addresses() {
    let Some(path) = tool("the_header_of_send_holds_the_real_addresses", "haproxy") else { return };
    let server = Process::rust(&[]);
    let outside = free_address();
    let haproxy = start(&path, outside, server.address);
    for version in VERSIONS {
        let script = "echo hello | \"$0\" send --send-proxy \"$1\" \"$2\"";
        let mut command = std::process::Command::new("sh");
        command.args(["-c", script, crate::support::PROGRAM, version, &outside.to_string()]);
        let (status, stdout, stderr) = run(&mut command);
        assert!(status.success() && stdout == "hello\n", "{version}: {stdout}{stderr}");
    }
    check(&haproxy, 2, "127.0.0.1 ");
}
