//! The report, the plot and the log: where they go, and what becomes of them when the output fails.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use super::{assert_clean, flood};
use crate::faulty::{Wrong, serve};
use crate::scratch::Scratch;
use crate::support::{PROGRAM, Process, Program, edgecho, run};

#[test]
fn assertions_decide_about_the_status_and_are_named() {
    let process = Process::rust(&[]);
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
        let (status, _, stderr) = run(edgecho(&["flood", "127.0.0.1:9"]).args(arguments));
        assert_eq!(status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.starts_with("error: ") && !stderr.contains("panicked"), "{arguments:?}: {stderr}");
    }
}

#[test]
fn the_plot_has_axes_units_and_a_legend_and_the_log_its_intervals() {
    let process = Process::rust(&[]);
    let scratch = Scratch::new();
    let (plot, log) = (scratch.file("plot.svg"), scratch.file("log.hdr"));
    let files = ["--plot", &plot, "--hdr", &log];
    let (status, report, stderr) = flood(process.address, &[&["-d", "300ms", "--rate", "5k"], &files[..]].concat());
    assert_clean(status, &report, &stderr);
    let svg = std::fs::read_to_string(&plot).expect("a plot");
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    for words in ["latency (ms)", "percentile of messages", "time (s)", "messages/s", "from when a message was due"] {
        assert!(svg.contains(words), "{words}");
    }
    let log = std::fs::read_to_string(&log).expect("a log");
    assert!(log.contains("#[StartTime: ") && log.contains("\nTag=uncorrected,"), "{log}");
    process.terminate();
}

#[test]
fn quiet_prints_only_the_summary() {
    let process = Process::rust(&[]);
    for arguments in [["flood", "-q"], ["-q", "flood"]] {
        let (status, table, stderr) = run(edgecho(&arguments).args([&process.address.to_string(), "-n", "100"]));
        assert_eq!((status.code(), &stderr[..]), (Some(0), ""), "{table}");
        assert!(table.contains("100 returned") && table.contains("p99.9") && !table.contains('█'), "{table}");
    }
    process.terminate();
}

#[test]
fn only_one_output_goes_to_stdout_and_a_dash_is_no_file() {
    let process = Process::rust(&[]);
    let scratch = Scratch::new();
    let run = |arguments: &[&str]| {
        let mut command = edgecho(&["flood", &process.address.to_string(), "-n", "50"]);
        run(command.current_dir(scratch.folder()).args(arguments))
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
    let left: Vec<_> = std::fs::read_dir(scratch.folder()).expect("our own folder").collect();
    assert!(left.is_empty(), "{left:?}");
    process.terminate();
}

#[test]
fn two_names_of_one_file_are_refused_before_anything_is_truncated() {
    let process = Process::rust(&[]);
    let scratch = Scratch::new();
    let report = scratch.file("report");
    std::fs::write(&report, "kept").expect("a file");
    std::os::unix::fs::symlink("report", scratch.file("link")).expect("a link");
    let flood = |arguments: &str| {
        let script = format!("\"$0\" flood {} -n 50 {arguments}", process.address);
        run(Command::new("sh").current_dir(scratch.folder()).args(["-c", &script, PROGRAM]))
    };
    for (arguments, words) in [
        ("--json report --hdr ./report", "--json and --hdr cannot both go to ./report"),
        ("--json link --plot report", "--json and --plot cannot both go to report"),
        ("--json report >>report", "the table and --json cannot both go to report"),
        ("--json /dev/stdout", "the table and --json cannot both go to /dev/stdout"),
        ("--json - --plot /dev/stdout", "--json and --plot cannot both go to /dev/stdout"),
    ] {
        let (status, stdout, stderr) = flood(arguments);
        assert_eq!((status.code(), &stdout[..]), (Some(2), ""), "{arguments}: {stderr}");
        assert!(stderr.starts_with(&format!("error: {words}; ")), "{arguments}: {stderr}");
        assert_eq!(std::fs::read_to_string(&report).expect("our own file"), "kept", "{arguments}");
    }
    let (status, _, stderr) = flood("--json report --hdr log --plot /dev/null");
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert!(std::fs::read_to_string(&report).expect("a report").starts_with('{'));
    process.terminate();
}

#[test]
fn an_output_that_cannot_be_written_is_an_error_and_the_others_are_written() {
    let process = Process::rust(&[]);
    for full in ["--json", "--hdr", "--plot"] {
        let mut command = edgecho(&["flood", &process.address.to_string(), "-n", "50", full, "/dev/full"]);
        if full == "--plot" {
            command.args(["--json", "-"]);
        }
        let (status, stdout, stderr) = run(&mut command);
        assert_eq!(status.code(), Some(2), "{full}: {stderr}");
        assert!(stderr.contains("error: cannot write /dev/full: No space left on device"), "{full}: {stderr}");
        let words = match full {
            "--json" => " 50 returned",
            "--plot" => "\"returned\": 50",
            _ => "", // the log begins before the load, which does not begin if the log fails
        };
        assert!(stdout.contains(words), "{full}: {stdout}");
    }
    // A log that fails in the middle: its head fits, and the first interval does not.
    let scratch = Scratch::new();
    let log = scratch.file("full.hdr");
    let arguments = ["-d", "100ms", "--rate", "2k", "--json", "-", "--hdr", &log];
    let script = format!("ulimit -f 1; exec \"$0\" flood {} \"$@\"", process.address);
    let (status, stdout, stderr) = run(Command::new("sh").args(["-c", &script, PROGRAM]).args(arguments));
    assert_eq!(status.code(), Some(2), "{:?}: {stderr}", status.signal());
    assert!(stderr.contains(".hdr: File too large") && stdout.contains("\"returned\": 200"), "{stderr}{stdout}");
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
    let mut command = edgecho(&["flood", &process.address.to_string(), "-n", "50"]);
    let (status, _, stderr) = Program::spawn(command.stdout(full).stderr(Stdio::piped())).finish();
    assert_eq!(status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("error: cannot write stdout: No space left on device"), "{stderr}");
    process.terminate();
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let process = Process::rust(&[]);
    for arguments in ["", "-q", "--json -", "--hdr -", "--plot -"] {
        // The reader is gone before the report begins.
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = edgecho(&["flood", &process.address.to_string(), "-n", "50"]);
        command.args(arguments.split_whitespace()).stdout(writer).stderr(Stdio::piped());
        let (status, _, stderr) = Program::spawn(&mut command).finish();
        assert_eq!((status.code(), &stderr[..]), (Some(0), ""), "{arguments}");
    }
    process.terminate();
}

#[test]
fn a_source_that_is_not_of_this_host_is_named_as_the_cause() {
    let process = Process::rust(&[]);
    // Of TEST-NET-1 (RFC 5737); the second time the range begins with an address that is good.
    for source in ["192.0.2.1", "127.255.255.254-128.0.0.1"] {
        let (status, _, stderr) =
            run(&mut edgecho(&["flood", &process.address.to_string(), "-n", "50", "--source", source]));
        assert_eq!(status.code(), Some(2), "{stderr}");
        assert!(stderr.contains("no interface of this host has the address 1") && !stderr.contains("port:"), "{stderr}");
    }
    process.terminate();
}
