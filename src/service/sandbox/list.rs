//! The system calls that the sandbox allows.

use libc::c_long;

bitflags::bitflags! {
    /// Optional work of a server. Each adds calls to the list.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Use: u32 {
        /// Returns streams without a copy: splice(2).
        const ZERO_COPY = 1 << 0;
        /// Writes collected frames to a file: fdatasync(2), and the end of the thread that writes.
        const COLLECT = 1 << 1;
        /// Serves inherited sockets: setsockopt(2) for clients that were queued before the server had set its options, and ioctl(2) to keep the
        /// sockets non-blocking.
        const INHERITED = 1 << 2;
        /// Serves the admin endpoint: pread64(2) and statx(2) of files in `/proc/self` that are open.
        const ADMIN = 1 << 3;
    }
}

/// A system call that the sandbox allows.
#[derive(Debug)]
#[non_exhaustive]
pub struct Call {
    /// The name of the call, as in syscalls(2).
    pub name: &'static str,
    /// The arguments that are allowed. Empty: any.
    pub alternatives: &'static [Alternative],
    /// The reason for the call, or for some of its alternatives, if tests do not see it.
    pub unseen: Option<&'static str>,
    number: c_long,
    uses: Use,
}

impl Call {
    /// Returns the number of the call on this architecture.
    #[must_use]
    pub fn number(&self) -> i64 {
        self.number
    }

    const fn unseen(self, reason: &'static str) -> Self {
        Self { unseen: Some(reason), ..self }
    }

    /// Leaves the call out for servers that do none of `uses`.
    const fn only_for(self, uses: Use) -> Self {
        Self { uses, ..self }
    }

    fn is_for(&self, uses: Use) -> bool {
        self.uses.is_empty() || self.uses.intersects(uses)
    }
}

/// Arguments with which a call is allowed.
#[derive(Debug)]
#[non_exhaustive]
pub struct Alternative {
    /// A word by which strace(1) shows these arguments. Empty: any.
    pub shown_as: &'static str,
    conditions: &'static [Condition],
}

impl Alternative {
    const fn new(shown_as: &'static str, conditions: &'static [Condition]) -> Self {
        Self { shown_as, conditions }
    }

    /// Returns the conditions, all of which must hold.
    pub(super) fn conditions(&self) -> &'static [Condition] {
        self.conditions
    }
}

/// A condition on an argument of type int.
#[derive(Debug, Clone, Copy)]
pub(super) struct Condition {
    /// Index from 0.
    pub(super) argument: u8,
    pub(super) is: Is,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Is {
    Equal(u32),
    /// None of these bits is set.
    Without(u32),
    /// The ID of this process.
    OwnProcess,
}

const fn equal(argument: u8, value: i32) -> Condition {
    Condition { argument, is: Is::Equal(value as u32) } // the bits of an int
}

/// The third argument of mmap(2) and mprotect(2): the memory is not executable.
const NOT_EXECUTABLE: Alternative =
    Alternative::new("PROT_", &[Condition { argument: 2, is: Is::Without(libc::PROT_EXEC as u32) }]);

/// Names a call, and has the compiler look up its number.
macro_rules! call {
    ($name:ident $number:ident) => {
        call!($name $number [])
    };
    ($name:ident $number:ident [$($alternative:expr),* $(,)?]) => {
        Call {
            name: stringify!($name),
            alternatives: &[$($alternative),*],
            unseen: None,
            number: libc::$number,
            uses: Use::empty(),
        }
    };
}

/// The calls, by their purpose.
const CALLS: &[Call] = &[
    // Waiting for events. Without an epoll_wait(2) of its own, an architecture has epoll_pwait(2).
    #[cfg(target_arch = "x86_64")]
    call!(epoll_wait SYS_epoll_wait),
    #[cfg(not(target_arch = "x86_64"))]
    call!(epoll_pwait SYS_epoll_pwait),
    call!(epoll_ctl SYS_epoll_ctl),
    // Connections.
    call!(accept4 SYS_accept4),
    call!(recvfrom SYS_recvfrom),
    call!(sendto SYS_sendto),
    call!(splice SYS_splice).only_for(Use::ZERO_COPY),
    // The end of a stream. Other kinds turn a listener into a socket that sendto(2) with MSG_FASTOPEN can connect.
    call!(shutdown SYS_shutdown [Alternative::new("SHUT_WR", &[equal(1, libc::SHUT_WR)])]),
    call!(close SYS_close),
    call!(ioctl SYS_ioctl [
        Alternative::new("FIONREAD", &[equal(1, libc::FIONREAD as i32)]),
        Alternative::new("TIOCOUTQ", &[equal(1, libc::TIOCOUTQ as i32)]),
    ]),
    call!(ioctl SYS_ioctl [Alternative::new("FIONBIO", &[equal(1, libc::FIONBIO as i32)])])
        .only_for(Use::INHERITED)
        .unseen("only an inherited socket can become blocking again"),
    call!(getsockopt SYS_getsockopt [
        Alternative::new("TCP_INFO", &[equal(1, libc::IPPROTO_TCP), equal(2, libc::TCP_INFO)]),
        Alternative::new("SO_ERROR", &[equal(1, libc::SOL_SOCKET), equal(2, libc::SO_ERROR)]),
    ]),
    call!(setsockopt SYS_setsockopt [
        Alternative::new("SO_LINGER", &[equal(1, libc::SOL_SOCKET), equal(2, libc::SO_LINGER)]),
    ])
    .unseen("a connection is reset when the kernel has no memory for what it received"),
    call!(setsockopt SYS_setsockopt [
        Alternative::new("TCP_NODELAY", &[equal(1, libc::IPPROTO_TCP), equal(2, libc::TCP_NODELAY)]),
        Alternative::new("TCP_KEEPIDLE", &[equal(1, libc::IPPROTO_TCP), equal(2, libc::TCP_KEEPIDLE)]),
        Alternative::new("TCP_KEEPINTVL", &[equal(1, libc::IPPROTO_TCP), equal(2, libc::TCP_KEEPINTVL)]),
        Alternative::new("TCP_KEEPCNT", &[equal(1, libc::IPPROTO_TCP), equal(2, libc::TCP_KEEPCNT)]),
        Alternative::new("TCP_USER_TIMEOUT", &[equal(1, libc::IPPROTO_TCP), equal(2, libc::TCP_USER_TIMEOUT)]),
        Alternative::new("SO_OOBINLINE", &[equal(1, libc::SOL_SOCKET), equal(2, libc::SO_OOBINLINE)]),
        Alternative::new("SO_KEEPALIVE", &[equal(1, libc::SOL_SOCKET), equal(2, libc::SO_KEEPALIVE)]),
        Alternative::new("SO_RCVBUF", &[equal(1, libc::SOL_SOCKET), equal(2, libc::SO_RCVBUF)]),
        Alternative::new("SO_SNDBUF", &[equal(1, libc::SOL_SOCKET), equal(2, libc::SO_SNDBUF)]),
    ])
    .only_for(Use::INHERITED)
    .unseen("only clients that were queued for an inherited socket before the server started need it"),
    call!(listen SYS_listen), // at a drain, with a backlog of 0
    // Signals, handles and other threads; stdout, stderr and the output of `collect`.
    call!(read SYS_read),
    call!(write SYS_write),
    #[cfg(target_arch = "x86_64")]
    call!(poll SYS_poll),
    #[cfg(not(target_arch = "x86_64"))]
    call!(ppoll SYS_ppoll),
    call!(futex SYS_futex),
    call!(statx SYS_statx).only_for(Use::COLLECT.union(Use::ADMIN)),
    call!(pread64 SYS_pread64).only_for(Use::ADMIN),
    call!(fdatasync SYS_fdatasync).only_for(Use::COLLECT),
    // Memory.
    call!(brk SYS_brk),
    call!(mmap SYS_mmap [NOT_EXECUTABLE]),
    call!(mprotect SYS_mprotect [NOT_EXECUTABLE])
        .unseen("malloc(3) of musl, and of a program that has not called `prepare`"),
    call!(mremap SYS_mremap),
    call!(munmap SYS_munmap),
    call!(madvise SYS_madvise),
    // The end, by the default action of a signal or by abort(3).
    call!(rt_sigaction SYS_rt_sigaction),
    call!(rt_sigprocmask SYS_rt_sigprocmask),
    call!(getpid SYS_getpid),
    call!(gettid SYS_gettid),
    call!(tgkill SYS_tgkill [Alternative::new("", &[Condition { argument: 0, is: Is::OwnProcess }])]),
    call!(exit_group SYS_exit_group),
    call!(exit SYS_exit).only_for(Use::COLLECT.union(Use::ADMIN)),
    call!(sigaltstack SYS_sigaltstack),
    // The standard library and the C library.
    call!(getrandom SYS_getrandom).unseen("the seed of a hash map, and of malloc(3), where a thread has none yet"),
    call!(sched_yield SYS_sched_yield).unseen("a channel between threads calls it in the rare moment of a collision"),
    call!(sched_getaffinity SYS_sched_getaffinity)
        .unseen("malloc(3) of a program that has not called `prepare` counts the CPUs"),
    call!(clock_gettime SYS_clock_gettime)
        .unseen("the vDSO answers it, unless the clock of the machine is too slow or unreliable for that"),
    call!(restart_syscall SYS_restart_syscall)
        .unseen("the kernel calls it after SIGSTOP and SIGCONT, for a poll(2) or futex(2) with a timeout"),
    call!(rt_sigreturn SYS_rt_sigreturn)
        .unseen("the return from a signal handler: Rust's for a stack overflow, and the C library's"),
    // The standard library of a debug build checks that a descriptor is open before it closes it.
    #[cfg(debug_assertions)]
    call!(fcntl SYS_fcntl [Alternative::new("F_GETFD", &[equal(1, libc::F_GETFD)])]),
];

/// Returns the calls that a server with `uses` may make.
pub fn calls(uses: Use) -> impl Iterator<Item = &'static Call> {
    CALLS.iter().filter(move |call| call.is_for(uses))
}
