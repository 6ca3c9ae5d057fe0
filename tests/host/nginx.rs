//! A real nginx with a configuration of a test: one process in the foreground.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::scratch::Scratch;
use crate::support::{Program, wait_until};

/// The stream module in Debian, which nginx loads on request.
const STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// A running nginx. It is killed, by its process id, when it goes out of scope.
pub struct Nginx {
    program: Program,
    _folder: Scratch,
}

impl Nginx {
    /// Starts the nginx at `path`, and waits until it listens on `front`. `servers` is the content of its `stream` section. nginx cannot
    /// choose a port itself: use a [`free_address`](crate::support::client::free_address).
    pub fn start(path: &Path, front: std::net::SocketAddr, servers: &str) -> Self {
        let folder = Scratch::new();
        let (file, pid) = (folder.file("nginx.conf"), folder.file("pid"));
        let module =
            if Path::new(STREAM_MODULE).exists() { format!("load_module {STREAM_MODULE};\n") } else { String::new() };
        let text = format!(
            "{module}daemon off;\nmaster_process off;\npid {pid};\nerror_log stderr;\nevents {{ worker_connections 512; }}\nstream {{\n{servers}\n}}\n"
        );
        std::fs::write(&file, text).expect("the configuration is written");
        let mut command = Command::new(path);
        command.args(["-c", &file, "-e", "stderr"]).stdout(Stdio::null());
        let mut program = Program::spawn(&mut command);
        wait_until("nginx listens", || {
            assert!(program.status().is_none(), "nginx has ended");
            std::net::TcpStream::connect(front).is_ok()
        });
        Self { program, _folder: folder }
    }

    pub fn pid(&self) -> u32 {
        self.program.pid()
    }
}
