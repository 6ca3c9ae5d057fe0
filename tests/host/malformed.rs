//! 100,000 malformed headers of the PROXY protocol, made from a seed, over real sockets.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use edgecho::server::proxy::{Parsed, parse};
use fastrand::Rng;

use crate::headers;
use crate::support::client::{connect, echo, pattern, reset};
use crate::support::{Process, wait_until};

const HEADERS: u64 = 100_000;
const THREADS: u64 = 4;

/// Makes bytes that are no whole and valid header: noise, or a valid header with changes.
fn malformed(random: &mut Rng) -> Vec<u8> {
    loop {
        let bytes = candidate(random);
        if !bytes.is_empty() && !matches!(parse(&bytes), Ok(Parsed::Whole(_))) {
            return bytes;
        }
    }
}

fn candidate(random: &mut Rng) -> Vec<u8> {
    let source = SocketAddr::from(([10, 1, random.u8(..), random.u8(..)], random.u16(..)));
    let noise = |random: &mut Rng, most: usize| -> Vec<u8> {
        let count = random.usize(..most);
        std::iter::repeat_with(|| random.u8(..)).take(count).collect()
    };
    let mut bytes = match random.u8(..8) {
        0 => noise(random, 300),
        1 => [&b"PROXY "[..], &noise(random, 200)].concat(),
        2 => [&b"\r\n\r\n\0\r\nQUIT\n"[..], &noise(random, 300)].concat(),
        3 => {
            let (command, family) = (0x20 + random.u8(..2), [0x11, 0x12, 0x21, 0x31, 0x41][random.usize(..5)]);
            headers::raw_v2(command, family, &noise(random, 6_000))
        }
        4 => headers::v1(source),
        5 => headers::v2(source),
        6 => headers::v2_with_vectors(source),
        _ => headers::v2_with_checksum(source, random.bool()),
    };
    for _ in 0..random.u8(..4) {
        if bytes.is_empty() {
            break;
        }
        let place = random.usize(..bytes.len());
        match random.u8(..5) {
            0 => bytes[place] = random.u8(..),
            1 => bytes[place] ^= 1 << random.u8(..8),
            2 => drop(bytes.remove(place)),
            3 => bytes.insert(place, b"\r\n 0:.Px\0\xff"[random.usize(..10)]),
            _ => bytes.truncate(place),
        }
    }
    bytes
}

#[test]
fn a_hundred_thousand_malformed_headers_harm_nobody_else() {
    let process = Process::rust(&["--proxy-protocol", "require", "--proxy-from", "127.0.0.1/32", "--proxy-timeout", "1min"]);
    let address = process.address;
    let clients: Vec<_> = (0..4).map(|_| connect(address)).collect();
    for mut client in &clients {
        client.write_all(&headers::v1(SocketAddr::from(([192, 0, 2, 7], 9)))).expect("send");
        echo(client, b"warm");
    }
    // The first thousands reach every part of the server, and its memory is then what it needs.
    send(address, 0..HEADERS / 10);
    let is_quiet = || process.figure("proxy_waiting") == 0 && process.figure("open") == clients.len() as u64;
    wait_until("all are closed", is_quiet);
    let (descriptors, rss) = (process.descriptors(), process.rss_bytes());
    let (is_over, echoes) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for (number, client) in (0..).zip(&clients) {
            let (is_over, echoes) = (&is_over, &echoes);
            scope.spawn(move || {
                let message = pattern(number, 3_000);
                while !is_over.load(Ordering::Relaxed) {
                    echo(client, &message);
                    echoes.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        send(address, HEADERS / 10..HEADERS);
        is_over.store(true, Ordering::Relaxed);
    });
    wait_until("all are closed", is_quiet);
    assert_eq!(process.descriptors(), descriptors, "descriptors");
    let grown = process.rss_bytes().saturating_sub(rss);
    assert!(grown < 1 << 20, "{grown} bytes more");
    let [invalid, reset, timeout, peer] =
        ["proxy_invalid", "reset", "proxy_timeout", "peer"].map(|name| process.figure(&format!("closed_{name}")));
    assert_eq!((invalid + reset, timeout, peer), (HEADERS, 0, 0), "{invalid} invalid, {reset} reset");
    assert!(invalid > HEADERS / 2 && reset > HEADERS / 50, "{invalid} invalid, {reset} reset");
    assert_eq!((process.figure("accepted"), process.figure("proxy_v1")), (HEADERS + 4, 4));
    let lines = process.stderr().lines().filter(|line| line.contains("WARN")).count();
    assert!(lines < 30, "{lines} warnings");
    println!("{echoes:?} echoes beside {HEADERS} malformed headers: {invalid} invalid, {reset} reset; {grown} bytes more");
    drop(clients);
    process.terminate();
}

/// Sends headers from several threads. Each connection ends with a reset, by the server if the header is invalid, or else by the client, so
/// that no port stays in TIME_WAIT.
fn send(address: SocketAddr, numbers: std::ops::Range<u64>) {
    let send_each = |mut number: u64, end: u64| {
        while number < end {
            let bytes = malformed(&mut Rng::with_seed(number));
            let mut stream = connect(address);
            let _ = stream.write_all(&bytes); // the server may close before all is sent
            if parse(&bytes).is_err() {
                let result = stream.read(&mut [0; 16]);
                assert!(!matches!(result, Ok(1..)), "{number} was answered");
            }
            reset(stream);
            number += THREADS;
        }
    };
    thread::scope(|scope| {
        for first in 0..THREADS {
            let numbers = numbers.clone();
            scope.spawn(move || send_each(numbers.start + first, numbers.end));
        }
    });
}
