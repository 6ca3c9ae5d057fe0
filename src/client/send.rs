//! `edgecho send`: what stands on stdin goes out by lines or frames, and what comes back is written to stdout.

use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use super::connect_error::ConnectError;
use super::connector::State;
use super::target::Target;
use crate::protocol::{DecodeError, Decoder, Frames};

/// What stands on stdin and on stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Lines. Each is a frame without its line end, where the wire has frames, and each frame that comes back a line.
    Lines,
    /// Frames, as they stand on the wire.
    Frames,
}

/// What to do.
#[derive(Debug, Clone)]
pub struct Options {
    /// The far end.
    pub target: Target,
    /// Whether there are frames on the wire; otherwise lines.
    pub is_framed: bool,
    /// What is given, and what is wanted back.
    pub form: Form,
    /// The largest frame that is taken back, in bytes.
    pub max_frame: usize,
    /// How long connecting may take.
    pub connect_timeout: Duration,
}

/// Why not everything was sent, or came back.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no connection.
    #[error("cannot connect to {target}: {error}")]
    Connect {
        /// To whom.
        target: String,
        /// Why.
        error: ConnectError,
    },
    /// The connection broke.
    #[error("the connection was lost: {0}")]
    Lost(io::Error),
    /// The far end sent a frame that is too large, or ended within one.
    #[error("{0}")]
    Malformed(String),
    /// stdin or stdout failed.
    #[error("cannot {what}: {error}")]
    Local {
        /// What could not be done.
        what: &'static str,
        /// Why.
        error: io::Error,
    },
}

/// Sends everything up to the end of `input`, then a FIN, and writes what comes back until the far end's. A far end that closes before
/// that ends it, too: `input` is then no longer waited for, though the thread that reads it is left behind.
///
/// # Errors
/// [`Error`].
pub fn run(options: &Options, input: impl Read + Send + 'static, output: impl Write) -> Result<(), Error> {
    let stream = connect(options)?;
    let writer = stream.try_clone().map_err(Error::Lost)?;
    let (sender, sent) = mpsc::channel();
    let sending = options.clone();
    std::thread::spawn(move || {
        let result = send(&sending, &writer, input);
        // Before our FIN: when that is answered, the result is looked for.
        let _ = sender.send(result);
        // What has been sent still comes back, even if it was not all.
        let _ = writer.shutdown(Shutdown::Write);
    });
    receive(options, stream, output)?;
    sent.try_recv().unwrap_or(Ok(()))
}

fn connect(options: &Options) -> Result<TcpStream, Error> {
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in options.target.addresses() {
        match TcpStream::connect_timeout(address, options.connect_timeout) {
            Ok(stream) => {
                // Without it small messages would wait for each other.
                stream.set_nodelay(true).map_err(Error::Lost)?;
                return Ok(stream);
            }
            Err(error) => failure = error,
        }
    }
    let error = match failure.kind() {
        io::ErrorKind::TimedOut => {
            ConnectError::TimedOut { state: State::Initiated, after: options.connect_timeout, returned_bytes: 0 }
        }
        _ => ConnectError::of(failure, State::Initiated, options.connect_timeout),
    };
    Err(Error::Connect { target: options.target.to_string(), error })
}

/// Sends line by line, so that who types sees each answer at once; what comes from a file goes out in larger pieces.
fn send(options: &Options, stream: &TcpStream, input: impl Read) -> Result<(), Error> {
    let local = |error| Error::Local { what: "read stdin", error };
    let mut input = BufReader::with_capacity(64 * 1024, input);
    let mut output = BufWriter::with_capacity(64 * 1024, stream);
    let mut line = Vec::new();
    loop {
        if options.is_framed && options.form == Form::Lines {
            line.clear();
            if input.read_until(b'\n', &mut line).map_err(local)? == 0 {
                break;
            }
            let text = line.strip_suffix(b"\n").unwrap_or(&line);
            output.write_all(&Frames::encode(text)).map_err(Error::Lost)?;
        } else {
            let bytes = input.fill_buf().map_err(local)?;
            if bytes.is_empty() {
                break;
            }
            output.write_all(bytes).map_err(Error::Lost)?;
            let count = bytes.len();
            input.consume(count);
        }
        if input.buffer().is_empty() {
            output.flush().map_err(Error::Lost)?;
        }
    }
    output.flush().map_err(Error::Lost)
}

fn receive(options: &Options, mut stream: TcpStream, mut output: impl Write) -> Result<(), Error> {
    let local = |error| Error::Local { what: "write to stdout", error };
    let mut frames = Frames::new(options.max_frame);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = match stream.read(&mut buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Error::Lost(error)),
        };
        if count == 0 {
            break;
        }
        if !options.is_framed || options.form == Form::Frames {
            output.write_all(&buffer[..count]).map_err(local)?;
        } else {
            let mut written = Ok(());
            let result = frames.decode(&buffer[..count], |frame| {
                written = output.write_all(Frames::payload(frame)).and_then(|()| output.write_all(b"\n"));
                written.is_ok()
            });
            written.map_err(local)?;
            result.map_err(|error| {
                Error::Malformed(match error {
                    DecodeError::TooLong { length } => {
                        format!("the far end sent a frame of {length} bytes; raise --max-frame to take it")
                    }
                    error => format!("cannot take a frame of the far end: {error}"),
                })
            })?;
        }
        output.flush().map_err(local)?;
    }
    match frames.rest().len() {
        0 => Ok(()),
        rest => Err(Error::Malformed(format!("the far end ended within a frame, {rest} bytes after it began"))),
    }
}
