//! Completion in the real shells: bash with bash-completion, zsh and fish, with the files that `edgecho completions` prints.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};

use crate::scratch::Scratch;
use crate::support::{PROGRAM, edgecho, eventually, run, skip, wait_until};
use crate::tools::tool;

/// An interactive shell on a terminal of its own, which script(1) provides. It is killed when it goes out of scope.
struct Shell {
    script: Child,
    keys: ChildStdin,
    screen: Arc<Mutex<String>>,
}

impl Shell {
    /// Starts a shell, and types the commands that prepare it. The shell finds edgecho on its path, and its home is the scratch folder.
    fn start(command: &str, scratch: &Scratch, preparation: &str) -> Self {
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--command", command, "/dev/null"]);
        let path = std::env::var("PATH").expect("a path");
        let own = Path::new(PROGRAM).parent().expect("a folder").display();
        script
            .env("PATH", format!("{own}:{path}"))
            .env("HOME", scratch.folder())
            .env("TERM", "dumb")
            .env("LC_ALL", "C.UTF-8");
        script.env_remove("XDG_DATA_HOME").env_remove("BASH_COMPLETION_USER_DIR").current_dir(scratch.folder());
        let mut script = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script(1)");
        let keys = script.stdin.take().expect("a pipe");
        let mut stdout = script.stdout.take().expect("a pipe");
        let screen = Arc::new(Mutex::new(String::new()));
        let shown = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = stdout.read(&mut bytes) {
                shown.lock().expect("no reader has panicked").push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        });
        let mut shell = Self { script, keys, screen };
        // The typed command does not contain the word that it prints.
        shell.press(&format!("{preparation}\nPS1=; echo pre''pared\n"));
        shell.wait_for("prepared");
        shell
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).and_then(|()| self.keys.flush()).expect("the shell reads");
    }

    /// Returns what the shell shows.
    fn screen(&self) -> String {
        self.screen.lock().expect("no reader has panicked").clone()
    }

    fn wait_for(&self, word: &str) {
        wait_until(&format!("the shell shows {word}"), || self.screen().contains(word));
    }

    /// Types the begin of a command line and a tab. Waits until the shell shows all words, and clears the line. Returns what it showed.
    fn complete(&mut self, line: &str, words: &[&str]) -> String {
        self.screen.lock().expect("no reader has panicked").clear();
        self.press(&format!("{line}\t"));
        let screen = eventually(&format!("'{line}' offers {words:?}"), || {
            let screen = self.screen();
            words.iter().all(|word| screen.contains(word)).then_some(screen)
        });
        self.press("\x15"); // Ctrl-U
        screen
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}

/// Writes the completion file of a shell.
fn install(shell: &str, path: &str) {
    let (status, file, stderr) = run(&mut edgecho(&["completions", shell]));
    assert!(status.success() && stderr.is_empty(), "{stderr}");
    fs::create_dir_all(Path::new(path).parent().expect("a folder")).expect("the folder");
    fs::write(path, file).expect("the file");
}

/// Checks the completions that each shell offers.
fn offers_commands_options_and_values(mut complete: impl FnMut(&str, &[&str]) -> String) {
    complete("edgecho ", &["serve", "ping", "flood", "send", "completions", "man"]);
    complete("edgecho serve --idle", &["--idle-timeout"]);
    complete("edgecho serve --drain-t", &["--drain-timeout"]);
    complete("edgecho flood --connect", &["--connections", "--connect-timeout"]);
    let values = complete("edgecho serve --protocol ", &["echo", "line", "frame", "collect"]);
    assert!(!values.contains("EDGECHO_"), "{values}");
    complete("edgecho ping --protocol ", &["bytes", "line", "frame"]);
    complete("edgecho flood --verify ", &["full", "sample", "off"]);
    complete("edgecho completions ", &["bash", "zsh", "fish"]);
    complete("edgecho man ", &["serve", "flood"]);
    let commands = complete("edgecho help ", &["serve", "flood"]);
    assert!(!commands.contains("report-of-a-test"), "{commands}");
    complete("edgecho flood --json report-", &["report-of-a-test"]);
}

#[test]
fn bash_completes_commands_options_and_values() {
    let test = "bash_completes_commands_options_and_values";
    let Some(_) = tool(test, "bash") else { return };
    let library = "/usr/share/bash-completion/bash_completion";
    if !Path::new(library).exists() {
        return skip(test, "bash-completion is not installed");
    }
    let scratch = Scratch::new();
    fs::write(scratch.file("report-of-a-test"), "").expect("a file");
    // bash-completion loads the file from here at the first tab.
    install("bash", &scratch.file(".local/share/bash-completion/completions/edgecho"));
    let settings =
        "bind 'set show-all-if-ambiguous on'; bind 'set completion-query-items 0'; bind 'set page-completions off'";
    let mut shell = Shell::start("bash --norc --noprofile -i", &scratch, &format!("{settings}; . {library}"));
    offers_commands_options_and_values(|line, words| shell.complete(line, words));
}

#[test]
fn zsh_completes_commands_options_and_values() {
    let Some(_) = tool("zsh_completes_commands_options_and_values", "zsh") else { return };
    let scratch = Scratch::new();
    fs::write(scratch.file("report-of-a-test"), "").expect("a file");
    install("zsh", &scratch.file("functions/_edgecho"));
    // LISTMAX: lists of any length without a question.
    let settings = format!("LISTMAX=10000; setopt autolist; fpath=({} $fpath)", scratch.file("functions"));
    let mut shell = Shell::start("zsh -f -i", &scratch, &format!("{settings}; autoload -Uz compinit; compinit -u -D"));
    offers_commands_options_and_values(|line, words| shell.complete(line, words));
}

#[test]
fn fish_completes_commands_options_and_values() {
    let Some(fish) = tool("fish_completes_commands_options_and_values", "fish") else { return };
    let scratch = Scratch::new();
    fs::write(scratch.file("report-of-a-test"), "").expect("a file");
    // fish loads the file from here at the first completion.
    install("fish", &scratch.file(".config/fish/completions/edgecho.fish"));
    let own = Path::new(PROGRAM).parent().expect("a folder").display();
    let path = std::env::var("PATH").expect("a path");
    offers_commands_options_and_values(|line, words| {
        let mut command = Command::new(&fish);
        command.args(["-c", "complete -C $argv[1]", line]).current_dir(scratch.folder());
        command.env("HOME", scratch.folder()).env("PATH", format!("{own}:{path}"));
        command.env_remove("XDG_CONFIG_HOME").env_remove("XDG_DATA_HOME");
        let (status, offered, stderr) = run(&mut command);
        assert!(status.success() && stderr.is_empty(), "{line}: {stderr}");
        for word in words {
            assert!(offered.contains(word), "'{line}' does not offer {word}: {offered}");
        }
        offered
    });
}
