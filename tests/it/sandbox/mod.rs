//! `--sandbox`: the list of allowed system calls, tried from outside.

#[cfg(target_arch = "x86_64")]
mod foreign;

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::scratch::Scratch;
use crate::strace::has_strace;
use crate::support::client::{assert_same, connect, echo, finish, pattern, read_to_fin};
use crate::support::http::get;
use crate::support::proc::thread_fields;
use crate::support::{PROGRAM, Process, edgecho, run};

#[test]
fn every_thread_is_in_the_sandbox_before_the_first_accept() {
    let scratch = Scratch::new();
    let output = scratch.file("output");
    let process = Process::rust(&["--sandbox", "kill", "--protocol", "collect", "--output", &output]);
    assert_eq!(thread_fields(process.pid(), "Seccomp"), ["2"; 3], "the loop, the log and the output");
    assert_eq!(thread_fields(process.pid(), "NoNewPrivs"), ["1"; 3]);
    process.terminate();
}

#[test]
fn a_plain_server_has_no_filter_and_no_other_thread() {
    let mut command = edgecho(&["serve", "--listen", "127.0.0.1:0"]);
    let process = Process::spawn(command.env_remove("EDGECHO_SANDBOX"));
    assert_eq!(thread_fields(process.pid(), "Seccomp"), ["0"]);
    assert_eq!(thread_fields(process.pid(), "NoNewPrivs"), ["0"]);
    process.terminate();
}

/// Work that takes the rare paths: large outboxes, a stopped process, statistics, a drain with open connections.
#[test]
fn in_the_sandbox_a_server_serves_drains_and_ends_as_without() {
    for arguments in [
        &["--sandbox", "kill", "-vv", "--idle-timeout", "60s", "--user-timeout", "60s"] as &[_],
        &["--sandbox", "kill", "--copy", "--memory-limit", "1MiB", "--drain-timeout", "100ms"],
        &["--sandbox", "kill", "--protocol", "line", "--heartbeat", "100ms", "--status-interval", "100ms"],
    ] {
        let mut process = Process::rust(arguments);
        let client = connect(process.address);
        let bytes = if arguments.contains(&"line") { b"a line\n".repeat(100_000) } else { pattern(1, 4 << 20) };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::io::Write::write_all(&mut &client, &bytes).expect("send");
                finish(&client);
            });
            let received = read_to_fin(&client);
            if arguments.contains(&"line") {
                let text = String::from_utf8(received).expect("text");
                assert_eq!(text.lines().filter(|&line| line == "a line").count(), 100_000);
            } else {
                assert_same(&received, &bytes);
            }
        });
        process.freeze();
        process.thaw();
        let open = connect(process.address);
        echo(&open, b"hello\n");
        assert_eq!(process.figure("open"), 1);
        process.signal(Signal::SIGTERM);
        if !arguments.contains(&"--drain-timeout") {
            drop(open);
        }
        let status = process.wait();
        assert_eq!(status.code(), Some(0), "signal {:?}, stderr {:?}", status.signal(), process.stderr());
    }
}

/// With a heap of its own for a thread, the GNU C library opens a file of /proc when it first returns memory of that heap.
#[test]
fn requests_that_take_memory_and_never_end_do_not_end_the_process() {
    let (server, admin) = Process::with_admin(&["--sandbox", "kill"]);
    let head = [b"GET / HTTP/1.1\r\nHost: x\r\nX-A: ".as_slice(), &[b'a'; 8000]].concat();
    for clients in [8, 40, 16, 40, 24, 40, 40, 40] {
        let clients: Vec<_> = (0..clients).map(|_| connect(admin)).collect();
        clients.iter().for_each(|mut client| std::io::Write::write_all(&mut client, &head).expect("send"));
        assert_eq!(get(admin, "/livez").status, 200); // the heads are read by now
        drop(clients);
        assert_eq!(get(admin, "/livez").status, 200);
    }
    server.terminate();
}

#[test]
fn an_announcement_that_fails_is_logged_in_the_sandbox() {
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" serve --listen 127.0.0.1:0 --sandbox kill >/dev/full", PROGRAM]);
    let mut program = crate::support::Program::piped(&mut command);
    let stderr = program.take_stderr();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stderr), &mut line).expect("stderr");
    assert!(line.contains("cannot say so"), "{line}");
    program.signal(Signal::SIGTERM);
    assert_eq!(program.wait().code(), Some(0));
}

#[test]
fn a_kernel_without_filters_is_a_clear_error() {
    if !has_strace("a_kernel_without_filters_is_a_clear_error") {
        return;
    }
    let scratch = Scratch::new();
    for errno in ["ENOSYS", "EINVAL", "EPERM"] {
        let mut command = Command::new("strace");
        command.args(["-qq", "-f", "-o", &scratch.file("trace"), &format!("--inject=seccomp:error={errno}"), PROGRAM]);
        let (status, stdout, stderr) = run(command.args(["serve", "--listen", "127.0.0.1:0", "--sandbox", "kill"]));
        assert_eq!((status.code(), stdout.as_str()), (Some(1), ""), "{stderr}");
        assert!(stderr.starts_with("error: --sandbox: ") && stderr.contains("CONFIG_SECCOMP_FILTER"), "{stderr}");
    }
}
