//! A real HAProxy with a configuration of a test: it runs in the foreground, logs to a pipe, and answers on its runtime API.

use std::collections::HashMap;
use std::io::{BufRead, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::scratch::Scratch;
use crate::support::{Program, eventually, wait_until};

/// The beginning of each configuration. A failed connection is neither repeated nor sent to another server, so that tests see it.
const PREAMBLE: &str = "\
defaults
    mode tcp
    log global
    option tcplog
    retries 0
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout check 1s
";

/// A running HAProxy. It is killed, by its process id, when it goes out of scope.
pub struct Haproxy {
    program: Program,
    folder: Scratch,
    log: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Haproxy {
    /// Starts the HAProxy at `path`, and waits until it listens. `sections` are its `listen`, `frontend` and `backend` sections. HAProxy
    /// cannot choose a port itself: bind it to a [`free_address`](crate::support::client::free_address).
    pub fn start(path: &Path, sections: &str) -> Self {
        let folder = Scratch::new();
        let (file, socket) = (folder.file("haproxy.cfg"), folder.file("api"));
        let global = format!(
            "global\n    nbthread 1\n    log stdout format raw daemon\n    stats socket {socket} level admin\n    maxconn 1000\n"
        );
        // With one thread: HAProxy drops a line if two threads log to a pipe at the same time.
        std::fs::write(&file, format!("{global}\n{PREAMBLE}\n{sections}\n")).expect("the configuration is written");
        let mut command = Command::new(path);
        // In the foreground. With -q it would close stdout, where its log goes.
        command.args(["-db", "-f", &file]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut program = Program::spawn(&mut command);
        let log = Arc::<Mutex<String>>::default();
        let readers = vec![collect(program.take_stdout(), &log), collect(program.take_stderr(), &log)];
        let mut haproxy = Self { program, folder, log, readers };
        // It answers after it has bound all of its addresses.
        wait_until("HAProxy answers", || {
            assert!(haproxy.program.status().is_none(), "HAProxy has ended: {}", haproxy.log());
            haproxy.try_ask("show info").is_some_and(|answer| answer.contains("Version"))
        });
        haproxy
    }

    /// Sends a command to the runtime API (HAProxy Management Guide, section 9.3), and returns the answer.
    pub fn ask(&self, command: &str) -> String {
        eventually("HAProxy answers", || self.try_ask(command))
    }

    fn try_ask(&self, command: &str) -> Option<String> {
        let mut stream = UnixStream::connect(self.folder.file("api")).ok()?;
        stream.write_all(format!("{command}\n").as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    /// Returns one field of the statistics of a server, a frontend (`FRONTEND`) or a backend (`BACKEND`), such as `status` or `econ`.
    pub fn figure(&self, proxy: &str, server: &str, field: &str) -> String {
        let answer = self.ask("show stat");
        let mut lines = answer.trim_start_matches("# ").lines().map(|line| line.split(',').collect::<Vec<_>>());
        let names = lines.next().expect("a line with the names");
        let rows = lines.map(|row| names.iter().copied().zip(row).collect::<HashMap<_, _>>());
        let row = rows.into_iter().find(|row| row.get("pxname") == Some(&proxy) && row.get("svname") == Some(&server));
        row.and_then(|row| row.get(field).map(|value| (*value).to_owned()))
            .unwrap_or_else(|| panic!("no {field} of {proxy}/{server}: {answer}"))
    }

    /// Waits until a server is `UP` or `DOWN` for HAProxy.
    pub fn wait_until_server_is(&self, status: &str, proxy: &str, server: &str) {
        wait_until(&format!("{proxy}/{server} is {status}"), || self.figure(proxy, server, "status") == status);
    }

    /// Returns its log until now. A connection is logged when it ends.
    pub fn log(&self) -> String {
        self.log.lock().expect("no reader has panicked").clone()
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        self.program.kill();
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
    }
}

/// Starts a thread that adds the lines of a pipe to `log`.
fn collect(pipe: impl Read + Send + 'static, log: &Arc<Mutex<String>>) -> JoinHandle<()> {
    let log = Arc::clone(log);
    std::thread::spawn(move || {
        let mut pipe = std::io::BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            log.lock().expect("no reader has panicked").push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::Process;
    use crate::support::client::{connect, echo, free_address};
    use crate::tools::tool;

    #[test]
    fn an_echo_through_haproxy_is_an_echo() {
        let Some(path) = tool("an_echo_through_haproxy_is_an_echo", "haproxy") else { return };
        let server = Process::rust(&[]);
        let front = free_address();
        let haproxy = Haproxy::start(&path, &format!("listen echo\n    bind {front}\n    server only {}\n", server.address));
        let stream = connect(front);
        echo(&stream, b"through HAProxy");
        drop(stream);
        wait_until("the log line of the connection", || haproxy.log().contains(" echo echo/only "));
        assert_eq!(haproxy.figure("echo", "only", "stot"), "1");
    }
}
