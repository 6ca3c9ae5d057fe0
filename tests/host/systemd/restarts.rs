//! Restarts with one socket that stays open: no client is refused or reset.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::{Manager, serve_on};
use crate::support::client::pattern;
use crate::support::{PATIENCE, Program, wait_until};

const RESTARTS: u64 = 20;
const CLIENTS: u64 = 6;

/// Connections that a generation serves before the next one.
const CONNECTIONS: u64 = 60;

/// One connection: every byte comes back, and then the FIN.
fn connect_and_check(address: SocketAddr, seed: u64) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let message = pattern(seed, 1 + (seed * 7919 % 20_000) as usize);
    stream.write_all(&message)?;
    let mut answer = vec![0; message.len()];
    stream.read_exact(&mut answer)?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let rest = stream.read(&mut [0; 1])?;
    assert!(answer == message && rest == 0, "connection {seed}: other bytes than were sent");
    Ok(())
}

/// Starts a generation of the server, and waits until it is ready.
fn start(socket: &TcpListener, manager: &Manager) -> Program {
    let (mut command, stdin) = serve_on(socket, &["-q"]);
    let program = Program::with_stdin(command.env("NOTIFY_SOCKET", manager.address()), stdin);
    manager.wait_for("READY=1");
    program
}

fn end(mut program: Program) {
    let (status, _, stderr) = program.finish();
    assert!(status.success(), "{status}: {stderr}");
}

#[test]
fn twenty_restarts_under_churn_refuse_and_reset_no_connection() {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let address = socket.local_addr().expect("its address");
    let (is_over, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (is_over, served) = (Arc::clone(&is_over), Arc::clone(&served));
            std::thread::spawn(move || {
                let mut failures = Vec::new();
                for round in 0.. {
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    if let Err(error) = connect_and_check(address, client * 1_000_000 + round) {
                        failures.push(format!("connection {round} of client {client}: {error}"));
                    }
                    served.fetch_add(1, Ordering::Relaxed);
                }
                failures
            })
        })
        .collect();

    let manager = Manager::new();
    let mut current = start(&socket, &manager);
    for restart in 0..RESTARTS {
        let before = served.load(Ordering::Relaxed);
        wait_until("the generation serves", || served.load(Ordering::Relaxed) >= before + CONNECTIONS);
        current.signal(Signal::SIGTERM);
        // As 'systemctl restart' does it, the next one starts when this one has ended. An upgrade may start it before.
        current = if restart % 2 == 0 {
            end(current);
            start(&socket, &manager)
        } else {
            let next = start(&socket, &manager);
            end(current);
            next
        };
    }
    is_over.store(true, Ordering::Relaxed);
    let failures: Vec<_> = clients.into_iter().flat_map(|client| client.join().expect("no panic")).collect();
    current.signal(Signal::SIGTERM);
    end(current);
    let served = served.load(Ordering::Relaxed);
    assert!(failures.is_empty(), "{} of {served} connections failed: {failures:#?}", failures.len());
    println!("{served} connections over {RESTARTS} restarts, none refused or reset");
}
