//! A key-value store by lines: `SET key value`, `GET key`, `DELETE key`.
//!
//!     cargo run --example store
//!     printf 'SET a 1\nGET a\n' | nc -N 127.0.0.1 7777

use std::collections::HashMap;

use edgecho::protocol::{Decoder, Lines, Protocol, Reply};
use edgecho::server::Server;

/// The longest line, and so the longest value, in bytes.
const MAX_LINE: usize = 16 * 1024;

/// The most that all keys and values may take, in bytes.
const MAX_STORED: usize = 64 << 20;

/// Answers are sent in portions of this size, in bytes. A peer that reads slowly is answered slowly.
const PORTION: usize = 64 * 1024;

/// The store, which all connections share. There is one thread, so it needs no lock.
#[derive(Debug, Default)]
pub(crate) struct Store {
    values: HashMap<String, String>,
    bytes: usize,
}

impl Store {
    /// Carries out a line, and appends the answer.
    fn answer(&mut self, line: &str, answers: &mut String) {
        let mut words = line.trim().splitn(3, ' ');
        let answer = match (words.next(), words.next(), words.next()) {
            (Some("SET"), Some(key), Some(value)) => {
                self.delete(key);
                if self.bytes + key.len() + value.len() <= MAX_STORED {
                    self.bytes += key.len() + value.len();
                    self.values.insert(key.to_owned(), value.to_owned());
                    "OK"
                } else {
                    "ERROR the store is full"
                }
            }
            (Some("GET"), Some(key), None) => match self.values.get(key) {
                Some(value) => {
                    answers.push_str("VALUE ");
                    value
                }
                None => "NONE",
            },
            (Some("DELETE"), Some(key), None) => {
                if self.delete(key) {
                    "OK"
                } else {
                    "NONE"
                }
            }
            _ => "ERROR expected SET key value, GET key or DELETE key",
        };
        answers.push_str(answer);
        answers.push('\n');
    }

    fn delete(&mut self, key: &str) -> bool {
        let old = self.values.remove(key);
        self.bytes -= old.as_ref().map_or(0, |value| key.len() + value.len());
        old.is_some()
    }
}

impl Protocol for Store {
    type Session = Lines;

    fn open(&mut self, _reply: &mut impl Reply) -> Lines {
        Lines::new(MAX_LINE)
    }

    fn receive(&mut self, lines: &mut Lines, input: &[u8], reply: &mut impl Reply) {
        // One answer for all lines that came together: a client may send many without waiting.
        let mut answers = String::new();
        let taken = lines.decode(input, |line| {
            self.answer(&String::from_utf8_lossy(line), &mut answers);
            answers.len() < PORTION
        });
        reply.send(answers.as_bytes());
        match taken {
            // The other lines are answered when the peer has read this portion.
            Ok(taken) => reply.leave(input.len() - taken),
            Err(error) => {
                reply.send(format!("ERROR {error}\n").as_bytes());
                reply.close();
            }
        }
    }

    fn held_bytes(&self, lines: &Lines) -> usize {
        lines.rest().len()
    }
}

#[allow(dead_code, reason = "the tests have another")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    Server::builder().listen("127.0.0.1:7777".parse()?).bind(Store::default())?.run()?;
    Ok(())
}
