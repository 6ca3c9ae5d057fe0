//! The limits and timeouts of the Rust server, and its statistics about them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use socket2::SockRef;

use crate::support::client::{
    assert_same, connect, connect_from, connect_with_receive_buffer, echo, finish, pattern, read_to_fin, receive, stuff,
};
use crate::support::{PATIENCE, Process, Server, edgecho, pause, quiet, raise_descriptor_limit, run, skip, wait_until};

#[test]
fn at_the_limit_new_clients_wait_and_nobody_is_refused() {
    let process = Process::rust(&["--max-connections", "5"]);
    let mut clients: Vec<_> = (0..12).map(|_| connect(process.address)).collect();
    for mut client in &clients {
        client.write_all(b"me, too").expect("send");
    }
    wait_until("five are in", || process.figure("open") == 5);
    assert_eq!(process.figure("accepted"), 5);
    assert_eq!(process.stderr().matches("connection limit reached").count(), 1, "{}", process.stderr());
    while !clients.is_empty() {
        let client = clients.remove(0);
        assert_eq!(receive(&client, 7), b"me, too");
    }
    wait_until("all have been", || process.figure("closed_peer") == 12);
    process.terminate();
}

#[test]
fn more_connections_than_descriptors_are_an_error_that_names_the_limit() {
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--max-connections", "10000000000"];
    let (status, _, stderr) = run(&mut edgecho(&arguments));
    assert_eq!(status.code(), Some(2));
    assert!(stderr.contains("RLIMIT_NOFILE") && stderr.contains("ulimit"), "{stderr}");
}

#[test]
fn a_backlog_that_the_kernel_cuts_is_a_warning() {
    let somaxconn = std::fs::read_to_string("/proc/sys/net/core/somaxconn").expect("proc(5)");
    let process = Process::rust(&["--backlog", "2000000000"]);
    let warning = format!("the backlog of 2000000000 is cut to {}", somaxconn.trim());
    wait_until("a warning", || process.stderr().contains(&warning));
    process.terminate();
}

#[test]
fn combinations_that_make_no_sense_are_refused_with_a_reason() {
    for (flags, reason) in [
        (&["--idle-timeout", "60s", "--max-lifetime", "30s"] as &[_], "more than --max-lifetime"),
        (&["--max-per-ip", "10", "--max-connections", "5"], "more than --max-connections"),
        (&["--ipv6-only"], "no IPv6 address"),
        (&["--linger", "5s"], "close(2) blocks"),
        (&["--idle-timeout", "1ms"], "from 10ms"),
        (&["--memory-limit", "1KiB"], "at least 64KiB"),
        (&["--rate-limit", "1"], "from 100B to 1TiB"),
        (&["--keepalive", "10s,5s"], "IDLE,INTERVAL,COUNT"),
        (&["--keepalive", "100ms"], "whole seconds"),
        (&["--busy-poll", "1h"], "from 0s to 1s"),
        (&["--stats-interval", "400000000000years"], "from 100ms to 20days"),
        (&["--bind-device", "no-such-device"], "cannot set --bind-device"),
    ] {
        let (status, _, stderr) = run(edgecho(&["serve", "--listen", "127.0.0.1:0"]).args(flags));
        assert!(!status.success() && stderr.starts_with("error: "), "{flags:?}: {stderr}");
        assert!(stderr.contains(reason), "{flags:?}: {stderr}");
    }
}

#[test]
fn one_source_cannot_take_all_places() {
    let process = Process::rust(&["--max-per-ip", "2"]);
    let (one, two) = (connect(process.address), connect(process.address));
    echo(&one, b"first");
    echo(&two, b"second");
    assert_eq!(read_to_fin(&connect(process.address)), b"", "the third is closed at once");
    let other = connect_from("127.0.0.2", process.address);
    echo(&other, b"from elsewhere");
    drop(one);
    wait_until("a place is free again", || {
        let mut stream = connect(process.address);
        stream.write_all(b"x").is_ok() && stream.read(&mut [0]).is_ok_and(|count| count == 1)
    });
    assert!(process.figure("closed_limit") >= 1);
    drop((two, other));
    process.terminate();
}

#[test]
fn a_silent_client_is_closed_in_order_and_a_talking_one_is_not() {
    let process = Process::rust(&["--idle-timeout", "1s"]);
    let start = Instant::now();
    let (silent, talker) = (connect(process.address), connect(process.address));
    let listener = std::thread::spawn(move || (read_to_fin(&silent), start.elapsed(), silent));
    while !listener.is_finished() {
        echo(&talker, b"still here");
        pause(Duration::from_millis(20));
    }
    let (bytes, elapsed, silent) = listener.join().expect("the silent one");
    assert_eq!(bytes, b"", "a FIN, and no reset");
    assert!(elapsed >= Duration::from_secs(1), "closed early, after {elapsed:?}");
    echo(&talker, b"still here");
    drop(silent);
    wait_until("it is counted", || process.figure("closed_idle") == 1);
    drop(talker);
    process.terminate();
}

/// The shortest timeout decides the wheel's step and its reach: here 0.26 s.
#[test]
fn a_timeout_out_of_the_wheels_reach_still_comes() {
    let process = Process::rust(&["--write-timeout", "10ms", "--idle-timeout", "700ms"]);
    let start = Instant::now();
    let silent = connect(process.address);
    assert_eq!(read_to_fin(&silent), b"");
    assert!(start.elapsed() >= Duration::from_millis(700), "closed early, after {:?}", start.elapsed());
    drop(silent);
    wait_until("it is counted", || process.figure("closed_idle") == 1);
    process.terminate();
}

#[test]
fn a_peer_that_takes_nothing_is_cut_off_and_one_that_takes_slowly_is_not() {
    // Longer than it takes to see that nothing moves any more.
    let process = Process::rust(&["--write-timeout", "1500ms"]);
    let (stuck, slow) = (connect(process.address), connect(process.address));
    let bytes = pattern(1, 12 << 20);
    stuff(&stuck, &bytes);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (&slow).write_all(&bytes).expect("send");
            finish(&slow);
        });
        // Takes something every 50 ms for as long as the other one lasts, and then the rest.
        let mut back = Vec::new();
        let mut buffer = vec![0; 200_000];
        while process.figure("closed_write_stalled") == 0 {
            let count = (&slow).read(&mut buffer).expect("it takes its bytes");
            back.extend_from_slice(&buffer[..count]);
            pause(Duration::from_millis(50));
        }
        back.extend(read_to_fin(&slow));
        assert_same(&back, &bytes);
    });
    assert_eq!(process.figure("closed_write_stalled"), 1);
    assert_eq!(process.figure("pending_bytes"), 0);
    drop((stuck, slow));
    process.terminate();
}

#[test]
fn a_lifetime_ends_whatever_the_connection_does() {
    let process = Process::rust(&["--max-lifetime", "300ms"]);
    let start = Instant::now();
    let stream = connect(process.address);
    let mut count = 0;
    while (&stream).write_all(b"on and on").is_ok() {
        let mut back = [0; 9];
        match (&stream).read(&mut back) {
            Ok(0) | Err(_) => break,
            Ok(_) => count += 1,
        }
    }
    assert!(start.elapsed() >= Duration::from_millis(300) && count > 0, "{count} echoes in {:?}", start.elapsed());
    drop(stream);
    wait_until("it is counted", || process.figure("closed_lifetime") == 1);
    process.terminate();
}

#[test]
fn a_rate_limit_slows_the_sender_and_drops_nothing() {
    let process = Process::rust(&["--rate-limit", "100KB"]);
    let stream = connect(process.address);
    let bytes = pattern(1, 150_000);
    let start = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (&stream).write_all(&bytes).expect("send");
            finish(&stream);
        });
        assert_same(&read_to_fin(&stream), &bytes);
    });
    // A tenth of a second's worth comes at once; the rest at the rate.
    assert!(start.elapsed() >= Duration::from_millis(1_300), "150 KB at 100 KB/s in {:?}", start.elapsed());
    drop(stream);
    process.terminate();
}

#[test]
fn a_memory_limit_stops_the_reading_and_drops_nothing() {
    const LIMIT: u64 = 128 * 1024;
    // The kernel's own buffers do not grow to hold it all.
    let process = Process::rust(&["--memory-limit", "128KiB", "--recv-buffer", "1MiB"]);
    let bytes = pattern(1, 12 << 20);
    let streams: Vec<_> = (0..16).map(|_| connect(process.address)).collect();
    std::thread::scope(|scope| {
        for stream in &streams {
            let bytes = &bytes;
            scope.spawn(move || {
                let sent = stuff(stream, bytes);
                assert!(sent < bytes.len());
                assert_same(&receive(stream, sent), &bytes[..sent]);
            });
        }
    });
    let most = process.figure("most_pending_bytes");
    // The share of the outboxes depends on when each client begins to read.
    assert!((1..LIMIT + 32 * 1024).contains(&most), "{most} bytes were pending at most");
    drop(streams);
    process.terminate();
}

/// At the drain's deadline, a connection that waits for its rate or for memory is closed in order, too.
#[test]
fn a_drain_does_not_wait_for_rates_or_memory() {
    let mut process = Process::rust(&["--rate-limit", "100B", "--memory-limit", "64KiB", "--drain-timeout", "100ms"]);
    let stream = connect(process.address);
    (&stream).write_all(&pattern(1, 5_000)).expect("send");
    let mut first = [0; 10];
    (&stream).read_exact(&mut first).expect("the first burst");
    let start = Instant::now();
    process.signal(Signal::SIGTERM);
    let back = [first.to_vec(), read_to_fin(&stream)].concat();
    assert!(start.elapsed() < Duration::from_secs(10), "its FIN came only after {:?}", start.elapsed());
    assert_same(&back, &pattern(1, 5_000)[..back.len()]);
    drop(stream);
    // The server received bytes in time for the drain, and lost them because of the rate limit.
    assert!(back.len() < 5_000, "all came back");
    assert_eq!(process.wait().code(), Some(1), "{}", process.stderr());
}

/// 400 connections, each with as much pending as it can have, in 48 MiB of address space, of which the program itself takes a
/// third.
#[test]
fn memory_is_bounded_at_full_load() {
    const CONNECTIONS: usize = 400;
    let process = Process::start_after(
        Server::Rust,
        "ulimit -n 500; ulimit -v 49152",
        &["--send-buffer", "4KiB", "--max-connections", "400"],
    )
    .expect("the program");
    let bytes = pattern(1, 4 << 20);
    let mut streams: Vec<_> = (0..CONNECTIONS).map(|_| (connect_with_receive_buffer(process.address, 4 << 10), 0)).collect();
    for (stream, _) in &streams {
        stream.set_nonblocking(true).expect("a flag");
    }
    wait_until("every connection has pending bytes", || {
        for (stream, sent) in &mut streams {
            let end = (*sent + (32 << 10)).min(bytes.len());
            *sent += stream.write(&bytes[*sent..end]).unwrap_or(0);
        }
        process.figure("pending_bytes") > CONNECTIONS as u64 * 4 * 1024
    });
    // With so small a send buffer the echo is slow, so only some clients read it.
    for (stream, sent) in streams.iter().step_by(CONNECTIONS / 4) {
        stream.set_nonblocking(false).expect("a flag");
        SockRef::from(stream).set_recv_buffer_size(1 << 20).expect("SO_RCVBUF");
        assert_same(&receive(stream, *sent), &bytes[..*sent]);
    }
    assert_eq!(process.figure("open"), CONNECTIONS as u64);
    drop(streams);
    process.terminate();
}

#[test]
fn statistics_say_what_went_on() {
    let mut process = Process::rust(&["--stats-interval", "100ms", "-v"]);
    let stream = connect(process.address);
    echo(&stream, &pattern(1, 1_000));
    echo(&stream, &pattern(2, 234));
    assert_eq!(process.figure("accepted"), 1);
    assert_eq!(process.figure("open"), 1);
    assert_eq!(process.figure("received_bytes"), 1_234);
    assert_eq!(process.figure("sent_bytes"), 1_234);
    assert!(process.figure("turns") > 0 && process.figure("events") > 0);
    drop(stream);
    wait_until("it is counted", || process.figure("closed_peer") == 1);
    assert_eq!(process.figure("received_bytes"), 1_234, "what has left is still counted");
    wait_until("a log line", || process.stderr().contains("INFO statistics accepted=1"));
    process.signal(Signal::SIGTERM);
    assert!(process.wait().success());
    assert!(process.stderr().trim_end().lines().last().is_some_and(|line| line.starts_with("longest_turn_us ")));
}

#[test]
fn busy_polling_ends_when_nothing_comes_any_more() {
    let process = Process::rust(&["--busy-poll", "50ms"]);
    let stream = connect(process.address);
    for round in 0..100 {
        echo(&stream, &pattern(round, 100));
    }
    process.settle();
    let before = (process.sleeps(), process.cpu_time());
    // That nothing happens can only be seen by letting time go by.
    pause(Duration::from_millis(300));
    assert_eq!((process.sleeps(), process.cpu_time()), before);
    drop(stream);
    process.terminate();
}

/// Ten thousand clients connect and send nothing, and one pings.
#[test]
fn slowloris_is_gone_when_its_time_is_up() {
    const CLIENTS: usize = 10_000;
    let _guard = quiet();
    if raise_descriptor_limit() < 3 * CLIENTS as u64 / 2 {
        return skip("slowloris_is_gone_when_its_time_is_up", "the hard limit on descriptors is too low: ulimit -Hn");
    }
    let process = Process::rust(&["--idle-timeout", "1s"]);
    let pinger = connect(process.address);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            if number % 100 == 0 {
                echo(&pinger, b"ping");
            }
            TcpStream::connect(process.address).expect("connect")
        })
        .collect();
    let connected = Instant::now();
    let before = process.cpu_time();
    let mut slowest = Vec::new();
    while process.figure("open") > 1 {
        let start = Instant::now();
        echo(&pinger, b"ping");
        slowest.push(start.elapsed());
        // Each has the server's FIN, and closes.
        pause(Duration::from_millis(20));
        if connected.elapsed() > Duration::from_secs(1) {
            for client in &clients {
                let _ = client.shutdown(std::net::Shutdown::Both);
            }
        }
        assert!(connected.elapsed() < PATIENCE, "they are still there");
    }
    let load = (process.cpu_time() - before).as_secs_f64() / connected.elapsed().as_secs_f64();
    slowest.sort();
    println!("gone {:?} after the last came, at {:.1} % CPU", connected.elapsed(), load * 100.0);
    println!("pings: median {:?}, slowest {:?}", slowest[slowest.len() / 2], slowest[slowest.len() - 1]);
    assert_eq!(process.figure("open"), 1);
    drop(clients);
    process.terminate();
}
