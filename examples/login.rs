//! A protocol with a handshake: a name, a password, and then an echo of each line. Each answer has a time limit.
//!
//!     cargo run --example login
//!     nc 127.0.0.1 7777

use std::time::Duration;

use edgecho::protocol::{Decoder, Lines, Protocol, Reply, Timer};
use edgecho::server::Server;

const TOO_SLOW: u32 = 1;

/// Asks for a name and a password, which is `friend`.
#[derive(Debug)]
pub(crate) struct Login {
    /// Time limit of each answer.
    pub(crate) patience: Duration,
}

/// The state of a connection: what it must send next.
#[derive(Debug)]
pub(crate) enum State {
    Name,
    Word(String),
    Anything(String),
}

impl Protocol for Login {
    type Session = (State, Lines);

    fn open(&mut self, reply: &mut impl Reply) -> Self::Session {
        reply.send(b"Name?\n");
        reply.set_timer(Timer::once(TOO_SLOW, self.patience));
        (State::Name, Lines::new(256))
    }

    fn receive(&mut self, (state, lines): &mut Self::Session, input: &[u8], reply: &mut impl Reply) {
        let result = lines.decode(input, |line| {
            let text = String::from_utf8_lossy(line).trim_end().to_owned();
            *state = match std::mem::replace(state, State::Name) {
                State::Name => {
                    reply.send(b"Word?\n");
                    reply.set_timer(Timer::once(TOO_SLOW, self.patience));
                    State::Word(text)
                }
                State::Word(name) if text == "friend" => {
                    reply.send(format!("Hello, {name}.\n").as_bytes());
                    reply.cancel_timer(TOO_SLOW);
                    State::Anything(name)
                }
                State::Word(_) => {
                    reply.send(b"No.\n");
                    reply.close();
                    return false;
                }
                State::Anything(name) => {
                    reply.send(line);
                    State::Anything(name)
                }
            };
            true
        });
        if result.is_err() {
            reply.close();
        }
    }

    fn on_timer(&mut self, _session: &mut Self::Session, _timer: u32, reply: &mut impl Reply) {
        reply.send(b"Too slow.\n");
        reply.close();
    }
}

#[allow(dead_code, reason = "the tests have another")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let login = Login { patience: Duration::from_secs(10) };
    Server::builder().listen("127.0.0.1:7777".parse()?).bind(login)?.run()?;
    Ok(())
}
