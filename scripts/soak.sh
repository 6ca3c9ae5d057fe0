#!/usr/bin/env bash
# Runs servers under chaos and well-behaved clients together. Chaos is resets, half-closes, stalls, one byte at a time, megabytes, crowds that
# exhaust the descriptors, SIGSTOP for up to 40 s, slow readers, and an unread stderr. For collect it is a full disk, a stalling consumer and
# dead consumers. Then checks that the well-behaved clients have lost nothing, that no descriptor has leaked, that resident memory is within
# 8 MiB of its start, that the log is short, and that every exit status is right.
#
#     scripts/soak.sh [SECONDS]     (60; the longest stop is a fifth of it, at most 40 s)
#
# The full disk is a tmpfs, which only root can mount. Without root, the script skips that part and says so.
# Exit status: 0 if all checks pass, 1 otherwise.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --quiet --release --features tools --bin edgecho --example soak
exec target/release/examples/soak "$@"
