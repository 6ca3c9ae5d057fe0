//! The reaction to each errno of write(2).

use std::io;

/// Reaction to a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Retry after a pause, from the byte at which the write failed. No frame is accepted meanwhile.
    Retry,
    /// End the server with an error that tells how many frames were not written.
    GiveUp,
}
use Remedy::{GiveUp, Retry};

/// Errors of write(2) that concern the output, each with the reason for the reaction. A retry makes sense where room can be made. It must
/// not hide that something is lost already.
const TABLE: &[(i32, Remedy)] = &[
    // "The device containing the file has no room for the data": files can be removed, and a volume can grow.
    (libc::ENOSPC, Retry),
    // "The user's quota of disk blocks on the filesystem has been exhausted": as above, or the quota is raised.
    (libc::EDQUOT, Retry),
    // "An attempt was made to write a file that exceeds the maximum file size or the process's file size limit": we append, so the
    // next write succeeds once the file is truncated, or the limit is raised with prlimit(1).
    (libc::EFBIG, Retry),
    // Not in write(2), but sockets and some filesystems report it (send(2)): the kernel is short of memory for now.
    (libc::ENOMEM, Retry),
    (libc::ENOBUFS, Retry),
    // "A low-level I/O error. This error may relate to the write-back of data written by an earlier write(2)": earlier lines may be
    // lost, and no retry brings them back.
    (libc::EIO, GiveUp),
    // "The reading end is closed": the lines in the pipe are lost.
    (libc::EPIPE, GiveUp),
];

/// Returns the reaction to a failure. Errors that are not in the table are defects, or permanent: the server ends.
pub(super) fn remedy(error: &io::Error) -> Remedy {
    let row = TABLE.iter().find(|&&(errno, _)| Some(errno) == error.raw_os_error());
    row.map_or(GiveUp, |&(_, remedy)| remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_mended_is_retried_and_nothing_else() {
        for errno in [libc::ENOSPC, libc::EDQUOT, libc::EFBIG, libc::ENOMEM, libc::ENOBUFS] {
            assert_eq!(remedy(&io::Error::from_raw_os_error(errno)), Retry);
        }
        for errno in [libc::EIO, libc::EPIPE, libc::EBADF, libc::EINVAL, libc::EROFS, libc::ESTALE, libc::ECONNRESET] {
            assert_eq!(remedy(&io::Error::from_raw_os_error(errno)), GiveUp);
        }
        assert_eq!(remedy(&io::ErrorKind::WriteZero.into()), GiveUp);
    }
}
