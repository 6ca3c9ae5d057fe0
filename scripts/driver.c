/* A minimal closed-loop driver: each connection sends a message, receives the same number of bytes, and sends the next message. It has no
 * handshake, no verification and no latency figures. `edgecho flood` is compared with it.
 *
 *     driver PORT CONNECTIONS BYTES SECONDS     prints messages per second
 */
#include <arpa/inet.h>
#include <err.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_CONNECTIONS = 65536, MAX_BYTES = 65536, EVENTS = 256 };

static char message[MAX_BYTES], buffer[MAX_BYTES];
static int missing[MAX_CONNECTIONS]; /* bytes of the current message still to be received, by descriptor */

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    if (argc != 5)
        errx(2, "usage: driver PORT CONNECTIONS BYTES SECONDS");
    int connections = atoi(argv[2]), bytes = atoi(argv[3]), epoll = epoll_create1(0);
    double seconds = atof(argv[4]);
    if (connections < 1 || connections > MAX_CONNECTIONS / 2 || bytes < 1 || bytes > MAX_BYTES || epoll == -1)
        errx(2, "an argument is out of bounds");

    struct sockaddr_in server = { .sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    for (int i = 0; i < connections; i++) {
        int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
        if (fd == -1 || fd >= MAX_CONNECTIONS || connect(fd, (struct sockaddr *)&server, sizeof server) == -1)
            err(1, "connect");
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct epoll_event event = { .events = EPOLLIN | EPOLLET, .data.fd = fd };
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == -1)
            err(1, "epoll_ctl");
        missing[fd] = bytes;
        if (send(fd, message, bytes, MSG_NOSIGNAL) != bytes)
            err(1, "send");
    }

    long messages = 0;
    double start = now(), elapsed;
    while ((elapsed = now() - start) < seconds) {
        struct epoll_event events[EVENTS];
        int count = epoll_wait(epoll, events, EVENTS, 1000);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            ssize_t received = recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);
            if (received <= 0)
                errx(1, "the server closed a connection");
            missing[fd] -= received;
            if (missing[fd] > 0)
                continue;
            messages++;
            missing[fd] = bytes;
            if (send(fd, message, bytes, MSG_NOSIGNAL) != bytes)
                err(1, "send");
        }
    }
    printf("%.0f\n", messages / elapsed);
    return 0;
}
