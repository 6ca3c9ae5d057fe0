//! The work that servers are given, and what is measured of it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::Result;
use crate::peer::Peer;
use crate::process::Running;

/// Where the driver runs.
const DRIVER_CPU: &str = "1";

/// Whether more of it is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    More,
    Less,
}

/// Something that is measured: a row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    pub name: &'static str,
    pub unit: &'static str,
    pub better: Better,
}

const fn metric(name: &'static str, unit: &'static str, better: Better) -> Metric {
    Metric { name, unit, better }
}

/// A piece of work, and the rows that come of it.
pub struct Work {
    pub name: &'static str,
    pub metrics: &'static [Metric],
    /// How many connections it needs.
    pub connections: usize,
    /// Part of a quick run.
    pub is_main: bool,
    /// Once is enough: it does not depend on how busy the machine is.
    pub is_steady: bool,
    pub measure: fn(&Peer, Duration) -> Result<Vec<f64>>,
}

use Better::{Less, More};

/// All of it.
pub const WORKS: [Work; 13] = [
    small(
        "small-1",
        1,
        false,
        &[metric("64 B, 1 connection: CPU a message", "µs", Less), metric("64 B, 1 connection", "messages/s", More)],
        |p, t| messages(p, 1, "64", t),
    ),
    small(
        "small-50",
        50,
        true,
        &[metric("64 B, 50 connections: CPU a message", "µs", Less), metric("64 B, 50 connections", "messages/s", More)],
        |p, t| messages(p, 50, "64", t),
    ),
    small(
        "small-1000",
        1_000,
        false,
        &[
            metric("64 B, 1,000 connections: CPU a message", "µs", Less),
            metric("64 B, 1,000 connections", "messages/s", More),
        ],
        |p, t| messages(p, 1_000, "64", t),
    ),
    small(
        "small-10000",
        10_000,
        false,
        &[
            metric("64 B, 10,000 connections: CPU a message", "µs", Less),
            metric("64 B, 10,000 connections", "messages/s", More),
        ],
        |p, t| messages(p, 10_000, "64", t),
    ),
    small(
        "medium-50",
        50,
        false,
        &[metric("4 KiB, 50 connections: CPU a message", "µs", Less), metric("4 KiB, 50 connections", "messages/s", More)],
        |p, t| messages(p, 50, "4096", t),
    ),
    small("bulk-1", 1, false, &[metric("bulk, 1 connection", "MB/s", More)], |p, t| bulk(p, 1, t)),
    small("bulk-8", 8, true, &[metric("bulk, 8 connections", "MB/s", More)], |p, t| bulk(p, 8, t)),
    small("bulk-64", 64, false, &[metric("bulk, 64 connections", "MB/s", More)], |p, t| bulk(p, 64, t)),
    small(
        "churn",
        100,
        true,
        &[
            metric("connect, echo, close: CPU a connection", "µs", Less),
            metric("connect, echo, close", "connections/s", More),
        ],
        churn,
    ),
    small("tail", 9, true, &[metric("p99 of a ping beside 8 firehoses", "ms", Less)], tail),
    steady("idle-1000", 1_000, &[metric("memory of an idle connection, of 1,000", "B", Less)], |p, _| idle(p, 1_000)),
    steady("idle-10000", 10_000, &[metric("memory of an idle connection, of 10,000", "B", Less)], |p, _| idle(p, 10_000)),
    steady("start", 1, &[metric("start to first accept", "ms", Less), metric("program, stripped", "MB", Less)], start),
];

const fn small(
    name: &'static str,
    connections: usize,
    is_main: bool,
    metrics: &'static [Metric],
    measure: fn(&Peer, Duration) -> Result<Vec<f64>>,
) -> Work {
    Work { name, metrics, connections, is_main, is_steady: false, measure }
}

const fn steady(
    name: &'static str,
    connections: usize,
    metrics: &'static [Metric],
    measure: fn(&Peer, Duration) -> Result<Vec<f64>>,
) -> Work {
    Work { name, metrics, connections, is_main: false, is_steady: true, measure }
}

/// How often the CPU time of a server is looked at.
const SAMPLE: Duration = Duration::from_millis(5);

/// The CPU time of a server at many moments, in seconds since 1970.
struct Samples(Vec<(f64, Duration)>);

impl Samples {
    /// What it was at a moment, between two samples by proportion.
    fn at(&self, moment: f64) -> Option<f64> {
        let next = self.0.iter().position(|&(at, _)| at >= moment).filter(|&next| next > 0)?;
        let ((one, before), (other, after)) = (self.0[next - 1], self.0[next]);
        let share = (moment - one) / (other - one);
        Some(before.as_secs_f64() + share * (after.as_secs_f64() - before.as_secs_f64()))
    }
}

fn now() -> f64 {
    std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs_f64()
}

/// Runs a flood against a server, and gives its report and the CPU time, in seconds, that the server took in the measured time. Bytes
/// that are lost are an error: such a server has no rate.
fn flood(server: &Running, duration: Duration, arguments: &[&str]) -> Result<(Value, f64)> {
    let mut command = Command::new("taskset");
    command.args(["-c", DRIVER_CPU, "target/release/edgecho", "flood", &server.address.to_string(), "--json", "-"]);
    command.args(["--timeout", "2s", "-d", &format!("{}ms", duration.as_millis())]).args(arguments);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut samples = Samples(Vec::new());
    while child.try_wait()?.is_none() {
        samples.0.push((now(), server.cpu_time()));
        std::thread::sleep(SAMPLE);
    }
    samples.0.push((now(), server.cpu_time()));
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(text.lines().last().unwrap_or("the flood failed").trim_start_matches("error: ").to_owned().into());
    }
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let from = number(&report, "/measured_at_s")?;
    let to = from + number(&report, "/elapsed_s")?;
    let cpu = samples.at(to).zip(samples.at(from)).map(|(to, from)| to - from);
    Ok((report, cpu.ok_or("the server was not looked at often enough")?))
}

fn number(report: &Value, path: &str) -> Result<f64> {
    report.pointer(path).and_then(Value::as_f64).ok_or_else(|| format!("the report has no {path}").into())
}

/// CPU time a message, in microseconds, and messages a second.
fn messages(peer: &Peer, connections: usize, size: &str, duration: Duration) -> Result<Vec<f64>> {
    let server = peer.start(None)?;
    let connections = connections.to_string();
    let (report, cpu) = flood(&server, duration, &["-c", &connections, "-s", size])?;
    let rate = number(&report, "/rate/messages_per_s")?;
    let count = rate * number(&report, "/elapsed_s")?;
    Ok(vec![cpu * 1e6 / count.max(1.0), rate])
}

fn bulk(peer: &Peer, connections: usize, duration: Duration) -> Result<Vec<f64>> {
    let server = peer.start(None)?;
    let (report, _) = flood(&server, duration, &["-c", &connections.to_string(), "--bulk", "--verify", "sample"])?;
    Ok(vec![number(&report, "/rate/bytes_per_s")? / 1e6])
}

fn churn(peer: &Peer, duration: Duration) -> Result<Vec<f64>> {
    let server = peer.start(None)?;
    let in_flight = peer.most_connections.min(100).to_string();
    let (report, cpu) = flood(&server, duration, &["-c", &in_flight, "--churn", "--source", "127.0.0.1-127.0.0.16"])?;
    let rate = number(&report, "/rate/connections_per_s")?;
    let count = rate * number(&report, "/elapsed_s")?;
    Ok(vec![cpu * 1e6 / count.max(1.0), rate])
}

/// The p99 of a ping every millisecond, in milliseconds.
fn tail(peer: &Peer, duration: Duration) -> Result<Vec<f64>> {
    let server = peer.start(None)?;
    let address = server.address.to_string();
    let seconds = format!("{}ms", duration.as_millis() + 500);
    let mut firehoses = Command::new("taskset");
    firehoses.args([
        "-c",
        DRIVER_CPU,
        "target/release/edgecho",
        "flood",
        &address,
        "--bulk",
        "-c",
        "8",
        "--verify",
        "off",
        "-d",
        &seconds,
    ]);
    let mut firehoses = firehoses.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    std::thread::sleep(Duration::from_millis(250));
    let count = duration.as_millis().to_string();
    let mut ping = Command::new("taskset");
    ping.args([
        "-c",
        DRIVER_CPU,
        "target/release/edgecho",
        "ping",
        &address,
        "-i",
        "1ms",
        "-c",
        &count,
        "--json",
        "-W",
        "2",
    ]);
    let output = ping.output();
    let ended = firehoses.wait();
    let output = output?;
    ended?;
    let text = String::from_utf8(output.stdout)?;
    let last: Value = serde_json::from_str(text.lines().last().ok_or("the ping said nothing")?)?;
    Ok(vec![number(&last, "/round_trip_ms/p99")?])
}

/// Resident memory that a connection costs that has had one message and is now idle, in bytes.
fn idle(peer: &Peer, connections: usize) -> Result<Vec<f64>> {
    let server = peer.start(None)?;
    let echo = |mut stream: &TcpStream| -> Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(&[7; 64])?;
        stream.read_exact(&mut [0; 64])?;
        Ok(())
    };
    for _ in 0..50 {
        echo(&TcpStream::connect(server.address)?)?;
    }
    std::thread::sleep(Duration::from_millis(50));
    let before = server.rss();
    let mut streams = Vec::with_capacity(connections);
    for _ in 0..connections {
        streams.push(TcpStream::connect(server.address)?);
        echo(&streams[streams.len() - 1])?;
    }
    Ok(vec![server.rss().saturating_sub(before) as f64 / connections as f64])
}

/// How long it takes until it listens, in milliseconds, at best of some; and how large it is, in megabytes.
fn start(peer: &Peer, _: Duration) -> Result<Vec<f64>> {
    let mut best = f64::MAX;
    for _ in 0..9 {
        best = best.min(peer.start(None)?.start_time.as_secs_f64() * 1e3);
    }
    Ok(vec![best, peer.size().map_or(f64::NAN, |bytes| bytes as f64 / 1e6)])
}
