//! The work of a protocol outside of its connections.

use std::os::fd::BorrowedFd;

use super::post::{Post, SessionId};
use crate::sys::epoll::EpollFlags;

/// Work of a protocol outside of its connections: an output that the loop watches, input that must wait for it, and work that must be
/// finished before the server ends. A protocol returns it from [`Protocol::background`](super::Protocol::background).
///
/// ```
/// use std::io::{PipeReader, Read};
/// use std::os::fd::{AsFd, BorrowedFd};
///
/// use edgecho::protocol::{Background, Post, Protocol, Recipients, Reply};
/// use edgecho::sys::epoll::EpollFlags;
///
/// /// Sends every connection what comes out of a pipe.
/// struct Feed {
///     pipe: PipeReader, // must be non-blocking
/// }
///
/// impl Protocol for Feed {
///     type Session = ();
///
///     fn open(&mut self, _reply: &mut impl Reply) {}
///
///     fn receive(&mut self, (): &mut (), _input: &[u8], _reply: &mut impl Reply) {}
///
///     fn background(&mut self) -> Option<&mut dyn Background> {
///         Some(self)
///     }
/// }
///
/// impl Background for Feed {
///     fn descriptor(&self) -> Option<BorrowedFd<'_>> {
///         Some(self.pipe.as_fd())
///     }
///
///     fn on_event(&mut self, _flags: EpollFlags, post: &mut Post) {
///         let mut buffer = [0; 4096];
///         while let Ok(count @ 1..) = self.pipe.read(&mut buffer) {
///             post.send(Recipients::All, &buffer[..count]);
///         }
///     }
/// }
/// ```
pub trait Background {
    /// Returns a descriptor that the loop watches from the start, edge-triggered (epoll(7)), for reading and writing.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Acts on an event of the [`descriptor`](Self::descriptor).
    fn on_event(&mut self, flags: EpollFlags, post: &mut Post) {
        let _ = (flags, post);
    }

    /// Returns whether a connection may be read now. If not, its input stays in the kernel and TCP slows the peer, until the protocol
    /// calls [`Post::resume`]. May be called several times for one read.
    fn can_receive(&mut self, id: SessionId) -> bool {
        let _ = id;
        true
    }

    /// Finishes the remaining work before the server ends, and returns whether nothing is left. Called after the last connection of a
    /// drain has closed, at every turn of the loop. It may not block: an event of the [`descriptor`](Self::descriptor) or a timer of the
    /// server brings the next turn. The drain timeout and a second signal end the wait.
    fn finish_work(&mut self) -> bool {
        true
    }

    /// Ends the protocol: the last call. It may not block.
    ///
    /// # Errors
    /// Returns a description of what failed. [`Server::run`](crate::server::Server::run) returns it.
    fn end(&mut self) -> Result<(), String> {
        Ok(())
    }
}
