//! Signals: they end a flood early with its report, or print interim figures.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::count;
use crate::faulty::{Wrong, serve};
use crate::support::client::free_address;
use crate::support::proc::{self, work_of_all_threads};
use crate::support::{PROGRAM, Process, Program, edgecho, eventually, wait_until};

#[test]
fn ctrl_c_ends_early_and_still_reports() {
    let process = Process::rust(&[]);
    let mut child = endless_flood(&process, &[]);
    child.signal(Signal::SIGINT);
    let (status, table, stderr) = child.finish();
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert!(table.contains("ended early") && table.contains(" 0 lost"), "{table}");
    assert!(table.contains("p99.9") && table.contains('█'), "{table}");
    process.terminate();
}

#[test]
fn ctrl_c_does_not_excuse_an_overloaded_flood() {
    let target = serve(Wrong::IsSlow { micros: 5_000 }).to_string();
    let mut child = Program::piped(&mut edgecho(&["flood", &target, "-c", "10", "-d", "1h", "--rate", "2000"]));
    eventually("it floods", || (work_of_all_threads(child.pid())?.1 > 500).then_some(()));
    child.signal(Signal::SIGINT);
    let (status, table, stderr) = child.finish();
    assert_eq!(status.code(), Some(1), "{table}{stderr}");
    assert!(table.contains("ended early") && stderr.contains("error: messages due and never sent: "), "{table}{stderr}");
}

/// Starts a flood for an hour, and waits until it has begun.
fn endless_flood(process: &Process, arguments: &[&str]) -> Program {
    let child = Program::piped(edgecho(&["flood", &process.address.to_string(), "-d", "1h", "-c", "5"]).args(arguments));
    let before = process.cpu_time();
    wait_until("it floods", || (process.cpu_time() - before).as_millis() > 50);
    child
}

#[test]
fn sigusr1_and_sigquit_print_interim_figures_and_go_on() {
    let process = Process::rust(&[]);
    let mut child = endless_flood(&process, &["--json", "-"]);
    let mut stderr = child.take_stderr();
    // The CPU time may be that of the handshakes alone.
    wait_until("messages come back", || process.figure("received_bytes") > 100_000);
    for asked in [Signal::SIGUSR1, Signal::SIGQUIT] {
        child.signal(asked);
        let mut figures = String::new();
        let mut byte = [0];
        while !figures.ends_with('\n') {
            assert!(stderr.read(&mut byte).expect("read") > 0, "it has ended: {figures}");
            figures.push(char::from(byte[0]));
        }
        for words in ["s: ", " sent, ", " returned, 0 lost, ", " messages/s", "p50 ", "p99 ", "0 failed"] {
            assert!(figures.contains(words), "{words}: {figures}");
        }
    }
    child.signal(Signal::SIGINT);
    let (status, stdout, _) = child.finish();
    assert_eq!(status.code(), Some(0), "{:?}", std::io::read_to_string(stderr));
    let report: Value = serde_json::from_str(&stdout).expect("nothing else on stdout");
    assert!(count(&report, "/messages/returned") > 0, "{report:#}");
    process.terminate();
}

#[test]
fn sighup_ends_early_with_a_report_unless_it_is_ignored() {
    let process = Process::rust(&[]);
    let mut child = endless_flood(&process, &[]);
    child.signal(Signal::SIGHUP);
    let (status, table, stderr) = child.finish();
    assert_eq!(status.code(), Some(0), "{:?} {stderr}", status.signal());
    assert!(table.contains("ended early") && table.contains(" 0 lost"), "{table}");

    let mut command = Command::new("nohup");
    command.args([PROGRAM, "flood", &process.address.to_string(), "-d", "1h", "-c", "5"]);
    let mut child = Program::piped(&mut command);
    let before = process.cpu_time();
    wait_until("it floods", || (process.cpu_time() - before).as_millis() > 50);
    child.signal(Signal::SIGHUP);
    let before = process.cpu_time();
    wait_until("it goes on", || (process.cpu_time() - before).as_millis() > 50);
    child.signal(Signal::SIGINT);
    let (status, table, stderr) = child.finish();
    assert_eq!(status.code(), Some(0), "{table}{stderr}");
    process.terminate();
}

#[test]
fn a_signal_before_the_first_connection_ends_the_attempts() {
    let address = free_address().to_string();
    // With --churn one connection is tried before all others.
    for load in [&["--churn"] as &[_], &[]] {
        let mut child = Program::piped(edgecho(&["flood", &address, "--retry", "1000"]).args(load));
        wait_until("it catches the signal", || proc::catches(child.pid(), Signal::SIGHUP));
        wait_until("it tries", || work_of_all_threads(child.pid()).is_some_and(|(_, sleeps)| sleeps > 4));
        child.signal(Signal::SIGHUP);
        let (status, _, stderr) = child.finish();
        assert_eq!(status.code(), Some(2), "{load:?} {:?}: {stderr}", status.signal());
        assert!(stderr.contains("error: cannot flood 127.77.0."), "{load:?}: {stderr}");
    }
}
