//! The text after the help of a command, in parts: paragraphs, and sections with a heading.

/// The text after the help of a command.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct AfterHelp {
    /// Text that belongs to no section.
    pub(super) paragraphs: Vec<String>,
    pub(super) sections: Vec<Section>,
}

/// A section, such as "Exit status".
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) heading: String,
    pub(super) items: Vec<Item>,
}

/// An item of a section: a signal, an exit status, or a command line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) term: String,
    /// Empty if the item has no text.
    pub(super) text: String,
}

/// The section whose terms are whole lines.
pub(super) const EXAMPLES: &str = "Examples";

impl AfterHelp {
    /// Takes the text apart. A heading is in the first column and ends with a colon. An item of its section is indented by two spaces:
    /// a term, two spaces, and its text; lines with a deeper indent continue the text. Any other text in the first column is a paragraph.
    pub(super) fn parse(text: &str) -> Self {
        let mut after = Self::default();
        let mut is_in_section = false;
        let mut is_in_paragraph = false;
        for line in text.lines() {
            let indent = line.len() - line.trim_start().len();
            let words = line.trim();
            let section = after.sections.last_mut().filter(|_| is_in_section);
            match (section, indent) {
                _ if words.is_empty() => is_in_paragraph = false,
                (Some(section), 1..=2) => section.items.push(Item::parse(words, &section.heading)),
                (Some(section), 3..) if !section.items.is_empty() => {
                    if let Some(item) = section.items.last_mut() {
                        append(&mut item.text, words);
                    }
                }
                _ if !is_in_paragraph && indent == 0 && words.ends_with(':') => {
                    is_in_section = true;
                    let heading = words.trim_end_matches(':').to_owned();
                    after.sections.push(Section { heading, items: Vec::new() });
                }
                _ => {
                    is_in_section = false;
                    match after.paragraphs.last_mut().filter(|_| is_in_paragraph) {
                        Some(paragraph) => append(paragraph, words),
                        None => after.paragraphs.push(words.to_owned()),
                    }
                    is_in_paragraph = true;
                }
            }
        }
        after
    }
}

impl Item {
    fn parse(words: &str, heading: &str) -> Self {
        let (term, text) = if heading == EXAMPLES { (words, "") } else { words.split_once("  ").unwrap_or((words, "")) };
        Self { term: term.to_owned(), text: text.trim().to_owned() }
    }
}

/// Appends words to a text, with a space between them.
fn append(text: &mut String, words: &str) {
    if !text.is_empty() {
        text.push(' ');
    }
    text.push_str(words);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(term: &str, text: &str) -> Item {
        Item { term: term.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn headings_items_and_paragraphs_are_told_apart() {
        let text = "\
First words,
and more.

Signals:
  SIGINT, SIGTERM  End
                   soon.
  SIGUSR1          Report.

A note.

Examples:
  edgecho  serve
  edgecho ping HOST
      Ping: now.";
        let after = AfterHelp::parse(text);
        assert_eq!(after.paragraphs, ["First words, and more.", "A note."]);
        let signals = vec![item("SIGINT, SIGTERM", "End soon."), item("SIGUSR1", "Report.")];
        let examples = vec![item("edgecho  serve", ""), item("edgecho ping HOST", "Ping: now.")];
        let section = |heading: &str, items| Section { heading: heading.to_owned(), items };
        assert_eq!(after.sections, [section("Signals", signals), section("Examples", examples)]);
    }

    #[test]
    fn no_word_is_lost() {
        for command in crate::cli::command().get_subcommands() {
            let text = command.get_after_long_help().expect("a text").to_string();
            let after = AfterHelp::parse(&text);
            let mut parts = after.paragraphs.clone();
            for section in &after.sections {
                assert!(!section.items.is_empty(), "{}: {} is empty", command.get_name(), section.heading);
                parts.push(section.heading.clone());
                parts.extend(section.items.iter().flat_map(|item| [item.term.clone(), item.text.clone()]));
            }
            let sorted = |text: &str| {
                let mut words: Vec<String> =
                    text.split_whitespace().map(|word| word.trim_end_matches(':').to_owned()).collect();
                words.sort_unstable();
                words
            };
            assert_eq!(sorted(&parts.join(" ")), sorted(&text), "{}", command.get_name());
        }
    }
}
