/* A lower bound for any server on epoll: two calls per message, and no error handling. A usable server can save no more than the
 * difference to this one. It loses bytes when a socket is full.
 *
 *     floor ADDRESS:PORT
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    static char buffer[32768] __attribute__((aligned(4096)));
    struct epoll_event events[256];
    char *colon = argc > 1 ? strrchr(argv[1], ':') : 0;
    int one = 1, epoll = epoll_create1(0), listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (!colon)
        return 2;
    *colon = 0;
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(atoi(colon + 1)), .sin_addr.s_addr = inet_addr(argv[1]) };
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096))
        return 1;
    struct epoll_event event = { .events = EPOLLIN | EPOLLET, .data.fd = listener };
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int count = epoll_wait(epoll, events, 256, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                while ((fd = accept4(listener, 0, 0, SOCK_NONBLOCK)) >= 0) {
                    event.data.fd = fd;
                    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
                }
                continue;
            }
            ssize_t length = recv(fd, buffer, sizeof buffer, 0);
            if (length > 0)
                send(fd, buffer, length, MSG_NOSIGNAL);
            else
                close(fd);
        }
    }
}
