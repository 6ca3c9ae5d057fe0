//! Servers under load: `edgecho flood` or `edgecho ping` runs on the driver's CPU, and the server's CPU time is sampled.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::{Context, PERCENTILES, SHARES};
use crate::Result;
use crate::peer::Peer;
use crate::process::Running;

/// The CPU of the driver.
const DRIVER_CPU: &str = "1";

/// Interval between samples of a server's CPU time.
const SAMPLE: Duration = Duration::from_millis(5);

/// Samples of a server's CPU time, each with its time in seconds since 1970.
struct Samples(Vec<(f64, Duration)>);

impl Samples {
    /// Returns the CPU time at a moment, interpolated between two samples.
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

/// Returns a command that runs on the driver's CPU.
fn driver(program: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", DRIVER_CPU, program]);
    command
}

/// Runs `edgecho flood` against a server. Returns its report, and the server's CPU time in the measured time, in seconds. Lost bytes are an
/// error: a server that loses bytes has no rate.
fn flood(server: &Running, duration: Duration, arguments: &[&str]) -> Result<(Value, f64)> {
    let mut command = driver("target/release/edgecho");
    command.args(["flood", &server.address.to_string(), "--json", "-", "--timeout", "2s"]);
    command.args(["-d", &format!("{}ms", duration.as_millis())]).args(arguments);
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
    Ok((report, cpu.ok_or("too few samples of the server's CPU time")?))
}

fn number(report: &Value, path: &str) -> Result<f64> {
    report.pointer(path).and_then(Value::as_f64).ok_or_else(|| format!("the report has no {path}").into())
}

/// Returns the latencies in a report of `flood`, in milliseconds, in the order of [`PERCENTILES`].
fn latencies(report: &Value) -> Result<Vec<f64>> {
    let found =
        report.pointer("/latency_ms/percentiles").and_then(Value::as_array).ok_or("the report has no percentiles")?;
    let of = |percentile| {
        let entry = found.iter().find(|entry| entry["percentile"].as_f64() == Some(percentile));
        entry.and_then(|entry| entry["value"].as_f64()).ok_or_else(|| format!("the report has no p{percentile}").into())
    };
    PERCENTILES.into_iter().map(of).collect()
}

/// Returns the CPU time per message, megabyte or connection in microseconds, given their rate per second.
fn cost(report: &Value, rate: f64, cpu: f64) -> Result<f64> {
    Ok(cpu * 1e6 / (rate * number(report, "/elapsed_s")?).max(1.0))
}

/// Measures CPU time per message in microseconds, messages per second, and the p99 latency in milliseconds.
pub fn messages(peer: &Peer, connections: usize, size_bytes: usize, context: &Context) -> Result<Vec<f64>> {
    let server = peer.start(None)?;
    let arguments = ["-c", &connections.to_string(), "-s", &size_bytes.to_string()];
    let (report, cpu) = flood(&server, context.duration, &arguments)?;
    let rate = number(&report, "/rate/messages_per_s")?;
    Ok(vec![cost(&report, rate, cpu)?, rate, latencies(&report)?[3]])
}

/// Measures messages per second with a driver that only sends and receives.
pub fn c_driver(peer: &Peer, context: &Context) -> Result<Vec<f64>> {
    let server = peer.start(None)?;
    let (port, seconds) = (server.address.port().to_string(), context.duration.as_secs_f64().to_string());
    let output = driver("target/bench/driver").args([&port, "50", "64", &seconds]).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned().into());
    }
    let text = String::from_utf8(output.stdout)?;
    Ok(vec![text.split_whitespace().find_map(|word| word.parse().ok()).ok_or("the driver printed nothing")?])
}

/// Measures megabytes per second, and CPU time per megabyte in microseconds. The driver counts the returned bytes without verifying them:
/// verifying would make it slower than the server.
pub fn bulk(peer: &Peer, connections: usize, context: &Context) -> Result<Vec<f64>> {
    let server = peer.start(None)?;
    let arguments = ["-c", &connections.to_string(), "--bulk", "--verify", "off"];
    let (report, cpu) = flood(&server, context.duration, &arguments)?;
    let rate = number(&report, "/rate/bytes_per_s")? / 1e6;
    Ok(vec![rate, cost(&report, rate, cpu)?])
}

/// Measures CPU time per connection in microseconds, and connections per second.
pub fn churn(peer: &Peer, context: &Context) -> Result<Vec<f64>> {
    let server = peer.start(None)?;
    let in_flight = peer.most_connections.min(100).to_string();
    let arguments = ["-c", &in_flight, "--churn", "--source", "127.0.0.1-127.0.0.16"];
    let (report, cpu) = flood(&server, context.duration, &arguments)?;
    let rate = number(&report, "/rate/connections_per_s")?;
    Ok(vec![cost(&report, rate, cpu)?, rate])
}

/// Measures the p99 of a ping every millisecond, in milliseconds, while 8 connections stream.
pub fn tail(peer: &Peer, context: &Context) -> Result<Vec<f64>> {
    let server = peer.start(None)?;
    let address = server.address.to_string();
    let seconds = format!("{}ms", context.duration.as_millis() + 500);
    let mut firehoses = driver("target/release/edgecho");
    firehoses.args(["flood", &address, "--bulk", "-c", "8", "--verify", "sample", "-d", &seconds]);
    let mut firehoses = firehoses.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    std::thread::sleep(Duration::from_millis(250));
    let count = context.duration.as_millis().to_string();
    let mut ping = driver("target/release/edgecho");
    ping.args(["ping", &address, "-i", "1ms", "-c", &count, "--json", "-W", "2"]);
    let output = ping.output();
    let ended = firehoses.wait();
    let output = output?;
    ended?;
    let text = String::from_utf8(output.stdout)?;
    let last: Value = serde_json::from_str(text.lines().last().ok_or("ping printed nothing")?)?;
    Ok(vec![number(&last, "/round_trip_ms/p99")?])
}

/// Measures latencies by percentile, in milliseconds, at each share of the best rate. Latency counts from the time when a message was due.
pub fn open_loop(peer: &Peer, context: &Context) -> Result<Vec<f64>> {
    let mut all = Vec::new();
    for share in SHARES {
        let server = peer.start(None)?;
        let rate = format!("{:.0}", context.best_rate * f64::from(share) / 100.0);
        let (report, _) = flood(&server, context.duration, &["-c", "50", "--rate", &rate])?;
        all.extend(latencies(&report)?);
    }
    Ok(all)
}
