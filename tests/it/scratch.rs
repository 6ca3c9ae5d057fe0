//! Files of a test's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::stat::Mode;

/// A new folder for temporary files. It is removed with all that it holds when it goes out of scope.
pub struct Scratch {
    folder: PathBuf,
}

impl Scratch {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("edgecho-test-{}-{number}", std::process::id()));
        fs::create_dir(&folder).expect("a new folder");
        Self { folder }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the path of a file in the folder, which need not exist.
    pub fn file(&self, name: &str) -> String {
        self.folder.join(name).into_os_string().into_string().expect("a path in UTF-8")
    }

    /// Makes a FIFO, and returns its path and the open FIFO. As long as that is open, opening the path does not block.
    pub fn fifo(&self, name: &str) -> (String, fs::File) {
        let path = self.file(name);
        nix::unistd::mkfifo(path.as_str(), Mode::S_IRWXU).expect("mkfifo");
        let file = fs::File::options().read(true).write(true).open(&path).expect("the FIFO");
        (path, file)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}
