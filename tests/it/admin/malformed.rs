//! Malformed requests by the thousand.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use edgecho::service::admin::MAX_HEAD_BYTES;

use crate::support::client::{connect, echo, pattern};
use crate::support::http::{exchange, get, sample};
use crate::support::{Process, wait_until};

const REQUESTS: usize = 10_000;

/// Good requests, which are then broken.
const GOOD: [&str; 5] = [
    "GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: application/openmetrics-text;version=1.0.0;q=0.5,*/*\r\n\r\n",
    "HEAD / HTTP/1.1\r\nHost: [::1]:9777\r\nConnection: keep-alive, close\r\n\r\n",
    "POST /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
    "GET http://localhost:9777/readyz?x=y HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET / HTTP/1.0\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
];

/// Bytes that break parsers.
const NASTY: [&[u8]; 12] = [
    b"\r",
    b"\n",
    b"\0",
    b"\r\n\r\n",
    b" ",
    b":",
    b"\xff\xfe",
    b"HTTP/1.1",
    b"Content-Length: -1\r\n",
    b"%00",
    b"\t",
    b"\x16\x03\x01",
];

/// Returns the request with this number, always the same.
pub fn request(number: usize) -> Vec<u8> {
    let dice: Vec<usize> =
        pattern(number as u64 + 1, 64).chunks(2).map(|two| usize::from(two[0]) << 8 | usize::from(two[1])).collect();
    if dice[0].is_multiple_of(4) {
        return pattern(number as u64, dice[1] % (2 * MAX_HEAD_BYTES)); // noise
    }
    let mut bytes = GOOD[dice[1] % GOOD.len()].as_bytes().to_vec();
    for change in dice[3..].chunks_exact(3).take(1 + dice[2] % 6) {
        let at = change[1] % (bytes.len() + 1);
        let nasty = NASTY[change[2] % NASTY.len()];
        match change[0] % 5 {
            0 => bytes.truncate(at),
            1 => drop(bytes.splice(at..at, nasty.iter().copied())),
            2 => drop(bytes.splice(at..(at + nasty.len()).min(bytes.len()), nasty.iter().copied())),
            3 => drop(bytes.drain(at..(at + change[2] % 9).min(bytes.len()))),
            _ => drop(bytes.splice(at..at, std::iter::repeat_n(b'x', change[2] % 9_000))),
        }
    }
    bytes
}

#[test]
fn ten_thousand_malformed_requests_leak_nothing_and_affect_no_client_of_the_service() {
    let (server, admin) = Process::with_admin(&[]);
    let round = |numbers: std::ops::Range<usize>| {
        for number in numbers {
            let answer = exchange(admin, &request(number));
            let is_answer = answer.is_empty() || answer.starts_with(b"HTTP/1.1 ");
            assert!(is_answer, "request {number}: {:?}", String::from_utf8_lossy(&answer));
        }
    };
    round(0..500); // the heap has its usual size afterwards
    assert_eq!(get(admin, "/livez").status, 200);
    let threads = || std::fs::read_dir(format!("/proc/{}/task", server.pid())).expect("proc(5)");
    let descriptors = || {
        let folders = threads().map(|thread| thread.expect("proc(5)").path().join("fd"));
        folders.map(|folder| std::fs::read_dir(folder).expect("proc(5)").count()).sum::<usize>()
    };
    // The thread of the log, which a sandbox starts at once, has three of its own.
    let idle = 22 + 3 * (threads().count() - 2);
    wait_until("the connections are closed", || descriptors() <= idle);
    let (before, memory) = (descriptors(), server.rss_bytes());
    let is_over = AtomicBool::new(false);
    let slowest = std::thread::scope(|scope| {
        let pings = scope.spawn(|| {
            let (client, mut slowest) = (connect(server.address), Duration::ZERO);
            while !is_over.load(Ordering::Relaxed) {
                let start = Instant::now();
                echo(&client, b"are you there?");
                slowest = slowest.max(start.elapsed());
            }
            slowest
        });
        let rounds = [500..REQUESTS / 2, REQUESTS / 2..REQUESTS + 500].map(|numbers| scope.spawn(|| round(numbers)));
        let results = rounds.map(|round| round.join());
        is_over.store(true, Ordering::Relaxed);
        assert!(results.into_iter().all(|result| result.is_ok()), "each request gets an answer");
        pings.join().expect("an echo of each ping")
    });
    assert!(slowest < Duration::from_secs(1), "a ping took {slowest:?}");
    wait_until("the connections are closed", || descriptors() <= before);
    let grown = server.rss_bytes().saturating_sub(memory);
    assert!(grown < 1 << 20, "{grown} bytes");
    let metrics = get(admin, "/metrics").body;
    for code in [200, 204, 400, 404, 405, 413, 414, 431, 501, 505] {
        assert!(
            sample(&metrics, &format!("edgecho_admin_responses_total{{code=\"{code}\"}}")) > 0,
            "no request led to {code}:\n{metrics}"
        );
    }
    assert!(!server.stderr().contains("panic"), "{}", server.stderr());
    server.terminate();
}
