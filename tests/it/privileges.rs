//! `--user`: root's rights, given up for good. Looked at from outside, through proc(5), for each thread.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::scratch::Scratch;
use crate::strace::has_strace;
use crate::support::client::{connect, echo};
use crate::support::http::get;
use crate::support::{PROGRAM, Process, edgecho, proc, run, skip, wait_until};

/// Returns whether the tests run as root. Reports the test as skipped if not.
fn is_root(test: &str) -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        skip(test, "it takes root to give up root's rights");
    }
    is_root
}

/// Returns port 7 on a loopback address that no other test run uses.
fn port_7() -> String {
    let pid = std::process::id();
    format!("127.{}.{}.{}:7", 64 + (pid >> 16) % 64, (pid >> 8) % 256, pid % 254 + 1)
}

/// Runs edgecho from a shell script, where `"$0" "$@"` is edgecho with its arguments. The kernel opens it by a descriptor, because another
/// user may not be allowed to look into the folder.
fn script(script: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("exec 9<'{PROGRAM}'; {script}"), "/proc/self/fd/9", "serve"]).args(arguments);
    command
}

/// Asserts that a field of each of at least `threads` threads has a value.
fn assert_all(pid: u32, name: &str, expected: &str, threads: usize) {
    let fields = proc::thread_fields(pid, name);
    assert!(fields.len() >= threads, "{fields:?}");
    assert!(fields.iter().all(|value| value == expected), "{name} should be {expected:?}: {fields:?}");
}

/// Returns the owner of the files under `/proc/PID`: root for a process that is not dumpable (proc(5)).
fn owner_in_proc(pid: u32) -> u32 {
    Path::new(&format!("/proc/{pid}/fd")).metadata().expect("the process is running").uid()
}

const NONE: &str = "0000000000000000";

#[test]
fn every_thread_gives_up_every_right_of_root() {
    if !is_root("every_thread_gives_up_every_right_of_root") {
        return;
    }
    let scratch = Scratch::new();
    let output = scratch.file("output");
    let address = port_7();
    // Rights that a service manager could have passed on.
    let start = "exec setpriv --groups 27,100 --inh-caps +net_raw,+chown --ambient-caps +net_raw \"$0\" \"$@\"";
    let arguments = ["--listen", &address, "-v", "--protocol", "collect", "--output", &output, "--user", "4242:4243"];
    let process = Process::spawn(&mut script(start, &arguments));
    assert_eq!(process.address.to_string(), address, "port 7 takes root");
    let pid = process.pid();
    process.figure("open"); // the log line starts its thread: one that starts after the loss of the rights
    wait_until("the threads run", || proc::threads(pid).len() == 3);
    for (name, expected) in [
        ("Uid", "4242 4242 4242 4242"),
        ("Gid", "4243 4243 4243 4243"),
        ("Groups", ""),
        ("CapInh", NONE),
        ("CapPrm", NONE),
        ("CapEff", NONE),
        ("CapBnd", NONE),
        ("CapAmb", NONE),
        ("NoNewPrivs", "1"),
    ] {
        assert_all(pid, name, expected, 3);
    }
    assert_eq!(owner_in_proc(pid), 0, "it is dumpable");
    assert_eq!(fs::metadata(&output).expect("the output").uid(), 0, "the output is opened before");

    let client = connect(process.address);
    std::io::Write::write_all(&mut &client, b"\0\0\0\x05hello").expect("send");
    wait_until("the frame is written", || fs::read_to_string(&output).is_ok_and(|text| text.contains("hello")));
    assert_eq!(process.figure("open"), 1, "SIGUSR1 is still taken");
    drop(client);
    process.terminate();
}

#[test]
fn without_root_a_server_can_only_stay_its_own_user() {
    if !is_root("without_root_a_server_can_only_stay_its_own_user") {
        return;
    }
    let start = "exec setpriv --reuid 4242 --regid 4243 --groups 27 \"$0\" \"$@\"";
    let plain = Process::spawn(script(start, &["--listen", "127.0.0.1:0"]).env_remove("EDGECHO_SANDBOX"));
    assert_eq!(owner_in_proc(plain.pid()), 4242, "a plain server is dumpable");
    assert_all(plain.pid(), "NoNewPrivs", "0", 1);

    let own = Process::spawn(&mut script(start, &["--listen", "127.0.0.1:0", "--user", "4242:4243"]));
    own.figure("open"); // the log line starts its thread
    let stderr = own.stderr();
    assert!(stderr.contains("no rights of root to give up: the process was and is 4242:4243"), "{stderr}");
    for (name, expected) in [("Uid", "4242 4242 4242 4242"), ("Groups", "27"), ("CapPrm", NONE), ("NoNewPrivs", "1")] {
        assert_all(own.pid(), name, expected, 2);
    }
    assert_eq!(owner_in_proc(own.pid()), 0, "it is dumpable");
    echo(&connect(own.address), b"hello");
    own.terminate();

    for other in ["4242:4244", "4243:4243"] {
        let (status, _, stderr) = run(&mut script(start, &["--listen", "127.0.0.1:0", "--user", other]));
        assert_eq!(status.code(), Some(1));
        assert!(stderr.contains("only root can change that") && stderr.contains("user 4242 and group 4243"), "{stderr}");
    }
}

#[test]
fn capabilities_that_listening_took_are_given_up_too() {
    if !is_root("capabilities_that_listening_took_are_given_up_too") {
        return;
    }
    let rights = "--inh-caps +net_bind_service --ambient-caps +net_bind_service";
    let start = format!("exec setpriv --reuid 4242 --regid 4243 --clear-groups {rights} \"$0\" \"$@\"");
    let address = port_7().replace(":7", ":8");
    let process = Process::spawn(&mut script(&start, &["--listen", &address, "--user", "4242:4243"]));
    process.figure("open"); // the log line starts its thread
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_all(process.pid(), set, NONE, 2);
    }
    process.terminate();

    // The thread that writes starts before the server listens, with the same capabilities.
    let scratch = Scratch::new();
    let output = scratch.file("output");
    fs::write(&output, "").expect("a file");
    std::os::unix::fs::chown(&output, Some(4242), None).expect("chown");
    fs::set_permissions(scratch.folder(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
    let arguments = ["--listen", &address, "--user", "4242:4243", "--protocol", "collect", "--output", &output];
    let (status, _, stderr) = run(&mut script(&start, &arguments));
    assert_eq!(status.code(), Some(1));
    assert!(stderr.contains("keeps CAP_NET_BIND_SERVICE") && stderr.contains("--protocol collect"), "{stderr}");

    // As does the thread of the endpoint.
    let arguments = ["--listen", &address, "--user", "4242:4243", "--admin", "127.0.0.1:0"];
    let (status, _, stderr) = run(&mut script(&start, &arguments));
    assert_eq!(status.code(), Some(1));
    assert!(stderr.contains("'admin' keeps CAP_NET_BIND_SERVICE"), "{stderr}");
    assert!(stderr.contains("start it as root") && stderr.contains("leave out --admin"), "{stderr}");
}

/// As with the filter of the unit in `packaging/systemd`.
#[test]
fn a_server_that_has_nothing_to_give_up_needs_no_call_that_changes_rights() {
    let test = "a_server_that_has_nothing_to_give_up_needs_no_call_that_changes_rights";
    if !is_root(test) || !has_strace(test) {
        return;
    }
    let refused = "capset,setuid,setgid,setreuid,setregid,setresuid,setresgid,setgroups,setfsuid,setfsgid";
    let strace = format!("strace -D -f -qq -e 'trace={refused}' -o /dev/null '--inject={refused}:error=EPERM'");
    let start = format!("exec setpriv --reuid 4242 --regid 4243 --clear-groups {strace} \"$0\" \"$@\"");
    let arguments = ["--listen", "127.0.0.1:0", "--user", "4242:4243", "--admin", "127.0.0.1:0"];
    let process = Process::spawn(script(&start, &arguments).env_remove("EDGECHO_SANDBOX"));
    echo(&connect(process.address), b"hello");
    assert_all(process.pid(), "CapPrm", NONE, 2);
    assert_all(process.pid(), "NoNewPrivs", "1", 2);
    process.terminate();
}

#[test]
fn a_step_that_fails_or_has_no_effect_ends_the_server_and_is_named() {
    let test = "a_step_that_fails_or_has_no_effect_ends_the_server_and_is_named";
    if !is_root(test) || !has_strace(test) {
        return;
    }
    let scratch = Scratch::new();
    // With these rights each set has something to give up: setresuid(2) leaves the permitted set as it is.
    let rights = "--groups 27 --inh-caps +net_raw --securebits +no_setuid_fixup";
    for (fault, message) in [
        ("prctl:error=EINVAL", "forbid new privileges (PR_SET_NO_NEW_PRIVS)"),
        ("capget:error=EPERM", "read the capability sets (capget)"),
        ("capget:error=EPERM:when=2", "read the capability sets (capget)"),
        ("capset:error=EPERM:when=1", "empty the inheritable capability set (capset)"),
        ("setgroups:error=EPERM", "leave the supplementary groups (setgroups)"),
        ("setresgid:error=EPERM", "change the group (setresgid)"),
        ("setresuid:error=EAGAIN:when=1", "change the user (setresuid)"),
        ("capset:error=EPERM:when=2", "give up the capabilities (capset)"),
        // Calls that seem to succeed, and are not made.
        ("prctl:retval=0", "a thread keeps rights of root"),
        ("capset:retval=0", "keeps CAP_NET_RAW"),
        ("setgroups:retval=0", "Groups: 27"),
        ("setresgid:retval=0", "Gid: 0 0 0 0"),
        ("setresuid:retval=0", "Uid: 0 0 0 0"),
    ] {
        let trace = scratch.file("trace");
        let start = format!("exec setpriv {rights} strace -qq -o '{trace}' --inject='{fault}' \"$0\" \"$@\"");
        let (status, stdout, stderr) = run(&mut script(&start, &["--listen", "127.0.0.1:0", "--user", "4242:4243"]));
        assert_eq!((status.code(), stdout.as_str()), (Some(1), ""), "{fault}: {stderr}");
        assert!(stderr.starts_with("error: --user: ") && stderr.contains(message), "{fault}: {stderr}");
    }
}

#[test]
fn names_without_a_user_and_names_of_root_are_refused() {
    for (user, message) in [
        ("root", "'root' is root (user 0)"),
        ("0:100", "'0' is root (user 0)"),
        ("4242:0", "root's (group 0)"),
        ("nobody-of-this-name", "there is no user 'nobody-of-this-name'"),
        ("4242:nobody-of-this-name", "there is no group 'nobody-of-this-name'"),
        ("4242", "give it, too, as 4242:GROUP"),
        ("nobody:", "NAME or NAME:GROUP"),
    ] {
        let (status, _, stderr) = run(&mut edgecho(&["serve", "--listen", "127.0.0.1:0", "--user", user]));
        assert_eq!(status.code(), Some(2), "{user}: {stderr}");
        assert!(stderr.contains(message), "{user}: {stderr}");
    }
}

#[test]
fn a_second_signal_still_ends_a_server_without_rights() {
    if !is_root("a_second_signal_still_ends_a_server_without_rights") {
        return;
    }
    let mut process = Process::rust(&["--user", "4242:4243", "--sandbox", "kill"]);
    let client = connect(process.address);
    echo(&client, b"hello");
    process.signal(Signal::SIGTERM);
    wait_until("the drain", || process.stderr().contains("draining"));
    process.signal(Signal::SIGTERM);
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&process.wait()), Some(libc::SIGTERM));
}

#[test]
fn all_parts_of_the_service_work_without_rights_and_in_the_sandbox() {
    if !is_root("all_parts_of_the_service_work_without_rights_and_in_the_sandbox") {
        return;
    }
    let service = ["--proxy-protocol", "optional", "--proxy-from", "127.0.0.0/8", "--proxy-timeout", "200ms"];
    let (server, admin) = Process::with_admin(&[&["--user", "4242:4243", "--sandbox", "kill", "-v"], &service[..]].concat());
    assert_all(server.pid(), "CapPrm", NONE, 3);
    assert_all(server.pid(), "Uid", "4242 4242 4242 4242", 3);
    assert_all(server.pid(), "Seccomp", "2", 3);
    let client = connect(server.address);
    std::io::Write::write_all(&mut &client, b"PROXY TCP4 192.0.2.7 192.0.2.8 5000 7\r\n").expect("send");
    echo(&client, &b"hello".repeat(100_000)[..30_000]);
    for path in ["/", "/livez", "/readyz", "/metrics"] {
        assert_eq!(get(admin, path).status, 200, "{path}");
    }
    drop(client);
    server.terminate();
}
