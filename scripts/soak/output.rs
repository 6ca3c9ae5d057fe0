//! The outputs of `collect`: a disk that fills up repeatedly, a consumer that stalls, and a consumer that dies.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;

use super::dice::Dice;
use super::support::client::connect;
use super::support::{Process, Server, eventually};

/// A directory for the test, with a small disk mounted on it if possible.
pub struct Disk {
    pub path: PathBuf,
    is_mounted: bool,
}

impl Disk {
    pub fn new() -> Self {
        let path = std::env::temp_dir().join(format!("edgecho-soak-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=512m", "edgecho-soak"]).arg(&path).status();
        Self { path, is_mounted: mount.is_ok_and(|status| status.success()) }
    }

    pub fn is_mounted(&self) -> bool {
        self.is_mounted
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.is_mounted {
            let _ = Command::new("umount").arg(&self.path).status();
        }
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

fn start(output: &Path, arguments: &[&str]) -> Process {
    let output = output.to_str().expect("a name");
    let all = [&["--protocol", "collect", "--output", output][..], arguments].concat();
    Process::start(Server::Rust, &all).expect("the release build is there")
}

fn fifo(path: &Path) -> File {
    nix::unistd::mkfifo(path, Mode::S_IRWXU).expect("mkfifo");
    OpenOptions::new().read(true).write(true).custom_flags(nix::libc::O_NONBLOCK).open(path).expect("the FIFO")
}

/// Sends numbered frames on one connection until the end, and returns their number.
fn send_frames(address: SocketAddr, is_over: &AtomicBool) -> std::io::Result<u64> {
    let mut stream = connect(address);
    stream.set_write_timeout(Some(Duration::from_secs(100)))?;
    let mut sent = 0_u64;
    while !is_over.load(Ordering::Relaxed) {
        let payload = format!("frame {sent}");
        let frame = [&(payload.len() as u32).to_be_bytes()[..], payload.as_bytes()].concat();
        stream.write_all(&frame)?;
        sent += 1;
        std::thread::park_timeout(Duration::from_micros(500));
    }
    Ok(sent)
}

/// Checks that the lines hold every frame of every session once and in order. `sent` has the number of frames of each session, in any order.
fn check(lines: &str, mut sent: Vec<u64>) -> Result<(), String> {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for line in lines.lines() {
        let value: serde_json::Value =
            serde_json::from_str(line).map_err(|error| format!("a torn line: {error}: {line}"))?;
        let count = counts.entry(value["session"].as_str().unwrap_or_default().to_owned()).or_default();
        let payload = format!("frame {count}");
        *count += 1;
        if value["sequence"].as_u64() != Some(*count) || value["payload"].as_str() != Some(&payload) {
            return Err(format!("frame {count} was expected: {line}"));
        }
    }
    let mut written: Vec<u64> = counts.into_values().collect();
    written.sort_unstable();
    sent.sort_unstable();
    if written == sent { Ok(()) } else { Err(format!("{sent:?} frames were sent, {written:?} written")) }
}

fn run_senders(process: &Process, is_over: &AtomicBool, meanwhile: impl FnOnce()) -> Result<Vec<u64>, String> {
    std::thread::scope(|scope| {
        let senders: Vec<_> = (0..2).map(|_| scope.spawn(|| send_frames(process.address, is_over))).collect();
        meanwhile();
        let join = |sender: std::thread::ScopedJoinHandle<'_, std::io::Result<u64>>| sender.join().expect("a sender");
        senders.into_iter().map(join).collect::<Result<_, _>>().map_err(|error| format!("a sender: {error}"))
    })
}

/// Ends a server, and checks its exit status.
fn end(mut process: Process, code: i32) -> Result<(), String> {
    process.signal_if_running(Signal::SIGTERM);
    let status = process.wait();
    if status.code() == Some(code) { Ok(()) } else { Err(format!("ended with {status}: {}", process.stderr())) }
}

/// Runs a server that writes to a disk which fills up repeatedly, and stops the server now and then.
pub fn fill_the_disk(disk: &Disk, is_over: &AtomicBool, frames: &AtomicU64) -> Result<(), String> {
    let (output, ballast) = (disk.path.join("lines"), disk.path.join("ballast"));
    let process = start(&output, &["--drain-timeout", "60s"]);
    let mut dice = Dice(7);
    let sent = run_senders(&process, is_over, || {
        while !is_over.load(Ordering::Relaxed) {
            // Fill the disk.
            let mut file = File::create(&ballast).expect("a file");
            while file.write_all(&[0; 4_096]).is_ok() {}
            std::thread::park_timeout(Duration::from_millis(200 + dice.roll(2_000)));
            if dice.roll(4) == 0 {
                process.freeze();
                std::thread::park_timeout(Duration::from_millis(dice.roll(3_000)));
                process.thaw();
            }
            drop(file);
            std::fs::remove_file(&ballast).expect("our own file");
            std::thread::park_timeout(Duration::from_millis(200 + dice.roll(500)));
        }
    })?;
    let lines = process.stderr().lines().count();
    end(process, 0)?;
    frames.fetch_add(sent.iter().sum(), Ordering::Relaxed);
    if lines > 1_000 {
        return Err(format!("{lines} log lines"));
    }
    check(&std::fs::read_to_string(&output).expect("the lines"), sent)
}

/// Runs a server that writes to a FIFO whose consumer stalls repeatedly.
pub fn stall_the_consumer(disk: &Disk, is_over: &AtomicBool, frames: &AtomicU64) -> Result<(), String> {
    let path = disk.path.join("stalling");
    let mut consumer = fifo(&path);
    let process = start(&path, &["--drain-timeout", "60s"]);
    let has_ended = AtomicBool::new(false);
    let (lines, sent) = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut lines, mut buffer, mut dice) = (Vec::new(), vec![0; 65_536], Dice(8));
            let mut stalls_at = Instant::now();
            loop {
                match consumer.read(&mut buffer) {
                    Ok(count) => lines.extend_from_slice(&buffer[..count]),
                    Err(_) if has_ended.load(Ordering::Relaxed) => return lines,
                    Err(_) => std::thread::park_timeout(Duration::from_millis(5)),
                }
                if stalls_at.elapsed() > Duration::from_secs(2) && !is_over.load(Ordering::Relaxed) {
                    std::thread::park_timeout(Duration::from_millis(dice.roll(8_000)));
                    stalls_at = Instant::now();
                }
            }
        });
        let wait = || {
            while !is_over.load(Ordering::Relaxed) {
                std::thread::park_timeout(Duration::from_millis(100))
            }
        };
        let sent = run_senders(&process, is_over, wait).and_then(|sent| end(process, 0).map(|()| sent));
        has_ended.store(true, Ordering::Relaxed);
        (reader.join().expect("the consumer"), sent)
    });
    let sent = sent?;
    frames.fetch_add(sent.iter().sum(), Ordering::Relaxed);
    check(&String::from_utf8(lines).expect("JSON"), sent)
}

/// Starts servers whose consumer closes the FIFO or never reads it. Each must end, by itself or on a signal, with status 1 and a count of lost
/// frames.
pub fn kill_consumers(disk: &Disk, is_over: &AtomicBool, ended: &AtomicU64) -> Result<(), String> {
    let mut dice = Dice(9);
    while !is_over.load(Ordering::Relaxed) {
        let path = disk.path.join("dying");
        let consumer = fifo(&path);
        let mut process = start(&path, &["--drain-timeout", "300ms", "--queue", "4"]);
        let mut stream = connect(process.address);
        stream.set_nonblocking(true).expect("O_NONBLOCK");
        let frame = [&60_000_u32.to_be_bytes()[..], &[b'x'; 60_000]].concat();
        for _ in 0..8 {
            let _ = stream.write(&frame);
            process.settle();
        }
        // The pipe holds 64 KiB, so a frame is queued by now.
        let goes_away = dice.roll(2) == 0;
        let consumer = if goes_away {
            drop(consumer);
            None
        } else {
            Some(consumer)
        };
        if !goes_away {
            process.signal(Signal::SIGTERM);
        }
        let status = process.wait();
        let stderr = process.stderr();
        drop(consumer);
        std::fs::remove_file(&path).expect("our own FIFO");
        if status.code() != Some(1) || !stderr.contains("frame") {
            return Err(format!("ended with {status}: {stderr}"));
        }
        ended.fetch_add(1, Ordering::Relaxed);
        eventually("a moment", || Some(()));
        std::thread::park_timeout(Duration::from_millis(300));
    }
    Ok(())
}
