//! The whole server in a simulated world: a scripted kernel with its own clock, in which months pass, the process is stopped, peers
//! read slowly, and epoll reports events in any order. A seed makes each schedule, and rules that do not depend on the server's code
//! judge it. `EDGECHO_SEED=N cargo test --test it every_schedule` plays one schedule again and prints its events;
//! `EDGECHO_SCHEDULES=N` plays N schedules instead of 10,000.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::simulation::{Act, Kind, MOST_BYTES_AN_EVENT, MOST_LEFTOVER_BYTES, Plan, Step, play};
use edgecho::server::Config;

/// A schedule that takes longer than this hangs.
const HANGS_AFTER: Duration = Duration::from_secs(30);

/// The CPU time of the calling thread, from proc_pid_schedstat(5).
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or_default())
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text}")))
}

fn check(seed: u64, is_traced: bool) {
    let plan = Plan::from_seed(seed);
    if is_traced {
        eprintln!("{:?}\n{:?}\n", plan.kind, plan.config);
    }
    let start = cpu_time();
    let (_, world) = play(&plan, is_traced);
    let (turn, frozen) = (world.borrow().longest_turn, Duration::from_secs(1));
    assert!(turn < frozen || cpu_time() - start < frozen, "invariant 5: the loop froze for {turn:?}");
}

/// The schedule that a thread plays, and since when.
type Playing = Mutex<Option<(u64, Instant)>>;

/// Plays the schedules from `next` on, until the first that fails.
fn play_all(next: &AtomicU64, end: u64, failed: &AtomicU64, playing: &Playing) {
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end || failed.load(Ordering::Relaxed) < seed {
            return *playing.lock().expect("no panic") = None;
        }
        *playing.lock().expect("no panic") = Some((seed, Instant::now()));
        if std::panic::catch_unwind(|| check(seed, false)).is_err() {
            failed.fetch_min(seed, Ordering::Relaxed);
        }
    }
}

#[test]
fn every_schedule_keeps_every_promise() {
    if let Some(seed) = number("EDGECHO_SEED") {
        return check(seed, true);
    }
    let count = number("EDGECHO_SCHEDULES").unwrap_or(10_000);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (next, failed) = (Arc::new(AtomicU64::default()), Arc::new(AtomicU64::new(u64::MAX)));
    let playing: Vec<_> = (0..threads).map(|_| Arc::new(Playing::default())).collect();
    let worker = |playing: &Arc<Playing>| {
        let (next, failed, playing) = (Arc::clone(&next), Arc::clone(&failed), Arc::clone(playing));
        std::thread::spawn(move || play_all(&next, count, &failed, &playing))
    };
    let workers: Vec<_> = playing.iter().map(worker).collect();
    let start = Instant::now();
    while !workers.iter().all(std::thread::JoinHandle::is_finished) {
        for playing in &playing {
            let hangs = playing.lock().expect("no panic").filter(|(_, since)| since.elapsed() > HANGS_AFTER);
            if let Some((seed, _)) = hangs {
                panic!("EDGECHO_SEED={seed} cargo test --test it every_schedule plays this schedule again, which hangs");
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let seed = failed.load(Ordering::Relaxed);
    assert!(seed == u64::MAX, "EDGECHO_SEED={seed} cargo test --test it every_schedule plays this schedule again");
    println!("{count} schedules in {:.1?}", start.elapsed());
}

/// Many clients send much: each gets no more than its share of a turn, all are served to the end, and the loop asks the kernel for
/// events after each share.
#[test]
fn a_turn_is_bounded_however_many_have_much_to_say() {
    const FIREHOSES: usize = 30;
    const BYTES: u64 = 2_000 * 1_500;
    let mut script = vec![Step::Connect { listener: 0, capacity: 1 << 30, is_prompt: true }; FIREHOSES];
    script.push(Step::Turn);
    script.extend((0..FIREHOSES).map(|peer| Step::Peer(peer, Act::Send(BYTES))));
    script.push(Step::Turn);
    let (summary, world) = play(&Plan { kind: Kind::Echo, config: Config::default(), inherited: 0, script }, false);
    assert!(world.borrow().sockets.iter().all(|socket| socket.echoed == BYTES));
    // 3 MB each, of which 96 KiB at the event and the rest in shares of up to 544 KiB.
    let shares = (FIREHOSES * BYTES as usize - FIREHOSES * MOST_BYTES_AN_EVENT) / MOST_LEFTOVER_BYTES;
    assert!(summary.statistics.turns as usize >= shares, "{} turns for {shares} shares", summary.statistics.turns);
}
