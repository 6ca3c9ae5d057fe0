//! The libc crate's view of the kernel's interface must agree with the C headers of this machine (c_reference/abi.c).

use std::collections::BTreeMap;
use std::mem::{align_of, offset_of, size_of};
use std::process::Command;

use crate::support::{run, skip};

/// Returns the values of the libc crate, in the form that abi.c prints.
fn view_of_libc() -> BTreeMap<String, i64> {
    let mut view = BTreeMap::new();
    macro_rules! sizes {
        ($($type:ident),*) => { $( view.insert(format!("sizeof({})", stringify!($type)), size_of::<libc::$type>() as i64); )* };
    }
    macro_rules! fields {
        ($type:ident: $($field:ident: $field_type:ty),*) => { $(
            let place = format!("{},{}", stringify!($type), stringify!($field));
            view.insert(format!("offsetof({place})"), offset_of!(libc::$type, $field) as i64);
            // The type that the field is given here is the field's own, or this line does not compile.
            let _ = |value: libc::$type| -> $field_type { value.$field };
            view.insert(format!("sizeof({})", place.replace(',', ".")), size_of::<$field_type>() as i64);
        )* };
    }
    macro_rules! constants {
        ($($name:ident),*) => { $( view.insert(stringify!($name).to_owned(), i64::from(libc::$name)); )* };
    }

    sizes!(epoll_event, signalfd_siginfo, sockaddr_in, sockaddr_in6, socklen_t, rlim_t);
    view.insert("alignof(epoll_event)".to_owned(), align_of::<libc::epoll_event>() as i64);
    view.insert("offsetof(epoll_event,u64)".to_owned(), offset_of!(libc::epoll_event, u64) as i64);
    fields!(epoll_event: events: u32);
    fields!(signalfd_siginfo: ssi_signo: u32, ssi_pid: u32);
    fields!(sockaddr_in: sin_family: libc::sa_family_t, sin_port: libc::in_port_t, sin_addr: libc::in_addr);
    fields!(sockaddr_in6: sin6_family: libc::sa_family_t, sin6_port: libc::in_port_t, sin6_flowinfo: u32);
    fields!(sockaddr_in6: sin6_addr: libc::in6_addr, sin6_scope_id: u32);

    constants!(EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP, EPOLLERR, EPOLLHUP);
    constants!(EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_MOD);
    // The libc crate has this bit as an int, where it is the sign; the C headers have it as an unsigned one.
    view.insert("EPOLLET".to_owned(), i64::from(libc::EPOLLET as u32));
    constants!(AF_INET, AF_INET6, SOCK_STREAM, SOCK_NONBLOCK, SOCK_CLOEXEC, IPPROTO_TCP);
    constants!(SOL_SOCKET, SO_REUSEADDR, SO_OOBINLINE, TCP_NODELAY);
    constants!(MSG_NOSIGNAL, MSG_DONTWAIT, MSG_OOB, SHUT_RD, SHUT_WR, SHUT_RDWR);
    constants!(SFD_NONBLOCK, SFD_CLOEXEC, SIGINT, SIGTERM, RLIMIT_NOFILE);
    view
}

#[test]
fn the_libc_crate_agrees_with_the_c_headers() {
    let Some(program) = option_env!("C_REFERENCE_ABI") else {
        return skip("the_libc_crate_agrees_with_the_c_headers", "abi.c was not compiled");
    };
    let (status, output, _) = run(&mut Command::new(program));
    assert!(status.success());
    let headers: BTreeMap<String, i64> = output
        .lines()
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("NAME VALUE");
            (name.to_owned(), value.parse().expect("a number"))
        })
        .collect();
    assert_eq!(view_of_libc(), headers);
}
