# Rewrites a trace of strace so that the traces of two servers can be compared. Names replace descriptor numbers, and values that
# differ from run to run (ports, process ids, pointers) are removed. Written for any POSIX awk.
#
#     awk -v side=rust|c -v mode=exact|totals -v rules=FILE -f normalise.awk TRACE
#
# rules:  the calls that are removed on Rust's side. Each line has three fields separated by tabs: `start`, `own` or `exit`; an
#         extended regular expression; the reason.
# exact:  every call, in order.
# totals: what must hold for any sizes of reads and sends: the other calls in order, the total of the bytes, and what follows a
#         send that found no room.

BEGIN {
    while ((getline line < rules) > 0) {
        split(line, field, "\t")
        scope[++rule_count] = field[1]
        rule[rule_count] = field[2]
    }
    name[0] = "stdin"; name[1] = "stdout"; name[2] = "stderr"
}

# The dynamic loader's calls end where the program's code begins: Rust's runtime polls its standard streams, C ignores SIGPIPE.
!started && /^(p?poll\(\[\{fd=0|rt_sigaction\(SIGPIPE)/ { started = 1 }
!started { next }

# On architectures without epoll_wait, such as aarch64, the C library calls epoll_pwait without a mask.
/^epoll_pwait\(/ {
    sub(/^epoll_pwait/, "epoll_wait")
    sub(/, NULL, 8\)/, ")")
}

# The allocator's calls depend on what else the runtime has allocated.
/^(brk|mmap|munmap|mprotect|mremap|madvise)\(/ || /^getrandom\(.*, 8, GRND_NONBLOCK\)/ { next }

# The program's own part starts with getrlimit(2), and ends after the close of the signalfd. `who` and `call` still describe the
# previous line here.
/^prlimit64\(0, RLIMIT_NOFILE/ { part = "own" }
part == "" { part = "start" }
part == "own" && who == "signals" && call == "close" { part = "exit" }

side == "rust" {
    for (i = 1; i <= rule_count; i++)
        if (part == scope[i] && $0 ~ rule[i])
            next
}

{
    sub(/\) +=/, ") =")
    call = $0
    sub(/\(.*/, "", call)
    if (call == "epoll_ctl") {
        match($0, /u64=[0-9]+/)
        data = substr($0, RSTART + 4, RLENGTH - 4)
        match($0, /EPOLL_CTL_[A-Z]+, [0-9]+/)
        target = substr($0, RSTART, RLENGTH)
        sub(/.* /, "", target)
        named[data] = name[target]
        sub(/EPOLL_CTL_ADD, [0-9]+/, "EPOLL_CTL_ADD, " name[target])
        sub(/EPOLL_CTL_MOD, [0-9]+/, "EPOLL_CTL_MOD, " name[target])
    }
    while (match($0, /data=\{u32=[0-9]+, u64=[0-9]+\}/)) {
        data = substr($0, RSTART, RLENGTH)
        sub(/.*u64=/, "", data)
        sub(/\}/, "", data)
        $0 = substr($0, 1, RSTART - 1) "data=" named[data] substr($0, RSTART + RLENGTH)
    }
    who = ""
    if (call ~ /^(epoll_ctl|epoll_wait|setsockopt|bind|listen|getsockname|accept4|recvfrom|sendto|ioctl|shutdown|close|read|write)$/) {
        match($0, /\([0-9]+/)
        descriptor = substr($0, RSTART + 1, RLENGTH - 1)
        who = (descriptor in name) ? name[descriptor] : "unknown"
        $0 = call "(" who substr($0, RSTART + RLENGTH)
        if (call == "close")
            delete name[descriptor]
    }
    if (call == "pipe2") {
        split($0, end, /[^0-9]+/)                          # pipe2([5, 6], ...: "pipe", 2, 5, 6 without the letters
        name[end[3]] = "pipe-reader"; name[end[4]] = "pipe-writer"
        sub(/\[[0-9]+, [0-9]+\]/, "[pipe-reader, pipe-writer]")
    }
    if (call == "splice") {
        split($0, argument, /[(, ]+/)                      # splice, from, NULL, to, NULL, count
        from = name[argument[2]]; to = name[argument[4]]; offered = argument[6]
        sub(/\([0-9]+, NULL, [0-9]+,/, "(" from ", NULL, " to ",")
    }
    result = $0
    sub(/.*\) = /, "", result)
    sub(/ .*/, "", result)
    if (result >= 0 && call ~ /^(socket|signalfd4|epoll_create1|accept4)$/) {
        if (call == "socket") made = "listener"
        else if (call == "signalfd4") made = "signals"
        else if (call == "epoll_create1") made = "epoll"
        else made = "conn#" (++accepted)
        name[result] = made
        sub(/\) = [0-9]+/, ") = " made)
    }
    gsub(/htons\([0-9]+\)/, "PORT")
    gsub(/0x[0-9a-f]+/, "PTR")
    gsub(/\[[0-9]+ => 16\]/, "[16]")                       # the size of the buffer for an address
    gsub(/si_pid=[0-9]+, si_uid=[0-9]+/, "si_pid=PID, si_uid=UID")
    if (call == "epoll_wait")
        sub(/, [1-9][0-9]*\) =/, ", TIMEOUT) =")
    if (call == "ioctl")                                   # SIOCOUTQ: the peer's kernel decides when to acknowledge
        sub(/\[[1-9][0-9]*\]/, "[SOME]")
    if (call == "write" && who == "stdout") {
        sub(/:[0-9]*"\.*, [0-9]+\) = [0-9]+/, ":PORT\"..., LENGTH) = LENGTH")
        sub(/:[0-9]*\\n", [0-9]+\) = [0-9]+/, ":PORT\"..., LENGTH) = LENGTH")
    }
    if (call == "read" && who == "signals") {
        signo = ($0 ~ /"\\17/) ? "SIGTERM" : ($0 ~ /"\\1\\/) ? "SIGHUP" : "SIGINT"
        sub(/".*", */, "{ssi_signo=" signo ", ...}, ")
        sub(/".*"\.\.\., */, "{ssi_signo=" signo ", ...}, ")
    }
    if (call ~ /^(getpid|gettid)$/)
        sub(/= [0-9]+/, "= PID")
    gsub(/tgkill\([0-9]+, [0-9]+/, "tgkill(PID, PID")
}

# Removes a pause of accepting that another pause follows: their number depends on timing.
mode == "exact" {
    kept[++kept_count] = $0
    if ($0 ~ /^listen\(listener, 0\)/ && kept[kept_count - 1] ~ /^accept4\(.* EMFILE/ && kept[kept_count - 2] ~ /, 0\) = 0$/ \
        && kept[kept_count - 3] ~ /, TIMEOUT\) = 0$/)
        kept_count -= 4
    next
}

# The rest is for totals.

call == "epoll_wait" {
    # After EPOLLOUT a connection may send again.
    rest = $0
    while (match(rest, /events=[A-Z|]+, data=conn#[0-9]+/)) {
        event = substr(rest, RSTART, RLENGTH)
        rest = substr(rest, RSTART + RLENGTH)
        connection = event
        sub(/.*data=/, "", connection)
        if (event ~ /EPOLLOUT/ && is_full[connection]) {
            is_full[connection] = 0
            must_write[connection] = 1
        }
    }
    next
}

# Zero-copy echo counts as a read and a send. Bytes for which the socket had no room are read from the pipe, to be sent later.
call == "splice" && to == "pipe-writer" { who = from; call = "recvfrom" }
call == "splice" && from == "pipe-reader" { who = to; call = "sendto" }
call == "read" && who == "pipe-reader" { next }

call == "recvfrom" {
    if (received[who] > sent[who])
        read_while_pending++
    if (result + 0 > 0)
        received[who] += result
    next
}

call == "sendto" {
    length_offered = offered
    if ($0 ~ /MSG_NOSIGNAL/) {
        length_offered = $0
        sub(/, MSG_NOSIGNAL.*/, "", length_offered)
        sub(/.*, /, "", length_offered)
    }
    if (is_full[who])
        written_without_room++
    must_write[who] = 0
    if (result + 0 > 0)
        sent[who] += result
    if (result + 0 < length_offered + 0) {
        is_full[who] = 1
        was_full[who] = 1
    }
    next
}

{ print }

END {
    for (i = 1; i <= kept_count; i++)
        print kept[i]
    if (mode != "totals")
        exit
    print ""
    for (i = 1; i <= accepted; i++) {
        connection = "conn#" i
        printf "%s: %d bytes received, %d bytes sent, was the outbox filled: %s\n", connection, received[connection],
            sent[connection], was_full[connection] ? "yes" : "no"
        waiting += must_write[connection]
    }
    printf "reads while bytes were pending: %d\n", read_while_pending
    printf "sends between one that found no room and EPOLLOUT: %d\n", written_without_room
    printf "EPOLLOUT with bytes pending, without a send after it: %d\n", waiting
}
