//! The loop of a ping: do what is due, wait, handle the events.

use std::io;
use std::time::{Duration, Instant};

use super::error::Error;
use super::link::{Awaited, Finding};
use super::options::Options;
use super::pace::Pace;
use super::payload::Payloads;
use super::report::Reporter;
use super::route::{Failure, Route, Way};
use super::summary::{Summary, Tally};
use crate::client::connect::{ConnectError, Step};
use crate::event::{EventLoop, Events, Name, Signals, Token, Wait};
use crate::sys::epoll::EpollFlags;
use crate::sys::signal::{self, Signal};

const SIGNALS: Token = Token::fixed(0);

struct Ping<'a> {
    options: &'a Options,
    event_loop: EventLoop,
    signals: Signals,
    reporter: Reporter<'a>,
    payloads: Payloads,
    random: fastrand::Rng,
    route: Route<'a>,
    pace: Pace,
    tally: Tally,
    busy_until: Option<Instant>,
    /// All bytes that had come by this time were read. A later deadline is not judged yet: the process may have been stopped for a
    /// while, and the echo waits in the kernel.
    judging_at: Instant,
    /// The number of signals that asked for the end. After the first, echoes are still awaited; the second ends at once.
    stops: u32,
}

/// Pings until the count is reached or SIGINT, SIGTERM or SIGHUP arrives, and reports to `out`. A second such signal ends without
/// waiting for echoes. SIGQUIT and SIGUSR1 report the summary so far. An ignored SIGHUP stays ignored (nohup(1)). These signals stay
/// blocked in this thread.
///
/// # Errors
/// [`Error::Connect`] if the far end was never reached, [`Error::Report`] if `out` fails, [`Error::System`] if a system call fails
/// that the ping cannot do without.
pub fn run(options: &Options, out: &mut dyn io::Write) -> Result<Summary, Error> {
    let event_loop = EventLoop::new().map_err(Error::system("create an event loop (epoll_create1)"))?;
    let mut signals = vec![Signal::SIGINT, Signal::SIGTERM, Signal::SIGQUIT, Signal::SIGUSR1];
    if !signal::is_ignored(Signal::SIGHUP).map_err(Error::system("query a signal (sigaction)"))? {
        signals.push(Signal::SIGHUP);
    }
    let signals = Signals::new(&signals).map_err(Error::system("read signals (signalfd4)"))?;
    event_loop.watch(&signals, SIGNALS, EpollFlags::IN).map_err(Error::system("watch for signals (epoll_ctl)"))?;
    let mut random = fastrand::Rng::new();
    let start = Instant::now();
    let ping = Ping {
        options,
        event_loop,
        signals,
        reporter: Reporter { format: options.format, is_quiet: options.is_quiet, out },
        payloads: Payloads::new(random.u64(..), options.size, options.framing),
        random,
        route: Route::new(options),
        pace: Pace::new(options.interval, options.count, start),
        tally: Tally::new(start),
        busy_until: None,
        judging_at: start,
        stops: 0,
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
            match self.wait_time() {
                Some(duration) => self.event_loop.wait_exactly(&mut events, duration),
                None => self.event_loop.wait(&mut events, Wait::Forever),
            }
            .map_err(Error::system("wait for events (epoll_wait)"))?;
            for (token, flags) in events.iter() {
                match token.name::<slotmap::DefaultKey>() {
                    Name::Fixed(0) => self.on_signals()?,
                    Name::Fixed(name) if self.route.is_named(name) => self.on_event(flags)?,
                    _ => {} // a late event for an old connection
                }
            }
            self.judging_at = judging_at;
        }
        self.give_up_all("it had not come back at the end")?;
        self.report_summary(false)
    }

    fn report_summary(&mut self, is_interim: bool) -> Result<Summary, Error> {
        let summary = self.tally.summary();
        self.reporter.summary(&self.options.target, &summary, is_interim).map_err(Error::Report)?;
        Ok(summary)
    }

    fn has_more(&self) -> bool {
        self.stops == 0 && self.pace.has_more()
    }

    fn is_done(&mut self) -> bool {
        if self.stops > 1 {
            return true;
        }
        if self.has_more() || (self.stops == 0 && self.pace.is_waiting()) {
            return false;
        }
        // At the end, late echoes are not awaited.
        self.route.link().is_none_or(|link| !link.is_gathering() && link.first_in_time().is_none())
    }

    /// Returns how long the next wait may take, or `None` if nothing is due.
    fn wait_time(&self) -> Option<Duration> {
        let now = Instant::now();
        if self.busy_until.is_some_and(|until| now < until) {
            return Some(Duration::ZERO);
        }
        let next = self.pace.next_at(self.route.is_idle()).filter(|_| self.stops == 0);
        let deadline = self.route.deadline(self.options.timeout);
        deadline.into_iter().chain(next).min().map(|at| at.saturating_duration_since(now))
    }

    /// Does what is due.
    fn keep_time(&mut self) -> Result<(), Error> {
        let (now, judging_at) = (Instant::now(), self.judging_at);
        match self.route.way() {
            Way::Connecting(connector) if connector.deadline() <= judging_at => {
                let error = connector.time_out();
                self.on_connect_error(error)?;
            }
            Way::Up(link) => {
                let findings = link.on_time(judging_at, &self.payloads);
                let timeout = self.options.timeout;
                let late = judging_at.checked_sub(timeout).map(|sent_by| link.mark_late(sent_by)).unwrap_or_default();
                for sequence in late {
                    self.reporter.lost(sequence, &format!("not back within {timeout:?}")).map_err(Error::Report)?;
                }
                self.on_findings(findings)?;
            }
            Way::Connecting(_) | Way::Down { .. } => {}
        }
        if self.stops == 0 && self.pace.issue(now, self.route.is_idle()) {
            self.tally.sent();
        }
        if self.pace.is_waiting() && self.route.may_connect(now) {
            return match self.route.connect(&self.event_loop, &mut self.random)? {
                Ok(()) => Ok(()),
                Err(error) => self.on_connect_error(error),
            };
        }
        self.send_waiting()
    }

    fn on_connect_error(&mut self, error: ConnectError) -> Result<(), Error> {
        let from = self.route.address();
        let notice = match self.route.on_connect_error(&error, &mut self.random) {
            Failure::NextAddress => format!("{from}: {error}; trying the next address"),
            Failure::Retry(pause) => format!("{from}: {error}; trying again in {} ms", pause.as_millis()),
            Failure::Unreachable => {
                return Err(Error::Connect { target: self.options.target.to_string(), error });
            }
            Failure::Lost => return self.give_up_all(&error.to_string()),
        };
        self.reporter.notice(&notice).map_err(Error::Report)
    }

    fn on_event(&mut self, flags: EpollFlags) -> Result<(), Error> {
        match self.route.way() {
            Way::Down { .. } => Ok(()),
            Way::Connecting(connector) => match connector.on_event(flags, Instant::now()) {
                Step::Waiting => Ok(()),
                Step::Failed(error) => self.on_connect_error(error),
                Step::Connected => self.on_connected(),
            },
            Way::Up(link) => {
                let findings = link.on_event(flags, &self.payloads);
                self.on_findings(findings)
            }
        }
    }

    fn on_connected(&mut self) -> Result<(), Error> {
        if self.route.on_connected(self.pace.first_waiting()) {
            // The far end may have closed already, and epoll has reported that.
            let findings = self.route.link().map(|link| link.advance(&self.payloads));
            self.on_findings(findings.unwrap_or_default())?;
        }
        self.send_waiting()
    }

    fn send_waiting(&mut self) -> Result<(), Error> {
        // While evidence is gathered, nothing is sent: it could be lost with the connection.
        while let Some(link) = self.route.link()
            && !link.is_gathering()
            && let Some(sequence) = self.pace.take_waiting()
        {
            if !self.options.busy_poll.is_zero() {
                self.busy_until = Some(Instant::now() + self.options.busy_poll);
            }
            if let Err(error) = link.send(sequence, &self.payloads.make(sequence)) {
                self.on_findings(vec![Finding::Failed(error)])?;
            }
        }
        Ok(())
    }

    fn on_findings(&mut self, findings: Vec<Finding>) -> Result<(), Error> {
        for finding in findings {
            match finding {
                Finding::Returned(awaited, at) => self.on_returned(awaited, at)?,
                Finding::Corrupt { sequence, offset, corruption, is_in_step } => {
                    self.tally.corrupt();
                    let (cause, reason) = (corruption.name(), corruption.to_string());
                    self.reporter.corrupt(sequence, offset, cause, &reason).map_err(Error::Report)?;
                    if !is_in_step {
                        if let Some(link) = self.route.link() {
                            link.forget(sequence); // it was reported; those after it cannot be told apart any more
                        }
                        self.give_up("the echo before it was corrupt")?;
                    }
                }
                Finding::Closed => self.give_up("the peer closed the connection")?,
                Finding::Failed(error) => self.give_up(&format!("the connection was lost: {error}"))?,
            }
        }
        Ok(())
    }

    fn on_returned(&mut self, awaited: Awaited, at: Instant) -> Result<(), Error> {
        let Awaited { sequence, sent_at, is_late } = awaited;
        let round_trip = at - sent_at;
        self.tally.received(round_trip, is_late);
        self.busy_until = None;
        self.pace.on_echo(at);
        let (from, connect_time) = (self.route.address(), self.route.take_connect_time());
        self.reporter.echo(from, self.options.size, sequence, round_trip, connect_time, is_late).map_err(Error::Report)
    }

    /// Drops the connection, and gives up the payloads that wait for one.
    fn give_up_all(&mut self, reason: &str) -> Result<(), Error> {
        self.give_up(reason)?;
        while let Some(sequence) = self.pace.take_waiting() {
            self.reporter.lost(sequence, reason).map_err(Error::Report)?;
        }
        Ok(())
    }

    /// Drops the connection, if any, and reports the awaited echoes as lost. The next payload makes a new connection.
    fn give_up(&mut self, reason: &str) -> Result<(), Error> {
        self.busy_until = None;
        if let Way::Up(link) = self.route.take() {
            for awaited in link.awaited().filter(|awaited| !awaited.is_late) {
                self.reporter.lost(awaited.sequence, reason).map_err(Error::Report)?;
            }
        }
        Ok(())
    }

    fn on_signals(&mut self) -> Result<(), Error> {
        while let Some(number) = self.signals.next().map_err(Error::system("read a signal (read)"))? {
            if number == Signal::SIGQUIT as i32 || number == Signal::SIGUSR1 as i32 {
                self.report_summary(true)?;
            } else {
                self.stops += 1;
            }
        }
        Ok(())
    }
}
