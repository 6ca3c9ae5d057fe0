//! Compiles the C reference and `abi.c` with whatever C compiler there is, for the tests to run as processes. Nothing of them
//! is linked into the crate, so without a compiler it builds all the same; the tests that need them then say that they were
//! skipped.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=c_reference");
    println!("cargo::rerun-if-env-changed=CC");
    for (source, variable) in [("c_reference/edgecho.c", "EDGECHO_C_REFERENCE"), ("c_reference/abi.c", "EDGECHO_C_ABI")] {
        match compile(Path::new(source)) {
            Ok(program) => println!("cargo::rustc-env={variable}={}", program.display()),
            Err(reason) => {
                println!("cargo::warning={source} was not compiled, and the tests that need it are skipped: {reason}")
            }
        }
    }
}

/// Compiles one source file into one program, and gives the program's path.
fn compile(source: &Path) -> Result<PathBuf, String> {
    let output = env::var_os("OUT_DIR").ok_or("cargo sets no OUT_DIR")?;
    let program = Path::new(&output).join(source.file_stem().ok_or("the source has no name")?);
    let compiler =
        cc::Build::new().cargo_metadata(false).opt_level(2).try_get_compiler().map_err(|error| error.to_string())?;
    let mut command: Command = compiler.to_command();
    command.args(["-std=c11", "-O2", "-g", "-o"]).arg(&program).arg(source);
    let result = command.output().map_err(|error| format!("{}: {error}", compiler.path().display()))?;
    if !result.status.success() {
        return Err(format!("{}: {}", result.status, String::from_utf8_lossy(&result.stderr).trim().replace('\n', " | ")));
    }
    Ok(program)
}
