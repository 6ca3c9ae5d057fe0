//! Least privilege: its flags, and when they take effect.

use clap::{Args, ValueEnum};
use edgecho::service::privileges::{Error, Identity, Privileges};
use edgecho::service::sandbox::{self, Mode, Use};
use tracing::info;

use super::failure::Failure;
use crate::cli::stderr;

#[derive(Debug, Args)]
#[command(next_help_heading = "Least privilege")]
pub(super) struct PrivilegeFlags {
    /// User and group to become once the server listens
    ///
    /// Names or numbers, such as nobody, nobody:nogroup or 65534:65534; neither may be root. Without GROUP it is the user's own group. Root
    /// is needed for a port below 1024 only, so the server then gives up all of root's rights, for good. The file of --output is opened
    /// before. Started without root, the server can only stay the user that it is.
    #[arg(long, value_name = "NAME[:GROUP]", env = "EDGECHO_USER")]
    user: Option<Identity>,

    /// Effect of a system call that is not on the list of the server
    ///
    /// 'log': the kernel logs the call, and it is made. 'kill': the process ends with SIGSYS (status 159 in a shell). The list has what the
    /// server calls while it serves; it opens no file or socket, starts no program, and makes no memory executable.
    #[arg(long, value_name = "MODE", env = "EDGECHO_SANDBOX", value_enum, default_value_t = Sandbox::Off)]
    sandbox: Sandbox,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sandbox {
    /// Allow every call
    Off,
    /// Log other calls
    Log,
    /// End the process at another call
    Kill,
}

/// The rights that the process still has, and how to give them up.
#[derive(Debug)]
pub(super) struct Rights {
    privileges: Option<Privileges>,
    sandbox: Option<Mode>,
}

impl PrivilegeFlags {
    /// Prepares the process to give up its rights. The first step of `serve`, before another thread starts.
    pub(super) fn prepare(&self) -> Result<Rights, Failure> {
        let sandbox = match self.sandbox {
            Sandbox::Off => None,
            Sandbox::Log => Some(Mode::Log),
            Sandbox::Kill => Some(Mode::Kill),
        };
        if sandbox.is_some() {
            sandbox::prepare();
        }
        let Some(user) = &self.user else { return Ok(Rights { privileges: None, sandbox }) };
        // A thread has capabilities of its own. One that does not exist has none.
        stderr::write_without_thread();
        let privileges = Privileges::prepare(user).map_err(|error| Failure::new(format_args!("--user: {error}")))?;
        Ok(Rights { privileges: Some(privileges), sandbox })
    }
}

impl Rights {
    /// Gives up privileges, and installs the sandbox for a server with `uses`. Everything is open by now, and all threads have started, but
    /// for that of the log.
    pub(super) fn give_up(self, uses: Use) -> Result<(), Failure> {
        if let Some(privileges) = self.privileges {
            let (identity, has_rights) = (privileges.identity().clone(), privileges.has_rights());
            privileges.give_up().map_err(|error| match error {
                Error::KeptCapabilities { .. } => Failure::new(format_args!(
                    "--user: {error}; start it as root or without these capabilities, or leave out --admin and --protocol collect, \
                     whose threads start before they are given up"
                )),
                error => Failure::new(format_args!("--user: {error}")),
            })?;
            // Before the thread of the log may start: with one thread, the calls of the C library are cheaper.
            if has_rights {
                info!("gave up all rights of root: the process is {identity}");
            } else {
                info!("there were no rights of root to give up: the process was and is {identity}");
            }
            stderr::write_with_thread();
        }
        if let Some(mode) = self.sandbox {
            stderr::start();
            sandbox::install(mode, uses).map_err(|error| Failure::new(format_args!("--sandbox: {error}")))?;
        }
        Ok(())
    }
}
