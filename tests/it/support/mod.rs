//! A server as a process of its own, and what a test may ask of it. Shared by the test programs and the measuring tools, each
//! of which uses a part of it.
#![allow(dead_code, reason = "each program that includes this file uses another part of it")]
#![allow(missing_docs, unreachable_pub, reason = "not part of the crate")]

pub mod client;
pub mod faulty;
pub mod proc;
pub mod scripted;

/// Makes each test run twice, once for each server.
#[macro_export]
macro_rules! for_both_servers {
    ($($test:ident),* $(,)?) => {
        mod rust {
            use $crate::support::{Server, run_test};
            $( #[test] fn $test() { run_test(Server::Rust, stringify!($test), super::$test); } )*
        }
        mod c_reference {
            use $crate::support::{Server, run_test};
            $( #[test] fn $test() { run_test(Server::C, stringify!($test), super::$test); } )*
        }
    };
}

/// Runs a test against a server, if that could be built.
pub fn run_test(server: Server, name: &str, test: fn(Server)) {
    if server.program().is_some() { test(server) } else { skip(name, "the C reference was not compiled") }
}

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Far longer than anything here takes, even on a busy machine: what is not there by then will not come.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The two servers, which are held to the same tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    Rust,
    C,
}

impl Server {
    pub const BOTH: [Self; 2] = [Self::Rust, Self::C];

    /// The program and the arguments that come first, or none if it could not be built here.
    pub fn program(self) -> Option<(&'static str, &'static [&'static str])> {
        match self {
            Self::Rust => Some((RUST_PROGRAM, &["serve", "--listen", "127.0.0.1:0"])),
            Self::C => option_env!("EDGECHO_C_REFERENCE").map(|path| (path, &["--listen", "127.0.0.1:0"] as &[_])),
        }
    }
}

const RUST_PROGRAM: &str = match option_env!("CARGO_BIN_EXE_edgecho") {
    Some(path) => path,
    None => "target/release/edgecho",
};

/// Says on the terminal, past the test runner's capture, that a test was skipped. In CI that is a failure: everything that the
/// tests need is to be installed there.
pub fn skip(test: &str, reason: &str) {
    assert!(std::env::var_os("CI").is_none_or(|value| value != "true"), "{test} cannot be skipped in CI: {reason}");
    writeln!(std::io::stderr(), "skipped: {test}: {reason}").expect("a terminal");
}

/// Raises this process's own limit on descriptors as far as it goes, for tests that play thousands of clients. Gives the limit.
pub fn raise_descriptor_limit() -> u64 {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("getrlimit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("setrlimit");
    hard
}

/// A process that is killed, by its process id, when it goes out of scope.
pub struct Killed(pub Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server under test. It is killed, by its process id, when it goes out of scope.
pub struct Process {
    child: Child,
    pub address: SocketAddr,
    stderr: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts a server on a free port of 127.0.0.1, and waits until it listens. None if it could not be built here.
    pub fn start(server: Server, arguments: &[&str]) -> Option<Self> {
        let (program, first) = server.program()?;
        Some(Self::spawn(Command::new(program).args(first).args(arguments)))
    }

    /// Starts a server by way of a shell, which runs `preparation` and becomes the server.
    pub fn start_after(server: Server, preparation: &str, arguments: &[&str]) -> Option<Self> {
        let (program, first) = server.program()?;
        let script = format!("{preparation}\nexec \"$0\" \"$@\"");
        Some(Self::spawn(Command::new("sh").args(["-c", &script, program]).args(first).args(arguments)))
    }

    /// Runs a command that is, or becomes, a server.
    pub fn spawn(command: &mut Command) -> Self {
        let (mut child, stderr, reader) = Self::launch(command, Stdio::piped());
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("stdout");
        let Some(address) = line.strip_prefix("listening on ").and_then(|rest| rest.trim().parse().ok()) else {
            let _ = child.kill();
            let _ = child.wait();
            let _ = reader.join();
            panic!("the server said {line:?} on stdout, and {:?} on stderr", stderr.lock().expect("no reader has panicked"));
        };
        Self { child, address, stderr, reader: Some(reader) }
    }

    /// Runs a command that is, or becomes, a server that writes to `stdout`, and announces its address on stderr.
    pub fn spawn_with_stdout(command: &mut Command, stdout: impl Into<Stdio>) -> Self {
        let (child, stderr, reader) = Self::launch(command, stdout.into());
        let address = eventually("an announcement", || {
            let has_ended = proc::has_ended(child.id());
            let said = stderr.lock().expect("no reader has panicked").clone();
            let address = said.lines().find_map(|line| line.strip_prefix("listening on ")?.parse().ok());
            assert!(address.is_some() || !has_ended, "the server has ended, and said {said:?}");
            address
        });
        Self { child, address, stderr, reader: Some(reader) }
    }

    /// Starts a command without the variables that stand for flags, and a thread that reads its stderr.
    fn launch(command: &mut Command, stdout: Stdio) -> (Child, Arc<Mutex<String>>, JoinHandle<()>) {
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("EDGECHO_")) {
            command.env_remove(name);
        }
        let mut child =
            command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped()).spawn().expect("the server's program");
        let stderr = Arc::new(Mutex::new(String::new()));
        let (mut pipe, said) = (BufReader::new(child.stderr.take().expect("stderr is piped")), Arc::clone(&stderr));
        let reader = std::thread::spawn(move || {
            let mut line = String::new();
            while pipe.read_line(&mut line).is_ok_and(|count| count > 0) {
                said.lock().expect("no reader has panicked").push_str(&std::mem::take(&mut line));
            }
        });
        (child, stderr, reader)
    }

    /// Takes the pipe that is the server's stdout.
    pub fn take_stdout(&mut self) -> std::process::ChildStdout {
        self.child.stdout.take().expect("stdout is piped")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("the server is running");
    }

    /// Sends a signal, if there is still somebody to send it to.
    pub fn signal_if_running(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.child.id() as i32), signal);
    }

    /// Whether it has ended; [`wait`](Self::wait) says how.
    pub fn has_ended(&self) -> bool {
        proc::has_ended(self.pid())
    }

    /// The process that traces it, or 0.
    pub fn tracer(&self) -> u32 {
        proc::tracer(self.pid())
    }

    /// What it has said on stderr until now.
    pub fn stderr(&self) -> String {
        self.stderr.lock().expect("no reader has panicked").clone()
    }

    /// Waits until it has ended by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let status = eventually("the server ends", || self.child.try_wait().expect("our own child"));
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the reader of stderr");
        }
        status
    }

    /// Sends SIGTERM, and waits for the end, which must be a good one.
    pub fn terminate(mut self) {
        self.signal(Signal::SIGTERM);
        let status = self.wait();
        assert_eq!(status.code(), Some(0), "signal {:?}, stderr {:?}", status.signal(), self.stderr());
    }

    /// Resident memory.
    pub fn rss_bytes(&self) -> u64 {
        proc::rss_bytes(self.pid())
    }

    /// The highest that its resident memory has been.
    pub fn peak_rss_bytes(&self) -> u64 {
        proc::peak_rss_bytes(self.pid())
    }

    /// How often it has gone to sleep.
    pub fn sleeps(&self) -> u64 {
        proc::sleeps(self.pid())
    }

    /// The time that it has had a CPU.
    pub fn cpu_time(&self) -> Duration {
        proc::cpu_time(self.pid())
    }

    /// How many descriptors it has open.
    pub fn descriptors(&self) -> usize {
        proc::descriptors_below(self.pid(), u32::MAX)
    }

    /// How many descriptors it has open with a number under `limit`, which is how `RLIMIT_NOFILE` counts.
    pub fn descriptors_below(&self, limit: u32) -> usize {
        proc::descriptors_below(self.pid(), limit)
    }

    /// Stops it, and waits until it stands.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
        eventually("the server stops", || (proc::state(self.pid()) == 'T').then_some(()));
    }

    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Waits until it sleeps in epoll_wait(2), with nothing left to do.
    pub fn settle(&self) {
        eventually("the server sleeps", || (proc::state(self.pid()) == 'S').then_some(()));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// Runs a command to its end, with a limit on its time, and gives its status, stdout and stderr.
pub fn run(command: &mut Command) -> (ExitStatus, String, String) {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program");
    let (mut stdout, mut stderr) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    let errors = std::thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).map(|_| text)
    });
    let output = std::thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).map(|_| text)
    });
    let status = eventually("the program ends", || child.try_wait().expect("our own child"));
    let text = |reader: JoinHandle<std::io::Result<String>>| reader.join().expect("a reader").expect("text");
    (status, text(output), text(errors))
}

/// Checks a document against a schema in `docs/schema/`.
///
/// # Panics
/// If the schema does not allow the document.
pub fn assert_valid(document: &serde_json::Value, schema: &str) {
    let path = format!("docs/schema/{schema}.json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let (mut schemas, mut compiler) = (boon::Schemas::new(), boon::Compiler::new());
    compiler.add_resource("schema.json", serde_json::from_str(&text).expect("JSON")).expect("a schema");
    let compiled = compiler.compile("schema.json", &mut schemas).expect("a schema");
    if let Err(error) = schemas.validate(document, compiled) {
        panic!("{error}: {document:#}");
    }
}

/// Asks again and again until there is an answer.
///
/// # Panics
/// If there is none after a time far longer than it could take.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::yield_now();
        std::thread::park_timeout(Duration::from_millis(1));
    }
}
