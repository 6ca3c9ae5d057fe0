//! Harm to the bytes, and services that are none: flood finds it, counts it and names its place.

use serde_json::Value;

use super::{count, examples, flood, number};
use crate::faulty::{Wrong, serve};
use crate::schema::assert_valid;
use crate::support::client::free_address;
use crate::support::{Process, Program, edgecho, run, wait_until};

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
    // On a busy machine, others may be late, too.
    assert!(count(&report, "/messages/late") >= 2 && count(&report, "/messages/lost") == 0, "{report:#}");
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
fn a_service_that_does_not_echo_is_not_flooded() {
    for (wrong, words) in [
        (Wrong::Greets(b"220 mail.example ESMTP ready\r\n"), "an SMTP or FTP server"),
        (Wrong::Answers(b"HTTP/1.0 400 Bad request\r\n\r\n"), "an HTTP server"),
        (Wrong::IsSilent, "returned nothing of the handshake"),
    ] {
        for load in [&["-n", "10"] as &[_], &["--churn", "-n", "10"]] {
            let target = serve(wrong).to_string();
            let (status, _, stderr) =
                run(edgecho(&["flood", &target, "-c", "2", "--handshake-timeout", "100ms"]).args(load));
            assert_eq!(status.code(), Some(2), "{stderr}");
            assert!(stderr.starts_with("error: cannot flood 127.0.0.1:") && stderr.contains(words), "{stderr}");
        }
    }
    let (status, _, stderr) = run(&mut edgecho(&["flood", &free_address().to_string(), "-n", "1"]));
    assert_eq!(status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("connection refused: nothing listens there"), "{stderr}");
}

#[test]
fn a_stream_of_which_the_rest_never_comes_ends_half_closed_too() {
    let process = Process::rust(&[]);
    process.freeze(); // the kernel still accepts connections and bytes
    let arguments = ["--bulk", "--half-close", "-c", "2", "-d", "100ms", "--timeout", "100ms", "--no-handshake"];
    let (status, report, stderr) = flood(process.address, &arguments);
    assert_eq!(status.code(), Some(1), "{stderr}{report:#}");
    assert_eq!(count(&report, "/messages/lost"), 2, "{report:#}");
}

#[test]
fn an_outage_fails_the_run_has_a_time_and_no_latency() {
    let process = Process::rust(&["--drain-timeout", "50ms"]);
    let idle = process.descriptors();
    // 10 messages per second: when the service ends, hardly ever is one on its way.
    let target = process.address.to_string();
    let mut child =
        Program::piped(&mut edgecho(&["flood", &target, "-c", "10", "-d", "1500ms", "--rate", "10", "--json", "-"]));
    wait_until("all ten connections are open", || process.descriptors() == idle + 10);
    process.terminate();
    let (status, stdout, stderr) = child.finish();
    let report: Value = serde_json::from_str(&stdout).expect("a report");
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
    // Each connection answers once. The pause before the next connection is longer than an answer takes.
    let arguments = ["-c", "2", "-n", "6", "--rate", "20", "--timeout", "10s"];
    let (status, report, stderr) = flood(target, &arguments);
    assert_eq!((status.code(), count(&report, "/messages/lost")), (Some(1), 0), "{stderr}{report:#}");
    let (status, report, stderr) = flood(target, &[&arguments[..], &["--assert", "ended<100"]].concat());
    assert_eq!((status.code(), count(&report, "/messages/lost")), (Some(0), 0), "{stderr}{report:#}");
}
