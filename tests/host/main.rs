//! Tests with the programs of a host: systemd, HAProxy, nginx, Prometheus, a browser, and shells.
//!
//! `cargo test --features host-tests --test host` runs them. A test whose program is not installed is skipped and says so; in CI it fails.

#![allow(unreachable_pub, reason = "a test program has no API")]
#![allow(dead_code, unused_imports, reason = "support is shared with the other tests")]

mod addresses;
mod browser;
mod container;
mod haproxy;
mod malformed;
mod man_pages;
mod nginx;
mod prometheus;
mod proxy;
mod replacements;
mod send_proxy;
mod shells;
mod systemd;
mod tools;

// Shared with the other tests
#[path = "../it/proxy/headers.rs"]
mod headers;
#[path = "../it/process_1.rs"]
mod process_1;
#[path = "../it/scratch.rs"]
mod scratch;
#[path = "../it/support/mod.rs"]
mod support;
