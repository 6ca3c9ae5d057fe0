//! `edgecho ping`: one echo after the other on a schedule, over one connection, in the manner of ping(8).

mod error;
mod link;
mod options;
mod pace;
mod payload;
mod report;
mod route;
mod run;
mod summary;

pub use error::Error;
pub use options::Options;
pub use report::Format;
pub use run::run;
pub use summary::Summary;
