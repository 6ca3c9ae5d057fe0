//! An echo server on the standard library with one thread per connection.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

fn main() -> std::io::Result<()> {
    let listener = TcpListener::bind(std::env::args().nth(1).expect("an address"))?;
    for stream in listener.incoming() {
        let Ok(stream) = stream else {
            // Out of descriptors: a client may leave.
            std::thread::sleep(std::time::Duration::from_millis(50));
            continue;
        };
        let _ = std::thread::Builder::new().stack_size(128 * 1024).spawn(|| echo(stream));
    }
    Ok(())
}

fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..count])?;
    }
}
