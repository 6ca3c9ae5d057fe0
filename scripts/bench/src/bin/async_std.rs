//! An echo server on async-std.

use std::time::Duration;

use async_std::io::{ReadExt, WriteExt};
use async_std::net::{TcpListener, TcpStream};
use async_std::task;

fn main() -> std::io::Result<()> {
    task::block_on(async {
        let listener = TcpListener::bind(std::env::args().nth(1).expect("an address")).await?;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(task::spawn(echo(stream))),
                // Out of descriptors: a client may leave.
                Err(_) => task::sleep(Duration::from_millis(50)).await,
            }
        }
    })
}

async fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 8 * 1024];
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..count]).await?;
    }
}
