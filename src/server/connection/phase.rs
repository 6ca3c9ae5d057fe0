//! The phases of a connection, and the results of its turns.

use std::io;

/// The phase of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Input is given to the protocol.
    Open,
    /// The peer has sent its FIN. The connection ends when nothing is pending and the protocol has taken all input.
    PeerFinished,
    /// The peer has sent its FIN and the protocol has closed: it sends nothing more. The connection ends when nothing is pending.
    BothFinished,
    /// The protocol has asked for the close. Requests that it has made before, which may be for this connection, come first.
    Quitting,
    /// The server closes the connection. The protocol is given nothing more; our FIN follows the last pending byte.
    Closing,
    /// Our FIN is sent. Input is discarded until the peer's FIN: close(2) with unread input would send a reset, which can destroy bytes
    /// on their way to the peer (RFC 1122, 4.2.2.13).
    Lingering,
}

impl Phase {
    /// Returns whether the protocol may still answer.
    pub(super) fn is_answered(self) -> bool {
        matches!(self, Self::Open | Self::PeerFinished)
    }
}

/// The result of a turn: [`Connection::advance`](super::Connection::advance).
#[derive(Debug)]
pub enum Progress {
    /// Nothing can be done before the next event.
    Waiting,
    /// There is more to do, after the other connections had their turn.
    More,
    /// The connection has ended. The stream must be closed.
    Ended(Ending),
}

/// The end of a connection.
#[derive(Debug)]
pub enum Ending {
    /// The peer has sent its FIN, and the kernel has taken all bytes for it.
    ByPeer,
    /// The server has closed: all pending bytes and our FIN are sent, and the peer has sent its FIN.
    InOrder,
    /// A call failed: the peer has reset the connection, or is gone.
    Failed(io::Error),
}
