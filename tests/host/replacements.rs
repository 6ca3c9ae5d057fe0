//! Servers behind HAProxy are replaced one at a time, while clients come and go. The configurations are in docs/load-balancers.md.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::haproxy::Haproxy;
use crate::nginx::Nginx;
use crate::support::client::{connect, echo, free_address, pattern};
use crate::support::{PATIENCE, Process, edgecho, wait_until};
use crate::tools::tool;

const REPLACEMENTS: usize = 10;
const CLIENTS: u64 = 4;
/// The pause of a client between two connections: HAProxy and the servers must keep up on a busy machine, too.
const PAUSE: Duration = Duration::from_millis(3);

/// Returns the configuration in docs/load-balancers.md that begins with `first`, with other addresses and times.
fn configuration(first: &str, changes: &[(&str, String)]) -> String {
    let page = include_str!("../../docs/load-balancers.md");
    let start = page.find(first).expect("the configuration is on the page");
    let mut text = page[start..].split("```").next().expect("a block").to_owned();
    for (from, to) in changes {
        assert!(text.contains(from), "the page has no {from:?}: {text}");
        text = text.replace(from, to);
    }
    text
}

/// Returns the section of HAProxy. Two failed health checks, 100 ms apart, take a server out of the rotation. Between the end of a listener
/// and the second failed check HAProxy sends every other client to the closed port.
fn section(front: SocketAddr, servers: &[Address; 2]) -> String {
    let [a, b] = servers.map(|Address { listen, admin }| format!("{listen} port {}", admin.port()));
    let changes = [
        ("192.0.2.1:7\n", format!("{front}\n")),
        ("192.0.2.11:7777 port 9777", a),
        ("192.0.2.12:7777 port 9777", b),
        ("inter 1s", "inter 100ms".to_owned()),
    ];
    configuration("listen echo\n", &changes)
}

/// The addresses that a server has before and after it is replaced. Both have the same IP address.
#[derive(Clone, Copy)]
struct Address {
    listen: SocketAddr,
    admin: SocketAddr,
}

impl Address {
    fn new() -> Self {
        let listen = free_address();
        let listener = TcpListener::bind((listen.ip(), 0)).expect("a port");
        Self { listen, admin: listener.local_addr().expect("an address") }
    }

    fn start(self, drain_delay: &str) -> Process {
        let [listen, admin] = [self.listen, self.admin].map(|address| address.to_string());
        let arguments = ["serve", "--listen", &listen, "--admin", &admin, "--drain-delay", drain_delay];
        Process::spawn(&mut edgecho(&arguments))
    }
}

/// A connection on which not every byte came back.
struct Failure {
    begun: Instant,
    ended: Instant,
    reason: String,
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} after {:?}", self.reason, self.ended - self.begun)
    }
}

/// Clients that come and go. Each sends some bytes and a FIN, and checks each byte that comes back.
#[derive(Default)]
struct Churn {
    is_over: AtomicBool,
    connections: AtomicU64,
    failures: Mutex<Vec<Failure>>,
}

impl Churn {
    fn run(&self, client: u64, front: SocketAddr) {
        for seed in (client..).step_by(CLIENTS as usize) {
            if self.is_over.load(Ordering::Relaxed) {
                return;
            }
            let begun = Instant::now();
            if let Err(reason) = converse(front, &pattern(seed, 1 + seed as usize * 37 % 5_000)) {
                self.failures().push(Failure { begun, ended: Instant::now(), reason });
            }
            self.connections.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(PAUSE);
        }
    }

    fn failures(&self) -> std::sync::MutexGuard<'_, Vec<Failure>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until each client has made a connection that began after this call.
    fn wait_for_a_round(&self) {
        let before = self.connections.load(Ordering::Relaxed);
        wait_until("clients come and go", || self.connections.load(Ordering::Relaxed) >= before + 4 * CLIENTS);
    }
}

/// Ends the clients when it goes out of scope, in a panic, too.
struct Over<'a>(&'a Churn);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }
}

/// Sends `bytes` and a FIN on a connection of their own, and expects them back, and then a FIN.
fn converse(front: SocketAddr, bytes: &[u8]) -> Result<(), String> {
    let failed = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    let mut stream = TcpStream::connect(front).map_err(failed("connect"))?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed("set a timeout"))?;
    stream.write_all(bytes).map_err(failed("send"))?;
    stream.shutdown(Shutdown::Write).map_err(failed("send a FIN"))?;
    let mut back = Vec::new();
    stream.read_to_end(&mut back).map_err(failed("receive"))?;
    if back == bytes { Ok(()) } else { Err(format!("{} of {} bytes came back", back.len(), bytes.len())) }
}

/// Replaces two servers behind HAProxy, ten times in turn. Returns the failed connections, and how many there were in all. Each failure
/// must be due to a replacement.
fn replace(test: &str, drain_delay: &str) -> Option<(Vec<Failure>, u64)> {
    let path = tool(test, "haproxy")?;
    let addresses = [Address::new(), Address::new()];
    let mut servers = addresses.map(|address| address.start(drain_delay));
    let front = free_address();
    let haproxy = Haproxy::start(&path, &section(front, &addresses));
    let churn = Churn::default();
    let mut windows = Vec::new();
    std::thread::scope(|scope| {
        let over = Over(&churn);
        for client in 0..CLIENTS {
            let churn = &churn;
            scope.spawn(move || churn.run(client, front));
        }
        for replacement in 0..REPLACEMENTS {
            let (index, name) = (replacement % 2, ["a", "b"][replacement % 2]);
            haproxy.wait_until_server_is("UP", "echo", name);
            churn.wait_for_a_round();
            let begun = Instant::now();
            servers[index].signal(Signal::SIGTERM);
            assert_eq!(servers[index].wait().code(), Some(0), "{}", servers[index].stderr());
            haproxy.wait_until_server_is("DOWN", "echo", name);
            churn.wait_for_a_round();
            windows.push((begun, Instant::now()));
            servers[index] = addresses[index].start(drain_delay);
        }
        for name in ["a", "b"] {
            haproxy.wait_until_server_is("UP", "echo", name);
        }
        churn.wait_for_a_round();
        drop(over);
    });
    let failures = std::mem::take(&mut *churn.failures());
    for failure in &failures {
        let is_in = |&(from, until): &(Instant, Instant)| failure.ended >= from && failure.begun <= until;
        assert!(windows.iter().any(is_in), "a failure that no replacement explains: {failure:?}\n{}", haproxy.log());
    }
    let connections = churn.connections.into_inner();
    println!(
        "drain delay {drain_delay}: {} of {connections} connections failed, the first: {:?}",
        failures.len(),
        failures.first()
    );
    Some((failures, connections))
}

#[test]
fn ten_replacements_behind_haproxy_with_a_drain_delay_fail_no_connection() {
    let test = "ten_replacements_behind_haproxy_with_a_drain_delay_fail_no_connection";
    let Some((failures, connections)) = replace(test, "2s") else { return };
    assert!(failures.is_empty(), "{} of {connections} connections failed: {failures:?}", failures.len());
}

/// The counter-test: it shows that the test above sees failures, and that the delay is what prevents them.
#[test]
fn ten_replacements_behind_haproxy_without_a_drain_delay_fail_connections() {
    let test = "ten_replacements_behind_haproxy_without_a_drain_delay_fail_connections";
    let Some((failures, connections)) = replace(test, "0s") else { return };
    assert!(!failures.is_empty(), "none of {connections} connections failed");
}

#[test]
fn nginx_sends_the_clients_of_a_server_that_has_ended_to_the_other_one() {
    let Some(path) = tool("nginx_sends_the_clients_of_a_server_that_has_ended_to_the_other_one", "nginx") else { return };
    let (one, other) = (Process::rust(&[]), Process::rust(&[]));
    let front = free_address();
    let changes = [
        ("stream {\n", String::new()),
        ("192.0.2.1:7;", format!("{front};")),
        ("192.0.2.11:7777", one.address.to_string()),
        ("192.0.2.12:7777", other.address.to_string()),
    ];
    let stream = configuration("stream {\n", &changes);
    let _nginx = Nginx::start(&path, front, stream.trim_end().strip_suffix('}').expect("the end of the section"));
    let exchange = || (0..20).for_each(|seed| echo(&connect(front), &pattern(seed, 1_000)));
    exchange();
    assert!(one.figure("accepted") >= 10 && other.figure("accepted") >= 10, "both are in the rotation");
    one.terminate();
    exchange();
    assert!(other.figure("accepted") >= 30, "the other server has all clients");
}
