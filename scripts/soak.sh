#!/usr/bin/env bash
# Lets well-behaved clients and chaos loose on a server: resets, half-closes, stalls, one byte at a time, megabytes, crowds that use up
# all descriptors, SIGSTOP and SIGCONT. Then checks that the well-behaved have lost nothing, that no descriptor is left open, that the
# resident memory is within 1 MiB of where it was, and that the log is short.
#
#     scripts/soak.sh [SECONDS]     (60)
#
# Exit status: 0 when all of that holds, 1 otherwise.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --quiet --release --bin edgecho --example soak
exec target/release/examples/soak "$@"
