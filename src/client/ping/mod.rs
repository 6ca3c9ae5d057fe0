//! `edgecho ping`: one echo after the other, by the clock, over one connection; in manners like ping(8).

mod link;
mod options;
mod payload;
mod report;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

pub use options::Options;
pub use report::{Format, Summary};

use super::backoff::Backoff;
use super::connect_error::ConnectError;
use super::connector::{self, Connector, Handshake, Step};
use super::dial::dial;
use super::latency::latencies;
use crate::event::{EventLoop, Events, Name, Signals, Token, Wait};
use crate::sys::epoll::EpollFlags;
use crate::sys::signal::{self, Signal};
use link::{Awaited, Link, News};
use payload::Payloads;
use report::Reporter;

/// Why a ping could not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There never was a connection.
    #[error("cannot ping {target}: {error}")]
    Connect {
        /// Whom.
        target: String,
        /// Why.
        error: ConnectError,
    },
    /// The report could not be written.
    #[error("cannot write the report: {0}")]
    Report(io::Error),
    /// The system lacks what the loop is made of.
    #[error("cannot {what}: {error}")]
    System {
        /// What could not be done.
        what: &'static str,
        /// Why.
        error: io::Error,
    },
}

const SIGNALS: Token = Token::fixed(0);
/// Each connection has a name of its own, from here on: an event for one that has gone finds nothing.
const FIRST_CONNECTION: u32 = 1;

/// The way to the far end.
#[derive(Debug)]
enum Way {
    /// None, and none to be made before a payload is due or this moment has come.
    Down {
        until: Option<Instant>,
    },
    Connecting(Connector<OwnedFd>),
    Up(Link<OwnedFd>),
}

struct Ping<'a> {
    options: &'a Options,
    event_loop: EventLoop,
    signals: Signals,
    reporter: Reporter<'a>,
    payloads: Payloads,
    random: fastrand::Rng,
    way: Way,
    /// The name of the present connection.
    name: u32,
    /// Which of the target's addresses is tried, or used.
    address: usize,
    backoff: Backoff,
    has_been_up: bool,
    /// To be said with the next echo.
    connect_time: Option<Duration>,
    /// Those that are due, and wait for a connection.
    waiting: VecDeque<u64>,
    next_sequence: u64,
    next_at: Instant,
    busy_until: Option<Instant>,
    /// Everything that had come by then has been read. A deadline that passed later is not judged yet: the process may have been stopped for a
    /// while, and the echo waits in the kernel.
    judging_at: Instant,
    /// How many signals have asked for the end: the first has what is on its way still come back, the second does not.
    stops: u32,
    tally: Tally,
}

/// What has been, so far.
struct Tally {
    start: Instant,
    sent: u64,
    received: u64,
    late: u64,
    corrupt: u64,
    round_trips: Histogram<u64>,
    sum_ms: f64,
    sum_of_squares_ms: f64,
}

/// Pings until the count is reached or a SIGINT, SIGTERM or SIGHUP comes, and reports to `out`. A second one of them does not wait for what is
/// on its way. SIGQUIT and SIGUSR1 report the summary so far. A SIGHUP that the process ignores stays ignored (nohup(1)). These signals are
/// blocked in this thread from here on.
///
/// # Errors
/// [`Error::Connect`] when the far end was never reached, [`Error::Report`] when `out` takes nothing, [`Error::System`] for want of
/// anything else.
pub fn run(options: &Options, out: &mut dyn io::Write) -> Result<Summary, Error> {
    let system = |what| move |error| Error::System { what, error };
    let event_loop = EventLoop::new().map_err(system("make an event loop (epoll_create1)"))?;
    let mut signals = vec![Signal::SIGINT, Signal::SIGTERM, Signal::SIGQUIT, Signal::SIGUSR1];
    if !signal::is_ignored(Signal::SIGHUP).map_err(system("ask about a signal (sigaction)"))? {
        signals.push(Signal::SIGHUP);
    }
    let signals = Signals::new(&signals).map_err(system("read signals (signalfd4)"))?;
    event_loop.watch(&signals, SIGNALS, EpollFlags::IN).map_err(system("watch for signals (epoll_ctl)"))?;
    let mut random = fastrand::Rng::new();
    let start = Instant::now();
    let ping = Ping {
        options,
        event_loop,
        signals,
        reporter: Reporter { format: options.format, is_quiet: options.is_quiet, out },
        payloads: Payloads::new(random.u64(..), options.size, options.framing),
        random,
        way: Way::Down { until: None },
        name: FIRST_CONNECTION,
        address: 0,
        backoff: Backoff::default(),
        has_been_up: false,
        connect_time: None,
        waiting: VecDeque::new(),
        next_sequence: 1,
        next_at: start,
        busy_until: None,
        judging_at: start,
        stops: 0,
        tally: Tally {
            start,
            sent: 0,
            received: 0,
            late: 0,
            corrupt: 0,
            round_trips: latencies(),
            sum_ms: 0.0,
            sum_of_squares_ms: 0.0,
        },
    };
    ping.run()
}

impl Ping<'_> {
    fn run(mut self) -> Result<Summary, Error> {
        let mut events = Events::with_capacity(8);
        self.reporter.header(&self.options.target, self.options.size).map_err(Error::Report)?;
        loop {
            self.keep_time()?;
            if self.is_done() {
                break;
            }
            let judging_at = Instant::now();
            let result = match self.wait() {
                Some(duration) => self.event_loop.wait_exactly(&mut events, duration),
                None => self.event_loop.wait(&mut events, Wait::Forever),
            };
            result.map_err(|error| Error::System { what: "wait for events (epoll_wait)", error })?;
            for (token, flags) in events.iter() {
                match token.name::<slotmap::DefaultKey>() {
                    Name::Fixed(0) => self.on_signals()?,
                    Name::Fixed(name) if name == self.name => self.on_event(flags)?,
                    _ => {} // of a connection that has gone
                }
            }
            self.judging_at = judging_at;
        }
        self.give_up_all("it had not come back at the end")?;
        let summary = self.summary();
        self.reporter.summary(&self.options.target, &summary).map_err(Error::Report)?;
        Ok(summary)
    }

    fn summary(&self) -> Summary {
        let tally = &self.tally;
        let count = tally.received as f64;
        let variance = tally.sum_of_squares_ms / count - (tally.sum_ms / count).powi(2);
        let mdev_ms = if tally.received == 0 { 0.0 } else { variance.max(0.0).sqrt() };
        Summary {
            sent: tally.sent,
            received: tally.received,
            late: tally.late,
            corrupt: tally.corrupt,
            elapsed: tally.start.elapsed(),
            round_trips: tally.round_trips.clone(),
            mean: Duration::from_secs_f64(if tally.received == 0 { 0.0 } else { tally.sum_ms / count / 1e3 }),
            mdev: Duration::from_secs_f64(mdev_ms / 1e3),
        }
    }

    fn from(&self) -> SocketAddr {
        self.options.target.addresses()[self.address]
    }

    /// Whether there is still a payload to be sent.
    fn is_more(&self) -> bool {
        self.stops == 0 && self.options.count.is_none_or(|count| self.next_sequence <= count)
    }

    fn is_done(&mut self) -> bool {
        if self.stops > 1 {
            return true;
        }
        if self.is_more() || (self.stops == 0 && !self.waiting.is_empty()) {
            return false;
        }
        // Who is late at the end is not waited for.
        match &mut self.way {
            Way::Up(link) => link.deadline().is_none() && link.awaited().iter().all(|awaited| awaited.is_late),
            _ => true,
        }
    }

    /// How long the next wait may take; without end if nothing is due.
    fn wait(&mut self) -> Option<Duration> {
        let now = Instant::now();
        if self.busy_until.is_some_and(|until| now < until) {
            return Some(Duration::ZERO);
        }
        let is_more = self.is_more();
        let timeout = self.options.timeout;
        let (own, is_idle) = match &mut self.way {
            Way::Down { until } => (*until, true),
            Way::Connecting(connector) => (Some(connector.deadline()), false),
            Way::Up(link) => {
                let gathering = link.deadline();
                let first = link.awaited().iter().find(|awaited| !awaited.is_late).map(|awaited| awaited.sent_at + timeout);
                (gathering.into_iter().chain(first).min(), first.is_none())
            }
        };
        // With no interval the next is sent when none is awaited.
        let next = (is_more && (is_idle || !self.options.interval.is_zero())).then_some(self.next_at);
        own.into_iter().chain(next).min().map(|at| at.saturating_duration_since(now))
    }

    /// Does what is due.
    fn keep_time(&mut self) -> Result<(), Error> {
        let (now, judging_at) = (Instant::now(), self.judging_at);
        let timeout = self.options.timeout;
        match &mut self.way {
            Way::Connecting(connector) if connector.deadline() <= judging_at => {
                let error = connector.time_out();
                self.on_connect_error(error)?;
            }
            Way::Up(link) => {
                let mut news = Vec::new();
                link.on_time(judging_at, &self.payloads, &mut news);
                let is_over = |awaited: &&mut Awaited| !awaited.is_late && awaited.sent_at + timeout <= judging_at;
                let late = link.awaited().iter_mut().filter(is_over);
                let late: Vec<u64> = late
                    .map(|awaited| {
                        awaited.is_late = true;
                        awaited.sequence
                    })
                    .collect();
                for sequence in late {
                    self.reporter.lost(sequence, &format!("not back within {timeout:?}")).map_err(Error::Report)?;
                }
                self.on_news(news)?;
            }
            _ => {}
        }
        let is_idle = match &mut self.way {
            Way::Up(link) => link.awaited().iter().all(|awaited| awaited.is_late),
            Way::Down { .. } => true,
            Way::Connecting(_) => false,
        };
        if self.is_more() && self.next_at <= now && (is_idle || !self.options.interval.is_zero()) {
            self.waiting.push_back(self.next_sequence);
            self.next_sequence += 1;
            self.tally.sent += 1;
            // Who was stopped for a while does not make up for it.
            self.next_at = (self.next_at + self.options.interval).max(now);
        }
        match &self.way {
            Way::Down { until } if !self.waiting.is_empty() && until.is_none_or(|until| until <= now) => self.connect(),
            Way::Up(_) => self.send_waiting(),
            _ => Ok(()),
        }
    }

    fn connect(&mut self) -> Result<(), Error> {
        let start = Instant::now();
        let stream = match dial(&self.from(), None) {
            Ok(stream) => stream,
            Err(error) => return self.on_connect_error(error),
        };
        self.name += 1;
        self.event_loop
            .watch(&stream, Token::fixed(self.name), connector::INTEREST)
            .map_err(|error| Error::System { what: "watch the connection (epoll_ctl)", error })?;
        let handshake = self.options.handshake.then(|| Handshake::new(&mut self.random, self.options.framing));
        self.way = Way::Connecting(Connector::new(stream, handshake, self.options.connect, start));
        Ok(())
    }

    fn on_connect_error(&mut self, error: ConnectError) -> Result<(), Error> {
        self.way = Way::Down { until: None };
        let is_last = self.address + 1 == self.options.target.addresses().len();
        if !self.has_been_up && !is_last {
            let notice = format!("{}: {error}; trying the next address", self.from());
            self.reporter.notice(&notice).map_err(Error::Report)?;
            self.address += 1;
            self.way = Way::Down { until: Some(Instant::now()) };
            return Ok(());
        }
        if !self.has_been_up {
            if matches!(error, ConnectError::Refused) && self.backoff.attempts() < self.options.retry {
                let pause = self.backoff.pause(&mut self.random);
                let notice = format!("{}: {error}; trying again in {} ms", self.from(), pause.as_millis());
                self.reporter.notice(&notice).map_err(Error::Report)?;
                self.address = 0;
                self.way = Way::Down { until: Some(Instant::now() + pause) };
                return Ok(());
            }
            return Err(Error::Connect { target: self.options.target.to_string(), error });
        }
        self.give_up_all(&error.to_string())
    }

    fn on_event(&mut self, flags: EpollFlags) -> Result<(), Error> {
        match &mut self.way {
            Way::Down { .. } => Ok(()),
            Way::Connecting(connector) => match connector.on_event(flags, Instant::now()) {
                Step::Waiting => Ok(()),
                Step::Failed(error) => self.on_connect_error(error),
                Step::Connected => {
                    self.connect_time = Some(connector.connect_time());
                    self.has_been_up = true;
                    self.on_connected()
                }
            },
            Way::Up(link) => {
                let mut news = Vec::new();
                link.on_event(flags, &self.payloads, &mut news);
                self.on_news(news)
            }
        }
    }

    fn on_connected(&mut self) -> Result<(), Error> {
        let Way::Connecting(connector) = std::mem::replace(&mut self.way, Way::Down { until: None }) else { return Ok(()) };
        let (stream, is_ended) = connector.into_stream();
        let first = self.waiting.front().copied().unwrap_or(self.next_sequence);
        let mut link = Link::new(stream, first);
        let mut news = Vec::new();
        if is_ended {
            link.on_event(EpollFlags::IN, &self.payloads, &mut news);
        }
        self.way = Way::Up(link);
        self.on_news(news)?;
        self.send_waiting()
    }

    fn send_waiting(&mut self) -> Result<(), Error> {
        // What is sent while it is being found out what went wrong would be lost with the connection.
        while let Way::Up(link) = &mut self.way
            && link.deadline().is_none()
            && let Some(sequence) = self.waiting.pop_front()
        {
            if !self.options.busy_poll.is_zero() {
                self.busy_until = Some(Instant::now() + self.options.busy_poll);
            }
            let payload = self.payloads.make(sequence);
            if let Err(error) = link.send(sequence, &payload) {
                self.on_news(vec![News::Failed(error)])?;
            }
        }
        Ok(())
    }

    fn on_news(&mut self, news: Vec<News>) -> Result<(), Error> {
        for news in news {
            match news {
                News::Returned(awaited, at) => self.on_returned(awaited, at)?,
                News::Corrupt { sequence, offset, corruption, is_in_step } => {
                    self.tally.corrupt += 1;
                    let reason = corruption.to_string();
                    self.reporter.corrupt(sequence, offset, corruption.name(), &reason).map_err(Error::Report)?;
                    if !is_in_step {
                        if let Way::Up(link) = &mut self.way {
                            // That one is accounted for; those behind it cannot be told apart any longer.
                            link.awaited().retain(|awaited| awaited.sequence != sequence);
                        }
                        self.give_up("what came before it was corrupt")?;
                    }
                }
                News::Closed => self.give_up("the peer closed the connection")?,
                News::Failed(error) => self.give_up(&format!("the connection was lost: {error}"))?,
            }
        }
        Ok(())
    }

    fn on_returned(&mut self, awaited: Awaited, at: Instant) -> Result<(), Error> {
        let time = at - awaited.sent_at;
        let millis = time.as_secs_f64() * 1e3;
        let tally = &mut self.tally;
        tally.received += 1;
        tally.late += u64::from(awaited.is_late);
        tally.round_trips.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        tally.sum_ms += millis;
        tally.sum_of_squares_ms += millis * millis;
        self.busy_until = None;
        if self.options.interval.is_zero() {
            self.next_at = at;
        }
        let (from, connect_time) = (self.from(), self.connect_time.take());
        self.reporter
            .echo(from, self.options.size, awaited.sequence, time, connect_time, awaited.is_late)
            .map_err(Error::Report)
    }

    /// Drops the connection, and gives up those that wait for one.
    fn give_up_all(&mut self, reason: &str) -> Result<(), Error> {
        self.give_up(reason)?;
        while let Some(sequence) = self.waiting.pop_front() {
            self.reporter.lost(sequence, reason).map_err(Error::Report)?;
        }
        Ok(())
    }

    /// Drops the connection, if there is one. What is awaited is lost; what waits to be sent, or is due next, makes a new one.
    fn give_up(&mut self, reason: &str) -> Result<(), Error> {
        self.busy_until = None;
        if let Way::Up(mut link) = std::mem::replace(&mut self.way, Way::Down { until: None }) {
            for awaited in link.awaited().iter().filter(|awaited| !awaited.is_late) {
                self.reporter.lost(awaited.sequence, reason).map_err(Error::Report)?;
            }
        }
        Ok(())
    }

    fn on_signals(&mut self) -> Result<(), Error> {
        let system = |error| Error::System { what: "read a signal (read)", error };
        while let Some(number) = self.signals.next().map_err(system)? {
            if number == Signal::SIGQUIT as i32 || number == Signal::SIGUSR1 as i32 {
                let summary = self.summary();
                self.reporter.summary(&self.options.target, &summary).map_err(Error::Report)?;
            } else {
                self.stops += 1;
            }
        }
        Ok(())
    }
}
