//! Exit statuses that several commands share.

/// The status when a connection lost bytes, or the server could not start.
pub(super) const FAILURE: u8 = 1;

/// The status for a wrong flag. clap uses the same for flags that it cannot read.
pub(super) const WRONG_FLAG: u8 = 2;

/// The status of `ping`, `flood` and `send` for trouble other than a wrong echo, as ping(8) has it.
pub(super) const TROUBLE: u8 = 2;
