//! systemd: socket activation, notification, restarts, and the units.

mod activation;
mod notify;
mod restarts;
mod units;

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::scratch::Scratch;
use crate::support::{PATIENCE, PROGRAM, Program};

/// The receiver of notifications, as a service manager has one.
struct Manager {
    socket: UnixDatagram,
    scratch: Scratch,
}

impl Manager {
    fn new() -> Self {
        let scratch = Scratch::new();
        Self { socket: UnixDatagram::bind(scratch.file("notify")).expect("a receiver"), scratch }
    }

    /// The value of `NOTIFY_SOCKET`.
    fn address(&self) -> String {
        self.scratch.file("notify")
    }

    /// Waits for a message.
    fn next_within(&self, patience: Duration) -> Option<String> {
        let mut buffer = [0; 512];
        self.socket.set_read_timeout(Some(patience)).expect("a timeout");
        let count = self.socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..count]).into_owned())
    }

    /// Waits for a message that contains `part`. Returns it, and when it came.
    fn wait_for(&self, part: &str) -> (String, Instant) {
        let start = Instant::now();
        loop {
            let message = self.next_within(PATIENCE).unwrap_or_else(|| panic!("waited in vain for {part}"));
            if message.contains(part) {
                return (message, Instant::now());
            }
            assert!(start.elapsed() < PATIENCE, "waited in vain for {part}");
        }
    }
}

/// Returns a command that runs `edgecho serve` without the variables that stand for flags.
fn serve(arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg("serve").args(arguments);
    clean(command)
}

/// Returns a command that runs `edgecho serve`, which inherits a socket as descriptor 3, as from systemd.
fn serve_on(socket: &TcpListener, arguments: &[&str]) -> (Command, Stdio) {
    let mut command = Command::new("sh");
    let script = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web exec \"$0\" serve \"$@\"";
    command.args(["-c", script, PROGRAM]).args(arguments);
    (clean(command), OwnedFd::from(socket.try_clone().expect("a copy")).into())
}

fn clean(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("EDGECHO_") {
            command.env_remove(name);
        }
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}
