//! The live page: one document without external resources.

use super::response::{Response, Status};

const PAGE: &str = include_str!("page.html");

/// The fields of the page. Nothing runs but the one script and the one style sheet of the page, by their hashes (Content Security Policy
/// Level 3, section 6.7.3.3), and it connects to nothing but this endpoint.
const FIELDS: &str = concat!(
    "Content-Security-Policy: default-src 'none'; ",
    "style-src 'sha256-UGqHb90e6XLT7YnIQpjsd55dO3hlMonysglu/+wbtK8='; ",
    "script-src 'sha256-4K1JmgUlfbnJea0J0//kRR4yY+GopETcXD36fiyDfa0='; ",
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n",
    "Referrer-Policy: no-referrer\r\n"
);

/// The answer to a request for the page.
pub(super) const RESPONSE: Response<'static> =
    Response { status: Status::Ok, content_type: "text/html; charset=utf-8", fields: FIELDS, body: PAGE.as_bytes() };

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::server::{Reason, Stage};

    /// Returns the text of the only element of this name.
    fn element(name: &str) -> &'static str {
        let (start, end) = (format!("<{name}>"), format!("</{name}>"));
        assert_eq!((PAGE.matches(&start).count(), PAGE.matches(&end).count()), (1, 1));
        PAGE.split(&start).nth(1).expect("a start").split(&end).next().expect("an end")
    }

    /// Returns a digest as sha256sum(1) computes it, in the base64 of a Content-Security-Policy.
    fn digest(text: &str) -> String {
        const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut tool = Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("coreutils");
        tool.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("it reads");
        let output = tool.wait_with_output().expect("it ends").stdout;
        let nibbles = output[..64].iter().map(|&digit| (digit as char).to_digit(16).expect("a digit"));
        let bits: Vec<u32> = nibbles.flat_map(|nibble| (0..4).rev().map(move |bit| nibble >> bit & 1)).collect();
        let letter = |bits: &[u32]| LETTERS[(0..6).fold(0, |sum, bit| sum * 2 + bits.get(bit).unwrap_or(&0)) as usize];
        bits.chunks(6).map(|bits| letter(bits) as char).collect::<String>() + "="
    }

    #[test]
    fn the_policy_has_the_hashes_of_the_script_and_the_style() {
        for name in ["script", "style"] {
            let source = format!("{name}-src 'sha256-{}'; ", digest(element(name)));
            assert!(FIELDS.contains(&source), "the page has changed: put {source} into FIELDS, which has {FIELDS}");
        }
    }

    #[test]
    fn the_page_knows_every_reason_and_every_stage() {
        for name in Reason::ALL.iter().map(|reason| format!("'{}'", reason.name())) {
            assert!(element("script").contains(&name), "{name}");
        }
        for name in Stage::ALL.iter().map(|stage| format!("  {}: ['", stage.name())) {
            assert!(element("script").contains(&name), "{name}");
        }
    }

    #[test]
    fn the_page_loads_nothing_and_has_no_inline_handler() {
        let page = PAGE.replace("http://www.w3.org/2000/svg", "the name of SVG");
        for text in
            ["http:", "https:", "//cdn", " src=", "onclick=", "onload=", " style=", "eval(", "innerHTML", "@import", "url("]
        {
            assert!(!page.contains(text), "{text}");
        }
    }
}
