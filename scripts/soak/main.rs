//! The soak test of `scripts/soak.sh`: servers under chaos, together with well-behaved clients. At the end, the well-behaved clients have lost
//! nothing, and each server has no extra descriptor, little extra memory, a short log, and the right exit status.
#![allow(missing_docs, unreachable_pub, reason = "a program, not a library")]

mod clients;
mod dice;
mod output;
#[path = "../../tests/it/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the tests use the rest")]
mod support;

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use clients::{behave_well, misbehave, read_slowly};
use dice::Dice;
use nix::sys::signal::Signal;
use output::Disk;
use support::{Process, Server, eventually};

/// A descriptor limit that chaos can exhaust.
const DESCRIPTORS: &str = "ulimit -n 256";

/// Maximum growth of a server's resident memory.
const MOST_GROWTH_BYTES: i64 = 8 << 20;

/// Maximum time for which a server is stopped (SIGSTOP).
const LONGEST_STOP: Duration = Duration::from_secs(40);

/// Run servers under chaos and well-behaved clients
#[derive(Debug, Parser)]
struct Options {
    /// Duration in seconds
    #[arg(default_value_t = 60)]
    seconds: u64,
}

/// An echo server under chaos, and its state before.
struct Victim {
    process: Process,
    descriptors: usize,
    rss_bytes: u64,
}

impl Victim {
    fn start(preparation: &str, arguments: &[&str]) -> Self {
        let process = Process::start_after(Server::Rust, preparation, arguments).expect("the release build is there");
        let mut victim = Self { descriptors: process.descriptors(), process, rss_bytes: 0 };
        // Whatever the first connections bring into memory once and for all is not a leak.
        let mut dice = Dice(0);
        for _ in 0..200 {
            let _ = misbehave(victim.process.address, &mut dice);
        }
        victim.settle();
        victim.rss_bytes = victim.process.rss_bytes();
        victim
    }

    /// Waits until all connections are closed.
    fn settle(&self) {
        eventually("all have left", || (self.process.descriptors() == self.descriptors).then_some(()));
    }

    /// Stops the server repeatedly: for 30 ms most times, and now and then for up to `LONGEST_STOP`.
    fn stop_and_continue(&self, end: Instant, total: Duration) {
        let longest = LONGEST_STOP.min(total / 5);
        let mut long_stops = [1, 4, 2].iter().cycle().map(|part| longest / *part);
        let mut long_at = Instant::now() + longest / 2;
        while Instant::now() < end {
            std::thread::park_timeout(Duration::from_millis(700));
            let is_long = Instant::now() > long_at && Instant::now() + longest < end;
            let stop = if is_long { long_stops.next().unwrap_or_default() } else { Duration::from_millis(30) };
            self.process.freeze();
            let until = Instant::now() + stop;
            while Instant::now() < until {
                std::thread::park_timeout(until.saturating_duration_since(Instant::now()));
            }
            self.process.thaw();
            if is_long {
                println!("stopped for {} s", stop.as_secs_f64());
                long_at = Instant::now() + longest;
            }
        }
    }

    /// Ends the server, and returns the faults found.
    fn end(mut self, name: &str, most_log_lines: u64) -> Vec<String> {
        self.settle();
        eventually("memory is given back", || {
            let grown = self.process.rss_bytes() as i64 - self.rss_bytes as i64;
            (grown < MOST_GROWTH_BYTES).then_some(())
        });
        let grown = self.process.rss_bytes() as i64 - self.rss_bytes as i64;
        self.process.signal(Signal::SIGTERM);
        let status = self.process.wait();
        let log_lines = self.process.stderr().lines().count() as u64;
        println!("{name}: descriptors leaked: 0, RSS grown by {grown} bytes, {log_lines} log lines, {status}");
        let mut faults = Vec::new();
        if !status.success() {
            faults.push(format!("{name} ended with {status}"));
        }
        if log_lines > most_log_lines {
            faults.push(format!("{name} logged {log_lines} lines"));
        }
        faults
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    support::raise_descriptor_limit();
    let disk = Disk::new();
    let total = Duration::from_secs(options.seconds);

    // The log of a verbose server, unread most of the time.
    let log = disk.path.join("log");
    nix::unistd::mkfifo(&log, nix::sys::stat::Mode::S_IRWXU).expect("mkfifo");
    let mut log_reader =
        OpenOptions::new().read(true).write(true).custom_flags(nix::libc::O_NONBLOCK).open(&log).expect("the FIFO");
    let echo = Victim::start(DESCRIPTORS, &[]);
    let talker = Victim::start(&format!("{DESCRIPTORS}\nexec 2>{}", log.display()), &["-v"]);

    let is_over = AtomicBool::new(false);
    let (echoed, acts, frames, killed) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let mut log_text = Vec::new();
    let end = Instant::now() + total;
    let mut faults: Vec<String> = std::thread::scope(|scope| {
        let (is_over, echoed, disk) = (&is_over, &echoed, &disk);
        let mut good = Vec::new();
        for (victim, clients) in [(&echo, 4), (&talker, 2)] {
            let address = victim.process.address;
            for seed in 0..clients {
                good.push(scope.spawn(move || behave_well(address, Dice(seed), echoed, is_over).map_err(|e| e.to_string())));
            }
            for seed in 100..100 + clients {
                let acts = &acts;
                scope.spawn(move || {
                    let mut dice = Dice(seed);
                    while !is_over.load(Ordering::Relaxed) {
                        let _ = misbehave(address, &mut dice);
                        acts.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        }
        for rate in [8 << 10, 32 << 10, 1 << 20] {
            let address = echo.process.address;
            good.push(scope.spawn(move || {
                read_slowly(address, rate, echoed, is_over)
                    .map_err(|error| format!("reading {rate} bytes a second: {error}"))
            }));
        }
        if disk.is_mounted() {
            let frames = &frames;
            good.push(scope.spawn(move || output::fill_the_disk(disk, is_over, frames)));
        } else {
            println!("skipped: a full disk, which needs root to mount a disk");
        }
        good.push(scope.spawn(|| output::stall_the_consumer(disk, is_over, &frames)));
        good.push(scope.spawn(|| output::kill_consumers(disk, is_over, &killed)));
        scope.spawn(|| {
            let mut buffer = vec![0; 65_536];
            while !is_over.load(Ordering::Relaxed) {
                std::thread::park_timeout(Duration::from_secs(10)); // stalled
                let reads_until = Instant::now() + Duration::from_secs(1);
                while Instant::now() < reads_until {
                    match log_reader.read(&mut buffer) {
                        Ok(count) => log_text.extend_from_slice(&buffer[..count]),
                        Err(_) => std::thread::park_timeout(Duration::from_millis(5)),
                    }
                }
            }
        });
        echo.stop_and_continue(end, total);
        is_over.store(true, Ordering::Relaxed);
        good.into_iter().filter_map(|client| client.join().expect("a client").err()).collect()
    });
    faults.extend(echo.end("echo", 10 + options.seconds / 5));
    faults.extend(talker.end("echo -v, stderr stalled", 0));
    if !String::from_utf8_lossy(&log_text).contains("dropped") {
        faults.push("no log line reports dropped lines".to_owned());
    }

    println!(
        "{} s: {} bytes echoed to well-behaved clients, {} frames collected, {} acts of chaos, {} dead consumers",
        options.seconds,
        echoed.into_inner(),
        frames.into_inner(),
        acts.into_inner(),
        killed.into_inner(),
    );
    println!("lost bytes and other faults: {faults:?}");
    if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
