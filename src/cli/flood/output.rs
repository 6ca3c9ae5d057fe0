//! The files that `edgecho flood` writes its reports to.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::flags::ReportFlags;

/// The reports of a run, apart from the table.
#[derive(Debug)]
pub(super) struct Outputs<'a> {
    pub(super) json: Option<Output<'a>>,
    pub(super) hdr: Option<Output<'a>>,
    pub(super) plot: Option<Output<'a>>,
    /// No report replaces the table on stdout.
    pub(super) has_table: bool,
}

impl<'a> Outputs<'a> {
    /// Opens all outputs, so that a file that cannot be written is reported before the load begins. Nothing is truncated until it is known
    /// that all are different files.
    pub(super) fn open(flags: &'a ReportFlags) -> Result<Self, String> {
        let paths = [("--json", &flags.json), ("--hdr", &flags.hdr), ("--plot", &flags.plot)];
        for (index, &(flag, path)) in paths.iter().enumerate() {
            if let Some((other, path)) =
                paths[..index].iter().find_map(|(other, p)| Some((other, p.as_ref().filter(|_| *p == path)?)))
            {
                return Err(clash(other, flag, path));
            }
        }
        let has_table = paths.iter().all(|(_, path)| path.as_deref().is_none_or(|path| !is_stdout(path)));
        let open = |path: &'a Option<PathBuf>| path.as_deref().map(Output::open).transpose();
        let outputs = Self { json: open(&flags.json)?, hdr: open(&flags.hdr)?, plot: open(&flags.plot)?, has_table };

        // Two paths can name one file: 'report' and './report', links, /dev/stdout.
        let mut seen = Vec::new();
        if has_table && let Some(file) = stdout().ok().and_then(|file| identity(&file)) {
            seen.push(("the table", file));
        }
        for (flag, output) in [("--json", &outputs.json), ("--hdr", &outputs.hdr), ("--plot", &outputs.plot)] {
            let Some((path, file)) = output.as_ref().and_then(|output| Some((output.path, identity(&output.file)?))) else {
                continue;
            };
            if let Some((other, _)) = seen.iter().find(|&&(_, other)| other == file) {
                return Err(clash(other, flag, path));
            }
            seen.push((flag, file));
        }
        for output in [&outputs.json, &outputs.hdr, &outputs.plot].into_iter().flatten() {
            output.truncate()?;
        }
        Ok(outputs)
    }
}

/// A file, or stdout for `-`.
#[derive(Debug)]
pub(super) struct Output<'a> {
    path: &'a Path,
    file: File,
}

impl<'a> Output<'a> {
    fn open(path: &'a Path) -> Result<Self, String> {
        let options = || OpenOptions::new().write(true).create(true).truncate(false).open(path);
        let file = if is_stdout(path) { stdout() } else { options() };
        Ok(Self { path, file: file.map_err(|error| cannot_write(path, &error))? })
    }

    /// Makes a file empty that had other contents. Stdout is left alone: the shell has opened it.
    fn truncate(&self) -> Result<(), String> {
        let is_file = !is_stdout(self.path) && self.file.metadata().is_ok_and(|metadata| metadata.is_file());
        if is_file { self.file.set_len(0).map_err(|error| cannot_write(self.path, &error)) } else { Ok(()) }
    }

    /// Returns the file, to write it piece by piece.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Calls `write` with a buffered writer. Returns the description of its error, if that is a failure.
    pub(super) fn write(&self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Option<String> {
        let mut out = BufWriter::new(&self.file);
        write(&mut out).and_then(|()| out.flush()).err().and_then(|error| self.failure(&error))
    }

    /// Describes an error of this output, if it is a failure.
    pub(super) fn failure(&self, error: &io::Error) -> Option<String> {
        failure(self.path, error)
    }
}

/// Describes an error of writing to `path`. A reader of stdout that has seen enough is no failure: `edgecho flood --json - | head`.
pub(super) fn failure(path: &Path, error: &io::Error) -> Option<String> {
    let is_gone = is_stdout(path) && error.kind() == ErrorKind::BrokenPipe;
    (!is_gone).then(|| cannot_write(path, error))
}

fn cannot_write(path: &Path, error: &io::Error) -> String {
    format!("cannot write {}: {error}", name(path))
}

fn name(path: &Path) -> String {
    if is_stdout(path) { "stdout".to_owned() } else { path.display().to_string() }
}

fn is_stdout(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Returns a descriptor of stdout with a life of its own, for unbuffered writes.
fn stdout() -> io::Result<File> {
    io::stdout().as_fd().try_clone_to_owned().map(File::from)
}

/// Returns device and inode, which identify a file (inode(7)); none for a terminal, `/dev/null` and the like, which several may share.
fn identity(file: &File) -> Option<(u64, u64)> {
    let metadata = file.metadata().ok()?;
    (!metadata.file_type().is_char_device()).then(|| (metadata.dev(), metadata.ino()))
}

/// Describes two outputs that go to one place.
fn clash(one: &str, other: &str, path: &Path) -> String {
    let name = name(path);
    let remedy = match one {
        "the table" => format!("use '{other} -' to replace the table"),
        _ if is_stdout(path) => "give one of them a file".to_owned(),
        _ => "give one of them another file".to_owned(),
    };
    format!("{one} and {other} cannot both go to {name}; {remedy}")
}
