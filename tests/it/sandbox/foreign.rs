//! Foreign system calls: a tracer changes the number and the arguments of a call that the server makes (ptrace(2)). The kernel looks at a
//! call after its tracer (since Linux 4.8), so the filter sees the foreign one.

use std::os::unix::process::ExitStatusExt;

use nix::sys::ptrace::{self, Options};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::support::client::{connect, echo};
use crate::support::{Process, proc, skip};

/// A system call: its number, and its first arguments.
type Call = (i64, [u64; 4]);

/// Lets the server make a system call instead of its next one, which is epoll_wait(2) because it has nothing to do.
fn inject(process: &Process, (number, arguments): Call) {
    process.settle();
    let pid = Pid::from_raw(process.pid() as i32);
    let wait = || waitpid(pid, Some(WaitPidFlag::__WALL)).expect("the tracer waits for its tracee");
    ptrace::seize(pid, Options::PTRACE_O_TRACESYSGOOD).expect("a parent may trace its child");
    ptrace::interrupt(pid).expect("PTRACE_INTERRUPT");
    assert!(matches!(wait(), WaitStatus::PtraceEvent(..)));
    let mut registers = loop {
        ptrace::syscall(pid, None).expect("PTRACE_SYSCALL");
        assert!(matches!(wait(), WaitStatus::PtraceSyscall(_)));
        let registers = ptrace::getregs(pid).expect("PTRACE_GETREGS");
        // At the entry of a call, and not at its exit.
        if registers.rax.cast_signed() == -i64::from(libc::ENOSYS) {
            break registers;
        }
    };
    assert_eq!(registers.orig_rax.cast_signed(), libc::SYS_epoll_wait);
    registers.orig_rax = number.cast_unsigned();
    [registers.rdi, registers.rsi, registers.rdx, registers.r10] = arguments;
    ptrace::setregs(pid, registers).expect("PTRACE_SETREGS");
    ptrace::detach(pid, None).expect("PTRACE_DETACH");
}

/// The bit that makes a number one of the x32 architecture (syscall(2)).
const X32: i64 = 0x4000_0000;

/// Calls with which an intruder could go on: open, connect, execute, trace, or reach another process.
fn foreign_calls(server: &Process) -> Vec<(&'static str, Call)> {
    use libc::{self as c};
    let own = u64::from(server.pid());
    let int = |value: i32| u64::from(value.cast_unsigned());
    vec![
        ("socket(AF_INET)", (c::SYS_socket, [int(c::AF_INET), int(c::SOCK_STREAM), 0, 0])),
        ("socket(AF_PACKET)", (c::SYS_socket, [int(c::AF_PACKET), int(c::SOCK_RAW), 0, 0])),
        ("socket(AF_UNIX)", (c::SYS_socket, [int(c::AF_UNIX), int(c::SOCK_STREAM), 0, 0])),
        ("connect", (c::SYS_connect, [0; 4])),
        ("openat", (c::SYS_openat, [int(c::AT_FDCWD), 0, 0, 0])),
        ("execve", (c::SYS_execve, [0; 4])),
        ("fork", (c::SYS_fork, [0; 4])),
        ("clone", (c::SYS_clone, [0; 4])),
        ("clone3", (c::SYS_clone3, [0; 4])),
        ("ptrace", (c::SYS_ptrace, [0; 4])),
        ("kill", (c::SYS_kill, [own, 0, 0, 0])),
        ("tgkill of another process", (c::SYS_tgkill, [1, 1, 0, 0])),
        ("mprotect(PROT_EXEC)", (c::SYS_mprotect, [0, 0, int(c::PROT_READ | c::PROT_EXEC), 0])),
        ("mmap(PROT_EXEC)", (c::SYS_mmap, [0, 4096, int(c::PROT_EXEC), int(c::MAP_PRIVATE | c::MAP_ANONYMOUS)])),
        ("ioctl(TIOCSTI)", (c::SYS_ioctl, [0, c::TIOCSTI, 0, 0])),
        ("setsockopt(SO_BINDTODEVICE)", (c::SYS_setsockopt, [0, int(c::SOL_SOCKET), int(c::SO_BINDTODEVICE), 0])),
        ("getsockopt(SO_PEERCRED)", (c::SYS_getsockopt, [0, int(c::SOL_SOCKET), int(c::SO_PEERCRED), 0])),
        // It makes a listener a socket that sendto(2) with MSG_FASTOPEN could connect.
        ("shutdown(SHUT_RDWR)", (c::SYS_shutdown, [0, int(c::SHUT_RDWR), 0, 0])),
        ("shutdown(SHUT_RD)", (c::SYS_shutdown, [0, int(c::SHUT_RD), 0, 0])),
        ("fcntl(F_SETFD)", (c::SYS_fcntl, [0, int(c::F_SETFD), 0, 0])),
        ("splice of x32", (c::SYS_splice | X32, [0; 4])),
        ("alarm", (c::SYS_alarm, [0; 4])),
        ("no call", (4095, [0; 4])),
    ]
}

/// Calls that the list allows, with arguments for which they return 0: the server takes that for a wait without events.
fn allowed_calls(server: &Process) -> [(&'static str, Call); 3] {
    use libc::{self as c};
    let own = u64::from(server.pid());
    [
        ("madvise", (c::SYS_madvise, [0; 4])),
        ("mprotect(PROT_READ)", (c::SYS_mprotect, [0, 0, u64::from(c::PROT_READ.cast_unsigned()), 0])),
        ("tgkill of itself", (c::SYS_tgkill, [own, own, 0, 0])),
    ]
}

#[test]
fn a_foreign_call_ends_the_process_with_sigsys() {
    let count = foreign_calls(&Process::rust(&[])).len();
    for index in 0..count {
        let mut process = Process::rust(&["--sandbox", "kill"]);
        let (name, call) = foreign_calls(&process).swap_remove(index);
        inject(&process, call);
        let status = process.wait();
        // A shell reports 128 + 31 = 159.
        assert_eq!(status.signal(), Some(libc::SIGSYS), "{name}: {status:?}");
    }
}

/// The instruction `int $0x80`, which makes a call of the i386 architecture (syscall(2)).
const INT_80: [u8; 2] = [0xcd, 0x80];

/// Lets the server make a call of i386, exit_group(42), where it waits in epoll_wait(2), and returns how the process ends.
fn exit_by_i386(mut process: Process) -> std::process::ExitStatus {
    process.settle();
    let pid = Pid::from_raw(process.pid() as i32);
    ptrace::seize(pid, Options::empty()).expect("a parent may trace its child");
    ptrace::interrupt(pid).expect("PTRACE_INTERRUPT");
    let stop = waitpid(pid, Some(WaitPidFlag::__WALL)).expect("the tracer waits for its tracee");
    assert!(matches!(stop, WaitStatus::PtraceEvent(..)));
    let mut registers = ptrace::getregs(pid).expect("PTRACE_GETREGS");
    let code = registers.rip as ptrace::AddressType;
    let mut word = ptrace::read(pid, code).expect("PTRACE_PEEKTEXT").to_ne_bytes();
    word[..INT_80.len()].copy_from_slice(&INT_80);
    ptrace::write(pid, code, i64::from_ne_bytes(word)).expect("PTRACE_POKETEXT");
    registers.orig_rax = u64::MAX; // no call that the kernel would start again
    (registers.rax, registers.rbx) = (252, 42); // __NR_exit_group of asm/unistd_32.h
    ptrace::setregs(pid, registers).expect("PTRACE_SETREGS");
    ptrace::detach(pid, None).expect("PTRACE_DETACH");
    process.wait()
}

#[test]
fn a_call_of_i386_ends_the_process_in_each_mode() {
    let plain = exit_by_i386(Process::rust(&["--sandbox", "off"]));
    if plain.signal() == Some(libc::SIGSEGV) {
        return skip("a_call_of_i386_ends_the_process_in_each_mode", "the kernel has no calls of i386");
    }
    assert_eq!(plain.code(), Some(42), "without a sandbox the call is made: {plain:?}");
    for mode in ["log", "kill"] {
        let status = exit_by_i386(Process::rust(&["--sandbox", mode]));
        assert_eq!(status.signal(), Some(libc::SIGSYS), "{mode}: {status:?}");
    }
}

#[test]
fn a_call_on_the_list_with_good_arguments_does_not_end_the_process() {
    let process = Process::rust(&["--sandbox", "kill"]);
    for (_, call) in allowed_calls(&process) {
        inject(&process, call);
        echo(&connect(process.address), b"hello");
    }
    process.terminate();
}

#[test]
fn with_log_and_without_a_sandbox_a_foreign_call_is_made() {
    for mode in ["log", "off"] {
        let process = Process::rust(&["--sandbox", mode]);
        // proc(5): 0 without a filter, 2 with one. The kernel's log is for root, and not everywhere on.
        let filter = if mode == "log" { "2" } else { "0" };
        assert_eq!(proc::status_field(process.pid(), "Seccomp").as_deref(), Some(filter), "{mode}");
        inject(&process, (libc::SYS_alarm, [0; 4])); // returns 0
        echo(&connect(process.address), b"hello");
        process.terminate();
    }
}
