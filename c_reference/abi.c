/*
 * abi.c - the sizes, offsets and constants of the kernel interface, from the C headers of this machine.
 *
 *     cc -o abi c_reference/abi.c && ./abi
 *
 * Prints one line `NAME VALUE` for each. Sizes and offsets are in bytes. A test compares them with the libc crate, which the Rust
 * code is compiled against.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>

#define SIZE(type) printf("sizeof(" #type ") %zu\n", sizeof(struct type))
#define FIELD(type, field) \
    printf("offsetof(" #type "," #field ") %zu\nsizeof(" #type "." #field ") %zu\n", offsetof(struct type, field), \
           sizeof(((struct type *)0)->field))
#define CONSTANT(name) printf(#name " %lld\n", (long long)(name))

int main(void)
{
    SIZE(epoll_event); /* packed on x86-64: the same layout for 32-bit and 64-bit programs */
    FIELD(epoll_event, events);
    printf("offsetof(epoll_event,u64) %zu\n", offsetof(struct epoll_event, data.u64));
    printf("alignof(epoll_event) %zu\n", _Alignof(struct epoll_event));

    SIZE(signalfd_siginfo);
    FIELD(signalfd_siginfo, ssi_signo);
    FIELD(signalfd_siginfo, ssi_pid);

    SIZE(sockaddr_in);
    FIELD(sockaddr_in, sin_family);
    FIELD(sockaddr_in, sin_port);
    FIELD(sockaddr_in, sin_addr);

    SIZE(sockaddr_in6);
    FIELD(sockaddr_in6, sin6_family);
    FIELD(sockaddr_in6, sin6_port);
    FIELD(sockaddr_in6, sin6_flowinfo);
    FIELD(sockaddr_in6, sin6_addr);
    FIELD(sockaddr_in6, sin6_scope_id);

    printf("sizeof(socklen_t) %zu\n", sizeof(socklen_t));
    printf("sizeof(rlim_t) %zu\n", sizeof(rlim_t));

    CONSTANT(EPOLLIN);
    CONSTANT(EPOLLOUT);
    CONSTANT(EPOLLPRI);
    CONSTANT(EPOLLRDHUP);
    CONSTANT(EPOLLERR);
    CONSTANT(EPOLLHUP);
    CONSTANT(EPOLLET);
    CONSTANT(EPOLL_CLOEXEC);
    CONSTANT(EPOLL_CTL_ADD);
    CONSTANT(EPOLL_CTL_MOD);

    CONSTANT(AF_INET);
    CONSTANT(AF_INET6);
    CONSTANT(SOCK_STREAM);
    CONSTANT(SOCK_NONBLOCK);
    CONSTANT(SOCK_CLOEXEC);
    CONSTANT(IPPROTO_TCP);
    CONSTANT(SOL_SOCKET);
    CONSTANT(SO_REUSEADDR);
    CONSTANT(SO_OOBINLINE);
    CONSTANT(TCP_NODELAY);
    CONSTANT(MSG_NOSIGNAL);
    CONSTANT(MSG_DONTWAIT);
    CONSTANT(MSG_OOB);
    CONSTANT(SHUT_RD);
    CONSTANT(SHUT_WR);
    CONSTANT(SHUT_RDWR);

    CONSTANT(SFD_NONBLOCK);
    CONSTANT(SFD_CLOEXEC);
    CONSTANT(SIGINT);
    CONSTANT(SIGTERM);
    CONSTANT(RLIMIT_NOFILE);
    return 0;
}
