//! `edgecho flood`: its report says what happened to the bytes.

mod harm;
mod output;
mod schedule;
mod signals;
mod urgent;

use std::net::SocketAddr;
use std::process::{Command, ExitStatus, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::for_both_servers;
use crate::schema::assert_valid;
use crate::support::client::free_address;
use crate::support::{Process, Program, Server, edgecho, run, skip};

for_both_servers!(
    every_load_comes_back_whole,
    half_closed_connections_get_everything_and_then_the_fin,
    connections_that_come_and_go_are_all_served,
);

/// Floods, and returns the status, the JSON report and stderr.
fn flood(target: SocketAddr, arguments: &[&str]) -> (ExitStatus, Value, String) {
    let (status, stdout, stderr) = run(edgecho(&["flood", &target.to_string(), "--json", "-"]).args(arguments));
    let report = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}{stderr}"));
    assert_valid(&report, "flood");
    (status, report, stderr)
}

/// Returns a number of the report, by its JSON pointer.
fn number(report: &Value, path: &str) -> f64 {
    report.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("{path} is no number: {report:#}"))
}

/// Returns a whole number of the report, by its JSON pointer.
fn count(report: &Value, path: &str) -> u64 {
    report.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("{path} is no count: {report:#}"))
}

/// Returns the examples of a trouble, or nothing.
fn examples(report: &Value, name: &str) -> String {
    let troubles = report["troubles"].as_array().expect("a list");
    let found = troubles.iter().find(|trouble| trouble["name"] == name);
    found.map(|trouble| trouble["examples"].to_string()).unwrap_or_default()
}

/// Checks that everything that was sent came back, and that nothing went wrong.
fn assert_clean(status: ExitStatus, report: &Value, stderr: &str) {
    assert_eq!(status.code(), Some(0), "{stderr}{report:#}");
    for path in ["/messages/lost", "/messages/corrupt", "/messages/late", "/messages/unsent", "/connections/failed"] {
        assert_eq!(count(report, path), 0, "{path}: {report:#}");
    }
    assert_eq!(count(report, "/messages/sent"), count(report, "/messages/returned"));
    assert_eq!(count(report, "/bytes/sent"), count(report, "/bytes/received"));
    assert_eq!(report["troubles"], Value::Array(vec![]), "{report:#}");
}

fn every_load_comes_back_whole(server: Server) {
    let process = Process::start(server, &[]).expect("it was compiled");
    for arguments in [
        "-c 1 -n 1 -s 1",
        "-c 20 -n 5000",
        "-c 10 -n 5000 -s 1,64,4KiB,7 --pipeline 16",
        "-c 5 -n 200 -s 1-100KiB",
        "-c 2 -n 3 -s 16MiB",
        "-c 20 -n 2000 --rate 20000",
        "-c 20 -n 2000 --threads 3 --warmup 50ms",
        "-c 20 -n 2000 --verify sample",
        "-c 20 -n 2000 --verify off --no-handshake",
        "-c 10 -n 1000 --source 127.0.0.1-127.0.0.4 --busy-poll 1ms",
        "-c 10 -d 300ms --ramp-up 100ms",
    ] {
        let (status, report, stderr) = flood(process.address, &arguments.split(' ').collect::<Vec<_>>());
        assert_clean(status, &report, &stderr);
        if let Some(messages) = report["options"]["messages"].as_u64() {
            assert_eq!(count(&report, "/messages/returned"), messages, "{arguments}");
            assert_eq!(count(&report, "/latency_ms/count"), messages, "{arguments}");
        }
    }
    let (status, report, stderr) = flood(process.address, &["--bulk", "-c", "4", "-d", "300ms"]);
    assert_clean(status, &report, &stderr);
    assert!(count(&report, "/bytes/received") > 1_000_000, "{report:#}");
    process.terminate();
}

fn half_closed_connections_get_everything_and_then_the_fin(server: Server) {
    let process = Process::start(server, &[]).expect("it was compiled");
    for arguments in
        [&["-c", "10", "-n", "1000", "-s", "1-20000", "--pipeline", "8"] as &[_], &["--bulk", "-c", "3", "-d", "200ms"]]
    {
        let (status, report, stderr) = flood(process.address, &[arguments, &["--half-close"]].concat());
        assert_clean(status, &report, &stderr);
    }
    process.terminate();
}

fn connections_that_come_and_go_are_all_served(server: Server) {
    let process = Process::start(server, &[]).expect("it was compiled");
    for half_close in [&[] as &[_], &["--half-close"]] {
        let arguments = [&["--churn", "-c", "10", "-n", "1000"], half_close].concat();
        let (status, report, stderr) = flood(process.address, &arguments);
        assert_clean(status, &report, &stderr);
        // One connection checks that this is an echo service, and the first of each of the ten only waits for the start.
        assert!((1_000..=1_021).contains(&count(&report, "/connections/opened")), "{report:#}");
    }
    process.terminate();
}

#[test]
fn the_servers_own_counters_agree() {
    let mut process = Process::rust(&["-v"]);
    let (mut connections, mut bytes) = (0, 0);
    for arguments in
        ["-c 30 -n 3000 -s 1-500", "-c 10 -d 200ms --bulk", "--churn -c 5 -n 200", "-c 9 -d 200ms --rate 5k --warmup 100ms"]
    {
        let (status, report, stderr) = flood(process.address, &arguments.split(' ').collect::<Vec<_>>());
        assert_clean(status, &report, &stderr);
        connections += count(&report, "/connections/opened");
        bytes += count(&report, "/bytes/sent") + count(&report, "/bytes/handshakes");
    }
    process.signal(Signal::SIGTERM);
    assert!(process.wait().success());
    let log = process.stderr();
    for figure in [format!("accepted {connections}\n"), format!("received_bytes {bytes}\n"), format!("sent_bytes {bytes}\n")]
    {
        assert!(log.contains(&figure), "{figure} is not in {log}");
    }
}

fn is_installed(program: &str) -> bool {
    let mut command = Command::new("sh");
    command.args(["-c", "command -v \"$0\"", program]).stdout(Stdio::null()).status().is_ok_and(|status| status.success())
}

#[test]
fn other_echo_services_will_do_as_well() {
    for program in ["socat", "ncat"] {
        let address = free_address();
        let (host, port) = (address.ip().to_string(), address.port().to_string());
        let listen = format!("TCP-LISTEN:{port},bind={host},reuseaddr,fork,backlog=128");
        let mut command = Command::new(program);
        match program {
            "socat" => command.args([&listen, "EXEC:cat"]),
            _ => command.args(["-l", &host, &port, "-k", "-e", "/bin/cat"]),
        };
        if !is_installed(program) {
            skip("other_echo_services_will_do_as_well", &format!("{program} is missing"));
            continue;
        }
        let child = Program::spawn(command.stderr(Stdio::null()));
        let (status, stdout, stderr) =
            run(&mut edgecho(&["ping", &address.to_string(), "-c", "3", "-i", "0", "--retry", "100"]));
        assert_eq!(status.code(), Some(0), "{program}: {stdout}{stderr}");
        for arguments in ["-c 10 -n 1000 -s 1-2000", "-c 10 -n 500 --half-close", "-c 5 -n 200 --rate 2000"] {
            let (status, report, stderr) = flood(address, &arguments.split(' ').collect::<Vec<_>>());
            assert_clean(status, &report, &stderr);
        }
        drop(child);
    }
}
