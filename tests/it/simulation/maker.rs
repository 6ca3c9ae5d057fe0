//! Makes schedules from seeds: what may matter happens often, and next to every boundary.

use std::time::Duration;

use edgecho::server::{Config, Limits, ProxyMode, ProxyOptions, Timeouts};

use super::plan::{Act, DAY, HOUR, Kind, LISTENERS, MS, Plan, Random, SECOND, Sleep, Step};

/// Makes a schedule.
struct Maker {
    random: Random,
    config: Config,
    script: Vec<Step>,
    /// Connections until now.
    peers: usize,
    is_slow: bool,
}

impl Plan {
    pub fn from_seed(seed: u64) -> Self {
        // A generator of its own: the schedule of a seed stays as it is.
        let mut opener = Random::new(seed ^ 0x5eed);
        let inherited = if opener.is(30) { opener.range(1, LISTENERS as u64 + 1) as usize } else { 0 };
        let mut random = Random::new(seed);
        let is_crowd = random.is(1);
        let config = config(&mut random, is_crowd);
        let mut maker = Maker { is_slow: config.limits.rate_limit.is_some(), random, config, script: Vec::new(), peers: 0 };
        let kind = if is_crowd { Kind::Echo } else { maker.kind() };
        if maker.random.is(40) {
            maker.uptime();
        }
        if is_crowd {
            maker.crowd();
        }
        for _ in 0..maker.random.range(1, if is_crowd { 6 } else { 12 }) {
            maker.scene();
        }
        maker.ending();
        Self { kind, config: maker.config, inherited, script: maker.script }
    }
}

fn config(random: &mut Random, is_crowd: bool) -> Config {
    const TIMES_MS: [u64; 16] = [
        10,
        10,
        11,
        16,
        100,
        500,
        1_000,
        2_000,
        5_000,
        10_000,
        30_000,
        60_000,
        600_000,
        3_600_000,
        86_400_000,
        1_728_000_000,
    ];
    let time = |random: &mut Random| {
        Duration::from_millis(random.pick(&TIMES_MS) + if random.is(20) { random.below(9) } else { 0 })
    };
    let some = |random: &mut Random, percent| random.is(percent).then(|| time(random).min(Timeouts::MAX));
    let mut timeouts = Timeouts::default();
    timeouts.idle = some(random, if is_crowd { 90 } else { 55 });
    timeouts.write = some(random, 55);
    timeouts.lifetime = some(random, 20);
    timeouts.drain = random.pick(&[0, 10, 1_000, 5_000, 5_000, 3_600_000, 86_400_000].map(Duration::from_millis));
    timeouts.drain_delay =
        if random.is(50) { Duration::ZERO } else { random.pick(&[10, 1_000, 15_000, 3_600_000].map(Duration::from_millis)) };
    if timeouts.write.is_none() && random.is(50) {
        timeouts.write = Timeouts::default().write;
    }
    timeouts.lifetime = timeouts.lifetime.max(timeouts.lifetime.and(timeouts.idle));
    let mut limits = Limits::default();
    limits.max_connections = random.is(15).then(|| random.range(1, 8) as usize);
    limits.rate_limit = random.is(12).then(|| random.pick(&[2_000, 20_000, 1_000_000]));
    limits.memory_limit = random.is(15).then(|| random.pick(&[65_536, 100_000]));
    let intervals = Duration::from_millis(100)..=Timeouts::MAX;
    let mut config = Config::default();
    config.limits = if is_crowd { Limits::default() } else { limits };
    config.timeouts = timeouts;
    config.heartbeat = some(random, 20).filter(|time| intervals.contains(time));
    config.status_interval = some(random, 4).filter(|time| intervals.contains(time));
    config.stats_interval = some(random, 4).filter(|time| intervals.contains(time));
    config.copy = !random.is(20);
    config.proxy = random.is(20).then(|| {
        let mode = if random.is(70) { ProxyMode::Require } else { ProxyMode::Optional };
        let from = if random.is(90) { "127.0.0.0/8" } else { "10.0.0.0/8" };
        let mut proxy = ProxyOptions::new(mode, vec![from.parse().expect("a network")]);
        proxy.timeout = time(random).clamp(ProxyOptions::MIN_TIMEOUT, ProxyOptions::MAX_TIMEOUT);
        proxy
    });
    config
}

impl Maker {
    fn kind(&mut self) -> Kind {
        match self.random.below(10) {
            0..7 => Kind::Echo,
            7..9 => {
                let most = self.random.pick(&[1, 3, 20]);
                Kind::Alarms { own: self.timers(most), server: self.timers(3) }
            }
            _ => Kind::Hoard {
                most_bytes: self.random.range(1, 10_000) as usize,
                every: Duration::from_nanos(self.span().max(MS)),
            },
        }
    }

    fn timers(&mut self, most: u64) -> Vec<(Duration, Option<Duration>)> {
        let time = |maker: &mut Self| match maker.random.below(20) {
            0 => Duration::ZERO,
            1 => Duration::MAX,
            2 => Duration::from_nanos(1),
            3 => Duration::from_secs(u64::MAX),
            _ => Duration::from_nanos(maker.span()),
        };
        (0..self.random.below(most + 1))
            .map(|_| {
                let after = time(self);
                (after, self.random.is(40).then(|| time(self)))
            })
            .collect()
    }

    /// A time that may matter: short, long, or next to a boundary.
    fn span(&mut self) -> u64 {
        let Timeouts { idle, write, lifetime, .. } = self.config.timeouts;
        let timeouts: Vec<u64> = [idle, write, lifetime, self.config.heartbeat]
            .into_iter()
            .flatten()
            .map(|time| time.as_nanos() as u64)
            .collect();
        let random = &mut self.random;
        match random.below(100) {
            0..30 => random.below(20 * MS),
            30..42 => random.below(2 * SECOND),
            42..80 if !timeouts.is_empty() => {
                let timeout = random.pick(&timeouts);
                let part = random.pick(&[1, 2, 4, 7, 8, 9, 10, 12, 13, 16]) * (timeout / 8);
                let off = random.pick(&[-2 * MS as i64, -(MS as i64), -1, 0, 1, MS as i64, 2 * MS as i64]);
                part.saturating_add_signed(off)
            }
            42..90 => random.below(90 * SECOND),
            90..95 => random.below(10 * HOUR),
            _ => random.below(40 * DAY),
        }
    }

    fn sleep(&mut self) {
        let sleep = if self.random.is(35) {
            Sleep::ToDeadline(self.random.pick(&[-(MS as i64), -1, 0, 0, 1, MS as i64, 3 * MS as i64]))
        } else {
            Sleep::For(self.span())
        };
        self.script.push(Step::Sleep(sleep));
    }

    fn turn(&mut self) {
        self.script.push(Step::Turn);
    }

    /// The server has been up for as long as a counter of 31 or 32 bits of milliseconds reaches, or of jiffies, or for days.
    fn uptime(&mut self) {
        let random = &mut self.random;
        let at = match random.below(10) {
            0..3 => (1_u64 << 31) * MS,
            3..6 => (1_u64 << 32) * MS,
            6 => 20 * DAY,
            7 => 3 * (1_u64 << 31) * MS,
            8 => random.below(400 * DAY),
            _ => (1_u64 << 33) * MS,
        };
        let before = if random.is(50) { random.below(30 * MS) } else { self.span().min(30 * DAY) };
        self.script.push(Step::Sleep(Sleep::Until(at.saturating_sub(before))));
    }

    fn connect(&mut self) {
        let capacity = self.random.pick(&[4_608, 16_384, 87_040, 2_626_560]);
        let is_prompt = self.random.is(50);
        self.connect_as(capacity, is_prompt);
    }

    fn connect_as(&mut self, capacity: u64, is_prompt: bool) -> usize {
        let listener = self.random.below(LISTENERS as u64) as usize;
        self.script.push(Step::Connect { listener, capacity, is_prompt });
        self.peers += 1;
        self.peers - 1
    }

    fn size(&mut self) -> u64 {
        let random = &mut self.random;
        if self.config.proxy.is_some() && random.is(60) {
            return random.range(1, 40); // a part of a header
        }
        match random.below(100) {
            0..50 => random.range(1, 200),
            50..85 => random.range(1, 5_000),
            _ if self.is_slow => random.range(1, 10_000),
            85..95 => random.range(1, 40_000),
            _ => random.range(32_768, 300_000),
        }
    }

    fn act(&mut self) -> Act {
        match self.random.below(100) {
            0..45 => Act::Send(self.size()),
            45..47 => Act::SendUrgent,
            47..77 => Act::Acknowledge(self.size()),
            77..82 => Act::Acknowledge(u64::MAX),
            82..86 => Act::Probe,
            86..91 => Act::Finish,
            91..93 => Act::Reset,
            93..96 => Act::Interrupt,
            _ => Act::Spurious,
        }
    }

    /// Something happens to one of the latest connections, or to all.
    fn peer(&mut self) -> Step {
        let act = self.act();
        if self.random.is(4) && !matches!(act, Act::Finish | Act::Reset) {
            return Step::Everyone(if matches!(act, Act::Send(_)) { Act::Send(self.random.range(1, 300)) } else { act });
        }
        let peer = self.peers.saturating_sub(1 + self.random.below(6) as usize);
        Step::Peer(peer, act)
    }

    /// The process is stopped at one of its next calls. Events that happen meanwhile are not reported to it.
    fn stop(&mut self) {
        let mut during = Vec::new();
        for _ in 0..self.random.range(1, 5) {
            if self.random.is(60) {
                let peer = self.peer();
                during.push(peer);
            }
            let time = self.span();
            during.push(Step::Advance(time));
            if self.random.is(50) {
                let peer = self.peer();
                during.push(peer);
            }
        }
        let calls = self.random.range(1, 12) as u32;
        self.script.push(Step::Stop(calls, during));
    }

    /// Some steps that belong together.
    fn scene(&mut self) {
        match self.random.below(100) {
            // Anything, in any order.
            0..55 => {
                for _ in 0..self.random.range(1, 14) {
                    match self.random.below(100) {
                        0..12 => self.connect(),
                        12..55 => {
                            let peer = self.peer();
                            self.script.push(peer);
                        }
                        55..78 => self.turn(),
                        78..92 => self.sleep(),
                        92..95 => self.stop(),
                        95..97 => {
                            let errnos =
                                [libc::EINTR, libc::ECONNABORTED, libc::EPROTO, libc::EPERM, libc::EMFILE, libc::ENOMEM];
                            let errno = self.random.pick(&errnos);
                            self.script.push(Step::AcceptFails(errno));
                        }
                        97..98 => (0..70).for_each(|_| self.connect()),
                        _ => self.script.push(Step::Stale),
                    }
                }
            }
            // A peer reads slowly: its kernel acknowledges a little now and then, and ours never finds a third of its buffer free.
            55..70 => {
                let capacity = self.random.pick(&[16_384, 87_040]);
                let peer = self.connect_as(capacity, false);
                self.script.push(Step::Peer(peer, Act::Send(capacity + self.random.range(1, 30_000))));
                self.turn();
                let every = self.span();
                for _ in 0..self.random.range(2, 24) {
                    let piece = self.random.range(1, 300);
                    self.script.push(Step::Sleep(Sleep::For(every)));
                    self.script.push(Step::Peer(peer, Act::Acknowledge(piece)));
                    if self.random.is(8) {
                        self.script.push(Step::Peer(peer, Act::Probe));
                    }
                    if self.random.is(20) {
                        self.turn();
                    }
                }
            }
            // A peer is sent less than the buffer holds, says nothing, and acknowledges that slowly.
            70..78 => {
                let peer = self.connect_as(87_040, false);
                self.script.push(Step::Peer(peer, Act::Send(self.random.range(100, 30_000))));
                self.turn();
                for _ in 0..self.random.range(1, 12) {
                    self.sleep();
                    let piece = self.random.range(1, 3_000);
                    self.script
                        .push(Step::Peer(peer, if self.random.is(90) { Act::Acknowledge(piece) } else { Act::Probe }));
                }
            }
            // A peer sends more than it may, or than memory is there for, and waits.
            78..84 => {
                for _ in 0..self.random.range(1, 5) {
                    let is_prompt = self.random.is(50);
                    let peer = self.connect_as(4_608, is_prompt);
                    let size = self.random.range(5_000, if self.is_slow { 20_000 } else { 120_000 });
                    self.script.push(Step::Peer(peer, Act::Send(size)));
                    if self.random.is(50) {
                        self.turn();
                    }
                }
                for _ in 0..self.random.range(1, 5) {
                    self.sleep();
                }
            }
            // The process is stopped, for longer than a timeout as often as not.
            84..94 => {
                for _ in 0..self.random.range(1, 4) {
                    self.connect();
                }
                self.turn();
                if self.random.is(50) {
                    self.sleep();
                }
                self.stop();
                self.turn();
                self.sleep();
            }
            // Nothing happens for long.
            94..97 => {
                let time = self.random.pick(&[HOUR, DAY, 25 * DAY, 50 * DAY]);
                self.script.push(Step::Sleep(Sleep::For(time)));
            }
            97..98 => self.uptime(),
            98..99 => self.script.push(Step::Signal),
            _ => {
                let time = self.span();
                self.script.push(Step::Sleep(Sleep::For(time)));
            }
        }
    }

    /// More connections than a batch of events holds, and a pause in which all of them are heard of.
    fn crowd(&mut self) {
        for _ in 0..self.random.range(260, 600) {
            self.connect();
        }
        for _ in 0..12 {
            self.turn();
        }
        for _ in 0..self.random.range(1, 4) {
            let (before, after) = (self.span(), self.span());
            let act = if self.random.is(70) { Act::Send(self.random.range(1, 100)) } else { Act::Acknowledge(u64::MAX) };
            let during = vec![Step::Advance(before), Step::Everyone(act), Step::Advance(after)];
            let calls = self.random.range(1, 6) as u32;
            self.script.push(Step::Stop(calls, during));
            for _ in 0..self.random.range(1, 5) {
                if self.random.is(50) { self.sleep() } else { self.turn() }
            }
        }
    }

    /// The end: in order, or by a signal while all peers are silent.
    fn ending(&mut self) {
        if self.random.is(35) {
            self.sleep();
            self.script.push(Step::Signal);
            self.script.push(Step::Sleep(Sleep::For(2 * DAY)));
        } else if self.random.is(5) {
            self.script.push(Step::Signal);
            self.sleep();
            self.script.push(Step::Signal);
        }
    }
}
