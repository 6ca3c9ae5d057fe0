//! Stdout: lines of commands that block signals and read them from a descriptor, and whole documents.

use std::io::{self, ErrorKind, LineWriter, Write, stdout};
use std::os::fd::AsFd;
use std::process::ExitCode;

use edgecho::sys::file;
use edgecho::sys::signal::{self, Signal};

use super::status::FAILURE;
use super::stderr;

/// The signals that end a command.
const ENDS: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// Returns a line-buffered writer to stdout. While stdout is full and its reader does not read, the signals that end a command have their
/// default actions, because nothing else could end the wait.
pub(super) fn lines() -> LineWriter<impl Write> {
    LineWriter::new(Stdout)
}

/// Writes a document, and returns the exit status. A reader that has closed its pipe is no failure.
pub(super) fn write_document(document: &[u8]) -> ExitCode {
    let mut out = stdout().lock();
    match out.write_all(document).and_then(|()| out.flush()) {
        Err(failure) if failure.kind() != ErrorKind::BrokenPipe => {
            stderr::say(format_args!("error: cannot write to stdout: {failure}"));
            ExitCode::from(FAILURE)
        }
        // The reader of a pipe has seen enough: `edgecho man | head`.
        _ => ExitCode::SUCCESS,
    }
}

struct Stdout;

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let stdout = stdout();
        if !file::poll_writable(stdout.as_fd(), 0)? {
            signal::unblock(&ENDS)?;
            let result = file::poll_writable(stdout.as_fd(), -1);
            signal::block(&ENDS)?;
            result?;
        }
        // A writable pipe has room for this many bytes (pipe(7), PIPE_BUF).
        file::write(stdout.as_fd(), &bytes[..bytes.len().min(libc::PIPE_BUF)])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
