//! The sandbox: the list of allowed system calls.
