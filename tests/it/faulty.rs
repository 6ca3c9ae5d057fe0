//! Servers for tests of the clients: each does one thing wrong.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use nix::sys::socket::{MsgFlags, send};

/// What a server does wrong. Positions count the bytes of the stream after the handshake of 16 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    Nothing,
    /// Drops `count` bytes at a position.
    Drops {
        at: usize,
        count: usize,
    },
    /// Flips a bit of the byte at a position.
    Flips {
        at: usize,
    },
    /// Sends the `count` bytes before a position again.
    Repeats {
        at: usize,
        count: usize,
    },
    /// Exchanges `count` bytes at a position with the next `count` bytes.
    Reorders {
        at: usize,
        count: usize,
    },
    /// Delays the bytes from a position on.
    Delays {
        at: usize,
        millis: u64,
    },
    /// Never returns the bytes from a position on.
    Swallows {
        at: usize,
    },
    /// Exchanges `count` bytes at a position with those of another connection at the same position.
    Crosses {
        at: usize,
        count: usize,
    },
    /// Closes after it has returned `at` bytes.
    Closes {
        at: usize,
    },
    /// Sends a greeting, and reads without answering.
    Greets(&'static [u8]),
    /// Sends an answer to whatever arrives, and closes.
    Answers(&'static [u8]),
    /// Reads without answering.
    IsSilent,
    /// Returns everything in upper case.
    Shouts,
    /// Serves one read at a time over all connections. Each read takes `micros`.
    IsSlow {
        micros: u64,
    },
}

/// The bytes that connections exchange with each other.
type Exchange = Arc<(Mutex<Vec<(usize, Vec<u8>)>>, Condvar)>;

/// Starts a server that treats every connection so. It ends with the test program.
pub fn serve(wrong: Wrong) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let exchange = Exchange::default();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let (stream, exchange) = (stream.expect("accept"), Arc::clone(&exchange));
            // A client that closes early is no failure here.
            std::thread::spawn(move || {
                let _ = talk(stream, wrong, number, &exchange);
            });
        }
    });
    address
}

fn talk(mut stream: TcpStream, wrong: Wrong, number: usize, exchange: &Exchange) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 64 * 1024];
    match wrong {
        Wrong::Greets(greeting) => {
            stream.write_all(greeting)?;
            while stream.read(&mut buffer)? > 0 {}
            return Ok(());
        }
        Wrong::Answers(answer) => {
            let _ = stream.read(&mut buffer)?;
            return stream.write_all(answer);
        }
        Wrong::IsSilent => {
            while stream.read(&mut buffer)? > 0 {}
            return Ok(());
        }
        Wrong::Shouts => loop {
            let count = stream.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            stream.write_all(&buffer[..count].to_ascii_uppercase())?;
        },
        _ => {}
    }
    let mut handshake = [0; 16];
    stream.read_exact(&mut handshake)?;
    stream.write_all(&handshake)?;
    let at = match wrong {
        Wrong::Drops { at, .. }
        | Wrong::Flips { at }
        | Wrong::Repeats { at, .. }
        | Wrong::Reorders { at, .. }
        | Wrong::Delays { at, .. }
        | Wrong::Swallows { at }
        | Wrong::Crosses { at, .. }
        | Wrong::Closes { at } => at,
        _ => usize::MAX,
    };
    let mut position = 0;
    loop {
        // Before and after the position, the stream is returned unchanged.
        let most = if position < at { buffer.len().min(at - position) } else { buffer.len() };
        if position == at {
            match wrong {
                Wrong::Drops { count, .. } => stream.read_exact(&mut buffer[..count])?,
                Wrong::Flips { .. } => {
                    stream.read_exact(&mut buffer[..1])?;
                    stream.write_all(&[buffer[0] ^ 0x10])?;
                }
                Wrong::Repeats { count, .. } => {
                    let again = buffer[..count].to_vec(); // the last read ended at the position
                    stream.write_all(&again)?;
                }
                Wrong::Reorders { count, .. } => {
                    stream.read_exact(&mut buffer[..2 * count])?;
                    stream.write_all(&buffer[count..2 * count])?;
                    stream.write_all(&buffer[..count])?;
                }
                Wrong::Delays { millis, .. } => std::thread::park_timeout(Duration::from_millis(millis)),
                Wrong::Swallows { .. } => {
                    while stream.read(&mut buffer)? > 0 {}
                    return Ok(());
                }
                Wrong::Crosses { count, .. } => {
                    stream.read_exact(&mut buffer[..count])?;
                    let other = swap(exchange, number, buffer[..count].to_vec());
                    stream.write_all(&other)?;
                }
                _ => {}
            }
            position += 1; // from here on, only that it is after `at` matters
            continue;
        }
        let count = stream.read(&mut buffer[..most])?;
        if count == 0 {
            return Ok(());
        }
        if let Wrong::IsSlow { micros } = wrong {
            let _turn = exchange.0.lock().expect("no thread has panicked");
            std::thread::sleep(Duration::from_micros(micros));
        }
        position += count;
        if matches!(wrong, Wrong::Closes { .. }) && position == at {
            // The FIN comes with the last byte: a busy machine leaves no time between the two.
            send(stream.as_raw_fd(), &buffer[..count], MsgFlags::from_bits_retain(nix::libc::MSG_MORE))?;
            return Ok(());
        }
        stream.write_all(&buffer[..count])?;
    }
}

/// Gives bytes to another connection, and waits for those of that connection.
fn swap(exchange: &Exchange, number: usize, bytes: Vec<u8>) -> Vec<u8> {
    let (left, changed) = &**exchange;
    let mut left = left.lock().expect("no thread has panicked");
    left.push((number, bytes));
    changed.notify_all();
    loop {
        // Connections 0 and 1 exchange, 2 and 3, and so on.
        if let Some(place) = left.iter().position(|&(other, _)| other == number ^ 1) {
            return left[place].1.clone();
        }
        left = changed.wait(left).expect("no thread has panicked");
    }
}
