//! The bytes that the clients send, and the diagnosis of wrong echoes.

mod diagnosis;
mod evidence;
mod pattern;
mod wire;

pub use diagnosis::Corruption;
#[cfg(test)]
pub(crate) use diagnosis::diagnose;
pub(crate) use diagnosis::{ECHOED_HEADER, Original, Quoted};
pub(crate) use evidence::{Evidence, GATHERING};
pub use pattern::Pattern;
pub use wire::Framing;
pub(crate) use wire::{Wire, wrap};
