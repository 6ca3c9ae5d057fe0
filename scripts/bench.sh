#!/usr/bin/env bash
# Compares edgecho with other servers that do the same work, in one run: server on CPU 0, driver on CPU 1, in turns. Writes
# target/bench/report.html, report.md and results.json. Needs two CPUs and taskset (util-linux). The servers that are not written in Rust need
#
#     apt-get install gcc golang-go liburing-dev libuv1-dev libevent-dev socat ncat
#
#     scripts/bench.sh [--quick] [--only PEER,...] [--work NAME,...] [--json FILE] [--chart FILE]     measures
#     scripts/bench.sh --from FILE [--chart FILE] [--update-docs]      makes the reports again from results
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ " $* " != *' --from'* ]]; then
    command -v taskset >/dev/null || { echo 'bench.sh: taskset is missing: apt-get install util-linux' >&2; exit 2; }
    cargo build --quiet --release --bin edgecho --target-dir target
fi
cargo build --quiet --release --locked --manifest-path scripts/bench/Cargo.toml --target-dir target/bench/cargo
cc -O2 -o target/bench/driver scripts/driver.c || echo 'bench.sh: no C compiler, so no C driver: apt-get install gcc' >&2
ulimit -n "$(ulimit -Hn)"
exec target/bench/cargo/release/edgecho-bench "$@"
