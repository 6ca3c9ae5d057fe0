//! The machine that a run was measured on.

use std::process::Command;

use serde::{Deserialize, Serialize};

/// The date, the hardware and the versions of compilers, as far as they are known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    date: Option<String>,
    #[serde(rename = "CPU")]
    cpu: Option<String>,
    kernel: Option<String>,
    rustc: Option<String>,
    #[serde(rename = "C compiler")]
    c_compiler: Option<String>,
    #[serde(rename = "Go")]
    go: Option<String>,
}

impl Machine {
    /// Describes this machine, today.
    pub fn this() -> Self {
        let first_line = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).output().ok()?;
            String::from_utf8(output.stdout).ok()?.lines().next().map(str::to_owned)
        };
        let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Self {
            date: first_line("date", &["-u", "+%Y-%m-%d"]),
            cpu: model.map(|(_, name)| name.to_owned()),
            kernel: first_line("uname", &["-sr"]),
            rustc: first_line("rustc", &["--version"]),
            c_compiler: first_line("cc", &["--version"]),
            go: first_line("go", &["version"]),
        }
    }

    /// Returns everything known, separated by semicolons.
    pub fn describe(&self) -> String {
        let known = [&self.date, &self.cpu, &self.kernel, &self.rustc, &self.c_compiler, &self.go];
        known.into_iter().flatten().cloned().collect::<Vec<_>>().join("; ")
    }
}
