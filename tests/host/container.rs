//! The container image, without a container engine: the static program alone in an empty root, as process 1, as packaging/Containerfile
//! has it run.

use std::collections::HashMap;
use std::fs;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::process_1::{child_of, unshare_pids};
use crate::scratch::Scratch;
use crate::support::client::{connect, echo, finish, read_to_fin};
use crate::support::{Process, proc, run, signal, skip, wait_until};

const CONTAINERFILE: &str = "packaging/Containerfile";

/// The last stage of the Containerfile: the image.
struct Image {
    instructions: Vec<(String, String)>,
}

impl Image {
    fn read() -> Self {
        let text = fs::read_to_string(CONTAINERFILE).expect("the Containerfile").replace("\\\n", " ");
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let words = lines.map(|line| line.split_once(' ').expect("an instruction"));
        let all: Vec<(String, String)> = words.map(|(name, rest)| (name.to_owned(), rest.trim().to_owned())).collect();
        let last = all.iter().rposition(|(name, _)| name == "FROM").expect("a stage");
        Self { instructions: all[last..].to_vec() }
    }

    /// Returns the arguments of the one instruction with this name.
    fn get(&self, name: &str) -> &str {
        let mut found = self.instructions.iter().filter(|(instruction, _)| instruction == name);
        let (_, arguments) = found.next().unwrap_or_else(|| panic!("{CONTAINERFILE} has no {name}"));
        assert!(found.next().is_none(), "{CONTAINERFILE} has several {name}");
        arguments
    }

    /// Returns the words of an instruction that has them as JSON, so that no shell is needed.
    fn command(&self, name: &str) -> Vec<String> {
        let arguments = self.get(name);
        let json = &arguments[arguments.find('[').expect("a list")..];
        serde_json::from_str(json).expect("a list of words")
    }

    fn environment(&self) -> HashMap<String, String> {
        let (name, value) = self.get("ENV").split_once('=').expect("NAME=VALUE");
        HashMap::from([(name.to_owned(), value.trim_matches('"').to_owned())])
    }
}

/// The root of a container, which holds the program and nothing else.
struct Root {
    scratch: Scratch,
    image: Image,
}

impl Root {
    /// Makes the root, unless the static program has not been made. Reports the test as skipped then.
    fn new(test: &str) -> Option<Self> {
        let Some(program) = std::env::var_os("EDGECHO_STATIC").map(PathBuf::from) else {
            skip(test, "EDGECHO_STATIC does not name the program that scripts/static.sh makes");
            return None;
        };
        let (scratch, image) = (Scratch::new(), Image::read());
        assert_eq!(image.get("FROM"), "scratch");
        let destination = image.get("COPY").split_whitespace().last().expect("a path");
        fs::copy(program, scratch.file(destination.trim_start_matches('/'))).expect("the static program");
        fs::set_permissions(scratch.folder(), fs::Permissions::from_mode(0o755)).expect("the root is readable");
        Some(Self { scratch, image })
    }

    /// Adds chroot(8) and a command in this root to a command, as the user of the image where that is possible.
    fn enter(&self, command: &mut Command, arguments: &[String]) {
        command.arg("chroot");
        if nix::unistd::geteuid().is_root() {
            command.arg(format!("--userspec={}", self.image.get("USER")));
        }
        command.arg(self.scratch.folder()).args(arguments);
    }

    /// Returns a command in this root.
    fn command(&self, arguments: &[String]) -> Command {
        let mut command = Command::new("unshare");
        if !nix::unistd::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        self.enter(&mut command, arguments);
        command
    }

    /// Starts the container on a free port.
    fn start(&self, test: &str) -> Option<Container> {
        let mut command = unshare_pids(test)?;
        let arguments = [self.image.command("ENTRYPOINT"), self.image.command("CMD")].concat();
        self.enter(&mut command, &arguments);
        for (name, value) in self.image.environment() {
            command.env(name, value.replace(":7777", ":0"));
        }
        let mut server = Process::spawn(&mut command);
        server.address = SocketAddr::from(([127, 0, 0, 1], server.address.port()));
        Some(Container { pid: child_of(server.pid()), server })
    }
}

/// A running container. It ends when it goes out of scope.
struct Container {
    /// unshare(1), whose child is the server.
    server: Process,
    pid: u32,
}

impl Drop for Container {
    fn drop(&mut self) {
        // The option --kill-child of unshare(1) has no effect on a process that has changed its user (prctl(2), PR_SET_PDEATHSIG).
        let _ = kill(Pid::from_raw(self.pid as i32), Signal::SIGKILL);
    }
}

#[test]
fn the_image_serves_in_an_empty_root_passes_its_health_check_and_drains_as_process_1() {
    let test = "the_image_serves_in_an_empty_root_passes_its_health_check_and_drains_as_process_1";
    let Some(root) = Root::new(test) else { return };
    let Some(mut container) = root.start(test) else { return };
    let (server, pid) = (&mut container.server, container.pid);
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it is running");
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).expect("its numbers");
    assert_eq!(numbers.split_whitespace().last(), Some("1"), "process 1 of its namespace");
    if nix::unistd::geteuid().is_root() {
        let (user, group) = root.image.get("USER").split_once(':').expect("USER:GROUP");
        assert_eq!(proc::status_field(pid, "Uid").as_deref(), Some(user));
        assert_eq!(proc::status_field(pid, "Gid").as_deref(), Some(group));
    }

    let health = root.image.command("HEALTHCHECK");
    let health: Vec<String> =
        health.iter().map(|word| word.replace("127.0.0.1:7777", &server.address.to_string())).collect();
    assert!(health.contains(&server.address.to_string()), "{health:?}");
    let (status, _, stderr) = run(&mut root.command(&health));
    assert!(status.success(), "{stderr}");

    let stream = connect(server.address);
    echo(&stream, b"before the signal");
    assert_eq!(root.image.get("STOPSIGNAL"), "SIGTERM");
    signal(pid, Signal::SIGTERM);
    wait_until("the drain", || TcpStream::connect(server.address).is_err());
    let (status, _, _) = run(&mut root.command(&health));
    assert!(!status.success(), "a server that drains is not healthy");
    echo(&stream, b"after the signal");
    finish(&stream);
    assert_eq!(read_to_fin(&stream), b"");
    assert_eq!(server.wait().code(), Some(0), "{}", server.stderr());
}

#[test]
fn the_static_program_looks_up_names_in_hosts_and_dns_without_any_library() {
    let test = "the_static_program_looks_up_names_in_hosts_and_dns_without_any_library";
    let Some(root) = Root::new(test) else { return };
    let Some(container) = root.start(test) else { return };
    let server = &container.server;
    let program = &root.image.command("ENTRYPOINT")[0];
    let ping = |host: &str| {
        let words =
            [program.as_str(), "ping", "-q", "-c", "1", &format!("{host}:{}", server.address.port())].map(str::to_owned);
        run(&mut root.command(&words))
    };
    // A container engine mounts these files.
    fs::create_dir(root.scratch.file("etc")).expect("a folder");
    let dns = UdpSocket::bind("127.77.255.53:53");
    let resolver = if dns.is_ok() { "127.77.255.53" } else { "127.0.0.1" };
    fs::write(root.scratch.file("etc/resolv.conf"), format!("nameserver {resolver}\noptions timeout:1 attempts:1\n"))
        .expect("a file");
    let (status, _, stderr) = ping("in-hosts.example");
    assert!(!status.success() && stderr.contains("cannot look up 'in-hosts.example'"), "{stderr}");
    fs::write(root.scratch.file("etc/hosts"), "127.0.0.1 in-hosts.example\n").expect("a file");
    let (status, _, stderr) = ping("in-hosts.example");
    assert!(status.success(), "{stderr}");

    let Ok(dns) = dns else { return skip(test, "only root can be a DNS server on port 53") };
    std::thread::spawn(move || answer_with_loopback(&dns));
    let (status, _, stderr) = ping("in-dns.example");
    assert!(status.success(), "{stderr}");
}

/// Answers each question for an IPv4 address with 127.0.0.1, and any other with nothing (RFC 1035, section 4).
fn answer_with_loopback(dns: &UdpSocket) {
    let mut query = [0; 512];
    while let Ok((length, client)) = dns.recv_from(&mut query) {
        // The header has 12 bytes. The name ends with a zero; its type and class have 2 bytes each.
        let Some(end) = query[12..length].iter().position(|byte| *byte == 0).map(|end| 12 + end + 5) else { continue };
        let is_ipv4 = query[end - 4..end - 2] == [0, 1];
        let mut answer = query[..end].to_vec();
        answer[2..4].copy_from_slice(&[0x81, 0x80]); // a response, without an error
        answer[4..12].copy_from_slice(&[0, 1, 0, u8::from(is_ipv4), 0, 0, 0, 0]);
        if is_ipv4 {
            answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
        }
        let _ = dns.send_to(&answer, client);
    }
}

#[test]
fn the_containerfile_copies_files_that_exist_and_names_one_port_throughout() {
    let text = fs::read_to_string(CONTAINERFILE).expect("the Containerfile");
    let mut count = 0;
    for line in text.lines().filter_map(|line| line.strip_prefix("COPY ")).filter(|line| !line.starts_with("--from=")) {
        let paths: Vec<&str> = line.split_whitespace().collect();
        for path in &paths[..paths.len() - 1] {
            assert!(Path::new(path).exists(), "{CONTAINERFILE} copies {path}");
            count += 1;
        }
    }
    assert!(count >= 4, "{text}");
    let image = Image::read();
    assert_eq!(image.get("EXPOSE"), "7777/tcp");
    assert_eq!(image.environment()["EDGECHO_LISTEN"], "[::]:7777");
    assert!(image.command("HEALTHCHECK").contains(&"127.0.0.1:7777".to_owned()));
    let user: Vec<u32> = image.get("USER").split(':').map(|number| number.parse().expect("a number")).collect();
    assert!(user.len() == 2 && !user.contains(&0), "{user:?}");
}
