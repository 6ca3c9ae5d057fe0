//! The reports of a flood: a table for people, JSON for programs, a log for HdrHistogram's tools.

mod assertion;
mod describe;
mod histogram;
mod interim;
mod json;
mod log;
mod text;

pub use assertion::{Assertion, AssertionError, Verdict};
pub use describe::{describe, millis};
pub use interim::write as write_interim;
pub use json::write as write_json;
pub use log::{HdrLog, HdrLogFile};
pub use text::{write as write_text, write_summary};
