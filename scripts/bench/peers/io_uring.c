/* An echo server on io_uring as its documentation recommends: one multishot accept, one multishot receive per connection, and a ring of
 * buffers from which the kernel chooses. While many buffers of a connection are unsent, its receive is cancelled.
 *
 *     io_uring ADDRESS:PORT
 */
#include <arpa/inet.h>
#include <errno.h>
#include <liburing.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ENTRIES = 4096, BUFFERS = 4096, BUFFER_BYTES = 4096, GROUP = 1, MAX_FD = 1 << 17 };
enum { ACCEPT, RECEIVE, SEND, CANCEL, PAUSE };

/* A buffer of the ring that a connection still has to send, in order. */
typedef struct piece {
    struct piece *next;
    unsigned short buffer;
    unsigned length, sent;
} piece_t;

typedef struct {
    piece_t *first, **last;
    int is_receiving, is_finished, is_broken, pieces;
} peer_t;

static struct io_uring ring;
static struct io_uring_buf_ring *buffers;
static char *memory;
static peer_t peers[MAX_FD];
static int listener;

static unsigned long long name(int what, int fd) { return (unsigned long long)what << 32 | (unsigned)fd; }

static struct io_uring_sqe *entry(void)
{
    struct io_uring_sqe *sqe;
    while (!(sqe = io_uring_get_sqe(&ring)))
        io_uring_submit(&ring);
    return sqe;
}

static void receive(int fd)
{
    struct io_uring_sqe *sqe = entry();
    io_uring_prep_recv_multishot(sqe, fd, NULL, 0, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = GROUP;
    io_uring_sqe_set_data64(sqe, name(RECEIVE, fd));
    peers[fd].is_receiving = 1;
}

static void send_first(int fd)
{
    piece_t *piece = peers[fd].first;
    struct io_uring_sqe *sqe = entry();
    io_uring_prep_send(sqe, fd, memory + piece->buffer * BUFFER_BYTES + piece->sent, piece->length - piece->sent, MSG_NOSIGNAL);
    io_uring_sqe_set_data64(sqe, name(SEND, fd));
}

static void give_back(unsigned short buffer)
{
    io_uring_buf_ring_add(buffers, memory + buffer * BUFFER_BYTES, BUFFER_BYTES, buffer, io_uring_buf_ring_mask(BUFFERS), 0);
    io_uring_buf_ring_advance(buffers, 1);
}

static void end_if_done(int fd)
{
    peer_t *peer = &peers[fd];
    if (!peer->first && !peer->is_receiving && (peer->is_finished || peer->is_broken))
        close(fd);
    else if (!peer->first && !peer->is_receiving)
        receive(fd);
}

static void accept_all(void)
{
    struct io_uring_sqe *sqe = entry();
    io_uring_prep_multishot_accept(sqe, listener, NULL, NULL, 0);
    io_uring_sqe_set_data64(sqe, name(ACCEPT, listener));
}

static void on_accept(struct io_uring_cqe *cqe)
{
    int one = 1;
    if (cqe->res >= 0 && cqe->res < MAX_FD) {
        setsockopt(cqe->res, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        peers[cqe->res] = (peer_t){ .last = &peers[cqe->res].first };
        receive(cqe->res);
    }
    if (cqe->flags & IORING_CQE_F_MORE)
        return;
    if (cqe->res < 0 && cqe->res != -EAGAIN) {
        /* Out of descriptors: a client may leave. */
        static struct __kernel_timespec pause = { .tv_nsec = 50000000 };
        struct io_uring_sqe *sqe = entry();
        io_uring_prep_timeout(sqe, &pause, 0, 0);
        io_uring_sqe_set_data64(sqe, name(PAUSE, 0));
    } else {
        accept_all();
    }
}

static void on_receive(int fd, struct io_uring_cqe *cqe)
{
    peer_t *peer = &peers[fd];
    if (!(cqe->flags & IORING_CQE_F_MORE))
        peer->is_receiving = 0;
    if (cqe->res > 0) {
        piece_t *piece = malloc(sizeof *piece);
        *piece = (piece_t){ .buffer = cqe->flags >> IORING_CQE_BUFFER_SHIFT, .length = cqe->res };
        *peer->last = piece;
        peer->last = &piece->next;
        if (peer->first == piece)
            send_first(fd);
        if (++peer->pieces > 64 && peer->is_receiving) {
            struct io_uring_sqe *sqe = entry();
            io_uring_prep_cancel64(sqe, name(RECEIVE, fd), 0);
            io_uring_sqe_set_data64(sqe, name(CANCEL, fd));
        }
    } else if (cqe->res == 0) {
        peer->is_finished = 1;
    } else if (cqe->res != -ENOBUFS && cqe->res != -ECANCELED) {
        peer->is_broken = 1;
    }
    if (!peer->is_receiving && !peer->first)
        end_if_done(fd);
}

static void on_send(int fd, struct io_uring_cqe *cqe)
{
    peer_t *peer = &peers[fd];
    piece_t *piece = peer->first;
    if (cqe->res < 0)
        peer->is_broken = 1;
    else
        piece->sent += cqe->res;
    while (piece && (peer->is_broken || piece->sent == piece->length)) {
        peer->first = piece->next;
        peer->pieces--;
        give_back(piece->buffer);
        free(piece);
        piece = peer->first;
    }
    if (piece)
        send_first(fd);
    else
        peer->last = &peer->first;
    if (!piece && !peer->is_receiving)
        end_if_done(fd);
}

int main(int argc, char **argv)
{
    char *colon = argc > 1 ? strrchr(argv[1], ':') : NULL;
    int one = 1, error;
    if (!colon)
        return 2;
    *colon = 0;
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(atoi(colon + 1)), .sin_addr.s_addr = inet_addr(argv[1]) };
    listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096))
        return 1;
    struct io_uring_params parameters = { .flags = IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_CQSIZE,
                                          .cq_entries = 4 * ENTRIES };
    if (io_uring_queue_init_params(ENTRIES, &ring, &parameters) < 0)
        return 1;
    struct io_uring_buf_reg registration = { .ring_entries = BUFFERS, .bgid = GROUP };
    if (posix_memalign((void **)&buffers, 4096, BUFFERS * sizeof(struct io_uring_buf)))
        return 1;
    memory = malloc((size_t)BUFFERS * BUFFER_BYTES);
    registration.ring_addr = (unsigned long)buffers;
    if ((error = io_uring_register_buf_ring(&ring, &registration, 0)) < 0)
        return 1;
    io_uring_buf_ring_init(buffers);
    for (int i = 0; i < BUFFERS; i++)
        give_back(i);
    accept_all();
    for (;;) {
        struct io_uring_cqe *cqe;
        unsigned head, count = 0;
        io_uring_submit_and_wait(&ring, 1);
        io_uring_for_each_cqe(&ring, head, cqe) {
            int fd = (int)(unsigned)cqe->user_data;
            switch (cqe->user_data >> 32) {
            case ACCEPT: on_accept(cqe); break;
            case RECEIVE: on_receive(fd, cqe); break;
            case SEND: on_send(fd, cqe); break;
            case PAUSE: accept_all(); break;
            }
            count++;
        }
        io_uring_cq_advance(&ring, count);
    }
}
