//! The admin endpoint: its answers, and that nothing that its clients do affects it or the service.

mod malformed;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use edgecho::protocol::{Echo, Protocol, Reply};
use edgecho::server::{PostError, Server, StatisticsError};
use edgecho::service::admin::Admin;
use nix::sys::signal::Signal;

use crate::support::client::{connect, connect_with_receive_buffer, echo, finish};
use crate::support::http::{Answer, exchange, get, sample};
use crate::support::{Process, edgecho, eventually, pause, proc, program, run, skip, wait_until};

#[test]
fn each_path_has_its_answer_and_counts_what_clients_did() {
    let (server, admin) = Process::with_admin(&[]);
    assert_eq!((get(admin, "/livez").body.as_str(), get(admin, "/readyz").body.as_str()), ("ok\n", "serving\n"));
    let client = connect(server.address);
    echo(&client, b"hello");
    echo(&client, b"world");
    let metrics = get(admin, "/metrics");
    assert!(metrics.head.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{metrics:?}");
    for (name, value) in [
        ("edgecho_connections_open", 1),
        ("edgecho_connections_accepted_total", 1),
        ("edgecho_received_bytes_total", 10),
        ("edgecho_sent_bytes_total", 10),
        ("edgecho_connections_closed_total{reason=\"peer\"}", 0),
        ("edgecho_admin_responses_total{code=\"200\"}", 2),
    ] {
        assert_eq!(sample(&metrics.body, name), value, "{name}");
    }
    assert_eq!(sample(&metrics.body, "edgecho_turns_total"), sample(&metrics.body, "edgecho_turn_duration_seconds_count"));
    assert!(!metrics.body.contains("127.0.0.1"), "no peer has a place in the metrics");
    drop(client);
    wait_until("the close is counted", || {
        sample(&get(admin, "/metrics").body, "edgecho_connections_closed_total{reason=\"peer\"}") == 1
    });
    let page = get(admin, "/");
    assert!(
        page.body.starts_with("<!doctype html>") && page.head.contains("\r\nContent-Security-Policy: default-src 'none'; ")
    );
    server.terminate();
}

#[test]
fn pipelined_requests_are_answered_in_order_also_after_a_fin_and_however_they_are_cut() {
    let (server, admin) = Process::with_admin(&[]);
    let requests = "GET /livez HTTP/1.1\r\nHost: a\r\n\r\nHEAD /metrics HTTP/1.1\r\nHost: a\r\n\r\nGET /nothing HTTP/1.1\r\nHost: a\r\n\r\n\
                    OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\nPOST /metrics HTTP/1.1\r\nHost: a\r\n\r\nGET /readyz HTTP/1.1\r\nHost: a\r\n\r\n";
    for part in [1, 7, requests.len()] {
        let stream = connect(admin);
        for bytes in requests.as_bytes().chunks(part) {
            (&stream).write_all(bytes).expect("send");
        }
        finish(&stream);
        let statuses = [false, true, false, false, false, false].map(|is_head| Answer::read(&stream, is_head).status);
        assert_eq!(statuses, [200, 200, 404, 204, 405, 200], "in parts of {part}");
        assert_eq!((&stream).read(&mut [0]).expect("a FIN"), 0);
    }
    server.terminate();
}

#[test]
fn a_wrong_request_gets_its_error_and_the_connection_closes_if_the_next_one_cannot_be_found() {
    let (server, admin) = Process::with_admin(&[]);
    for (request, status) in [
        ("\0\u{1}\u{2}\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/3.0\r\nHost: a\r\n\r\n".to_owned(), 505),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody".to_owned(), 413),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n".to_owned() + &"x".repeat(1_000_000), 405),
        ("GET / HTTP/1.1\r\nHost: a\r\nExpect: more\r\n\r\n".to_owned(), 417),
        (format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(3_000)), 414),
        ("x".repeat(100_000), 414),
        ("GET / HTTP/1.1\r\nA: ".to_owned() + &"x".repeat(100_000), 431),
        ("GET / HTTP/1.1\r\nHost: a\r\n".to_owned(), 400), // and then a FIN
    ] {
        let answer = exchange(admin, request.as_bytes());
        let answer = Answer::read(&answer[..], false);
        assert_eq!((answer.status, answer.is_last()), (status, true), "{:?}", &request[..request.len().min(80)]);
    }
    server.terminate();
}

#[test]
fn a_slow_client_gets_408_and_a_silent_one_a_fin() {
    let (server, admin) = Process::with_admin(&[]);
    let (slow, silent) = (connect(admin), connect(admin));
    let start = Instant::now();
    (&slow).write_all(b"GET /metrics HTTP/1.1\r\nHo").expect("send");
    pause(Duration::from_secs(5));
    (&slow).write_all(b"st").expect("send"); // a trickle buys no time
    let answer = Answer::read(&slow, false);
    assert_eq!((answer.status, answer.is_last()), (408, true));
    assert_eq!((&silent).read(&mut [0]).expect("a FIN"), 0);
    assert!((9..15).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    server.terminate();
}

#[test]
fn a_probe_is_answered_within_a_second_however_many_clients_are_slow_or_silent() {
    for count in [130, 600] {
        let (server, admin) = Process::with_admin(&[]);
        let (is_over, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            // Each sends a byte at a time, reads nothing, keeps its end open after a FIN, and comes back after a reset.
            scope.spawn(|| {
                let mut clients: Vec<TcpStream> = Vec::new();
                while !is_over.load(Ordering::Relaxed) {
                    clients.retain(|mut client| client.write(b"G").is_ok());
                    clients.extend((clients.len()..count).map(|_| connect(admin)));
                    rounds.fetch_add(1, Ordering::Relaxed);
                    pause(Duration::from_millis(100));
                }
            });
            wait_until("all have come", || rounds.load(Ordering::Relaxed) > 0);
            let answers: Vec<_> = (0..15)
                .map(|_| {
                    let start = Instant::now();
                    pause(Duration::from_millis(50));
                    (exchange(admin, b"GET /livez HTTP/1.0\r\n\r\n").starts_with(b"HTTP/1.1 200 "), start.elapsed())
                })
                .collect();
            is_over.store(true, Ordering::Relaxed);
            assert!(answers.iter().all(|&(is_good, took)| is_good && took < Duration::from_secs(1)), "{count}: {answers:?}");
        });
        server.terminate();
    }
}

#[test]
fn many_honest_probes_at_once_are_all_answered() {
    let (server, admin) = Process::with_admin(&[]);
    let clients: Vec<TcpStream> = (0..300).map(|_| connect(admin)).collect();
    for _ in 0..2 {
        for mut client in &clients {
            client.write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").expect("send");
        }
        assert!(clients.iter().all(|client| Answer::read(client, false).status == 200));
    }
    server.terminate();
}

#[test]
fn an_error_has_no_body_after_head() {
    let (server, admin) = Process::with_admin(&[]);
    for (request, status) in [
        ("HEAD / HTTP/1.1\r\nHost: a\r\nExpect: more\r\n\r\n".to_owned(), 417),
        (format!("HEAD /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(3_000)), 414),
        (format!("HEAD /{}", "x".repeat(10_000)), 414),
        ("HEAD / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: more\r\n\r\n".to_owned(), 501),
        (format!("HEAD / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(65)), 431),
        ("\r\nHEAD / HTTP/1.1\r\nHost: a\r\n".to_owned(), 400), // and then a FIN
    ] {
        let answer = exchange(admin, request.as_bytes());
        let head = Answer::read(&answer[..], true);
        assert_eq!((head.status, head.head.len()), (status, answer.len()), "{:?}", &request[..request.len().min(80)]);
    }
    server.terminate();
}

#[test]
fn with_an_endpoint_the_connection_limit_is_reached_before_the_descriptors_run_out() {
    let start = |more: &[&str]| {
        // Descriptors that the tests have inherited do not count: bash(1) can close descriptors above 9.
        let mut command = Command::new("bash");
        command.args([
            "-c",
            "for n in {3..39}; do eval \"exec $n>&-\"; done; ulimit -n 40; exec \"$0\" \"$@\"",
            program(),
            "serve",
            "--listen",
            "127.0.0.1:0",
        ]);
        command.args(["--admin", "127.0.0.1:0"]).args(more);
        command
    };
    let (server, admin) = Process::spawn_with_admin(&mut start(&[]));
    let clients: Vec<TcpStream> = (0..60).map(|_| connect(server.address)).collect();
    let limit = eventually("the limit is reached", || {
        let said = server.stderr();
        assert!(!said.contains("Too many open files"), "{said}");
        let (_, rest) = said.split_once("connection limit reached (")?;
        rest.split(' ').next()?.parse::<usize>().ok()
    });
    assert_eq!(get(admin, "/livez").status, 200);
    assert_eq!(sample(&get(admin, "/metrics").body, "edgecho_connections_open"), limit as u64);
    drop(clients);
    server.terminate();
    let (server, _) = Process::spawn_with_admin(&mut start(&["--max-connections", &limit.to_string()]));
    server.terminate();
    let (status, _, stderr) = run(&mut start(&["--max-connections", &(limit + 1).to_string()]));
    assert!(status.code() == Some(2) && stderr.contains(&format!("more than the {limit} that")), "{status:?} {stderr}");
}

#[test]
fn the_metrics_of_the_process_need_only_its_own_folder_of_proc() {
    let prepare = "mount -t proc -o subset=pid proc /proc && test ! -e /proc/stat";
    let mut unshare = Command::new("unshare");
    let is_allowed =
        unshare.args(["-m", "sh", "-c", prepare]).stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    if !is_allowed {
        return skip("the_metrics_of_the_process_need_only_its_own_folder_of_proc", "unshare(1) and mount(8) take root");
    }
    let script = format!("{prepare} && exec \"$0\" serve --listen 127.0.0.1:0 --admin 127.0.0.1:0");
    let mut command = Command::new("unshare");
    let (server, admin) = Process::spawn_with_admin(command.args(["-m", "sh", "-c", &script, program()]));
    let metrics = get(admin, "/metrics").body;
    assert_eq!(metrics.matches("# TYPE process_").count(), 6, "{metrics}");
    server.terminate();

    let hide = "mount -t tmpfs none /proc && exec \"$0\" serve --listen 127.0.0.1:0 --admin 127.0.0.1:0";
    let mut command = Command::new("unshare");
    let (server, admin) = Process::spawn_with_admin(command.args(["-m", "sh", "-c", hide, program()]));
    assert!(!get(admin, "/metrics").body.contains("process_"));
    assert!(server.stderr().contains("the metrics process_* are missing"), "{}", server.stderr());
    server.terminate();
}

#[test]
fn a_client_that_asks_for_the_page_a_thousand_times_and_reads_nothing_costs_one_answer() {
    const REQUESTS: usize = 1_000;
    let (server, admin) = Process::with_admin(&[]);
    assert_eq!(get(admin, "/").status, 200);
    let before = server.rss_bytes();
    let stream = connect_with_receive_buffer(admin, 4_096);
    let mut sender = stream.try_clone().expect("dup");
    let thread =
        std::thread::spawn(move || sender.write_all("GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(REQUESTS).as_bytes()));
    // The number of bytes that the endpoint takes does not grow while nothing is read.
    for _ in 0..20 {
        assert_eq!(get(admin, "/livez").status, 200);
        pause(Duration::from_millis(20));
    }
    let grown = server.rss_bytes().saturating_sub(before);
    assert!(grown < 4 << 20, "{grown} bytes");
    let whole = get(admin, "/").body;
    for _ in 0..REQUESTS {
        let answer = Answer::read(std::io::BufReader::with_capacity(1, &stream), false);
        assert_eq!((answer.status, answer.body.len()), (200, whole.len()));
    }
    thread.join().expect("no panic").expect("all requests are taken in the end");
    server.terminate();
}

/// Echo that hangs at each message until it is told to go on.
struct Hangs(mpsc::Receiver<()>);

impl Protocol for Hangs {
    type Session = ();

    fn open(&mut self, _reply: &mut impl Reply) {}

    fn receive(&mut self, (): &mut (), input: &[u8], reply: &mut impl Reply) {
        let _ = self.0.recv();
        reply.send(input);
    }
}

#[test]
fn a_loop_that_hangs_is_not_alive_after_a_second_and_alive_again_when_it_goes_on() {
    let (resume, hang) = mpsc::channel();
    let builder =
        Server::builder().listen("127.0.0.1:0".parse().expect("an address")).configure(|config| config.signals = false);
    let mut server = builder.bind(Hangs(hang)).expect("it listens");
    let handle = server.handle().expect("a handle");
    let endpoint = Admin::start(&"127.0.0.1:0".parse().expect("an address"), handle.clone()).expect("it listens");
    let admin = endpoint.local_addresses()[0];
    let thread = std::thread::spawn(move || server.run());
    let client = connect(handle.local_addresses()[0]);
    for _ in 0..2 {
        assert_eq!(get(admin, "/livez").status, 200);
        (&client).write_all(b"hang").expect("send");
        wait_until("the loop hangs", || handle.statistics_within(Duration::from_millis(50)).is_err());
        let start = Instant::now();
        std::thread::scope(|scope| {
            let asking: Vec<_> =
                ["/livez", "/readyz", "/metrics", "/livez"].map(|path| scope.spawn(move || get(admin, path).status)).into();
            // The endpoint itself goes on meanwhile.
            assert_eq!((get(admin, "/").status, get(admin, "/nothing").status), (200, 404));
            assert!(start.elapsed() < Duration::from_millis(900), "{:?}", start.elapsed());
            assert!(asking.into_iter().all(|thread| thread.join().expect("an answer") == 503));
        });
        assert!((1_000..3_000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
        resume.send(()).expect("the loop waits for it");
        let mut answer = [0; 4];
        (&client).read_exact(&mut answer).expect("an echo");
    }
    assert_eq!(get(admin, "/readyz").body, "serving\n");
    handle.drain();
    wait_until("the drain shows", || get(admin, "/readyz").body == "draining\n");
    assert_eq!(get(admin, "/livez").status, 200);
    drop(client);
    thread.join().expect("no panic").expect("no error");
    assert_eq!(get(admin, "/livez").status, 503, "the service has ended, and the endpoint has not");
    drop(endpoint);
    assert!(TcpStream::connect(admin).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused));
}

#[test]
fn requests_that_a_hung_loop_does_not_take_are_bounded() {
    let builder =
        Server::builder().listen("127.0.0.1:0".parse().expect("an address")).configure(|config| config.signals = false);
    let mut server = builder.bind(Echo).expect("it listens");
    let handle = server.handle().expect("a handle"); // nobody runs the server
    let full = Some(StatisticsError::Refused(PostError::Full));
    let refused = (0..2_000).filter(|_| handle.statistics_within(Duration::ZERO).err() == full).count();
    assert_eq!(refused, 2_000 - 1_024);
}

#[test]
fn during_a_drain_the_server_is_alive_but_not_ready_and_the_endpoint_does_not_delay_the_end() {
    let (mut server, admin) = Process::with_admin(&["--drain-timeout", "30s"]);
    let client = connect(server.address);
    echo(&client, b"hello");
    let kept = connect(admin); // a connection to the endpoint keeps nothing open
    server.signal(Signal::SIGTERM);
    wait_until("the drain shows", || get(admin, "/readyz").status == 503);
    assert_eq!((get(admin, "/readyz").body.as_str(), get(admin, "/livez").status), ("draining\n", 200));
    assert!(TcpStream::connect(server.address).is_err(), "a copy of the listener is still open");
    let start = Instant::now();
    drop(client);
    assert_eq!(server.wait().code(), Some(0), "{}", server.stderr());
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    drop(kept);
}

#[test]
fn with_an_endpoint_an_idle_server_sleeps_and_the_loop_shares_its_descriptors_with_no_other_thread() {
    let (server, admin) = Process::with_admin(&[]);
    assert_eq!(get(admin, "/livez").status, 200);
    let threads: Vec<u32> = std::fs::read_dir(format!("/proc/{}/task", server.pid()))
        .expect("proc(5)")
        .map(|entry| entry.expect("proc(5)").file_name().to_string_lossy().parse().expect("a number"))
        .collect();
    assert_eq!(threads.len(), 2, "{threads:?}");
    let sleeps = || threads.iter().map(|&thread| proc::sleeps(thread)).collect::<Vec<_>>();
    server.settle();
    // The connection above may still be closing.
    wait_until("nothing happens for a while", || {
        let before = sleeps();
        pause(Duration::from_millis(300));
        sleeps() == before
    });
    let sockets = |thread: u32| {
        let links = std::fs::read_dir(format!("/proc/{}/task/{thread}/fd", server.pid())).expect("proc(5)");
        let links = links.filter_map(|link| std::fs::read_link(link.ok()?.path()).ok());
        links.filter(|link| link.to_string_lossy().starts_with("socket:")).collect::<Vec<_>>()
    };
    let (first, second) = (sockets(threads[0]), sockets(threads[1]));
    assert!(first.len() == 1 && second.len() == 1 && first != second, "{first:?} {second:?}");
    server.terminate();
}

#[test]
fn a_port_in_use_is_an_error_that_names_the_flag() {
    let (server, admin) = Process::with_admin(&[]);
    let (status, stdout, stderr) = run(&mut edgecho(&["serve", "--listen", "127.0.0.1:0", "--admin", &admin.to_string()]));
    assert_eq!((status.code(), stdout.as_str()), (Some(1), ""), "{stderr}");
    assert!(
        stderr.contains(&format!("cannot listen on {admin} for the admin endpoint")) && stderr.contains("--admin"),
        "{stderr}"
    );
    server.terminate();
}
