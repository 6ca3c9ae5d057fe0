//! `edgecho completions`: prints the file with which a shell completes edgecho's command line.

use std::fmt::Write;
use std::process::ExitCode;

use clap::{Arg, Args, Command, ValueEnum, ValueHint};
use clap_complete::Shell;

use super::stdout;

const AFTER_HELP: &str = "\
The Debian package installs the files of all three shells.

Exit status:
  0  The file was written, the reader of a pipe has closed it, or stdout is closed.
  1  The file cannot be written to stdout.
  2  The name of the shell is missing or wrong.

Examples:
  edgecho completions bash >~/.local/share/bash-completion/completions/edgecho
      Install the file for bash, which needs the package bash-completion.
  edgecho completions zsh >~/.zfunc/_edgecho
      Install the file for zsh, if ~/.zshrc has 'fpath=(~/.zfunc $fpath)' before 'compinit'.
  edgecho completions fish >~/.config/fish/completions/edgecho.fish
      Install the file for fish.";

#[derive(Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub(super) struct Completions {
    /// Shell that reads the file
    #[arg(value_name = "SHELL", value_enum)]
    shell: Name,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    /// GNU bash, with bash-completion
    Bash,
    /// The Z shell
    Zsh,
    /// The friendly interactive shell
    Fish,
}

/// Prints the completion file of a shell, and returns the exit status.
pub(super) fn completions(flags: &Completions, command: &Command) -> ExitCode {
    stdout::write_document(&file(flags.shell, command))
}

/// Returns the completion file of a shell.
fn file(shell: Name, command: &Command) -> Vec<u8> {
    let mut command = command.clone();
    let mut file = Vec::new();
    let generator = match shell {
        Name::Bash => Shell::Bash,
        Name::Zsh => Shell::Zsh,
        Name::Fish => Shell::Fish,
    };
    clap_complete::generate(generator, &mut command, "edgecho", &mut file);
    if shell == Name::Fish {
        file.extend_from_slice(fish_arguments(&command).as_bytes());
    }
    file
}

/// Returns the lines with which fish completes the arguments of commands that are no options. clap_complete writes none, so fish would
/// offer the names of files for them.
fn fish_arguments(command: &Command) -> String {
    let mut lines = String::new();
    for command in command.get_subcommands().filter(|command| command.get_name() != "help") {
        let name = command.get_name();
        let values: Vec<String> = command.get_positionals().map(fish_values).collect();
        let _ = writeln!(
            lines,
            "complete -c edgecho -n \"__fish_edgecho_using_subcommand {name}\" -f -a \"{}\"",
            values.join(" ")
        );
    }
    let names: Vec<&str> = command.get_subcommands().map(Command::get_name).filter(|&name| name != "help").collect();
    let _ = writeln!(lines, "complete -c edgecho -n \"__fish_edgecho_using_subcommand help\" -f -a \"{}\"", names.join(" "));
    lines
}

/// Returns the values of an argument, as fish has them in a list of arguments.
fn fish_values(arg: &Arg) -> String {
    if arg.get_value_hint() == ValueHint::Hostname {
        return "(__fish_print_hostnames)".to_owned();
    }
    let names: Vec<String> = arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    names.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completion_files_have_no_environment_variables() {
        for shell in [Name::Bash, Name::Zsh, Name::Fish] {
            let text = String::from_utf8(file(shell, &crate::cli::plain_command())).expect("text");
            assert!(text.contains("drain-timeout") && !text.contains("EDGECHO_"), "{text}");
        }
    }

    /// clap_complete lists hidden flags and commands for bash and fish. A hidden one therefore needs a filter in `file` first.
    #[test]
    fn nothing_is_hidden_that_completion_files_would_show() {
        let command = crate::cli::plain_command();
        for command in std::iter::once(&command).chain(command.get_subcommands()) {
            assert!(!command.is_hide_set(), "{}", command.get_name());
            for arg in command.get_arguments() {
                assert!(!arg.is_hide_set(), "{} {}", command.get_name(), arg.get_id());
            }
        }
    }
}
