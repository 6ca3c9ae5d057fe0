//! The clients of the echo servers: well-behaved ones that compare every byte, and chaos.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::dice::Dice;
use super::support::client::{pattern, reset};

/// Timeout of every read and write, longer than the longest stop of a server.
const PATIENCE: Duration = Duration::from_secs(100);

fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Sends messages of all sizes, compares every returned byte, and reconnects after up to 200 messages.
pub fn behave_well(address: SocketAddr, mut dice: Dice, echoed: &AtomicU64, is_over: &AtomicBool) -> std::io::Result<()> {
    while !is_over.load(Ordering::Relaxed) {
        let mut stream = connect(address)?;
        for _ in 0..=dice.roll(200) {
            let length = [1, 64, 512, 4_000, 40_000, 1 << 20][dice.roll(6) as usize];
            let message = pattern(dice.roll(u64::MAX), length);
            let mut back = vec![0; length];
            let mut reader = stream.try_clone()?;
            std::thread::scope(|scope| {
                let sender = scope.spawn(|| stream.write_all(&message));
                reader.read_exact(&mut back)?;
                sender.join().expect("the sender")
            })?;
            if back != message {
                return Err(std::io::Error::other("a returned byte is wrong"));
            }
            echoed.fetch_add(length as u64, Ordering::Relaxed);
            if is_over.load(Ordering::Relaxed) {
                break;
            }
        }
        finish(&stream)?;
    }
    Ok(())
}

/// Sends without a pause and reads `rate` bytes per second. Compares every returned byte, and at the end receives all of them.
pub fn read_slowly(address: SocketAddr, rate: usize, echoed: &AtomicU64, is_over: &AtomicBool) -> std::io::Result<()> {
    let stream = connect(address)?;
    let block = pattern(rate as u64, 1 << 16);
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut sent = 0_usize;
            stream.set_write_timeout(Some(Duration::from_millis(500)))?;
            while !is_over.load(Ordering::Relaxed) {
                match (&stream).write(&block[sent % block.len()..]) {
                    Ok(count) => sent += count,
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            stream.shutdown(std::net::Shutdown::Write)?;
            Ok(sent)
        });
        let mut received = 0_usize;
        let mut buffer = vec![0; (rate / 10).max(1)];
        loop {
            let is_fast = is_over.load(Ordering::Relaxed);
            let count = (&stream).read(&mut buffer)?;
            if count == 0 {
                break;
            }
            let is_same = buffer[..count].iter().enumerate().all(|(at, &byte)| byte == block[(received + at) % block.len()]);
            if !is_same {
                return Err(std::io::Error::other("a returned byte is wrong"));
            }
            received += count;
            echoed.fetch_add(count as u64, Ordering::Relaxed);
            if !is_fast {
                std::thread::park_timeout(Duration::from_millis(100));
            }
        }
        let sent = sender.join().expect("the sender")?;
        if received == sent { Ok(()) } else { Err(std::io::Error::other(format!("{received} bytes of {sent} came back"))) }
    })
}

fn finish(mut stream: &TcpStream) -> std::io::Result<()> {
    stream.shutdown(std::net::Shutdown::Write)?;
    if stream.read(&mut [0])? == 0 { Ok(()) } else { Err(std::io::Error::other("an extra byte was returned")) }
}

/// Performs one act of chaos, and ignores the result.
pub fn misbehave(address: SocketAddr, dice: &mut Dice) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_write_timeout(Some(Duration::from_millis(200)))?;
    stream.set_read_timeout(Some(Duration::from_millis(200)))?;
    match dice.roll(8) {
        0 => {}             // connect and close
        1 => reset(stream), // connect and reset
        2 => {
            stream.write_all(&pattern(1, 100_000))?; // reset with bytes in flight in both directions
            reset(stream);
        }
        3 => {
            for byte in pattern(2, 200) {
                stream.write_all(&[byte])?; // one byte at a time
                let _ = stream.read(&mut [0; 8]);
            }
        }
        4 => {
            let _ = stream.write_all(&pattern(3, 8 << 20)); // never read, then close
        }
        5 => {
            stream.write_all(&pattern(4, 50_000))?; // half-close, and do not wait for the answer
            stream.shutdown(std::net::Shutdown::Write)?;
        }
        6 => {
            socket2::SockRef::from(&stream).send_out_of_band(b"!")?; // urgent data
            let _ = stream.read(&mut [0; 8]);
        }
        _ => {
            // Hold more connections than the server has descriptors, for a moment.
            let limit = Duration::from_secs(1);
            let crowd: Vec<_> = (0..300).map_while(|_| TcpStream::connect_timeout(&address, limit).ok()).collect();
            std::thread::park_timeout(Duration::from_millis(50));
            drop(crowd);
        }
    }
    Ok(())
}
