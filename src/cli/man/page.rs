//! Manual pages in the format of man(7), from the command line that clap knows.
//!
//! clap_mangen writes the title, the name, the description and the options. The sections around them are written here, in the order of
//! man-pages(7).

use clap::{Arg, ArgAction, Command};
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

use super::after_help::{AfterHelp, EXAMPLES, Item};

/// A manual page.
pub(super) struct Page {
    /// The name without the section, such as `edgecho-serve`.
    pub(super) name: String,
    pub(super) text: Vec<u8>,
}

/// Returns the pages of a command and of its subcommands.
pub(super) fn all(command: &Command) -> Vec<Page> {
    let mut root =
        command.clone().disable_help_subcommand(true).subcommand_help_heading("COMMANDS").mut_args(without_environment);
    root = root.mut_subcommands(|command| command.mut_args(without_environment));
    root.build();
    let mut commands = vec![&root];
    commands.extend(root.get_subcommands());
    let names: Vec<String> = commands.iter().copied().map(name).collect();
    commands.into_iter().map(|command| Page { name: name(command), text: render(command, &names) }).collect()
}

/// Returns an argument whose variable is described in a section of its own only.
fn without_environment(arg: Arg) -> Arg {
    arg.hide_env(true)
}

/// Returns the name of a command's page.
fn name(command: &Command) -> String {
    command.get_display_name().unwrap_or(command.get_name()).to_owned()
}

/// Returns the text of a page. `names` has the names of all pages.
fn render(command: &Command, names: &[String]) -> Vec<u8> {
    let after = command.get_after_long_help().or(command.get_after_help()).map(ToString::to_string).unwrap_or_default();
    let after = AfterHelp::parse(&after);
    let version = command.get_version().unwrap_or_default();
    let man = Man::new(command.clone())
        .title(name(command).to_uppercase())
        // No date: each build of a version writes the same pages. An empty word would be left out of the line.
        .date(" ")
        .source(format!("edgecho {version}"))
        .manual("User Commands");

    let mut text = Vec::new();
    write(&mut text, |out| man.render_title(out));
    // Left-aligned text without hyphenation: the names of options stay whole.
    text.extend_from_slice(b".nh\n.ad l\n");
    write(&mut text, |out| man.render_name_section(out));
    append(&mut text, &synopsis(command));
    write(&mut text, |out| man.render_description_section(out));
    append(&mut text, &paragraphs(&after.paragraphs));
    if command.has_subcommands() {
        write(&mut text, |out| man.render_subcommands_section(out));
    }
    let mut options = Vec::new();
    write(&mut options, |out| man.render_options_section(out));
    text.extend_from_slice(subheadings(&String::from_utf8_lossy(&options), command).as_bytes());
    for section in after.sections.iter().filter(|section| section.heading != EXAMPLES) {
        append(&mut text, &items(&section.heading, &section.items));
    }
    append(&mut text, &environment(command));
    for section in after.sections.iter().filter(|section| section.heading == EXAMPLES) {
        append(&mut text, &examples(&section.items));
    }
    append(&mut text, &see_also(command, names));
    text
}

/// Lets a function of clap_mangen write to a page.
fn write(page: &mut Vec<u8>, render: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) {
    render(page).expect("memory takes every byte");
}

fn append(page: &mut Vec<u8>, part: &Roff) {
    write(page, |out| part.to_writer(out));
}

/// Returns the usage: the options in one word, and each argument.
fn synopsis(command: &Command) -> Roff {
    let mut line = vec![
        bold(command.get_bin_name().unwrap_or(command.get_name()).to_owned()),
        roman(" ["),
        italic("OPTION"),
        roman("]..."),
    ];
    for argument in command.get_positionals() {
        let name = argument.get_value_names().unwrap_or_default().join(" ");
        let (before, after) = if argument.is_required_set() { (" ", "") } else { (" [", "]") };
        line.extend([roman(before), italic(name), roman(after)]);
    }
    if command.has_subcommands() {
        line.extend([roman(" "), italic("COMMAND"), roman(" ["), italic("ARGUMENT"), roman("]...")]);
    }
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]).text(line);
    roff
}

fn paragraphs(paragraphs: &[String]) -> Roff {
    let mut roff = Roff::new();
    for paragraph in paragraphs {
        roff.control("PP", []).text([roman(paragraph)]);
    }
    roff
}

/// Makes subsections of the headings of options. clap_mangen makes sections of them, so that they would look like sections of the page.
fn subheadings(options: &str, command: &Command) -> String {
    let headings: Vec<&str> = command.get_arguments().filter_map(Arg::get_help_heading).collect();
    let mut text = String::new();
    for line in options.lines() {
        let heading = line.strip_prefix(".SH ").and_then(|title| {
            let title = title.trim_matches('"');
            headings.iter().find(|heading| heading.to_uppercase() == title)
        });
        match heading {
            Some(heading) => text.push_str(&format!(".SS \"{heading}\"\n")),
            None => text.extend([line, "\n"]),
        }
    }
    text
}

/// Returns a section with a list.
fn items(heading: &str, items: &[Item]) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", [heading.to_uppercase().as_str()]);
    for Item { term, text } in items {
        roff.control("TP", []).text([bold(term)]).text([roman(text)]);
    }
    roff
}

/// Returns the section with the variables that stand for options.
fn environment(command: &Command) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["ENVIRONMENT"]);
    roff.text([roman(
        "A variable gives an option its value; an option on the command line has priority over its variable.",
    )]);
    for arg in command.get_arguments() {
        let (Some(variable), Some(option)) = (arg.get_env(), arg.get_long()) else { continue };
        let mut meaning = vec![bold(format!("--{option}"))];
        match arg.get_action() {
            ArgAction::Count => meaning.push(roman(": how many times, as a number")),
            ArgAction::SetTrue => meaning.push(roman(": true or false")),
            _ => meaning.extend([roman(" "), italic(arg.get_value_names().unwrap_or_default().join(" "))]),
        }
        roff.control("TP", []).text([bold(variable.to_string_lossy())]).text(meaning);
    }
    roff.control("TP", []).text([bold("NO_COLOR")]).text([roman("If not empty, messages on a terminal have no colours.")]);
    roff
}

/// Returns the section with examples: each command line on a line of its own, with its explanation below.
fn examples(items: &[Item]) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["EXAMPLES"]);
    for Item { term, text } in items {
        roff.control("PP", []).control("nf", []).text([bold(term)]).control("fi", []);
        if !text.is_empty() {
            roff.control("RS", []).text([roman(text)]).control("RE", []);
        }
    }
    roff
}

/// Returns the section with the names of related pages.
fn see_also(command: &Command, names: &[String]) -> Roff {
    let others: &[(&str, &str)] = match command.get_name() {
        "serve" => &[("epoll", "7"), ("socket", "7"), ("tcp", "7")],
        "ping" => &[("ping", "8")],
        "completions" => &[("bash", "1"), ("fish", "1"), ("zsh", "1")],
        "man" => &[("man", "1"), ("man", "7")],
        _ => &[],
    };
    let own = name(command);
    let pages = names.iter().filter(|name| **name != own).map(|name| (name.as_str(), "1")).chain(others.iter().copied());
    let mut line: Vec<Inline> = Vec::new();
    for (name, section) in pages {
        if !line.is_empty() {
            line.push(roman(", "));
        }
        line.extend([bold(name), roman(format!("({section})"))]);
    }
    let mut roff = Roff::new();
    roff.control("SH", ["SEE ALSO"]).text(line);
    roff
}
