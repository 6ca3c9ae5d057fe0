//! The examples under load, from the usual tools for such servers and from peers that do not read.

#[path = "../../examples/chat.rs"]
pub(crate) mod chat;
#[path = "../../examples/discard.rs"]
pub(crate) mod discard;
#[path = "../../examples/http.rs"]
mod http;
#[path = "../../examples/login.rs"]
pub(crate) mod login;
#[path = "../../examples/redis.rs"]
mod redis;
#[path = "../../examples/store.rs"]
pub(crate) mod store;

use std::io::Write;
use std::process::Command;

use edgecho::protocol::testing::TestReply;
use edgecho::protocol::{Extent, Format, Protocol};
use edgecho::server::Server;
use proptest::prelude::*;

use crate::library::Running;
use crate::support::client::{assert_same, connect, finish, read_to_fin};
use crate::support::{run, skip};

/// Returns whether a tool is missing. Reports the test as skipped if it is.
fn is_missing(tool: &str, test: &str) -> bool {
    let is_missing = Command::new(tool).arg("--version").output().is_err();
    if is_missing {
        skip(test, &format!("there is no {tool}"));
    }
    is_missing
}

/// Sends requests and a FIN without reading. Waits until the server has stopped reading, and then receives all answers.
fn pipeline<P: Protocol + Send + 'static>(protocol: P, requests: &[u8], most_pending_bytes: u64) -> Vec<u8>
where
    P::Session: Send,
{
    let builder = Server::builder().configure(|config| config.limits.memory_limit = Some(1 << 20));
    let server = Running::start(protocol, builder);
    let stream = connect(server.address());
    (&stream).write_all(requests).expect("send");
    finish(&stream);
    server.stall();
    let answers = read_to_fin(&stream);
    drop(stream);
    let statistics = server.end().statistics;
    assert!(statistics.most_pending_bytes <= most_pending_bytes, "{statistics}");
    answers
}

#[test]
fn pipelined_requests_to_the_store_are_answered_as_fast_as_their_peer_reads() {
    let value = "x".repeat(14_000);
    let gets = 28_000 / "GET k\n".len();
    let requests = format!("SET k {value}\n{}", "GET k\n".repeat(gets));
    let answers = pipeline(store::Store::default(), requests.as_bytes(), 256 << 10);
    assert_same(&answers, format!("OK\n{}", format!("VALUE {value}\n").repeat(gets)).as_bytes());
}

#[test]
fn pipelined_requests_to_redis_are_answered_as_fast_as_their_peer_reads() {
    let value = "x".repeat(20_000);
    let set = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n{value}\r\n", value.len());
    let requests = format!("{set}{}", "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n".repeat(1_300));
    let answers = pipeline(redis::Redis::default(), requests.as_bytes(), 256 << 10);
    assert_same(&answers, format!("+OK\r\n{}", format!("${}\r\n{value}\r\n", value.len()).repeat(1_300)).as_bytes());
}

#[test]
fn pipelined_http_requests_are_answered_as_fast_as_their_peer_reads() {
    let requests = "GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(100_000);
    let answers = pipeline(http::Http::default(), requests.as_bytes(), 256 << 10);
    assert_eq!(String::from_utf8_lossy(&answers).matches("Hello, world!\n").count(), 100_000);
}

/// Cuts a stream into parts, hands them to a protocol as the server does, and returns its answers.
fn answers<P: Protocol>(protocol: &mut P, stream: &[u8], cuts: &[usize]) -> Vec<u8> {
    let mut reply = TestReply::new(1);
    let mut session = protocol.open(&mut reply);
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (stream.len() + 1)).chain([stream.len()]).collect();
    cuts.sort_unstable();
    let mut from = 0;
    for to in cuts {
        while from < to && !reply.is_closed() {
            protocol.receive(&mut session, &stream[from..to], &mut reply);
            from = to - reply.left_bytes();
        }
    }
    reply.take_sent()
}

#[test]
fn redis_words_its_answers_as_redis_does() {
    for (request, answer) in [
        ("PING\r\n", "+PONG\r\n"),
        ("ping hello\n", "$5\r\nhello\r\n"),
        ("\r\n*0\r\n", ""),
        ("*2\r\n$4\r\nECHO\r\n$4\r\na\r\nb\r\n", "$4\r\na\r\nb\r\n"),
        ("GET a\r\nSET a 1\r\nINCR a\r\nINCR n\r\nGET a\r\n", "$-1\r\n+OK\r\n:2\r\n:1\r\n$1\r\n2\r\n"),
        ("MSET a 1 b 2\r\nMGET a b c\r\nDEL a b c\r\n", "+OK\r\n*3\r\n$1\r\n1\r\n$1\r\n2\r\n$-1\r\n:2\r\n"),
        ("SET a x\r\nINCR a\r\n", "+OK\r\n-ERR value is not an integer or out of range\r\n"),
        ("SET a 9223372036854775807\r\nINCR a\r\n", "+OK\r\n-ERR increment or decrement would overflow\r\n"),
        ("SET a 1 EX 10\r\n", "-ERR syntax error\r\n"),
        ("GET\r\nget a b\r\n", &"-ERR wrong number of arguments for 'get' command\r\n".repeat(2)),
        ("FOO a b\r\n", "-ERR unknown command 'FOO', with args beginning with: 'a' 'b' \r\n"),
        ("CONFIG GET save\r\nCOMMAND\r\n", "*2\r\n$4\r\nsave\r\n$0\r\n\r\n*0\r\n"),
        ("QUIT\r\nPING\r\n", "+OK\r\n"),
        ("*1\r\n+PING\r\nPING\r\n", "-ERR Protocol error: expected '$'\r\n"),
        ("*x\r\nPING\r\n", "-ERR Protocol error: invalid multibulk length\r\n"),
        ("*1\r\n$-1\r\nPING\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
        ("*2\r\n$3\r\nGET\r\n$9999999\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
    ] {
        let sent = answers(&mut redis::Redis::default(), request.as_bytes(), &[]);
        assert_eq!(String::from_utf8_lossy(&sent), answer, "{request:?}");
    }
}

#[test]
fn redis_stays_within_its_memory() {
    let mut store = redis::Redis::default();
    let mut set = |key: usize| {
        let value = "x".repeat(1_000_000);
        let command = format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n$1000000\r\n{value}\r\n", key.to_string().len());
        String::from_utf8(answers(&mut store, command.as_bytes(), &[])).expect("text")
    };
    let full = (0..100).map(&mut set).position(|answer| answer.starts_with("-OOM command not allowed"));
    assert_eq!(full, Some(67), "64 MiB");
    assert_eq!(set(0), "+OK\r\n", "a value may be replaced");
    let many = format!("MGET{}\r\n", " 0".repeat(1_000));
    assert_eq!(answers(&mut store, many.as_bytes(), &[]), b"-ERR the reply is too large\r\n");
    let large = answers(&mut store, &[b'x'; 1 << 20].repeat(2), &[]);
    assert_eq!(large, b"-ERR Protocol error: too big inline request\r\n");
    let large = answers(&mut store, b"*1\r\n$1048576\r\n", &[]);
    assert_eq!(large, b"-ERR Protocol error: too big request\r\n");
}

#[test]
fn redis_counts_keys_as_memory_too() {
    let mut store = redis::Redis::default();
    let commands: String = (0..700_000).map(|key| format!("SET {key} \"\"\r\n")).collect();
    let sent = answers(&mut store, commands.as_bytes(), &[]);
    assert!(sent.ends_with(b"-OOM command not allowed when used memory > 'maxmemory'.\r\n"), "64 MiB of small keys");
}

#[test]
fn redis_looks_at_each_byte_of_a_command_once() {
    // 100,000 words and 60,000 bytes without an end, in small segments. Looking again from the start would take minutes.
    for (head, segment, count) in [("*150000\r\n", "$0\r\n\r\n", 100_000), ("", "xxxxxx", 10_000)] {
        let mut commands = redis::Resp::default();
        let mut bytes = head.as_bytes().to_vec();
        for _ in 0..count {
            bytes.extend_from_slice(segment.as_bytes());
            assert!(matches!(commands.measure(&bytes), Ok(Extent::AtLeast(_))));
        }
    }
}

#[test]
fn http_lines_may_end_with_a_line_feed_alone() {
    let requests = b"GET / HTTP/1.1\nHost: a\n\nGET /none HTTP/1.1\r\nHost: b\n\r\nPOST /echo HTTP/1.1\nHost: a\nContent-Length: 5\n\nhello";
    let sent = String::from_utf8(answers(&mut http::Http::default(), requests, &[])).expect("text");
    let statuses: Vec<_> = sent.match_indices("HTTP/1.1 ").map(|(at, _)| &sent[at + 9..at + 12]).collect();
    assert_eq!(statuses, ["200", "404", "200"], "{sent}");
    assert!(sent.ends_with("\r\n\r\nhello"), "{sent}");
}

const REQUESTS: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n\r\nPOST /echo HTTP/1.1\r\nhost: a\r\nContent-Length: 5\r\n\r\nhello\
    HEAD / HTTP/1.1\r\nHost: a\r\n\r\nGET /none HTTP/1.1\r\nHost: a\r\n\r\nPOST /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET / HTTP/1.1\r\n";

proptest! {
    #[test]
    fn answers_are_the_same_however_requests_are_cut(cuts in prop::collection::vec(0_usize..2_000, 0..12)) {
        let stream = "*2\r\n$4\r\nECHO\r\n$3\r\nabc\r\nSET k v\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*1\r\n$4\r\nPING\r\n*1\r\n!".repeat(2);
        let whole = answers(&mut redis::Redis::default(), stream.as_bytes(), &[]);
        prop_assert_eq!(answers(&mut redis::Redis::default(), stream.as_bytes(), &cuts), whole);
        let whole = answers(&mut http::Http::default(), REQUESTS.as_bytes(), &[]);
        prop_assert_eq!(answers(&mut http::Http::default(), REQUESTS.as_bytes(), &cuts), whole);
    }
}

#[test]
fn redis_cli_and_redis_benchmark_find_a_redis() {
    let test = "redis_cli_and_redis_benchmark_find_a_redis";
    if is_missing("redis-cli", test) || is_missing("redis-benchmark", test) {
        return;
    }
    let server = Running::start(redis::Redis::default(), Server::builder());
    let port = server.address().port().to_string();
    let redis = |arguments: &[&str]| {
        let (status, stdout, stderr) = run(Command::new("redis-cli").args(["-p", &port]).args(arguments));
        assert!(status.success() && stderr.is_empty(), "{arguments:?}: {status}: {stderr}");
        stdout
    };
    assert_eq!(redis(&["set", "greeting", "hello, world"]), "OK\n");
    assert_eq!(redis(&["get", "greeting"]), "hello, world\n");
    assert_eq!(redis(&["mget", "greeting", "none"]), "hello, world\n\n");
    assert_eq!(redis(&["-r", "3", "incr", "counter"]), "1\n2\n3\n");
    assert_eq!(redis(&["del", "greeting", "counter", "none"]), "2\n");
    assert_eq!(redis(&["get", "a", "b"]), "ERR wrong number of arguments for 'get' command\n\n");
    assert!(redis(&["info"]).contains("redis_version"));
    assert_eq!(redis(&["get", "greeting"]), "\n");
    let (status, stdout, stderr) = run(Command::new("redis-benchmark").args([
        "-p",
        &port,
        "-n",
        "20000",
        "-c",
        "20",
        "-P",
        "16",
        "-q",
        "--csv",
        "-t",
        "ping,set,get,incr,mset",
    ]));
    assert!(status.success(), "{status}: {stderr}");
    let rows: Vec<&str> = stdout.lines().filter(|row| row.starts_with('"') && !row.contains("rps")).collect();
    assert_eq!(rows.len(), 6, "ping twice, set, get, incr and mset: {stdout}{stderr}");
    server.end();
}

#[test]
fn curl_finds_a_web_server() {
    if is_missing("curl", "curl_finds_a_web_server") {
        return;
    }
    let server = Running::start(http::Http::default(), Server::builder());
    let curl = |path: &str, arguments: &[&str]| {
        let url = format!("http://{}{path}", server.address());
        let (status, stdout, stderr) = run(Command::new("curl").args(["-s", "-S", "-m", "30"]).args(arguments).arg(&url));
        assert!(status.success(), "{path} {arguments:?}: {status}: {stderr}");
        stdout
    };
    assert_eq!(curl("/", &[]), "Hello, world!\n");
    let head = curl("/", &["-I"]);
    assert!(head.starts_with("HTTP/1.1 200 OK\r\nDate: ") && head.contains("Content-Length: 14\r\n"), "{head}");
    assert_eq!(curl("/echo", &["-d", "hello"]), "hello");
    assert_eq!(curl("/echo", &["-d", "hello", "-H", "Expect: 100-continue"]), "hello");
    assert_eq!(curl("/echo", &["--http1.0", "-d", "hello"]), "hello");
    let status = |path, arguments: &[&str]| {
        curl(path, &[&["-o", "/dev/null", "-w", "%{http_code} %{num_connects}"], arguments].concat())
    };
    assert_eq!(status("/none", &[]), "404 1");
    assert_eq!(status("/", &["-d", "hello"]), "405 1");
    assert_eq!(status("/echo", &["-d", &"x".repeat(65_537)]), "413 1");
    assert_eq!(status("/echo", &["-d", "hello", "-H", "Transfer-Encoding: chunked"]), "501 1");
    assert_eq!(status("/echo", &["-d", "hello", "-H", "Expect: miracles"]), "417 1");
    assert_eq!(status("/", &["-H", &format!("Large: {}", "x".repeat(9_000))]), "431 1");
    assert_eq!(status("/", &["-H", "Host:"]), "400 1");
    // Two requests on one connection, and two on two.
    let twice = |arguments: &[&str]| {
        let url = format!("http://{}/", server.address());
        curl("/", &[&["-o", "/dev/null", "-o", "/dev/null", "-w", "%{num_connects}", &url], arguments].concat())
    };
    assert_eq!((&*twice(&[]), &*twice(&["-H", "Connection: close"])), ("10", "11"));
    server.end();
}

#[test]
fn wrk_gets_nothing_but_answers() {
    if is_missing("wrk", "wrk_gets_nothing_but_answers") {
        return;
    }
    let server = Running::start(http::Http::default(), Server::builder());
    let url = format!("http://{}/", server.address());
    let (status, stdout, stderr) = run(Command::new("wrk").args(["-d", "1s", "-t", "1", "-c", "20", &url]));
    assert!(status.success() && stdout.contains("Requests/sec"), "{status}: {stdout}{stderr}");
    assert!(!stdout.contains("Socket errors") && !stdout.contains("Non-2xx"), "{stdout}");
    assert_eq!(server.end().aborted, 0);
}

#[test]
fn http_requests_that_make_no_sense_are_refused_and_the_connection_is_closed() {
    let long = format!("GET / HTTP/1.1\r\n{}", "a: b\r\n".repeat(2_000));
    let fields = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(65));
    for (request, status) in [
        ("nonsense\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\n\r\n", "400"),
        ("GET / HTTP/3.0\r\nHost: a\r\n\r\n", "505"),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "400"),
        (&long, "431"),
        (&fields, "431"),
    ] {
        let mut reply = TestReply::new(1);
        let mut http = http::Http::default();
        let mut session = http.open(&mut reply);
        http.receive(&mut session, format!("{request}GET / HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes(), &mut reply);
        let sent = String::from_utf8(reply.take_sent()).expect("text");
        assert!(
            sent.starts_with(&format!("HTTP/1.1 {status} ")) && sent.contains("Connection: close"),
            "{request:?}: {sent}"
        );
        assert_eq!((sent.matches("HTTP/1.1").count(), reply.is_closed()), (1, true), "nothing follows: {sent}");
    }
}
