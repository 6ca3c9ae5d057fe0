//! Figures that are counted instead of timed: system calls under strace, instructions under valgrind. The load of the machine does not affect
//! them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Result;
use crate::load::RoundTrips;
use crate::support::{Process, Server};

const CONNECTIONS: usize = 50;

/// A server under strace, which writes its counts to a file at the end.
struct Traced {
    process: Process,
    report: PathBuf,
    /// The process of the server, the child of strace.
    pid: Pid,
}

impl Traced {
    fn start(server: Server) -> Result<Self> {
        let (program, arguments) = server.program().ok_or("the C reference was not compiled: is there a C compiler?")?;
        let report = std::env::temp_dir().join(format!("edgecho-measure-{}-{server:?}", std::process::id()));
        let mut command = Command::new("strace");
        command.args(["-c", "-f"]).arg(format!("--output={}", report.display())).arg(program).args(arguments);
        let process = Process::spawn(&mut command);
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", process.pid()))?;
        let pid = Pid::from_raw(children.trim().parse()?);
        Ok(Self { process, report, pid })
    }

    /// Echoes `messages` messages, ends the server, and returns the report.
    fn run(mut self, messages: u64) -> Result<String> {
        let mut load = RoundTrips::start(self.process.address, CONNECTIONS, 64)?;
        load.run(|count| count >= messages)?;
        drop(load);
        kill(self.pid, Signal::SIGTERM)?;
        let status = self.process.wait();
        if !status.success() {
            return Err(format!("{status}: {}", self.process.stderr()).into());
        }
        let report = fs::read_to_string(&self.report)?;
        fs::remove_file(&self.report)?;
        Ok(report)
    }
}

/// Counts all system calls of a run, including the calls that open and close connections, per message.
pub fn system_calls_per_message(server: Server) -> Result<f64> {
    const MESSAGES: u64 = 20_000;
    let report = Traced::start(server)?.run(MESSAGES)?;
    let total = report.lines().find(|line| line.ends_with("total")).ok_or("the output of strace -c has no total")?;
    let calls: f64 = total.split_whitespace().nth(3).ok_or("the output of strace -c has other columns")?.parse()?;
    Ok(calls / MESSAGES as f64)
}

/// Counts user-space instructions per message.
pub fn instructions_per_message(server: Server) -> Result<f64> {
    let (program, arguments) = server.program().ok_or("the C reference was not compiled: is there a C compiler?")?;
    instructions_by_difference(|report, messages| {
        let mut command = Command::new("valgrind");
        command.args(["-q", "--tool=callgrind"]).arg(format!("--callgrind-out-file={}", report.display()));
        let mut process = Process::spawn(command.arg(program).args(arguments));
        let mut load = RoundTrips::start(process.address, CONNECTIONS, 64)?;
        load.run(|count| count >= messages)?;
        drop(load);
        end(&mut process)
    })
}

/// Returns the instructions per message, as the difference of two runs that differ only in the number of messages. `run` runs a server under
/// callgrind, which writes to a file, with a number of messages.
pub fn instructions_by_difference(mut run: impl FnMut(&Path, u64) -> Result<()>) -> Result<f64> {
    const MESSAGES: [u64; 2] = [2_000, 12_000];
    let folder = std::env::temp_dir().join(format!("edgecho-measure-{}-callgrind", std::process::id()));
    fs::create_dir(&folder)?;
    let report = folder.join("report");
    // A server that has given up the rights of root writes it, too.
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777))?;
    let mut totals = Vec::new();
    for messages in MESSAGES {
        fs::write(&report, "")?;
        fs::set_permissions(&report, fs::Permissions::from_mode(0o666))?;
        let result = run(&report, messages).and_then(|()| Ok(fs::read_to_string(&report)?));
        if result.is_err() || totals.len() + 1 == MESSAGES.len() {
            fs::remove_dir_all(&folder)?;
        }
        let text = result?;
        let total = text.lines().find_map(|line| line.strip_prefix("summary: ").or(line.strip_prefix("totals: ")));
        totals.push(total.ok_or("the output of callgrind has no totals")?.trim().parse::<f64>()?);
    }
    Ok((totals[1] - totals[0]) / (MESSAGES[1] - MESSAGES[0]) as f64)
}

/// Ends a server with SIGTERM.
pub fn end(process: &mut Process) -> Result<()> {
    process.signal(Signal::SIGTERM);
    let status = process.wait();
    if status.success() { Ok(()) } else { Err(format!("{status}: {}", process.stderr()).into()) }
}
