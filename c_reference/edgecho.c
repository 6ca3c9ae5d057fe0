/*
 * edgecho.c - the same server as `edgecho serve`, in C11 on the same system calls.
 *
 *     cc -O2 -o edgecho-c c_reference/edgecho.c
 *     ./edgecho-c [--listen 127.0.0.1:7777] [--drain-timeout 5s] [--copy]
 *
 * Read it next to the Rust in src/. Each section below is named after a Rust file and holds the same functions in the same
 * order: `connection_read` here is `Connection::read` there. .ci/check-partners compares the two.
 *
 * This server leaves out IPv6, several listeners, logs, the protocols other than echo, every limit (connections, connections
 * per address, rate, memory), and every timeout but the drain timeout: there is no write timeout, no idle timeout, no lifetime
 * and no keepalive. So a peer that reads nothing, sends nothing or has vanished keeps its connection, its descriptor and its
 * pending bytes until the drain ends. Enough such peers use up all descriptors, and new clients then wait in the accept queue.
 * Use the Rust server where peers are not trusted.
 *
 * Streams are echoed by splice(2), which forwards the sender's own pages. A client on this host that sends pages of a file
 * (sendfile(2)) and then changes the file also changes the echo that it has not read yet. --copy copies every byte instead.
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

/* ---- Constants: the same names and values as in Rust, with the unit of a duration added ---- */

enum {
    READ_BUFFER_BYTES = 32 * 1024,      /* one buffer for the whole loop, so that it stays in the CPU's cache */
    LEAST_ROOM_BYTES = 4 * 1024,        /* with less room in the read buffer, its content is answered first */
    BYTES_A_TURN = 64 * 1024,           /* read budget of one connection per event; a read may exceed it by one buffer */
    QUEUED_BYTES_A_TURN = 512 * 1024,   /* read budget per turn, shared by all queued connections */
    ACCEPTS_A_TURN = 64,
    EVENTS_A_TURN = 256,
    BACKLOG = 4096,
    LINGER_MS = 2000,                   /* the time that a peer has to send its FIN after ours */
    SHORTEST_PAUSE_MS = 10,             /* the first pause of accepting when a resource has run out; each further one doubles */
    LONGEST_PAUSE_MS = 1000,
    PAUSE_MS = 100,                     /* a deadline met later than this: the process was stopped in between */
    MAX_DRAIN_MS = 24 * 3600 * 1000,
};

/* Events that every connection is watched for. EPOLLOUT is added when a send finds no room for the first time. */
static const uint32_t INTEREST = EPOLLIN | EPOLLRDHUP | EPOLLPRI | EPOLLET;

/* ---- Types ---- */

/* A connection's readiness. The values are epoll's own.
 * FIN: the peer's FIN has arrived, so all of its input is already here.
 * READ_ON: a short read does not prove that the socket is empty, because a read stops in front of an urgent byte (tcp(7)) and in
 *   front of an error that it does not report.
 * PLENTY: the peer sends more than one read can take; its last turn filled the read buffer. epoll never sets this bit. */
enum { READABLE = EPOLLIN, WRITABLE = EPOLLOUT, FIN = EPOLLRDHUP, READ_ON = EPOLLPRI, PLENTY = 1 << 15 };

/* How far a connection has come.
 * PEER_FINISHED: the peer has sent its last byte. The connection ends when the outbox is empty.
 * CLOSING: the server closes it. When the outbox is empty, our FIN goes out.
 * LINGERING: our FIN is out. Input is discarded until the peer's FIN: close(2) with unread input sends a reset, which can destroy
 *   bytes on their way to the peer (RFC 1122, 4.2.2.13). */
enum phase { PHASE_OPEN, PHASE_PEER_FINISHED, PHASE_CLOSING, PHASE_LINGERING };

/* The result of a turn of one connection: wait for an event, go on after the others, or close. */
enum progress { WAITING, MORE, ENDED };

/* The result of a call of accept4(2) that returned no connection: the queue is empty; one connection was gone; a resource has
 * run out. */
enum { NOTHING = -1, FAILED = -2, EXHAUSTED = -3 };

/* How far the drain has come: no signal yet; the accept queue and the open connections are served; the drain timeout has passed
 * and all connections are being closed. */
enum stage { STAGE_SERVING, STAGE_DRAINING, STAGE_CLOSING };

/* A watched descriptor, with its place in the ready queue. It is the first member of everything that epoll's data.ptr points to. */
struct watched {
    enum { SIGNALS, LISTENER, CONNECTION } kind;
    int fd;
    bool is_queued;
    struct watched *next_ready;
};

/* A pending-write buffer. Echo reads only while it is empty, so it is filled once and then only drained. */
struct outbox {
    char *bytes; /* NULL when nothing is pending */
    size_t start, length;
};

struct connection {
    struct watched watched;
    enum phase phase;
    uint32_t readiness; /* each event is reported once, and remembered here until a call shows that it no longer holds */
    bool is_watched_for_room;
    bool has_lost_input; /* the drain discards input that arrived in time; the connection counts as aborted */
    struct outbox outbox;
    struct connection *previous, *next;
};

/* Input that was read in this turn of the loop and not answered yet. */
struct input {
    struct connection *connection;
    int count;
};

/* ---- State of the server; times are milliseconds of now_ms(), and 0 means none ---- */

static char read_buffer[READ_BUFFER_BYTES] __attribute__((aligned(4096)));
static struct input inputs[EVENTS_A_TURN]; /* in the order in which they lie in the read buffer */
static int input_count, input_bytes;
static bool copies;     /* every byte is copied: there is no pipe */
static int pipe_fds[2]; /* the pipe for zero-copy echo */
static int piped_bytes; /* 0 between turns */
static int epoll_fd;
static struct watched signals = {.kind = SIGNALS}, listener = {.kind = LISTENER, .fd = -1};
static struct sockaddr_in address = {.sin_family = AF_INET}; /* of the listener */
static int kept_fd = -1; /* an accepted connection that could not be opened; it is returned by the next accept */
static struct connection *first, *last;          /* all connections, the oldest first */
static struct watched *ready_first, *ready_last; /* the ready queue: a turn was not enough for these */
static int connection_count;
static uint64_t accepted, aborted;
static enum stage stage;
static int64_t drain_timeout_ms = 5000, accept_pause_ms;
static int64_t drain_deadline, accept_retry, watch_retry;
static int interrupted_by; /* the number of the second signal, which ends the server at once */

/* The time up to which every event has been processed. Deadlines are compared with it and not with the clock: after a pause
 * (SIGSTOP) the clock has jumped, while events from before the deadline are still unread. The clock is read before a wait. If the
 * wait returns fewer events than there is room for, it has returned all earlier events. A full batch leaves some behind; epoll(7)
 * returns each ready descriptor once before it returns one of them again. */
static struct horizon {
    int64_t known_until;
    int64_t asked_at; /* the start of the wait whose events are being collected */
    int unreturned;   /* events from before that wait that may still be left */
} horizon;

/* ---- Prototypes ---- */

/* server/run.rs */
static void server_run(void);
static void server_dispatch(struct watched *watched, uint32_t events);
static void server_resume_queued(void);
static int server_wait_ms(void);
static void server_end(void);
/* server/bind.rs */
static void server_bind(void);
static void open_signals(void);
static void warn_if_backlog_is_cut(void);
static void raise_descriptor_limit(void);
/* server/turn.rs */
static void on_connection_event(struct connection *self, uint32_t events);
static void answer_all(void);
static bool serve(struct connection *self, ssize_t *budget);
static bool go_on(struct connection *self, ssize_t *budget, enum progress progress);
static void watch_for_room(struct connection *self);
static void retry_to_watch(void);
/* server/connections.rs */
static bool connections_open(int fd);
static void connections_queue(struct watched *watched);
static void connections_close(struct connection *self);
/* server/connection/mod.rs */
static void connection_begin_close(struct connection *self);
static size_t connection_unsettled_bytes(const struct connection *self);
/* server/connection/advance.rs */
static enum progress connection_advance(struct connection *self, ssize_t *budget);
static bool connection_is_to_be_read(const struct connection *self);
static bool connection_is_idle(const struct connection *self);
static ssize_t connection_read(struct connection *self, char *buffer, ssize_t length);
static bool connection_can_relay(const struct connection *self);
static ssize_t connection_relay(struct connection *self);
static bool is_about_the_call(int error);
/* server/connection/reply.rs */
static bool reply_send(struct connection *self, const char *bytes, ssize_t count);
static bool reply_keep(struct connection *self, const char *bytes, size_t count);
/* server/connection/readiness.rs */
static void readiness_on_event(uint32_t *self, uint32_t events);
static ssize_t readiness_offer(uint32_t *self, int fd, const char *bytes, size_t count);
static ssize_t readiness_note_taken(uint32_t *self, ssize_t taken, size_t count);
/* server/accept/acceptor.rs */
static void acceptor_accept(void);
static void acceptor_pause(void);
static void acceptor_resume(void);
/* server/accept/listener.rs */
static void listener_bind(void);
static int listener_accept(void);
static void listener_close(void);
/* server/time/ */
static int64_t now_ms(void);
static void horizon_before_wait(int64_t now);
static bool horizon_after_turn(int count);
static int64_t next_deadline(void);
static void keep_deadlines(void);
/* server/drain.rs */
static void on_signals(void);
static void begin_drain(void);
static bool drain_is_finished(void);
static void on_drain_deadline(void);
static void serve_last(struct connection *self);
static void abort_queue(void);
static void cut_off(void);
static void print_statistics(void);
/* stream/outbox.rs */
static bool outbox_push(struct outbox *self, const char *bytes, size_t count);
static void outbox_consume(struct outbox *self, size_t count);
/* event/mod.rs */
static bool watch(struct watched *watched, int operation, uint32_t events);

/* ---- No Rust file: the command line, which src/cli/ parses with a library ---- */

static _Noreturn void fail(const char *action) {
    fprintf(stderr, "error: cannot %s: %s\n", action, strerror(errno));
    exit(1);
}

static _Noreturn void usage_error(const char *option, const char *value, const char *expected) {
    fprintf(stderr, "error: %s '%s': expected %s\n", option, value, expected);
    exit(2);
}

/* Parses a decimal number up to `most`. Returns the text after it, or "?" if there is no such number. */
static const char *parse_number(const char *text, int64_t most, int64_t *number) {
    const char *end = text;
    for (*number = 0; *end >= '0' && *end <= '9' && *number <= most; end++)
        *number = *number * 10 + (*end - '0');
    return end == text || *number > most ? "?" : end;
}

static void parse_listen(const char *value) {
    const char *colon = strrchr(value, ':');
    char host[INET_ADDRSTRLEN] = "";
    int64_t port;
    if (colon && colon < value + sizeof host)
        memcpy(host, value, colon - value);
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1 || *parse_number(colon + 1, UINT16_MAX, &port))
        usage_error("--listen", value, "IPV4:PORT, with a port from 0 to 65535, such as 127.0.0.1:7777");
    address.sin_port = htons(port);
}

static void parse_drain_timeout(const char *value) {
    const char *unit = parse_number(value, MAX_DRAIN_MS, &drain_timeout_ms);
    drain_timeout_ms *= !strcmp(unit, "s") ? 1000 : 1;
    if ((strcmp(unit, "s") && strcmp(unit, "ms")) || drain_timeout_ms > MAX_DRAIN_MS)
        usage_error("--drain-timeout", value, "a duration from 0s to 86400s, such as 5s or 500ms");
}

/* Waits until stdout can be written to. While stdout is full and its reader does not read, signals have their default actions:
 * nothing else could end the wait. */
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

static void announce(void) {
    char host[INET_ADDRSTRLEN] = "", line[64];
    inet_ntop(AF_INET, &address.sin_addr, host, sizeof host);
    wait_for_stdout();
    if (write(STDOUT_FILENO, line, snprintf(line, sizeof line, "listening on %s:%d\n", host, ntohs(address.sin_port))) == -1)
        perror("cannot write the address to stdout");
}

/* Ends the process by the signal that interrupted it, so that the parent process sees which one it was. Returns in process 1 of a
 * PID namespace, which its own signals do not end (pid_namespaces(7)). */
static void end_by_signal(int number) {
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, number);
    sigaction(number, &(struct sigaction){.sa_handler = SIG_DFL}, NULL);
    sigprocmask(SIG_UNBLOCK, &mask, NULL);
    raise(number);
}

int main(int argc, char **argv) {
    parse_listen("127.0.0.1:7777");
    for (int i = 1; i < argc; i++) {
        const char *option = argv[i], *value = i + 1 < argc ? argv[i + 1] : "";
        if (!strcmp(option, "--copy"))
            copies = true;
        else if (!strcmp(option, "--listen") && ++i)
            parse_listen(value);
        else if (!strcmp(option, "--drain-timeout") && ++i)
            parse_drain_timeout(value);
        else
            usage_error("unknown option", option, "[--listen IPV4:PORT] [--drain-timeout 5s|500ms] [--copy]");
    }
    signal(SIGPIPE, SIG_IGN); /* for stdout, stderr and splice(2); send(2) has MSG_NOSIGNAL */
    signal(SIGXFSZ, SIG_IGN); /* a write beyond `ulimit -f` returns EFBIG instead (setrlimit(2)) */
    server_bind();
    announce();
    server_run();
    if (interrupted_by) {
        end_by_signal(interrupted_by);
        return 128 + interrupted_by;
    }
    return aborted > 0;
}

/* ---- server/run.rs ---- */

static void server_run(void) {
    static struct epoll_event events[EVENTS_A_TURN];
    for (;;) {
        server_resume_queued();
        if (interrupted_by || drain_is_finished())
            break;
        int count = epoll_wait(epoll_fd, events, EVENTS_A_TURN, server_wait_ms());
        if (count == -1 && errno != EINTR)
            fail("wait for events (epoll_wait)");
        for (int i = 0; i < count; i++)
            server_dispatch(events[i].data.ptr, events[i].events);
        answer_all();
        if (horizon_after_turn(count == -1 ? 0 : count))
            keep_deadlines();
    }
    server_end();
}

static void server_dispatch(struct watched *watched, uint32_t events) {
    if (watched->kind == CONNECTION)
        on_connection_event((struct connection *)watched, events);
    else if (watched->kind == SIGNALS)
        on_signals();
    else if (!watched->is_queued && !accept_retry)
        acceptor_accept();
}

/* Resumes what is queued now, each once, until the shared budget is used up. The next step is a wait for new events, so a
 * connection with little to send does not wait for longer than this. */
static void server_resume_queued(void) {
    struct watched *end = ready_last;
    ssize_t budget = QUEUED_BYTES_A_TURN;
    for (bool is_last = false; ready_first && !is_last && budget > 0;) {
        struct watched *watched = ready_first;
        is_last = watched == end;
        ready_first = watched->next_ready;
        watched->is_queued = false;
        if (watched->kind == LISTENER)
            acceptor_accept();
        else
            serve((struct connection *)watched, &budget);
    }
}

/* Returns the timeout of the next wait as epoll_wait(2) takes it: -1 waits forever. */
static int server_wait_ms(void) {
    int64_t next = next_deadline(), now = next ? now_ms() : 0, left = next - now;
    if (next)
        horizon_before_wait(now);
    if (ready_first || !next)
        return ready_first ? 0 : -1;
    return left < 0 ? 0 : left > INT32_MAX ? INT32_MAX : (int)left;
}

static void server_end(void) {
    cut_off();
    if (listener.fd != -1)
        listener_close();
    if (!copies) {
        close(pipe_fds[0]);
        close(pipe_fds[1]);
    }
    close(epoll_fd);
    close(signals.fd);
}

/* ---- server/bind.rs ---- */

static void server_bind(void) {
    raise_descriptor_limit();
    warn_if_backlog_is_cut();
    open_signals();
    if ((epoll_fd = epoll_create1(EPOLL_CLOEXEC)) == -1)
        fail("make an event loop (epoll_create1)");
    if (!watch(&signals, EPOLL_CTL_ADD, EPOLLIN | EPOLLET))
        fail("watch for signals (epoll_ctl)");
    if (!copies && pipe2(pipe_fds, O_NONBLOCK | O_CLOEXEC) == -1)
        fail("make a pipe (pipe2)");
    listener_bind();
    if (!watch(&listener, EPOLL_CTL_ADD, EPOLLIN | EPOLLET))
        fail("watch for connections (epoll_ctl)");
}

/* Blocks the signals that the loop reads from a descriptor. A SIGHUP that the process inherited as ignored stays ignored, as
 * nohup(1) needs it. */
static void open_signals(void) {
    struct sigaction hangup;
    sigset_t mask;
    sigemptyset(&mask);
    sigaction(SIGHUP, NULL, &hangup);
    if (hangup.sa_handler != SIG_IGN)
        sigaddset(&mask, SIGHUP);
    sigaddset(&mask, SIGINT);
    sigaddset(&mask, SIGTERM);
    sigaddset(&mask, SIGUSR1);
    sigprocmask(SIG_BLOCK, &mask, NULL);
    if ((signals.fd = signalfd(-1, &mask, SFD_NONBLOCK | SFD_CLOEXEC)) == -1)
        fail("read signals (signalfd4)");
}

/* listen(2) reduces the backlog to net.core.somaxconn without an error. */
static void warn_if_backlog_is_cut(void) {
    char somaxconn[16] = "";
    int fd = open("/proc/sys/net/core/somaxconn", O_RDONLY | O_CLOEXEC);
    if (fd != -1 && read(fd, somaxconn, sizeof somaxconn - 1) > 0 && atoi(somaxconn) < BACKLOG)
        fprintf(stderr, "the backlog of %d is cut to %d\n", BACKLOG, atoi(somaxconn));
    close(fd);
}

static void raise_descriptor_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* ---- server/turn.rs ---- */

/* Most events ask for one read. Then only the read is done now, and the answer is sent after all reads of this turn: the kernel's
 * code for each of the two is loaded into the CPU's cache once per turn and not once per connection. */
static void on_connection_event(struct connection *self, uint32_t events) {
    ssize_t budget = BYTES_A_TURN;
    readiness_on_event(&self->readiness, events);
    if (self->watched.is_queued)
        return;
    if (!connection_is_to_be_read(self)) {
        answer_all();
        serve(self, &budget);
        return;
    }
    ssize_t count = connection_read(self, read_buffer + input_bytes, READ_BUFFER_BYTES - input_bytes);
    if (count > 0) {
        inputs[input_count++] = (struct input){.connection = self, .count = count};
        input_bytes += count;
        if (input_bytes > READ_BUFFER_BYTES - LEAST_ROOM_BYTES)
            answer_all();
    } else if (count == 0 || errno != EAGAIN) {
        go_on(self, &budget, count == -1 && errno == EINTR ? MORE : ENDED);
    }
}

/* Answers all input of this turn, in the order of the reads. */
static void answer_all(void) {
    char *bytes = read_buffer;
    for (int i = 0; i < input_count; i++) {
        struct input *input = &inputs[i];
        struct connection *connection = input->connection;
        /* The last one may use the read buffer again. The others may not read before that, so they have no budget. */
        ssize_t budget = i + 1 == input_count ? BYTES_A_TURN - input->count : 0;
        if (!reply_send(connection, bytes, input->count))
            go_on(connection, &budget, ENDED);
        else if (!connection_is_idle(connection))
            serve(connection, &budget);
        bytes += input->count;
    }
    input_count = input_bytes = 0;
}

/* Gives a connection its turn. Returns false if that closes it. */
static bool serve(struct connection *self, ssize_t *budget) {
    return go_on(self, budget, connection_advance(self, budget));
}

/* Acts on the result of a turn. Returns false if that closes the connection. */
static bool go_on(struct connection *self, ssize_t *budget, enum progress progress) {
    switch (progress) {
    case MORE:
        connections_queue(&self->watched);
        break;
    case ENDED:
        connections_close(self);
        *budget = 0; /* the connection may have used all of it */
        break;
    case WAITING:
        if (self->outbox.bytes && !self->is_watched_for_room)
            watch_for_room(self);
    }
    return progress != ENDED;
}

/* Adds EPOLLOUT to the watched events. If that fails, the bytes stay pending until a retry after the shortest pause. */
static void watch_for_room(struct connection *self) {
    self->is_watched_for_room = watch(&self->watched, EPOLL_CTL_MOD, INTEREST | EPOLLOUT);
    if (!self->is_watched_for_room && !watch_retry)
        watch_retry = now_ms() + SHORTEST_PAUSE_MS;
}

/* Gives a turn to each connection that could not be watched for room. A queued connection has its own turn soon. */
static void retry_to_watch(void) {
    watch_retry = 0;
    for (struct connection *connection = first, *next; connection; connection = next) {
        ssize_t budget = BYTES_A_TURN;
        next = connection->next;
        if (connection->outbox.bytes && !connection->is_watched_for_room && !connection->watched.is_queued)
            serve(connection, &budget);
    }
}

/* ---- server/connections.rs ---- */

/* Opens a connection on an accepted descriptor. Returns false if there is no memory for it or epoll cannot watch it. */
static bool connections_open(int fd) {
    struct connection *self = malloc(sizeof *self);
    if (!self)
        return false;
    *self = (struct connection){.watched = {.kind = CONNECTION, .fd = fd}, .readiness = WRITABLE, .previous = last};
    if (!watch(&self->watched, EPOLL_CTL_ADD, INTEREST)) {
        free(self);
        return false;
    }
    *(last ? &last->next : &first) = self;
    last = self;
    connection_count++;
    accepted++;
    if (stage == STAGE_CLOSING)
        serve_last(self);
    return true;
}

/* Appends to the ready queue what is not in it yet. */
static void connections_queue(struct watched *watched) {
    if (watched->is_queued)
        return;
    watched->is_queued = true;
    watched->next_ready = NULL;
    *(ready_first ? &ready_last->next_ready : &ready_first) = watched;
    ready_last = watched;
}

/* Closes and frees a connection. No later event names it: close(2) removes the descriptor from the epoll set, epoll_wait(2)
 * returns a descriptor at most once in a batch, and a connection is closed only in its own turn. */
static void connections_close(struct connection *self) {
    *(self->previous ? &self->previous->next : &first) = self->next;
    *(self->next ? &self->next->previous : &last) = self->previous;
    connection_count--;
    close(self->watched.fd);
    free(self->outbox.bytes);
    free(self);
    if (accept_retry)
        acceptor_resume(); /* a descriptor is free again */
}

/* ---- server/connection/mod.rs ---- */

/* Starts an orderly close: first the pending bytes, then our FIN, then the peer's. */
static void connection_begin_close(struct connection *self) {
    int unread = 0;
    if (self->phase == PHASE_OPEN) {
        if (self->readiness & READABLE)
            ioctl(self->watched.fd, SIOCINQ, &unread);
        self->has_lost_input = unread > 0;
        aborted += unread > 0;
        self->phase = PHASE_CLOSING;
    }
    connections_queue(&self->watched);
}

/* Returns the number of bytes that close(2) would destroy now: pending bytes, bytes that the peer's kernel has not acknowledged
 * (a FIN counts as one), and unread input, because close(2) then sends a reset (RFC 1122, 4.2.2.13). */
static size_t connection_unsettled_bytes(const struct connection *self) {
    int unread = 0, unacknowledged = 0, our_fin = self->phase == PHASE_LINGERING;
    ioctl(self->watched.fd, SIOCINQ, &unread);
    ioctl(self->watched.fd, SIOCOUTQ, &unacknowledged);
    return self->outbox.length + (unacknowledged > our_fin ? unacknowledged - our_fin : 0) + unread;
}

/* ---- server/connection/advance.rs ---- */

/* Sends what is pending; then, while nothing is pending, reads and echoes. Subtracts what it reads from `budget`. */
static enum progress connection_advance(struct connection *self, ssize_t *budget) {
    const ssize_t whole = *budget;
    bool has_plenty = true;
    for (;;) {
        if (self->outbox.bytes) {
            ssize_t sent = 0;
            if (self->readiness & WRITABLE)
                sent = readiness_offer(&self->readiness, self->watched.fd, self->outbox.bytes + self->outbox.start, self->outbox.length);
            if (sent == -1)
                return ENDED;
            outbox_consume(&self->outbox, sent);
            if (self->outbox.bytes)
                return self->readiness & WRITABLE ? MORE : WAITING;
        }
        if (self->phase == PHASE_PEER_FINISHED)
            return ENDED;
        if (self->phase == PHASE_CLOSING) {
            if (shutdown(self->watched.fd, SHUT_WR) == -1)
                return ENDED;
            self->phase = PHASE_LINGERING;
        }
        if (!(self->readiness & READABLE)) {
            if (whole - *budget < READ_BUFFER_BYTES / 2)
                self->readiness &= ~PLENTY;
            return WAITING;
        }
        if (*budget <= 0)
            return MORE;
        if (has_plenty && connection_can_relay(self)) {
            ssize_t count = connection_relay(self);
            if (count == -1)
                return ENDED;
            *budget -= count;
            has_plenty = count == READ_BUFFER_BYTES; /* a short splice proves nothing; a read finds out the rest */
            continue;
        }
        bool is_open = self->phase == PHASE_OPEN;
        ssize_t count = connection_read(self, read_buffer, READ_BUFFER_BYTES);
        if (count == 0)
            return ENDED;
        if (count == -1 && errno == EAGAIN)
            continue;
        if (count == -1)
            return errno == EINTR ? MORE : ENDED;
        *budget -= count;
        if (is_open && !reply_send(self, read_buffer, count))
            return ENDED;
    }
}

/* Returns whether one read is all that there is to do now: the first half of a turn, of which the answer is the second. */
static bool connection_is_to_be_read(const struct connection *self) {
    return self->phase == PHASE_OPEN && !self->outbox.bytes && (self->readiness & (READABLE | PLENTY)) == READABLE;
}

/* Returns whether nothing is pending and there is nothing to do before the next event. */
static bool connection_is_idle(const struct connection *self) {
    return self->phase == PHASE_OPEN && !self->outbox.bytes && !(self->readiness & READABLE);
}

/* Reads once. A short count shows that the socket was empty (epoll(7)), which saves a read that would return EAGAIN. Input that
 * arrives later causes a new event, and so does a FIN, because EPOLLRDHUP is watched. If the FIN was there before the read, nothing
 * follows the input: a short count is then the end of the stream, too. */
static ssize_t connection_read(struct connection *self, char *buffer, ssize_t length) {
    ssize_t count = recv(self->watched.fd, buffer, length, 0);
    if (count == -1 && errno == EAGAIN)
        self->readiness &= ~(READABLE | READ_ON);
    if (count <= 0)
        return count;
    if (count == length) {
        self->readiness |= PLENTY;
    } else if (!(self->readiness & READ_ON)) {
        self->readiness &= ~READABLE;
        if (self->phase == PHASE_OPEN && self->readiness & FIN)
            self->phase = PHASE_PEER_FINISHED;
    }
    return count;
}

/* Returns whether the next input may be echoed without a copy. An urgent byte prevents that: splice(2) does not pass it. */
static bool connection_can_relay(const struct connection *self) {
    return (self->readiness & (PLENTY | WRITABLE | READ_ON)) == (PLENTY | WRITABLE) && self->phase == PHASE_OPEN && !copies;
}

/* Echoes up to a buffer full of input through the pipe, without a copy. Returns the number of bytes, or -1 if the connection is
 * broken. A short count does not mean that the socket is empty: the pipe takes 16 pieces (pipe(7)). */
static ssize_t connection_relay(struct connection *self) {
    ssize_t count = 0, rest = 0;
    if (piped_bytes == 0)
        count = splice(self->watched.fd, NULL, pipe_fds[1], NULL, READ_BUFFER_BYTES, SPLICE_F_NONBLOCK);
    if (count <= 0)
        return count == 0 || is_about_the_call(errno) ? 0 : -1;
    ssize_t poured = splice(pipe_fds[0], NULL, self->watched.fd, NULL, count, SPLICE_F_NONBLOCK);
    bool is_broken = readiness_note_taken(&self->readiness, poured, count) == -1 && !is_about_the_call(errno);
    piped_bytes = count - (poured == -1 ? 0 : poured);
    while (piped_bytes > 0) { /* the socket had no room for these, and the next connection needs an empty pipe */
        ssize_t taken = read(pipe_fds[0], read_buffer + rest, READ_BUFFER_BYTES - rest);
        if (taken == -1 && errno == EINTR)
            continue;
        if (taken == -1)
            return -1; /* the pipe is not empty, and is not used again */
        rest += taken;
        piped_bytes -= taken;
    }
    return is_broken || !reply_keep(self, read_buffer, rest) ? -1 : count;
}

/* Returns whether an error of splice(2) is about the call and not about the connection: a read or a send may still succeed. */
static bool is_about_the_call(int error) {
    return error == EINTR || error == EINVAL || error == ENOMEM || error == EAGAIN;
}

/* ---- server/connection/reply.rs ---- */

/* Echoes input. Returns false if the connection is broken. */
static bool reply_send(struct connection *self, const char *bytes, ssize_t count) {
    ssize_t sent = readiness_offer(&self->readiness, self->watched.fd, bytes, count);
    return sent == count || (sent != -1 && reply_keep(self, bytes + sent, count - sent));
}

/* Keeps bytes for which the socket has no room. Returns false if there is no memory for them. The connection then ends with a
 * reset, because a FIN would claim that everything was echoed. */
static bool reply_keep(struct connection *self, const char *bytes, size_t count) {
    const struct linger none = {.l_onoff = 1};
    if (outbox_push(&self->outbox, bytes, count))
        return true;
    setsockopt(self->watched.fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    aborted++;
    return false;
}

/* ---- server/connection/readiness.rs ---- */

/* Remembers an event. EPOLLHUP and EPOLLERR make a read and a send worth a try, and the call returns what is the matter: there may
 * still be input to read. */
static void readiness_on_event(uint32_t *self, uint32_t events) {
    *self |= events & (READABLE | WRITABLE | FIN | READ_ON);
    if (events & (EPOLLPRI | EPOLLRDHUP | EPOLLERR | EPOLLHUP))
        *self |= READABLE;
    if (events & (EPOLLERR | EPOLLHUP))
        *self |= WRITABLE | READ_ON;
}

/* Sends. Returns the number of bytes that the kernel took, or -1 if the connection is broken. */
static ssize_t readiness_offer(uint32_t *self, int fd, const char *bytes, size_t count) {
    return readiness_note_taken(self, send(fd, bytes, count, MSG_NOSIGNAL), count);
}

/* Interprets the result of a send of `count` bytes. A short count shows that there is no more room (epoll(7)); an interrupted call
 * shows nothing. */
static ssize_t readiness_note_taken(uint32_t *self, ssize_t taken, size_t count) {
    if (taken == -1 && errno != EAGAIN)
        return errno == EINTR ? 0 : -1;
    if (taken < (ssize_t)count)
        *self &= ~WRITABLE;
    return taken == -1 ? 0 : taken;
}

/* ---- server/accept/acceptor.rs ---- */

/* Accepts until the queue is empty, a resource has run out, or the budget of this turn is used up. */
static void acceptor_accept(void) {
    if (listener.fd == -1)
        return;
    for (int i = 0; i < ACCEPTS_A_TURN; i++) {
        int fd = listener_accept();
        if (fd == NOTHING) {
            if (stage != STAGE_SERVING)
                listener_close();
            return;
        }
        if (fd == FAILED)
            continue;
        if (fd == EXHAUSTED || !connections_open(fd)) {
            kept_fd = fd == EXHAUSTED ? -1 : fd;
            acceptor_pause();
            return;
        }
        accept_pause_ms = 0;
    }
    connections_queue(&listener);
}

/* Stops accepting until a connection has closed or the pause has passed. In a drain no new client joins the queue meanwhile. */
static void acceptor_pause(void) {
    accept_pause_ms = accept_pause_ms ? accept_pause_ms * 2 : SHORTEST_PAUSE_MS;
    accept_pause_ms = accept_pause_ms < LONGEST_PAUSE_MS ? accept_pause_ms : LONGEST_PAUSE_MS;
    accept_retry = now_ms() + accept_pause_ms;
    if (stage != STAGE_SERVING)
        listen(listener.fd, 0);
}

static void acceptor_resume(void) {
    accept_retry = 0;
    connections_queue(&listener);
}

/* ---- server/accept/listener.rs ---- */

/* Accepted sockets inherit the options of the listener, which saves a system call for each. */
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
}

/* Accepts once. Returns a descriptor, or why there is none. */
static int listener_accept(void) {
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
    default: /* EMFILE, ENFILE, ENOBUFS, ENOMEM: a resource has run out, and the connection stays in the queue */
        return EXHAUSTED;
    }
}

static void listener_close(void) {
    close(listener.fd);
    listener.fd = -1;
    accept_retry = 0;
}

/* ---- server/time/clock.rs ---- */

static int64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void horizon_before_wait(int64_t now) {
    if (horizon.asked_at)
        return;
    horizon.asked_at = now;
    horizon.unreturned = connection_count + 2; /* 2: the listener and the signals */
}

/* Records that a wait has returned `count` events and that all of them have been processed. Returns whether the known time has
 * advanced; otherwise nothing new can be due. */
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

/* ---- server/time/mod.rs ---- */

static int64_t next_deadline(void) {
    int64_t next = 0, all[] = {drain_deadline, accept_retry, watch_retry};
    for (int i = 0; i < 3; i++)
        if (all[i] && (!next || all[i] < next))
            next = all[i];
    return next;
}

/* Does what was due when the last known event arrived. */
static void keep_deadlines(void) {
    for (int64_t next; (next = next_deadline()) && next <= horizon.known_until;) {
        if (next == accept_retry)
            acceptor_resume();
        else if (next == watch_retry)
            retry_to_watch();
        else
            on_drain_deadline();
    }
}

/* ---- server/drain.rs ---- */

static void on_signals(void) {
    struct signalfd_siginfo info;
    ssize_t count;
    while ((count = read(signals.fd, &info, sizeof info)) != -1 || errno == EINTR) {
        if (count == -1)
            continue;
        if (info.ssi_signo == SIGUSR1)
            print_statistics();
        else if (stage != STAGE_SERVING)
            interrupted_by = info.ssi_signo;
        else
            begin_drain();
    }
    if (errno != EAGAIN)
        fail("read signals (read)");
}

/* Serves the clients that the kernel has already queued, then closes the listener. */
static void begin_drain(void) {
    stage = STAGE_DRAINING;
    drain_deadline = now_ms() + drain_timeout_ms;
    acceptor_resume();
}

/* Returns whether the drain is complete: no client can connect any more, and all have left. */
static bool drain_is_finished(void) {
    return stage != STAGE_SERVING && !first && listener.fd == -1;
}

/* At the drain timeout all connections are closed in order; after the time for that, the rest is cut off. */
static void on_drain_deadline(void) {
    int64_t now = now_ms();
    if (stage == STAGE_CLOSING && now <= drain_deadline + PAUSE_MS) {
        drain_deadline = 0;
        cut_off();
        if (listener.fd != -1)
            abort_queue();
        return;
    }
    drain_deadline = now + LINGER_MS;
    if (stage == STAGE_CLOSING)
        return; /* peers had no time to take their bytes while this process was stopped */
    stage = STAGE_CLOSING;
    for (struct connection *connection = first; connection; connection = connection->next)
        connection_begin_close(connection);
    if (listener.fd != -1) /* there were no descriptors for its queue; each connection that ends frees one */
        acceptor_resume();
}

/* Serves a client that waited in the accept queue until after the drain timeout: its input is echoed, and then the connection is
 * closed in order. */
static void serve_last(struct connection *self) {
    ssize_t budget = BYTES_A_TURN;
    readiness_on_event(&self->readiness, EPOLLIN);
    if (serve(self, &budget))
        connection_begin_close(self);
}

/* Closes the listener with clients in its queue, which are reset. Each counts as aborted. */
static void abort_queue(void) {
    for (int fd; (fd = listener_accept()) >= 0 || fd == FAILED;) {
        if (fd == FAILED)
            continue;
        accepted++;
        aborted++;
        close(fd);
    }
    listener_close();
}

/* Closes all connections at once. Each that loses bytes by that counts as aborted. */
static void cut_off(void) {
    ready_first = ready_last = NULL;
    while (first) {
        aborted += connection_unsettled_bytes(first) > 0 && !first->has_lost_input;
        connections_close(first);
    }
}

/* Writes the statistics to stderr, or drops them if stderr is full: a write that blocks would stop every connection. A pipe that
 * is ready has room for PIPE_BUF bytes (pipe(7)). */
static void print_statistics(void) {
    struct pollfd output = {.fd = STDERR_FILENO, .events = POLLOUT};
    if (poll(&output, 1, 0) == 1 && output.revents & POLLOUT)
        dprintf(STDERR_FILENO, "accepted %" PRIu64 "\nopen %d\n", accepted, connection_count);
}

/* ---- stream/outbox.rs ---- */

/* Appends bytes. Returns false if there is no memory for them. */
static bool outbox_push(struct outbox *self, const char *bytes, size_t count) {
    if (count == 0)
        return true;
    if (!(self->bytes = malloc(count)))
        return false;
    memcpy(self->bytes, bytes, count);
    self->start = 0;
    self->length = count;
    return true;
}

/* Removes the first `count` bytes, and frees the memory with the last of them. */
static void outbox_consume(struct outbox *self, size_t count) {
    self->start += count;
    self->length -= count;
    if (self->length > 0)
        return;
    free(self->bytes);
    self->bytes = NULL;
}

/* ---- event/mod.rs ---- */

/* Adds a descriptor to the epoll set, or changes the events that it is watched for. */
static bool watch(struct watched *watched, int operation, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = watched};
    return epoll_ctl(epoll_fd, operation, watched->fd, &event) == 0;
}
