//! Signals: masks (sigprocmask(2)), descriptors to read them from (signalfd(2)), actions (sigaction(2)) and sending (raise(3)). nix makes
//! most of the calls; signal-hook provides names and handlers.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::{check, check_count};

/// A signal (signal(7)). Cast it with `as i32` to get its number.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum Signal {
    /// Hangup of the controlling terminal, or death of its process.
    SIGHUP = libc::SIGHUP,
    /// Interrupt from the keyboard (Ctrl-C).
    SIGINT = libc::SIGINT,
    /// Quit from the keyboard (Ctrl-\).
    SIGQUIT = libc::SIGQUIT,
    /// Termination, as kill(1) requests it by default.
    SIGTERM = libc::SIGTERM,
    /// Write to a pipe or socket without a reader.
    SIGPIPE = libc::SIGPIPE,
    /// User-defined signal 1.
    SIGUSR1 = libc::SIGUSR1,
    /// User-defined signal 2.
    SIGUSR2 = libc::SIGUSR2,
    /// Timer of alarm(2).
    SIGALRM = libc::SIGALRM,
    /// A child has stopped or terminated.
    SIGCHLD = libc::SIGCHLD,
    /// Continue a stopped process.
    SIGCONT = libc::SIGCONT,
    /// Stop from the keyboard (Ctrl-Z).
    SIGTSTP = libc::SIGTSTP,
    /// Change of the window size.
    SIGWINCH = libc::SIGWINCH,
    /// File larger than `RLIMIT_FSIZE` (setrlimit(2)).
    SIGXFSZ = libc::SIGXFSZ,
}

impl From<Signal> for nix::sys::signal::Signal {
    fn from(signal: Signal) -> Self {
        match signal {
            Signal::SIGHUP => Self::SIGHUP,
            Signal::SIGINT => Self::SIGINT,
            Signal::SIGQUIT => Self::SIGQUIT,
            Signal::SIGTERM => Self::SIGTERM,
            Signal::SIGPIPE => Self::SIGPIPE,
            Signal::SIGUSR1 => Self::SIGUSR1,
            Signal::SIGUSR2 => Self::SIGUSR2,
            Signal::SIGALRM => Self::SIGALRM,
            Signal::SIGCHLD => Self::SIGCHLD,
            Signal::SIGCONT => Self::SIGCONT,
            Signal::SIGTSTP => Self::SIGTSTP,
            Signal::SIGWINCH => Self::SIGWINCH,
            Signal::SIGXFSZ => Self::SIGXFSZ,
        }
    }
}

/// Blocks `signals` in the calling thread: sigprocmask(2), `SIG_BLOCK`. A blocked signal stays pending and can be read from a signalfd,
/// even if the process inherited that it is ignored.
///
/// # Errors
/// None are known for a valid set.
pub fn block(signals: &[Signal]) -> io::Result<()> {
    Ok(sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set(signals)), None)?)
}

/// Returns whether the process ignores `signal`: sigaction(2).
///
/// # Errors
/// None are known for a valid signal.
pub fn is_ignored(signal: Signal) -> io::Result<bool> {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: a null pointer sets nothing, and the kernel writes one `sigaction`, the size of `action`.
    check(unsafe { libc::sigaction(signal as i32, std::ptr::null(), action.as_mut_ptr()) })?;
    // SAFETY: the call has succeeded, so `action` is initialised.
    let action = unsafe { action.assume_init() };
    Ok(action.sa_sigaction == libc::SIG_IGN)
}

/// Creates a non-blocking descriptor, closed on execve(2), from which `signals` can be read: signalfd4(2). The caller must [`block`] them.
///
/// # Errors
/// `EMFILE`, `ENFILE`: the process or the system is out of descriptors. `ENOMEM`: out of kernel memory.
pub fn signalfd(signals: &[Signal]) -> io::Result<OwnedFd> {
    Ok(SignalFd::with_flags(&set(signals), SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?.into())
}

/// Returns the number of the next pending signal, and removes that signal: read(2) on a descriptor from [`signalfd`].
///
/// # Errors
/// `EAGAIN`: no signal is pending. `EINTR`: the handler of another signal ran.
pub fn read(signalfd: BorrowedFd<'_>) -> io::Result<i32> {
    let mut info = MaybeUninit::<libc::signalfd_siginfo>::zeroed();
    // SAFETY: the kernel writes at most one `signalfd_siginfo`, the size of `info`.
    check_count(unsafe { libc::read(signalfd.as_raw_fd(), info.as_mut_ptr().cast(), size_of_val(&info)) })?;
    // SAFETY: every field is an integer, for which zero is valid; the kernel has overwritten all of them.
    let info = unsafe { info.assume_init() };
    // Signal numbers are below 65 (signal(7)): only the C struct makes the field unsigned.
    Ok(info.ssi_signo as i32)
}

/// Returns the name of a signal, for example `SIGTERM`.
#[must_use]
pub fn name(number: i32) -> &'static str {
    signal_hook::low_level::signal_name(number).unwrap_or("an unknown signal")
}

/// Performs the default action of a signal. For SIGINT, SIGTERM and most others, the process ends, and its parent sees the signal that
/// ended it (signal(7)).
///
/// Restores the default action, unblocks the signal and sends it to the calling thread: sigaction(2), sigprocmask(2) and raise(3), which
/// are async-signal-safe (signal-safety(7)).
///
/// Returns if the process survives. The kernel never lets a signal without a handler end process 1 of a PID namespace, such as the first
/// process of a container (pid_namespaces(7)). Such a process should exit with status 128 + `number`, as a shell would report it.
///
/// # Errors
/// `EINVAL`: `number` is not a standard signal, or is SIGKILL or SIGSTOP.
pub fn default_action(number: i32) -> io::Result<()> {
    let signal = nix::sys::signal::Signal::try_from(number)?;
    restore_default(number)?;
    sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&SigSet::from(signal)), None)?;
    Ok(nix::sys::signal::raise(signal)?)
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

/// Ignores `signal` in this process and in programs that it executes: signal(2), `SIG_IGN`.
///
/// # Errors
/// None are known for the signals of [`Signal`].
pub fn ignore(signal: Signal) -> io::Result<()> {
    // SAFETY: this installs no handler.
    unsafe { nix::sys::signal::signal(signal.into(), SigHandler::SigIgn) }?;
    Ok(())
}

/// Restores the default action: sigaction(2), `SIG_DFL`.
fn restore_default(number: i32) -> io::Result<()> {
    // SAFETY: an all-zero `sigaction` is valid: the default action, no flags, and no other signal blocked.
    let mut default = unsafe { MaybeUninit::<libc::sigaction>::zeroed().assume_init() };
    default.sa_sigaction = libc::SIG_DFL;
    // SAFETY: the kernel reads one `sigaction`, and a null pointer returns none. This installs no handler.
    check(unsafe { libc::sigaction(number, &raw const default, std::ptr::null_mut()) })?;
    Ok(())
}

/// Unblocks `signals` in the calling thread: sigprocmask(2), `SIG_UNBLOCK`.
///
/// # Errors
/// None are known for a valid set.
pub fn unblock(signals: &[Signal]) -> io::Result<()> {
    Ok(sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&set(signals)), None)?)
}

/// A signal mask: the signals that a thread blocks.
#[derive(Debug, Clone, Copy)]
pub struct Mask(SigSet);

/// Blocks every signal that can be blocked, and returns the previous mask: sigprocmask(2), `SIG_SETMASK`. A thread started afterwards
/// blocks them from its first instruction on.
///
/// # Errors
/// None are known for a valid set.
pub fn block_all() -> io::Result<Mask> {
    let mut before = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before))?;
    Ok(Mask(before))
}

/// Blocks the signals of `mask`, and no other: sigprocmask(2), `SIG_SETMASK`.
///
/// # Errors
/// None are known for a valid set.
pub fn set_mask(mask: &Mask) -> io::Result<()> {
    Ok(sigprocmask(SigmaskHow::SIG_SETMASK, Some(&mask.0), None)?)
}

fn set(signals: &[Signal]) -> SigSet {
    signals.iter().map(|&signal| nix::sys::signal::Signal::from(signal)).collect()
}
