//! The admin endpoint: metrics, health and a live page over HTTP.
