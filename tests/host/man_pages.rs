//! Manual pages in the real man(1) and groff(1).

use std::fs;
use std::process::Command;

use crate::scratch::Scratch;
use crate::support::{edgecho, run};
use crate::tools::tool;

const COMMANDS: [&str; 6] = ["serve", "ping", "flood", "send", "completions", "man"];

/// Runs man(1) on a file. Returns the text of the page, and what man and groff complain about.
fn read(path: &str) -> (String, String) {
    let mut man = Command::new("man");
    man.args(["--warnings=w", "--encoding=UTF-8", "--local-file", path]);
    man.env("LC_ALL", "C.UTF-8")
        .env("MANWIDTH", "80")
        .env("MANROFFOPT", "-ww")
        .env("MAN_KEEP_STDERR", "1")
        .env_remove("MANPAGER");
    let (status, text, complaints) = run(&mut man);
    assert!(status.success(), "{path}: {complaints}");
    (text, complaints)
}

#[test]
fn each_manual_page_has_its_sections_and_renders_without_a_warning() {
    let Some(_) = tool("each_manual_page_has_its_sections_and_renders_without_a_warning", "man") else { return };
    let scratch = Scratch::new();
    let folder = scratch.file("");
    let (status, stdout, stderr) = run(&mut edgecho(&["man", "--output", &folder]));
    assert!(status.success() && stdout.is_empty() && stderr.is_empty(), "{stderr}");
    let names = ["edgecho".to_owned()].into_iter().chain(COMMANDS.map(|command| format!("edgecho-{command}")));
    let mut count = 0;
    for name in names {
        let (page, complaints) = read(&scratch.file(&format!("{name}.1")));
        assert_eq!(complaints, "", "{name}");
        let sections: Vec<&str> = page.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase())).collect();
        let mut rest = sections.iter();
        let expected = ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "ENVIRONMENT", "EXAMPLES", "SEE ALSO"];
        for section in expected {
            assert!(rest.any(|found| *found == section), "{name} does not have {section} in its place: {sections:?}");
        }
        assert!(page.contains(&format!("{}(1)", name.to_uppercase())), "{page}");
        assert!(page.contains(&format!("edgecho {}", env!("CARGO_PKG_VERSION"))), "{page}");
        // Neither the headings of --help nor its names of variables are left.
        for word in ["Exit status:", "Examples:", "Signals:", "[env"] {
            assert!(!page.contains(word), "{name} has '{word}': {page}");
        }
        count += 1;
    }
    assert_eq!(fs::read_dir(scratch.folder()).expect("the folder").count(), count);
}

#[test]
fn a_manual_page_has_each_option_and_each_variable_of_its_command() {
    let Some(_) = tool("a_manual_page_has_each_option_and_each_variable_of_its_command", "man") else { return };
    let scratch = Scratch::new();
    for command in COMMANDS {
        let (_, help, _) = run(&mut edgecho(&[command, "--help"]));
        let (status, page, _) = run(&mut edgecho(&["man", command]));
        assert!(status.success());
        let path = scratch.file(command);
        fs::write(&path, page).expect("the page");
        let (page, _) = read(&path);
        let (options, rest) =
            page.split_once("\nOPTIONS\n").and_then(|(_, rest)| rest.split_once("\nENVIRONMENT\n")).expect("the sections");
        let (variables, examples) = rest.split_once("\nEXAMPLES\n").expect("the section");
        let option_lines = help.lines().filter(|line| line.starts_with("  -") || line.starts_with("      --"));
        for line in option_lines.clone() {
            let option = line.split_whitespace().find(|word| word.starts_with("--")).expect("a long name");
            let words = format!("{} ", option.trim_end_matches("..."));
            assert!(options.lines().any(|line| format!("{line} ").contains(&words)), "{command}: {option} is missing");
        }
        assert!(option_lines.count() >= 5, "{help}");
        let names: Vec<&str> =
            help.lines().filter_map(|line| line.trim().strip_prefix("[env: ")?.strip_suffix(']')).collect();
        assert!(names.len() >= 3, "{help}");
        for name in names {
            assert!(variables.contains(name), "{command}: {name} is missing: {variables}");
        }
        assert!(examples.contains(&format!("edgecho {command}")), "{examples}");
        if ["serve", "ping", "flood"].contains(&command) {
            let (_, signals) = page.split_once("\nSIGNALS\n").expect("the section");
            assert!(signals.trim_start().starts_with("SIG"), "{signals}");
        }
    }
}
