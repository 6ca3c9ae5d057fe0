//! `edgecho flood`: a load over many connections that accounts for every byte.
//!
//! Each thread has its own connections, event loop and descriptor table; no thread waits for another. The thread that calls [`run()`]
//! takes no part in the traffic. It starts the others together, collects what they count, and reports the progress.

mod conversation;
mod counts;
mod error;
mod in_flight;
mod observer;
mod options;
mod outcome;
mod pauses;
pub mod report;
mod run;
mod samples;
mod schedule;
mod shared;
mod sizes;
mod supervisor;
mod tally;
mod troubles;
mod worker;

pub use counts::Counts;
pub use error::Error;
pub use observer::{Interval, Observer, Progress};
pub use options::{Load, Options, OptionsError, Verify};
pub use outcome::{ClientCpu, Outcome};
pub use run::run;
pub use samples::Sample;
pub use sizes::{Sizes, SizesError};
pub use troubles::{Example, Trouble};
