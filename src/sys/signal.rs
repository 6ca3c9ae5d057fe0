//! Signals as something to read: sigprocmask(2), signalfd(2); and what is done about them otherwise: sigaction(2), raise(3). nix makes
//! most of the calls, signal-hook knows the names.

use std::io;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, sigprocmask};
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

/// Does what SIGINT, SIGTERM and most other signals do to a process that has no handler for them: ends it, so that its parent sees
/// which signal it died of (signal(7)). Only async-signal-safe calls are made (signal-safety(7)).
///
/// Returns if the process is still there: the kernel never lets a signal without a handler end process 1 of a PID namespace, as the
/// first process of a container is (pid_namespaces(7)). Such a process should exit with status 128 + `number`, as a shell reports it.
///
/// # Errors
/// `EINVAL`: there is no such signal.
pub fn default_action(number: i32) -> io::Result<()> {
    let signal = Signal::try_from(number)?;
    restore_default(signal)?;
    unblock(&[signal])?;
    raise(signal)
}

/// sigaction(2): has `signal` raise `flag`, after the handlers that it already has.
///
/// # Errors
/// `EINVAL`: a signal that cannot be caught.
pub fn raise_flag(signal: Signal, flag: &Arc<AtomicBool>) -> io::Result<()> {
    signal_hook::flag::register(signal as i32, Arc::clone(flag))?;
    Ok(())
}

/// sigaction(2): has `signal` end the process if `flag` is raised when it arrives. Process 1 of a PID namespace survives the default
/// action; it exits with status 128 plus the number of the signal.
///
/// # Errors
/// `EINVAL`: a signal that cannot be caught.
pub fn end_if_raised(signal: Signal, flag: &Arc<AtomicBool>) -> io::Result<()> {
    let (number, flag) = (signal as i32, Arc::clone(flag));
    let end = move || {
        if flag.load(Ordering::SeqCst) {
            let _ = default_action(number);
            signal_hook::low_level::exit(128 + number);
        }
    };
    // SAFETY: all that `end` does is async-signal-safe: an atomic load, sigaction(2), sigprocmask(2), raise(3) and _exit(2).
    unsafe { signal_hook::low_level::register(number, end) }?;
    Ok(())
}

/// signal(2), `SIG_IGN`: has the process ignore `signal`. Programs that it executes ignore it, too.
///
/// # Errors
/// `EINVAL`: SIGKILL and SIGSTOP cannot be ignored.
pub fn ignore(signal: Signal) -> io::Result<()> {
    // SAFETY: no handler of ours is called from now on, so none can be called at a bad time.
    unsafe { nix::sys::signal::signal(signal, SigHandler::SigIgn) }?;
    Ok(())
}

/// sigaction(2), `SIG_DFL`: takes away the handler of `signal`, if it has one.
///
/// # Errors
/// `EINVAL`: SIGKILL and SIGSTOP have no other action than the default one.
pub fn restore_default(signal: Signal) -> io::Result<()> {
    // SAFETY: all zeroes are a valid `sigaction`: the default action, no flags, and no other signal blocked meanwhile.
    let mut default = unsafe { MaybeUninit::<libc::sigaction>::zeroed().assume_init() };
    default.sa_sigaction = libc::SIG_DFL;
    // SAFETY: the kernel reads one `sigaction`, and gives none back. No handler of ours is called from now on.
    check(unsafe { libc::sigaction(signal as i32, &raw const default, std::ptr::null_mut()) })?;
    Ok(())
}

/// sigprocmask(2), `SIG_UNBLOCK`: lets `signals` interrupt this thread again.
///
/// # Errors
/// None that a valid set could bring about.
pub fn unblock(signals: &[Signal]) -> io::Result<()> {
    Ok(sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&set(signals)), None)?)
}

/// raise(3): sends `signal` to this thread. If it is not blocked, its action is done before the call returns.
///
/// # Errors
/// None that a valid signal could bring about.
pub fn raise(signal: Signal) -> io::Result<()> {
    Ok(nix::sys::signal::raise(signal)?)
}

/// The signals that a thread blocks.
pub type Mask = SigSet;

/// sigprocmask(2), `SIG_SETMASK`: blocks every signal that can be blocked, and returns what was blocked before. A thread that is started
/// now blocks all of them from its first instruction on.
///
/// # Errors
/// None that a valid set could bring about.
pub fn block_all() -> io::Result<Mask> {
    let mut before = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before))?;
    Ok(before)
}

/// sigprocmask(2), `SIG_SETMASK`: blocks the signals of `mask` and no other.
///
/// # Errors
/// None that a valid set could bring about.
pub fn set_mask(mask: &Mask) -> io::Result<()> {
    Ok(sigprocmask(SigmaskHow::SIG_SETMASK, Some(mask), None)?)
}

fn set(signals: &[Signal]) -> SigSet {
    signals.iter().copied().collect()
}
