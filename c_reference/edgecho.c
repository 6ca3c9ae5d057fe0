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
    LEAST_ROOM_BYTES = 4 * 1024,   /* with less room left in it, what it holds is answered, so that it is free again */
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
 * that nothing is left, for a read stops in front of an urgent byte, and in front of an error that it does not report. PLENTY, which
 * is not epoll's: the peer sends more than a read can take, for in its last turn it did. */
enum { READABLE = EPOLLIN, WRITABLE = EPOLLOUT, FIN = EPOLLRDHUP, READ_ON = EPOLLPRI, PLENTY = 1 << 15 };
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
static struct input {
    struct connection *connection;
    int count;
} inputs[EVENTS_A_TURN]; /* what was read in this turn of the loop, and is still to be answered */
static int input_count, input_bytes;
static int pipe_fds[2];   /* what bytes that nobody looks at go through on their way back */
static int piped_bytes;   /* none between two turns */
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

/* --- connection/ --- */

static void connection_on_event(struct connection *c, uint32_t events) {
    c->readiness |= events & (READABLE | WRITABLE | FIN | READ_ON);
    if (events & (EPOLLPRI | EPOLLRDHUP | EPOLLERR | EPOLLHUP))
        c->readiness |= READABLE;
    if (events & (EPOLLERR | EPOLLHUP))
        c->readiness |= WRITABLE | READ_ON;
}

/* What became of bytes that were offered to the kernel: how many it took, or -1 when the connection is gone. A short count: no more
 * room. */
static ssize_t connection_taken(struct connection *c, ssize_t taken, size_t count) {
    if (taken == -1 && errno != EAGAIN)
        return errno == EINTR ? 0 : -1;
    if (taken < (ssize_t)count)
        c->readiness &= ~WRITABLE;
    return taken == -1 ? 0 : taken;
}

static ssize_t connection_offer(struct connection *c, const char *bytes, size_t count) {
    return connection_taken(c, send(c->source.fd, bytes, count, MSG_NOSIGNAL), count);
}

/* Reads, once. What the count says of the connection is noted. */
static ssize_t connection_read(struct connection *c, char *buffer, ssize_t length) {
    ssize_t count = recv(c->source.fd, buffer, length, 0);
    if (count == -1 && errno == EAGAIN)
        c->readiness &= ~(READABLE | READ_ON);
    if (count <= 0)
        return count;
    if (count == length) {
        c->readiness |= PLENTY;
    } else if (!(c->readiness & READ_ON)) {
        c->readiness &= ~READABLE;
        if (c->phase == OPEN && c->readiness & FIN)
            c->phase = PEER_FINISHED;
    }
    return count;
}

/* Returns what was read. False when the connection is gone. */
static bool connection_respond(struct connection *c, const char *bytes, ssize_t count) {
    ssize_t sent = connection_offer(c, bytes, count);
    if (sent != -1)
        outbox_push(&c->outbox, bytes + sent, count - sent);
    return sent != -1;
}

/* Whether an error of splice(2) says something about the call, and nothing about the connection: a read or a write may still succeed. */
static bool is_of_the_call(int error) {
    return error == EINTR || error == EINVAL || error == ENOMEM || error == EAGAIN;
}

/* Has the kernel return what comes in, up to a buffer full, without a copy. Gives how much that was, or -1 when the connection is gone.
 * From how little comes nothing is concluded: that is left to a read. */
static ssize_t connection_relay(struct connection *c) {
    ssize_t count = piped_bytes ? 0 : splice(c->source.fd, NULL, pipe_fds[1], NULL, READ_BUFFER_BYTES, SPLICE_F_NONBLOCK);
    if (count <= 0)
        return count == 0 || is_of_the_call(errno) ? 0 : -1;
    ssize_t poured = splice(pipe_fds[0], NULL, c->source.fd, NULL, count, SPLICE_F_NONBLOCK), rest = 0;
    bool is_gone = connection_taken(c, poured, count) == -1 && !is_of_the_call(errno);
    piped_bytes = count - (poured == -1 ? 0 : poured);
    while (piped_bytes > 0) {
        ssize_t taken = read(pipe_fds[0], read_buffer + rest, READ_BUFFER_BYTES - rest);
        if (taken == -1 && errno == EINTR)
            continue;
        if (taken == -1)
            return -1; /* and the pipe, which is not empty, is used no more */
        rest += taken;
        piped_bytes -= taken;
    }
    if (is_gone)
        return -1;
    outbox_push(&c->outbox, read_buffer, rest);
    return count;
}

/* Whether what comes next may be returned without being looked at. */
static bool connection_is_to_be_relayed(const struct connection *c) {
    return (c->readiness & (PLENTY | WRITABLE | READ_ON)) == (PLENTY | WRITABLE) && c->phase == OPEN;
}

/* Whether a read is all that there is to do now: the first half of a turn, of which connection_respond is the second. */
static bool connection_is_to_be_read(const struct connection *c) {
    return c->phase == OPEN && !c->outbox.bytes && (c->readiness & (READABLE | PLENTY)) == READABLE;
}

static bool connection_is_at_rest(const struct connection *c) {
    return c->phase == OPEN && !c->outbox.bytes && !(c->readiness & READABLE);
}

/* Takes from `budget` what it reads. */
static enum progress connection_advance(struct connection *c, ssize_t *budget) {
    const ssize_t whole = *budget;
    bool has_plenty = true;
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
        if (!(c->readiness & READABLE)) {
            if (whole - *budget < READ_BUFFER_BYTES / 2)
                c->readiness &= ~PLENTY;
            return WAITING;
        }
        if (*budget <= 0)
            return MORE;
        if (has_plenty && connection_is_to_be_relayed(c)) {
            ssize_t count = connection_relay(c);
            if (count == -1)
                return ENDED;
            *budget -= count;
            has_plenty = count == READ_BUFFER_BYTES; /* what else there is to know, a read finds out */
            continue;
        }
        bool is_open = c->phase == OPEN;
        ssize_t count = connection_read(c, read_buffer, READ_BUFFER_BYTES);
        if (count == 0)
            return ENDED;
        if (count == -1 && errno == EAGAIN)
            continue;
        if (count == -1)
            return errno == EINTR ? MORE : ENDED;
        *budget -= count;
        if (is_open && !connection_respond(c, read_buffer, count))
            return ENDED;
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

static void connection_go_on(struct connection *c, ssize_t *budget, enum progress progress) {
    switch (progress) {
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

static void connection_serve(struct connection *c, ssize_t *budget) {
    connection_go_on(c, budget, connection_advance(c, budget));
}

/* Answers all that was read in this turn of the loop, in the order in which it was. */
static void respond_to_all(void) {
    char *bytes = read_buffer;
    for (int i = 0; i < input_count; i++) {
        struct input *input = &inputs[i];
        struct connection *c = input->connection;
        /* The read buffer is free for the last of them; whoever else has more to do has to wait for that. */
        ssize_t budget = i + 1 == input_count ? BYTES_A_TURN - input->count : 0;
        if (!connection_respond(c, bytes, input->count))
            connection_go_on(c, &budget, ENDED);
        else if (!connection_is_at_rest(c))
            connection_serve(c, &budget);
        bytes += input->count;
    }
    input_count = input_bytes = 0;
}

/* Where a turn begins with a read, as it nearly always does, only the read is done now, and what came is answered when all of this
 * turn have been read. */
static void connection_begin_turn(struct connection *c) {
    ssize_t budget = BYTES_A_TURN;
    if (!connection_is_to_be_read(c)) {
        respond_to_all();
        return connection_serve(c, &budget);
    }
    ssize_t count = connection_read(c, read_buffer + input_bytes, READ_BUFFER_BYTES - input_bytes);
    if (count > 0) {
        inputs[input_count++] = (struct input){.connection = c, .count = count};
        input_bytes += count;
        if (input_bytes > READ_BUFFER_BYTES - LEAST_ROOM_BYTES)
            respond_to_all();
    } else if (count == 0 || errno != EAGAIN) {
        connection_go_on(c, &budget, count == -1 && errno == EINTR ? MORE : ENDED);
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
                connection_begin_turn((struct connection *)source);
            else if (source->kind == LISTENER && !source->is_queued && !accept_retry)
                listener_accept();
        }
        respond_to_all();
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
    signal(SIGXFSZ, SIG_IGN); /* a file as large as `ulimit -f` allows is an error like any other */
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
    if (pipe2(pipe_fds, O_NONBLOCK | O_CLOEXEC) == -1)
        fail("make a pipe");
    listener_bind(host, port);
    run();
    if (listener.fd != -1)
        listener_close();
    close(pipe_fds[0]);
    close(pipe_fds[1]);
    close(epoll_fd);
    close(signals.fd);
    if (interrupted_by) { /* the parent is to see which signal it was */
        sigemptyset(&mask);
        sigaddset(&mask, interrupted_by);
        sigaction(interrupted_by, &(struct sigaction){.sa_handler = SIG_DFL}, NULL);
        sigprocmask(SIG_UNBLOCK, &mask, NULL);
        raise(interrupted_by);
        return 128 + interrupted_by; /* process 1 of a container, which no signal ends */
    }
    return aborted > 0;
}
