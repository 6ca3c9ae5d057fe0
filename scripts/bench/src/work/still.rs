//! Properties that do not depend on the load of the machine: memory, system calls, start-up, size.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::Context;
use crate::Result;
use crate::peer::Peer;

/// Measures the resident memory per connection, in bytes, for connections that have echoed one message and are idle.
pub fn idle(peer: &Peer, connections: usize) -> Result<Vec<f64>> {
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
    server.await_sleep()?;
    let before = server.rss();
    let mut streams = Vec::with_capacity(connections);
    for _ in 0..connections {
        streams.push(TcpStream::connect(server.address)?);
        echo(&streams[streams.len() - 1])?;
    }
    server.await_sleep()?;
    Ok(vec![server.rss().saturating_sub(before) as f64 / connections as f64])
}

/// Counts system calls per message with `strace -c`, including those that open and close the connections.
pub fn calls(peer: &Peer, _: &Context) -> Result<Vec<f64>> {
    let server = peer.start(None)?;
    let counts = "target/bench/strace";
    let mut strace = Command::new("strace")
        .args(["-f", "-c", "-U", "calls,name", "-o", counts, "-p", &server.pid().to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("strace: {error}; apt-get install strace"))?;
    let measured = (|| -> Result<f64> {
        server.await_tracer()?;
        let output = Command::new("target/release/edgecho")
            .args(["flood", &server.address.to_string(), "-c", "50", "-n", "20000", "--timeout", "10s", "--json", "-"])
            .output()?;
        if !output.status.success() {
            return Err("bytes are missing".into());
        }
        let report: Value = serde_json::from_slice(&output.stdout)?;
        report.pointer("/messages/returned").and_then(Value::as_f64).ok_or_else(|| "the report has no messages".into())
    })();
    // strace detaches and writes its counts.
    kill(Pid::from_raw(strace.id().cast_signed()), Signal::SIGINT)?;
    strace.wait()?;
    let messages = measured?;
    let text = fs::read_to_string(counts)?;
    let total = text.lines().rev().find_map(|line| line.trim().strip_suffix("total")?.trim().parse::<f64>().ok());
    Ok(vec![total.ok_or("strace printed no counts")? / messages])
}

/// Measures the time until the server listens, in milliseconds, as the best of five; the size of the program in megabytes; and the number of
/// dependencies.
pub fn start(peer: &Peer, _: &Context) -> Result<Vec<f64>> {
    let mut best = f64::MAX;
    for _ in 0..5 {
        best = best.min(peer.start(None)?.start_time.as_secs_f64() * 1e3);
    }
    let size = peer.size().map_or(f64::NAN, |bytes| bytes as f64 / 1e6);
    Ok(vec![best, size, peer.dependencies()? as f64])
}
