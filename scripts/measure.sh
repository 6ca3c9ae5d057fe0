#!/usr/bin/env bash
# Measures the Rust server beside the C reference: CPU a message, bulk rate, the tail of a ping beside firehoses, memory, system
# calls and instructions. Needs two CPUs, taskset (util-linux), strace and valgrind.
#
#     scripts/measure.sh [--rounds 5] [--seconds 1.5] [cpu|many|timeouts|bulk|ping|busy-poll|flood|memory|syscalls|instructions]...
set -euo pipefail
cd "$(dirname "$0")/.."
for tool in taskset strace valgrind; do
    command -v "$tool" >/dev/null || { echo "measure.sh: $tool is missing: apt-get install util-linux strace valgrind" >&2; exit 2; }
done
cc -O2 -Wall -Wextra -o target/driver scripts/driver.c
cargo build --quiet --release --features tools --bin edgecho --example measure
exec target/release/examples/measure "$@"
