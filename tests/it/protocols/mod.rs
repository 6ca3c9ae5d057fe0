//! The protocols, end to end: lines and frames arrive whole, however the network cuts the stream.

mod collect;
mod memory;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use edgecho::protocol::Frames;
use proptest::prelude::*;

use crate::support::client::{
    assert_same, connect, connect_with_receive_buffer, finish, pattern, read_to_fin, receive, reset, stuff,
};
use crate::support::{Process, edgecho, eventually, pause, wait_until};

fn line_server() -> Process {
    Process::rust(&["--protocol", "line", "--max-line", "100"])
}

fn frame_server() -> Process {
    Process::rust(&["--protocol", "frame", "--max-frame", "100"])
}

/// Sends parts, each in a segment of its own where possible, and then a FIN. Returns what came back before the server's FIN.
fn exchange(process: &Process, parts: &[&[u8]]) -> Vec<u8> {
    let stream = connect(process.address);
    for part in parts {
        if (&stream).write_all(part).is_err() {
            break; // the server has closed: its last bytes are still unread
        }
    }
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut back = Vec::new();
    // A reset may follow the server's FIN, because we sent on. What came before it counts.
    let _ = (&stream).read_to_end(&mut back);
    back
}

#[test]
fn lines_come_back_whole_as_they_were_sent() {
    let process = line_server();
    for text in ["", "\n", "a\n", "a\r\n", "a\nb\r\n\n\r\nc", "no end", "\r\n", "a\rb\n", "quit now\n"] {
        assert_same(&exchange(&process, &[text.as_bytes()]), text.as_bytes());
        let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        assert_same(&exchange(&process, &bytes), text.as_bytes());
    }
    let many = (0..5_000).map(|number| format!("line {number}\r\n")).collect::<String>();
    assert_same(&exchange(&process, &[many.as_bytes()]), many.as_bytes());
    process.terminate();
}

#[test]
fn a_part_of_a_line_waits_for_its_end() {
    let process = line_server();
    let stream = connect(process.address);
    (&stream).write_all(b"first\nsec").expect("send");
    assert_eq!(receive(&stream, 6), b"first\n");
    process.settle();
    stream.set_nonblocking(true).expect("a flag");
    assert!((&stream).read(&mut [0; 1]).is_err(), "nothing more, for now");
    stream.set_nonblocking(false).expect("a flag");
    (&stream).write_all(b"ond\n").expect("send");
    assert_eq!(receive(&stream, 7), b"second\n");
    drop(stream);
    process.terminate();
}

#[test]
fn quit_is_answered_and_ends_the_connection_in_order() {
    let process = line_server();
    for quit in ["quit\n", "quit\r\n"] {
        for before in ["", "hello\n"] {
            let stream = connect(process.address);
            (&stream).write_all(format!("{before}{quit}").as_bytes()).expect("send");
            assert_same(&read_to_fin(&stream), format!("{before}{quit}").as_bytes());
        }
        let stream = connect(process.address);
        (&stream).write_all(format!("{quit}never\n").as_bytes()).expect("send");
        assert_same(&read_to_fin(&stream), quit.as_bytes());
    }
    process.terminate();
}

#[test]
fn a_line_may_be_as_long_as_it_may_and_no_longer() {
    let process = line_server();
    for end in ["\n", "\r\n"] {
        let longest = format!("{}{end}", "x".repeat(100));
        assert_same(&exchange(&process, &[longest.as_bytes()]), longest.as_bytes());
        for cut in [1, 50, 100] {
            let (one, other) = longest.as_bytes().split_at(cut);
            assert_same(&exchange(&process, &[one, other]), longest.as_bytes());
        }
        let too_long = format!("ok\n{}{end}", "x".repeat(101));
        let stream = connect(process.address);
        (&stream).write_all(too_long.as_bytes()).expect("send");
        assert_same(&read_to_fin(&stream), b"ok\nerror: line longer than 100 bytes\n");
    }
    let stream = connect(process.address);
    (&stream).write_all(&[b'x'; 101]).expect("send");
    assert_same(&read_to_fin(&stream), b"error: line longer than 100 bytes\n");
    drop(stream);
    process.terminate();
}

/// Sends `parts`. The last part and the FIN arrive while the server is stopped: one event reports both.
fn exchange_with_fin(process: &Process, parts: &[&[u8]]) -> Vec<u8> {
    let stream = connect(process.address);
    let (last, first) = parts.split_last().expect("at least one");
    for part in first {
        (&stream).write_all(part).expect("send");
        process.settle();
    }
    process.freeze();
    (&stream).write_all(last).expect("send");
    finish(&stream);
    process.thaw();
    read_to_fin(&stream)
}

#[test]
fn nothing_follows_the_last_word_of_line_though_the_fin_came_with_it() {
    let process = line_server();
    let error = b"error: line longer than 100 bytes\n";
    let long = [b'x'; 60];
    assert_same(&exchange_with_fin(&process, &[&long, &long]), error);
    assert_same(&exchange_with_fin(&process, &[&long, &long, b"rest"]), error);
    assert_same(
        &exchange_with_fin(&process, &[b"a\n", &long, b"xx\nb", &[b'x'; 101]]),
        &[b"a\n", &long[..], b"xx\n", error].concat(),
    );
    for quit in ["quit\n", "quit\r\n"] {
        assert_same(&exchange_with_fin(&process, &[format!("a\n{quit}rest").as_bytes()]), format!("a\n{quit}").as_bytes());
        assert_same(&exchange_with_fin(&process, &[b"a\nqu", &quit.as_bytes()[2..]]), format!("a\n{quit}").as_bytes());
    }
    process.terminate();
}

#[test]
fn frames_come_back_whole() {
    let process = frame_server();
    let payloads = [pattern(1, 0), pattern(2, 1), pattern(3, 100), pattern(4, 0), pattern(5, 99)];
    let stream: Vec<u8> = payloads.iter().flat_map(|payload| Frames::encode(payload)).collect();
    assert_same(&exchange(&process, &[&stream]), &stream);
    for cut in 0..=stream.len() {
        let (one, other) = stream.split_at(cut);
        assert_same(&exchange(&process, &[one, other]), &stream);
    }
    let many = stream.repeat(500);
    assert_same(&exchange(&process, &[&many]), &many);
    process.terminate();
}

#[test]
fn an_end_at_any_place_returns_the_frames_before_it() {
    let process = Process::rust(&["--protocol", "frame", "-v"]);
    let one = Frames::encode(b"hello");
    let stream = one.repeat(2);
    for end in 0..=stream.len() {
        let whole = &stream[..end / one.len() * one.len()];
        assert_same(&exchange(&process, &[&stream[..end]]), whole);
    }
    let within = eventually("all are told", || {
        let count = process.stderr().matches("the peer ended within a frame").count();
        (process.stderr().matches("closed: ").count() == stream.len() + 1).then_some(count)
    });
    assert_eq!(within, stream.len() + 1 - 3, "{}", process.stderr());
    process.terminate();
}

#[test]
fn a_frame_that_is_too_long_is_a_warning_and_the_end() {
    let process = frame_server();
    let stream = connect(process.address);
    let peer = stream.local_addr().expect("an address");
    (&stream).write_all(&[Frames::encode(b"ok"), 101_u32.to_be_bytes().to_vec()].concat()).expect("send");
    assert_same(&read_to_fin(&stream), &Frames::encode(b"ok"));
    let log = eventually("a warning", || Some(process.stderr()).filter(|log| log.contains("WARN")));
    assert!(log.contains(&format!("peer={peer}")) && log.contains("length=101"), "{log}");
    drop(stream);
    process.terminate();
}

#[test]
fn a_frame_larger_than_any_buffer_costs_no_more_than_itself() {
    let process = Process::rust(&["--protocol", "frame", "--max-frame", "8MiB"]);
    let before = process.rss_bytes();
    let frame = Frames::encode(&pattern(9, 8 << 20));
    let stream = connect(process.address);
    (&stream).write_all(&frame[..frame.len() - 1]).expect("send");
    wait_until("all has been read", || process.rss_bytes() > before + (8 << 20));
    let held = process.rss_bytes() - before;
    assert!(held < (8 << 20) + (8 << 20) / 4, "{held} bytes for a frame of {}", frame.len());
    (&stream).write_all(&frame[frame.len() - 1..]).expect("send");
    assert_same(&receive(&stream, frame.len()), &frame);
    drop(stream);
    process.terminate();
}

#[test]
fn however_a_stream_is_cut_the_same_comes_back() {
    let (lines, frames) = (line_server(), frame_server());
    let parts = |stream: &[u8], cuts: &[usize]| {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (stream.len() + 1)).chain([0, stream.len()]).collect();
        cuts.sort_unstable();
        cuts.windows(2).map(|pair| stream[pair[0]..pair[1]].to_vec()).collect::<Vec<_>>()
    };
    let cuts = || prop::collection::vec(0_usize..2_000, 0..12);
    let config = ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(text in prop::collection::vec("[ab\r]{0,90}\n", 0..20), last in "[ab]{0,90}", cuts in cuts())| {
        let stream = (text.concat() + &last).into_bytes();
        let parts = parts(&stream, &cuts);
        prop_assert_eq!(exchange(&lines, &parts.iter().map(|part| &part[..]).collect::<Vec<_>>()), stream);
    });
    let config = ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 0..20), cuts in cuts())| {
        let stream: Vec<u8> = payloads.iter().flat_map(|payload| Frames::encode(payload)).collect();
        let parts = parts(&stream, &cuts);
        prop_assert_eq!(exchange(&frames, &parts.iter().map(|part| &part[..]).collect::<Vec<_>>()), stream);
    });
    lines.terminate();
    frames.terminate();
}

#[test]
fn every_client_gets_the_status_and_one_that_does_not_read_is_skipped() {
    let process = Process::rust(&["--status-interval", "100ms", "--outbox-limit", "1KiB", "--write-timeout", "off"]);
    let (reader, idler) = (connect(process.address), connect_with_receive_buffer(process.address, 64 << 10));
    // A client that does not read its echo does not get statuses without end.
    stuff(&idler, &vec![0; 64 << 20]);
    let mut lines = BufReader::new(&reader).lines();
    for _ in 0..3 {
        assert_eq!(lines.next().expect("a line").expect("a line"), "Server status: 2 active connections");
    }
    assert!(process.figure("skipped") >= 2, "{}", process.stderr());
    reset(idler);
    drop(reader);
    process.terminate();
}

#[test]
fn a_quiet_client_gets_a_heartbeat_and_a_talking_one_does_not() {
    let process = Process::rust(&["--heartbeat", "200ms", "--protocol", "frame"]);
    let (quiet, talker) = (connect(process.address), connect(process.address));
    let (beat, frame) = (Frames::encode(b"HEARTBEAT\n"), Frames::encode(b"talk"));
    let start = Instant::now();
    let mut beats = 0;
    while beats < 3 {
        (&talker).write_all(&frame).expect("send");
        assert_eq!(receive(&talker, frame.len()), frame, "its own, and no heartbeat");
        pause(Duration::from_millis(20));
        quiet.set_nonblocking(true).expect("a flag");
        let has_come = quiet.peek(&mut [0; 1]).is_ok();
        quiet.set_nonblocking(false).expect("a flag");
        if has_come {
            assert_eq!(receive(&quiet, beat.len()), beat);
            beats += 1;
            assert!(start.elapsed().as_millis() >= 200 * beats, "never early");
        }
    }
    drop((quiet, talker));
    process.terminate();
}

/// Runs a client command with `stdin`, checks its status, and returns its stdout.
fn client(arguments: &[&str], stdin: &[u8], status: i32) -> Vec<u8> {
    let mut child =
        edgecho(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program");
    let mut input = child.stdin.take().expect("piped");
    let stdin = stdin.to_vec();
    let writer = std::thread::spawn(move || input.write_all(&stdin));
    let output = child.wait_with_output().expect("our own child");
    let _ = writer.join().expect("no panic");
    assert_eq!(output.status.code(), Some(status), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn ping_and_flood_speak_lines_and_frames() {
    for (name, process) in [("line", line_server()), ("frame", frame_server())] {
        let address = process.address.to_string();
        for size in ["1", "12", "30", "100"] {
            client(&["ping", &address, "--protocol", name, "-c", "5", "-i", "0", "-s", size], b"", 0);
            for load in [
                &["-n", "500"] as &[_],
                &["-n", "500", "--pipeline", "16", "--half-close"],
                &["-d", "50ms", "--bulk"],
                &["-n", "100", "--churn"],
            ] {
                let size: &[_] = if load.contains(&"--bulk") { &[] } else { &["-s", size] };
                client(&[&["flood", &address, "--protocol", name, "-c", "5"], load, size].concat(), b"", 0);
            }
        }
        client(&["flood", &address, "--protocol", name, "-s", "1,2"], b"", 2);
        process.terminate();
    }
}

#[test]
fn send_takes_lines_or_frames_and_gives_back_what_came() {
    let (lines, frames) = (line_server(), frame_server());
    let many: String = (0..10_000).map(|number| format!("line {number}\n")).collect();
    for text in ["", "\n", "one\n", "one\n\ntwo\n", &many] {
        let text = text.as_bytes();
        assert_same(&client(&["send", &lines.address.to_string()], text, 0), text);
        assert_same(&client(&["send", &frames.address.to_string(), "--protocol", "frame"], text, 0), text);
    }
    let raw = [Frames::encode(b""), Frames::encode(&[0, 10, 255])].concat();
    assert_same(&client(&["send", &frames.address.to_string(), "--protocol", "frame", "--raw"], &raw, 0), &raw);
    assert_same(&client(&["send", &lines.address.to_string()], b"a\nquit\nb\n", 0), b"a\nquit\n");
    let small = ["send", &frames.address.to_string(), "--protocol", "frame", "--max-frame", "3"];
    client(&small, b"four\n", 2);
    lines.terminate();
    let gone = frames.address.to_string();
    frames.terminate();
    client(&["send", &gone], b"", 2);
}
