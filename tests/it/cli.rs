//! The command line: what it prints, what it refuses, and its exit status.

use std::io::{BufRead, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use crate::for_both_servers;
use crate::process_1::{child_of, unshare_pids};
use crate::scratch::Scratch;
use crate::support::client::{connect, echo, finish, free_address, read_to_fin, reset};
use crate::support::{
    PROGRAM, Process, Program, Server, announced, edgecho, eventually, proc, run, signal, skip, wait_until,
};

/// Runs a command that must fail with a reason and without a panic, and returns its stderr.
fn refused(command: &mut Command, status: i32) -> String {
    let (ended, stdout, stderr) = run(command);
    assert_eq!(ended.code(), Some(status), "{stderr}");
    assert_eq!(stdout, "", "it is not listening");
    assert!(stderr.starts_with("error: "), "{stderr}");
    assert!(!stderr.contains("panicked") && !stderr.contains("RUST_BACKTRACE"), "{stderr}");
    stderr
}

#[test]
fn help_names_every_flag_its_default_and_its_environment_variable() {
    let (status, help, _) = run(&mut edgecho(&["serve", "--help"]));
    assert!(status.success());
    for word in ["--listen", "127.0.0.1:7777", "EDGECHO_LISTEN", "--drain-timeout", "5s", "EDGECHO_DRAIN_TIMEOUT"] {
        assert!(help.contains(word), "{word} is missing:\n{help}");
    }
    for word in ["--verbose", "EDGECHO_VERBOSE", "--quiet", "EDGECHO_QUIET", "--log", "EDGECHO_LOG"] {
        assert!(help.contains(word), "{word} is missing:\n{help}");
    }
}

#[test]
fn short_help_is_a_list_and_long_help_explains_and_ends_with_examples() {
    for command in ["serve", "ping", "flood", "send"] {
        let (status, short, _) = run(&mut edgecho(&[command, "-h"]));
        assert!(status.success() && short.lines().count() <= 70, "{command}:\n{short}");
        assert!(!short.contains("EDGECHO_"), "{short}");
        let (status, long, _) = run(&mut edgecho(&[command, "--help"]));
        assert!(status.success() && long.lines().count() > short.lines().count(), "{command}:\n{long}");
        let (_, examples) = long.split_once("\nExamples:\n").expect("examples");
        assert!(long.contains("\nExit status:\n") && examples.contains(&format!("edgecho {command} ")), "{long}");
        assert!(long.lines().all(|line| line.chars().count() <= 100), "{long}");
    }
}

#[test]
fn no_command_is_an_error_that_shows_what_there_is() {
    let (status, _, stderr) = run(&mut edgecho(&[]));
    assert_eq!(status.code(), Some(2));
    assert!(stderr.contains("serve"), "{stderr}");
}

#[test]
fn a_misspelt_variable_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let mut command = edgecho(&["serve"]);
    command.env("EDGECHO_LISTEN", &address).env("EDGECHO_USR", "nobody");
    let (status, _, stderr) = run(&mut command);
    assert_eq!(status.code(), Some(1), "the address is in use: {stderr}");
    assert!(stderr.contains("EDGECHO_USR has no effect: 'edgecho serve' has no such option"), "{stderr}");
    assert!(!stderr.contains("EDGECHO_LISTEN"), "{stderr}");
}

#[test]
fn an_address_in_use_is_refused_with_a_way_out() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let stderr = refused(&mut edgecho(&["serve", "--listen", &address]), 1);
    assert!(stderr.contains(&format!("cannot listen on {address}: Address already in use (os error 98)")), "{stderr}");
    assert!(stderr.contains("--listen"), "{stderr}");
}

#[test]
fn an_address_that_no_interface_has_is_refused() {
    // TEST-NET-1 (RFC 5737): nobody has it.
    let stderr = refused(&mut edgecho(&["serve", "--listen", "192.0.2.1:7777"]), 1);
    assert!(stderr.contains("cannot listen on 192.0.2.1:7777: Cannot assign requested address"), "{stderr}");
    assert!(stderr.contains("no interface of this host has that address"), "{stderr}");
}

#[test]
fn a_port_under_1024_without_the_capability_is_refused() {
    let test = "a_port_under_1024_without_the_capability_is_refused";
    let lowest = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or_default();
    if lowest.trim() != "1024" {
        return skip(test, "this host lets anybody have a port under 1024");
    }
    let mut command = if nix::unistd::geteuid().is_root() {
        // Root gets at execve(2) what its bounding set allows.
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set=-net_bind_service", PROGRAM]);
        command
    } else {
        Command::new(PROGRAM)
    };
    let stderr = refused(command.args(["serve", "--listen", "127.0.0.1:7"]), 1);
    assert!(stderr.contains("cannot listen on 127.0.0.1:7: Permission denied (os error 13)"), "{stderr}");
    assert!(stderr.contains("CAP_NET_BIND_SERVICE") && stderr.contains("start as root with --user"), "{stderr}");
}

#[test]
fn malformed_addresses_are_refused_before_anything_is_opened() {
    for address in ["7777", "127.0.0.1", "127.0.0.1:65536", "::1:7777:", "127.0.0.1:http", "300.0.0.1:80", ""] {
        let stderr = refused(&mut edgecho(&["serve", "--listen", address]), 2);
        assert!(stderr.contains("expected HOST:PORT"), "{address}: {stderr}");
    }
    let stderr = refused(&mut edgecho(&["serve", "--listen", "no-such-host.invalid:7777"]), 2);
    assert!(stderr.contains("cannot look up 'no-such-host.invalid'"), "{stderr}");
}

#[test]
fn flags_out_of_their_bounds_are_refused() {
    for value in ["-1s", "5", "soon", "25h", "99999999999years", ""] {
        let stderr = refused(&mut edgecho(&["serve", &format!("--drain-timeout={value}")]), 2);
        assert!(stderr.contains("--drain-timeout"), "{value}: {stderr}");
    }
    refused(&mut edgecho(&["serve", "--no-such-flag"]), 2);
    refused(edgecho(&["serve"]).env("EDGECHO_DRAIN_TIMEOUT", "soon"), 2);
    refused(edgecho(&["serve"]).env("EDGECHO_LOG", "edgecho=loud"), 2);
}

#[test]
fn too_few_descriptors_to_start_is_an_error_that_names_the_call() {
    let script = "ulimit -n 4; exec \"$0\" serve --listen 127.0.0.1:0";
    let stderr = refused(Command::new("sh").args(["-c", script, PROGRAM]), 1);
    assert!(stderr.contains("Too many open files"), "{stderr}");
}

#[test]
fn the_environment_stands_in_for_flags_and_flags_win() {
    let mut command = Command::new("sh");
    command.args(["-c", "EDGECHO_LISTEN=127.0.0.1:0,127.0.0.2:0 EDGECHO_VERBOSE=1 exec \"$0\" serve", PROGRAM]);
    let mut process = Process::spawn(&mut command);
    assert_eq!(process.address.ip().to_string(), "127.0.0.1");
    drop(connect(process.address));
    wait_until("debug lines", || process.stderr().contains("opened"));
    process.signal(Signal::SIGTERM);
    assert!(process.wait().success());

    let mut command = Command::new("sh");
    command.args(["-c", "EDGECHO_LISTEN=127.0.0.2:0 exec \"$0\" serve --listen 127.0.0.3:0", PROGRAM]);
    let process = Process::spawn(&mut command);
    assert_eq!(process.address.ip().to_string(), "127.0.0.3");
    process.terminate();
}

/// Starts a server, and returns the first `count` addresses that it announces.
fn serve(arguments: &[&str], count: usize) -> (Program, Vec<SocketAddr>) {
    let mut child = Program::spawn(edgecho(&["serve"]).args(arguments).stdout(Stdio::piped()));
    let lines = child.take_lines().lines().take(count);
    let addresses = lines.map(|line| announced(&line.expect("a line")).expect("an announcement")).collect();
    (child, addresses)
}

#[test]
fn several_addresses_of_both_families_are_served_by_one_loop() {
    let (child, addresses) = serve(&["-q", "--listen", "127.0.0.1:0", "--listen", "127.0.0.2:0", "--listen", "[::1]:0"], 3);
    assert!(addresses[2].is_ipv6() && addresses.iter().all(|address| address.port() != 0), "{addresses:?}");
    let streams: Vec<_> = addresses.iter().map(|&address| connect(address)).collect();
    for stream in streams.iter().rev() {
        echo(stream, b"hello from either family");
    }
    drop(streams);
    drop(child);
}

#[test]
fn a_name_may_stand_for_an_address() {
    let (child, addresses) = serve(&["-q", "--listen", "localhost:0"], 1);
    assert!(addresses[0].ip().is_loopback());
    echo(&connect(addresses[0]), b"hello, localhost");
    drop(child);
}

#[test]
fn log_lines_name_the_peer_the_bytes_and_the_reason() {
    let mut process = Process::rust(&["-v"]);
    let stream = connect(process.address);
    let peer = stream.local_addr().expect("an address");
    echo(&stream, b"hello");
    finish(&stream);
    read_to_fin(&stream);
    let other = connect(process.address);
    echo(&other, b"bye");
    reset(other);
    wait_until("two lines of a close", || process.stderr().matches("closed: ").count() == 2);
    process.signal(Signal::SIGTERM);
    assert!(process.wait().success());
    let log = process.stderr();
    assert!(log.contains(&format!("DEBUG opened peer={peer}")), "{log}");
    assert!(
        log.contains(&format!("DEBUG closed: the peer closed peer={peer} received_bytes=5 sent_bytes=5 lasted_ms=")),
        "{log}"
    );
    assert!(log.contains("closed: Connection reset by peer (os error 104): the peer reset the connection"), "{log}");
    assert!(log.contains("INFO SIGTERM: draining"), "{log}");
}

#[test]
fn quiet_is_quiet_and_the_default_does_not_grow_with_the_number_of_connections() {
    for (arguments, lines) in [(&["-q"] as &[_], 0), (&[], 2)] {
        let mut process = Process::rust(arguments);
        for _ in 0..20 {
            drop(connect(process.address));
        }
        process.signal(Signal::SIGTERM);
        assert!(process.wait().success());
        assert_eq!(process.stderr().lines().count(), lines, "{}", process.stderr());
    }
}

#[test]
fn out_of_descriptors_is_said_once_not_each_time() {
    // A descriptor that was inherited above the server's own: the server cannot know of it, and runs out one short of its limit.
    let process = Process::start_after(Server::Rust, "ulimit -n 16; exec 9</dev/null", &[]).expect("the program");
    let clients: Vec<_> = (0..40).map(|_| connect(process.address)).collect();
    wait_until("a warning", || process.stderr().contains("Too many open files"));
    // Each that leaves makes the server try again, take one in, and run out again.
    let served = 16 - process.descriptors_below(16).min(16);
    assert_eq!(served, 0, "all places are taken");
    for client in clients {
        drop(client);
    }
    wait_until("all have left", || process.descriptors_below(16) < 16);
    assert_eq!(process.stderr().matches("Too many open files").count(), 1, "{}", process.stderr());
    process.terminate();
}

#[test]
fn nobody_reading_its_output_does_not_stop_the_server() {
    let mut command = edgecho(&["serve", "--listen", "127.0.0.1:0", "-v"]);
    let mut process = Process::spawn_without_reader(command.stderr(Stdio::piped()));
    drop(process.take_stderr()); // from here on, every log line fails with a broken pipe
    for _ in 0..5 {
        echo(&connect(process.address), b"still there?");
    }
}

#[test]
fn a_stdout_that_takes_nothing_is_a_warning_not_the_end() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
    let address = free_address();
    let mut command = edgecho(&["serve", "--listen", &address.to_string(), "-qq"]);
    let child = Program::spawn(command.stdout(full));
    let mut stream = eventually("it listens", || TcpStream::connect(address).ok());
    stream.write_all(b"hello").expect("send");
    finish(&stream);
    assert_eq!(read_to_fin(&stream), b"hello");
    drop(child);
}

#[test]
fn manual_pages_replace_files_and_nothing_is_written_through_them() {
    let scratch = Scratch::new();
    let [target, link, fifo] = ["target", "edgecho.1", "edgecho-man.1"].map(|name| scratch.file(name));
    std::fs::write(&target, "kept").expect("a file");
    std::os::unix::fs::symlink(&target, &link).expect("a link");
    nix::unistd::mkfifo(fifo.as_str(), nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
    let (status, _, stderr) = run(&mut edgecho(&["man", "--output", &scratch.file("")]));
    assert!(status.success(), "{stderr}");
    assert_eq!(std::fs::read_to_string(&target).expect("the file"), "kept");
    for path in [&link, &fifo] {
        assert!(std::fs::symlink_metadata(path).expect("a page").is_file(), "{path}");
        assert!(std::fs::read_to_string(path).expect("a page").contains(".TH"), "{path}");
    }
    assert_eq!(std::fs::read_dir(scratch.folder()).expect("the folder").count(), 8, "a temporary file is left");
}

#[test]
fn a_document_that_cannot_be_written_is_an_error_and_a_closed_pipe_is_none() {
    for arguments in [&["completions", "bash"] as &[_], &["man", "serve"]] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
        let mut child = Program::spawn(edgecho(arguments).stdout(full).stderr(Stdio::piped()));
        let (status, _, stderr) = child.finish();
        assert_eq!(status.code(), Some(1), "{arguments:?}");
        assert_eq!(stderr, "error: cannot write to stdout: No space left on device (os error 28)\n");

        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut child = Program::spawn(edgecho(arguments).stdout(writer).stderr(Stdio::piped()));
        let (status, _, stderr) = child.finish();
        assert_eq!((status.code(), stderr.as_str()), (Some(0), ""), "{arguments:?}");
    }
    let stderr = refused(&mut edgecho(&["man", "--output", "/no/such/folder"]), 1);
    assert_eq!(
        stderr,
        "error: cannot write /no/such/folder/edgecho.1: No such file or directory (os error 2); create the directory first\n"
    );
    let stderr = refused(&mut edgecho(&["man", "no-such-command"]), 2);
    assert!(stderr.contains("serve") && stderr.contains("flood"), "{stderr}");
    refused(&mut edgecho(&["completions", "tcsh"]), 2);
}

#[test]
fn a_frame_that_would_not_fit_into_the_memory_limit_is_refused() {
    let arguments = ["serve", "--protocol", "frame", "--max-frame", "16MiB", "--memory-limit", "1MiB"];
    let (status, _, stderr) = run(&mut edgecho(&arguments));
    assert_eq!(status.code(), Some(2), "{stderr}");
    assert_eq!(stderr, "error: --max-frame 16.0 MiB is more than --memory-limit 1.0 MiB\n");
}

#[test]
fn a_flag_that_the_protocol_has_no_use_for_is_refused() {
    for (arguments, flag, owners) in [
        (&["--queue", "5"] as &[_], "--queue", "--protocol collect"),
        (&["--output", "/dev/null", "--protocol", "frame"], "--output", "--protocol collect"),
        (&["--max-frame", "1KiB", "--protocol", "line"], "--max-frame", "--protocol frame and --protocol collect"),
        (&["--max-line", "1KiB", "--protocol", "collect"], "--max-line", "--protocol line"),
    ] {
        let stderr = refused(edgecho(&["serve", "--listen", "127.0.0.1:0"]).args(arguments), 2);
        assert!(stderr.starts_with(&format!("error: {flag} ")) && stderr.contains("has no effect with"), "{stderr}");
        assert!(stderr.ends_with(&format!(": it belongs to {owners}\n")), "{stderr}");
    }
    let stderr = refused(edgecho(&["serve", "--listen", "127.0.0.1:0"]).env("EDGECHO_QUEUE", "5"), 2);
    assert!(stderr.contains("EDGECHO_QUEUE") && stderr.contains("--protocol collect"), "{stderr}");
    for flag in ["--raw", "--max-frame=1KiB"] {
        let stderr = refused(&mut edgecho(&["send", "127.0.0.1", flag]), 2);
        assert!(stderr.contains("has no effect on lines: it belongs to --protocol frame"), "{stderr}");
    }
}

#[test]
fn a_network_interface_without_a_name_is_refused() {
    // The kernel takes no name for all interfaces, and cuts one that is too long.
    for name in ["", "a-name-of-16-byt"] {
        let stderr = refused(&mut edgecho(&["serve", "--listen", "127.0.0.1:0", "--bind-device", name]), 2);
        assert!(stderr.contains("--bind-device") && stderr.contains("expected the name of a network interface"), "{stderr}");
    }
    refused(edgecho(&["serve", "--listen", "127.0.0.1:0"]).env("EDGECHO_BIND_DEVICE", ""), 2);
}

/// Starts a server that sends these bytes to each client, and closes.
fn say_to_all(bytes: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            stream.and_then(|mut stream| stream.write_all(bytes)).expect("send");
        }
    });
    address
}

#[test]
fn control_characters_of_a_server_never_reach_the_terminal_of_send() {
    let bytes = b"\x1b]0;a title\x07, a tab\t, gr\xc3\xbcn, \xc2\x9b31m, \xff\n";
    let address = say_to_all(bytes);
    // Where stdout is no terminal, every byte passes.
    let output = edgecho(&["send", &address.to_string()]).stdin(Stdio::null()).output().expect("the program");
    assert_eq!(output.stdout, bytes);

    // script(1) runs it on a terminal, which makes CR and LF of a line end.
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--command", &format!("{PROGRAM} send {address} </dev/null"), "/dev/null"]);
    let (status, shown, stderr) = run(&mut command);
    assert!(status.success(), "{stderr}");
    assert_eq!(shown, "\\x1b]0;a title\\x07, a tab\t, grün, \\u{9b}31m, \\xff\r\n");
}

fn as_process_1_a_second_signal_ends_with_its_status(server: Server) {
    for (number, status) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130)] {
        let Some(mut command) = unshare_pids("as_process_1_a_second_signal_ends_with_its_status") else { return };
        let (program, arguments) = server.program().expect("it was built");
        let mut process = Process::spawn(command.arg(program).args(arguments).args(["--drain-timeout", "60s"]));
        let pid = child_of(process.pid());
        let stream = connect(process.address);
        echo(&stream, b"here to stay");
        signal(pid, number);
        wait_until("the drain", || TcpStream::connect(process.address).is_err());
        signal(pid, number);
        assert_eq!(process.wait().code(), Some(status), "{number}: {}", process.stderr());
    }
}

for_both_servers!(as_process_1_a_second_signal_ends_with_its_status);

#[test]
fn as_process_1_a_second_signal_ends_flood_with_its_status() {
    let Some(mut command) = unshare_pids("as_process_1_a_second_signal_ends_flood_with_its_status") else { return };
    // Nobody answers: after the first signal, flood waits for what it has sent.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("an address").to_string();
    command.args([PROGRAM, "flood", "--no-handshake", "-c", "1", "-d", "60s", "--timeout", "60s", &address]);
    let mut child = Program::spawn(command.stdout(Stdio::null()).stderr(Stdio::null()));
    let (stream, _) = silent.accept().expect("a connection");
    let pid = child_of(child.pid());
    let has = |set: &str, signal: Signal| {
        let signals = proc::status_field(pid, set).expect("a set of signals");
        u64::from_str_radix(&signals, 16).expect("a set of signals") & (1 << (signal as i32 - 1)) != 0
    };
    wait_until("handlers", || has("SigCgt", Signal::SIGTERM));
    signal(pid, Signal::SIGINT);
    wait_until("the first signal is taken", || !has("ShdPnd", Signal::SIGINT));
    signal(pid, Signal::SIGINT);
    assert_eq!(child.wait().code(), Some(130));
    drop(stream);
}
