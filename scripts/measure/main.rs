//! Measures the Rust server and the C reference on the same work, in one run: server on CPU 0, driver on CPU 1, both servers in each round.
//! Prints medians, ratios, and the figure of each round, which shows the noise. `costs` compares options of a service with a plain `serve`.
//! `scripts/measure.sh` builds and runs it.
#![allow(missing_docs, unreachable_pub, reason = "a program, not a library")]

mod costs;
mod counts;
mod load;
#[path = "../../tests/it/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the tests use the rest")]
mod support;

use std::error::Error;
use std::io::{Read, Write};
use std::process::Command;
use std::time::{Duration, Instant};

use clap::Parser;
use load::{RoundTrips, Streams};
use support::client::{connect, echo, pattern};
use support::{Process, Server};

const SERVER_CPU: usize = 0;
const DRIVER_CPU: usize = 1;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Compare the Rust server with the C reference
#[derive(Debug, Parser)]
struct Options {
    /// Work to measure: cpu, many, timeouts, bulk, ping, busy-poll, flood, memory, syscalls, instructions, costs [default: all]
    work: Vec<String>,

    /// Number of rounds; each server takes one turn per round
    #[arg(long, default_value_t = 5)]
    rounds: usize,

    /// Length of each turn in seconds
    #[arg(long, default_value_t = 1.5)]
    seconds: f64,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let mut cpus = nix::sched::CpuSet::new();
    cpus.set(DRIVER_CPU)?;
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &cpus)?;

    support::raise_descriptor_limit();
    let window = Duration::from_secs_f64(options.seconds);
    let wanted = |name: &str| options.work.is_empty() || options.work.iter().any(|work| work == name);
    if options.work != ["costs"] {
        println!("{:44} {:>9} {:>9} {:>7}   rounds", "", "Rust", "C", "ratio");
    }
    if wanted("cpu") {
        for connections in [50, 1_000] {
            let name = format!("us of CPU per message, 64 B, {connections} connections");
            compare(&name, options.rounds, |server| cpu_per_message(server, connections, window))?;
        }
    }
    if wanted("many") {
        let name = "us of CPU per message, 64 B, 18,000 connections";
        compare(name, options.rounds, |server| cpu_per_message(server, 18_000, 2 * window))?;
    }
    if wanted("timeouts") {
        println!("{:44} {:>9} {:>9} {:>7}   rounds", "", "with", "without", "ratio");
        let timeouts = ["--idle-timeout", "60s", "--max-lifetime", "1h", "--write-timeout", "30s"];
        let with_timeouts = || cpu_of(start_with(Server::Rust, &timeouts)?, 18_000, 2 * window);
        let without = || cpu_of(start_with(Server::Rust, &["--write-timeout", "off"])?, 18_000, 2 * window);
        pair("us of CPU per message, 18,000 conn., timeouts", options.rounds, with_timeouts, without)?;
    }
    if wanted("busy-poll") {
        println!("{:44} {:>9} {:>9} {:>7}   rounds", "", "polling", "sleeping", "ratio");
        let polling = || round_trip(start_with(Server::Rust, &["--busy-poll", "1ms"])?, window, false);
        let both = || round_trip(start_with(Server::Rust, &["--busy-poll", "1ms"])?, window, true);
        let sleeping = || round_trip(start_with(Server::Rust, &[])?, window, false);
        pair("us, round trip, server polling", options.rounds, polling, sleeping)?;
        pair("us, round trip, both sides polling", options.rounds, both, sleeping)?;
    }
    if wanted("bulk") {
        compare("MB/s echoed, 8 connections", options.rounds, |server| bulk(server, window).map(|(rate, _)| rate))?;
        compare("us of CPU per MB, 8 connections", options.rounds, |server| bulk(server, window).map(|(_, cpu)| cpu))?;
    }
    if wanted("ping") {
        compare("ms, p99 of a ping beside 8 firehoses", options.rounds, |server| ping_p99(server, window))?;
    }
    if wanted("flood") {
        println!("{:44} {:>9} {:>9} {:>7}", "", "flood", "C driver", "ratio");
        let rate = |driver| move || drive(driver, &["-c", "50"], window).map(|(rate, _)| rate);
        pair("messages/s driven, 64 B, 50 connections", options.rounds, rate(Driver::Flood), rate(Driver::C))?;
        let cpu = |driver| move || drive(driver, &["-c", "50"], window).map(|(_, cpu)| cpu);
        pair("% of the server's CPU in use", options.rounds, cpu(Driver::Flood), cpu(Driver::C))?;
        println!("{:44} {:>9} {:>9} {:>7}", "", "full", "off", "ratio");
        let verify =
            |how: &'static str| move || drive(Driver::Flood, &["-c", "50", "--verify", how], window).map(|(rate, _)| rate);
        pair("messages/s, --verify full and off", options.rounds, verify("full"), verify("off"))?;
        let bulk = |how: &'static str| {
            move || drive(Driver::Flood, &["-c", "8", "--bulk", "--verify", how], window).map(|(rate, _)| rate)
        };
        pair("MB/s of --bulk, --verify full and off", options.rounds, bulk("full"), bulk("off"))?;
    }
    if wanted("memory") {
        compare("bytes of RSS per idle connection, of 5,000", 1, idle_memory)?;
    }
    if wanted("syscalls") {
        compare("system calls per message, 64 B, 50 connections", 1, counts::system_calls_per_message)?;
    }
    if wanted("instructions") {
        compare("user instructions per message (callgrind)", 1, counts::instructions_per_message)?;
    }
    if wanted("costs") && !costs::print_table(options.rounds, window)? {
        return Err("not everything could be measured".into());
    }
    Ok(())
}

/// Measures both servers in each round, and prints a row.
fn compare(name: &str, rounds: usize, measure: impl Fn(Server) -> Result<f64>) -> Result<()> {
    pair(name, rounds, || measure(Server::Rust), || measure(Server::C))
}

/// Takes two measurements in each round, and prints a row.
fn pair(name: &str, rounds: usize, one: impl Fn() -> Result<f64>, other: impl Fn() -> Result<f64>) -> Result<()> {
    let mut figures = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        figures[0].push(one()?);
        figures[1].push(other()?);
    }
    // The ratio is taken round by round, so that a disturbance of both cancels out.
    let ratio = median(figures[0].iter().zip(&figures[1]).map(|(rust, c)| rust / c).collect());
    let [rust, c] = figures.each_ref().map(|figures| median(figures.clone()));
    print!("{name:44} {rust:9.3} {c:9.3} {ratio:7.3}  ");
    for (rust, c) in figures[0].iter().zip(&figures[1]) {
        print!(" {rust:.3}/{c:.3}");
    }
    println!();
    std::io::stdout().flush()?;
    Ok(())
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Starts a server on its CPU.
fn start(server: Server) -> Result<Process> {
    start_with(server, &[])
}

/// Starts a server on its CPU, with flags.
fn start_with(server: Server, flags: &[&str]) -> Result<Process> {
    let (program, arguments) = server.program().ok_or("the C reference was not compiled: is there a C compiler?")?;
    let mut command = Command::new("taskset");
    Ok(Process::spawn(command.args(["-c", &SERVER_CPU.to_string(), program]).args(arguments).args(flags)))
}

/// A driver.
#[derive(Debug, Clone, Copy)]
enum Driver {
    Flood,
    /// `scripts/driver.c`, the minimum that a driver can do.
    C,
}

/// Drives the Rust server. Returns the rate, in messages or megabytes per second, and the server's CPU usage in percent.
fn drive(driver: Driver, arguments: &[&str], window: Duration) -> Result<(f64, f64)> {
    let process = start(Server::Rust)?;
    let mut command = Command::new("taskset");
    command.args(["-c", &DRIVER_CPU.to_string()]);
    let (address, seconds) = (process.address, window.as_secs_f64().to_string());
    match driver {
        Driver::Flood => {
            command.args(["target/release/edgecho", "flood", &address.to_string(), "-d", &seconds, "--json", "-"])
        }
        Driver::C => command.args(["target/driver", &address.port().to_string(), "50", "64", &seconds]),
    };
    if matches!(driver, Driver::Flood) {
        command.args(arguments);
    }
    let before = process.cpu_time();
    let output = command.output()?;
    let cpu = (process.cpu_time() - before).as_secs_f64() * 100.0 / window.as_secs_f64();
    if !output.status.success() {
        return Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let rate = match driver {
        Driver::C => String::from_utf8(output.stdout)?.trim().parse()?,
        Driver::Flood => {
            let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
            let rate = &report["rate"];
            let of = |name: &str| rate[name].as_f64().ok_or("the report has no rate");
            if report["options"]["load"] == "bulk" { of("bytes_per_s")? / 1e6 } else { of("messages_per_s")? }
        }
    };
    Ok((rate, cpu))
}

/// Measures the median round-trip time on one connection, in microseconds.
fn round_trip(process: Process, window: Duration, is_polling: bool) -> Result<f64> {
    let mut stream = connect(process.address);
    stream.set_nonblocking(is_polling)?;
    let end = Instant::now() + window;
    let mut times = Vec::new();
    let mut back = [0; 64];
    while Instant::now() < end {
        let start = Instant::now();
        stream.write_all(&pattern(1, 64))?;
        let mut count = 0;
        while count < 64 {
            match stream.read(&mut back[count..]) {
                Ok(0) => return Err("the server closed the connection".into()),
                Ok(more) => count += more,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    Ok(median(times))
}

fn cpu_per_message(server: Server, connections: usize, window: Duration) -> Result<f64> {
    cpu_of(start(server)?, connections, window)
}

fn cpu_of(process: Process, connections: usize, window: Duration) -> Result<f64> {
    let mut load = RoundTrips::start(process.address, connections, 64)?;
    load.run_for(window / 4)?;
    let before = process.cpu_time();
    let messages = load.run_for(window)?;
    Ok((process.cpu_time() - before).as_secs_f64() * 1e6 / messages as f64)
}

fn bulk(server: Server, window: Duration) -> Result<(f64, f64)> {
    let process = start(server)?;
    let mut load = Streams::start(process.address, 8)?;
    load.run_for(window / 4, None)?;
    let before = process.cpu_time();
    let megabytes = load.run_for(window, None)? as f64 / 1e6;
    Ok((megabytes / window.as_secs_f64(), (process.cpu_time() - before).as_secs_f64() * 1e6 / megabytes))
}

fn ping_p99(server: Server, window: Duration) -> Result<f64> {
    let process = start(server)?;
    let mut load = Streams::start(process.address, 8)?;
    load.run_for(window / 4, None)?;
    let mut pings = Vec::new();
    load.run_for(window, Some(&mut pings))?;
    pings.sort();
    let slowest_of_99 = pings.get(pings.len() * 99 / 100).ok_or("no ping came back")?;
    Ok(slowest_of_99.as_secs_f64() * 1e3)
}

fn idle_memory(server: Server) -> Result<f64> {
    const CONNECTIONS: u32 = 5_000;
    let process = start(server)?;
    for _ in 0..100 {
        echo(&connect(process.address), b"warm");
    }
    process.settle();
    let before = process.rss_bytes();
    let mut streams = Vec::new();
    for _ in 0..CONNECTIONS {
        streams.push(connect(process.address));
        echo(&streams[streams.len() - 1], &pattern(1, 64));
    }
    process.settle();
    Ok((process.rss_bytes() as f64 - before as f64) / f64::from(CONNECTIONS))
}
