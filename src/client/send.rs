//! `edgecho send`: sends an input as lines or frames, and writes what comes back to an output.

use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use super::connect::{ConnectError, ProxyHeader, ProxyVersion, State};
use super::target::Target;
use crate::protocol::{DecodeError, Decoder, Frame, Frames};

/// The form of the input and of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Form {
    /// Lines. On a framed connection, each line is a frame without its line end, and each frame that comes back is a line.
    Lines,
    /// Frames, each with its length, as on the wire.
    Frames,
}

/// The options of [`run`].
///
/// ```
/// use edgecho::client::send::Options;
///
/// let mut options = Options::new("127.0.0.1".parse()?);
/// options.is_framed = true;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// The far end.
    pub target: Target,
    /// Frames on the connection instead of lines.
    pub is_framed: bool,
    /// The form of the input and of the output.
    pub form: Form,
    /// The largest frame to receive, in bytes, without its length.
    pub max_frame: usize,
    /// The time limit for connecting to each address; more than zero.
    pub connect_timeout: Duration,
    /// Begin the connection with a PROXY header of this version. It holds the addresses of the connection.
    pub send_proxy: Option<ProxyVersion>,
}

impl Options {
    /// Returns the defaults: lines on the connection and in the input, frames up to 64 KiB, 3 seconds to connect.
    #[must_use]
    pub fn new(target: Target) -> Self {
        Self {
            target,
            is_framed: false,
            form: Form::Lines,
            max_frame: Frame::MAX,
            connect_timeout: Duration::from_secs(3),
            send_proxy: None,
        }
    }
}

/// The reason why not everything was sent or received. The text includes the cause.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No address of the target accepted a connection.
    #[error("cannot connect to {target}: {error}")]
    Connect {
        /// The target.
        target: String,
        /// The error of the last address.
        error: ConnectError,
    },
    /// The connection broke.
    #[error("the connection was lost: {0}")]
    Lost(io::Error),
    /// The far end sent a frame that is longer than [`Options::max_frame`].
    #[error("the far end sent a frame of {length} bytes, more than the {max_frame} allowed")]
    TooLong {
        /// The length of the frame in bytes.
        length: u64,
        /// The limit in bytes.
        max_frame: usize,
    },
    /// The far end sent bytes that are no frame, or ended within a frame.
    #[error("{0}")]
    Malformed(String),
    /// The far end returned the header of [`Options::send_proxy`].
    #[error("the far end echoed the PROXY header: it does not accept the PROXY protocol")]
    ProxyEchoed,
    /// The input or the output failed.
    #[error("cannot {what}: {error}")]
    Local {
        /// The action that failed.
        what: &'static str,
        /// The error of the system.
        error: io::Error,
    },
}

/// Sends `input` up to its end and then a FIN, and writes what comes back to `output` until the far end closes. If the far end
/// closes first, the function returns without waiting for `input`; the thread that reads it stays behind.
///
/// # Errors
/// [`Error`]; the bytes that came before it have been written.
pub fn run(options: &Options, input: impl Read + Send + 'static, output: impl Write) -> Result<(), Error> {
    let (stream, header) = connect(options)?;
    let writer = stream.try_clone().map_err(Error::Lost)?;
    let (sender, sent) = mpsc::channel();
    let sending = options.clone();
    std::thread::spawn(move || {
        let result = send(&sending, &writer, input);
        // Before the FIN: when the far end answers that, the result is read.
        let _ = sender.send(result);
        // The echo of what was sent still comes back, even after a failure.
        let _ = writer.shutdown(Shutdown::Write);
    });
    receive(options, stream, header.as_ref().map_or(&[], ProxyHeader::bytes), output)?;
    sent.try_recv().unwrap_or(Ok(()))
}

/// Connects, and sends the header if there is one.
fn connect(options: &Options) -> Result<(TcpStream, Option<ProxyHeader>), Error> {
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in options.target.addresses() {
        match TcpStream::connect_timeout(address, options.connect_timeout) {
            Ok(stream) => {
                // Otherwise a small message waits for the acknowledgement of the one before (tcp(7), TCP_NODELAY).
                stream.set_nodelay(true).map_err(Error::Lost)?;
                let Some(version) = options.send_proxy else { return Ok((stream, None)) };
                let header = ProxyHeader::new(version, stream.local_addr().map_err(Error::Lost)?, *address);
                (&stream).write_all(header.bytes()).map_err(Error::Lost)?;
                return Ok((stream, Some(header)));
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

/// Sends each line as soon as it is typed. Input that is already there, such as a file, goes out in larger pieces.
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

/// Writes what comes back to `output`. If that begins with the `header` that was sent, the far end took it for data.
fn receive(options: &Options, mut stream: TcpStream, mut header: &[u8], mut output: impl Write) -> Result<(), Error> {
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
        let most = count.min(header.len());
        if most > 0 {
            match header.strip_prefix(&buffer[..most]) {
                Some([]) => return Err(Error::ProxyEchoed),
                rest => header = rest.unwrap_or_default(),
            }
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
            result.map_err(|error| match error {
                DecodeError::TooLong { length } => Error::TooLong { length, max_frame: options.max_frame },
                error => Error::Malformed(format!("cannot read a frame of the far end: {error}")),
            })?;
        }
        output.flush().map_err(local)?;
    }
    match frames.rest().len() {
        0 => Ok(()),
        rest => Err(Error::Malformed(format!("the far end closed within a frame, {rest} bytes after its start"))),
    }
}
