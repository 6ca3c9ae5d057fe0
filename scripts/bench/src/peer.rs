//! The servers: how each is built and started.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::Result;
use crate::process::Running;

/// The CPU of the servers.
pub const SERVER_CPU: &str = "0";

/// The source of a server.
#[derive(Debug, Clone, Copy)]
enum Source {
    /// The release build of the package.
    Edgecho,
    /// A program of this package, and the crate it is built on, if any.
    Rust(&'static str, Option<&'static str>),
    /// A C program, and its linker arguments.
    C(&'static str, &'static [&'static str]),
    Go,
    /// An installed program and its arguments, in which `{host}` and `{port}` stand for the address.
    System(&'static str, &'static [&'static str]),
}

/// A server.
#[derive(Debug, Clone)]
pub struct Peer {
    pub name: &'static str,
    source: Source,
    /// Installation hint for a server that cannot be built.
    pub needs: &'static str,
    /// The maximum number of connections. Some servers start a process for each, or serve one after the other.
    pub most_connections: usize,
    program: PathBuf,
}

const ANY: usize = usize::MAX;

/// Returns all servers, edgecho first.
pub fn all() -> Vec<Peer> {
    let peer =
        |name, source, needs, most_connections| Peer { name, source, needs, most_connections, program: PathBuf::new() };
    vec![
        peer("edgecho", Source::Edgecho, "cargo build --release", ANY),
        peer("C reference", Source::C("../../c_reference/edgecho.c", &[]), "a C compiler", ANY),
        peer("floor", Source::C("peers/floor.c", &[]), "a C compiler", ANY),
        peer("mio", Source::Rust("mio", Some("mio")), "", ANY),
        peer("tokio, current thread", Source::Rust("tokio_current", Some("tokio")), "", ANY),
        peer("tokio, multi-threaded", Source::Rust("tokio_multi", Some("tokio")), "", ANY),
        peer("async-std", Source::Rust("async_std", Some("async-std")), "", ANY),
        peer("monoio", Source::Rust("monoio", Some("monoio")), "", ANY),
        peer("io_uring", Source::C("peers/io_uring.c", &["-luring"]), "apt-get install liburing-dev", ANY),
        peer("libuv", Source::C("peers/libuv.c", &["-luv"]), "apt-get install libuv1-dev", ANY),
        peer("libevent", Source::C("peers/libevent.c", &["-levent"]), "apt-get install libevent-dev", ANY),
        peer("Go net", Source::Go, "apt-get install golang-go", ANY),
        peer("std, thread per connection", Source::Rust("std_threads", None), "", 1_000),
        peer("std, one at a time", Source::Rust("std_single", None), "", 1),
        peer(
            "socat",
            Source::System("socat", &["TCP-LISTEN:{port},bind={host},fork,reuseaddr,nodelay,backlog=4096", "EXEC:cat"]),
            "apt-get install socat",
            50,
        ),
        peer(
            "ncat",
            Source::System("ncat", &["-l", "{host}", "{port}", "-k", "-e", "/bin/cat"]),
            "apt-get install ncat",
            50,
        ),
    ]
}

impl Peer {
    /// Builds the program, or finds it if it is installed.
    pub fn build(&mut self) -> Result<()> {
        let directory = Path::new("target/bench/peers");
        std::fs::create_dir_all(directory)?;
        let out = directory.join(self.name.replace([' ', ','], "_"));
        self.program = match self.source {
            Source::Edgecho => "target/release/edgecho".into(),
            Source::Rust(name, _) => Path::new("target/bench/cargo/release").join(name),
            Source::C(file, libraries) => {
                let source = Path::new("scripts/bench").join(file);
                run(Command::new("cc").args(["-O2", "-w", "-o"]).arg(&out).arg(source).args(libraries))?;
                out
            }
            Source::Go => {
                let source = "scripts/bench/peers/main.go";
                run(Command::new("go")
                    .env("CGO_ENABLED", "0")
                    .args(["build", "-ldflags=-s -w", "-o"])
                    .arg(&out)
                    .arg(source))?;
                out
            }
            Source::System(name, _) => {
                let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
                    .map(|directory| directory.join(name))
                    .find(|path| path.is_file());
                found.ok_or("not installed")?
            }
        };
        if self.program.is_file() { Ok(()) } else { Err(format!("{} is missing", self.program.display()).into()) }
    }

    /// Returns the size of the program without symbols and debug information, in bytes.
    pub fn size(&self) -> Option<u64> {
        let stripped = Path::new("target/bench/stripped");
        run(Command::new("strip").arg("-o").arg(stripped).arg(&self.program)).ok()?;
        std::fs::metadata(stripped).ok().map(|metadata| metadata.len())
    }

    /// Returns the number of dependencies: crates without its own, or shared libraries without the C library.
    pub fn dependencies(&self) -> Result<usize> {
        let crates = |manifest: &str, package: &str| -> Result<usize> {
            let mut cargo = Command::new("cargo");
            cargo.args(["tree", "--locked", "-e", "normal", "--prefix", "none", "--format", "{p}"]);
            let output = cargo.args(["--manifest-path", manifest, "-p", package]).output()?;
            if !output.status.success() {
                return Err(format!("cargo tree of {package} failed").into());
            }
            let text = String::from_utf8(output.stdout)?;
            Ok(text.lines().map(|line| line.trim_end_matches(" (*)")).collect::<BTreeSet<_>>().len())
        };
        match self.source {
            Source::Edgecho => Ok(crates("Cargo.toml", "edgecho")? - 1),
            Source::Rust(_, None) => Ok(0),
            Source::Rust(_, Some(package)) => crates("scripts/bench/Cargo.toml", package),
            _ => {
                let output = Command::new("ldd").arg(&self.program).output()?;
                let text = String::from_utf8(output.stdout)?;
                let is_own = |line: &&str| !["linux-vdso", "libc.so", "ld-linux"].iter().any(|name| line.contains(name));
                Ok(text.lines().filter(|line| line.contains(".so")).filter(is_own).count())
            }
        }
    }

    /// Starts the server on its CPU, with a limit on descriptors if given, and waits until it listens.
    pub fn start(&self, descriptors: Option<u32>) -> Result<Running> {
        // The port was free a moment ago, and nothing else on this machine should take it.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let (host, port) = (address.ip().to_string(), address.port().to_string());
        let arguments: Vec<String> = match self.source {
            Source::Edgecho => ["serve", "-q", "--listen", &address.to_string()].map(str::to_owned).into(),
            Source::C(file, _) if file.contains("c_reference") => {
                ["--listen", &address.to_string()].map(str::to_owned).into()
            }
            Source::System(_, arguments) => {
                arguments.iter().map(|argument| argument.replace("{host}", &host).replace("{port}", &port)).collect()
            }
            _ => vec![address.to_string()],
        };
        let limit = descriptors.map_or("ulimit -n $(ulimit -Hn)".to_owned(), |count| format!("ulimit -n {count}"));
        let mut command = Command::new("sh");
        command
            .process_group(0)
            .args(["-c", &format!("{limit}; exec taskset -c {SERVER_CPU} \"$0\" \"$@\"")])
            .arg(&self.program)
            .args(arguments);
        let started = Instant::now();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let mut running = Running::new(child, address);
        running.start_time = await_listener(address, started)?;
        Ok(running)
    }
}

/// Waits until a server listens, and returns the time since `started`.
fn await_listener(address: SocketAddr, started: Instant) -> Result<Duration> {
    loop {
        match TcpStream::connect(address) {
            // A socket can connect to itself if it gets the same port (TCP simultaneous open).
            Ok(stream) if stream.local_addr()? != address => return Ok(started.elapsed()),
            _ if started.elapsed() > Duration::from_secs(5) => return Err("the server does not listen".into()),
            _ => std::thread::sleep(Duration::from_micros(200)),
        }
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().map_err(|error| format!("{}: {error}", command.get_program().to_string_lossy()))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = text.lines().find(|line| line.contains("error")).or(text.lines().next()).unwrap_or("the command failed");
    Err(line.to_owned().into())
}
