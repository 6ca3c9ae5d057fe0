#!/usr/bin/env bash
# Runs the Rust server and the C reference under strace through the same scenarios and compares their system calls.
#
#     scripts/strace-compare.sh [SCENARIO]...      all scenarios, or the named ones
#     scripts/strace-compare.sh --show SCENARIO    both traces, side by side
#     scripts/strace-compare.sh --list             the scenarios, and the calls that are not compared, with the reasons
#
# Prints `identical` or a unified diff for each scenario, and the number of each system call at the end. Exit status: 0 if all
# are identical, 1 if any differs, 2 if a tool is missing. Needs strace, a C compiler and Rust.
set -euo pipefail
cd "$(dirname "$0")/.."

# The name of a scenario, the kind of comparison, and the arguments of both servers. `exact` compares every call, in order.
# `totals` is for scenarios in which the kernel's timing decides the sizes of reads and sends: it compares the other calls in
# order, the total of the bytes, and what follows a send that found no room. `limit=N` before the arguments sets the limit on
# open descriptors (ulimit -n).
SCENARIOS=(
    "one-line exact"
    "ten-lines-in-one-segment exact"
    "binary exact"
    "ten-clients-at-once exact"
    "half-close exact"
    "half-close-behind-data exact"
    "connect-and-leave exact"
    "reset exact"
    "reset-in-the-accept-queue exact"
    "exactly-the-read-buffer exact"
    "larger-than-the-read-buffer exact"
    "urgent exact"
    "stop-and-continue exact"
    "larger-than-the-read-buffer-and-copied exact --copy"
    "stalled-reader totals"
    "sigterm-when-idle exact"
    "sigint-when-idle exact"
    "sigterm-with-a-client exact --drain-timeout 20s"
    "sigterm-with-clients-in-the-accept-queue exact --drain-timeout 20s"
    "sighup-with-a-client exact --drain-timeout 20s"
    "sigterm-at-the-descriptor-limit exact limit=16 --drain-timeout 20s"
    "sigterm-with-bytes-pending totals --drain-timeout 20s"
    "drain-deadline exact --drain-timeout 200ms"
    "drain-deadline-and-nobody-leaves exact --drain-timeout 0s"
    "drain-deadline-at-the-descriptor-limit exact limit=16 --drain-timeout 0s"
    "cut-off-with-clients-in-the-accept-queue exact limit=16 --drain-timeout 0s"
    "cut-off-before-the-echo-is-acknowledged exact --drain-timeout 0s"
    "second-signal exact --drain-timeout 20s"
)

# Calls that only the Rust side makes: those of Rust's runtime at start and at exit, and one that only a library needs. Each line
# has the part of the run, a regular expression, and the reason, separated by tabs. No other call is left out on one side only.
# The start ends with the server's own first call.
RUNTIME=(
    $'start\t^p?poll\\(\\[\\{fd=0, events=0\\}, \\{fd=1\tRust checks for closed standard streams, in place of which it would open /dev/null'
    $'start\t^openat\\(AT_FDCWD, "/proc/self/maps"\tRust looks up the guard page of the main stack, to recognise a stack overflow'
    $'start\t^(newfstatat|read)\\(3, \tas above: the C library reads /proc/self/maps'
    $'start\t^close\\(3\\) \tas above'
    $'start\t^prlimit64\\(0, RLIMIT_STACK, NULL\tas above: the size limit of that stack'
    $'start\t^sched_getaffinity\\(\tas above: the C library fills in all attributes of the main thread'
    $'start\t^rt_sigaction\\(SIG(SEGV|BUS), \tRust reports "stack overflow" where C would only crash'
    $'start\t^gettid\\(\\) \tas above: the thread for that report'
    $'start\t^sigaltstack\\(\tas above: the handler needs its own stack'
    $'exit\t^sigaltstack\\(\\{ss_sp=NULL, ss_flags=SS_DISABLE\tas above: the end of that stack'
    $'own\t^rt_sigaction\\(SIGPIPE, NULL, \tthe library checks that its program ignores SIGPIPE; in C, main has just set that itself'
    $'start\t^ioctl\\(2, TCGETS\tlog lines have colours only on a terminal'
)

fail() { echo "strace-compare.sh: $1" >&2; exit 2; }

list() {
    printf 'scenarios:\n'
    printf '    %s\n' "${SCENARIOS[@]}"
    printf 'not compared, on both sides:\n'
    printf '    %s\n' 'the dynamic loader, up to the first call of the program itself' \
        'brk, mmap, munmap, mprotect, mremap, madvise, and the 8 random bytes of malloc: they depend on the allocator' \
        'a pause of accepting that ends without a free descriptor: their number depends on when the clients leave'
    printf "not compared, on Rust's side:\n"
    printf '    %s\n' "${RUNTIME[@]}"
}

show=
case "${1-}" in
    --list) list; exit 0 ;;
    --show) show=${2-}; [ -n "$show" ] || fail "--show needs the name of a scenario (see --list)"; shift ;;
    -h | --help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
    -*) fail "unknown option $1 (see --help)" ;;
esac
for wanted in "$@"; do
    printf '%s\n' "${SCENARIOS[@]}" | grep -q "^$wanted " || fail "there is no scenario '$wanted' (see --list)"
done
for tool in strace cc cargo; do
    command -v "$tool" >/dev/null || fail "$tool is missing (Debian: apt-get install strace gcc; Rust: https://rustup.rs)"
done

directory=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill -KILL "$server" 2>/dev/null || :; rm -rf "$directory"' EXIT
target=${CARGO_TARGET_DIR:-target}
cargo build --quiet --release --features tools --bin edgecho --example strace-client
cc -std=c11 -O2 -o "$directory/edgecho-c" c_reference/edgecho.c
printf '%s\n' "${RUNTIME[@]}" >"$directory/rules"
mkfifo "$directory/stdout"

# trace SIDE SCENARIO ARGUMENT...: runs one server through one scenario, and writes its trace to $directory/SIDE.raw.
trace() {
    local side=$1 scenario=$2 raw="$directory/$1.raw" limit='' line address strace
    shift 2
    local -a program=("$directory/edgecho-c")
    [ "$side" = c ] || program=("$target/release/edgecho" serve -qq)
    if [[ ${1-} == limit=* ]]; then
        limit=${1#limit=}
        shift
    fi
    (
        [ -z "$limit" ] || ulimit -n "$limit"
        exec strace -s 24 -o "$raw" "${program[@]}" --listen 127.0.0.1:0 "$@" >"$directory/stdout" 2>"$directory/stderr"
    ) &
    strace=$!
    read -r -t 20 line <"$directory/stdout" || fail "the $side server did not start: $(cat "$directory/stderr")"
    address=${line#listening on }
    server=$(<"/proc/$strace/task/$strace/children")
    server=${server% }
    timeout 60 "$target/release/examples/strace-client" "$scenario" "$address" "$server" "$raw" \
        || fail "$scenario: the client of the $side server failed"
    # strace ends with the status or signal of the server, which is the last line of the trace.
    wait "$strace" 2>/dev/null || true
    server=
}

width=${COLUMNS:-$({ tput cols; } 2>/dev/null || echo 160)}
differences=0
for entry in "${SCENARIOS[@]}"; do
    read -r name mode arguments <<<"$entry"
    [ $# -eq 0 ] || [[ " $* " == *" $name "* ]] || continue
    for side in rust c; do
        # shellcheck disable=SC2086 # the arguments are words
        trace "$side" "$name" $arguments
        awk -v side="$side" -v mode="$mode" -v rules="$directory/rules" -f scripts/strace-compare/normalise.awk \
            "$directory/$side.raw" >"$directory/$side"
        [ "$mode" = totals ] || sed -n 's/^\([a-z_0-9]*\)(.*/\1/p' "$directory/$side" >>"$directory/$side.calls"
    done
    if [ -n "$show" ]; then
        printf '%-*s%s\n' $((width / 2)) 'edgecho serve' 'c_reference/edgecho.c'
        diff --side-by-side --expand-tabs --width="$width" "$directory/rust" "$directory/c" || differences=1
    elif diff -u --label "$name: Rust" --label "$name: C" "$directory/rust" "$directory/c" >"$directory/diff"; then
        note=
        [ "$mode" = exact ] || note=' (totals and order: the kernel decides the sizes of reads and sends)'
        printf '%-44s identical%s\n' "$name" "$note"
    else
        printf '%-44s DIFFERENT\n' "$name"
        cat "$directory/diff"
        differences=1
    fi
done

if [ -z "$show" ] && [ -s "$directory/rust.calls" ]; then
    printf '\nsystem calls in all scenarios that are compared call by call:\n%-20s %8s %8s\n' call Rust C
    for side in rust c; do sort "$directory/$side.calls" | uniq -c | awk '{ print $2, $1 }' >"$directory/$side.counts"; done
    join -a 1 -a 2 -e 0 -o 0,1.2,2.2 "$directory/rust.counts" "$directory/c.counts" \
        | awk '{ printf "%-20s %8d %8d\n", $1, $2, $3; rust += $2; c += $3 } END { printf "%-20s %8d %8d\n", "total", rust, c }'
fi
exit "$differences"
