//! The endpoint as a protocol of our own server: answers requests, and asks the service for its statistics without waiting for it.

use std::cell::OnceCell;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tracing::warn;

use super::inbox::{Inbox, Letter, Outlet};
use super::metrics::{self, Sources};
use super::page;
use super::process::Process;
use super::request::{Format, Heads, Request, Resource, Wanted};
use super::response::{After, PLAIN, Response, Status};
use crate::protocol::{Background, Post, Protocol, Reply, SessionId, Timer};
use crate::server::{Handle, PostError, Stage, Statistics};
use crate::sys::epoll::EpollFlags;

/// Open connections, if the limit on descriptors allows as many.
pub(super) const MAX_CONNECTIONS: usize = 512;

/// The time in which the loop of the service must answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// The time in which the head of a request must be whole.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// The time in which a connection that was answered must ask again.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// The age from which on an answer is the last one of its connection: before the server's own limit could cut into a request.
const LAST_ANSWER_AGE: Duration = Duration::from_secs(10 * 60);

/// The time that a connection has for its request, and between two requests, while there are many.
const GRACE: Duration = Duration::from_secs(1);

/// The share of the connections from which on there are many: each new one then cuts off the one that has asked for nothing for the longest
/// time, if that is more than [`GRACE`].
const MANY: (usize, usize) = (1, 8);

/// The share from which on a new connection always cuts off another one. So there is always room for a new one, however many peers send
/// nothing or take nothing: a health check does not wait for them.
const TOO_MANY: (usize, usize) = (3, 4);

/// The timer of the loop of the service.
const ANSWER: u32 = 0;
/// The timer of a head, or of a connection that asks for nothing.
const REQUEST: u32 = 1;

/// The endpoint.
pub(super) struct Endpoint {
    service: Handle,
    outlet: Outlet,
    inbox: Inbox,
    /// The handle of the endpoint's own server, which exists only after the endpoint.
    own: Rc<OnceCell<Handle>>,
    process: Option<Process>,
    statistics: Question<Statistics>,
    stage: Question<Stage>,
    max_connections: usize,
    clients: Vec<Client>,
    responses: [u64; Status::ALL.len()],
}

/// A question to the service. It is asked once at a time, for all clients that wait.
#[derive(Default)]
struct Question<A> {
    /// The number of times that it was asked.
    asked: u64,
    /// The number of times that it was answered.
    answered: u64,
    answer: A,
}

impl<A> Question<A> {
    /// Returns the number of the answer that a request needs that has just come: an answer is never older than its request. Asks with `ask`,
    /// which is passed this number, unless the service owes an answer. Returns none if the service has ended.
    fn ask(&mut self, ask: impl FnOnce(u64) -> Result<(), PostError>) -> Option<u64> {
        let next = self.asked + 1;
        if self.asked == self.answered {
            ask(next).ok()?;
            self.asked = next;
        }
        Some(next)
    }

    /// Returns whether an answer is there, or a later one.
    fn has(&self, number: u64) -> bool {
        self.answered >= number
    }

    fn set(&mut self, number: u64, answer: A) {
        (self.answered, self.answer) = (number, answer);
    }
}

/// A connection, as far as others must know of it.
struct Client {
    id: SessionId,
    /// The last answer, the request that waits, or the start.
    since: Instant,
    is_waiting: bool,
}

/// A connection.
pub(super) struct Session {
    heads: Heads,
    opened: Instant,
    waiting: Option<Waiting>,
    /// The first byte of the next input was taken before. Input that is left keeps the connection open if the client has sent its FIN.
    holds_byte: bool,
    is_over: bool,
}

/// A request that waits for the service.
#[derive(Clone, Copy)]
struct Waiting {
    request: Request,
    resource: Resource,
    /// The number of the answer that it needs.
    number: u64,
}

impl Endpoint {
    /// Returns an endpoint for up to `max_connections` connections.
    pub(super) fn new(
        service: Handle,
        outlet: Outlet,
        inbox: Inbox,
        own: Rc<OnceCell<Handle>>,
        max_connections: usize,
    ) -> Self {
        let process = Process::open();
        if let Err(error) = &process {
            warn!("cannot read /proc/self (open): {error}; the metrics process_* are missing");
        }
        Self {
            service,
            outlet,
            inbox,
            own,
            process: process.ok(),
            statistics: Question::default(),
            stage: Question::default(),
            max_connections,
            clients: Vec::new(),
            responses: [0; Status::ALL.len()],
        }
    }

    /// Asks the service for what a resource needs. Returns the number of the answer, or none if the service has ended.
    fn ask(&mut self, resource: Resource) -> Option<u64> {
        let (service, outlet) = (&self.service, self.outlet.clone());
        match resource {
            Resource::Metrics(_) => self.statistics.ask(|number| {
                service.request_statistics(move |answer| outlet.send(Letter::Statistics(number, Box::new(answer))))
            }),
            // At the same cost for the loop with a million connections.
            _ => self.stage.ask(|number| service.request_stage(move |answer| outlet.send(Letter::Stage(number, answer)))),
        }
    }

    /// Returns whether the service has given an answer that a resource needs.
    fn has_answer(&self, resource: Resource, number: u64) -> bool {
        match resource {
            Resource::Metrics(_) => self.statistics.has(number),
            _ => self.stage.has(number),
        }
    }

    /// Takes a request. Returns whether it was answered; otherwise it waits for the service.
    fn take(&mut self, session: &mut Session, request: Request, reply: &mut impl Reply) -> bool {
        match request.wanted {
            Wanted::Resource(Resource::Page) => self.send(session, &request, &page::RESPONSE, reply),
            Wanted::Methods => self.send(session, &request, &Response::plain(Status::NoContent, b""), reply),
            Wanted::Error(status) => {
                let text = format!("{}\n", status.line().1);
                self.send(session, &request, &Response::plain(status, text.as_bytes()), reply);
            }
            Wanted::Resource(resource) => {
                if let Some(number) = self.ask(resource) {
                    session.waiting = Some(Waiting { request, resource, number });
                    self.note(reply.id(), true);
                    reply.set_timer(Timer::once(ANSWER, PATIENCE));
                    return false;
                }
                self.send(session, &request, &Response::plain(Status::Unavailable, b"the server has ended\n"), reply);
            }
        }
        true
    }

    /// Answers the request that waits, if the service has answered. Returns false if it still waits.
    fn finish_waiting(&mut self, session: &mut Session, reply: &mut impl Reply) -> bool {
        let Some(Waiting { request, resource, number }) = session.waiting else { return true };
        if !self.has_answer(resource, number) {
            // Asks again, if this request came while the service owed an answer to an earlier one.
            if self.ask(resource).is_none() {
                return self.give_up(session, "the server has ended\n", reply);
            }
            return false;
        }
        session.waiting = None;
        reply.cancel_timer(ANSWER);
        let body;
        let response = match resource {
            Resource::Metrics(format) => {
                let process = self.process.as_ref().and_then(|process| process.read().ok());
                let sources = Sources { statistics: &self.statistics.answer, responses: &self.responses, process };
                body = metrics::render(format, &sources);
                let content_type = match format {
                    Format::Text => "text/plain; version=0.0.4; charset=utf-8",
                    Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
                };
                Response { status: Status::Ok, content_type, fields: "Vary: Accept\r\n", body: body.as_bytes() }
            }
            Resource::Ready => {
                let stage = self.stage.answer;
                body = format!("{}\n", stage.name());
                let status = if stage == Stage::Serving { Status::Ok } else { Status::Unavailable };
                Response { status, content_type: PLAIN, fields: "", body: body.as_bytes() }
            }
            _ => Response::plain(Status::Ok, b"ok\n"),
        };
        self.send(session, &request, &response, reply);
        true
    }

    /// Answers the request that waits with 503.
    fn give_up(&mut self, session: &mut Session, reason: &str, reply: &mut impl Reply) -> bool {
        if let Some(Waiting { request, .. }) = session.waiting.take() {
            self.send(session, &request, &Response::plain(Status::Unavailable, reason.as_bytes()), reply);
        }
        true
    }

    /// Sends an answer.
    fn send(&mut self, session: &mut Session, request: &Request, response: &Response<'_>, reply: &mut impl Reply) {
        let after = if request.is_last || session.opened.elapsed() > LAST_ANSWER_AGE {
            After::Closed
        } else if request.is_kept_alive {
            After::KeptAlive
        } else {
            After::Open
        };
        let mut answer = Vec::with_capacity(response.body.len() + 512);
        response.write(request.is_head, after, &mut answer);
        reply.send_owned(answer);
        self.responses[response.status as usize] += 1;
        self.note(reply.id(), false);
        if after == After::Closed {
            session.is_over = true;
            reply.close();
        } else {
            reply.set_timer(Timer::once(REQUEST, IDLE_TIMEOUT));
        }
    }

    /// Returns the index of the client that a new one takes the place of, if there are many.
    fn victim(&self, now: Instant) -> Option<usize> {
        let is_above = |(share, of): (usize, usize)| self.clients.len() >= (self.max_connections * share / of).max(1);
        if !is_above(MANY) {
            return None;
        }
        let clients = self.clients.iter().enumerate();
        let (index, client) = clients.min_by_key(|(_, client)| (client.is_waiting, client.since))?;
        let is_quiet = !client.is_waiting && now.duration_since(client.since) > GRACE;
        (is_quiet || is_above(TOO_MANY)).then_some(index)
    }

    /// Notes that a client waits for the service, or has been answered.
    fn note(&mut self, id: SessionId, is_waiting: bool) {
        if let Some(client) = self.clients.iter_mut().find(|client| client.id == id) {
            (client.is_waiting, client.since) = (is_waiting, Instant::now());
        }
    }
}

impl Protocol for Endpoint {
    type Session = Session;

    fn open(&mut self, reply: &mut impl Reply) -> Session {
        let now = Instant::now();
        if let Some(index) = self.victim(now) {
            reply.post().cut(self.clients.swap_remove(index).id);
        }
        self.clients.push(Client { id: reply.id(), since: now, is_waiting: false });
        reply.set_timer(Timer::once(REQUEST, HEAD_TIMEOUT));
        Session { heads: Heads::default(), opened: now, waiting: None, holds_byte: false, is_over: false }
    }

    fn receive(&mut self, session: &mut Session, input: &[u8], reply: &mut impl Reply) {
        if !self.finish_waiting(session, reply) {
            return reply.leave(input.len());
        }
        let mut rest = &input[usize::from(std::mem::take(&mut session.holds_byte))..];
        // One answer at a time: a client that does not read is not answered.
        while !rest.is_empty() && !session.is_over && reply.pending_bytes() == 0 {
            let was_incomplete = session.heads.is_incomplete();
            let (taken, request) = session.heads.take(rest);
            if let Some(request) = request
                && !self.take(session, request, reply)
            {
                session.holds_byte = true;
                return reply.leave(rest.len() - taken + 1);
            }
            rest = &rest[taken..];
            if !was_incomplete && session.heads.is_incomplete() {
                reply.set_timer(Timer::once(REQUEST, HEAD_TIMEOUT));
            }
        }
        reply.leave(rest.len());
    }

    fn finish(&mut self, session: &mut Session, reply: &mut impl Reply) {
        if session.heads.is_incomplete() {
            let request = session.heads.refuse(Status::BadRequest);
            self.take(session, request, reply);
        }
    }

    fn on_timer(&mut self, session: &mut Session, timer: u32, reply: &mut impl Reply) {
        match timer {
            ANSWER => {
                self.give_up(session, "the event loop has not answered for a second\n", reply);
                let id = reply.id();
                reply.post().resume(id); // to the input that was left
            }
            _ if session.waiting.is_some() => {}
            _ if session.heads.is_incomplete() => {
                let request = session.heads.refuse(Status::RequestTimeout);
                self.take(session, request, reply);
            }
            _ => reply.close(), // it has asked for nothing
        }
    }

    fn close(&mut self, _session: Session, id: SessionId, _post: &mut Post) {
        self.clients.retain(|client| client.id != id);
    }

    fn held_bytes(&self, session: &Session) -> usize {
        session.heads.kept_bytes()
    }

    fn background(&mut self) -> Option<&mut dyn Background> {
        Some(self)
    }
}

impl Background for Endpoint {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.inbox.descriptor())
    }

    fn on_event(&mut self, _flags: EpollFlags, post: &mut Post) {
        self.inbox.on_event();
        while let Some(letter) = self.inbox.next() {
            match letter {
                Letter::Statistics(number, statistics) => self.statistics.set(number, *statistics),
                Letter::Stage(number, stage) => self.stage.set(number, stage),
                Letter::Stop => {
                    if let Some(own) = self.own.get() {
                        own.stop();
                    }
                }
            }
        }
        for client in self.clients.iter().filter(|client| client.is_waiting) {
            post.resume(client.id);
        }
    }
}
