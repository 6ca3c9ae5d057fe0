use proptest::prelude::*;

use super::*;

fn ask(head: &str) -> Request {
    let mut heads = Heads::default();
    let (taken, request) = heads.take(head.as_bytes());
    assert_eq!(taken, head.len(), "{head:?}");
    request.unwrap_or_else(|| panic!("{head:?} is incomplete"))
}

fn get(target: &str, fields: &str) -> Request {
    ask(&format!("GET {target} HTTP/1.1\r\nHost: localhost:9\r\n{fields}\r\n"))
}

#[test]
fn each_resource_has_its_path_with_or_without_query_and_authority() {
    for (target, resource) in [
        ("/", Resource::Page),
        ("/?a=b", Resource::Page),
        ("/metrics", Resource::Metrics(Format::Text)),
        ("/metrics?name[]=a", Resource::Metrics(Format::Text)),
        ("http://localhost:9/livez", Resource::Live),
        ("HTTP://[::1]:9/readyz?verbose", Resource::Ready),
        ("http://localhost", Resource::Page),
        ("http://localhost?x", Resource::Page),
    ] {
        assert_eq!(get(target, "").wanted, Wanted::Resource(resource), "{target}");
    }
    for (target, status) in [
        ("/nothing", Status::NotFound),
        ("/metrics/", Status::NotFound),
        ("//metrics", Status::NotFound),
        ("/%6detrics", Status::NotFound),
        ("metrics", Status::BadRequest),
        ("ftp://localhost/metrics", Status::BadRequest),
        ("*", Status::BadRequest),
    ] {
        assert_eq!(get(target, "").wanted, Wanted::Error(status), "{target}");
    }
}

#[test]
fn other_methods_are_told_which_ones_there_are() {
    for method in ["POST", "PUT", "DELETE", "PATCH", "TRACE", "NONSENSE"] {
        let request = ask(&format!("{method} /metrics HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!((request.wanted, request.is_last), (Wanted::Error(Status::MethodNotAllowed), false), "{method}");
    }
    for head in ["OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS /livez HTTP/1.1\r\nHost: a\r\n\r\n"] {
        assert_eq!(ask(head).wanted, Wanted::Methods);
    }
    let connect = ask("CONNECT localhost:7 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(connect.wanted, Wanted::Error(Status::MethodNotAllowed));
    let head = ask("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(head.is_head && head.wanted == Wanted::Resource(Resource::Page));
}

#[test]
fn bytes_that_are_no_request_are_refused_each_with_its_status() {
    let long_target = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(MAX_TARGET_BYTES));
    let long_line = "GET /".to_owned() + &"x".repeat(MAX_HEAD_BYTES - 5);
    let long_field = "GET / HTTP/1.1\r\nHost: a\r\nA: ".to_owned() + &"x".repeat(MAX_HEAD_BYTES - 28);
    let many_fields = "GET / HTTP/1.1\r\nHost: a\r\n".to_owned() + &"A: b\r\n".repeat(MAX_FIELDS) + "\r\n";
    for (head, status) in [
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", Status::VersionNotSupported),
        ("PRI * HTTP/2.0\r\n\r\n", Status::VersionNotSupported),
        ("GET /\r\n", Status::BadRequest),
        ("\x16\x03\x01\x02", Status::BadRequest),
        ("GET / HTTP/1.1\r\n\r\n", Status::BadRequest),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Status::BadRequest),
        ("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", Status::BadRequest),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", Status::BadRequest),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", Status::BadRequest),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", Status::BadRequest),
        ("GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", Status::BadRequest),
        ("GET / HTTP/1.1\r\nHost: a\r\nA: \0\r\n\r\n", Status::BadRequest),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", Status::BadRequest),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", Status::BadRequest),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", Status::BadRequest),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", Status::BadRequest),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", Status::BadRequest),
        ("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Status::BadRequest),
        ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Status::NotImplemented),
        ("GET / HTTP/1.1\r\nHost: a\r\nExpect: a miracle\r\n\r\n", Status::ExpectationFailed),
        (&*long_target, Status::UriTooLong),
        (&*long_line, Status::UriTooLong),
        (&*long_field, Status::FieldsTooLarge),
        (&*many_fields, Status::FieldsTooLarge),
    ] {
        let mut heads = Heads::default();
        let request = heads.take(head.as_bytes()).1.unwrap_or_else(|| panic!("{head:?} is incomplete"));
        assert_eq!((request.wanted, request.is_last), (Wanted::Error(status), true), "{head:?}");
        assert!(!heads.is_incomplete());
    }
}

#[test]
fn a_request_with_a_body_is_refused_and_is_the_last_one() {
    for fields in
        ["Content-Length: 1\r\n", "Transfer-Encoding: chunked\r\n", "Content-Length: 9\r\nExpect: 100-continue\r\n"]
    {
        let request = get("/metrics", fields);
        assert_eq!((request.wanted, request.is_last), (Wanted::Error(Status::ContentTooLarge), true), "{fields:?}");
    }
    let request = ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n");
    assert_eq!((request.wanted, request.is_last), (Wanted::Error(Status::MethodNotAllowed), true));
    assert!(!get("/metrics", "Content-Length: 0\r\n").is_last);
}

#[test]
fn the_connection_stays_open_as_the_version_and_the_client_have_it() {
    assert!(!get("/", "").is_last);
    assert!(get("/", "Connection: Upgrade, close\r\n").is_last);
    assert!(ask("GET / HTTP/1.0\r\n\r\n").is_last);
    let kept = ask("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n");
    assert!(kept.is_kept_alive && !kept.is_last);
}

#[test]
fn metrics_come_in_the_format_that_the_client_prefers() {
    // As Prometheus 2.42 sends it.
    let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                      text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    for (accept, format) in [
        (prometheus, Format::OpenMetrics),
        ("application/openmetrics-text; version=\"1.0.0\"", Format::OpenMetrics),
        ("application/openmetrics-text", Format::OpenMetrics),
        ("application/openmetrics-text;version=0.0.1", Format::Text),
        ("application/openmetrics-text;q=0", Format::Text),
        ("application/openmetrics-text;q=0.2, text/plain;q=0.3", Format::Text),
        ("text/html, */*;q=0.8", Format::Text),
        ("*/*", Format::Text),
    ] {
        let request = get("/metrics", &format!("Accept: {accept}\r\n"));
        assert_eq!(request.wanted, Wanted::Resource(Resource::Metrics(format)), "{accept}");
    }
}

proptest! {
    #[test]
    fn a_head_is_read_the_same_however_it_is_cut(
        head in "(\r\n)?(GET|HEAD|POST) /(metrics|livez)? HTTP/1\\.[01]\r?\n(Host: a\r?\n)?([A-C]: [a-z ]{0,9}\r?\n){0,5}\r?\n",
        cuts in prop::collection::vec(1..40_usize, 0..8),
    ) {
        let whole = Heads::default().take(head.as_bytes()).1;
        prop_assert!(whole.is_some());
        let (mut heads, mut rest, mut found) = (Heads::default(), head.as_bytes(), None);
        for cut in cuts.into_iter().chain([usize::MAX]) {
            let (part, others) = rest.split_at(cut.min(rest.len()));
            rest = others;
            let (taken, request) = heads.take(part);
            if request.is_some() {
                prop_assert_eq!(taken, part.len());
                found = request;
                break;
            }
        }
        prop_assert_eq!(found, whole);
    }

    #[test]
    fn any_bytes_are_taken_without_keeping_more_than_a_head(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..60)) {
        let mut heads = Heads::default();
        for part in parts {
            let mut rest = &part[..];
            while !rest.is_empty() {
                let (taken, request) = heads.take(rest);
                prop_assert!(taken > 0 && heads.kept_bytes() < MAX_HEAD_BYTES);
                prop_assert!(request.is_some() || taken == rest.len());
                rest = &rest[taken..];
            }
        }
    }
}
