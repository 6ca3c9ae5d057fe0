//! Checks that a server must pass before it is measured, so that a fast server that loses bytes shows as one.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::Result;
use crate::peer::Peer;

/// Timeout of every read and write, longer than any check takes.
const PATIENCE: Duration = Duration::from_secs(8);

/// The name of a check, and the check.
type Check = (&'static str, fn(&Peer) -> Result<()>);

/// The result of a check.
pub enum Verdict {
    Passed,
    /// The server is not made for the number of connections that the check opens.
    NotAsked,
    Failed(String),
}

impl Verdict {
    /// Checks a server.
    pub fn of(peer: &Peer, &(name, check): &Check) -> Self {
        if name == DESCRIPTORS && peer.most_connections < CROWD {
            return Self::NotAsked;
        }
        check(peer).map_or_else(|error| Self::Failed(error.to_string()), |()| Self::Passed)
    }

    /// Returns the reason of a failure.
    pub fn failure(&self) -> Option<&str> {
        if let Self::Failed(reason) = self { Some(reason) } else { None }
    }
}

const DESCRIPTORS: &str = "descriptors";

/// Number of clients of the descriptor check, more than the server has descriptors.
const CROWD: usize = 100;

/// All checks, in the order of the report.
pub const CHECKS: [Check; 5] = [
    ("integrity", integrity),
    ("half-close", half_close),
    ("bounded stall", bounded_stall),
    (DESCRIPTORS, descriptors),
    ("orderly stop", orderly_stop),
];

fn connect(address: std::net::SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Returns varied bytes.
fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|place| (place.wrapping_mul(0x9e37_79b1) >> 13) as u8).collect()
}

/// Checks that every byte comes back in order, in messages of all sizes.
fn integrity(peer: &Peer) -> Result<()> {
    let server = peer.start(None)?;
    let connections = peer.most_connections.min(10).to_string();
    let address = server.address.to_string();
    let arguments =
        ["flood", &address, "-c", &connections, "-n", "2000", "-s", "1-20000", "--pipeline", "4", "--timeout", "2s"];
    let output = Command::new("target/release/edgecho").args(arguments).output()?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|line| line.contains("connection ")).unwrap_or("bytes are missing");
    Err(line.trim().to_owned().into())
}

/// Checks that a client that sends everything and its FIN before it reads receives everything, then a FIN.
fn half_close(peer: &Peer) -> Result<()> {
    let server = peer.start(None)?;
    let stream = connect(server.address)?;
    let sent = bytes(8 << 20);
    let back = thread::scope(|scope| {
        scope.spawn(|| {
            let _ = (&stream).write_all(&sent);
            stream.shutdown(Shutdown::Write)
        });
        thread::sleep(Duration::from_millis(300));
        let mut back = Vec::new();
        (&stream).read_to_end(&mut back).map(|_| back)
    })?;
    if back == sent { Ok(()) } else { Err(format!("{} of {} bytes came back", back.len(), sent.len()).into()) }
}

/// Checks that the server stops reading from a client that does not read, so that memory stays bounded.
fn bounded_stall(peer: &Peer) -> Result<()> {
    // More than a ring of buffers for all connections takes, and less than the client sends.
    const LIMIT: u64 = 32 << 20;
    const OFFERED: usize = 128 << 20;
    let server = peer.start(None)?;
    let mut stream = connect(server.address)?;
    let before = server.rss();
    stream.set_write_timeout(Some(Duration::from_millis(500)))?;
    let chunk = bytes(1 << 20);
    let mut sent = 0;
    while sent < OFFERED {
        match stream.write(&chunk) {
            Ok(count) => sent += count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(error) => return Err(error.into()),
        }
    }
    let held = server.rss().saturating_sub(before);
    if held > LIMIT {
        return Err(format!("the server holds {} MiB for one client that does not read", held >> 20).into());
    }
    if sent >= OFFERED { Err("the server took 128 MiB from a client that does not read".into()) } else { Ok(()) }
}

/// Checks that a server out of descriptors keeps serving, drops no client, does not spin, and serves the waiting clients later.
fn descriptors(peer: &Peer) -> Result<()> {
    let server = peer.start(Some(64))?;
    let clients = (0..CROWD).map(|_| connect(server.address)).collect::<Result<Vec<_>>>()?;
    for mut client in &clients {
        client.write_all(b"hello")?;
    }
    thread::sleep(Duration::from_millis(300));
    let (before, start) = (server.cpu_time(), Instant::now());
    thread::sleep(Duration::from_millis(500));
    let load = (server.cpu_time() - before).as_secs_f64() / start.elapsed().as_secs_f64();
    for (number, mut client) in clients.into_iter().enumerate() {
        client.set_read_timeout(Some(Duration::from_secs(2)))?;
        let mut back = [0; 5];
        client.read_exact(&mut back).map_err(|error| format!("client {number} of 100 was not served: {error}"))?;
    }
    if load > 0.5 {
        Err(format!("the server uses {:.0} % of a CPU while clients wait", load * 100.0).into())
    } else {
        Ok(())
    }
}

/// Checks that clients receive their pending bytes after SIGTERM.
fn orderly_stop(peer: &Peer) -> Result<()> {
    let server = peer.start(None)?;
    let stream = connect(server.address)?;
    // More than the socket buffers of both directions take, so that the server still has some of it to receive or to send.
    let sent = bytes(16 << 20);
    let back = thread::scope(|scope| {
        scope.spawn(|| {
            let _ = (&stream).write_all(&sent);
            stream.shutdown(Shutdown::Write)
        });
        thread::sleep(Duration::from_millis(200));
        server.signal(Signal::SIGTERM);
        thread::sleep(Duration::from_millis(100));
        let mut back = Vec::new();
        let failure = (&stream).read_to_end(&mut back).err();
        (back.len(), failure)
    });
    match back {
        (length, _) if length == sent.len() => Ok(()),
        (length, Some(error)) => Err(format!("{length} of {} bytes came back: {error}", sent.len()).into()),
        (length, None) => Err(format!("{length} of {} bytes came back", sent.len()).into()),
    }
}
