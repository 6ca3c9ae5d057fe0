//! A program as a child process.

use std::io::{BufReader, Read};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::thread::JoinHandle;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{eventually, proc, wait_until};

/// The edgecho of this build. The tools in `scripts/` measure the release build.
pub const PROGRAM: &str = match option_env!("CARGO_BIN_EXE_edgecho") {
    Some(path) => path,
    None => "target/release/edgecho",
};

/// Returns the program that a test starts as edgecho: a wrapper with which `.ci/check-sandbox` traces it, if there is one.
pub fn program() -> &'static str {
    static WRAPPER: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("EDGECHO_TEST_WRAPPER").ok());
    WRAPPER.as_deref().unwrap_or(PROGRAM)
}

/// Returns a command that runs edgecho.
pub fn edgecho(arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(arguments);
    command
}

/// Sends a signal to a process that must be running.
pub fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid as i32), signal).expect("the process is running");
}

/// A running program. It is killed, by its process id, when it goes out of scope.
pub struct Program {
    child: Child,
}

impl Program {
    /// Starts a program with an empty stdin. Its stdout and stderr are those of the command.
    pub fn spawn(command: &mut Command) -> Self {
        Self::with_stdin(command, Stdio::null())
    }

    /// Starts a program with this stdin.
    pub fn with_stdin(command: &mut Command, stdin: Stdio) -> Self {
        Self { child: command.stdin(stdin).spawn().expect("the program starts") }
    }

    /// Starts a program with pipes for stdout and stderr.
    pub fn piped(command: &mut Command) -> Self {
        Self::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()))
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Takes the pipe that is its stdout.
    pub fn take_stdout(&mut self) -> ChildStdout {
        self.child.stdout.take().expect("stdout is piped")
    }

    /// Takes the pipe that is its stdout, to be read by lines.
    pub fn take_lines(&mut self) -> BufReader<ChildStdout> {
        BufReader::new(self.take_stdout())
    }

    /// Takes the pipe that is its stderr.
    pub fn take_stderr(&mut self) -> ChildStderr {
        self.child.stderr.take().expect("stderr is piped")
    }

    pub fn signal(&self, number: Signal) {
        signal(self.pid(), number);
    }

    /// Stops it with SIGSTOP, and waits until the kernel has stopped it.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
        wait_until("the program stops", || proc::state(self.pid()) == 'T');
    }

    /// Continues it after [`freeze`](Self::freeze).
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Kills it, unless it has ended.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Returns its status if it has ended.
    pub fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("our own child")
    }

    /// Waits until it has ended.
    pub fn wait(&mut self) -> ExitStatus {
        eventually("the program ends", || self.status())
    }

    /// Reads the rest of its stdout and stderr, as far as they are pipes, until it has ended.
    pub fn finish(&mut self) -> (ExitStatus, String, String) {
        let (stdout, stderr) = (read_in_thread(self.child.stdout.take()), read_in_thread(self.child.stderr.take()));
        let status = self.wait();
        let text = |reader: JoinHandle<std::io::Result<String>>| reader.join().expect("a reader").expect("text");
        (status, text(stdout), text(stderr))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

fn read_in_thread(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<std::io::Result<String>> {
    std::thread::spawn(move || {
        let mut text = String::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_string(&mut text)?;
        }
        Ok(text)
    })
}

/// Runs a program until it ends, and returns its status, stdout and stderr.
pub fn run(command: &mut Command) -> (ExitStatus, String, String) {
    Program::piped(command).finish()
}
