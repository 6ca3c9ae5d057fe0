/* An echo server on libevent's bufferevents. It stops reading while much output is pending.
 *
 *     libevent ADDRESS:PORT
 */
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/listener.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { HIGH = 256 * 1024 };

static int finished_key;

static void on_read(struct bufferevent *peer, void *context)
{
    struct evbuffer *output = bufferevent_get_output(peer);
    (void)context;
    evbuffer_add_buffer(output, bufferevent_get_input(peer));
    if (evbuffer_get_length(output) > HIGH)
        bufferevent_disable(peer, EV_READ);
}

static void on_write(struct bufferevent *peer, void *context)
{
    if (context == &finished_key)
        bufferevent_free(peer);
    else
        bufferevent_enable(peer, EV_READ);
}

static void on_event(struct bufferevent *peer, short what, void *context)
{
    (void)context;
    if (what & BEV_EVENT_EOF && evbuffer_get_length(bufferevent_get_output(peer)) > 0) {
        bufferevent_disable(peer, EV_READ);
        bufferevent_setcb(peer, NULL, on_write, on_event, &finished_key);
    } else {
        bufferevent_free(peer);
    }
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address, int length, void *base)
{
    int one = 1;
    (void)listener, (void)address, (void)length;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct bufferevent *peer = bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE);
    bufferevent_setcb(peer, on_read, on_write, on_event, NULL);
    bufferevent_enable(peer, EV_READ | EV_WRITE);
}

/* Out of descriptors: a client may leave. */
static void on_pause(evutil_socket_t fd, short what, void *listener)
{
    (void)fd, (void)what;
    evconnlistener_enable(listener);
}

static void on_accept_error(struct evconnlistener *listener, void *base)
{
    struct timeval pause = { .tv_usec = 50000 };
    evconnlistener_disable(listener);
    event_base_once(base, -1, EV_TIMEOUT, on_pause, listener, &pause);
}

int main(int argc, char **argv)
{
    struct sockaddr_storage address;
    int length = sizeof address;
    struct event_base *base = event_base_new();
    if (argc < 2 || evutil_parse_sockaddr_port(argv[1], (struct sockaddr *)&address, &length))
        return 2;
    unsigned flags = LEV_OPT_CLOSE_ON_FREE | LEV_OPT_REUSEABLE;
    struct evconnlistener *listener = evconnlistener_new_bind(base, on_accept, base, flags, 4096, (struct sockaddr *)&address, length);
    if (!listener)
        return 1;
    evconnlistener_set_error_cb(listener, on_accept_error);
    return event_base_dispatch(base);
}
