#!/usr/bin/env bash
# Runs the Rust server and the C reference under strace through the same scenarios, and compares the system calls that they make.
#
#     scripts/strace-compare.sh [SCENARIO]...      all scenarios, or those named
#     scripts/strace-compare.sh --show SCENARIO    both traces, side by side
#     scripts/strace-compare.sh --list             the scenarios, and what is left out of the comparison and why
#
# Prints for each scenario `identical` or a unified diff, and at the end the system calls by count. Exit status: 0 when all are
# identical, 1 when any differs, 2 when something is missing. Needs strace, a C compiler and Rust.
set -euo pipefail
cd "$(dirname "$0")/.."

# Name, how to compare, and how both servers are started. `exact`: every call, in order. `totals`: the kernel's timing decides how
# the bytes are cut up, so what must hold is compared: the other calls in order, the bytes in total, and what follows a write that
# found no room. `limit=N` in front of a server's own arguments is its limit on open descriptors (ulimit -n).
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

# What Rust's runtime does at start-up and at exit, and one question that only a library has to ask: when it may, a regular expression and
# the reason, with tabs between. Nothing else is left out on one side only. Start-up ends with the server's own first call.
RUNTIME=(
    $'start\t^p?poll\\(\\[\\{fd=0, events=0\\}, \\{fd=1\tRust opens /dev/null in place of a standard stream that is closed, and looks first'
    $'start\t^openat\\(AT_FDCWD, "/proc/self/maps"\tRust looks for the guard page of the main stack, to tell an overflow from another fault'
    $'start\t^(newfstatat|read)\\(3, \tas above: the C library reads /proc/self/maps'
    $'start\t^close\\(3\\) \tas above'
    $'start\t^prlimit64\\(0, RLIMIT_STACK, NULL\tas above: how large that stack may grow'
    $'start\t^sched_getaffinity\\(\tas above: the C library fills in all the attributes of the main thread'
    $'start\t^rt_sigaction\\(SIG(SEGV|BUS), \tRust says "stack overflow" where C would only crash'
    $'start\t^gettid\\(\\) \tas above: the thread that it would name'
    $'start\t^sigaltstack\\(\tas above: the handler needs a stack of its own'
    $'exit\t^sigaltstack\\(\\{ss_sp=NULL, ss_flags=SS_DISABLE\tas above: and gives it back'
    $'own\t^rt_sigaction\\(SIGPIPE, NULL, \tthe library looks whether its program has left SIGPIPE ignored; in C, main has just done that itself'
    $'start\t^ioctl\\(2, TCGETS\tlog lines are coloured on a terminal only'
)

fail() { echo "strace-compare.sh: $1" >&2; exit 2; }

list() {
    printf 'scenarios:\n'
    printf '    %s\n' "${SCENARIOS[@]}"
    printf 'left out on both sides:\n'
    printf '    %s\n' 'the dynamic loader, up to the first call of the program itself' \
        'brk, mmap, munmap, mprotect, mremap, madvise, and the 8 random bytes of malloc: when the allocator asks for memory' \
        'a pause that ends in another pause, for there is still no descriptor: how often depends on when the clients leave'
    printf "left out on Rust's side:\n"
    printf '    %s\n' "${RUNTIME[@]}"
}

show=
case "${1-}" in
    --list) list; exit 0 ;;
    --show) show=${2-}; [ -n "$show" ] || fail "--show needs the name of a scenario; --list names them"; shift ;;
    -h | --help) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 0 ;;
    -*) fail "unknown option $1; --help explains" ;;
esac
for wanted in "$@"; do
    printf '%s\n' "${SCENARIOS[@]}" | grep -q "^$wanted " || fail "there is no scenario '$wanted'; --list names them"
done
for tool in strace cc cargo; do
    command -v "$tool" >/dev/null || fail "$tool is missing (Debian: apt-get install strace gcc; Rust: https://rustup.rs)"
done

directory=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill -KILL "$server" 2>/dev/null || :; rm -rf "$directory"' EXIT
target=${CARGO_TARGET_DIR:-target}
cargo build --quiet --release --bin edgecho --example strace-client
cc -std=c11 -O2 -o "$directory/edgecho-c" c_reference/edgecho.c
printf '%s\n' "${RUNTIME[@]}" >"$directory/rules"
mkfifo "$directory/stdout"

# trace SIDE SCENARIO ARGUMENT...: takes one server through one scenario, and leaves its trace in $directory/SIDE.raw.
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
    # strace ends as the server did, and says so in the trace.
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
        [ "$mode" = exact ] || note=' (totals and order: the kernel decides how the bytes are cut up)'
        printf '%-44s identical%s\n' "$name" "$note"
    else
        printf '%-44s DIFFERENT\n' "$name"
        cat "$directory/diff"
        differences=1
    fi
done

if [ -z "$show" ] && [ -s "$directory/rust.calls" ]; then
    printf '\nsystem calls, over all scenarios that are compared call by call:\n%-20s %8s %8s\n' call Rust C
    for side in rust c; do sort "$directory/$side.calls" | uniq -c | awk '{ print $2, $1 }' >"$directory/$side.counts"; done
    join -a 1 -a 2 -e 0 -o 0,1.2,2.2 "$directory/rust.counts" "$directory/c.counts" \
        | awk '{ printf "%-20s %8d %8d\n", $1, $2, $3; rust += $2; c += $3 } END { printf "%-20s %8d %8d\n", "total", rust, c }'
fi
exit "$differences"
