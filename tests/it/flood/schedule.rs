//! Rates and times: what an open loop owes, and what the report says of flood's own pauses and CPU.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{assert_clean, count, flood, number};
use crate::faulty::{Wrong, serve};
use crate::support::proc::work_of_all_threads;
use crate::support::{Process, Program, edgecho, in_one_of_five_rounds, pause, quiet, run, wait_until};

/// Returns a percentile of the report, in milliseconds.
fn percentile(report: &Value, kind: &str, percentile: f64) -> f64 {
    let percentiles = report[kind]["percentiles"].as_array().expect("a list");
    let found = percentiles.iter().find(|found| found["percentile"] == percentile).expect("the percentile");
    found["value"].as_f64().expect("a number")
}

#[test]
fn an_open_loop_keeps_its_schedule_while_the_server_stands_still() {
    let _guard = quiet();
    in_one_of_five_rounds(|| {
        let process = Process::rust(&[]);
        let target = process.address.to_string();
        let mut child =
            Program::piped(&mut edgecho(&["flood", &target, "-c", "20", "-d", "1s", "--rate", "2k", "--json", "-"]));
        wait_until("it floods", || process.cpu_time().as_millis() > 10);
        process.freeze();
        pause(Duration::from_millis(300));
        process.thaw();
        let (_, stdout, _) = child.finish();
        let report: Value = serde_json::from_str(&stdout).expect("a report");
        assert_eq!(count(&report, "/messages/sent"), 2_000, "{report:#}");
        assert_eq!(count(&report, "/messages/returned"), 2_000, "{report:#}");
        process.terminate();
        // 600 of 2,000 messages were due in that time, but only 20 were on their way.
        let (corrected, uncorrected) =
            (percentile(&report, "latency_ms", 90.0), percentile(&report, "latency_uncorrected_ms", 90.0));
        assert!(corrected > 150.0, "{report:#}");
        if uncorrected < corrected / 2.0 { Ok(()) } else { Err(format!("{report:#}")) }
    });
}

#[test]
fn a_closed_loop_reports_what_the_clock_says() {
    let process = Process::rust(&[]);
    let (status, report, stderr) = flood(process.address, &["-c", "4", "-d", "500ms", "--warmup", "100ms"]);
    assert_clean(status, &report, &stderr);
    let elapsed_s = number(&report, "/elapsed_s");
    assert!((0.499..5.0).contains(&elapsed_s), "{report:#}");
    let expected = count(&report, "/messages/returned") as f64 / elapsed_s;
    assert!((number(&report, "/rate/messages_per_s") / expected - 1.0).abs() < 0.05, "{report:#}");
    let sampled: u64 = report["samples"].as_array().expect("a list").iter().map(|sample| count(sample, "/messages")).sum();
    assert_eq!(sampled, count(&report, "/messages/returned"), "{report:#}");
    process.terminate();
}

#[test]
fn a_stopped_server_costs_flood_no_cpu() {
    let process = Process::rust(&[]);
    process.freeze(); // the kernel still accepts connections and bytes
    let mut command = edgecho(&["flood", &process.address.to_string(), "-c", "10", "-d", "100ms", "--timeout", "500ms"]);
    let mut child = Program::spawn(command.args(["--no-handshake"]).stdout(Stdio::piped()));
    let (mut cpu, mut sleeps) = (Duration::ZERO, 0);
    wait_until("it gives up", || {
        if let Some((more_cpu, more_sleeps)) = work_of_all_threads(child.pid()) {
            (cpu, sleeps) = (cpu.max(more_cpu), sleeps.max(more_sleeps));
        }
        child.status().is_some()
    });
    let (status, table, _) = child.finish();
    assert_eq!(status.code(), Some(1), "{table}");
    assert!(table.contains("10 sent, 0 returned, 10 lost"), "{table}");
    assert!(cpu < Duration::from_millis(200), "{cpu:?} of CPU, {sleeps} waits");
    // 1.1 s: the main thread looks 10 times per second, and opening and closing take some waits.
    assert!(sleeps < 80, "{cpu:?} of CPU, {sleeps} waits");
}

#[test]
fn an_overloaded_open_loop_ends_in_time_and_says_what_was_not_sent() {
    let started = Instant::now();
    let arguments = ["-c", "10", "-d", "600ms", "--rate", "2000", "--timeout", "200ms"];
    let (status, report, stderr) = flood(serve(Wrong::IsSlow { micros: 10_000 }), &arguments);
    // All the messages that were due would take 12 seconds.
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}: {report:#}", started.elapsed());
    assert_eq!(status.code(), Some(1), "{stderr}{report:#}");
    let [sent, unsent, late] = ["sent", "unsent", "late"].map(|name| count(&report, &format!("/messages/{name}")));
    assert_eq!(sent + unsent, 1_200, "all that was due: {report:#}");
    assert!(unsent > 600 && sent > 10, "{report:#}");
    assert!(late > 5, "measured from when they were due: {report:#}");
    assert_eq!(number(&report, "/rate/requested_messages_per_s"), 2_000.0);
    let achieved = number(&report, "/rate/achieved_messages_per_s");
    assert!((1.0..400.0).contains(&achieved), "{report:#}");
    assert!(number(&report, "/client/cpu_percent") > 0.0, "{report:#}");
    assert!(stderr.contains("warning: ") && stderr.contains(" of the 2000 messages/s requested"), "{stderr}");
    assert!(stderr.contains(&format!("error: messages due and never sent: {unsent} ")), "{stderr}");
}

#[test]
fn a_number_of_messages_by_schedule_ends_in_time_too() {
    let started = Instant::now();
    let arguments = ["-c", "10", "-n", "1000", "--rate", "2000", "--timeout", "200ms"];
    let (status, report, stderr) = flood(serve(Wrong::IsSlow { micros: 10_000 }), &arguments);
    // All of them would take 10 seconds.
    assert!(started.elapsed() < Duration::from_secs(7), "{:?}: {report:#}", started.elapsed());
    assert_eq!(status.code(), Some(1), "{stderr}{report:#}");
    assert_eq!(count(&report, "/messages/sent") + count(&report, "/messages/unsent"), 1_000, "{report:#}");
}

#[test]
fn requested_and_achieved_rate_and_the_clients_own_cpu_are_reported() {
    let process = Process::rust(&[]);
    let (status, report, stderr) = flood(process.address, &["-c", "5", "-d", "500ms", "--rate", "1000"]);
    assert_clean(status, &report, &stderr);
    let achieved = number(&report, "/rate/achieved_messages_per_s");
    assert!((number(&report, "/rate/requested_messages_per_s") - 1_000.0).abs() < 1e-9, "{report:#}");
    // The schedule is an upper bound. A busy machine stays below it.
    assert!((1.0..1_010.0).contains(&achieved), "{report:#}");
    assert_eq!(stderr.contains("warning"), achieved < 990.0, "{stderr}{report:#}");
    assert!(number(&report, "/client/cpu_percent") > 0.0, "{report:#}");
    let (status, table, stderr) = run(&mut edgecho(&["flood", &process.address.to_string(), "-n", "200", "--rate", "1000"]));
    assert_eq!(status.code(), Some(0), "{table}{stderr}");
    assert!(table.contains(" sent of 1000 requested (") && table.contains("% of a CPU"), "{table}");
    let (status, report, stderr) = flood(process.address, &["-c", "5", "-n", "500"]);
    assert_clean(status, &report, &stderr);
    assert!(report["rate"]["requested_messages_per_s"].is_null(), "a closed loop asks for none: {report:#}");
    process.terminate();
}

#[test]
fn floods_own_pauses_are_reported_apart_from_the_latency_of_the_service() {
    let _guard = quiet();
    in_one_of_five_rounds(|| {
        // A byte is missing: flood waits 200 ms for more, and then a while before it connects again.
        let drops = Wrong::Drops { at: 64 * 20 + 10, count: 1 };
        let (status, report, stderr) = flood(serve(drops), &["-c", "2", "-d", "1200ms", "--rate", "200"]);
        assert_eq!(status.code(), Some(1), "{stderr}{report:#}");
        assert!(count(&report, "/messages/corrupt") >= 2, "{report:#}");
        assert!(count(&report, "/pauses/count") >= 2, "{report:#}");
        assert!(number(&report, "/pauses/total_s") >= 0.4, "{report:#}");
        assert!(count(&report, "/pauses/messages") >= 10, "{report:#}");
        if percentile(&report, "latency_ms", 99.0) < 100.0 { Ok(()) } else { Err(format!("{report:#}")) }
    });
}

#[test]
fn a_flood_that_was_stopped_reads_what_has_come_before_it_calls_it_lost() {
    let target = serve(Wrong::IsSlow { micros: 5_000 }).to_string();
    in_one_of_five_rounds(|| {
        let mut child =
            Program::piped(&mut edgecho(&["flood", &target, "-c", "5", "-d", "1s", "--timeout", "300ms", "--json", "-"]));
        wait_until("it floods", || work_of_all_threads(child.pid()).is_some_and(|(_, sleeps)| sleeps > 100));
        child.freeze();
        pause(Duration::from_millis(700)); // longer than twice the timeout
        child.thaw();
        let (status, stdout, stderr) = child.finish();
        let report: Value = serde_json::from_str(&stdout).expect("a report");
        assert_eq!((status.code(), count(&report, "/messages/lost")), (Some(0), 0), "{stderr}{report:#}");
        // Without CPU the flood may have ended before it was stopped.
        let was_stopped = count(&report, "/messages/late") >= 1;
        if was_stopped { Ok(()) } else { Err(format!("no message was on its way: {report:#}")) }
    });
}

#[test]
fn an_open_loop_that_loses_all_connections_counts_the_messages_due_later() {
    let process = Process::rust(&["--drain-timeout", "50ms"]);
    let idle = process.descriptors();
    let mut command = edgecho(&["flood", &process.address.to_string(), "-c", "2", "-d", "20s", "--rate", "20"]);
    command.args(["--timeout", "1s", "--json", "-", "--assert", "failed<=99", "--assert", "ended<=2"]);
    let mut child = Program::piped(&mut command);
    wait_until("both connections are open", || process.descriptors() == idle + 2);
    let started = Instant::now();
    process.terminate();
    let (status, stdout, stderr) = child.finish();
    assert!(started.elapsed() < Duration::from_secs(10), "it gives up before the end: {:?}", started.elapsed());
    let report: Value = serde_json::from_str(&stdout).expect("a report");
    assert_eq!(status.code(), Some(1), "{stderr}{report:#}");
    assert_eq!(count(&report, "/messages/sent") + count(&report, "/messages/unsent"), 400, "{report:#}");
}
