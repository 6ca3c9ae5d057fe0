//! A chat room: every member receives every line. `quit` leaves.
//!
//!     cargo run --example chat
//!     nc 127.0.0.1 7777

use edgecho::protocol::{Decoder, Lines, Post, Protocol, Recipients, Reply, SessionId};
use edgecho::server::Server;

/// The room. State that members share goes here, and needs no lock: there is one thread.
#[derive(Debug, Default)]
pub(crate) struct Chat {
    members: usize,
}

impl Protocol for Chat {
    type Session = Lines;

    fn open(&mut self, reply: &mut impl Reply) -> Lines {
        self.members += 1;
        reply.send(format!("Welcome, {}. Members: {}\n", reply.peer(), self.members).as_bytes());
        Lines::new(1024)
    }

    fn receive(&mut self, session: &mut Lines, input: &[u8], reply: &mut impl Reply) {
        let name = format!("{}: ", reply.peer());
        let mut quits = false;
        let result = session.decode(input, |line| {
            quits = line.trim_ascii_end() == b"quit";
            if !quits {
                reply.post().send(Recipients::All, &[name.as_bytes(), line].concat());
            }
            !quits
        });
        if quits || result.is_err() {
            reply.close();
        }
    }

    fn close(&mut self, _session: Lines, _id: SessionId, post: &mut Post) {
        self.members -= 1;
        post.send(Recipients::All, format!("A member left. Members: {}\n", self.members).as_bytes());
    }
}

#[allow(dead_code, reason = "the tests have another")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::builder().listen("127.0.0.1:7777".parse()?).bind(Chat::default())?;
    server.run()?;
    Ok(())
}
