//! Signals as something to read: sigprocmask(2), signalfd(2). nix makes the calls but for one, signal-hook knows the names.

use std::io;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

pub use nix::sys::signal::Signal;

use super::check;

/// sigprocmask(2), `SIG_BLOCK`: keeps `signals` from interrupting this thread. They stay pending, to be read from a
/// signalfd, even those that the process was started to ignore.
///
/// # Errors
/// None that a valid set could bring about.
pub fn block(signals: &[Signal]) -> io::Result<()> {
    Ok(sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set(signals)), None)?)
}

/// sigaction(2), only to ask: whether the process ignores `signal`.
///
/// # Errors
/// None that a valid signal could bring about.
pub fn is_ignored(signal: Signal) -> io::Result<bool> {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: nothing is to be set, and the kernel writes one `sigaction`, which `action` has room for.
    check(unsafe { libc::sigaction(signal as i32, std::ptr::null(), action.as_mut_ptr()) })?;
    // SAFETY: the call has succeeded, and so has written it.
    let action = unsafe { action.assume_init() };
    Ok(action.sa_sigaction == libc::SIG_IGN)
}

/// signalfd4(2): a non-blocking descriptor, closed at execve(2), that `signals` can be read from. They must be blocked.
///
/// # Errors
/// `EMFILE`, `ENFILE`, `ENOMEM`: out of resources.
pub fn signalfd(signals: &[Signal]) -> io::Result<SignalFd> {
    Ok(SignalFd::with_flags(&set(signals), SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?)
}

/// read(2) on a signalfd: the number of the next pending signal (signal(7)), or none.
///
/// # Errors
/// `EINTR`: a signal that is not blocked came first.
pub fn read(signalfd: &SignalFd) -> io::Result<Option<i32>> {
    // A signal's number is under 65: the field is unsigned only in the C struct.
    Ok(signalfd.read_signal()?.map(|info| info.ssi_signo as i32))
}

/// What a signal is called: `SIGTERM`.
#[must_use]
pub fn name(number: i32) -> &'static str {
    signal_hook::low_level::signal_name(number).unwrap_or("an unknown signal")
}

/// Does what the signal does to a process that has no handler for it: for SIGINT and SIGTERM, ends the process, so that its
/// parent sees which signal it died of (signal(7)).
///
/// # Errors
/// `EINVAL`: a signal whose default action is not known.
pub fn default_action(number: i32) -> io::Result<()> {
    signal_hook::low_level::emulate_default_handler(number)
}

/// sigaction(2): has each of `signals` raise `flag`, and, once it is raised, do what it does without a handler.
///
/// # Errors
/// `EINVAL`: a signal that cannot be caught.
pub fn raise_flag(signals: &[Signal], flag: &Arc<AtomicBool>) -> io::Result<()> {
    for &signal in signals {
        // In this order: the first signal finds the flag lowered, and then raises it.
        signal_hook::flag::register_conditional_default(signal as i32, Arc::clone(flag))?;
        signal_hook::flag::register(signal as i32, Arc::clone(flag))?;
    }
    Ok(())
}

fn set(signals: &[Signal]) -> SigSet {
    signals.iter().copied().collect()
}

/// sigaction(2): has each of `signals` raise `flag` whenever it comes, and do nothing else.
///
/// # Errors
/// `EINVAL`: a signal that cannot be caught.
pub fn raise_flag_always(signals: &[Signal], flag: &Arc<AtomicBool>) -> io::Result<()> {
    for &signal in signals {
        signal_hook::flag::register(signal as i32, Arc::clone(flag))?;
    }
    Ok(())
}
