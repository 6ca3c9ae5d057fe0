/*
 * edgecho.c - the same server as `edgecho serve`, in plain C11 on the same system calls.
 *
 *     cc -O2 -o edgecho-c c_reference/edgecho.c
 *     ./edgecho-c [--listen 127.0.0.1:7777] [--drain-timeout 5s] [--copy]
 *
 * It is written to be read beside the Rust in src/: the same things have the same names, and stand in the same order as one
 * meets them there (clock, outbox, connection, listener, drain, server).
 *
 * It leaves out IPv6, several listeners, logs, the protocols other than echo, every limit (connections, connections of one address,
 * rate, memory), and every timeout but the drain's: there is no write timeout, no idle timeout, no lifetime and no keepalive. So
 * a peer that reads nothing, says nothing or has vanished keeps its connection, its descriptor and what is pending for it until
 * the drain's time is up. Enough of them take all descriptors, and new clients then wait in the accept queue. Where peers are not
 * trusted, use the Rust server.
 *
 * Streams are returned by splice(2), which passes the sender's own pages on: a client on this host that sends pages of a file
 * (sendfile(2)) and then changes the file changes what was echoed and not yet read. With --copy every byte is copied.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
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
    LATE_MS = 100,                 /* a deadline met later than this: the process was stopped meanwhile */
    MAX_DRAIN_MS = 24 * 3600 * 1000,
};

/* What every connection is watched for from the start; EPOLLOUT is added the first time that a write finds no room. */
static const uint32_t INTEREST = EPOLLIN | EPOLLRDHUP | EPOLLPRI | EPOLLET;

/* The bits of a connection's readiness. FIN: whatever is still to be read is already here. READ_ON: a short count does not show
 * that nothing is left, for a read stops in front of an urgent byte, and in front of an error that it does not report. PLENTY, which
 * is not epoll's: the peer sends more than a read can take, for in its last turn it did. */
enum { READABLE = EPOLLIN, WRITABLE = EPOLLOUT, FIN = EPOLLRDHUP, READ_ON = EPOLLPRI, PLENTY = 1 << 15 };
enum progress { WAITING, MORE, ENDED };

/* The results of a try to accept that has brought no connection. */
enum { NOTHING = -1, FAILED = -2, EXHAUSTED = -3 };

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
    bool has_lost_input; /* it came in time for the drain, and is discarded; the connection is counted as aborted */
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
static bool copies;       /* every byte: there is no pipe */
static int pipe_fds[2];   /* what bytes that nobody looks at go through on their way back */
static int piped_bytes;   /* none between two turns */
static struct source signals = {.kind = SIGNALS}, listener = {.kind = LISTENER, .fd = -1};
static struct sockaddr_in address = {.sin_family = AF_INET}; /* of the listener */
static int kept_fd = -1;  /* a connection that was accepted and could not be taken in; it is the next one to be accepted */
static struct connection *first, *last;         /* all connections, the oldest first */
static struct source *ready_first, *ready_last; /* who has more to do than a turn allowed */
static int epoll_fd;
static enum { SERVING, DRAINING, CLOSING_ALL } stage;
static int64_t drain_timeout_ms = 5000, accept_pause;
static int64_t drain_deadline, accept_retry, watch_retry; /* in ms of now_ms(); 0 is none */
static uint64_t accepted, aborted;
static int connection_count, interrupted_by;

static _Noreturn void fail(const char *action) {
    fprintf(stderr, "error: cannot %s: %s\n", action, strerror(errno));
    exit(1);
}

/* --- clock.rs --- */

static int64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* The moment up to which every event has been processed. Deadlines are judged by it, and not by the clock: after a pause (SIGSTOP)
 * the clock has jumped, while what came before the deadline is still unread. The clock is read before a wait. A wait that returns
 * fewer events than there was room for has returned all that happened before. A full batch leaves some behind; epoll(7) returns
 * each ready descriptor once before it returns one of them again. */
static struct horizon {
    int64_t known_until;
    int64_t asked_at; /* the wait that all events are being collected for; 0 is none */
    int unreturned;   /* events that may still be left from before it */
} horizon;

static void horizon_before_wait(int64_t now) {
    if (horizon.asked_at)
        return;
    horizon.asked_at = now;
    horizon.unreturned = connection_count + 2; /* and the listener and the signals */
}

/* Notes that a wait has returned `count` events, and that all of them have been processed. Returns whether more is known than
 * before: without that nothing can be due. */
static bool horizon_after_turn(int count) {
    if (!horizon.asked_at)
        return false;
    if (count < EVENTS_A_TURN || count >= horizon.unreturned) {
        horizon.known_until = horizon.asked_at;
        horizon.asked_at = 0;
        return true;
    }
    horizon.unreturned -= count;
    return false;
}

static int64_t next_deadline(void) {
    int64_t next = 0, all[] = {drain_deadline, accept_retry, watch_retry};
    for (int i = 0; i < 3; i++)
        if (all[i] && (!next || all[i] < next))
            next = all[i];
    return next;
}

/* --- event/ --- */

static bool watch(struct source *source, int operation, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = source};
    return epoll_ctl(epoll_fd, operation, source->fd, &event) == 0;
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

/* Returns false if there is no memory. */
static bool outbox_push(struct outbox *outbox, const char *bytes, size_t count) {
    if (count == 0)
        return true;
    if (!(outbox->bytes = malloc(count)))
        return false;
    memcpy(outbox->bytes, bytes, count);
    outbox->start = 0;
    outbox->length = count;
    return true;
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

/* Keeps what the peer has no room for. Without memory the connection is over, and false is returned. It is then closed with a reset:
 * a FIN would say that all has come back. */
static bool connection_keep(struct connection *c, const char *bytes, size_t count) {
    const struct linger none = {.l_onoff = 1};
    if (outbox_push(&c->outbox, bytes, count))
        return true;
    setsockopt(c->source.fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    aborted++;
    return false;
}

/* Returns what was read. False when the connection is gone. */
static bool connection_respond(struct connection *c, const char *bytes, ssize_t count) {
    ssize_t sent = connection_offer(c, bytes, count);
    return sent == count || (sent != -1 && connection_keep(c, bytes + sent, count - sent));
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
    return is_gone || !connection_keep(c, read_buffer, rest) ? -1 : count;
}

/* Whether what comes next may be returned without being looked at. */
static bool connection_is_to_be_relayed(const struct connection *c) {
    return (c->readiness & (PLENTY | WRITABLE | READ_ON)) == (PLENTY | WRITABLE) && c->phase == OPEN && !copies;
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
    connection_count--;
    close(c->source.fd);
    free(c->outbox.bytes);
    free(c);
    if (accept_retry)
        accept_resume(); /* a descriptor has come free */
}

/* Asks epoll to tell of room to write. If it cannot, the bytes stay pending, and it is asked again after the shortest pause. */
static void connection_watch_for_room(struct connection *c) {
    c->is_watched_for_room = watch(&c->source, EPOLL_CTL_MOD, INTEREST | EPOLLOUT);
    if (!c->is_watched_for_room && !watch_retry)
        watch_retry = now_ms() + SHORTEST_PAUSE_MS;
}

/* Does what follows from how a turn ended. False if it closes the connection. */
static bool connection_go_on(struct connection *c, ssize_t *budget, enum progress progress) {
    switch (progress) {
    case MORE: make_ready(&c->source); break;
    case ENDED:
        connection_close(c);
        *budget = 0; /* it may have used all of it */
        break;
    case WAITING:
        if (c->outbox.bytes && !c->is_watched_for_room)
            connection_watch_for_room(c);
    }
    return progress != ENDED;
}

/* Gives a connection its turn. False if that closes it. */
static bool connection_serve(struct connection *c, ssize_t *budget) {
    return connection_go_on(c, budget, connection_advance(c, budget));
}

/* Starts to close a connection in order. */
static void connection_begin_close(struct connection *c) {
    int unread = 0;
    if (c->phase == OPEN) {
        if (c->readiness & READABLE)
            ioctl(c->source.fd, SIOCINQ, &unread);
        c->has_lost_input = unread > 0;
        aborted += unread > 0;
        c->phase = CLOSING;
    }
    make_ready(&c->source);
}

/* Serves a client that had to wait in the accept queue until the drain's time was up: what it has sent is returned, and then it is
 * closed in order. */
static void connection_serve_last(struct connection *c) {
    ssize_t budget = BYTES_A_TURN;
    connection_on_event(c, EPOLLIN);
    if (connection_serve(c, &budget))
        connection_begin_close(c);
}

/* Returns the number of bytes that a close(2) now would destroy: those that are pending, those that the peer's kernel has not
 * acknowledged (a FIN counts as one), and unread input, with which close(2) sends a reset (RFC 1122, 4.2.2.13). */
static size_t connection_unsettled_bytes(const struct connection *c) {
    int unread = 0, unacknowledged = 0, our_fin = c->phase == LINGERING;
    ioctl(c->source.fd, SIOCINQ, &unread);
    ioctl(c->source.fd, SIOCOUTQ, &unacknowledged);
    return c->outbox.length + (unacknowledged > our_fin ? unacknowledged - our_fin : 0) + unread;
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
        connection_serve(c, &budget);
        return;
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

/* Takes in an accepted connection. False if there is no memory for it, or epoll cannot watch it. */
static bool connection_open(int fd) {
    struct connection *c = malloc(sizeof *c);
    if (!c)
        return false;
    *c = (struct connection){.source = {.kind = CONNECTION, .fd = fd}, .readiness = WRITABLE, .previous = last};
    if (!watch(&c->source, EPOLL_CTL_ADD, INTEREST)) {
        free(c);
        return false;
    }
    *(last ? &last->next : &first) = c;
    last = c;
    connection_count++;
    accepted++;
    if (stage == CLOSING_ALL)
        connection_serve_last(c);
    return true;
}

/* --- listener.rs, accepting.rs --- */

/* Waits until stdout takes a line. While it is full and nobody reads it, signals have their default actions: nothing else could end
 * the wait. */
static void wait_for_stdout(void) {
    struct pollfd out = {.fd = STDOUT_FILENO, .events = POLLOUT};
    sigset_t none, before;
    if (poll(&out, 1, 0) != 0)
        return;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, &before);
    poll(&out, 1, -1);
    sigprocmask(SIG_SETMASK, &before, NULL);
}

static void listener_bind(void) {
    socklen_t length = sizeof address;
    const int on = 1;
    listener.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
    if (listener.fd == -1 || setsockopt(listener.fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == -1
        || setsockopt(listener.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == -1
        || setsockopt(listener.fd, SOL_SOCKET, SO_OOBINLINE, &on, sizeof on) == -1
        || bind(listener.fd, (struct sockaddr *)&address, length) == -1 || listen(listener.fd, BACKLOG) == -1
        || getsockname(listener.fd, (struct sockaddr *)&address, &length) == -1)
        fail("listen");
    if (!watch(&listener, EPOLL_CTL_ADD, EPOLLIN | EPOLLET))
        fail("watch for connections (epoll_ctl)");
    char host[INET_ADDRSTRLEN] = "", line[64];
    inet_ntop(AF_INET, &address.sin_addr, host, sizeof host);
    wait_for_stdout();
    if (write(STDOUT_FILENO, line, snprintf(line, sizeof line, "listening on %s:%d\n", host, ntohs(address.sin_port))) == -1)
        perror("cannot say so on stdout");
}

static void listener_close(void) {
    close(listener.fd);
    listener.fd = -1;
    accept_retry = 0;
}

/* Tries once to accept a connection. */
static int listener_take(void) {
    struct sockaddr_in6 peer;
    socklen_t length = sizeof peer;
    int fd = kept_fd;
    kept_fd = -1;
    if (fd == -1)
        fd = accept4(listener.fd, (struct sockaddr *)&peer, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
    switch (fd == -1 ? errno : 0) {
    case 0:
        return fd;
    case EAGAIN:
        return NOTHING;
    case ECONNABORTED: case EINTR: case EPERM: case EPROTO: case ENETDOWN: case ENOPROTOOPT: case EHOSTDOWN:
    case ENONET: case EHOSTUNREACH: case EOPNOTSUPP: case ENETUNREACH: case ESOCKTNOSUPPORT:
    case EPROTONOSUPPORT: case ETIMEDOUT:
        return FAILED;
    case EBADF: case EFAULT: case EINVAL: case ENOTSOCK:
        fail("accept connections (accept4)");
    default: /* EMFILE, ENFILE, ENOBUFS, ENOMEM: something has run out, and the connection stays in the queue */
        return EXHAUSTED;
    }
}

/* Accepts nothing until a connection has closed or the pause is over. In a drain no newcomer joins the queue meanwhile. */
static void listener_pause(void) {
    accept_pause = accept_pause ? accept_pause * 2 : SHORTEST_PAUSE_MS;
    accept_pause = accept_pause < LONGEST_PAUSE_MS ? accept_pause : LONGEST_PAUSE_MS;
    accept_retry = now_ms() + accept_pause;
    if (stage != SERVING)
        listen(listener.fd, 0);
}

static void listener_accept(void) {
    if (listener.fd == -1)
        return;
    for (int i = 0; i < ACCEPTS_A_TURN; i++) {
        int fd = listener_take();
        if (fd == NOTHING) {
            if (stage != SERVING)
                listener_close();
            return;
        }
        if (fd == FAILED)
            continue;
        if (fd == EXHAUSTED || !connection_open(fd)) {
            kept_fd = fd == EXHAUSTED ? -1 : fd;
            listener_pause();
            return;
        }
        accept_pause = 0;
    }
    make_ready(&listener);
}

/* Closes the listener with clients in its queue, which are reset. Each counts as aborted. */
static void listener_abort_queue(void) {
    for (int fd; (fd = listener_take()) >= 0 || fd == FAILED;) {
        if (fd == FAILED)
            continue;
        accepted++;
        aborted++;
        close(fd);
    }
    listener_close();
}

/* --- drain.rs, and the deadlines --- */

/* Writes the statistics to stderr, or drops them if stderr has no room: a write that blocks would stop every connection. A pipe
 * that is ready has room for PIPE_BUF bytes. */
static void print_statistics(void) {
    struct pollfd output = {.fd = STDERR_FILENO, .events = POLLOUT};
    if (poll(&output, 1, 0) == 1 && output.revents & POLLOUT)
        dprintf(STDERR_FILENO, "accepted %" PRIu64 "\nopen %d\n", accepted, connection_count);
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
            accept_resume(); /* clients that the kernel has already queued are served, too; then the listener closes */
        }
    }
    if (errno != EAGAIN)
        fail("read signals (read)");
}

/* Closes all connections as they are. Each that loses bytes by that counts as aborted. */
static void cut_off(void) {
    ready_first = ready_last = NULL;
    while (first) {
        aborted += connection_unsettled_bytes(first) > 0 && !first->has_lost_input;
        connection_close(first);
    }
}

static void on_drain_deadline(void) {
    int64_t now = now_ms();
    if (stage == CLOSING_ALL && now <= drain_deadline + LATE_MS) {
        drain_deadline = 0;
        cut_off();
        if (listener.fd != -1)
            listener_abort_queue();
        return;
    }
    drain_deadline = now + LINGER_MS;
    if (stage == CLOSING_ALL)
        return; /* peers had no time to take what is owed to them while the process was stopped */
    stage = CLOSING_ALL;
    for (struct connection *c = first; c; c = c->next)
        connection_begin_close(c);
    if (listener.fd != -1) /* it had no descriptors for its queue; each connection that ends leaves one */
        accept_resume();
}

/* Gives a turn to each connection that could not be watched for room. One that is in the ready queue has its turn coming. */
static void retry_to_watch(void) {
    watch_retry = 0;
    for (struct connection *c = first, *next; c; c = next) {
        ssize_t budget = BYTES_A_TURN;
        next = c->next;
        if (c->outbox.bytes && !c->is_watched_for_room && !c->source.is_queued)
            connection_serve(c, &budget);
    }
}

/* Does what was due at the moment up to which all events have been processed. */
static void keep_deadlines(void) {
    for (int64_t next; (next = next_deadline()) && next <= horizon.known_until;) {
        if (next == accept_retry)
            accept_resume();
        else if (next == watch_retry)
            retry_to_watch();
        else
            on_drain_deadline();
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
    int64_t next = next_deadline(), now = next ? now_ms() : 0, left = next - now;
    if (next)
        horizon_before_wait(now);
    if (ready_first || !next)
        return ready_first ? 0 : -1;
    return left < 0 ? 0 : left > INT32_MAX ? INT32_MAX : (int)left;
}

static void run(void) {
    static struct epoll_event events[EVENTS_A_TURN];
    for (;;) {
        serve_leftovers();
        if (interrupted_by || (stage != SERVING && !first && listener.fd == -1))
            break;
        int count = epoll_wait(epoll_fd, events, EVENTS_A_TURN, wait_ms());
        if (count == -1 && errno != EINTR)
            fail("wait for events (epoll_wait)");
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
        if (horizon_after_turn(count == -1 ? 0 : count))
            keep_deadlines();
    }
    cut_off();
}

/* --- the command line --- */

static _Noreturn void refuse(const char *option, const char *value, const char *expected) {
    fprintf(stderr, "error: %s '%s': expected %s\n", option, value, expected);
    exit(2);
}

/* Reads a number up to `most`, digits only. Returns what follows it, or "?" if there is no such number. */
static const char *read_number(const char *text, int64_t most, int64_t *number) {
    const char *end = text;
    for (*number = 0; *end >= '0' && *end <= '9' && *number <= most; end++)
        *number = *number * 10 + (*end - '0');
    return end == text || *number > most ? "?" : end;
}

static void read_listen(const char *value) {
    const char *colon = strrchr(value, ':');
    char host[INET_ADDRSTRLEN] = "";
    int64_t port;
    if (colon && colon < value + sizeof host)
        memcpy(host, value, colon - value);
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1 || *read_number(colon + 1, UINT16_MAX, &port))
        refuse("--listen", value, "IPV4:PORT, with a port from 0 to 65535, such as 127.0.0.1:7777");
    address.sin_port = htons(port);
}

static void read_drain_timeout(const char *value) {
    const char *unit = read_number(value, MAX_DRAIN_MS, &drain_timeout_ms);
    drain_timeout_ms *= !strcmp(unit, "s") ? 1000 : 1;
    if ((strcmp(unit, "s") && strcmp(unit, "ms")) || drain_timeout_ms > MAX_DRAIN_MS)
        refuse("--drain-timeout", value, "a duration from 0s to 86400s, such as 5s or 500ms");
}

int main(int argc, char **argv) {
    read_listen("127.0.0.1:7777");
    for (int i = 1; i < argc; i++) {
        const char *option = argv[i], *value = i + 1 < argc ? argv[i + 1] : "";
        if (!strcmp(option, "--copy"))
            copies = true;
        else if (!strcmp(option, "--listen") && ++i)
            read_listen(value);
        else if (!strcmp(option, "--drain-timeout") && ++i)
            read_drain_timeout(value);
        else
            refuse("unknown option", option, "[--listen IPV4:PORT] [--drain-timeout 5s|500ms] [--copy]");
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
    struct sigaction hangup;
    sigset_t mask;
    sigemptyset(&mask);
    sigaction(SIGHUP, NULL, &hangup);
    if (hangup.sa_handler != SIG_IGN) /* as under nohup(1) */
        sigaddset(&mask, SIGHUP);
    sigaddset(&mask, SIGINT);
    sigaddset(&mask, SIGTERM);
    sigaddset(&mask, SIGUSR1);
    sigprocmask(SIG_BLOCK, &mask, NULL);
    if ((signals.fd = signalfd(-1, &mask, SFD_NONBLOCK | SFD_CLOEXEC)) == -1)
        fail("read signals (signalfd4)");
    if ((epoll_fd = epoll_create1(EPOLL_CLOEXEC)) == -1)
        fail("make an event loop (epoll_create1)");
    if (!watch(&signals, EPOLL_CTL_ADD, EPOLLIN | EPOLLET))
        fail("watch for signals (epoll_ctl)");
    if (!copies && pipe2(pipe_fds, O_NONBLOCK | O_CLOEXEC) == -1)
        fail("make a pipe (pipe2)");
    listener_bind();
    run();
    if (listener.fd != -1)
        listener_close();
    if (!copies) {
        close(pipe_fds[0]);
        close(pipe_fds[1]);
    }
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
