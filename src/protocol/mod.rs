//! Protocols: the server gives them the bytes of a connection, and they decide what it sends. The server is compiled once for each
//! protocol, so echo pays nothing for what other protocols need.
//!
//! A [`Protocol`] is one value for the whole server. It may keep state of its own, and it keeps one [`Session`](Protocol::Session)
//! for each connection. The server calls its methods from one thread, one after the other. No method may block.
//!
//! ```
//! use edgecho::protocol::{Protocol, Reply};
//!
//! /// Returns its input in upper case.
//! struct Shout;
//!
//! impl Protocol for Shout {
//!     type Session = ();
//!
//!     fn open(&mut self, _reply: &mut impl Reply) {}
//!
//!     fn receive(&mut self, (): &mut (), input: &[u8], reply: &mut impl Reply) {
//!         reply.send(&input.to_ascii_uppercase());
//!     }
//! }
//! ```
//!
//! | for | use |
//! |---|---|
//! | answers, closing, back pressure | [`Reply`] |
//! | other connections, the timers of the server | [`Post`] |
//! | messages of a stream, however it is cut | [`Lines`], [`Frames`], or a [`Format`] with [`Pieces`] |
//! | tests without sockets | [`testing`] |
//! | a file, pipe or thread that the loop must watch | [`Background`] |

mod background;
#[cfg(feature = "collect")]
mod collect;
mod decode;
mod echo;
mod frame;
mod interface;
mod line;
pub(crate) mod memory;
mod post;
mod reply;
pub mod testing;

pub use background::Background;
#[cfg(feature = "collect")]
pub use collect::Collect;
pub use decode::{DecodeError, Decoder, Extent, Format, Frames, Lines, Pieces};
pub use echo::Echo;
pub use frame::Frame;
pub use interface::Protocol;
pub use line::Line;
pub(crate) use post::Request;
pub use post::{Mail, Post, Recipients, SessionId, Timer};
pub use reply::Reply;

/// The pages of the documentation, whose code is compiled with the tests.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../../docs/library.md")]
    mod library {}
    #[doc = include_str!("../../docs/protocols.md")]
    mod protocols {}
}
