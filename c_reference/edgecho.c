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

/* ---- Constants: the names and values of Rust, with the unit added to a duration ---- */

enum {
    READ_BUFFER_BYTES = 32 * 1024,    /* one buffer for the whole loop, so that it stays in the CPU's cache */
    MIN_ROOM_BYTES = 4 * 1024,        /* with less room in the read buffer, its content is answered first */
    EVENT_BUDGET_BYTES = 64 * 1024,   /* read budget of one connection per event; a read may exceed it by one buffer */
    QUEUED_BUDGET_BYTES = 512 * 1024, /* read budget per turn, shared by all queued connections */
    ACCEPTS_PER_TURN = 64,
    EVENTS_PER_TURN = 256,
    OTHER_DESCRIPTORS = 2,            /* in the epoll set besides connections: the listener and the signals */
    BACKLOG = 4096,
    LINGER_MS = 2000,                 /* the time that a peer has to send its FIN after ours */
    SHORTEST_PAUSE_MS = 10,           /* the first pause of accepting when a resource has run out; each further one doubles */
    LONGEST_PAUSE_MS = 1000,
    PAUSE_MS = 100,                   /* a drain deadline met later than this: the process was stopped in between */
    MAX_DRAIN_MS = 24 * 3600 * 1000,
};

/* Events that every connection is watched for. EPOLLOUT is added when a send finds no room for the first time. */
static const uint32_t INTEREST = EPOLLIN | EPOLLRDHUP | EPOLLPRI;

/* ---- Types ---- */

/* A connection's readiness. The values are epoll's own.
 * FIN: the peer's FIN has arrived, so all of its input is already here.
 * READ_ON: a short read does not prove that the socket is empty, because a read stops in front of an urgent byte (tcp(7)) and in
 *   front of an error that it does not report.
 * PLENTY: the peer sends more than one read can take; its last turn filled the read buffer. epoll never sets this bit. */
enum { READABLE = EPOLLIN, WRITABLE = EPOLLOUT, FIN = EPOLLRDHUP, READ_ON = EPOLLPRI, PLENTY = 1 << 15 };

/* The phases of a connection.
 * PEER_FINISHED: the peer has sent its last byte. The connection ends when the outbox is empty.
 * CLOSING: the server closes it. When the outbox is empty, our FIN goes out.
 * LINGERING: our FIN is out. Input is discarded until the peer's FIN: close(2) with unread input sends a reset, which can destroy
 *   bytes on their way to the peer (RFC 1122, 4.2.2.13). */
enum phase { PHASE_OPEN, PHASE_PEER_FINISHED, PHASE_CLOSING, PHASE_LINGERING };

/* The result of a turn of one connection: wait for an event, go on after the others, or close. */
enum progress { WAITING, MORE, ENDED };

/* The result of a call of accept4(2) that returned no connection: the queue is empty; the connection was gone; a resource has run
 * out. */
enum { NOTHING = -1, FAILED = -2, EXHAUSTED = -3 };

/* The stages of the drain. SERVING: no signal yet. DRAINING: the accept queue and the open connections are served. CLOSING: the
 * drain timeout has passed, and all connections are being closed. OVER: what was left is cut off. */
enum stage { STAGE_SERVING, STAGE_DRAINING, STAGE_CLOSING, STAGE_OVER };

/* The actions at a drain deadline. WAIT: peers had no time to take their bytes while this process was stopped. At most once. */
enum due { CLOSE_ALL, WAIT, CUT_OFF };

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
    uint32_t readiness; /* an event is reported once, and remembered here until a call shows that it no longer holds */
    bool is_watched_for_room;
    bool has_lost_input; /* the drain discards input that arrived in time; the connection counts as aborted */
    struct outbox outbox;
    struct connection *previous, *next;
};

/* Input of one connection in the read buffer. */
struct input {
    struct connection *connection;
    int count;
};

/* ---- State; times are milliseconds of CLOCK_MONOTONIC, and 0 means none ---- */

static bool copies; /* every byte is copied: there is no pipe */
static int64_t drain_timeout_ms = 5000;
static struct sockaddr_in address = {.sin_family = AF_INET}; /* of the listener */
static int epoll_fd;
static struct watched signals = {.kind = SIGNALS};
static uint64_t accepted, aborted;
static int interrupted_by; /* the number of the second signal, which ends the server at once */

static struct turn_buffers {
    char read_buffer[READ_BUFFER_BYTES] __attribute__((aligned(4096)));
    struct input inputs[EVENTS_PER_TURN]; /* read in this turn and not answered yet, in their order in the read buffer */
    int input_count, input_bytes;
} buffers;

static struct connections {
    struct connection *first, *last; /* the oldest connection first */
    int count;
    struct watched *ready_first, *ready_last; /* the ready queue: one turn was not enough for these */
} connections;

static struct listener {
    struct watched watched;
    int kept_fd; /* an accepted connection that could not be opened; the next accept returns it */
    int64_t pause_ms;
} listener = {.watched = {.kind = LISTENER, .fd = -1}, .kept_fd = -1};

static struct drain {
    enum stage stage;
    int64_t deadline;
    bool is_extended; /* the time for closing has begun again, after a pause */
} drain;

/* The pipe for zero-copy echo. It is empty between turns. */
static struct pipe {
    int reader, writer;
    int held_bytes;
} zero_copy_pipe;

/* The time up to which every event has been processed. Deadlines are compared with it and not with the clock: after a pause
 * (SIGSTOP) the clock has jumped, while events from before the deadline are still unread. The clock is read before a wait. If the
 * wait returns fewer events than there is room for, it has returned all earlier events. A full batch leaves some behind; epoll(7)
 * returns each ready descriptor once before it returns one of them again. */
static struct horizon {
    int64_t known_until;
    int64_t asked_at; /* the start of the wait whose events are being collected */
    int unreturned;   /* events from before that wait that may still be left */
} horizon;

static struct deadlines {
    int64_t drain, accept, watch; /* the end of a drain stage, of a pause of accepting, of a pause of watching for room */
} deadlines;

/* ---- Prototypes ---- */

/* server/run.rs */
static void server_run(void);
static void server_resume_queued(void);
static int server_wait(void);
static void server_dispatch(struct watched *watched, uint32_t events);
static void server_keep_time(int count);
static void server_on_signals(void);
static void server_on_listener_event(void);
static void server_accept_from(void);
static void server_pause_listener(void);
static void server_resume_listeners(void);
static void server_queue_listener(void);
static bool server_finish_drain(void);
static void server_end(void);
/* server/serve.rs */
static bool server_open(int fd);
static void server_on_connection_event(struct connection *self, uint32_t events);
static void server_answer_inputs(void);
static bool server_serve(struct connection *self, ssize_t *budget);
static bool server_after_turn(struct connection *self, ssize_t *budget, enum progress progress);
static void server_watch_for_room(struct connection *self);
static void server_begin_close(struct connection *self);
static void server_cut(struct connection *self);
static void server_remove(struct connection *self);
/* server/due.rs */
static void server_do_due(void);
static void server_retry_to_watch(void);
static void server_begin_drain(void);
static void server_on_drain_deadline(void);
static void server_serve_last(struct connection *self);
static void server_cut_off(void);
/* server/bind.rs */
static void server_bind(void);
static void read_signals(void);
static void warn_if_backlog_is_cut(void);
static void raise_descriptor_limit(void);
/* server/turn.rs */
static bool turn_buffers_push(struct connection *connection, int count);
static void turn_buffers_clear(void);
/* server/connections.rs */
static struct connection *connections_open(int fd);
static void connections_remove(struct connection *self);
static void connections_queue(struct watched *watched);
static struct watched *connections_pop_ready(void);
static bool connections_watch_for_room(struct connection *self);
/* server/connection/mod.rs */
static size_t connection_unsettled_bytes(const struct connection *self);
static bool connection_has_input_left(const struct connection *self);
static int connection_unacknowledged_bytes(const struct connection *self);
static bool connection_needs_only_read(const struct connection *self);
static bool connection_is_quiet(const struct connection *self);
static int unread_bytes(int fd);
/* server/connection/advance.rs */
static enum progress connection_advance(struct connection *self, ssize_t *budget);
static bool connection_proceed_to_the_end(struct connection *self);
static ssize_t connection_read(struct connection *self, char *buffer, ssize_t length);
static bool connection_respond(struct connection *self, const char *input, size_t count);
static bool connection_can_relay(const struct connection *self);
static ssize_t connection_relay(struct connection *self);
static bool connection_flush(struct connection *self);
static bool is_of_the_call(int error);
/* server/connection/reply.rs */
static bool keep(struct connection *self, const char *rest, size_t count);
/* server/accept/acceptor.rs */
static int acceptor_accept(void);
static int64_t acceptor_pause(void);
static void acceptor_abort(void);
/* server/accept/listener.rs */
static void listener_bind(void);
static int listener_accept(void);
static int64_t listener_pause(void);
static void listener_close(void);
static bool set_options(int fd);
/* server/time/mod.rs */
static int time_before_wait(int watched, bool has_work);
static int64_t time_next_deadline(void);
/* server/time/clock.rs */
static int64_t clock_read(void);
static void horizon_before_wait(int64_t now, int watched);
static bool horizon_after_turn(int count);
/* server/drain.rs */
static int64_t drain_on_signal(int64_t now);
static enum due drain_on_deadline(int64_t now);
/* stream/outbox.rs */
static bool outbox_try_push(struct outbox *self, const char *bytes, size_t count);
static void outbox_consume(struct outbox *self, size_t count);
/* stream/pipe.rs */
static ssize_t pipe_fill(int from, size_t most);
static ssize_t pipe_pour(int to, size_t most);
static ssize_t pipe_take(char *buffer, size_t length);
/* stream/readiness.rs */
static void readiness_tell(uint32_t *self, uint32_t events);
static ssize_t readiness_offer(uint32_t *self, int fd, const char *bytes, size_t count);
static ssize_t readiness_note_sent(uint32_t *self, ssize_t taken, size_t count);
/* event/mod.rs */
static bool event_loop_watch(struct watched *watched, uint32_t interest);
static bool event_loop_rewatch(struct watched *watched, uint32_t interest);
static int event_loop_wait(struct epoll_event *events, int timeout_ms);
/* event/signals.rs */
static int signals_next(void);

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

/* Writes the statistics to stderr, or drops them if stderr is full: a write that blocks would stop every connection. A pipe that
 * is ready has room for PIPE_BUF bytes (pipe(7)). */
static void print_statistics(void) {
    struct pollfd output = {.fd = STDERR_FILENO, .events = POLLOUT};
    if (poll(&output, 1, 0) == 1 && output.revents & POLLOUT)
        dprintf(STDERR_FILENO, "accepted %" PRIu64 "\nopen %d\n", accepted, connections.count);
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
    static struct epoll_event events[EVENTS_PER_TURN];
    for (;;) {
        server_resume_queued();
        if (server_finish_drain() || interrupted_by)
            break;
        int count = event_loop_wait(events, server_wait());
        for (int i = 0; i < count; i++)
            server_dispatch(events[i].data.ptr, events[i].events);
        server_answer_inputs();
        server_keep_time(count);
    }
    server_end();
}

/* Resumes queued connections, each once, until the shared budget is used up. A wait for new events follows, so a connection with
 * little to send waits no longer than this. */
static void server_resume_queued(void) {
    const struct watched *end = connections.ready_last;
    ssize_t budget = QUEUED_BUDGET_BYTES;
    for (bool is_last = false; !is_last && budget > 0;) {
        struct watched *watched = connections_pop_ready();
        if (!watched)
            break;
        is_last = watched == end;
        if (watched->kind == LISTENER)
            server_accept_from();
        else
            server_serve((struct connection *)watched, &budget);
    }
}

/* Returns the timeout of the next wait. */
static int server_wait(void) {
    return time_before_wait(connections.count + OTHER_DESCRIPTORS, connections.ready_first);
}

static void server_dispatch(struct watched *watched, uint32_t events) {
    switch (watched->kind) {
    case CONNECTION:
        server_on_connection_event((struct connection *)watched, events);
        break;
    case SIGNALS:
        server_on_signals();
        break;
    case LISTENER:
        server_on_listener_event();
    }
}

/* Does what is due now that `count` events have been processed. */
static void server_keep_time(int count) {
    if (horizon_after_turn(count))
        server_do_due();
}

static void server_on_signals(void) {
    for (int number; (number = signals_next());) {
        if (number == SIGUSR1)
            print_statistics();
        else if (drain.stage != STAGE_SERVING)
            interrupted_by = number;
        else
            server_begin_drain();
    }
}

/* A listener that is queued or paused accepts later, until its queue is empty, so this event is not lost. */
static void server_on_listener_event(void) {
    if (!listener.watched.is_queued && !deadlines.accept)
        server_accept_from();
}

/* Accepts until the accept queue is empty, a resource has run out, or the budget of this turn is used up. */
static void server_accept_from(void) {
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        int fd = acceptor_accept();
        if (fd == NOTHING)
            return;
        if (fd == FAILED)
            continue;
        if (fd == EXHAUSTED || !server_open(fd)) {
            listener.kept_fd = fd == EXHAUSTED ? -1 : fd;
            server_pause_listener();
            return;
        }
        listener.pause_ms = 0;
    }
    server_queue_listener();
}

/* Pauses accepting until a connection has closed or the pause is over. */
static void server_pause_listener(void) {
    deadlines.accept = acceptor_pause();
}

/* A connection has closed: a paused listener accepts in the next turn. */
static void server_resume_listeners(void) {
    if (deadlines.accept)
        server_queue_listener();
}

/* Lets the listener accept in the next turn. A pause ends, and its deadline with it. */
static void server_queue_listener(void) {
    deadlines.accept = 0;
    connections_queue(&listener.watched);
}

/* Returns whether the drain is complete: no client can connect any more, and all connections have ended. */
static bool server_finish_drain(void) {
    return drain.stage != STAGE_SERVING && connections.count == 0 && listener.watched.fd == -1;
}

static void server_end(void) {
    server_cut_off();
    if (listener.watched.fd != -1)
        listener_close();
    if (!copies) {
        close(zero_copy_pipe.reader);
        close(zero_copy_pipe.writer);
    }
    close(epoll_fd);
    close(signals.fd);
}

/* ---- server/serve.rs ---- */

/* Opens an accepted connection. Returns false if there is no memory for it or epoll cannot watch it. */
static bool server_open(int fd) {
    struct connection *self = connections_open(fd);
    if (!self)
        return false;
    accepted++;
    if (drain.stage >= STAGE_CLOSING)
        server_serve_last(self);
    return true;
}

/* Most events ask for one read. Then only the read is done now, and the answer is sent after all reads of this turn: the kernel's
 * code for each of the two is loaded into the CPU's cache once per turn and not once per connection. */
static void server_on_connection_event(struct connection *self, uint32_t events) {
    ssize_t budget = EVENT_BUDGET_BYTES;
    readiness_tell(&self->readiness, events);
    if (self->watched.is_queued)
        return;
    if (!connection_needs_only_read(self)) {
        server_answer_inputs();
        server_serve(self, &budget);
        return;
    }
    ssize_t count = connection_read(self, buffers.read_buffer + buffers.input_bytes, READ_BUFFER_BYTES - buffers.input_bytes);
    if (count > 0) {
        if (turn_buffers_push(self, count))
            server_answer_inputs();
    } else if (count == 0 || errno != EAGAIN) {
        server_after_turn(self, &budget, count == -1 && errno == EINTR ? MORE : ENDED);
    }
}

/* Answers all input of this turn, in the order of the reads. */
static void server_answer_inputs(void) {
    const char *bytes = buffers.read_buffer;
    for (int i = 0; i < buffers.input_count; i++) {
        struct connection *connection = buffers.inputs[i].connection;
        int count = buffers.inputs[i].count;
        /* The last one may use the read buffer again. The others may not read before that, so they have no budget. */
        ssize_t budget = i + 1 == buffers.input_count ? EVENT_BUDGET_BYTES - count : 0;
        if (!connection_respond(connection, bytes, count))
            server_after_turn(connection, &budget, ENDED);
        else if (!connection_is_quiet(connection))
            server_serve(connection, &budget);
        bytes += count;
    }
    turn_buffers_clear();
}

/* Gives a connection its turn. Returns false if that closes it. */
static bool server_serve(struct connection *self, ssize_t *budget) {
    return server_after_turn(self, budget, connection_advance(self, budget));
}

/* Acts on the result of a turn. Returns false if that closes the connection. */
static bool server_after_turn(struct connection *self, ssize_t *budget, enum progress progress) {
    switch (progress) {
    case WAITING:
        if (self->outbox.bytes && !self->is_watched_for_room)
            server_watch_for_room(self);
        break;
    case MORE:
        connections_queue(&self->watched);
        break;
    case ENDED:
        server_remove(self);
        *budget = 0; /* the connection may have used all of it */
    }
    return progress != ENDED;
}

/* Has epoll report room for pending bytes. If it cannot, they stay pending until a retry after the shortest pause. */
static void server_watch_for_room(struct connection *self) {
    if (!connections_watch_for_room(self) && !deadlines.watch)
        deadlines.watch = clock_read() + SHORTEST_PAUSE_MS;
}

/* Starts to close a connection in order. The drain loses its input that is unread. */
static void server_begin_close(struct connection *self) {
    if (self->phase == PHASE_OPEN) {
        self->has_lost_input = connection_has_input_left(self);
        aborted += self->has_lost_input;
        self->phase = PHASE_CLOSING;
    }
    connections_queue(&self->watched);
}

/* Closes a connection at once. It counts as aborted if that destroys bytes. */
static void server_cut(struct connection *self) {
    aborted += connection_unsettled_bytes(self) > 0 && !self->has_lost_input;
    server_remove(self);
}

/* Closes a connection. */
static void server_remove(struct connection *self) {
    connections_remove(self);
    server_resume_listeners(); /* a descriptor is free again */
}

/* ---- server/due.rs ---- */

/* Does what was due when the last known event arrived. */
static void server_do_due(void) {
    for (int64_t next; (next = time_next_deadline()) && next <= horizon.known_until;) {
        if (next == deadlines.accept)
            server_queue_listener();
        else if (next == deadlines.watch)
            server_retry_to_watch();
        else
            server_on_drain_deadline();
    }
}

/* Gives a turn to each connection that could not be watched for room. A queued connection has its own turn soon. */
static void server_retry_to_watch(void) {
    deadlines.watch = 0;
    for (struct connection *connection = connections.first, *next; connection; connection = next) {
        ssize_t budget = EVENT_BUDGET_BYTES;
        next = connection->next;
        if (connection->outbox.bytes && !connection->is_watched_for_room && !connection->watched.is_queued)
            server_serve(connection, &budget);
    }
}

/* Serves the clients that are already in the accept queue. Then the listener closes. */
static void server_begin_drain(void) {
    deadlines.drain = drain_on_signal(clock_read());
    server_queue_listener();
}

static void server_on_drain_deadline(void) {
    switch (drain_on_deadline(clock_read())) {
    case CLOSE_ALL:
        for (struct connection *connection = connections.first; connection; connection = connection->next)
            server_begin_close(connection);
        if (listener.watched.fd != -1) /* there were no descriptors for its queue; each connection that ends frees one */
            server_queue_listener();
        break;
    case WAIT:
        break;
    case CUT_OFF:
        server_cut_off();
        if (listener.watched.fd != -1)
            acceptor_abort();
    }
    deadlines.drain = drain.deadline;
}

/* Serves a client that waited in the accept queue until after the drain timeout: its input is echoed, and then the connection is
 * closed in order. */
static void server_serve_last(struct connection *self) {
    ssize_t budget = EVENT_BUDGET_BYTES;
    readiness_tell(&self->readiness, EPOLLIN);
    if (server_serve(self, &budget))
        server_begin_close(self);
}

/* Closes all connections at once. */
static void server_cut_off(void) {
    connections.ready_first = connections.ready_last = NULL;
    while (connections.first)
        server_cut(connections.first);
}

/* ---- server/bind.rs ---- */

static void server_bind(void) {
    raise_descriptor_limit();
    warn_if_backlog_is_cut();
    read_signals();
    if ((epoll_fd = epoll_create1(EPOLL_CLOEXEC)) == -1)
        fail("make an event loop (epoll_create1)");
    if (!event_loop_watch(&signals, EPOLLIN))
        fail("watch for signals (epoll_ctl)");
    int ends[2];
    if (!copies && pipe2(ends, O_NONBLOCK | O_CLOEXEC) == -1)
        fail("make a pipe (pipe2)");
    if (!copies)
        zero_copy_pipe = (struct pipe){.reader = ends[0], .writer = ends[1]};
    listener_bind();
    if (!event_loop_watch(&listener.watched, EPOLLIN))
        fail("watch for connections (epoll_ctl)");
}

/* Blocks the signals that the loop reads from a descriptor. A SIGHUP that the process inherited as ignored stays ignored, as
 * nohup(1) needs it. */
static void read_signals(void) {
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

/* Each connection takes a descriptor. A limit that cannot be raised is no reason not to serve. */
static void raise_descriptor_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* ---- server/turn.rs ---- */

/* Adds `count` bytes that were read into the free part of the read buffer. Returns whether they have to be answered now, because
 * the buffer is nearly full. */
static bool turn_buffers_push(struct connection *connection, int count) {
    buffers.inputs[buffers.input_count++] = (struct input){.connection = connection, .count = count};
    buffers.input_bytes += count;
    return buffers.input_bytes > READ_BUFFER_BYTES - MIN_ROOM_BYTES;
}

static void turn_buffers_clear(void) {
    buffers.input_count = buffers.input_bytes = 0;
}

/* ---- server/connections.rs ---- */

/* Returns NULL if there is no memory for the connection or epoll cannot watch it. */
static struct connection *connections_open(int fd) {
    struct connection *self = malloc(sizeof *self);
    if (!self)
        return NULL;
    *self = (struct connection){.watched = {.kind = CONNECTION, .fd = fd}, .readiness = WRITABLE, .previous = connections.last};
    if (!event_loop_watch(&self->watched, INTEREST)) {
        free(self);
        return NULL;
    }
    *(connections.last ? &connections.last->next : &connections.first) = self;
    connections.last = self;
    connections.count++;
    return self;
}

/* Closes and frees a connection. No later event names it: close(2) removes the descriptor from the epoll set, epoll_wait(2)
 * returns a descriptor at most once in a batch, and a connection is closed only in its own turn. */
static void connections_remove(struct connection *self) {
    *(self->previous ? &self->previous->next : &connections.first) = self->next;
    *(self->next ? &self->next->previous : &connections.last) = self->previous;
    connections.count--;
    close(self->watched.fd);
    free(self->outbox.bytes);
    free(self);
}

/* Appends a connection or the listener to the ready queue, unless it is in it. */
static void connections_queue(struct watched *watched) {
    if (watched->is_queued)
        return;
    watched->is_queued = true;
    watched->next_ready = NULL;
    *(connections.ready_first ? &connections.ready_last->next_ready : &connections.ready_first) = watched;
    connections.ready_last = watched;
}

/* Takes the first one out of the ready queue. Returns NULL if the queue is empty. */
static struct watched *connections_pop_ready(void) {
    struct watched *watched = connections.ready_first;
    if (watched) {
        connections.ready_first = watched->next_ready;
        watched->is_queued = false;
    }
    return watched;
}

/* Adds EPOLLOUT to the watched events. Most connections never need it. */
static bool connections_watch_for_room(struct connection *self) {
    self->is_watched_for_room = event_loop_rewatch(&self->watched, INTEREST | EPOLLOUT);
    return self->is_watched_for_room;
}

/* ---- server/connection/mod.rs ---- */

/* Returns the number of bytes that close(2) would destroy now: pending bytes, bytes that the peer's kernel has not acknowledged,
 * and unread input, because close(2) then sends a reset (RFC 1122, 4.2.2.13). */
static size_t connection_unsettled_bytes(const struct connection *self) {
    size_t unread = unread_bytes(self->watched.fd);
    return self->outbox.length + connection_unacknowledged_bytes(self) + unread;
}

/* Returns whether there is unread input on an open connection. */
static bool connection_has_input_left(const struct connection *self) {
    return self->phase == PHASE_OPEN && self->readiness & READABLE && unread_bytes(self->watched.fd) > 0;
}

/* The kernel counts our FIN as one byte. */
static int connection_unacknowledged_bytes(const struct connection *self) {
    int bytes = 0, our_fin = self->phase == PHASE_LINGERING;
    ioctl(self->watched.fd, SIOCOUTQ, &bytes);
    return bytes > our_fin ? bytes - our_fin : 0;
}

/* Returns whether one read is all that there is to do now: the first half of a turn, of which the answer is the second. */
static bool connection_needs_only_read(const struct connection *self) {
    return self->phase == PHASE_OPEN && !self->outbox.bytes && (self->readiness & (READABLE | PLENTY)) == READABLE;
}

/* Returns whether nothing is pending and there is nothing to do before the next event. */
static bool connection_is_quiet(const struct connection *self) {
    return self->phase == PHASE_OPEN && !self->outbox.bytes && !(self->readiness & READABLE);
}

static int unread_bytes(int fd) {
    int bytes = 0;
    ioctl(fd, SIOCINQ, &bytes);
    return bytes;
}

/* ---- server/connection/advance.rs ---- */

/* Sends what is pending; then, while nothing is pending, reads and echoes. Subtracts what it reads from `budget`. */
static enum progress connection_advance(struct connection *self, ssize_t *budget) {
    const ssize_t whole = *budget;
    bool has_plenty = true;
    for (;;) {
        if (self->outbox.bytes) {
            if (!connection_flush(self))
                return ENDED;
            if (self->outbox.bytes)
                return self->readiness & WRITABLE ? MORE : WAITING;
        }
        if (self->phase != PHASE_OPEN && connection_proceed_to_the_end(self))
            return ENDED;
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
            has_plenty = count == READ_BUFFER_BYTES; /* a read finds out the rest */
            continue;
        }
        bool is_open = self->phase == PHASE_OPEN;
        ssize_t count = connection_read(self, buffers.read_buffer, READ_BUFFER_BYTES);
        if (count == 0)
            return ENDED;
        if (count == -1 && errno == EAGAIN)
            continue;
        if (count == -1)
            return errno == EINTR ? MORE : ENDED;
        *budget -= count;
        if (is_open && !connection_respond(self, buffers.read_buffer, count))
            return ENDED;
    }
}

/* With an empty outbox, takes the next step to the end of a connection that is no longer open. Returns whether it has ended. */
static bool connection_proceed_to_the_end(struct connection *self) {
    if (self->phase == PHASE_PEER_FINISHED)
        return true;
    if (self->phase == PHASE_LINGERING)
        return false;
    self->phase = PHASE_LINGERING;
    return shutdown(self->watched.fd, SHUT_WR) == -1;
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

/* Echoes input. Returns false if the connection is broken, or there is no memory for what the socket does not take. */
static bool connection_respond(struct connection *self, const char *input, size_t count) {
    ssize_t sent = readiness_offer(&self->readiness, self->watched.fd, input, count);
    return sent == (ssize_t)count || (sent != -1 && keep(self, input + sent, count - sent));
}

/* Returns whether input may be echoed without a copy. An urgent byte prevents that: splice(2) does not pass it. */
static bool connection_can_relay(const struct connection *self) {
    return (self->readiness & (PLENTY | WRITABLE | READ_ON)) == (PLENTY | WRITABLE) && self->phase == PHASE_OPEN && !copies;
}

/* Echoes up to a buffer full of input without a copy. Returns the number of bytes, or -1 if the connection is broken. A short
 * splice does not mean that the socket is empty: a read finds out. */
static ssize_t connection_relay(struct connection *self) {
    ssize_t count = zero_copy_pipe.held_bytes > 0 ? 0 : pipe_fill(self->watched.fd, READ_BUFFER_BYTES), rest = 0;
    if (count <= 0)
        return count == 0 || is_of_the_call(errno) ? 0 : -1;
    bool is_broken =
        readiness_note_sent(&self->readiness, pipe_pour(self->watched.fd, count), count) == -1 && !is_of_the_call(errno);
    while (zero_copy_pipe.held_bytes > 0) { /* the socket had no room for these; the next connection needs an empty pipe */
        ssize_t taken = pipe_take(buffers.read_buffer + rest, READ_BUFFER_BYTES - rest);
        if (taken == -1 && errno != EINTR)
            return -1; /* the pipe is not empty, and is not used again */
        rest += taken == -1 ? 0 : taken;
    }
    return is_broken || !keep(self, buffers.read_buffer, rest) ? -1 : count;
}

/* Offers the kernel what is pending. Returns false if the connection is broken. */
static bool connection_flush(struct connection *self) {
    if (!(self->readiness & WRITABLE))
        return true;
    const char *pending = self->outbox.bytes + self->outbox.start;
    ssize_t sent = readiness_offer(&self->readiness, self->watched.fd, pending, self->outbox.length);
    if (sent == -1)
        return false;
    outbox_consume(&self->outbox, sent);
    return true;
}

/* Returns whether an error of splice(2) concerns the call and not the connection: a read or a send may still succeed. */
static bool is_of_the_call(int error) {
    return error == EINTR || error == EINVAL || error == ENOMEM || error == EAGAIN;
}

/* ---- server/connection/reply.rs ---- */

/* Keeps bytes for which the socket has no room. Returns false if there is no memory for them. The connection then ends with a
 * reset, because a FIN would claim that everything was echoed. */
static bool keep(struct connection *self, const char *rest, size_t count) {
    const struct linger none = {.l_onoff = 1};
    if (outbox_try_push(&self->outbox, rest, count))
        return true;
    setsockopt(self->watched.fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    aborted++;
    return false;
}

/* ---- server/accept/acceptor.rs ---- */

/* Accepts once. In a drain, a listener with an empty accept queue is closed. */
static int acceptor_accept(void) {
    int fd = listener.watched.fd == -1 ? NOTHING : listener_accept();
    if (fd == NOTHING && listener.watched.fd != -1 && drain.stage != STAGE_SERVING)
        listener_close();
    return fd;
}

/* Pauses the listener because a resource has run out, and returns the end of the pause. In a drain no new client joins the accept
 * queue meanwhile. */
static int64_t acceptor_pause(void) {
    int64_t until = listener_pause();
    if (drain.stage != STAGE_SERVING)
        listen(listener.watched.fd, 0);
    return until;
}

/* Closes the listener with the clients in its accept queue, which are reset. Each counts as aborted. */
static void acceptor_abort(void) {
    for (int fd; (fd = listener_accept()) >= 0 || fd == FAILED;) {
        if (fd == FAILED)
            continue;
        accepted++;
        aborted++;
        close(fd);
    }
    listener_close();
}

/* ---- server/accept/listener.rs ---- */

/* Accepted sockets inherit the options of the listener, which saves a system call for each. */
static void listener_bind(void) {
    const int family = address.sin_family, flags = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
    socklen_t length = sizeof address;
    int fd = socket(family, flags, IPPROTO_TCP);
    if (fd == -1 || !set_options(fd) || bind(fd, (struct sockaddr *)&address, length) == -1 || listen(fd, BACKLOG) == -1
        || getsockname(fd, (struct sockaddr *)&address, &length) == -1)
        fail("listen");
    listener.watched.fd = fd;
}

/* Accepts once. Returns a descriptor, or the reason why there is none. */
static int listener_accept(void) {
    struct sockaddr_in6 peer;
    socklen_t length = sizeof peer;
    int fd = listener.kept_fd;
    listener.kept_fd = -1;
    if (fd == -1)
        fd = accept4(listener.watched.fd, (struct sockaddr *)&peer, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
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

/* Starts a pause that is twice as long as the previous one in a row, and returns its end. */
static int64_t listener_pause(void) {
    listener.pause_ms = listener.pause_ms ? listener.pause_ms * 2 : SHORTEST_PAUSE_MS;
    listener.pause_ms = listener.pause_ms < LONGEST_PAUSE_MS ? listener.pause_ms : LONGEST_PAUSE_MS;
    return clock_read() + listener.pause_ms;
}

static void listener_close(void) {
    close(listener.watched.fd);
    listener.watched.fd = -1;
    deadlines.accept = 0;
}

static bool set_options(int fd) {
    const int on = 1;
    return setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0  /* a restart does not wait for TIME-WAIT to end */
        && setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0  /* an answer does not wait for an acknowledgement */
        && setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &on, sizeof on) == 0; /* an urgent byte is echoed at its place (RFC 6093) */
}

/* ---- server/time/mod.rs ---- */

/* Returns the timeout of the next wait as epoll_wait(2) takes it: -1 waits forever. With queued work the wait only asks for what
 * is ready. */
static int time_before_wait(int watched, bool has_work) {
    int64_t next = time_next_deadline(), now = next ? clock_read() : 0, left = next - now;
    if (next)
        horizon_before_wait(now, watched);
    if (has_work || !next)
        return has_work ? 0 : -1;
    return left < 0 ? 0 : left > INT32_MAX ? INT32_MAX : (int)left;
}

static int64_t time_next_deadline(void) {
    int64_t next = 0, all[] = {deadlines.drain, deadlines.accept, deadlines.watch};
    for (int i = 0; i < 3; i++)
        if (all[i] && (!next || all[i] < next))
            next = all[i];
    return next;
}

/* ---- server/time/clock.rs ---- */

static int64_t clock_read(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Records that a wait begins at `now`, with `watched` descriptors in the epoll set. */
static void horizon_before_wait(int64_t now, int watched) {
    if (horizon.asked_at)
        return;
    horizon.asked_at = now;
    horizon.unreturned = watched;
}

/* Records that a wait has returned `count` events and that all of them have been processed. Returns whether the known time has
 * advanced; otherwise nothing new can be due. */
static bool horizon_after_turn(int count) {
    if (!horizon.asked_at)
        return false;
    if (count < EVENTS_PER_TURN || count >= horizon.unreturned) {
        horizon.known_until = horizon.asked_at;
        horizon.asked_at = 0;
        return true;
    }
    horizon.unreturned -= count;
    return false;
}

/* ---- server/drain.rs ---- */

/* Starts the drain, and returns its first deadline. */
static int64_t drain_on_signal(int64_t now) {
    drain.stage = STAGE_DRAINING;
    drain.deadline = now + drain_timeout_ms;
    return drain.deadline;
}

/* At the drain timeout all connections are closed in order; after the time for that, what is left is cut off. After a pause that time
 * begins again, but only once: a process that gets too little CPU time is late at every deadline. */
static enum due drain_on_deadline(int64_t now) {
    bool was_paused = !drain.is_extended && now > drain.deadline + PAUSE_MS;
    if (drain.stage == STAGE_CLOSING && !was_paused) {
        drain.stage = STAGE_OVER;
        drain.deadline = 0;
        return CUT_OFF;
    }
    drain.is_extended = drain.stage == STAGE_CLOSING;
    drain.stage = STAGE_CLOSING;
    drain.deadline = now + LINGER_MS;
    return drain.is_extended ? WAIT : CLOSE_ALL;
}

/* ---- stream/outbox.rs ---- */

/* Adds bytes. Returns false if there is no memory for them. */
static bool outbox_try_push(struct outbox *self, const char *bytes, size_t count) {
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

/* ---- stream/pipe.rs ---- */

static ssize_t pipe_fill(int from, size_t most) {
    ssize_t count = splice(from, NULL, zero_copy_pipe.writer, NULL, most, SPLICE_F_NONBLOCK);
    zero_copy_pipe.held_bytes += count == -1 ? 0 : count;
    return count;
}

static ssize_t pipe_pour(int to, size_t most) {
    ssize_t count = splice(zero_copy_pipe.reader, NULL, to, NULL, most, SPLICE_F_NONBLOCK);
    zero_copy_pipe.held_bytes -= count == -1 ? 0 : count;
    return count;
}

static ssize_t pipe_take(char *buffer, size_t length) {
    ssize_t count = read(zero_copy_pipe.reader, buffer, length);
    zero_copy_pipe.held_bytes -= count == -1 ? 0 : count;
    return count;
}

/* ---- stream/readiness.rs ---- */

/* Remembers an event. EPOLLHUP and EPOLLERR make a read and a send worth a try, and the call returns what has happened: there may
 * still be input to read. */
static void readiness_tell(uint32_t *self, uint32_t events) {
    *self |= events & (READABLE | WRITABLE | FIN | READ_ON);
    if (events & (EPOLLPRI | EPOLLRDHUP | EPOLLERR | EPOLLHUP))
        *self |= READABLE;
    if (events & (EPOLLERR | EPOLLHUP))
        *self |= WRITABLE | READ_ON;
}

/* Sends. Returns the number of bytes that the kernel took, or -1 if the connection is broken. */
static ssize_t readiness_offer(uint32_t *self, int fd, const char *bytes, size_t count) {
    return readiness_note_sent(self, send(fd, bytes, count, MSG_NOSIGNAL), count);
}

/* Interprets the result of a send of `count` bytes. A short count shows that there is no more room (epoll(7)); an interrupted call
 * shows nothing. */
static ssize_t readiness_note_sent(uint32_t *self, ssize_t taken, size_t count) {
    if (taken == -1 && errno != EAGAIN)
        return errno == EINTR ? 0 : -1;
    if (taken < (ssize_t)count)
        *self &= ~WRITABLE;
    return taken == -1 ? 0 : taken;
}

/* ---- event/mod.rs ---- */

/* Watches a descriptor, edge-triggered: each event is reported once. close(2) ends the watch. */
static bool event_loop_watch(struct watched *watched, uint32_t interest) {
    struct epoll_event event = {.events = interest | EPOLLET, .data.ptr = watched};
    return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, watched->fd, &event) == 0;
}

/* Changes the watched events. What is ready already is reported again. */
static bool event_loop_rewatch(struct watched *watched, uint32_t interest) {
    struct epoll_event event = {.events = interest | EPOLLET, .data.ptr = watched};
    return epoll_ctl(epoll_fd, EPOLL_CTL_MOD, watched->fd, &event) == 0;
}

/* Sleeps until something happens. Returns the number of events: 0 after the timeout, or when a signal has interrupted the wait;
 * SIGSTOP and SIGCONT do that without a handler (signal(7)). */
static int event_loop_wait(struct epoll_event *events, int timeout_ms) {
    int count = epoll_wait(epoll_fd, events, EVENTS_PER_TURN, timeout_ms);
    if (count == -1 && errno != EINTR)
        fail("wait for events (epoll_wait)");
    return count == -1 ? 0 : count;
}

/* ---- event/signals.rs ---- */

/* Returns the number of the next signal, or 0 if there is none. */
static int signals_next(void) {
    struct signalfd_siginfo info;
    ssize_t count;
    do
        count = read(signals.fd, &info, sizeof info);
    while (count == -1 && errno == EINTR);
    if (count == -1 && errno != EAGAIN)
        fail("read signals (read)");
    return count == -1 ? 0 : (int)info.ssi_signo;
}
