#!/usr/bin/env bash
# Holds edgecho beside the other ways to write its server, on the same work, in one run: server on CPU 0, driver on CPU 1, in turns.
# Writes target/bench/report.html and report.md. Needs two CPUs and taskset (util-linux); who is to be measured beside Rust's own:
#
#     apt-get install gcc golang-go liburing-dev libuv1-dev libevent-dev socat ncat
#
#     scripts/bench.sh [--quick] [--only PEER,...] [--work NAME,...] [--json FILE]
set -euo pipefail
cd "$(dirname "$0")/.."
command -v taskset >/dev/null || { echo 'bench.sh: taskset is missing: apt-get install util-linux' >&2; exit 2; }
cargo build --quiet --release --bin edgecho
cargo build --quiet --release --locked --manifest-path scripts/bench/Cargo.toml --target-dir target/bench/cargo
cc -O2 -o target/bench/driver scripts/driver.c || echo 'bench.sh: without a C compiler there is no C driver: apt-get install gcc' >&2
ulimit -n "$(ulimit -Hn)"
exec target/bench/cargo/release/edgecho-bench "$@"
