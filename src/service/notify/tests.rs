//! Tests of the notifier.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A receiver with a name of its own, and a notifier that is connected to it.
fn pair(name: &str, watchdog: Option<Duration>) -> (UnixDatagram, Notifier) {
    let name = format!("edgecho-{}-{name}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("an abstract name");
    let receiver = UnixDatagram::bind_addr(&address).expect("a receiver");
    receiver.set_nonblocking(true).expect("non-blocking");
    let notifier = Notifier::connect(OsStr::new(&format!("@{name}")), watchdog).expect("connected");
    (receiver, notifier)
}

fn received(receiver: &UnixDatagram) -> Vec<String> {
    let mut buffer = [0; 256];
    let next = || receiver.recv(&mut buffer).ok().map(|count| String::from_utf8_lossy(&buffer[..count]).into_owned());
    std::iter::from_fn(next).collect()
}

fn view(now: Instant, stage: Stage, open: usize) -> View {
    View { now, stage, open, accepted: 0 }
}

#[test]
fn a_status_follows_a_change_and_at_most_once_a_second() {
    let (receiver, mut notifier) = pair("status", None);
    let start = Instant::now();
    assert_eq!(notifier.observe(&view(start, Stage::Serving, 0)), None);
    assert_eq!(received(&receiver), ["READY=1\nSTATUS=serving 0 connections"]);
    let next = notifier.observe(&view(start + SECOND / 4, Stage::Serving, 1));
    assert_eq!(next, Some(start + SECOND));
    assert_eq!(notifier.observe(&view(start + SECOND / 3, Stage::Serving, 2)), next);
    assert_eq!(received(&receiver), [""; 0]);
    assert_eq!(notifier.observe(&view(start + SECOND, Stage::Serving, 2)), None);
    assert_eq!(received(&receiver), ["STATUS=serving 2 connections"]);
    // A change that was taken back.
    assert_eq!(notifier.observe(&view(start + SECOND * 3 / 2, Stage::Serving, 1)), Some(start + SECOND * 2));
    assert_eq!(notifier.observe(&view(start + SECOND * 5 / 3, Stage::Serving, 2)), None);
    assert_eq!(notifier.observe(&view(start + SECOND * 9, Stage::Serving, 1)), None);
    assert_eq!(received(&receiver), ["STATUS=serving 1 connection"]);
}

#[test]
fn stopping_is_sent_once_and_at_once() {
    let (receiver, mut notifier) = pair("stopping", None);
    let start = Instant::now();
    notifier.observe(&view(start, Stage::Serving, 3));
    assert_eq!(notifier.observe(&view(start, Stage::Draining, 3)), Some(start + SECOND));
    notifier.observe(&view(start + SECOND, Stage::Draining, 3));
    notifier.observe(&view(start + SECOND, Stage::Over, 3));
    let messages = received(&receiver);
    assert_eq!(messages, ["READY=1\nSTATUS=serving 3 connections", "STOPPING=1", "STATUS=draining 3 connections"]);
}

#[test]
fn the_status_tells_the_stages_apart() {
    let (receiver, mut notifier) = pair("stages", None);
    let start = Instant::now();
    for (&stage, second) in Stage::ALL.iter().zip(0..) {
        notifier.observe(&view(start + SECOND * second, stage, 1));
    }
    let messages = received(&receiver);
    let expected = [
        "READY=1\nSTATUS=serving 1 connection",
        "STOPPING=1",
        "STATUS=leaving, still serving 1 connection",
        "STATUS=draining 1 connection",
        "STATUS=closing 1 connection",
        "STATUS=cutting off 1 connection",
    ];
    assert_eq!(messages, expected);
}

#[test]
fn the_watchdog_is_fed_at_half_of_its_interval() {
    let (receiver, mut notifier) = pair("watchdog", Some(SECOND * 10));
    let start = Instant::now();
    assert_eq!(notifier.observe(&view(start, Stage::Serving, 0)), Some(start + SECOND * 5));
    assert_eq!(notifier.observe(&view(start + SECOND * 4, Stage::Serving, 0)), Some(start + SECOND * 5));
    assert_eq!(received(&receiver), ["READY=1\nSTATUS=serving 0 connections", "WATCHDOG=1"]);
    // After a pause of the process the next one comes half an interval later.
    assert_eq!(notifier.observe(&view(start + SECOND * 60, Stage::Serving, 0)), Some(start + SECOND * 65));
    assert_eq!(received(&receiver), ["WATCHDOG=1"]);
}

#[test]
fn a_full_receiver_blocks_nothing_and_gets_each_state_later() {
    let (receiver, mut notifier) = pair("full", None);
    while notifier.send("a message that is in the way") {}
    let start = Instant::now();
    assert_eq!(notifier.observe(&view(start, Stage::Serving, 0)), Some(start + RETRY));
    received(&receiver);
    assert_eq!(notifier.observe(&view(start + RETRY / 2, Stage::Draining, 0)), Some(start + RETRY), "a try per pause");
    assert_eq!(received(&receiver), [""; 0]);
    notifier.observe(&view(start + RETRY, Stage::Draining, 0));
    assert_eq!(received(&receiver), ["READY=1\nSTATUS=draining 0 connections", "STOPPING=1"]);
    while notifier.send("a message that is in the way") {}
    let now = start + SECOND * 5;
    assert_eq!(notifier.observe(&view(now, Stage::Draining, 1)), Some(now + STATUS_INTERVAL), "only a status");
    received(&receiver);
    assert_eq!(notifier.observe(&view(now + STATUS_INTERVAL, Stage::Draining, 2)), None);
    assert_eq!(received(&receiver), ["STATUS=draining 2 connections"]);
}

#[test]
fn without_a_receiver_the_notification_ends() {
    let (receiver, mut notifier) = pair("gone", Some(SECOND));
    drop(receiver);
    assert_eq!(notifier.observe(&view(Instant::now(), Stage::Serving, 0)), None);
    assert!(notifier.socket.is_none());
}

#[test]
fn an_address_of_another_kind_is_refused() {
    for (address, part) in [
        ("vsock:2:1234", "vsock(7) addresses are not supported"),
        ("vsock-stream:2:1234", "vsock(7) addresses are not supported"),
        ("run/notify", "neither an absolute path"),
        ("/no/such/socket", "cannot connect to NOTIFY_SOCKET \"/no/such/socket\": No such file"),
        (&format!("/{}", "x".repeat(200)), "cannot connect"),
    ] {
        let error = Notifier::connect(OsStr::new(address), None).expect_err(part).to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn the_watchdog_of_another_process_is_ignored_and_a_wrong_value_is_named() {
    let watchdog = |usec: &str, pid: &str| {
        let value = |name| if name == "WATCHDOG_USEC" { usec.into() } else { pid.into() };
        watchdog_in(|name| Some(value(name)).filter(|value: &OsString| !value.is_empty()), 7)
    };
    assert_eq!(watchdog("30000000", "7").expect("good values"), Some(SECOND * 30));
    assert_eq!(watchdog("30000000", "").expect("good values"), Some(SECOND * 30));
    assert_eq!(watchdog("30000000", "8").expect("of another process"), None);
    assert_eq!(watchdog("", "7").expect("none"), None);
    for (usec, pid) in [("0", "7"), ("soon", "7"), ("-1", "7"), ("1", "me")] {
        let error = watchdog(usec, pid).expect_err("a wrong value").to_string();
        assert!(error.starts_with("WATCHDOG_"), "{error}");
    }
    let (_receiver, mut notifier) = pair("infinity", Some(Duration::from_micros(u64::MAX)));
    let start = Instant::now();
    assert_eq!(notifier.observe(&view(start, Stage::Serving, 0)), Some(start + LONGEST_INTERVAL));
}
