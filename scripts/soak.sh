#!/usr/bin/env bash
# Lets well-behaved clients and chaos loose on servers: resets, half-closes, stalls, one byte at a time, megabytes, crowds that use up
# all descriptors, SIGSTOP for up to 40 s, slow readers, a stderr that nobody reads; and for collect a disk that is full, a consumer that
# stalls, and consumers that die. Then checks that the well-behaved have lost nothing, that no descriptor is left open, that the
# resident memory is within 8 MiB of where it was, that the log is short, and that every exit status is the right one.
#
#     scripts/soak.sh [SECONDS]     (60; the longest stop is a fifth of it, and at most 40 s)
#
# The full disk is a tmpfs, which only root can mount; without root that part is skipped, and said to be.
# Exit status: 0 when all of that holds, 1 otherwise.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --quiet --release --features tools --bin edgecho --example soak
exec target/release/examples/soak "$@"
