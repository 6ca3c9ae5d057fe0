//! Disks that are full, slow or broken, and files with a limit.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use edgecho::protocol::Frames;
use nix::sys::signal::Signal;

use super::{assert_collected, number_before, send_frames};
use crate::scratch::Scratch;
use crate::strace::{Tracer, has_strace};
use crate::support::client::{connect, finish, read_to_fin, stuff};
use crate::support::{Process, Server, skip, wait_until};

/// A small tmpfs that the server writes to. A file fills it except for a few KiB.
struct SmallDisk {
    process: Process,
    /// The disk as the server sees it, from proc(5). It is mounted for the server only.
    root: PathBuf,
    /// Where the disk is mounted.
    _mount_point: Scratch,
}

impl SmallDisk {
    /// Starts a server that collects to a small disk. Returns none where the kernel allows no mount, and reports the test as skipped.
    fn start(name: &str, size_kib: u32, free_kib: u32, arguments: &[&str]) -> Option<Self> {
        let (program, first) = Server::Rust.program().expect("the program");
        let is_allowed = Command::new("unshare").args(["-rm", "true"]).status().is_ok_and(|status| status.success());
        if !is_allowed {
            skip(name, "unshare(1) may not make a mount namespace");
            return None;
        }
        let scratch = Scratch::new();
        let disk = scratch.folder();
        let script = format!(
            "mount -t tmpfs -o size={size_kib}k tmpfs {disk} && head -c {}k /dev/zero >{disk}/filler && exec \"$0\" \"$@\"",
            size_kib - free_kib,
            disk = disk.display(),
        );
        let output = disk.join("out");
        let mut command = Command::new("unshare");
        command.args(["-rm", "sh", "-c", &script, program]).args(first).args(["--protocol", "collect", "--output"]);
        let process = Process::spawn(command.arg(&output).args(arguments));
        let root = PathBuf::from(format!("/proc/{}/root{}", process.pid(), disk.display()));
        Some(Self { process, root, _mount_point: scratch })
    }

    fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(self.root.join("out")).expect("the output");
        text.split_inclusive('\n').filter(|line| line.ends_with('\n')).map(str::to_owned).collect()
    }

    /// Waits until the server has received `bytes`. It need not close a connection while the disk is full.
    fn wait_for_bytes(&self, bytes: u64) {
        wait_until("all is received", || self.process.figure("received_bytes") == bytes);
    }

    /// Waits until the server has reported that the disk is full.
    fn wait_for_warning(&self) {
        wait_until("a warning", || self.process.stderr().contains("No space left on device"));
    }
}

#[test]
fn a_full_disk_holds_the_senders_back_and_is_warned_of_once() {
    let arguments = ["--queue", "16", "--drain-timeout", "100ms"];
    let Some(mut disk) = SmallDisk::start("a_full_disk_holds_the_senders_back_and_is_warned_of_once", 64, 4, &arguments)
    else {
        return;
    };
    let process = &mut disk.process;
    let before = process.rss_bytes();
    let stream = connect(process.address);
    let frames = Frames::encode(&[b'x'; 1_000]).repeat(128 << 10);
    let sent = stuff(&stream, &frames);
    assert!(sent < 64 << 20, "{sent} bytes were taken for a disk that is full");
    let after = process.peak_rss_bytes();
    assert!(after < before + (4 << 20), "{before} bytes resident before, {after} after");
    let said = process.stderr();
    assert_eq!(said.matches("WARN").count(), 1, "{said}");
    process.signal(Signal::SIGTERM);
    let status = process.wait();
    let said = process.stderr();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(number_before(&said, " frames were not written").is_some_and(|count| (16..64).contains(&count)), "{said}");
}

#[test]
fn a_full_disk_that_gets_room_again_has_every_frame_once() {
    let Some(mut disk) =
        SmallDisk::start("a_full_disk_that_gets_room_again_has_every_frame_once", 1_024, 20, &["--queue", "16"])
    else {
        return;
    };
    let address = disk.process.address;
    let senders: Vec<_> = (0..3)
        .map(|session| {
            std::thread::spawn(move || {
                let stream = connect(address);
                send_frames(&stream, session, 500);
                finish(&stream);
                read_to_fin(&stream);
            })
        })
        .collect();
    disk.wait_for_warning();
    fs::remove_file(disk.root.join("filler")).expect("it is there");
    senders.into_iter().for_each(|sender| sender.join().expect("a sender"));
    wait_until("all are written", || disk.lines().len() == 1_500);
    assert_collected(disk.lines().into_iter(), 3, 500);
    disk.process.signal(Signal::SIGTERM);
    assert!(disk.process.wait().success(), "{}", disk.process.stderr());
}

#[test]
fn the_failure_of_the_last_batch_fails_the_run_and_says_how_many_frames_it_held() {
    let Some(mut disk) =
        SmallDisk::start("the_failure_of_the_last_batch_fails_the_run", 64, 0, &["--drain-timeout", "100ms"])
    else {
        return;
    };
    let stream = connect(disk.process.address);
    send_frames(&stream, 0, 3);
    disk.wait_for_bytes(3 * (4 + 200));
    drop(stream);
    disk.process.signal(Signal::SIGTERM);
    let status = disk.process.wait();
    let said = disk.process.stderr();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("No space left on device") && said.contains("3 frames were not written"), "{said}");
}

#[test]
fn dev_full_is_a_full_disk() {
    let mut process = Process::rust(&["--protocol", "collect", "--output", "/dev/full", "--drain-timeout", "0s"]);
    let stream = connect(process.address);
    send_frames(&stream, 0, 5);
    finish(&stream);
    wait_until("a warning", || process.stderr().contains("No space left on device"));
    drop(stream);
    process.signal(Signal::SIGTERM);
    assert_eq!(process.wait().code(), Some(1), "{}", process.stderr());
    assert!(process.stderr().contains("5 frames were not written"), "{}", process.stderr());
}

/// A limit on the size of files cuts a write in two. The server writes the rest when the limit is raised.
#[test]
fn a_file_at_its_size_limit_goes_on_in_the_middle_of_a_line_when_the_limit_is_raised() {
    let scratch = Scratch::new();
    let path = scratch.file("output");
    let preparation = "trap '' XFSZ; ulimit -S -f 3";
    let arguments = ["--protocol", "collect", "--output", &path];
    let process = Process::start_after(Server::Rust, preparation, &arguments).expect("cargo compiles it before the tests");
    let stream = connect(process.address);
    send_frames(&stream, 0, 100);
    finish(&stream);
    wait_until("a warning", || process.stderr().contains("File too large"));
    assert_eq!(fs::metadata(&path).expect("a file").len(), 3 * 512, "up to the limit");
    let mut command = Command::new("prlimit");
    command.args(["--pid", &process.pid().to_string(), "--fsize=unlimited"]);
    assert!(command.status().expect("util-linux").success());
    process.terminate();
    assert_collected(fs::read_to_string(&path).expect("a file").lines().map(str::to_owned), 1, 100);
}

/// Starts a server that collects to a file, and lets strace inject faults into calls on that file.
fn collect_with_faults(path: &str, call: &str, fault: &str, arguments: &[&str]) -> (Process, Tracer) {
    let process = Process::rust(&[&["--protocol", "collect", "--output", path], arguments].concat());
    let (trace, inject) = (format!("trace={call}"), format!("inject={call}:{fault}"));
    let tracer = Tracer::attach(&process, &["-f", "-e", &trace, "-e", &inject, "-P", path]);
    (process, tracer)
}

/// An earlier run has ended in the middle of a line.
#[test]
fn a_file_that_ends_within_a_line_is_given_a_new_line_first() {
    let scratch = Scratch::new();
    let path = scratch.file("output");
    for (before, expected) in [("{\"torn\":", "{\"torn\":\n"), ("whole\n", "whole\n"), ("", "")] {
        fs::write(&path, before).expect("a file");
        let process = Process::rust(&["--protocol", "collect", "--output", &path]);
        let stream = connect(process.address);
        send_frames(&stream, 0, 1);
        finish(&stream);
        read_to_fin(&stream);
        process.terminate();
        let text = fs::read_to_string(&path).expect("a file");
        let lines = text.strip_prefix(expected).unwrap_or_else(|| panic!("{text:?}"));
        assert_collected(lines.lines().map(str::to_owned), 1, 1);
    }
}

#[test]
fn a_disk_that_does_not_answer_a_sync_does_not_block_the_exit() {
    if !has_strace("a_disk_that_does_not_answer_a_sync_does_not_block_the_exit") {
        return;
    }
    let scratch = Scratch::new();
    let path = scratch.file("output");
    let (mut process, tracer) =
        collect_with_faults(&path, "fdatasync", "delay_enter=60000000", &["--drain-timeout", "100ms"]);
    let stream = connect(process.address);
    send_frames(&stream, 0, 3);
    finish(&stream);
    read_to_fin(&stream);
    process.signal(Signal::SIGTERM);
    wait_until("the end", || process.stderr().contains("all frames were written, but it is not certain"));
    drop(tracer); // otherwise it stops the thread that it delays
    assert_eq!(process.wait().code(), Some(1), "{}", process.stderr());
    assert_collected(fs::read_to_string(&path).expect("a file").lines().map(str::to_owned), 1, 3);
}

/// Injects two failures of write(2) for each row. The server tries again, or ends.
#[test]
fn each_errno_of_write_is_tried_again_or_ends_the_server_as_the_table_says() {
    if !has_strace("each_errno_of_write_is_tried_again_or_ends_the_server_as_the_table_says") {
        return;
    }
    for (errno, words, is_retried) in [
        ("ENOSPC", "No space left on device", true),
        ("EDQUOT", "Disk quota exceeded", true),
        ("EFBIG", "File too large", true),
        ("EIO", "Input/output error", false),
        ("EPIPE", "Broken pipe", false),
        ("EBADF", "Bad file descriptor", false),
    ] {
        let scratch = Scratch::new();
        let path = scratch.file("output");
        let (mut process, _tracer) = collect_with_faults(&path, "write", &format!("error={errno}:when=1..2"), &[]);
        let stream = connect(process.address);
        send_frames(&stream, 0, 4);
        finish(&stream);
        wait_until("a message", || process.stderr().contains(words));
        if is_retried {
            process.signal(Signal::SIGTERM);
            assert_eq!(process.wait().code(), Some(0), "{errno}: {}", process.stderr());
            assert_collected(fs::read_to_string(&path).expect("a file").lines().map(str::to_owned), 1, 4);
        } else {
            assert_eq!(process.wait().code(), Some(1), "{errno}: {}", process.stderr());
            assert!(process.stderr().contains("4 frames were not written"), "{errno}: {}", process.stderr());
        }
    }
}
