//! The integration tests: one program, with a module per subject.
//!
//! A test that needs a process of its own, with its own limits, signals or descriptors, starts one: `support` and `strace`.

#![allow(unreachable_pub, reason = "a test program has no API")]

mod abi;
mod admin;
mod c_reference;
mod cli;
mod cli_values;
mod drain;
mod drain_delay;
mod echo;
mod examples;
mod faults;
mod flood;
mod library;
mod limits;
mod liveness;
mod logging;
mod ping;
mod privileges;
mod protocols;
mod proxy;
mod sandbox;
mod schedules;
mod send_proxy;
mod server_schedules;

// Shared by several subjects
mod faulty;
mod process_1;
mod schema;
mod scratch;
mod simulation;
mod strace;
mod support;
