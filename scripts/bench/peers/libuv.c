/* An echo server on one libuv loop. It stops reading while much output is pending.
 *
 *     libuv ADDRESS:PORT
 */
#include <stdlib.h>
#include <string.h>
#include <uv.h>

enum { HIGH = 256 * 1024 };

typedef struct {
    uv_write_t request;
    uv_buf_t buffer;
} write_t;

static void on_read(uv_stream_t *peer, ssize_t count, const uv_buf_t *buffer);

static void on_close(uv_handle_t *peer) { free(peer); }

static void give(uv_handle_t *peer, size_t size, uv_buf_t *buffer)
{
    (void)peer;
    *buffer = uv_buf_init(malloc(size), size);
}

static void on_written(uv_write_t *request, int status)
{
    write_t *write = (write_t *)request;
    uv_stream_t *peer = request->handle;
    free(write->buffer.base);
    free(write);
    if (status < 0 && !uv_is_closing((uv_handle_t *)peer))
        uv_close((uv_handle_t *)peer, on_close);
    else if (uv_stream_get_write_queue_size(peer) == 0 && uv_is_readable(peer) && !uv_is_closing((uv_handle_t *)peer))
        uv_read_start(peer, give, on_read);
}

static void on_shutdown(uv_shutdown_t *request, int status)
{
    (void)status;
    if (!uv_is_closing((uv_handle_t *)request->handle))
        uv_close((uv_handle_t *)request->handle, on_close);
    free(request);
}

static void on_read(uv_stream_t *peer, ssize_t count, const uv_buf_t *buffer)
{
    if (count > 0) {
        write_t *write = malloc(sizeof *write);
        write->buffer = uv_buf_init(buffer->base, count);
        uv_write(&write->request, peer, &write->buffer, 1, on_written);
        if (uv_stream_get_write_queue_size(peer) > HIGH)
            uv_read_stop(peer);
        return;
    }
    free(buffer->base);
    if (count == UV_EOF)
        uv_shutdown(malloc(sizeof(uv_shutdown_t)), peer, on_shutdown);
    else if (count < 0)
        uv_close((uv_handle_t *)peer, on_close);
}

static void on_connection(uv_stream_t *listener, int status)
{
    if (status < 0)
        return;
    uv_tcp_t *peer = malloc(sizeof *peer);
    uv_tcp_init(listener->loop, peer);
    if (uv_accept(listener, (uv_stream_t *)peer) == 0) {
        uv_tcp_nodelay(peer, 1);
        uv_read_start((uv_stream_t *)peer, give, on_read);
    } else {
        uv_close((uv_handle_t *)peer, on_close);
    }
}

int main(int argc, char **argv)
{
    struct sockaddr_in address;
    uv_tcp_t listener;
    char *colon = argc > 1 ? strrchr(argv[1], ':') : NULL;
    if (!colon)
        return 2;
    *colon = 0;
    uv_ip4_addr(argv[1], atoi(colon + 1), &address);
    uv_tcp_init(uv_default_loop(), &listener);
    uv_tcp_bind(&listener, (const struct sockaddr *)&address, 0);
    if (uv_listen((uv_stream_t *)&listener, 4096, on_connection))
        return 1;
    return uv_run(uv_default_loop(), UV_RUN_DEFAULT);
}
