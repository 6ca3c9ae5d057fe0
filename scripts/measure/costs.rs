//! The cost of each option of a service: CPU and instructions per message, and memory per idle connection, compared with a plain `serve`.
//! Prints a table in Markdown. An option that cannot be measured has a row that says why, and the exit status is then 1.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use edgecho::client::ProxyVersion;

use crate::load::{RoundTrips, open};
use crate::support::client::{echo, free_address, pattern};
use crate::support::{PROGRAM, Process, pause, proc, run};
use crate::{Result, counts, median};

const CONNECTIONS: usize = 50;
const IDLE_CONNECTIONS: u32 = 5_000;

/// The work that a server does besides its load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extra {
    Nothing,
    /// `/metrics` is read once a second.
    Scrapes,
    /// A service manager has asked for a sign of life every two seconds, and gets one each second.
    Watchdog,
}

/// A way to run `edgecho serve`.
struct Variant {
    name: &'static str,
    /// `ADMIN` stands for a free address.
    flags: &'static [&'static str],
    /// Instructions are counted without the flags, because valgrind cannot run with them.
    hides_from_valgrind: bool,
    /// The PROXY header that each connection begins with.
    header: Option<ProxyVersion>,
    extra: Extra,
    needs_root: bool,
}

const PLAIN: Variant =
    Variant { name: "", flags: &[], hides_from_valgrind: false, header: None, extra: Extra::Nothing, needs_root: false };

/// The rows of the table. The others are compared with the first; the second shows the noise.
const VARIANTS: &[Variant] = &[
    Variant { name: "a plain `serve`", ..PLAIN },
    Variant { name: "a plain `serve`, once more", ..PLAIN },
    Variant { name: "`--admin`, idle", flags: &["--admin", "ADMIN"], ..PLAIN },
    Variant { name: "`--admin`, scraped each second", flags: &["--admin", "ADMIN"], extra: Extra::Scrapes, ..PLAIN },
    Variant {
        name: "`--proxy-protocol require`",
        flags: &["--proxy-protocol", "require", "--proxy-from", "127.0.0.0/8"],
        header: Some(ProxyVersion::V2),
        ..PLAIN
    },
    Variant { name: "`--sandbox kill`", flags: &["--sandbox", "kill"], hides_from_valgrind: true, ..PLAIN },
    Variant { name: "`--user nobody`", flags: &["--user", "nobody"], needs_root: true, ..PLAIN },
    Variant { name: "the watchdog of systemd", extra: Extra::Watchdog, ..PLAIN },
    Variant { name: "`--drain-delay 5s`", flags: &["--drain-delay", "5s"], ..PLAIN },
];

/// A figure, or the reason why there is none.
type Figure = std::result::Result<f64, String>;

/// Measures all variants, each in each round, and prints the table. Returns whether all of them could be measured.
pub fn print_table(rounds: usize, window: Duration) -> Result<bool> {
    let (_, help, _) = run(Command::new(PROGRAM).args(["serve", "--help"]));
    let is_root = nix::unistd::geteuid().is_root();
    let problem = |variant: &Variant| {
        let is_missing = |flag: &&&str| flag.starts_with("--") && !help.contains(&format!("{flag} <"));
        match variant.flags.iter().find(is_missing) {
            Some(flag) => Some(format!("this build has no {flag}")),
            None if variant.needs_root && !is_root => Some("needs root".to_owned()),
            None => None,
        }
    };
    let problems: Vec<_> = VARIANTS.iter().map(problem).collect();
    let mut cpu = vec![Vec::new(); VARIANTS.len()];
    for round in 1..=rounds {
        eprintln!("costs: round {round} of {rounds}");
        for ((variant, problem), figures) in VARIANTS.iter().zip(&problems).zip(&mut cpu) {
            figures.push(measured(problem.as_ref(), || cpu_per_message(variant, window)));
        }
    }
    println!(
        "| `serve` with | CPU per message, {CONNECTIONS} connections | ratio | instructions per message, 1 connection | bytes per idle connection |"
    );
    println!("|---|---:|---:|---:|---:|");
    let mut reasons = Vec::new();
    for (index, (variant, problem)) in VARIANTS.iter().zip(&problems).enumerate() {
        eprintln!("costs: instructions and memory of {}", variant.name);
        let instructions = measured(problem.as_ref(), || instructions_per_message(variant));
        let memory = measured(problem.as_ref(), || memory_per_connection(variant));
        let mut cell = |figure: &Figure, digits: usize, unit: &str| match figure {
            Ok(figure) => format!("{figure:.digits$}{unit}"),
            Err(reason) => {
                if !reasons.contains(&(variant.name, reason.clone())) {
                    reasons.push((variant.name, reason.clone()));
                }
                "not measured".to_owned()
            }
        };
        let time = cell(&median_of(&cpu[index]), 2, " µs");
        let ratios: Vec<Figure> =
            cpu[index].iter().zip(&cpu[0]).map(|(one, plain)| Ok(one.clone()? / plain.clone()?)).collect();
        let ratio = cell(&median_of(&ratios), 2, "");
        let mark = if variant.hides_from_valgrind { " ¹" } else { "" };
        let row = [time, ratio, cell(&instructions, 0, mark), cell(&memory, 0, " B")].join(" | ");
        println!("| {} | {row} |", variant.name);
        std::io::stdout().flush()?;
    }
    println!(
        "\n¹ Counted without the sandbox: valgrind does not know seccomp(2). The filter runs in the kernel, so the instructions in user space \
         are the same."
    );
    for (name, reason) in &reasons {
        println!("\nNot measured: {name}: {reason}");
    }
    println!("\nratios of each round:");
    for (variant, figures) in VARIANTS.iter().zip(&cpu) {
        let ratios = figures.iter().zip(&cpu[0]).filter_map(|(one, plain)| Some(one.as_ref().ok()? / plain.as_ref().ok()?));
        let ratios: Vec<String> = ratios.map(|ratio| format!("{ratio:.3}")).collect();
        println!("    {:34} {}", variant.name, ratios.join(" "));
    }
    Ok(reasons.is_empty())
}

fn measured(problem: Option<&String>, measure: impl FnOnce() -> Result<f64>) -> Figure {
    problem.map_or(Ok(()), |problem| Err(problem.clone()))?;
    // If a server does not start, the other rows are still measured.
    let result = catch_unwind(AssertUnwindSafe(measure)).unwrap_or_else(|_| Err("the server did not start".into()));
    result.map_err(|error| error.to_string())
}

/// Returns the median, or the first reason why a figure is missing.
fn median_of(figures: &[Figure]) -> Figure {
    let figures: std::result::Result<Vec<f64>, String> = figures.iter().cloned().collect();
    figures.map(median)
}

/// A server, and the thread that makes its extra work.
struct Running {
    process: Process,
    _background: Option<Background>,
}

impl Variant {
    /// Starts the server behind `tool`, a program that runs it.
    fn start(&self, tool: &[&str], flags: &[&str]) -> Result<Running> {
        let admin = free_address();
        let mut command = Command::new(tool[0]);
        command.args(&tool[1..]).args([PROGRAM, "serve", "--listen", "127.0.0.1:0"]);
        command.args(flags.iter().map(|&flag| if flag == "ADMIN" { admin.to_string() } else { flag.to_owned() }));
        let manager = if self.extra == Extra::Watchdog { Some(Manager::listen()?) } else { None };
        if let Some(manager) = &manager {
            command.env("NOTIFY_SOCKET", &manager.path).env("WATCHDOG_USEC", "2000000");
        }
        let process = Process::spawn(&mut command);
        let background = match (self.extra, manager) {
            (Extra::Scrapes, _) => Some(Background::start(move |is_over| scrape(admin, is_over))),
            (_, Some(manager)) => Some(Background::start(move |is_over| manager.receive(is_over))),
            _ => None,
        };
        Ok(Running { process, _background: background })
    }
}

/// A thread that ends when its owner goes out of scope.
struct Background {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    fn start(work: impl FnOnce(&AtomicBool) + Send + 'static) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let thread = Some(std::thread::spawn({
            let is_over = Arc::clone(&is_over);
            move || work(&is_over)
        }));
        Self { is_over, thread }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Reads `/metrics` once a second.
fn scrape(admin: SocketAddr, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Relaxed) {
        if let Ok(mut stream) = TcpStream::connect(admin) {
            let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: edgecho\r\nConnection: close\r\n\r\n");
            let _ = stream.read_to_end(&mut Vec::new());
        }
        for _ in 0..20 {
            if !is_over.load(Ordering::Relaxed) {
                pause(Duration::from_millis(50));
            }
        }
    }
}

/// The socket of a service manager.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn listen() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("edgecho-measure-{}-notify", std::process::id()));
        let _ = fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path)?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        Ok(Self { socket, path })
    }

    fn receive(&self, is_over: &AtomicBool) {
        while !is_over.load(Ordering::Relaxed) {
            let _ = self.socket.recv(&mut [0; 1024]);
        }
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Returns the CPU time of all threads of a process.
fn cpu_time(process: &Process) -> Result<Duration> {
    Ok(proc::work_of_all_threads(process.pid()).ok_or("the server has ended")?.0)
}

fn cpu_per_message(variant: &Variant, window: Duration) -> Result<f64> {
    let cpu = crate::SERVER_CPU.to_string();
    let running = variant.start(&["taskset", "-c", &cpu], variant.flags)?;
    let mut load = RoundTrips::start_with(running.process.address, CONNECTIONS, 64, variant.header)?;
    load.run_for(window / 4)?;
    let before = cpu_time(&running.process)?;
    let messages = load.run_for(window)?;
    Ok((cpu_time(&running.process)? - before).as_secs_f64() * 1e6 / messages as f64)
}

fn instructions_per_message(variant: &Variant) -> Result<f64> {
    let flags = if variant.hides_from_valgrind { &[] } else { variant.flags };
    counts::instructions_by_difference(|report, messages| {
        let tool = ["valgrind", "-q", "--tool=callgrind", &format!("--callgrind-out-file={}", report.display())];
        let mut running = variant.start(&tool, flags)?;
        // One connection, so that each turn of the loop has one message: the count does not depend on how many come at the same time.
        let mut load = RoundTrips::start_with(running.process.address, 1, 64, variant.header)?;
        load.run(|count| count >= messages)?;
        drop(load);
        counts::end(&mut running.process)
    })
}

fn memory_per_connection(variant: &Variant) -> Result<f64> {
    let running = variant.start(&["env"], variant.flags)?;
    let process = &running.process;
    for _ in 0..100 {
        echo(&open(process.address, variant.header)?, b"warm");
    }
    process.settle();
    let before = process.rss_bytes();
    let mut streams = Vec::new();
    for _ in 0..IDLE_CONNECTIONS {
        let stream = open(process.address, variant.header)?;
        echo(&stream, &pattern(1, 64));
        streams.push(stream);
    }
    process.settle();
    Ok((process.rss_bytes() as f64 - before as f64) / f64::from(IDLE_CONNECTIONS))
}
