#!/usr/bin/env bash
# Compiles a program that needs no library and no other file, for the container image, and prints its path.
#
#     scripts/static.sh
set -euo pipefail
cd "$(dirname "$0")/.."
host=$(rustc -vV | sed -n 's/^host: //p')
# Without --target, the flags would hold for procedural macros, too, which cannot be static.
RUSTFLAGS='-C target-feature=+crt-static -C strip=symbols' cargo build --quiet --release --locked --bin edgecho --target "$host"
echo "${CARGO_TARGET_DIR:-target}/$host/release/edgecho"
