//! `edgecho man`: prints a manual page, or writes all of them.

mod after_help;
mod page;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Command, ValueHint};

use super::status::FAILURE;
use super::{stderr, stdout};

const AFTER_HELP: &str = "\
The pages are in the format of man(7). The Debian package installs all of them.

Exit status:
  0  The pages were written, the reader of a pipe has closed it, or stdout is closed.
  1  A page cannot be written.
  2  A flag or the name of the command is wrong.

Examples:
  edgecho man serve | man -l -
      Read the manual page of a command.
  edgecho man --output ~/.local/share/man/man1
      Install all pages, for 'man edgecho' and 'man edgecho-serve'.";

#[derive(Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub(super) struct Man {
    /// Command whose page to print; the page of edgecho itself by default
    #[arg(value_name = "COMMAND", value_parser = ["serve", "ping", "flood", "send", "completions", "man"])]
    command: Option<String>,

    /// Write all pages to this directory
    ///
    /// The directory must exist. Files with the names of the pages are replaced: edgecho.1, edgecho-serve.1 and so on.
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with = "command")]
    output: Option<PathBuf>,
}

/// Prints a page or writes all pages, and returns the exit status.
pub(super) fn man(flags: &Man, command: &Command) -> ExitCode {
    let pages = page::all(command);
    if let Some(directory) = &flags.output {
        return match write_all(&pages, directory) {
            Ok(()) => ExitCode::SUCCESS,
            Err((path, failure)) => {
                let is_missing = failure.kind() == io::ErrorKind::NotFound;
                let advice = if is_missing { "; create the directory first" } else { "" };
                stderr::say(format_args!("error: cannot write {}: {failure}{advice}", path.display()));
                ExitCode::from(FAILURE)
            }
        };
    }
    let name = flags.command.as_ref().map_or("edgecho".to_owned(), |command| format!("edgecho-{command}"));
    let page = pages.iter().find(|page| page.name == name);
    stdout::write_document(page.map_or(&[] as &[u8], |page| &page.text))
}

/// Writes each page to a file in a directory. Fails with the path that cannot be written.
fn write_all(pages: &[page::Page], directory: &Path) -> Result<(), (PathBuf, io::Error)> {
    for page in pages {
        let path = directory.join(format!("{}.1", page.name));
        replace(&path, &page.text).map_err(|failure| (path, failure))?;
    }
    Ok(())
}

/// Writes a file under a temporary name, and renames it (rename(2)): a reader never sees a part of it, and a link or a FIFO of that name is
/// replaced instead of written to.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let mut file = fs::File::create_new(&temporary)?;
    let result = file.write_all(content).and_then(|()| fs::rename(&temporary, path));
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_a_page_and_each_page_can_be_named() {
        let command = crate::cli::command();
        let commands: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
        let man = command.find_subcommand("man").expect("the command");
        let argument = man.get_positionals().next().expect("an argument");
        let values = argument.get_possible_values();
        let values: Vec<&str> = values.iter().map(clap::builder::PossibleValue::get_name).collect();
        assert_eq!(values, commands);
        let names: Vec<String> = page::all(&command).into_iter().map(|page| page.name).collect();
        let expected = commands.iter().map(|command| format!("edgecho-{command}"));
        assert_eq!(names, ["edgecho".to_owned()].into_iter().chain(expected).collect::<Vec<_>>());
    }
}
