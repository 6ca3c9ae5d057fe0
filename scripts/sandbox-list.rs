//! Compares the list of the sandbox with the system calls that strace(1) has seen: nothing is missing, and nothing is needless.
//!
//!     cargo run --features tools --example sandbox-list TRACE...
//!
//! Each file is the output of `strace -f` of one server with `--sandbox`. Only the calls after the filter was installed count. Prints each
//! fault, and then the calls that no trace has, with the reason for which the list has them.
//!
//! Exit status: 0 if there is no fault, 1 otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use edgecho::service::sandbox::{Call, Use, calls};

/// The lines of each system call, by its name.
type Seen = BTreeMap<String, BTreeSet<String>>;

/// Adds the calls of a trace, from the filter on. Returns whether the filter was installed.
fn read(trace: &str, seen: &mut Seen) -> bool {
    let mut lines = trace.lines().map(|line| line.trim_start_matches(|letter: char| letter.is_ascii_digit()).trim_start());
    let is_installed = lines.by_ref().any(|line| line.contains("seccomp") && line.contains("= 0"));
    for line in lines {
        // `name(arguments) = result`, or `name(arguments <unfinished ...>`; the rest of the latter has no arguments.
        if let Some((name, arguments)) = line.split_once('(')
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        {
            seen.entry(name.to_owned()).or_default().insert(words(arguments));
        }
    }
    is_installed
}

/// Leaves of the arguments what names them, such as `TCP_INFO`, so that few different texts remain.
fn words(arguments: &str) -> String {
    let is_name = |word: &&str| word.len() > 2 && word.starts_with(|letter: char| letter.is_ascii_uppercase());
    arguments
        .split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'))
        .filter(is_name)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Returns the parts of a call's entry that no trace has: name, shown arguments, and reason.
fn unseen(call: &Call, seen: &Seen) -> Vec<(String, Option<&'static str>)> {
    let Some(texts) = seen.get(call.name) else { return vec![(call.name.to_owned(), call.unseen)] };
    let alternatives = call.alternatives.iter();
    let unseen = alternatives.filter(|alternative| !texts.iter().any(|text| text.contains(alternative.shown_as)));
    unseen.map(|alternative| (format!("{} {}", call.name, alternative.shown_as), call.unseen)).collect()
}

fn main() -> ExitCode {
    let mut seen = Seen::new();
    let (mut traces, mut faults) = (0, 0);
    for path in std::env::args().skip(1) {
        let trace = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        traces += usize::from(read(&String::from_utf8_lossy(&trace), &mut seen));
    }
    let listed: Vec<_> = calls(Use::all()).collect();
    for name in seen.keys().filter(|name| listed.iter().all(|call| call.name != **name)) {
        println!("missing: {name} is not on the list");
        faults += 1;
    }
    for (name, reason) in listed.iter().flat_map(|call| unseen(call, &seen)) {
        match reason {
            Some(reason) => println!("not seen: {name}: {reason}"),
            None => {
                println!("needless: no server has called {name}");
                faults += 1;
            }
        }
    }
    println!("{traces} servers, {} calls on the list, {} seen, {faults} faults", listed.len(), seen.len());
    if faults == 0 && traces > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
