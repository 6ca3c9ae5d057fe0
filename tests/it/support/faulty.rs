//! Servers that are not what a client hopes for: each does one thing wrong.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// What is wrong with a server. Positions are those of the stream behind the handshake of 16 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    Nothing,
    /// Leaves out so many bytes at a position.
    Drops {
        at: usize,
        count: usize,
    },
    /// Flips a bit of the byte at a position.
    Flips {
        at: usize,
    },
    /// Sends so many bytes in front of a position once more.
    Repeats {
        at: usize,
        count: usize,
    },
    /// Exchanges so many bytes at a position with as many behind them.
    Reorders {
        at: usize,
        count: usize,
    },
    /// Holds the bytes from a position on back for a while.
    Delays {
        at: usize,
        millis: u64,
    },
    /// Never returns the bytes from a position on.
    Swallows {
        at: usize,
    },
    /// Exchanges so many bytes at a position with those of another connection at the same position.
    Crosses {
        at: usize,
        count: usize,
    },
    /// Closes when it has returned so many bytes.
    Closes {
        at: usize,
    },
    /// Says this first, and reads without answering.
    Greets(&'static [u8]),
    /// Answers this to whatever comes, and closes.
    Answers(&'static [u8]),
    /// Reads, and says nothing.
    IsSilent,
    /// Returns everything in upper case, as a line-oriented toy would.
    Shouts,
    /// Serves one read at a time over all connections, each of which takes this long.
    IsSlow {
        micros: u64,
    },
}

/// Where a connection leaves bytes for another.
type Exchange = Arc<(Mutex<Vec<(usize, Vec<u8>)>>, Condvar)>;

/// Starts a server that does this to every connection, and ends with the test program.
pub fn serve(wrong: Wrong) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let exchange = Exchange::default();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let (stream, exchange) = (stream.expect("accept"), Arc::clone(&exchange));
            // What the client makes of it is what is tested; that it goes away is no failure here.
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
        // Up to the place, byte for byte; there, what is wrong; behind it, byte for byte again.
        let most = if position < at { buffer.len().min(at - position) } else { buffer.len() };
        if position == at {
            match wrong {
                Wrong::Drops { count, .. } => stream.read_exact(&mut buffer[..count])?,
                Wrong::Flips { .. } => {
                    stream.read_exact(&mut buffer[..1])?;
                    stream.write_all(&[buffer[0] ^ 0x10])?;
                }
                Wrong::Repeats { count, .. } => {
                    let again = buffer[..count].to_vec(); // the last read ended here, and had no more than that
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
                Wrong::Closes { .. } => return Ok(()),
                _ => {}
            }
            position += 1; // wherever exactly it is from here on, it is behind the place
            continue;
        }
        let count = stream.read(&mut buffer[..most])?;
        if count == 0 {
            return Ok(());
        }
        if let Wrong::IsSlow { micros } = wrong {
            let _turn = exchange.0.lock().expect("nobody has panicked");
            std::thread::sleep(Duration::from_micros(micros));
        }
        stream.write_all(&buffer[..count])?;
        position += count;
    }
}

/// Leaves bytes for another connection, and waits for those of another.
fn swap(exchange: &Exchange, number: usize, bytes: Vec<u8>) -> Vec<u8> {
    let (left, changed) = &**exchange;
    let mut left = left.lock().expect("nobody has panicked");
    left.push((number, bytes));
    changed.notify_all();
    loop {
        // Connections 0 and 1 exchange, 2 and 3, and so on.
        if let Some(place) = left.iter().position(|&(other, _)| other == number ^ 1) {
            return left[place].1.clone();
        }
        left = changed.wait(left).expect("nobody has panicked");
    }
}
