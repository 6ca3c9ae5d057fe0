//! A server as a process of its own, and what a test may ask of it.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Program, eventually, proc, program, wait_until};

/// The two servers. Both must pass the same tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    Rust,
    C,
}

impl Server {
    /// Returns the program and its first arguments, or none if it was not compiled.
    pub fn program(self) -> Option<(&'static str, &'static [&'static str])> {
        match self {
            Self::Rust => Some((program(), &["serve", "--listen", "127.0.0.1:0"])),
            Self::C => option_env!("C_REFERENCE_PROGRAM").map(|path| (path, &["--listen", "127.0.0.1:0"] as &[_])),
        }
    }
}

/// Reads the line in which a server announces an address.
pub fn announced(line: &str) -> Option<SocketAddr> {
    line.strip_prefix("listening on ")?.trim().parse().ok()
}

/// A server under test. It is killed, by its process id, when it goes out of scope.
pub struct Process {
    program: Program,
    pub address: SocketAddr,
    stderr: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts a server on a free port of 127.0.0.1, and waits until it listens. Returns none if it was not compiled.
    pub fn start(server: Server, arguments: &[&str]) -> Option<Self> {
        let (program, first) = server.program()?;
        Some(Self::spawn(Command::new(program).args(first).args(arguments)))
    }

    /// Starts the Rust server.
    pub fn rust(arguments: &[&str]) -> Self {
        Self::start(Server::Rust, arguments).expect("cargo compiles it before the tests")
    }

    /// Starts a server from a shell, which runs `preparation` and becomes the server.
    pub fn start_after(server: Server, preparation: &str, arguments: &[&str]) -> Option<Self> {
        let (program, first) = server.program()?;
        let script = format!("{preparation}\nexec \"$0\" \"$@\"");
        Some(Self::spawn(Command::new("sh").args(["-c", &script, program]).args(first).args(arguments)))
    }

    /// Runs a command that is, or becomes, a server.
    pub fn spawn(command: &mut Command) -> Self {
        let mut process = Self::launch(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        process.read_stderr();
        process.read_address();
        process
    }

    /// Starts the Rust server with an admin endpoint on a free port, and returns its address, too.
    pub fn with_admin(arguments: &[&str]) -> (Self, SocketAddr) {
        let (program, first) = Server::Rust.program().expect("cargo compiles it before the tests");
        let mut command = Command::new(program);
        Self::spawn_with_admin(command.args(first).args(["--admin", "127.0.0.1:0"]).args(arguments))
    }

    /// Runs a command that is, or becomes, a server with an admin endpoint, and returns its address, too.
    pub fn spawn_with_admin(command: &mut Command) -> (Self, SocketAddr) {
        let mut process = Self::launch(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        process.read_stderr();
        let mut lines = process.program.take_lines();
        let mut next = || {
            let mut line = String::new();
            lines.read_line(&mut line).expect("stdout");
            line
        };
        let (listening, admin) = (next(), next());
        process.address = announced(&listening).unwrap_or_else(|| panic!("{listening:?}, {:?}", process.stderr()));
        let admin = admin.strip_prefix("admin endpoint on http://").unwrap_or_else(|| panic!("{admin:?}"));
        (process, admin.trim().parse().expect("an address"))
    }

    /// Runs a command that is, or becomes, a server. The test reads what the command has as stderr.
    pub fn spawn_without_reader(command: &mut Command) -> Self {
        let mut process = Self::launch(command.stdout(Stdio::piped()));
        process.read_address();
        process
    }

    /// Runs a command that is, or becomes, a server that writes to `stdout`, and announces its address on stderr.
    pub fn spawn_with_stdout(command: &mut Command, stdout: impl Into<Stdio>) -> Self {
        let mut process = Self::launch(command.stdout(stdout).stderr(Stdio::piped()));
        process.read_stderr();
        process.address = eventually("an announcement", || {
            let has_ended = process.has_ended();
            let said = process.stderr();
            let address = said.lines().find_map(announced);
            assert!(address.is_some() || !has_ended, "the server has ended: {said:?}");
            address
        });
        process
    }

    /// Starts a command without the environment variables that stand for flags, but for the one with which `.ci/check-sandbox` runs all
    /// servers in the sandbox.
    fn launch(command: &mut Command) -> Self {
        let names = std::env::vars_os().map(|(name, _)| name);
        for name in names.filter(|name| name.to_string_lossy().starts_with("EDGECHO_") && name != "EDGECHO_SANDBOX") {
            command.env_remove(name);
        }
        let program = Program::spawn(command);
        Self { program, address: SocketAddr::from(([0; 4], 0)), stderr: Arc::default(), reader: None }
    }

    /// Starts a thread that reads its stderr.
    fn read_stderr(&mut self) {
        let (mut pipe, said) = (BufReader::new(self.program.take_stderr()), Arc::clone(&self.stderr));
        self.reader = Some(std::thread::spawn(move || {
            let mut line = String::new();
            while pipe.read_line(&mut line).is_ok_and(|count| count > 0) {
                said.lock().expect("no reader has panicked").push_str(&std::mem::take(&mut line));
            }
        }));
    }

    /// Reads the address from its stdout.
    fn read_address(&mut self) {
        let mut line = String::new();
        self.program.take_lines().read_line(&mut line).expect("stdout");
        self.address = announced(&line).unwrap_or_else(|| {
            wait_until("the server ends", || self.program.status().is_some());
            if let Some(reader) = self.reader.take() {
                reader.join().expect("the reader of stderr");
            }
            panic!("the server said {line:?} on stdout, and {:?} on stderr", self.stderr())
        });
    }

    /// Takes the pipe that is the server's stdout.
    pub fn take_stdout(&mut self) -> std::process::ChildStdout {
        self.program.take_stdout()
    }

    /// Takes the pipe that is the server's stderr, if no thread reads it.
    pub fn take_stderr(&mut self) -> std::process::ChildStderr {
        self.program.take_stderr()
    }

    pub fn pid(&self) -> u32 {
        self.program.pid()
    }

    pub fn signal(&self, signal: Signal) {
        self.program.signal(signal);
    }

    /// Sends a signal that a server which has ended does not get.
    pub fn signal_if_running(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.pid() as i32), signal);
    }

    /// Returns whether it has ended; [`wait`](Self::wait) returns its status.
    pub fn has_ended(&self) -> bool {
        proc::has_ended(self.pid())
    }

    /// Returns the process that traces it, or 0.
    pub fn tracer(&self) -> u32 {
        proc::tracer(self.pid())
    }

    /// Returns what it has written to stderr until now.
    pub fn stderr(&self) -> String {
        self.stderr.lock().expect("no reader has panicked").clone()
    }

    /// Returns one figure of its statistics, which SIGUSR1 makes it print.
    pub fn figure(&self, name: &str) -> u64 {
        let reports = |text: &str| text.matches("longest_turn_us ").count();
        let before = reports(&self.stderr());
        self.signal(Signal::SIGUSR1);
        let is_newer = |text: &String| text.ends_with('\n') && reports(text) > before;
        let text = eventually("the statistics", || Some(self.stderr()).filter(is_newer));
        let line = text.lines().rev().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} is missing:\n{text}")).parse().expect("a number")
    }

    /// Waits until it has ended by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let status = self.program.wait();
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the reader of stderr");
        }
        status
    }

    /// Sends SIGTERM, and waits for the end, which must be a success.
    pub fn terminate(mut self) {
        self.signal(Signal::SIGTERM);
        let status = self.wait();
        assert_eq!(status.code(), Some(0), "signal {:?}, stderr {:?}", status.signal(), self.stderr());
    }

    /// Returns its resident memory in bytes.
    pub fn rss_bytes(&self) -> u64 {
        proc::rss_bytes(self.pid())
    }

    /// Returns the highest resident memory that it has had, in bytes.
    pub fn peak_rss_bytes(&self) -> u64 {
        proc::peak_rss_bytes(self.pid())
    }

    /// Returns how often it has gone to sleep.
    pub fn sleeps(&self) -> u64 {
        proc::sleeps(self.pid())
    }

    /// Returns the time that it has had a CPU.
    pub fn cpu_time(&self) -> Duration {
        proc::cpu_time(self.pid())
    }

    /// Returns how many descriptors it has open.
    pub fn descriptors(&self) -> usize {
        proc::descriptors_below(self.pid(), u32::MAX)
    }

    /// Returns how many of its descriptors are below `limit`, as `RLIMIT_NOFILE` counts.
    pub fn descriptors_below(&self, limit: u32) -> usize {
        proc::descriptors_below(self.pid(), limit)
    }

    /// Stops it with SIGSTOP, and waits until the kernel has stopped it.
    pub fn freeze(&self) {
        self.program.freeze();
    }

    /// Continues it after [`freeze`](Self::freeze).
    pub fn thaw(&self) {
        self.program.thaw();
    }

    /// Waits until it sleeps in epoll_wait(2), with nothing left to do.
    pub fn settle(&self) {
        wait_until("the server sleeps", || proc::state(self.pid()) == 'S');
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.program.kill();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}
