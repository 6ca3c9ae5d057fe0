#!/usr/bin/env bash
# Compares the Rust server with the C reference: CPU per message, bulk rate, latency of a ping beside bulk connections, memory, system calls
# and instructions. `costs` compares the options of a service with a plain serve, in a table for docs/performance.md; it takes less than
# 4 minutes and needs root for --user. Needs two CPUs, taskset (util-linux), strace, valgrind and a C compiler.
#
#     scripts/measure.sh [--rounds 5] [--seconds 1.5] [cpu|many|timeouts|bulk|ping|busy-poll|flood|memory|syscalls|instructions|costs]...
set -euo pipefail
cd "$(dirname "$0")/.."
for tool in taskset strace valgrind; do
    command -v "$tool" >/dev/null || { echo "measure.sh: $tool is missing: apt-get install util-linux strace valgrind" >&2; exit 2; }
done
cc -O2 -Wall -Wextra -o target/driver scripts/driver.c
cargo build --quiet --release --features tools --bin edgecho --example measure
exec target/release/examples/measure "$@"
