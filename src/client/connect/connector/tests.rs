//! Tests of a connector over a scripted stream.

use super::*;
use crate::client::bytes::Framing;
use crate::stream::Stream;
use std::collections::VecDeque;

/// A stream on which each call returns the next scripted result.
#[derive(Default)]
struct Script {
    outcome: Option<i32>,
    sends: VecDeque<Result<usize, i32>>,
    recvs: VecDeque<Result<Vec<u8>, i32>>,
    sent: Vec<u8>,
}

impl Stream for Script {
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.recvs.pop_front().unwrap_or(Err(libc::EAGAIN)).map_err(io::Error::from_raw_os_error)?;
        buffer[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.sends.pop_front().unwrap_or(Ok(bytes.len())).map_err(io::Error::from_raw_os_error)?;
        self.sent.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Connecting for Script {
    fn outcome(&mut self) -> io::Result<()> {
        self.outcome.map_or(Ok(()), |number| Err(io::Error::from_raw_os_error(number)))
    }
}

fn handshake() -> Handshake {
    Handshake::new(&mut fastrand::Rng::with_seed(1), Framing::Bytes)
}

fn connector(script: Script) -> Connector<Script> {
    Connector::new(script, Some(handshake()), Timeouts::default(), Instant::now())
}

fn failure(step: Step) -> String {
    match step {
        Step::Failed(error) => error.to_string(),
        step => panic!("{step:?}"),
    }
}

#[test]
fn it_goes_through_its_states_one_by_one_whatever_the_kernel_cuts() {
    let bytes = *handshake().bytes();
    let mut script = Script::default();
    script.sends.extend([Err(libc::EAGAIN), Ok(3), Err(libc::EINTR), Ok(13)]);
    let mut connector = connector(script);
    let now = Instant::now();
    assert!(matches!(connector.on_event(EpollFlags::IN, now), Step::Waiting));
    assert_eq!(connector.state(), State::Initiated);
    for _ in 0..3 {
        assert!(matches!(connector.on_event(EpollFlags::OUT, now), Step::Waiting));
        assert_eq!(connector.state(), State::SentHandshake);
    }
    assert!(matches!(connector.on_event(EpollFlags::OUT, now), Step::Waiting));
    assert_eq!(connector.state(), State::AwaitingAck);
    assert_eq!(connector.stream.sent, bytes);
    connector.stream.recvs.extend([Ok(bytes[..1].to_vec()), Err(libc::EINTR), Ok(bytes[1..9].to_vec())]);
    assert!(matches!(connector.on_event(EpollFlags::IN, now), Step::Waiting));
    connector.stream.recvs.push_back(Ok(bytes[9..].to_vec()));
    assert!(matches!(connector.on_event(EpollFlags::IN | EpollFlags::RDHUP, now), Step::Connected));
    assert!(
        connector.into_stream().1.contains(Readiness::FIN | Readiness::READABLE),
        "the FIN that came with it is remembered"
    );
}

#[test]
fn without_a_handshake_it_is_connected_when_the_far_end_has_accepted() {
    let mut connector = Connector::new(Script::default(), None, Timeouts::default(), Instant::now());
    let now = Instant::now();
    assert!(matches!(connector.on_event(EpollFlags::OUT, now), Step::Connected));
    assert!(connector.stream.sent.is_empty());
}

#[test]
fn each_way_to_fail_has_its_own_message() {
    let of_connect = |number| {
        let mut connector = connector(Script { outcome: Some(number), ..Script::default() });
        failure(connector.on_event(EpollFlags::OUT | EpollFlags::ERR | EpollFlags::HUP, Instant::now()))
    };
    assert!(of_connect(libc::ECONNREFUSED).starts_with("connection refused"));
    assert!(of_connect(libc::EHOSTUNREACH).starts_with("host unreachable"));
    assert!(of_connect(libc::ENETUNREACH).starts_with("host unreachable"));
    assert!(of_connect(libc::ETIMEDOUT).starts_with("connection timed out"));
    assert!(of_connect(libc::ECONNRESET).starts_with("connection reset"));
    let of_answer = |answer: Result<Vec<u8>, i32>| {
        let mut script = Script::default();
        script.recvs.push_back(answer);
        failure(connector(script).on_event(EpollFlags::IN | EpollFlags::OUT, Instant::now()))
    };
    assert!(of_answer(Err(libc::ECONNRESET)).contains("reset by the peer"));
    assert!(of_answer(Ok(vec![])).contains("closed the connection without returning anything"));
    assert!(of_answer(Ok(b"HTTP/1.1 400 Bad Request\r\n".to_vec())).contains("an HTTP server"));
    assert!(of_answer(Ok(b"220 mail.example ESMTP\r\n".to_vec())).contains("SMTP"));
    assert!(of_answer(Ok(b"who are you?".to_vec())).contains("\"who are you?\""));
    let mut changed = handshake().bytes().to_vec();
    changed[5] ^= 0x20;
    assert!(of_answer(Ok(changed)).contains("byte 5 of the handshake"));
    let mut longer = handshake().bytes().to_vec();
    longer.push(b'!');
    assert!(of_answer(Ok(longer)).contains("not an echo service"));
}

fn header() -> ProxyHeader {
    let address = |text: &str| text.parse().expect("an address");
    ProxyHeader::new(crate::client::ProxyVersion::V1, address("127.0.0.1:1"), address("127.0.0.1:2"))
}

#[test]
fn a_proxy_header_goes_out_before_the_handshake_whatever_the_kernel_cuts() {
    let opening = [header().bytes(), handshake().bytes()].concat();
    let mut connector = connector(Script::default()).with_header(&header());
    assert_eq!(connector.header_bytes(), header().bytes().len());
    let now = Instant::now();
    while connector.stream.sent.len() < opening.len() {
        connector.stream.sends.push_back(Ok(3.min(opening.len() - connector.stream.sent.len())));
        assert!(matches!(connector.on_event(EpollFlags::OUT, now), Step::Waiting));
    }
    assert_eq!((&connector.stream.sent, connector.state()), (&opening, State::AwaitingAck));
    connector.stream.recvs.push_back(Ok(handshake().bytes().to_vec()));
    assert!(matches!(connector.on_event(EpollFlags::IN, now), Step::Connected));
}

#[test]
fn a_proxy_header_is_sent_whole_before_a_connection_without_a_handshake_can_be_used() {
    let script = Script { sends: [Ok(3), Err(libc::EAGAIN)].into(), ..Script::default() };
    let now = Instant::now();
    let mut connector = Connector::new(script, None, Timeouts::default(), now).with_header(&header());
    assert!(matches!(connector.on_event(EpollFlags::OUT, now), Step::Waiting));
    assert!(matches!(connector.on_event(EpollFlags::OUT, now), Step::Waiting));
    assert!(matches!(connector.on_event(EpollFlags::OUT, now), Step::Connected));
    assert_eq!(connector.stream.sent, header().bytes());
}

#[test]
fn a_far_end_that_echoes_the_proxy_header_is_told_from_other_services() {
    let echoed = [header().bytes(), handshake().bytes()].concat();
    for cut in [1, 7, echoed.len()] {
        let mut script = Script::default();
        script.recvs.push_back(Ok(echoed[..cut].to_vec()));
        let mut connector = connector(script).with_header(&header());
        let said = failure(connector.on_event(EpollFlags::IN | EpollFlags::OUT, Instant::now()));
        assert_eq!(said, "the far end echoed the PROXY header: it does not accept the PROXY protocol");
    }
    let mut script = Script::default();
    script.recvs.push_back(Ok(b"HTTP/1.1 400 Bad Request\r\n".to_vec()));
    let mut connector = connector(script).with_header(&header());
    assert!(failure(connector.on_event(EpollFlags::IN | EpollFlags::OUT, Instant::now())).contains("an HTTP server"));
}

#[test]
fn a_greeting_is_named_even_when_our_bytes_find_no_room() {
    let mut script = Script::default();
    script.sends.push_back(Err(libc::EAGAIN));
    script.recvs.push_back(Ok(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()));
    assert!(failure(connector(script).on_event(EpollFlags::IN | EpollFlags::OUT, Instant::now())).contains("SSH"));
}

#[test]
fn each_state_has_its_deadline() {
    let start = Instant::now();
    let timeouts = Timeouts { connect: Duration::from_secs(1), handshake: Duration::from_secs(5) };
    let mut connector = Connector::new(Script::default(), Some(handshake()), timeouts, start);
    assert_eq!(connector.deadline(), start + Duration::from_secs(1));
    assert!(connector.time_out().to_string().starts_with("connection timed out: no answer within 1s"));
    let later = start + Duration::from_millis(500);
    assert!(matches!(connector.on_event(EpollFlags::OUT, later), Step::Waiting));
    assert_eq!(connector.connect_time(), Duration::from_millis(500));
    assert_eq!(connector.deadline(), later + Duration::from_secs(5));
    assert!(connector.time_out().to_string().contains("returned nothing of the handshake within 5s"));
}
