//! The clients of `scripts/soak.sh`: some that behave well, beside chaos. At the end the well-behaved have lost nothing, and the
//! server is as it was: no descriptor more, hardly any memory more, and a log that says little.
#![allow(missing_docs, unreachable_pub, reason = "a program, not a library")]

#[path = "../../tests/support/mod.rs"]
mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use nix::sys::signal::Signal;
use support::client::{pattern, reset};
use support::{Process, Server, eventually};

/// So few descriptors that chaos can use them up.
const DESCRIPTORS: &str = "ulimit -n 256";

/// Let well-behaved clients and chaos loose on a server
#[derive(Debug, Parser)]
struct Options {
    /// For so many seconds
    #[arg(default_value_t = 60)]
    seconds: u64,
}

/// A small generator: what chaos does need not be good, only varied.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(support::PATIENCE))?;
    stream.set_write_timeout(Some(support::PATIENCE))?;
    Ok(stream)
}

/// Sends messages of all sizes and takes each back whole; comes anew now and then. Every byte is compared.
fn behave_well(address: SocketAddr, mut dice: Dice, echoed: &AtomicU64, is_over: &AtomicBool) -> std::io::Result<()> {
    while !is_over.load(Ordering::Relaxed) {
        let mut stream = connect(address)?;
        for _ in 0..=dice.roll(200) {
            let length = [1, 64, 512, 4_000, 40_000, 1 << 20][dice.roll(6) as usize];
            let message = pattern(dice.roll(u64::MAX), length);
            let mut back = vec![0; length];
            let mut reader = stream.try_clone()?;
            std::thread::scope(|scope| {
                let sender = scope.spawn(|| stream.write_all(&message));
                reader.read_exact(&mut back)?;
                sender.join().expect("the sender")
            })?;
            if back != message {
                return Err(std::io::Error::other("a byte came back wrong"));
            }
            echoed.fetch_add(length as u64, Ordering::Relaxed);
            if is_over.load(Ordering::Relaxed) {
                break;
            }
        }
        stream.shutdown(std::net::Shutdown::Write)?;
        if stream.read(&mut [0])? != 0 {
            return Err(std::io::Error::other("a byte too many"));
        }
    }
    Ok(())
}

/// One act of chaos. What the server makes of it is not looked at.
fn misbehave(address: SocketAddr, dice: &mut Dice) -> std::io::Result<()> {
    let mut stream = connect(address)?;
    stream.set_write_timeout(Some(Duration::from_millis(200)))?;
    stream.set_read_timeout(Some(Duration::from_millis(200)))?;
    match dice.roll(8) {
        0 => {}             // connects and leaves
        1 => reset(stream), // connects and resets
        2 => {
            stream.write_all(&pattern(1, 100_000))?; // resets with bytes on their way, in both directions
            reset(stream);
        }
        3 => {
            for byte in pattern(2, 200) {
                stream.write_all(&[byte])?; // one byte at a time
                let _ = stream.read(&mut [0; 8]);
            }
        }
        4 => {
            let _ = stream.write_all(&pattern(3, 8 << 20)); // never reads, and vanishes
        }
        5 => {
            stream.write_all(&pattern(4, 50_000))?; // half-closes, and does not wait for the answer
            stream.shutdown(std::net::Shutdown::Write)?;
        }
        6 => {
            socket2::SockRef::from(&stream).send_out_of_band(b"!")?; // urgent, for no reason
            let _ = stream.read(&mut [0; 8]);
        }
        _ => {
            // More than there are descriptors, held for a moment.
            let crowd: Vec<_> = (0..300).map_while(|_| TcpStream::connect(address).ok()).collect();
            std::thread::park_timeout(Duration::from_millis(50));
            drop(crowd);
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    let options = Options::parse();
    support::raise_descriptor_limit();
    let mut process = Process::start_after(Server::Rust, DESCRIPTORS, &[]).expect("the release build is there");
    let descriptors = process.descriptors();
    let at_rest = || eventually("all have left", || (process.descriptors() == descriptors).then_some(()));
    // Whatever the first connections bring into memory once and for all is not a leak.
    let mut dice = Dice(0);
    for _ in 0..200 {
        let _ = misbehave(process.address, &mut dice);
    }
    at_rest();
    let rss = process.rss_bytes();

    let is_over = AtomicBool::new(false);
    let (echoed, acts) = (AtomicU64::new(0), AtomicU64::new(0));
    let end = Instant::now() + Duration::from_secs(options.seconds);
    let losses: Vec<String> = std::thread::scope(|scope| {
        let good: Vec<_> = (0..4)
            .map(|seed| {
                scope.spawn({
                    let (process, echoed, is_over) = (&process, &echoed, &is_over);
                    move || behave_well(process.address, Dice(seed), echoed, is_over)
                })
            })
            .collect();
        for seed in 100..104 {
            scope.spawn({
                let (process, acts, is_over) = (&process, &acts, &is_over);
                move || {
                    let mut dice = Dice(seed);
                    while !is_over.load(Ordering::Relaxed) {
                        let _ = misbehave(process.address, &mut dice);
                        acts.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        while Instant::now() < end {
            std::thread::park_timeout(Duration::from_millis(700));
            process.freeze();
            std::thread::park_timeout(Duration::from_millis(30));
            process.thaw();
        }
        is_over.store(true, Ordering::Relaxed);
        good.into_iter().filter_map(|client| client.join().expect("a client").err()).map(|error| error.to_string()).collect()
    });
    at_rest();
    let grown = process.rss_bytes() as i64 - rss as i64;
    process.signal(Signal::SIGTERM);
    let status = process.wait();
    let log_lines = process.stderr().lines().count();

    println!(
        "{} s: {} bytes echoed to the well-behaved, {} acts of chaos",
        options.seconds,
        echoed.into_inner(),
        acts.into_inner()
    );
    println!("lost by the well-behaved: {losses:?}");
    println!("descriptors leaked: 0, RSS grown by {grown} bytes, {log_lines} log lines, {status}");
    let is_bounded = log_lines as u64 <= 10 + options.seconds / 5;
    if losses.is_empty() && grown < 1 << 20 && is_bounded && status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
