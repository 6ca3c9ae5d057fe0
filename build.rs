//! Compiles the C reference and `abi.c` for this repository's own tests, which run them as separate processes. Nothing of them is linked
//! into the crate.
//!
//! Only the tests turn on the feature `c-reference` (see the dev-dependency on this crate itself in `Cargo.toml`). So `cargo build`,
//! `cargo install` and crates that depend on this one run no C compiler. Without a C compiler the tests that need one say that they are
//! skipped.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_C_REFERENCE").is_none() {
        return;
    }
    println!("cargo::rerun-if-changed=c_reference");
    println!("cargo::rerun-if-env-changed=CC");
    for (source, variable) in [("c_reference/edgecho.c", "C_REFERENCE_PROGRAM"), ("c_reference/abi.c", "C_REFERENCE_ABI")] {
        match compile(Path::new(source)) {
            Ok(program) => println!("cargo::rustc-env={variable}={}", program.display()),
            Err(reason) => {
                println!("cargo::warning=cannot compile {source}; the tests that need it are skipped: {reason}")
            }
        }
    }
}

/// Compiles one source file into a program, and returns its path.
fn compile(source: &Path) -> Result<PathBuf, String> {
    let directory = env::var_os("OUT_DIR").ok_or("cargo has set no OUT_DIR")?;
    let program = Path::new(&directory).join(source.file_stem().ok_or("the source has no name")?);
    // As for make(1), CC may hold arguments: "ccache gcc".
    let compiler = env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let mut words = compiler.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or("cc"));
    command.args(words).args(["-std=c11", "-O2", "-g", "-o"]).arg(&program).arg(source);
    let result = command.output().map_err(|error| format!("{compiler}: {error}"))?;
    if !result.status.success() {
        let message = String::from_utf8_lossy(&result.stderr).trim().replace('\n', " | ");
        return Err(format!("{}: {}", result.status, message));
    }
    Ok(program)
}
