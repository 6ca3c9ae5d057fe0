//! `edgecho flood`, as its users meet it: what it reports must be what was done to the bytes.

use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::for_both_servers;
use crate::support::faulty::{Wrong, serve};
use crate::support::{Killed, Process, Server, assert_valid, eventually, run, skip};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

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
    assert_valid(&report, "flood");
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
        (Wrong::Repeats { at: 192, count: 64 }, "duplicated", "the bytes from 128 on came twice"),
        (Wrong::Reorders { at: 130, count: 20 }, "reordered", "byte 2 of message 2"),
        (Wrong::Crosses { at: 128, count: 64 }, "crossed", "the bytes of connection"),
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
    assert!(examples(&report, "lost").contains("0 of 64 bytes came back"), "{report:#}");
}

#[test]
fn connections_that_the_peer_closes_are_counted_and_replaced() {
    let (status, report, _) = flood(serve(Wrong::Closes { at: 640 }), &["-c", "2", "-n", "50"]);
    assert_eq!(count(&report, "/messages/returned") + count(&report, "/messages/lost"), 50, "{report:#}");
    assert!(count(&report, "/connections/ended_by_peer") >= 4, "{report:#}");
    assert!(!examples(&report, "closed by the peer").is_empty() || !examples(&report, "reset by the peer").is_empty());
    assert_eq!(status.code(), Some(1), "{report:#}");
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
    assert!(stderr.contains("connection refused: nothing listens there"), "{stderr}");
}

#[test]
fn an_open_loop_keeps_its_schedule_while_the_server_stands_still() {
    let process = Process::start(Server::Rust, &[]).expect("the program");
    let mut command = Command::new(PROGRAM);
    command.args(["flood", &process.address.to_string(), "-c", "20", "-d", "2s", "--rate", "2k", "--json", "-"]);
    let mut child = Killed(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the program"));
    eventually("it floods", || (process.cpu_time().as_millis() > 20).then_some(()));
    process.freeze();
    std::thread::park_timeout(Duration::from_millis(300));
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
fn ctrl_c_does_not_excuse_an_overloaded_flood() {
    let target = serve(Wrong::IsSlow { micros: 5_000 }).to_string();
    let mut command = Command::new(PROGRAM);
    command.args(["flood", &target, "-c", "10", "-d", "1h", "--rate", "2000"]);
    let mut child = Killed(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program"));
    eventually("it floods", || (work_of_all_threads(child.0.id())?.1 > 500).then_some(()));
    signal(&child.0, Signal::SIGINT);
    let (status, table, stderr) = end(&mut child.0);
    assert_eq!(status.code(), Some(1), "{table}{stderr}");
    assert!(table.contains("ended early") && stderr.contains("error: messages due and never sent: "), "{table}{stderr}");
}

#[test]
fn an_open_loop_that_loses_all_connections_counts_the_messages_due_later() {
    let process = Process::start(Server::Rust, &["--drain-timeout", "50ms"]).expect("the program");
    let idle = process.descriptors();
    let mut command = Command::new(PROGRAM);
    command.args(["flood", &process.address.to_string(), "-c", "2", "-d", "20s", "--rate", "20", "--timeout", "1s"]);
    command.args(["--json", "-", "--assert", "failed<=99", "--assert", "ended<=2"]);
    let mut child = Killed(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program"));
    eventually("both connections are open", || (process.descriptors() == idle + 2).then_some(()));
    let started = Instant::now();
    process.terminate();
    let (status, stdout, stderr) = end(&mut child.0);
    assert!(started.elapsed() < Duration::from_secs(10), "it gives up before the end: {:?}", started.elapsed());
    let report: Value = serde_json::from_str(&stdout).expect("a report");
    assert_eq!(status.code(), Some(1), "{stderr}{report:#}");
    assert_eq!(count(&report, "/messages/sent") + count(&report, "/messages/unsent"), 400, "{report:#}");
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

/// The CPU time of all threads of a process, and how often they have gone to sleep; none when it has ended.
fn work_of_all_threads(pid: u32) -> Option<(Duration, u64)> {
    let (mut cpu, mut sleeps) = (Duration::ZERO, 0);
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let path = task.ok()?.path();
        let schedstat = std::fs::read_to_string(path.join("schedstat")).ok()?;
        cpu += Duration::from_nanos(schedstat.split(' ').next()?.parse().ok()?);
        let status = std::fs::read_to_string(path.join("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        sleeps += line.trim().parse::<u64>().ok()?;
    }
    Some((cpu, sleeps))
}

#[test]
fn a_stopped_server_costs_flood_no_cpu() {
    let process = Process::start(Server::Rust, &[]).expect("the program");
    process.freeze(); // its kernel still accepts, and takes bytes
    let mut command = Command::new(PROGRAM);
    command.args(["flood", &process.address.to_string(), "-c", "10", "-d", "100ms", "--timeout", "500ms"]);
    let mut child = Killed(command.args(["--no-handshake"]).stdout(Stdio::piped()).spawn().expect("the program"));
    let (mut cpu, mut sleeps) = (Duration::ZERO, 0);
    let status = eventually("it gives up", || {
        if let Some((more_cpu, more_sleeps)) = work_of_all_threads(child.0.id()) {
            (cpu, sleeps) = (cpu.max(more_cpu), sleeps.max(more_sleeps));
        }
        child.0.try_wait().expect("our own child")
    });
    let table = std::io::read_to_string(child.0.stdout.take().expect("piped")).expect("text");
    assert_eq!(status.code(), Some(1), "{table}");
    assert!(table.contains("10 sent, 0 returned, 10 lost"), "{table}");
    assert!(cpu < Duration::from_millis(200), "{cpu:?} of CPU, {sleeps} waits");
    // 1.1 s: 10 looks a second by the thread that watches, and what opening and closing take.
    assert!(sleeps < 80, "{cpu:?} of CPU, {sleeps} waits");
}

#[test]
fn a_stream_of_which_the_rest_never_comes_ends_half_closed_too() {
    let process = Process::start(Server::Rust, &[]).expect("the program");
    process.freeze(); // its kernel still accepts, and takes bytes
    let arguments = ["--bulk", "--half-close", "-c", "2", "-d", "100ms", "--timeout", "100ms", "--no-handshake"];
    let (status, report, stderr) = flood(process.address, &arguments);
    assert_eq!(status.code(), Some(1), "{stderr}{report:#}");
    assert_eq!(count(&report, "/messages/lost"), 2, "{report:#}");
}

#[test]
fn an_overloaded_open_loop_ends_in_time_and_says_what_was_not_sent() {
    let started = Instant::now();
    let arguments = ["-c", "10", "-d", "600ms", "--rate", "2000", "--timeout", "200ms"];
    let (status, report, stderr) = flood(serve(Wrong::IsSlow { micros: 5_000 }), &arguments);
    assert!(started.elapsed() < Duration::from_millis(2_500), "{:?}: {report:#}", started.elapsed());
    assert_eq!(status.code(), Some(1), "{stderr}{report:#}");
    let [sent, unsent, late] = ["sent", "unsent", "late"].map(|name| count(&report, &format!("/messages/{name}")));
    assert_eq!(sent + unsent, 1_200, "all that was due: {report:#}");
    assert!(unsent > 600 && sent > 20, "{report:#}");
    assert!(late > 10, "from when they were due: {report:#}");
    assert_eq!(number(&report, "/rate/requested_messages_per_s"), 2_000.0);
    let achieved = number(&report, "/rate/achieved_messages_per_s");
    assert!((20.0..400.0).contains(&achieved), "{report:#}");
    assert!(number(&report, "/client/cpu_percent") > 0.0, "{report:#}");
    assert!(stderr.contains("warning: ") && stderr.contains(" of the 2000 messages/s requested"), "{stderr}");
    assert!(stderr.contains(&format!("error: messages due and never sent: {unsent} ")), "{stderr}");
}

#[test]
fn a_number_of_messages_by_schedule_ends_in_time_too() {
    let started = Instant::now();
    let arguments = ["-c", "10", "-n", "1000", "--rate", "2000", "--timeout", "200ms"];
    let (status, report, stderr) = flood(serve(Wrong::IsSlow { micros: 5_000 }), &arguments);
    assert!(started.elapsed() < Duration::from_millis(2_500), "{:?}: {report:#}", started.elapsed());
    assert_eq!(status.code(), Some(1), "{stderr}{report:#}");
    assert_eq!(count(&report, "/messages/sent") + count(&report, "/messages/unsent"), 1_000, "{report:#}");
}

#[test]
fn requested_and_achieved_rate_and_the_clients_own_cpu_are_reported() {
    let process = Process::start(Server::Rust, &[]).expect("the program");
    let (status, report, stderr) = flood(process.address, &["-c", "5", "-d", "500ms", "--rate", "1000"]);
    assert_clean(status, &report, &stderr);
    let achieved = number(&report, "/rate/achieved_messages_per_s");
    assert!((number(&report, "/rate/requested_messages_per_s") - 1_000.0).abs() < 1e-9, "{report:#}");
    assert!((500.0..1_010.0).contains(&achieved), "{report:#}");
    assert_eq!(stderr.contains("warning"), achieved < 990.0, "{stderr}{report:#}");
    assert!(number(&report, "/client/cpu_percent") > 0.0, "{report:#}");
    let (status, table, stderr) =
        run(Command::new(PROGRAM).args(["flood", &process.address.to_string(), "-n", "500", "--rate", "1000"]));
    assert_eq!(status.code(), Some(0), "{table}{stderr}");
    assert!(table.contains(" sent of 1000 requested (") && table.contains("% of a CPU"), "{table}");
    let (status, report, stderr) = flood(process.address, &["-c", "5", "-n", "500"]);
    assert_clean(status, &report, &stderr);
    assert!(report["rate"]["requested_messages_per_s"].is_null(), "a closed loop asks for none: {report:#}");
    process.terminate();
}

#[test]
fn floods_own_pauses_are_reported_apart_from_the_latency_of_the_service() {
    // A byte is missing: flood waits 200 ms for more, and then a while before it connects again.
    let drops = Wrong::Drops { at: 64 * 20 + 10, count: 1 };
    let (status, report, stderr) = flood(serve(drops), &["-c", "2", "-d", "1200ms", "--rate", "200"]);
    assert_eq!(status.code(), Some(1), "{stderr}{report:#}");
    assert!(count(&report, "/messages/corrupt") >= 2, "{report:#}");
    let percentiles = report["latency_ms"]["percentiles"].as_array().expect("a list");
    let p99 = percentiles.iter().find(|percentile| percentile["percentile"] == 99.0).expect("p99");
    assert!(p99["value"].as_f64().expect("a number") < 100.0, "{report:#}");
    assert!(count(&report, "/pauses/count") >= 2, "{report:#}");
    assert!(number(&report, "/pauses/total_s") >= 0.4, "{report:#}");
    assert!(count(&report, "/pauses/messages") >= 10, "{report:#}");
}

#[test]
fn an_outage_fails_the_run_has_a_time_and_no_latency() {
    let process = Process::start(Server::Rust, &["--drain-timeout", "50ms"]).expect("the program");
    let idle = process.descriptors();
    let mut command = Command::new(PROGRAM);
    // 10 messages a second: at the end of the service none is on its way, as good as always.
    command.args(["flood", &process.address.to_string(), "-c", "10", "-d", "1500ms", "--rate", "10", "--json", "-"]);
    let mut child = Killed(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program"));
    eventually("all ten connections are open", || (process.descriptors() == idle + 10).then_some(()));
    process.terminate();
    let report: Value = serde_json::from_reader(child.0.stdout.take().expect("piped")).expect("a report");
    let stderr = std::io::read_to_string(child.0.stderr.take().expect("piped")).expect("text");
    let status = eventually("it ends", || child.0.try_wait().expect("our own child"));
    assert_valid(&report, "flood");
    assert_eq!(status.code(), Some(1), "{stderr}{report:#}");
    for words in ["error: connections ended by the peer: 1", "error: failed attempts to connect: "] {
        assert!(stderr.contains(words), "{words}: {stderr}");
    }
    assert!(count(&report, "/connections/ended_by_peer") >= 10 && count(&report, "/connections/failed") > 0, "{report:#}");
    for trouble in report["troubles"].as_array().expect("a list") {
        let (first, last) = (trouble["at_s"].as_f64().expect("a time"), trouble["last_at_s"].as_f64().expect("a time"));
        assert!(first <= last && (-1.0..20.0).contains(&first) && (-1.0..20.0).contains(&last), "{trouble:#}");
        let examples = trouble["examples"].as_array().expect("a list");
        assert!(examples.iter().all(|example| (first..=last).contains(&number(example, "/at_s"))), "{trouble:#}");
    }
    let samples = report["samples"].as_array().expect("a list");
    let silent: Vec<&Value> = samples.iter().filter(|sample| sample["messages"] == 0).collect();
    assert!(!silent.is_empty(), "{report:#}");
    assert!(silent.iter().all(|sample| sample["p50_ms"].is_null() && sample["p99_ms"].is_null()), "{report:#}");
}

#[test]
fn an_assertion_says_how_many_connections_may_end() {
    let target = serve(Wrong::Closes { at: 64 });
    // Each answers once; the pause before the next connection is longer than an answer takes.
    let arguments = ["-c", "2", "-n", "6", "--rate", "20", "--timeout", "10s"];
    let (status, report, stderr) = flood(target, &arguments);
    assert_eq!((status.code(), count(&report, "/messages/lost")), (Some(1), 0), "{stderr}{report:#}");
    let (status, report, stderr) = flood(target, &[&arguments[..], &["--assert", "ended<100"]].concat());
    assert_eq!((status.code(), count(&report, "/messages/lost")), (Some(0), 0), "{stderr}{report:#}");
}

/// A flood for an hour, with its table or what `arguments` say on stdout, that has begun.
fn endless_flood(process: &Process, arguments: &[&str]) -> Killed {
    let mut command = Command::new(PROGRAM);
    command.args(["flood", &process.address.to_string(), "-d", "1h", "-c", "5"]).args(arguments);
    let child = Killed(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program"));
    let before = process.cpu_time();
    eventually("it floods", || ((process.cpu_time() - before).as_millis() > 50).then_some(()));
    child
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id() as i32), signal).expect("it is running");
}

/// Waits for the end, and gives the status, stdout and stderr.
fn end(child: &mut Child) -> (ExitStatus, String, String) {
    let stdout = std::io::read_to_string(child.stdout.take().expect("piped")).expect("text");
    let stderr = std::io::read_to_string(child.stderr.take().expect("piped")).expect("text");
    (eventually("it ends", || child.try_wait().expect("our own child")), stdout, stderr)
}

#[test]
fn sigusr1_and_sigquit_print_interim_figures_and_go_on() {
    let process = Process::start(Server::Rust, &[]).expect("the program");
    let mut child = endless_flood(&process, &["--json", "-"]);
    let mut stderr = child.0.stderr.take().expect("piped");
    for asked in [Signal::SIGUSR1, Signal::SIGQUIT] {
        signal(&child.0, asked);
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
    signal(&child.0, Signal::SIGINT);
    child.0.stderr = Some(stderr);
    let (status, stdout, stderr) = end(&mut child.0);
    assert_eq!(status.code(), Some(0), "{stderr}");
    let report: Value = serde_json::from_str(&stdout).expect("nothing else on stdout");
    assert!(count(&report, "/messages/returned") > 0, "{report:#}");
    process.terminate();
}

#[test]
fn sighup_ends_early_with_a_report_unless_it_is_ignored() {
    let process = Process::start(Server::Rust, &[]).expect("the program");
    let mut child = endless_flood(&process, &[]);
    signal(&child.0, Signal::SIGHUP);
    let (status, table, stderr) = end(&mut child.0);
    assert_eq!(status.code(), Some(0), "{:?} {stderr}", status.signal());
    assert!(table.contains("ended early") && table.contains(" 0 lost"), "{table}");

    let mut command = Command::new("nohup");
    command.args([PROGRAM, "flood", &process.address.to_string(), "-d", "1h", "-c", "5"]);
    let mut child = Killed(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("nohup"));
    let before = process.cpu_time();
    eventually("it floods", || ((process.cpu_time() - before).as_millis() > 50).then_some(()));
    signal(&child.0, Signal::SIGHUP);
    let before = process.cpu_time();
    eventually("it goes on", || ((process.cpu_time() - before).as_millis() > 50).then_some(()));
    signal(&child.0, Signal::SIGINT);
    let (status, table, stderr) = end(&mut child.0);
    assert_eq!(status.code(), Some(0), "{table}{stderr}");
    process.terminate();
}

#[test]
fn quiet_prints_only_the_summary() {
    let process = Process::start(Server::Rust, &[]).expect("the program");
    for arguments in [["flood", "-q"], ["-q", "flood"]] {
        let (status, table, stderr) =
            run(Command::new(PROGRAM).args(arguments).args([&process.address.to_string(), "-n", "100"]));
        assert_eq!((status.code(), &stderr[..]), (Some(0), ""), "{table}");
        assert!(table.contains("100 returned") && table.contains("p99.9") && !table.contains('█'), "{table}");
    }
    process.terminate();
}

#[test]
fn only_one_output_goes_to_stdout_and_a_dash_is_no_file() {
    let process = Process::start(Server::Rust, &[]).expect("the program");
    let directory = std::env::temp_dir().join(format!("edgecho-flood-dash-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(PROGRAM);
        command.current_dir(&directory).args(["flood", &process.address.to_string(), "-n", "50"]);
        run(command.args(arguments))
    };
    let (status, stdout, stderr) = run(&["--plot", "-"]);
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert!(stdout.starts_with("<svg") && stdout.trim_end().ends_with("</svg>"), "{stdout}");
    let (status, stdout, stderr) = run(&["--hdr", "-"]);
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert!(stdout.starts_with("#[Logged by edgecho") && !stdout.contains("messages/s"), "{stdout}");
    for two in [
        ["--json", "-", "--hdr", "-"],
        ["--json", "-", "--plot", "-"],
        ["--hdr", "-", "--plot", "-"],
        ["--json", "same", "--plot", "same"],
    ] {
        let (status, stdout, stderr) = run(&two);
        assert_eq!((status.code(), &stdout[..]), (Some(2), ""), "{two:?}: {stderr}");
        assert!(stderr.starts_with("error: ") && stderr.contains(two[0]) && stderr.contains(two[2]), "{two:?}: {stderr}");
    }
    let left: Vec<_> = std::fs::read_dir(&directory).expect("our own directory").collect();
    assert!(left.is_empty(), "{left:?}");
    std::fs::remove_dir_all(&directory).expect("our own directory");
    process.terminate();
}

#[test]
fn an_output_that_cannot_be_written_is_an_error_and_the_others_are_written() {
    let process = Process::start(Server::Rust, &[]).expect("the program");
    for full in ["--json", "--hdr", "--plot"] {
        let mut command = Command::new(PROGRAM);
        command.args(["flood", &process.address.to_string(), "-n", "50", full, "/dev/full"]);
        if full == "--plot" {
            command.args(["--json", "-"]);
        }
        let (status, stdout, stderr) = run(&mut command);
        assert_eq!(status.code(), Some(2), "{full}: {stderr}");
        assert!(stderr.contains("error: cannot write /dev/full: No space left on device"), "{full}: {stderr}");
        let words = match full {
            "--json" => " 50 returned",
            "--plot" => "\"returned\": 50",
            _ => "", // the log begins before the load, which need not begin if that fails
        };
        assert!(stdout.contains(words), "{full}: {stdout}");
        // A pipe that is closed: for a report that a program waits for that is no good end.
        let script = format!("\"$0\" flood {} -n 50 {full} - | true; exit \"${{PIPESTATUS:-0}}\"", process.address);
        let (status, _, stderr) = run(Command::new("bash").args(["-c", &script, PROGRAM]));
        assert_eq!(status.code(), Some(2), "{full}: {stderr}");
        assert!(stderr.contains("error: cannot write stdout: Broken pipe"), "{full}: {stderr}");
    }
    // A log that fails in the middle: its head fits, and the first interval does not.
    let log = std::env::temp_dir().join(format!("edgecho-flood-{}-full.hdr", std::process::id()));
    let arguments = ["-d", "100ms", "--rate", "2k", "--json", "-", "--hdr", log.to_str().expect("text")];
    let script = format!("ulimit -f 1; exec \"$0\" flood {} \"$@\"", process.address);
    let (status, stdout, stderr) = run(Command::new("sh").args(["-c", &script, PROGRAM]).args(arguments));
    std::fs::remove_file(&log).expect("it has begun");
    assert_eq!(status.code(), Some(2), "{:?}: {stderr}", status.signal());
    assert!(stderr.contains(".hdr: File too large") && stdout.contains("\"returned\": 200"), "{stderr}{stdout}");
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
    let mut command = Command::new(PROGRAM);
    command.args(["flood", &process.address.to_string(), "-n", "50"]).stdout(full).stderr(Stdio::piped());
    let output = command.output().expect("the program");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("error: cannot write stdout: No space left on device"), "{stderr}");
    process.terminate();
}

#[test]
fn a_source_that_is_not_of_this_host_is_named_as_the_cause() {
    let process = Process::start(Server::Rust, &[]).expect("the program");
    // Of TEST-NET-1 (RFC 5737); the second time the range begins with an address that is good.
    for source in ["192.0.2.1", "127.255.255.254-128.0.0.1"] {
        let (status, _, stderr) =
            run(Command::new(PROGRAM).args(["flood", &process.address.to_string(), "-n", "50", "--source", source]));
        assert_eq!(status.code(), Some(2), "{stderr}");
        assert!(stderr.contains("no interface of this host has the address 1") && !stderr.contains("port:"), "{stderr}");
    }
    process.terminate();
}

#[test]
fn a_flood_that_was_stopped_reads_what_has_come_before_it_calls_it_lost() {
    let mut command = Command::new(PROGRAM);
    let target = serve(Wrong::IsSlow { micros: 5_000 }).to_string();
    command.args(["flood", &target, "-c", "5", "-d", "1s", "--timeout", "100ms", "--json", "-"]);
    let mut child = Killed(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program"));
    let pid = child.0.id();
    eventually("it floods", || (work_of_all_threads(pid)?.1 > 150).then_some(()));
    signal(&child.0, Signal::SIGSTOP);
    eventually("it stands", || (crate::support::proc::state(pid) == 'T').then_some(()));
    std::thread::park_timeout(Duration::from_millis(300)); // longer than twice the timeout
    signal(&child.0, Signal::SIGCONT);
    let (status, stdout, stderr) = end(&mut child.0);
    let report: Value = serde_json::from_str(&stdout).expect("a report");
    assert_eq!((status.code(), count(&report, "/messages/lost")), (Some(0), 0), "{stderr}{report:#}");
    assert!(count(&report, "/messages/late") >= 1, "it was stopped while messages were on their way: {report:#}");
}

#[test]
fn a_signal_before_the_first_connection_ends_the_attempts() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    drop(listener);
    // With --churn one connection is tried before all others.
    for load in [&["--churn"] as &[_], &[]] {
        let mut command = Command::new(PROGRAM);
        command.args(["flood", &address, "--retry", "1000"]).args(load);
        let mut child = Killed(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program"));
        eventually("it tries", || (work_of_all_threads(child.0.id())?.1 > 4).then_some(()));
        signal(&child.0, Signal::SIGHUP);
        let (status, _, stderr) = end(&mut child.0);
        assert_eq!(status.code(), Some(2), "{load:?} {:?}: {stderr}", status.signal());
        assert!(stderr.contains("error: cannot flood 127.0.0.1:"), "{load:?}: {stderr}");
    }
}
