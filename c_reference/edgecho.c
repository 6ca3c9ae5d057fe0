/*
 * edgecho.c - the same server as `edgecho serve`, in plain C11 on the same system calls.
 *
 *     cc -O2 -o edgecho-c c_reference/edgecho.c
 *     ./edgecho-c [--listen 127.0.0.1:7777] [--drain-timeout 5s]
 *
 * It is written to be read beside the Rust in src/: the same things have the same names, and stand in the same order as one
 * meets them there (outbox, connection, listener, drain, server). What it leaves out: IPv6, logs, several listeners.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    READ_BUFFER_BYTES = 32 * 1024, /* one for the whole loop: it stays in the CPU's cache */
    BYTES_A_TURN = 64 * 1024,      /* what one connection may read at an event, and at most one buffer more */
    LEFTOVER_BYTES_A_TURN = 512 * 1024, /* what those for whom that was not enough may then read, all together */
    ACCEPTS_A_TURN = 64,
    EVENTS_A_TURN = 256,
    BACKLOG = 4096,
    LINGER_MS = 2000,              /* how long those that we close may take */
    SHORTEST_PAUSE_MS = 10,        /* of accepting, when something has run out; doubles up to the longest */
    LONGEST_PAUSE_MS = 1000,
};

/* What every connection is watched for from the start; EPOLLOUT is added the first time that a write finds no room. */
static const uint32_t INTEREST = EPOLLIN | EPOLLRDHUP | EPOLLPRI | EPOLLET;

/* The bits of a connection's readiness. FIN: whatever is still to be read is already here. READ_ON: a short count does not show
 * that nothing is left, for a read stops in front of an urgent byte, and in front of an error that it does not report. */
enum { READABLE = EPOLLIN, WRITABLE = EPOLLOUT, FIN = EPOLLRDHUP, READ_ON = EPOLLPRI };
enum progress { WAITING, MORE, ENDED };

/* What an event is for, and a place in the ready queue: the first member of whatever epoll's data.ptr points to. */
struct source {
    enum { SIGNALS, LISTENER, CONNECTION } kind;
    int fd;
    bool is_queued;
    struct source *next_ready;
};

struct connection {
    struct source source;
    enum { OPEN, PEER_FINISHED, CLOSING, LINGERING } phase;
    uint32_t readiness; /* what epoll has told, until a call shows that it is no longer so: it tells once */
    bool is_watched_for_room;
    struct outbox {
        char *bytes; /* NULL when nothing is pending */
        size_t start, length;
    } outbox;
    struct connection *previous, *next;
};

static char read_buffer[READ_BUFFER_BYTES] __attribute__((aligned(4096)));
static struct source signals = {.kind = SIGNALS}, listener = {.kind = LISTENER, .fd = -1};
static struct connection *first, *last;         /* all connections, the oldest first */
static struct source *ready_first, *ready_last; /* who has more to do than a turn allowed */
static int epoll_fd;
static enum { SERVING, DRAINING, CLOSING_ALL } stage;
static int64_t drain_timeout_ms = 5000, drain_deadline, accept_pause, accept_retry; /* in ms; 0 is none */
static int accepted, aborted, interrupted_by;

static _Noreturn void fail(const char *action) {
    fprintf(stderr, "error: cannot %s: %s\n", action, strerror(errno));
    exit(1);
}

static int64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void watch(struct source *source, int operation, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = source};
    if (epoll_ctl(epoll_fd, operation, source->fd, &event) == -1)
        fail("watch a descriptor");
}

static void make_ready(struct source *source) {
    if (source->is_queued)
        return;
    source->is_queued = true;
    source->next_ready = NULL;
    *(ready_first ? &ready_last->next_ready : &ready_first) = source;
    ready_last = source;
}

static void accept_resume(void) {
    accept_retry = 0;
    make_ready(&listener);
}

/* --- outbox.rs: echo reads only while it is empty, so it is filled once and then only emptied --- */

static void outbox_push(struct outbox *outbox, const char *bytes, size_t count) {
    if (count == 0)
        return;
    if (!(outbox->bytes = malloc(count)))
        fail("keep what the peer has no room for");
    memcpy(outbox->bytes, bytes, count);
    outbox->start = 0;
    outbox->length = count;
}

static void outbox_consume(struct outbox *outbox, size_t count) {
    outbox->start += count;
    outbox->length -= count;
    if (outbox->length > 0)
        return;
    free(outbox->bytes);
    outbox->bytes = NULL;
}

/* --- connection.rs --- */

static void connection_on_event(struct connection *c, uint32_t events) {
    c->readiness |= events & (READABLE | WRITABLE | FIN | READ_ON);
    if (events & (EPOLLPRI | EPOLLRDHUP | EPOLLERR | EPOLLHUP))
        c->readiness |= READABLE;
    if (events & (EPOLLERR | EPOLLHUP))
        c->readiness |= WRITABLE | READ_ON;
}

/* Offers the kernel some bytes; how many it took, or -1 when the connection is gone. A short count: no more room. */
static ssize_t connection_offer(struct connection *c, const char *bytes, size_t count) {
    ssize_t taken = send(c->source.fd, bytes, count, MSG_NOSIGNAL);
    if (taken == -1 && errno == EINTR)
        return 0;
    if (taken < (ssize_t)count)
        c->readiness &= ~WRITABLE;
    return taken == -1 && errno == EAGAIN ? 0 : taken;
}

/* Takes from `budget` what it reads. */
static enum progress connection_advance(struct connection *c, ssize_t *budget) {
    for (;;) {
        if (c->outbox.bytes) {
            ssize_t sent = c->readiness & WRITABLE ? connection_offer(c, c->outbox.bytes + c->outbox.start, c->outbox.length) : 0;
            if (sent == -1)
                return ENDED;
            outbox_consume(&c->outbox, sent);
            if (c->outbox.bytes)
                return c->readiness & WRITABLE ? MORE : WAITING;
        }
        if (c->phase == PEER_FINISHED)
            return ENDED;
        if (c->phase == CLOSING) {
            if (shutdown(c->source.fd, SHUT_WR) == -1)
                return ENDED;
            c->phase = LINGERING;
        }
        if (!(c->readiness & READABLE))
            return WAITING;
        if (*budget <= 0)
            return MORE;
        ssize_t count = recv(c->source.fd, read_buffer, READ_BUFFER_BYTES, 0);
        if (count == 0)
            return ENDED;
        if (count == -1 && errno != EAGAIN)
            return errno == EINTR ? MORE : ENDED;
        if (count == -1) {
            c->readiness &= ~(READABLE | READ_ON);
            continue;
        }
        *budget -= count;
        bool is_empty = count < READ_BUFFER_BYTES && !(c->readiness & READ_ON);
        if (is_empty)
            c->readiness &= ~READABLE;
        if (c->phase != OPEN)
            continue;
        if (is_empty && c->readiness & FIN)
            c->phase = PEER_FINISHED;
        ssize_t sent = connection_offer(c, read_buffer, count);
        if (sent == -1)
            return ENDED;
        outbox_push(&c->outbox, read_buffer + sent, count - sent);
    }
}

/* Closes a connection. No event can name it after this: close(2) takes it out of the epoll set, epoll_wait(2) names a
 * descriptor once in a batch, and a connection is closed only in its own turn. */
static void connection_close(struct connection *c) {
    *(c->previous ? &c->previous->next : &first) = c->next;
    *(c->next ? &c->next->previous : &last) = c->previous;
    close(c->source.fd);
    free(c->outbox.bytes);
    free(c);
    if (accept_retry)
        accept_resume(); /* a descriptor has come free */
}

static void connection_serve(struct connection *c, ssize_t *budget) {
    switch (connection_advance(c, budget)) {
    case MORE: make_ready(&c->source); return;
    case ENDED:
        connection_close(c);
        *budget = 0; /* it may have used all of it */
        return;
    case WAITING:
        if (c->outbox.bytes && !c->is_watched_for_room) {
            c->is_watched_for_room = true;
            watch(&c->source, EPOLL_CTL_MOD, INTEREST | EPOLLOUT);
        }
    }
}

static void connection_open(int fd) {
    struct connection *c = malloc(sizeof *c);
    if (!c)
        fail("keep another connection");
    *c = (struct connection){.source = {.kind = CONNECTION, .fd = fd}, .readiness = WRITABLE, .previous = last};
    *(last ? &last->next : &first) = c;
    last = c;
    accepted++;
    watch(&c->source, EPOLL_CTL_ADD, INTEREST);
}

/* --- listener.rs --- */

static void listener_bind(const char *host, const char *port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
    socklen_t length = sizeof address;
    const int on = 1;
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1) {
        errno = EINVAL;
        fail("listen: expected --listen 127.0.0.1:PORT");
    }
    listener.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
    if (listener.fd == -1 || setsockopt(listener.fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == -1
        || setsockopt(listener.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == -1
        || setsockopt(listener.fd, SOL_SOCKET, SO_OOBINLINE, &on, sizeof on) == -1
        || bind(listener.fd, (struct sockaddr *)&address, length) == -1 || listen(listener.fd, BACKLOG) == -1
        || getsockname(listener.fd, (struct sockaddr *)&address, &length) == -1)
        fail("listen");
    watch(&listener, EPOLL_CTL_ADD, EPOLLIN | EPOLLET);
    char line[64];
    if (write(STDOUT_FILENO, line, snprintf(line, sizeof line, "listening on %s:%d\n", host, ntohs(address.sin_port))) == -1)
        perror("cannot say so on stdout");
}

static void listener_close(void) {
    close(listener.fd);
    listener.fd = -1;
    accept_retry = 0;
}

static void listener_accept(void) {
    if (listener.fd == -1)
        return;
    for (int i = 0; i < ACCEPTS_A_TURN; i++) {
        struct sockaddr_in6 peer;
        socklen_t length = sizeof peer;
        int fd = accept4(listener.fd, (struct sockaddr *)&peer, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
        switch (fd == -1 ? errno : 0) {
        case 0:
            accept_pause = 0;
            connection_open(fd);
            continue;
        case EAGAIN:
            if (stage != SERVING)
                listener_close();
            return;
        case ECONNABORTED: case EINTR: case EPERM: case EPROTO: case ENETDOWN: case ENOPROTOOPT: case EHOSTDOWN:
        case ENONET: case EHOSTUNREACH: case EOPNOTSUPP: case ENETUNREACH: case ESOCKTNOSUPPORT:
        case EPROTONOSUPPORT: case ETIMEDOUT:
            continue;
        case EBADF: case EFAULT: case EINVAL: case ENOTSOCK:
            fail("accept connections");
        default: /* EMFILE, ENFILE, ENOBUFS, ENOMEM: something has run out, and the connection stays in the queue */
            accept_pause = accept_pause ? accept_pause * 2 : SHORTEST_PAUSE_MS;
            accept_pause = accept_pause < LONGEST_PAUSE_MS ? accept_pause : LONGEST_PAUSE_MS;
            accept_retry = now_ms() + accept_pause;
            return;
        }
    }
    make_ready(&listener);
}

/* --- drain.rs, and the deadlines --- */

static void print_statistics(void) {
    int open = 0;
    for (struct connection *c = first; c; c = c->next)
        open++;
    dprintf(STDERR_FILENO, "accepted %d\nopen %d\n", accepted, open);
}

static void on_signals(void) {
    struct signalfd_siginfo info;
    ssize_t count;
    while ((count = read(signals.fd, &info, sizeof info)) != -1 || errno == EINTR) {
        if (count != -1 && info.ssi_signo == SIGUSR1) {
            print_statistics();
        } else if (count != -1 && stage != SERVING) {
            interrupted_by = info.ssi_signo;
        } else if (count != -1) {
            stage = DRAINING;
            drain_deadline = now_ms() + drain_timeout_ms;
            make_ready(&listener); /* whom the kernel has accepted for us is served, too; then the listener closes */
        }
    }
    if (errno != EAGAIN)
        fail("read signals");
}

static void cut_off(void) {
    while (first) {
        aborted += first->outbox.bytes != NULL;
        connection_close(first);
    }
    ready_first = ready_last = NULL;
}

static void keep_deadlines(void) {
    int64_t now = accept_retry || drain_deadline ? now_ms() : 0;
    if (accept_retry && now >= accept_retry)
        accept_resume();
    if (!drain_deadline || now < drain_deadline)
        return;
    if (stage == CLOSING_ALL)
        return cut_off();
    stage = CLOSING_ALL;
    drain_deadline = now + LINGER_MS;
    if (listener.fd != -1)
        listener_close();
    for (struct connection *c = first; c; c = c->next) {
        if (c->phase == OPEN)
            c->phase = CLOSING;
        make_ready(&c->source);
    }
}

/* --- mod.rs --- */

/* Those who are queued now, each once at most, until the budget is used up. Then the kernel is asked for news first. */
static void serve_leftovers(void) {
    struct source *end = ready_last;
    ssize_t budget = LEFTOVER_BYTES_A_TURN;
    for (bool is_last = false; ready_first && !is_last && budget > 0;) {
        struct source *source = ready_first;
        is_last = source == end;
        ready_first = source->next_ready;
        source->is_queued = false;
        if (source->kind == LISTENER)
            listener_accept();
        else
            connection_serve((struct connection *)source, &budget);
    }
}

static int wait_ms(void) {
    int64_t next = accept_retry && (!drain_deadline || accept_retry < drain_deadline) ? accept_retry : drain_deadline;
    if (ready_first || !next)
        return ready_first ? 0 : -1;
    int64_t left = next - now_ms();
    return left < 0 ? 0 : left > INT32_MAX ? INT32_MAX : (int)left;
}

static void run(void) {
    static struct epoll_event events[EVENTS_A_TURN];
    while (!interrupted_by) {
        serve_leftovers();
        if (stage != SERVING && !first && listener.fd == -1)
            return;
        int count = epoll_wait(epoll_fd, events, EVENTS_A_TURN, wait_ms());
        if (count == -1 && errno != EINTR)
            fail("wait for events");
        for (int i = 0; i < count; i++) {
            struct source *source = events[i].data.ptr;
            if (source->kind == CONNECTION)
                connection_on_event((struct connection *)source, events[i].events);
            if (source->kind == SIGNALS)
                on_signals();
            else if (source->kind == CONNECTION && !source->is_queued)
                connection_serve((struct connection *)source, &(ssize_t){BYTES_A_TURN});
            else if (source->kind == LISTENER && !source->is_queued && !accept_retry)
                listener_accept();
        }
        if (!interrupted_by)
            keep_deadlines();
    }
    cut_off();
}

int main(int argc, char **argv) {
    char *host = "127.0.0.1", *port = "7777";
    for (int i = 1; i < argc; i += 2) {
        char *value = i + 1 < argc ? argv[i + 1] : "", *end;
        if (!strcmp(argv[i], "--listen") && (end = strrchr(value, ':'))) {
            *end = '\0';
            host = value;
            port = end + 1;
        } else if (!strcmp(argv[i], "--drain-timeout") && (drain_timeout_ms = strtol(value, &end, 10)) >= 0
                   && end != value && (!strcmp(end, "s") || !strcmp(end, "ms"))) {
            drain_timeout_ms *= strcmp(end, "s") ? 1 : 1000;
        } else {
            fputs("usage: edgecho-c [--listen 127.0.0.1:PORT] [--drain-timeout 5s|500ms]\n", stderr);
            return 2;
        }
    }
    signal(SIGPIPE, SIG_IGN); /* for stdout and stderr; on sockets MSG_NOSIGNAL does it */
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    char somaxconn[16] = ""; /* listen(2) cuts the backlog to it without a word */
    int fd = open("/proc/sys/net/core/somaxconn", O_RDONLY | O_CLOEXEC);
    if (fd != -1 && read(fd, somaxconn, sizeof somaxconn - 1) > 0 && atoi(somaxconn) < BACKLOG)
        fprintf(stderr, "the backlog of %d is cut to %d\n", BACKLOG, atoi(somaxconn));
    close(fd);
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGINT);
    sigaddset(&mask, SIGTERM);
    sigaddset(&mask, SIGUSR1);
    sigprocmask(SIG_BLOCK, &mask, NULL);
    if ((signals.fd = signalfd(-1, &mask, SFD_NONBLOCK | SFD_CLOEXEC)) == -1)
        fail("read signals");
    if ((epoll_fd = epoll_create1(EPOLL_CLOEXEC)) == -1)
        fail("make an event loop");
    watch(&signals, EPOLL_CTL_ADD, EPOLLIN | EPOLLET);
    listener_bind(host, port);
    run();
    if (listener.fd != -1)
        listener_close();
    close(epoll_fd);
    close(signals.fd);
    if (interrupted_by) { /* the parent is to see which signal it was */
        sigemptyset(&mask);
        sigaddset(&mask, interrupted_by);
        sigaction(interrupted_by, &(struct sigaction){.sa_handler = SIG_DFL}, NULL);
        sigprocmask(SIG_UNBLOCK, &mask, NULL);
        raise(interrupted_by);
    }
    return aborted > 0;
}
