//! Socket activation: listening sockets that the service manager passes on.
