//! The cost of connections: memory, descriptors, CPU, and the time of the other connections.

use std::io::Write;
use std::time::{Duration, Instant};

use super::start;
use crate::for_both_servers;
use crate::support::client::{connect, connect_with_receive_buffer, echo, pattern, receive, stuff};
use crate::support::{Process, Server, eventually, pause, quiet, raise_descriptor_limit, skip, wait_until};

for_both_servers!(
    sixty_writers_that_never_read_cost_little_and_hold_up_nobody,
    out_of_descriptors_nobody_is_dropped_and_the_rest_wait,
    firehoses_do_not_starve_a_ping,
    idle_means_asleep,
    an_idle_connection_costs_at_most_128_bytes,
);

fn sixty_writers_that_never_read_cost_little_and_hold_up_nobody(server: Server) {
    let process = start(server);
    let pinger = connect(process.address);
    echo(&pinger, b"warm");
    let (before, descriptors) = (process.rss_bytes(), process.descriptors());
    let bytes = pattern(60, 32 << 20);
    // Receive buffers that do not grow: the kernel cannot hold all that a writer sends.
    let writers: Vec<_> = (0..60).map(|_| connect_with_receive_buffer(process.address, 64 << 10)).collect();
    std::thread::scope(|scope| {
        for writer in &writers {
            scope.spawn(|| assert!(stuff(writer, &bytes) < bytes.len(), "it was never stopped"));
        }
    });
    let grown = process.rss_bytes().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes more");
    // The median, because other tests run at the same time. If the writers held up the pinger, it would wait each time.
    let mut round_trips: Vec<_> = (0..21)
        .map(|_| {
            let start = Instant::now();
            echo(&pinger, b"still there?");
            start.elapsed()
        })
        .collect();
    round_trips.sort();
    assert!(round_trips[10] < Duration::from_secs(1), "{round_trips:?}");
    drop(writers);
    wait_until("the writers are forgotten", || process.descriptors() == descriptors);
    drop(pinger);
    process.terminate();
}

fn out_of_descriptors_nobody_is_dropped_and_the_rest_wait(server: Server) {
    let process = Process::start_after(server, "ulimit -n 64", &[]).expect("it was built");
    // The server's own descriptors and those that it has inherited.
    let taken = process.descriptors_below(64);
    let mut clients: Vec<_> = (0..100).map(|_| connect(process.address)).collect();
    for mut client in &clients {
        client.write_all(b"me, too").expect("send");
    }
    let is_served = |client: &std::net::TcpStream| {
        client.set_nonblocking(true).expect("a flag");
        let found = client.peek(&mut [0; 7]);
        client.set_nonblocking(false).expect("a flag");
        matches!(found, Ok(count) if count > 0)
    };
    let expected = 64 - taken;
    wait_until("as many as fit are served", || clients.iter().filter(|c| is_served(c)).count() == expected);

    // While the others wait, the server must not spin.
    let (start, before) = (Instant::now(), process.cpu_time());
    pause(Duration::from_millis(500));
    let load = (process.cpu_time() - before).as_secs_f64() / start.elapsed().as_secs_f64();
    assert!(load < 0.05, "{:.1} % of a CPU while others wait", load * 100.0);

    // Each client that leaves makes room for one that waits.
    while !clients.is_empty() {
        let index = eventually("a client is served", || clients.iter().position(is_served));
        let client = clients.swap_remove(index);
        assert_eq!(receive(&client, 7), b"me, too");
        echo(&client, b"and again");
    }
    process.terminate();
}

fn firehoses_do_not_starve_a_ping(server: Server) {
    let process = start(server);
    let bytes = pattern(8, 256 * 1024);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let stopped = || stop.load(std::sync::atomic::Ordering::Relaxed);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let stream = connect(process.address);
                while !stopped() {
                    echo(&stream, &bytes);
                }
            });
        }
        let pinger = connect(process.address);
        let mut slowest = Duration::ZERO;
        for _ in 0..200 {
            let start = Instant::now();
            echo(&pinger, b"ping");
            slowest = slowest.max(start.elapsed());
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        // A starved ping would wait as long as the firehoses run.
        assert!(slowest < Duration::from_secs(10), "{slowest:?}");
    });
    process.terminate();
}

fn idle_means_asleep(server: Server) {
    let process = start(server);
    let streams: Vec<_> = (0..100).map(|_| connect(process.address)).collect();
    for stream in &streams {
        echo(stream, b"hello");
    }
    process.settle();
    let before = (process.sleeps(), process.cpu_time());
    // That nothing happens can only be seen by letting time go by.
    pause(Duration::from_millis(500));
    assert_eq!((process.sleeps(), process.cpu_time()), before);
    drop(streams);
    process.terminate();
}

fn an_idle_connection_costs_at_most_128_bytes(server: Server) {
    const CONNECTIONS: u64 = 5_000;
    let _guard = quiet();
    // Other tests run at the same time.
    if raise_descriptor_limit() < 3 * CONNECTIONS {
        return skip("an_idle_connection_costs_at_most_128_bytes", "the hard limit on descriptors is too low: ulimit -Hn");
    }
    let process = start(server);
    // The first connections bring code and tables into memory that all others share.
    for _ in 0..100 {
        echo(&connect(process.address), b"warm");
    }
    process.settle();
    let before = process.rss_bytes();
    let streams: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let stream = connect(process.address);
            echo(&stream, &pattern(1, 64));
            stream
        })
        .collect();
    process.settle();
    let each = process.rss_bytes().saturating_sub(before) / CONNECTIONS;
    assert!(each <= 128, "{each} bytes for each connection");
    drop(streams);
    process.terminate();
}
