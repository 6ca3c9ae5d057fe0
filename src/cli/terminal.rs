//! Escapes what a peer sends, for a terminal.

use std::fmt::Write as _;
use std::io::{self, Write};

/// A writer that escapes control characters other than line ends and tabs, and bytes that are not UTF-8. On a terminal they could move the
/// cursor, change the title, or type input for the user (console_codes(4)).
#[derive(Debug)]
pub(super) struct Escaped<W: Write> {
    out: W,
    /// The first bytes of a character whose other bytes have not arrived.
    incomplete: Vec<u8>,
}

impl<W: Write> Escaped<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, incomplete: Vec::new() }
    }

    /// Escapes the bytes of an incomplete character, and flushes the writer.
    pub(super) fn finish(mut self) -> io::Result<()> {
        write!(self.out, "{}", self.incomplete.escape_ascii())?;
        self.out.flush()
    }
}

impl<W: Write> Write for Escaped<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = [std::mem::take(&mut self.incomplete).as_slice(), bytes].concat();
        let mut shown = String::with_capacity(text.len());
        let mut chunks = text.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            for character in chunk.valid().chars() {
                match character {
                    '\n' | '\t' => shown.push(character),
                    '\0'..='\x1f' | '\x7f' => shown.extend((character as u8).escape_ascii().map(char::from)),
                    _ if character.is_control() => shown.extend(character.escape_unicode()),
                    _ => shown.push(character),
                }
            }
            // Only at the end of the text can more bytes complete the character.
            if chunks.peek().is_none() && str::from_utf8(chunk.invalid()).is_err_and(|error| error.error_len().is_none()) {
                self.incomplete = chunk.invalid().to_vec();
            } else {
                let _ = write!(shown, "{}", chunk.invalid().escape_ascii());
            }
        }
        self.out.write_all(shown.as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(pieces: &[&[u8]]) -> String {
        let mut out = Vec::new();
        let mut escaped = Escaped::new(&mut out);
        for piece in pieces {
            escaped.write_all(piece).expect("memory");
        }
        escaped.finish().expect("memory");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn text_is_shown_as_it_is_however_it_is_cut() {
        let text = "plain, tab\t, line\n, Grüße, 日本, 🦀";
        for cut in 0..text.len() {
            assert_eq!(shown(&[&text.as_bytes()[..cut], &text.as_bytes()[cut..]]), text);
        }
        assert_eq!(shown(&text.as_bytes().chunks(1).collect::<Vec<_>>()), text);
    }

    #[test]
    fn what_a_terminal_would_act_on_is_shown_instead() {
        assert_eq!(shown(&[b"\x1b]0;title\x07\r\n\x7f\0"]), "\\x1b]0;title\\x07\\r\n\\x7f\\x00");
        assert_eq!(shown(&[b"\xc2", b"\x9b31m"]), "\\u{9b}31m", "CSI as one character of Unicode");
        assert_eq!(shown(&[b"\x9b31m", b"\xff"]), "\\x9b31m\\xff", "and as one byte");
        assert_eq!(shown(&[b"\xe6\x97", b"a", b"\xf0\x9f"]), "\\xe6\\x97a\\xf0\\x9f", "cut characters");
    }

    proptest::proptest! {
        /// The output does not depend on where the bytes were cut, so no byte is lost.
        #[test]
        fn no_control_character_gets_through(bytes: Vec<u8>, cut: proptest::sample::Index) {
            let cut = cut.index(bytes.len() + 1);
            let whole = shown(&[&bytes]);
            let shown = shown(&[&bytes[..cut], &bytes[cut..]]);
            proptest::prop_assert_eq!(&shown, &whole);
            proptest::prop_assert!(!shown.contains(|c: char| c.is_control() && c != '\n' && c != '\t'), "{shown:?}");
        }
    }
}
