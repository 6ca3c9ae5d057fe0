//! `edgecho ping`, against services that echo and services that do not.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::faulty::{Wrong, serve};
use crate::for_both_servers;
use crate::schema::assert_valid;
use crate::support::client::free_address;
use crate::support::{PROGRAM, Process, Program, Server, edgecho, pause, run};

for_both_servers!(every_echo_comes_back_and_the_summary_says_so, the_servers_own_counters_agree);

/// Pings, and returns the status, stdout and stderr.
fn ping(target: SocketAddr, arguments: &[&str]) -> (ExitStatus, String, String) {
    run(edgecho(&["ping", &target.to_string()]).args(arguments))
}

/// Pings a service that does something wrong, and returns the status, and stdout with stderr.
fn ping_wrong(wrong: Wrong, arguments: &[&str]) -> (Option<i32>, String) {
    let (status, stdout, stderr) = ping(serve(wrong), arguments);
    (status.code(), stdout + &stderr)
}

fn every_echo_comes_back_and_the_summary_says_so(server: Server) {
    let process = Process::start(server, &[]).expect("it was compiled");
    for (size, interval) in [("1", "0"), ("11", "0.001"), ("64", "5ms"), ("1MiB", "0")] {
        let (status, stdout, stderr) = ping(process.address, &["-c", "5", "-i", interval, "-s", size]);
        assert_eq!(status.code(), Some(0), "{stdout}{stderr}");
        let lines: Vec<&str> = stdout.lines().collect();
        assert!(lines[0].starts_with(&format!("PING {}", process.address)), "{stdout}");
        assert!(lines[1].contains(&format!(" bytes from {}: seq=1 time=", process.address)), "{stdout}");
        assert!(lines[1].contains("(connected in ") && !lines[2].contains("connected"), "{stdout}");
        assert!(lines[5].contains("seq=5"), "{stdout}");
        assert!(stdout.contains("5 sent, 5 received, 0 lost (0 %)"), "{stdout}");
        assert!(stdout.contains("rtt min/avg/max/mdev = ") && stdout.contains("rtt p50/p90/p99 = "), "{stdout}");
    }
    process.terminate();
}

fn the_servers_own_counters_agree(server: Server) {
    if server == Server::C {
        return; // it counts nothing
    }
    let mut process = Process::start(server, &["-v"]).expect("it was compiled");
    ping(process.address, &["-c", "7", "-i", "0", "-s", "100"]);
    process.signal(Signal::SIGTERM);
    assert!(process.wait().success());
    // 16 bytes of handshake, 7 echoes.
    assert!(process.stderr().contains("received_bytes=716 sent_bytes=716"), "{}", process.stderr());
}

#[test]
fn what_happened_to_the_bytes_is_named_with_its_place() {
    // The third of 64 bytes each.
    for (wrong, place, words) in [
        (Wrong::Flips { at: 145 }, "seq=3 corrupt at byte 17", "one bit flipped"),
        (Wrong::Drops { at: 145, count: 1 }, "seq=3 corrupt at byte 17", "1 byte dropped"),
        // At byte 0 if the fourth is not sent yet. Otherwise the two sequence numbers differ at byte 7.
        (Wrong::Repeats { at: 192, count: 64 }, "seq=4 corrupt at byte ", "duplicated"),
        (Wrong::Reorders { at: 140, count: 10 }, "seq=3 corrupt at byte 12", "reordered"),
    ] {
        let (status, said) = ping_wrong(wrong, &["-c", "5", "-i", "10ms", "-W", "1"]);
        assert_eq!(status, Some(1), "{said}");
        assert!(said.contains(place) && said.contains(words), "{wrong:?}: {said}");
        assert!(said.contains("seq=2 time=") && said.contains("seq=5 time="), "it goes on: {said}");
    }
}

#[test]
fn what_comes_late_is_told_from_what_never_comes() {
    let (status, said) = ping_wrong(Wrong::Delays { at: 128, millis: 300 }, &["-c", "12", "-i", "50ms", "-W", "0.1"]);
    assert_eq!(status, Some(0), "late is not lost: {said}");
    assert!(said.contains("seq=3 lost: not back within 100ms") && said.contains(" ms (late)"), "{said}");
    let (status, said) = ping_wrong(Wrong::Swallows { at: 128 }, &["-c", "4", "-i", "50ms", "-W", "0.1"]);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("4 sent, 2 received, 2 lost (50 %)"), "{said}");
}

#[test]
fn a_peer_that_closes_costs_what_was_on_its_way_and_is_called_again() {
    let (status, said) = ping_wrong(Wrong::Closes { at: 64 }, &["-c", "3", "-i", "20ms"]);
    assert_eq!(status, Some(0), "nothing was on its way: {said}");
    assert_eq!(said.matches("connected in").count(), 3, "{said}");
}

#[test]
fn a_service_that_does_not_echo_is_named() {
    for (wrong, words) in [
        (Wrong::Greets(b"220 mail.example ESMTP ready\r\n"), "an SMTP or FTP server"),
        (Wrong::Greets(b"SSH-2.0-OpenSSH_9.2p1\r\n"), "an SSH server"),
        (Wrong::Greets(b"Welcome!\r\n"), "it said \"Welcome!"),
        (Wrong::Answers(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"), "an HTTP server"),
        (Wrong::Answers(b""), "closed the connection without returning anything"),
        (Wrong::IsSilent, "returned nothing of the handshake within 200ms"),
    ] {
        let (status, said) = ping_wrong(wrong, &["-c", "1", "--handshake-timeout", "200ms"]);
        assert_eq!(status, Some(2), "{said}");
        assert!(said.contains(words) && said.contains("error: cannot ping 127.0.0.1:"), "{said}");
    }
    let (status, said) = ping_wrong(Wrong::Shouts, &["-c", "1", "-W", "0.5", "--no-handshake"]);
    assert_eq!(status, Some(1), "without a handshake it is measured all the same: {said}");
}

#[test]
fn nobody_there_is_an_error_and_may_be_waited_for() {
    let address = free_address();
    let (status, _, stderr) = ping(address, &["-c", "1"]);
    assert_eq!(status.code(), Some(2));
    assert!(stderr.contains("connection refused: nothing listens there"), "{stderr}");

    let mut command = edgecho(&["ping", &address.to_string(), "-c", "2", "-i", "0", "--retry", "100"]);
    let mut child = Program::spawn(command.stdout(Stdio::piped()));
    let mut stdout = child.take_lines();
    let mut said = read_until("trying again", &mut stdout);
    let process = Process::spawn(&mut edgecho(&["serve", "--listen", &address.to_string()]));
    let status = child.wait();
    stdout.read_to_string(&mut said).expect("text");
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("2 sent, 2 received"), "{said}");
    process.terminate();
}

#[test]
fn ctrl_c_ends_with_the_summary_and_sigquit_shows_it_on_the_way() {
    let process = Process::rust(&[]);
    let (mut child, mut stdout) = endless_ping(&process, &[]);
    read_until("seq=3", &mut stdout);
    child.signal(Signal::SIGQUIT);
    read_until("rtt p50", &mut stdout);
    child.signal(Signal::SIGINT);
    read_until("ping statistics", &mut stdout);
    let status = child.wait();
    assert_eq!(status.code(), Some(0));
    process.terminate();
}

#[test]
fn pings_keep_their_interval() {
    let process = Process::rust(&[]);
    let start = Instant::now();
    let (status, _, _) = ping(process.address, &["-c", "11", "-i", "20ms"]);
    assert_eq!(status.code(), Some(0));
    assert!(start.elapsed() >= Duration::from_millis(200), "never sooner");
    process.terminate();
}

#[test]
fn timestamps_and_sizes_are_checked() {
    let process = Process::rust(&[]);
    let (_, stdout, _) = ping(process.address, &["-c", "1", "-D"]);
    assert!(stdout.lines().take(2).all(|line| line.starts_with('[')), "{stdout}");
    for arguments in
        [&["-s", "0"] as &[_], &["-s", "17MiB"], &["-i", "-1"], &["-W", "soon"], &["-D", "--json"], &["-c", "x"]]
    {
        let (status, _, stderr) = ping(process.address, arguments);
        assert_eq!(status.code(), Some(2), "{arguments:?}");
        assert!(stderr.starts_with("error: "), "{stderr}");
    }
    process.terminate();
}

#[test]
fn each_line_of_json_is_what_the_schema_allows() {
    let mut seen = Vec::new();
    for wrong in [Wrong::Nothing, Wrong::Flips { at: 70 }, Wrong::Swallows { at: 64 }, Wrong::Closes { at: 96 }] {
        let (_, stdout, _) = ping(serve(wrong), &["-c", "3", "-i", "10ms", "-W", "0.1", "--json"]);
        for line in stdout.lines() {
            let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
            assert_valid(&line, "ping-line");
            seen.push(line["type"].as_str().expect("a type").to_owned());
        }
        assert_eq!(seen.last().expect("a line"), "summary");
    }
    assert!(["echo", "lost", "corrupt"].iter().all(|kind| seen.iter().any(|seen| seen == kind)), "{seen:?}");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let process = Process::rust(&[]);
    let script = format!("\"$0\" ping {} -i 1ms -c 200 | head -n 2; exit \"${{PIPESTATUS:-0}}\"", process.address);
    let (status, stdout, stderr) = run(Command::new("bash").args(["-c", &script, PROGRAM]));
    assert!(status.success(), "{stdout}{stderr}");
    assert!(!stderr.contains("panicked") && stderr.is_empty(), "{stderr}");
    process.terminate();
}

/// Starts a ping without end, and returns its stdout, too.
fn endless_ping(process: &Process, arguments: &[&str]) -> (Program, BufReader<ChildStdout>) {
    let mut child = Program::piped(edgecho(&["ping", &process.address.to_string(), "-i", "10ms"]).args(arguments));
    let stdout = child.take_lines();
    (child, stdout)
}

/// Reads lines up to one with `words`, and returns them all.
fn read_until(words: &str, stdout: &mut impl BufRead) -> String {
    let mut said = String::new();
    while !said.contains(words) {
        assert!(stdout.read_line(&mut said).expect("a line") > 0, "{words} was not said: {said}");
    }
    said
}

#[test]
fn sigusr1_shows_the_summary_on_the_way_and_sighup_ends_with_it() {
    let process = Process::rust(&[]);
    let (mut child, mut stdout) = endless_ping(&process, &[]);
    read_until("seq=3", &mut stdout);
    child.signal(Signal::SIGUSR1);
    read_until("rtt p50", &mut stdout);
    read_until("seq=", &mut stdout);
    child.signal(Signal::SIGHUP);
    read_until("ping statistics", &mut stdout);
    let status = child.wait();
    assert_eq!(status.code(), Some(0));
    process.terminate();
}

#[test]
fn an_interim_summary_in_json_is_told_from_the_last() {
    let process = Process::rust(&[]);
    let (mut child, mut stdout) = endless_ping(&process, &["--json"]);
    read_until("\"seq\":3,", &mut stdout);
    for (signal, is_interim) in [(Signal::SIGUSR1, true), (Signal::SIGINT, false)] {
        child.signal(signal);
        let said = read_until("\"type\":\"summary\"", &mut stdout);
        let line: serde_json::Value = serde_json::from_str(said.lines().last().expect("a line")).expect("JSON");
        assert_valid(&line, "ping-line");
        assert_eq!(line["interim"], is_interim, "{line}");
    }
    assert_eq!(child.wait().code(), Some(0));
    process.terminate();
}

#[test]
fn sighup_that_is_ignored_stays_ignored() {
    let process = Process::rust(&[]);
    let mut command = Command::new("nohup");
    command.args([PROGRAM, "ping", &process.address.to_string(), "-i", "10ms"]);
    let mut child = Program::spawn(command.stdout(Stdio::piped()).stderr(Stdio::null()));
    let mut stdout = child.take_lines();
    read_until("seq=3 ", &mut stdout);
    child.signal(Signal::SIGHUP);
    read_until("seq=20 ", &mut stdout);
    child.signal(Signal::SIGINT);
    read_until("ping statistics", &mut stdout);
    assert_eq!(child.wait().code(), Some(0));
    process.terminate();
}

#[test]
fn quiet_prints_only_the_header_and_the_summary() {
    let process = Process::rust(&[]);
    for arguments in [["ping", "-q"], ["-q", "ping"]] {
        let address = process.address.to_string();
        let (status, stdout, stderr) = run(edgecho(&arguments).args([&address, "-c", "3", "-i", "0"]));
        assert_eq!((status.code(), &stderr[..]), (Some(0), ""), "{stdout}");
        let lines: Vec<&str> = stdout.lines().collect();
        assert!(lines[0].starts_with("PING ") && lines[1].is_empty() && lines[2].starts_with("--- "), "{stdout}");
        assert!(lines.len() == 6 && stdout.contains("3 sent, 3 received"), "{stdout}");
    }
    let (status, stdout, _) =
        ping(serve(Wrong::Swallows { at: 64 }), &["-q", "-c", "2", "-i", "10ms", "-W", "0.1", "--json"]);
    assert_eq!(status.code(), Some(1), "{stdout}");
    assert!(stdout.lines().count() == 1 && stdout.contains("\"type\":\"summary\""), "{stdout}");
    // Requested figures are printed all the same.
    let (mut child, mut stdout) = endless_ping(&process, &["-q"]);
    read_until("PING", &mut stdout);
    let mut figures = String::new();
    while !figures.contains("sent, ") || figures.contains(" 0 received") {
        child.signal(Signal::SIGQUIT);
        figures = read_until("sent, ", &mut stdout);
    }
    child.signal(Signal::SIGINT);
    read_until("ping statistics", &mut stdout);
    assert_eq!(child.wait().code(), Some(0));
    process.terminate();
}

#[test]
fn an_output_that_cannot_be_written_is_an_error() {
    let process = Process::rust(&[]);
    for arguments in [&[] as &[_], &["--json"], &["-q"]] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
        let mut command = edgecho(&["ping", &process.address.to_string(), "-c", "3", "-i", "0"]);
        let (status, _, stderr) = Program::spawn(command.args(arguments).stdout(full).stderr(Stdio::piped())).finish();
        assert_eq!(status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains("error: cannot write the report: No space left on device"), "{stderr}");
    }
    process.terminate();
}

#[test]
fn a_ping_that_was_stopped_reads_what_has_come_before_it_calls_it_lost() {
    let target = serve(Wrong::IsSlow { micros: 20_000 }).to_string();
    let mut command = edgecho(&["ping", &target, "-i", "0", "-c", "20", "-W", "400ms"]);
    let mut child = Program::spawn(command.stdout(Stdio::piped()));
    let mut stdout = child.take_lines();
    read_until("seq=3 ", &mut stdout);
    child.freeze();
    pause(Duration::from_millis(600)); // longer than the timeout
    child.thaw();
    let said = read_until("ping statistics", &mut stdout);
    assert!(!said.contains("lost: not back") && said.contains("seq=20 "), "{said}");
    assert_eq!(child.wait().code(), Some(0), "{said}");
}
