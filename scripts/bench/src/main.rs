//! Holds edgecho beside the other ways to write its server: the same work, in one run, in turns. `scripts/bench.sh` builds and runs it.

mod check;
mod peer;
mod process;
mod report;
mod work;

use std::error::Error;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;

use check::{CHECKS, Verdict};
use peer::Peer;
use report::{Cell, Outcome};
use work::{BEST_RATE_OF, Context, Repeat, WORKS, Work};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Hold edgecho beside the other ways to write this server
#[derive(Debug, Parser)]
#[command(name = "bench.sh")]
struct Options {
    /// The main rows only, once each: under 3 minutes
    #[arg(long)]
    quick: bool,

    /// These servers only, by the beginnings of their names, with commas between
    #[arg(long, value_name = "PEER,…", value_delimiter = ',')]
    only: Vec<String>,

    /// This work only, by name: small-1, small-50, small-1000, small-10000, driver, medium-50, bulk-1, bulk-8, bulk-64, churn, tail,
    /// latency, calls, idle-1000, idle-10000, start
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    work: Vec<String>,

    /// How often each server has its turn [default: 9, quick: 1]
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,

    /// How long each turn takes, in seconds [default: 0.6, quick: 0.2]
    #[arg(long, value_name = "S")]
    seconds: Option<f64>,

    /// Leave out the checks
    #[arg(long)]
    unchecked: bool,

    /// Write everything as JSON to a file, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Put the table into the README, too, between its marks
    #[arg(long)]
    update_readme: bool,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench.sh: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    for name in &options.work {
        if !WORKS.iter().any(|work| work.name == name) {
            return Err(format!("there is no work called '{name}'; --help names them").into());
        }
    }
    let mut outcome = Outcome::new();
    let wanted =
        |peer: &Peer| options.only.is_empty() || options.only.iter().any(|name| peer.name.starts_with(name.as_str()));
    let mut peers: Vec<Peer> = peer::all().into_iter().filter(wanted).collect();
    if peers.is_empty() {
        return Err("--only names no server that there is".into());
    }
    peers.retain_mut(|peer| match peer.build() {
        Ok(()) => true,
        Err(error) => {
            outcome.missing.push((peer.name, format!("{error}; {}", peer.needs)));
            false
        }
    });
    outcome.peers = peers.iter().map(|peer| peer.name).collect();
    let is_wanted = |work: &Work| match &options.work[..] {
        [] => !options.quick || work.is_main,
        // The rates of the open loop are shares of what another work finds.
        names => names.iter().any(|name| work.name == name || (name == "latency" && work.name == BEST_RATE_OF)),
    };
    let works: Vec<&Work> = WORKS.iter().filter(|work| is_wanted(work)).collect();
    let rounds = options.rounds.unwrap_or(if options.quick { 1 } else { 9 }).max(1);
    let seconds = options.seconds.unwrap_or(if options.quick { 0.2 } else { 0.6 });
    let mut context = Context { duration: Duration::try_from_secs_f64(seconds.max(0.1))?, best_rate: 0.0 };
    let rounds_of = |work: &Work| match work.repeat {
        Repeat::Rounds => rounds,
        Repeat::Few => rounds.min(3),
        Repeat::Once => 1,
    };

    let turns = works.iter().map(|work| rounds_of(work)).sum::<usize>() * peers.len();
    let progress = Progress::new(turns + if options.unchecked { 0 } else { peers.len() });
    if !options.unchecked {
        for peer in &peers {
            progress.step(peer.name, "checks");
            let results = CHECKS.iter().map(|check| Verdict::of(peer, check)).collect();
            outcome.checks.push(results);
        }
    }
    for work in works {
        let cells = measure(work, &peers, rounds_of(work), &context, &progress);
        outcome.rows.extend(work.metrics.iter().copied().zip(cells));
        if work.name == BEST_RATE_OF {
            context.best_rate = outcome.best_rate();
        }
    }
    progress.end();

    let directory = Path::new("target/bench");
    std::fs::write(directory.join("report.md"), report::markdown(&outcome))?;
    std::fs::write(directory.join("report.html"), report::html(&outcome))?;
    if let Some(path) = &options.json {
        std::fs::write(path, report::json(&outcome)?)?;
    }
    if options.update_readme {
        report::update_readme(Path::new("README.md"), &report::markdown(&outcome))?;
    }
    print!("{}", report::markdown(&outcome));
    Ok(())
}

/// Gives all servers a piece of work, in turns: everybody in each round, so that what disturbs the machine disturbs all alike. Gives a row
/// for each metric, with a cell for each server.
fn measure(work: &Work, peers: &[Peer], rounds: usize, context: &Context, progress: &Progress) -> Vec<Vec<Cell>> {
    let mut cells = vec![vec![Cell::default(); peers.len()]; work.metrics.len()];
    for _ in 0..rounds {
        for (place, peer) in peers.iter().enumerate() {
            progress.step(peer.name, work.name);
            let result = if work.connections > peer.most_connections {
                Err("not made for so many".into())
            } else if cells[0][place].failure.is_some() {
                continue; // once is enough
            } else {
                (work.measure)(peer, context)
            };
            match result {
                Ok(values) => cells.iter_mut().zip(values).for_each(|(row, value)| row[place].values.push(value)),
                Err(error) => cells.iter_mut().for_each(|row| row[place].failure = Some(error.to_string())),
            }
        }
    }
    cells
}

/// How far it has come, on a terminal.
struct Progress {
    total: usize,
    done: std::cell::Cell<usize>,
    start: Instant,
    is_shown: bool,
}

impl Progress {
    fn new(total: usize) -> Self {
        Self { total, done: std::cell::Cell::new(0), start: Instant::now(), is_shown: std::io::stderr().is_terminal() }
    }

    fn step(&self, peer: &str, work: &str) {
        let done = self.done.get();
        self.done.set(done + 1);
        if self.is_shown {
            let passed = self.start.elapsed().as_secs();
            let left = if done == 0 { 0 } else { passed * (self.total - done) as u64 / done as u64 };
            let bar = "=".repeat(done * 24 / self.total.max(1));
            eprint!("\r\x1b[K{passed:>4} s [{bar:24}] {left:>4} s left: {work}, {peer}");
            let _ = std::io::stderr().flush();
        }
    }

    fn end(&self) {
        if self.is_shown {
            eprint!("\r\x1b[K");
        }
    }
}
