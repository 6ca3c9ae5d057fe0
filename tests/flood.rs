//! `edgecho flood`, as its users meet it: what it reports must be what was done to the bytes.

mod support;

use std::net::{SocketAddr, TcpListener};
use std::process::{Command, ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use support::faulty::{Wrong, serve};
use support::{Killed, Process, Server, assert_valid, eventually, run, skip};

const PROGRAM: &str = env!("CARGO_BIN_EXE_edgecho");

for_both_servers!(
    every_load_comes_back_whole,
    half_closed_connections_get_everything_and_then_the_fin,
    connections_that_come_and_go_are_all_served,
);

/// Floods, and gives the status, the JSON report and stderr.
fn flood(target: SocketAddr, arguments: &[&str]) -> (ExitStatus, Value, String) {
    let (status, stdout, stderr) =
        run(Command::new(PROGRAM).args(["flood", &target.to_string(), "--json", "-"]).args(arguments));
    let report = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}{stderr}"));
    assert_valid(&report, "flood --json");
    (status, report, stderr)
}

/// A number of the report, by its path.
fn number(report: &Value, path: &str) -> f64 {
    report.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("{path} is no number: {report:#}"))
}

fn count(report: &Value, path: &str) -> u64 {
    report.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("{path} is no count: {report:#}"))
}

/// The examples of a trouble, or none.
fn examples(report: &Value, name: &str) -> String {
    let troubles = report["troubles"].as_array().expect("a list");
    let found = troubles.iter().find(|trouble| trouble["name"] == name);
    found.map(|trouble| trouble["examples"].to_string()).unwrap_or_default()
}

/// Everything that was sent came back, and nothing went wrong.
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
    let process = Process::start(server, &[]).expect("it was built");
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
    let process = Process::start(server, &[]).expect("it was built");
    for arguments in
        [&["-c", "10", "-n", "1000", "-s", "1-20000", "--pipeline", "8"] as &[_], &["--bulk", "-c", "3", "-d", "200ms"]]
    {
        let (status, report, stderr) = flood(process.address, &[arguments, &["--half-close"]].concat());
        assert_clean(status, &report, &stderr);
    }
    process.terminate();
}

fn connections_that_come_and_go_are_all_served(server: Server) {
    let process = Process::start(server, &[]).expect("it was built");
    for half_close in [&[] as &[_], &["--half-close"]] {
        let arguments = [&["--churn", "-c", "10", "-n", "1000"], half_close].concat();
        let (status, report, stderr) = flood(process.address, &arguments);
        assert_clean(status, &report, &stderr);
        // One asks whether this is an echo service, and the first of each place only waits for the start.
        assert!((1_000..=1_021).contains(&count(&report, "/connections/opened")), "{report:#}");
    }
    process.terminate();
}

#[test]
fn the_servers_own_counters_agree() {
    let mut process = Process::start(Server::Rust, &["-v"]).expect("the program");
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

/// A port that nobody listens on, for a program that cannot be told to choose one.
fn free_port() -> u16 {
    TcpListener::bind("127.78.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port()
}

#[test]
fn other_echo_services_will_do_as_well() {
    for program in ["socat", "ncat"] {
        let port = free_port().to_string();
        let listen = format!("TCP-LISTEN:{port},bind=127.78.0.1,reuseaddr,fork,backlog=128");
        let mut command = Command::new(program);
        match program {
            "socat" => command.args([&listen, "EXEC:cat"]),
            _ => command.args(["-l", "127.78.0.1", &port, "-k", "-e", "/bin/cat"]),
        };
        let Ok(child) = command.stderr(Stdio::null()).spawn() else {
            skip("other_echo_services_will_do_as_well", &format!("there is no {program}"));
            continue;
        };
        let child = Killed(child);
        let target = format!("127.78.0.1:{port}");
        let (status, stdout, stderr) =
            run(Command::new(PROGRAM).args(["ping", &target, "-c", "3", "-i", "0", "--retry", "20"]));
        assert_eq!(status.code(), Some(0), "{program}: {stdout}{stderr}");
        let address = target.parse().expect("an address");
        for arguments in ["-c 10 -n 1000 -s 1-2000", "-c 10 -n 500 --half-close", "-c 5 -n 200 --rate 2000"] {
            let (status, report, stderr) = flood(address, &arguments.split(' ').collect::<Vec<_>>());
            assert_clean(status, &report, &stderr);
        }
        drop(child);
    }
}

#[test]
fn what_happened_to_the_bytes_is_named_with_its_place() {
    for (wrong, name, words) in [
        (Wrong::Flips { at: 145 }, "changed", "byte 17 of message 2 (byte 145 of its stream): 1 byte came back changed"),
        (Wrong::Drops { at: 145, count: 1 }, "dropped", "byte 17 of message 2 (byte 145 of its stream): 1 byte dropped"),
        (Wrong::Drops { at: 128, count: 64 }, "lost", "message 2"),
        (Wrong::Repeats { at: 192, count: 64 }, "duplicated", "the bytes from 128 on came once more"),
        (Wrong::Reorders { at: 130, count: 20 }, "reordered", "byte 2 of message 2"),
        (Wrong::Crosses { at: 128, count: 64 }, "crossed", "here came the bytes of connection"),
    ] {
        let arguments = ["-c", "2", "-n", "20", "--seed", "1", "--timeout", "200ms"];
        let (status, report, _) = flood(serve(wrong), &arguments);
        assert_eq!(status.code(), Some(1), "{wrong:?}: {report:#}");
        assert!(examples(&report, name).contains(words), "{wrong:?}: {report:#}");
        let harm = count(&report, "/messages/corrupt") + count(&report, "/messages/lost");
        assert!(harm >= 2, "both connections: {report:#}");
    }
}

#[test]
fn in_a_pipeline_too_the_first_wrong_byte_is_found() {
    for (wrong, name) in [
        (Wrong::Drops { at: 1_000, count: 500 }, "dropped"),
        (Wrong::Repeats { at: 1_024, count: 512 }, "duplicated"),
        (Wrong::Reorders { at: 1_000, count: 300 }, "reordered"),
        (Wrong::Flips { at: 1_000 }, "changed"),
    ] {
        let (status, report, _) =
            flood(serve(wrong), &["-c", "1", "-n", "64", "-s", "64", "--pipeline", "32", "--timeout", "200ms"]);
        assert_eq!(status.code(), Some(1), "{wrong:?}: {report:#}");
        assert!(!examples(&report, name).is_empty(), "{wrong:?}: {report:#}");
    }
    let (status, report, _) =
        flood(serve(Wrong::Flips { at: 500_000 }), &["-c", "1", "-d", "300ms", "--bulk", "--timeout", "200ms"]);
    assert_eq!(status.code(), Some(1), "{report:#}");
    assert!(examples(&report, "changed").contains("byte 500000"), "{report:#}");
}

#[test]
fn a_sample_sees_what_shifts_the_stream() {
    for drops in [Wrong::Drops { at: 145, count: 3 }, Wrong::Repeats { at: 192, count: 64 }] {
        let (status, report, _) = flood(serve(drops), &["-c", "1", "-n", "10", "--verify", "sample", "--timeout", "200ms"]);
        assert_eq!(status.code(), Some(1), "{report:#}");
    }
}

#[test]
fn what_comes_late_is_told_from_what_never_comes() {
    let delays = Wrong::Delays { at: 128, millis: 300 };
    let (status, report, _) = flood(serve(delays), &["-c", "2", "-n", "20", "--timeout", "200ms"]);
    assert_eq!(status.code(), Some(0), "late is not lost: {report:#}");
    assert_eq!((count(&report, "/messages/late"), count(&report, "/messages/lost")), (2, 0), "{report:#}");
    let (status, report, _) = flood(serve(Wrong::Swallows { at: 128 }), &["-c", "2", "-d", "100ms", "--timeout", "100ms"]);
    assert_eq!(status.code(), Some(1), "{report:#}");
    assert!(count(&report, "/messages/lost") >= 2, "{report:#}");
    assert!(examples(&report, "lost").contains("0 of 64 bytes have come back"), "{report:#}");
}

#[test]
fn connections_that_the_peer_closes_are_counted_and_replaced() {
    let (status, report, _) = flood(serve(Wrong::Closes { at: 640 }), &["-c", "2", "-n", "50"]);
    assert_eq!(count(&report, "/messages/returned") + count(&report, "/messages/lost"), 50, "{report:#}");
    assert!(count(&report, "/connections/ended_by_peer") >= 4, "{report:#}");
    assert!(!examples(&report, "closed by the peer").is_empty() || !examples(&report, "reset by the peer").is_empty());
    assert_eq!(status.code(), Some(if count(&report, "/messages/lost") > 0 { 1 } else { 0 }), "{report:#}");
}

#[test]
fn who_is_no_echo_service_is_not_flooded() {
    for (wrong, words) in [
        (Wrong::Greets(b"220 mail.example ESMTP ready\r\n"), "an SMTP or FTP server"),
        (Wrong::Answers(b"HTTP/1.0 400 Bad request\r\n\r\n"), "an HTTP server"),
        (Wrong::IsSilent, "returned nothing of the handshake"),
    ] {
        for load in [&["-n", "10"] as &[_], &["--churn", "-n", "10"]] {
            let target = serve(wrong).to_string();
            let mut command = Command::new(PROGRAM);
            command.args(["flood", &target, "-c", "2", "--handshake-timeout", "100ms"]).args(load);
            let (status, _, stderr) = run(&mut command);
            assert_eq!(status.code(), Some(2), "{stderr}");
            assert!(stderr.starts_with("error: cannot flood 127.0.0.1:") && stderr.contains(words), "{stderr}");
        }
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    drop(listener);
    let (status, _, stderr) = run(Command::new(PROGRAM).args(["flood", &address, "-n", "1"]));
    assert_eq!(status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("connection refused: nobody listens there"), "{stderr}");
}

#[test]
fn an_open_loop_keeps_its_schedule_while_the_server_stands_still() {
    let process = Process::start(Server::Rust, &[]).expect("the program");
    let mut command = Command::new(PROGRAM);
    command.args(["flood", &process.address.to_string(), "-c", "20", "-d", "2s", "--rate", "2k", "--json", "-"]);
    let mut child = Killed(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the program"));
    eventually("it floods", || (process.cpu_time().as_millis() > 20).then_some(()));
    process.freeze();
    std::thread::park_timeout(std::time::Duration::from_millis(300));
    process.thaw();
    let report: Value = serde_json::from_reader(child.0.stdout.take().expect("piped")).expect("a report");
    assert_eq!(count(&report, "/messages/sent"), 4_000, "{report:#}");
    assert_eq!(count(&report, "/messages/returned"), 4_000, "{report:#}");
    let p99 = |kind: &str| {
        let percentiles = report[kind]["percentiles"].as_array().expect("a list");
        let found = percentiles.iter().find(|percentile| percentile["percentile"] == 99.0).expect("p99");
        found["value"].as_f64().expect("a number")
    };
    // 600 of 4,000 messages were due in that time; but only 20 were on their way.
    assert!(p99("latency_ms") > 200.0, "{report:#}");
    assert!(p99("latency_uncorrected_ms") < p99("latency_ms") / 2.0, "{report:#}");
    process.terminate();
}

#[test]
fn a_closed_loop_reports_what_the_clock_says() {
    let process = Process::start(Server::Rust, &[]).expect("the program");
    let (status, report, stderr) = flood(process.address, &["-c", "4", "-d", "500ms", "--warmup", "100ms"]);
    assert_clean(status, &report, &stderr);
    assert!((number(&report, "/elapsed_s") - 0.5).abs() < 0.01, "{report:#}");
    let expected = count(&report, "/messages/returned") as f64 / 0.5;
    assert!((number(&report, "/rate/messages_per_s") / expected - 1.0).abs() < 0.05, "{report:#}");
    let sampled: u64 = report["samples"].as_array().expect("a list").iter().map(|sample| count(sample, "/messages")).sum();
    assert_eq!(sampled, count(&report, "/messages/returned"), "{report:#}");
    process.terminate();
}

#[test]
fn ctrl_c_ends_early_and_still_reports() {
    let process = Process::start(Server::Rust, &[]).expect("the program");
    let mut command = Command::new(PROGRAM);
    command.args(["flood", &process.address.to_string(), "-d", "1h", "-c", "5"]);
    let mut child = Killed(command.stdout(Stdio::piped()).spawn().expect("the program"));
    eventually("it floods", || (process.cpu_time().as_millis() > 50).then_some(()));
    kill(Pid::from_raw(child.0.id() as i32), Signal::SIGINT).expect("it is running");
    let status = eventually("it ends", || child.0.try_wait().expect("our own child"));
    assert_eq!(status.code(), Some(0));
    let table = std::io::read_to_string(child.0.stdout.take().expect("piped")).expect("text");
    assert!(table.contains("ended early") && table.contains(" 0 lost"), "{table}");
    assert!(table.contains("p99.9") && table.contains('█'), "{table}");
    process.terminate();
}

#[test]
fn assertions_decide_about_the_status_and_are_named() {
    let process = Process::start(Server::Rust, &[]).expect("the program");
    let (status, report, stderr) =
        flood(process.address, &["-n", "100", "--assert", "loss==0", "--assert", "p99<10s", "--assert", "rate>1"]);
    assert_clean(status, &report, &stderr);
    assert!(report["assertions"].as_array().expect("a list").iter().all(|verdict| verdict["holds"] == true), "{report:#}");
    let (status, report, stderr) = flood(process.address, &["-n", "100", "--assert", "loss==0", "--assert", "p50<1ns"]);
    assert_eq!(status.code(), Some(3), "{report:#}");
    assert!(stderr.contains("assertion failed: p50<1ns: it was ") && !stderr.contains("loss"), "{stderr}");
    let (status, _, stderr) = flood(serve(Wrong::Flips { at: 10 }), &["-c", "1", "-n", "5", "--assert", "corrupt==0"]);
    assert_eq!(status.code(), Some(3), "{stderr}");
    process.terminate();
}

#[test]
fn flags_that_make_no_sense_are_refused() {
    for arguments in [
        &["--assert", "speed>1"] as &[_],
        &["--rate", "10", "--bulk"],
        &["--churn", "--bulk"],
        &["--bulk", "-n", "5"],
        &["--pipeline", "0"],
        &["-s", "0"],
        &["-c", "0"],
        &["--threads", "60"],
        &["--source", "127.0.0.2-127.0.0.1"],
        &["--source", "::1"],
        &["-d", "0"],
        &["-c", "900000"],
        &["--json", "/nonexistent/report.json"],
        &["--hdr", "/nonexistent/log.hdr"],
        &["--plot", "/nonexistent/plot.svg"],
    ] {
        let (status, _, stderr) = run(Command::new(PROGRAM).args(["flood", "127.0.0.1:9"]).args(arguments));
        assert_eq!(status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.starts_with("error: ") && !stderr.contains("panicked"), "{arguments:?}: {stderr}");
    }
}

#[test]
fn the_plot_has_axes_units_and_a_legend_and_the_log_its_intervals() {
    let process = Process::start(Server::Rust, &[]).expect("the program");
    let directory = std::env::temp_dir().join(format!("edgecho-flood-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let (plot, log) = (directory.join("plot.svg"), directory.join("log.hdr"));
    let files = ["--plot", plot.to_str().expect("text"), "--hdr", log.to_str().expect("text")];
    let (status, report, stderr) = flood(process.address, &[&["-d", "300ms", "--rate", "5k"], &files[..]].concat());
    assert_clean(status, &report, &stderr);
    let svg = std::fs::read_to_string(&plot).expect("a plot");
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    for words in ["latency (ms)", "percentile of messages", "time (s)", "messages/s", "from when a message was due"] {
        assert!(svg.contains(words), "{words}");
    }
    let log = std::fs::read_to_string(&log).expect("a log");
    assert!(log.contains("#[StartTime: ") && log.contains("\nTag=uncorrected,"), "{log}");
    std::fs::remove_dir_all(&directory).expect("our own directory");
    process.terminate();
}
