//! One thread of a flood: its connections on one event loop.
//!
//! A [`Worker`] runs the loop. Each connection is the business of its slot, from connect(2) to the end. A slot returns what the worker
//! has to do for it next.

mod context;
mod housekeeping;
mod run;
mod slot;
mod slots;
mod timeline;
mod timer;

pub(super) use run::Worker;
