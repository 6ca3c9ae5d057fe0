//! The whole server in a simulated world: its clock, its peers and their kernels, and the rules by which both are judged.
#![allow(missing_docs, unreachable_pub, reason = "not part of the crate")]

mod calls;
mod head;
mod kernel;
mod maker;
mod moments;
mod newcomers;
mod plan;
mod protocols;
mod rules;
mod socket;
mod world;

use std::cell::RefCell;
use std::fmt::Write;
use std::rc::Rc;
use std::sync::Once;
use std::time::Instant;

use edgecho::protocol::{Echo, Protocol};
use edgecho::server::{Reason, Server, Summary};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, span};

use kernel::{Scripted, number_of};
use plan::LISTENERS;
pub use plan::{Act, Kind, Plan, Step};
use protocols::{Alarms, Hoard};
use world::CURRENT;
pub use world::{MOST_BYTES_AN_EVENT, MOST_LEFTOVER_BYTES, World};

/// Listens to the server's log for why a connection was closed.
struct Listener;

/// The fields of a log line.
#[derive(Default)]
struct Fields {
    message: String,
    peer: String,
    via: String,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let text = match field.name() {
            "message" => &mut self.message,
            "peer" => &mut self.peer,
            "via" => &mut self.via,
            _ => return,
        };
        write!(text, "{value:?}").expect("memory");
    }
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::DEBUG && metadata.target().starts_with("edgecho::server")
    }

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let why = fields.message.strip_prefix("closed: ");
        if why.is_none() && fields.message != "opened" {
            return;
        }
        let Some(world) = CURRENT.take() else { return };
        let peer = fields.peer.parse().expect("the address of a peer");
        let number = number_of(peer);
        match why {
            None => world.borrow_mut().opened(number, peer, fields.via.parse().ok()),
            Some(why) => {
                let reason = Reason::ALL.iter().copied().find(|reason| why.starts_with(&reason.to_string()));
                world.borrow_mut().closed(number, peer, reason.unwrap_or(Reason::Reset));
            }
        }
        CURRENT.set(Some(world));
    }

    fn new_span(&self, _span: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _span: &span::Id, _values: &span::Record<'_>) {}
    fn record_follows_from(&self, _span: &span::Id, _follows: &span::Id) {}
    fn enter(&self, _span: &span::Id) {}
    fn exit(&self, _span: &span::Id) {}
}

fn run<P: Protocol>(protocol: P, plan: &Plan, world: &Rc<RefCell<World>>) -> Summary {
    let kernel = Scripted(Rc::clone(world));
    let inherited: Vec<_> = kernel.listeners(0..plan.inherited).collect();
    let listeners: Vec<_> = kernel.listeners(plan.inherited..LISTENERS).collect();
    let server = Server::on_kernel(protocol, &plan.config, kernel, inherited, listeners).expect("a good configuration");
    server.run().expect("no fault here ends it")
}

/// Plays one schedule, from the first connection to the end of the drain.
pub fn play(plan: &Plan, is_traced: bool) -> (Summary, Rc<RefCell<World>>) {
    static LISTENING: Once = Once::new();
    LISTENING.call_once(|| tracing::subscriber::set_global_default(Listener).expect("nobody else listens"));

    let mut world = World::new(plan, Instant::now());
    world.trace = is_traced.then(Vec::new);
    let world = Rc::new(RefCell::new(world));
    CURRENT.set(Some(Rc::clone(&world)));
    let trace = Trace(Rc::clone(&world));
    let summary = match &plan.kind {
        Kind::Echo => run(Echo, plan, &world),
        Kind::Alarms { own, server } => {
            run(Alarms { world: Rc::clone(&world), own: own.clone(), server: server.clone() }, plan, &world)
        }
        &Kind::Hoard { most_bytes, every } => {
            let hoard = Hoard { world: Rc::clone(&world), most_bytes, every, taken_bytes: 0, waiting: Vec::new() };
            run(hoard, plan, &world)
        }
    };
    drop(trace);
    CURRENT.set(None);
    {
        let world = world.borrow();
        world.check_end();
        let closed = world.sockets.iter().filter(|socket| socket.is_closed).count();
        assert_eq!(summary.statistics.accepted, closed as u64, "accepted");
    }
    (summary, world)
}

/// Prints what has happened, if that is wanted.
struct Trace(Rc<RefCell<World>>);

impl Drop for Trace {
    fn drop(&mut self) {
        if let Ok(world) = self.0.try_borrow()
            && let Some(trace) = &world.trace
        {
            trace.iter().for_each(|line| eprintln!("{line}"));
        }
    }
}
