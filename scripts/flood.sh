#!/usr/bin/env bash
# Sends messages to an echo service on many connections at once, and compares every reply with its message, byte for byte. Needs bash and
# coreutils only.
#
#     scripts/flood.sh [-a HOST:PORT] [-c CONNECTIONS] [-n MESSAGES] [-s BYTES]
#
#     -a  address of the service       (127.0.0.1:7777)
#     -c  concurrent connections       (50; 1 to 2000; each is a process)
#     -n  messages on each connection  (100)
#     -s  bytes per message            (64; 1 to 65536, including a newline at the end)
#
# Exit status: 0 if every message came back, 1 at the first loss, 2 for a wrong option or if no service listens.
set -euo pipefail
export LC_ALL=C # a character is a byte

address=127.0.0.1:7777 connections=50 messages=100 bytes=64
usage() { sed -n '2,12s/^# \{0,1\}//p' "$0"; }
fail() { echo "flood.sh: $1" >&2; exit 2; }
number() {
    if ! [[ $2 =~ ^[1-9][0-9]{0,8}$ ]] || [ "$2" -gt "$3" ]; then
        fail "-$1 takes a whole number from 1 to $3, not '$2'"
    fi
}

while getopts a:c:n:s:h option; do
    case $option in
        a) address=$OPTARG ;;
        c) number c "$OPTARG" 2000; connections=$OPTARG ;;
        n) number n "$OPTARG" 100000000; messages=$OPTARG ;;
        s) number s "$OPTARG" 65536; bytes=$OPTARG ;;
        h) usage; exit 0 ;;
        *) usage >&2; exit 2 ;;
    esac
done
shift $((OPTIND - 1))
[ $# -eq 0 ] || fail "unexpected '$1'; -h explains"
host=${address%:*} port=${address##*:}
host=${host#[} host=${host%]}
if [ "$host" = "$address" ] || ! [[ $port =~ ^[1-9][0-9]{0,4}$ ]] || [ "$port" -gt 65535 ]; then
    fail "-a takes HOST:PORT, such as 127.0.0.1:7777, not '$address'"
fi

if ! (exec 3<>"/dev/tcp/$host/$port") 2>/dev/null; then
    fail "no service listens on $address; start a server first: cargo run --release -- serve --listen $address"
fi

directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
printf -v filler '%*s' $((bytes / 36 + 2)) ''
filler=${filler// /abcdefghijklmnopqrstuvwxyz0123456789}

# flood NUMBER: runs one connection. Writes its count of messages to a file, and errors to stderr.
flood() {
    local connection=$1 count message line done=0
    trap '' PIPE # report a service that hangs up, instead of ending silently
    exec 3<>"/dev/tcp/$host/$port" || { echo "connection $connection: cannot connect" >&2; return 1; }
    for ((count = 0; count < messages; count++)); do
        # All messages differ, so that a message that comes back late, twice or on another connection is detected.
        message="$connection.$count.${filler:connection % 36}"
        message=${message:0:bytes - 1}$'\n'
        if ! printf '%s' "$message" >&3 2>/dev/null; then
            echo "connection $connection: the service closed the connection before message $count" >&2
            break
        fi
        # -N reads all bytes in one call; without it, read takes one byte per call.
        if ! IFS= read -r -N "$bytes" -t 30 line <&3 2>/dev/null; then
            echo "connection $connection: message $count did not come back" >&2
            break
        fi
        if [ "$line" != "$message" ]; then
            echo "connection $connection: message $count came back as ${line@Q}, not as ${message@Q}" >&2
            echo mismatch >>"$directory/mismatches"
            break
        fi
        ((++done % 10 != 0)) || echo "$done" >"$directory/$connection"
    done
    echo "$done" >"$directory/$connection"
    [ "$done" -eq "$messages" ]
}

# total: prints the number of messages that have come back on all connections.
total() {
    local file count sum=0
    for file in "$directory"/[0-9]*; do
        [ -s "$file" ] && read -r count <"$file" && sum=$((sum + count))
    done
    echo "$sum"
}

expected=$((connections * messages))
start=${EPOCHREALTIME/./}
workers=()
for ((connection = 0; connection < connections; connection++)); do
    flood "$connection" &
    workers+=($!)
done

if [ -t 2 ]; then
    exec {clock}<> <(:) # a descriptor that never has input
    while [ -n "$(jobs -pr)" ]; do
        printf '\r%d of %d messages ' "$(total)" "$expected" >&2
        read -r -t 0.5 -u "$clock" || :
    done
    printf '\r\e[K' >&2
fi
status=0
for worker in "${workers[@]}"; do
    wait "$worker" || status=1
    if [ "$status" -ne 0 ]; then # stop the others at the first loss
        kill "${workers[@]}" 2>/dev/null || :
        wait "${workers[@]}" 2>/dev/null || :
        break
    fi
done
elapsed=$((${EPOCHREALTIME/./} - start))
echoed=$(total)
mismatches=0
[ ! -e "$directory/mismatches" ] || mismatches=$(wc -l <"$directory/mismatches")

printf '%d connections, %d of %d messages of %d bytes echoed, %d bytes, %d mismatches\n' \
    "$connections" "$echoed" "$expected" "$bytes" $((echoed * bytes)) "$mismatches"
printf '%d.%03d seconds, %d messages/s\n' $((elapsed / 1000000)) $((elapsed / 1000 % 1000)) $((echoed * 1000000 / elapsed))
exit "$status"
