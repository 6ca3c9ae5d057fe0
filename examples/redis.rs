//! A key-value store that speaks RESP2, the protocol of Redis: <https://redis.io/docs/latest/develop/reference/protocol-spec/>.
//!
//!     cargo run --release --example redis
//!     redis-cli -p 7777 set greeting hello
//!     redis-benchmark -p 7777 -t set,get,incr -P 16
//!
//! Everything is bounded: a command has at most 1 MiB, the store 64 MiB, and a peer that does not read is not answered.

use std::collections::HashMap;
use std::io::Write;

use edgecho::protocol::{DecodeError, Decoder, Extent, Format, Pieces, Protocol, Reply};
use edgecho::server::Server;

/// The longest command, in bytes.
const MAX_COMMAND: usize = 1 << 20;

/// The most that all keys and values may take, in bytes.
const MAX_STORED: usize = 64 << 20;

/// The most that one MGET returns, in bytes.
const MAX_REPLY: usize = 16 << 20;

/// Answers are sent in portions of this size, in bytes.
const PORTION: usize = 64 * 1024;

/// The longest line of words, in bytes.
const MAX_LINE: usize = 64 * 1024;

/// The memory that a key takes beside its bytes and those of its value, roughly, in bytes.
const KEY_OVERHEAD: usize = 128;

/// Commands: arrays of bulk strings, or lines of words. Remembers how far it has looked, so that a peer that sends a long command in
/// small segments costs no more than its bytes.
#[derive(Debug, Default)]
pub(crate) struct Resp {
    looked_at: usize,
    /// Words of the array that are still to come.
    words_left: Option<usize>,
}

impl Format for Resp {
    fn measure(&mut self, bytes: &[u8]) -> Result<Extent, DecodeError> {
        let more = Ok(Extent::AtLeast(bytes.len() + 1));
        if bytes[0] != b'*' {
            let Some(end) = bytes[self.looked_at..].iter().position(|&byte| byte == b'\n') else {
                self.looked_at = bytes.len();
                let is_long = bytes.len() > MAX_LINE;
                return if is_long { Err(malformed("Protocol error: too big inline request")) } else { more };
            };
            let end = std::mem::take(self).looked_at + end + 1;
            return Ok(Extent::Whole(end));
        }
        if self.words_left.is_none() {
            let Some((count, at)) = number(bytes, 1, "Protocol error: invalid multibulk length")? else { return more };
            (self.words_left, self.looked_at) = (Some(count), at);
        }
        while let Some(left) = self.words_left.filter(|&left| left > 0) {
            match bytes.get(self.looked_at) {
                None => return more,
                Some(b'$') => {}
                Some(_) => return Err(malformed("Protocol error: expected '$'")),
            }
            let bulk = number(bytes, self.looked_at + 1, "Protocol error: invalid bulk length")?;
            let Some((length, start)) = bulk else { return more };
            (self.words_left, self.looked_at) = (Some(left - 1), start + length + 2);
            if self.looked_at > bytes.len() {
                return Ok(Extent::AtLeast(self.looked_at));
            }
        }
        Ok(Extent::Whole(std::mem::take(self).looked_at))
    }
}

fn malformed(reason: &'static str) -> DecodeError {
    DecodeError::Malformed { reason }
}

/// Returns the number at `at`, and where the line behind it begins; none if the line is not whole.
fn number(bytes: &[u8], at: usize, reason: &'static str) -> Result<Option<(usize, usize)>, DecodeError> {
    let malformed = malformed(reason);
    let rest = &bytes[at..];
    let Some(end) = rest.iter().take(32).position(|&byte| byte == b'\n') else {
        return if rest.len() < 32 { Ok(None) } else { Err(malformed) };
    };
    let digits = rest[..end].strip_suffix(b"\r").filter(|digits| !digits.is_empty()).ok_or(malformed)?;
    let mut number = 0;
    for digit in digits {
        if !digit.is_ascii_digit() || number > MAX_COMMAND {
            return Err(malformed);
        }
        number = number * 10 + usize::from(digit - b'0');
    }
    if number > MAX_COMMAND { Err(malformed) } else { Ok(Some((number, at + end + 1))) }
}

/// Returns the words of a whole command.
fn words(command: &[u8]) -> Vec<&[u8]> {
    if command[0] != b'*' {
        return command.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).collect();
    }
    let next = |at| number(command, at, "").ok().flatten().expect("the command is whole");
    let (count, mut at) = next(1);
    (0..count)
        .map(|_| {
            let (length, start) = next(at + 1);
            let end = start + length;
            at = end + 2;
            &command[start..end]
        })
        .collect()
}

/// The store, which all connections share. There is one thread, so it needs no lock.
#[derive(Debug, Default)]
pub(crate) struct Redis {
    values: HashMap<Vec<u8>, Vec<u8>>,
    bytes: usize,
    /// Answers of the current call. The memory is kept for the next.
    answers: Vec<u8>,
}

const OUT_OF_MEMORY: &str = "OOM command not allowed when used memory > 'maxmemory'.";
const COMMANDS: &[&str] = &["PING", "ECHO", "GET", "SET", "DEL", "INCR", "MGET", "MSET", "CONFIG", "QUIT"];

impl Redis {
    /// Carries out a command, and appends the answer. Returns whether the connection goes on.
    fn execute(&mut self, command: &[&[u8]], out: &mut Vec<u8>) -> bool {
        let Some((name, arguments)) = command.split_first() else { return true }; // an empty command has no answer
        match (&*name.to_ascii_uppercase(), arguments) {
            (b"PING", []) => simple(out, "PONG"),
            (b"PING" | b"ECHO", [message]) => bulk(out, Some(message)),
            (b"GET", [key]) => bulk(out, self.values.get(*key)),
            (b"SET", [key, value]) if self.set(key, value) => simple(out, "OK"),
            (b"SET", [_, _]) => error(out, OUT_OF_MEMORY),
            (b"SET", [_, _, _, ..]) => error(out, "ERR syntax error"),
            (b"DEL", keys @ [_, ..]) => {
                let count = keys.iter().filter(|key| self.delete(key)).count();
                integer(out, count as i64);
            }
            (b"INCR", [key]) => self.increment(key, out),
            (b"MGET", keys @ [_, ..]) => {
                let total: usize = keys.iter().filter_map(|key| self.values.get(*key)).map(Vec::len).sum();
                if total > MAX_REPLY {
                    error(out, "ERR the reply is too large");
                    return true;
                }
                array(out, keys.len());
                keys.iter().for_each(|key| bulk(out, self.values.get(*key)));
            }
            (b"MSET", pairs @ [_, _, ..]) if pairs.len() % 2 == 0 => {
                if pairs.chunks(2).all(|pair| self.set(pair[0], pair[1])) {
                    simple(out, "OK");
                } else {
                    error(out, OUT_OF_MEMORY);
                }
            }
            (b"CONFIG", [get, parameter]) if get.eq_ignore_ascii_case(b"get") => {
                array(out, 2);
                bulk(out, Some(parameter));
                bulk(out, Some(b""));
            }
            (b"COMMAND", _) => array(out, 0),
            (b"INFO", _) => {
                let keys = self.values.len();
                let text =
                    format!("# Server\r\nredis_version:7.0.0\r\n# Keyspace\r\ndb0:keys={keys},expires=0,avg_ttl=0\r\n");
                bulk(out, Some(text.as_bytes()));
            }
            (b"QUIT", []) => {
                simple(out, "OK");
                return false;
            }
            (known, _) if COMMANDS.iter().any(|name| name.as_bytes() == known) => {
                let name = String::from_utf8_lossy(known).to_lowercase();
                error(out, &format!("ERR wrong number of arguments for '{name}' command"));
            }
            _ => {
                let text = |word: &[u8]| String::from_utf8_lossy(&word[..word.len().min(128)]).replace(['\r', '\n'], " ");
                let first: String = arguments.iter().take(8).map(|word| format!("'{}' ", text(word))).collect();
                error(out, &format!("ERR unknown command '{}', with args beginning with: {first}", text(name)));
            }
        }
        true
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> bool {
        let old = self.values.get_mut(key);
        let bytes = self.bytes + value.len() - old.as_ref().map_or(0, |old| old.len());
        let bytes = if old.is_some() { bytes } else { bytes + key.len() + KEY_OVERHEAD };
        if bytes > MAX_STORED {
            return false;
        }
        self.bytes = bytes;
        match old {
            Some(old) => {
                old.clear();
                old.extend_from_slice(value);
                old.shrink_to(2 * value.len());
            }
            None => drop(self.values.insert(key.to_owned(), value.to_owned())),
        }
        true
    }

    fn delete(&mut self, key: &[u8]) -> bool {
        let old = self.values.remove(key);
        self.bytes -= old.as_ref().map_or(0, |value| key.len() + value.len() + KEY_OVERHEAD);
        old.is_some()
    }

    fn increment(&mut self, key: &[u8], out: &mut Vec<u8>) {
        let old = self.values.get(key).map_or(Some(0), |value| str::from_utf8(value).ok()?.parse::<i64>().ok());
        match old.map(|old| old.checked_add(1)) {
            None => error(out, "ERR value is not an integer or out of range"),
            Some(None) => error(out, "ERR increment or decrement would overflow"),
            Some(Some(new)) if self.set(key, new.to_string().as_bytes()) => integer(out, new),
            Some(Some(_)) => error(out, OUT_OF_MEMORY),
        }
    }
}

fn simple(out: &mut Vec<u8>, text: &str) {
    write!(out, "+{text}\r\n").expect("memory");
}

fn error(out: &mut Vec<u8>, text: &str) {
    write!(out, "-{text}\r\n").expect("memory");
}

fn integer(out: &mut Vec<u8>, number: i64) {
    write!(out, ":{number}\r\n").expect("memory");
}

fn array(out: &mut Vec<u8>, length: usize) {
    write!(out, "*{length}\r\n").expect("memory");
}

fn bulk(out: &mut Vec<u8>, value: Option<impl AsRef<[u8]>>) {
    let Some(value) = value else { return out.extend_from_slice(b"$-1\r\n") };
    write!(out, "${}\r\n", value.as_ref().len()).expect("memory");
    out.extend_from_slice(value.as_ref());
    out.extend_from_slice(b"\r\n");
}

impl Protocol for Redis {
    type Session = Pieces<Resp>;

    fn open(&mut self, _reply: &mut impl Reply) -> Pieces<Resp> {
        Pieces::new(Resp::default(), MAX_COMMAND)
    }

    fn receive(&mut self, commands: &mut Pieces<Resp>, input: &[u8], reply: &mut impl Reply) {
        let mut out = std::mem::take(&mut self.answers);
        let mut goes_on = true;
        let taken = commands.decode(input, |command| {
            goes_on = self.execute(&words(command), &mut out);
            goes_on && out.len() < PORTION
        });
        match taken {
            // The other commands are answered when the peer has read this portion.
            Ok(taken) => reply.leave(input.len() - taken),
            Err(DecodeError::TooLong { .. }) => error(&mut out, "ERR Protocol error: too big request"),
            Err(reason) => error(&mut out, &format!("ERR {reason}")),
        }
        reply.send(&out);
        if !goes_on || taken.is_err() {
            reply.close();
        }
        out.clear();
        out.shrink_to(2 * PORTION);
        self.answers = out;
    }

    fn held_bytes(&self, commands: &Pieces<Resp>) -> usize {
        commands.rest().len()
    }
}

#[allow(dead_code, reason = "the tests have another")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    Server::builder().listen("127.0.0.1:7777".parse()?).bind(Redis::default())?.run()?;
    Ok(())
}
