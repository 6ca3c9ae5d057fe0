//! The integration tests, one module per subject, in one program: the program is linked once.

#![allow(missing_docs, reason = "not part of the crate")]

mod abi;
mod c_reference;
mod cli;
mod drain;
mod echo;
mod examples;
mod faults;
mod flood;
mod library;
mod limits;
mod liveness;
mod logging;
mod ping;
mod protocols;
mod schedules;
mod server_schedules;
mod simulation;
mod support;
