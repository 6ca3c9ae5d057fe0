//! The live page: one document without external resources.

use super::response::{Response, Status};

const PAGE: &str = include_str!("page.html");

/// The fields of the page. Nothing runs but the one script and the one style sheet of the page, by their hashes (Content Security Policy
/// Level 3, section 6.7.3.3), and it connects to nothing but this endpoint.
const FIELDS: &str = concat!(
    "Content-Security-Policy: default-src 'none'; ",
    "style-src 'sha256-STYLE_HASH'; ",
    "script-src 'sha256-SCRIPT_HASH'; ",
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n",
    "Referrer-Policy: no-referrer\r\n"
);

/// The answer to a request for the page.
pub(super) const RESPONSE: Response<'static> =
    Response { status: Status::Ok, content_type: "text/html; charset=utf-8", fields: FIELDS, body: PAGE.as_bytes() };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_no_other_host_and_has_no_inline_handler() {
        for text in ["http://", "https://", "//cdn", "onclick=", "onload=", " style=\"", "eval(", "innerHTML"] {
            assert!(!PAGE.contains(text), "{text}");
        }
        assert_eq!((PAGE.matches("<script>").count(), PAGE.matches("<style>").count()), (1, 1));
    }
}
