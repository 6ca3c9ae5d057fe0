#!/usr/bin/env bash
# Makes the Debian package, and prints its path. Installs cargo-deb into target/tools, unless it is installed.
#
#     scripts/package.sh                      the version of packaging/debian/changelog
#     scripts/package.sh --version VERSION    another version, such as 0.1.0-2
#
# DEBFULLNAME and DEBEMAIL set the maintainer (debchange(1)). Equal sources, tools and libraries give an equal package.
set -euo pipefail
cd "$(dirname "$0")/.."
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
changelog=packaging/debian/changelog

version=$(sed -nE '1s/^edgecho \(([^)]+)\).*/\1/p' "$changelog")
crate=$(sed -nE 's/^version = "([^"]+)"$/\1/p' Cargo.toml | head -n 1)
[ "${version%-*}" = "$crate" ] || { echo "package.sh: $changelog begins with version $version, but Cargo.toml has $crate" >&2; exit 1; }
case ${1-} in
    --version) version=$2 ;;
    '') ;;
    *) echo "usage: scripts/package.sh [--version VERSION]" >&2; exit 2 ;;
esac
options=(--deb-version "$version")
if [ -n "${DEBFULLNAME-}" ] && [ -n "${DEBEMAIL-}" ]; then
    options+=(--maintainer "$DEBFULLNAME <$DEBEMAIL>")
fi

PATH=$PWD/target/tools/bin:$PATH
command -v cargo-deb >/dev/null || cargo install --quiet --locked --root target/tools cargo-deb
cargo build --quiet --release --locked --bin edgecho

# Man pages, and completion files under the names that Debian's shells look for.
generated=$target/release/package
rm -rf "$generated"
mkdir -p "$generated"/{man,bash,zsh,fish}
env -i "$target/release/edgecho" man --output "$generated/man"
gzip -9n "$generated"/man/*.1
env -i "$target/release/edgecho" completions bash >"$generated/bash/edgecho"
env -i "$target/release/edgecho" completions zsh >"$generated/zsh/_edgecho"
env -i "$target/release/edgecho" completions fish >"$generated/fish/edgecho.fish"

mkdir -p "$target/debian"
SOURCE_DATE_EPOCH=$(date -d "$(sed -nE '/^ -- .*>  (.*)$/{s//\1/p;q}' "$changelog")" +%s)
export SOURCE_DATE_EPOCH
umask 022
cargo deb --quiet --no-build --strip --no-dbgsym --locked --output "$target/debian/" "${options[@]}"
