//! A key-value store by lines: `SET key value`, `GET key`, `DELETE key`.
//!
//!     cargo run --example store

use std::collections::HashMap;

use edgecho::protocol::{Decoder, Lines, Protocol, Reply};
use edgecho::server::Server;

/// The store, which all connections share. There is one thread, so nothing has to be locked.
#[derive(Debug, Default)]
pub(crate) struct Store {
    values: HashMap<String, String>,
}

impl Store {
    /// Does what a line asks for, and gives the answer.
    fn answer(&mut self, line: &str) -> String {
        let mut words = line.trim().splitn(3, ' ');
        match (words.next(), words.next(), words.next()) {
            (Some("SET"), Some(key), Some(value)) => {
                self.values.insert(key.to_owned(), value.to_owned());
                "OK".to_owned()
            }
            (Some("GET"), Some(key), None) => match self.values.get(key) {
                Some(value) => format!("VALUE {value}"),
                None => "NONE".to_owned(),
            },
            (Some("DELETE"), Some(key), None) => match self.values.remove(key) {
                Some(_) => "OK".to_owned(),
                None => "NONE".to_owned(),
            },
            _ => "ERROR expected SET key value, GET key or DELETE key".to_owned(),
        }
    }
}

impl Protocol for Store {
    type Session = Lines;

    fn open(&mut self, _reply: &mut impl Reply) -> Lines {
        Lines::new(4096)
    }

    fn receive(&mut self, session: &mut Lines, input: &[u8], reply: &mut impl Reply) {
        // One answer for all the lines that came together: a client may send many without waiting.
        let mut answers = String::new();
        let result = session.decode(input, |line| {
            answers += &self.answer(&String::from_utf8_lossy(line));
            answers.push('\n');
            true
        });
        reply.send(answers.as_bytes());
        if result.is_err() {
            reply.send(b"ERROR the line is too long\n");
            reply.close();
        }
    }
}

#[allow(dead_code, reason = "the tests have another")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    Server::builder().listen("127.0.0.1:7777".parse()?).bind(Store::default())?.run()?;
    Ok(())
}
