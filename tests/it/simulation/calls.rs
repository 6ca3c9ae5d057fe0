//! The server's calls to the simulated kernel, and the protocol's calls about timers.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use edgecho::event::Token;
use edgecho::protocol::Timer;
use edgecho::stream::{Acknowledged, Pipe};
use edgecho::sys::epoll::EpollFlags;

use super::moments::Look;
use super::plan::MS;
use super::rules::Armed;
use super::world::World;

impl World {
    pub fn now(&mut self) -> Instant {
        self.pause();
        self.clock_reads += 1;
        let now = self.base + Duration::from_nanos(self.at.time);
        self.pause(); // the process may be stopped right after it, too
        now
    }

    pub fn next_signal(&mut self) -> Option<i32> {
        self.call();
        self.pending_signals = self.pending_signals.checked_sub(1)?;
        if self.drain.is_none() {
            self.drain = Some(self.at);
            self.stops_before_drain = self.stops;
        }
        Some(libc::SIGTERM)
    }

    pub fn peek(&mut self, number: usize, buffer: &mut [u8]) -> io::Result<usize> {
        self.call_on(number);
        let at = self.at;
        let result = self.sockets[number].peek(buffer, at);
        self.note(|| format!("peek {number}: {result:?}"));
        result
    }

    pub fn recv(&mut self, number: usize, buffer: &mut [u8]) -> io::Result<usize> {
        self.call_on(number);
        let at = self.at;
        let is_draining = self.drain.is_some();
        if let Some(result) = self.sockets[number].read_head(buffer, is_draining, at) {
            self.note(|| format!("recv {number}: {result:?} of its header"));
            return result;
        }
        let socket = &mut self.sockets[number];
        let count = socket.begin_read(buffer.len(), false, at);
        self.note(|| format!("recv {number}: {count:?}"));
        let count = count?;
        let socket = &mut self.sockets[number];
        if count > 0 {
            let most = buffer.len();
            buffer[..count].copy_from_slice(socket.take(count, most, at));
        }
        Ok(count)
    }

    pub fn splice_into(&mut self, number: usize, pipe: &mut Pipe, most: usize) -> io::Result<usize> {
        self.call_on(number);
        let at = self.at;
        let socket = &mut self.sockets[number];
        assert!(socket.our_fin.is_none() && pipe.is_empty(), "what is in the pipe goes to the peer, and nothing else does");
        // A pipe holds a limited number of pieces.
        let pieces = if socket.unread().is_multiple_of(3) { most.div_ceil(2) } else { most };
        let count = socket.begin_read(pieces, true, at);
        self.note(|| format!("splice from {number}: {count:?}"));
        let count = count?;
        let socket = &mut self.sockets[number];
        if count > 0 {
            let bytes = socket.take(count, 0, at); // a short count shows nothing
            let (reader, mut writer) = io::pipe()?;
            writer.write_all(bytes)?;
            assert_eq!(pipe.fill(reader.as_fd(), count)?, count);
        }
        Ok(count)
    }

    pub fn send(&mut self, number: usize, bytes: &[u8]) -> io::Result<usize> {
        self.call_on(number);
        self.check_heartbeat(number, bytes);
        let (at, epoch) = (self.at, self.epoch);
        let socket = &mut self.sockets[number];
        let before = socket.pending_bytes;
        let result = socket.begin_write(bytes.len(), at);
        self.note(|| format!("send {number}: {result:?} of {}", bytes.len()));
        let socket = &mut self.sockets[number];
        self.pending_bytes = self.pending_bytes + socket.pending_bytes - before;
        if let Ok(count) = result
            && socket.put(&bytes[..count], at, epoch)
        {
            self.list(number);
        }
        result
    }

    pub fn splice_from(&mut self, number: usize, pipe: &mut Pipe, most: usize) -> io::Result<usize> {
        self.call_on(number);
        let (at, epoch) = (self.at, self.epoch);
        let socket = &mut self.sockets[number];
        let before = socket.pending_bytes;
        let result = socket.begin_write(most, at);
        self.note(|| format!("splice to {number}: {result:?} of {most}"));
        let socket = &mut self.sockets[number];
        self.pending_bytes = self.pending_bytes + socket.pending_bytes - before;
        if let Ok(count) = result {
            let (mut reader, writer) = io::pipe()?;
            assert_eq!(pipe.pour(writer.as_fd(), count)?, count);
            let mut bytes = vec![0; count];
            reader.read_exact(&mut bytes)?;
            if socket.put(&bytes, at, epoch) {
                self.list(number);
            }
        }
        result
    }

    pub fn shutdown(&mut self, number: usize) -> io::Result<()> {
        self.call_on(number);
        self.check_fin(number);
        let (at, epoch) = (self.at, self.epoch);
        self.note(|| format!("FIN of the server to {number}"));
        let socket = &mut self.sockets[number];
        let result = socket.shutdown(at, epoch);
        if result.is_ok() && socket.is_finished {
            self.list(number);
        }
        result
    }

    pub fn acknowledged(&mut self, number: usize) -> Acknowledged {
        self.call();
        self.note(|| format!("look at {number}"));
        self.check_look(number);
        let socket = &mut self.sockets[number];
        let acknowledged = socket.acknowledgements.at();
        socket.look = Some(Look { epoch: self.epoch, acknowledged, is_pending: socket.is_pending });
        // Linux counts this in 32 bits of milliseconds.
        let last_ago = Duration::from_millis(u64::from(((self.at.time - socket.segment.time) / MS) as u32));
        Acknowledged::new(1 + socket.acked + u64::from(socket.is_fin_acked), last_ago)
    }

    pub fn watch(&mut self, number: usize, token: Token, interest: EpollFlags) {
        self.call();
        let at = self.at;
        let socket = &mut self.sockets[number];
        if socket.watched.is_none() {
            socket.touched = at;
            self.open.push(number);
        }
        socket.watched = Some((token, interest));
        if socket.state().intersects(interest | EpollFlags::ERR | EpollFlags::HUP) {
            self.list(number);
        }
    }

    pub fn accept(&mut self, listener: usize) -> io::Result<usize> {
        self.call();
        self.calls += 1;
        let has_begun = self.drain.is_some() && self.config.timeouts.drain_delay.is_zero();
        let is_left = listener < self.inherited && (has_begun || self.is_unwatched[listener]);
        assert!(!is_left, "a client of an inherited listener was accepted after the drain had begun");
        if let Some(errno) = self.accept_errors.pop_front() {
            return Err(io::Error::from_raw_os_error(errno));
        }
        let is_full = self.config.limits.max_connections.is_some_and(|most| self.open.len() >= most);
        assert!(!is_full || self.may_drain(), "more connections than there may be");
        let number = self.backlogs[listener].pop_front().ok_or_else(|| io::Error::from_raw_os_error(libc::EAGAIN))?;
        self.sockets[number].opened = self.at;
        self.sockets[number].begun = self.at;
        Ok(number)
    }

    pub fn drop_connection(&mut self, number: usize) {
        let socket = &mut self.sockets[number];
        assert!(socket.is_closed, "a connection that was never closed is gone");
        if let Some((token, _)) = socket.watched.take() {
            self.gone.push(token);
        }
        self.pending_bytes -= self.sockets[number].pending_bytes;
        self.open.retain(|&open| open != number);
    }

    pub fn unwatch_listener(&mut self, index: usize) {
        self.call();
        assert!(index < self.inherited && self.may_drain(), "closing a listener of our own ends the watch");
        self.is_unwatched[index] = true;
    }

    pub fn stop_queueing(&mut self, index: usize) {
        self.call();
        assert!(index >= self.inherited, "the queue of an inherited listener was shut down");
    }

    pub fn drop_listener(&mut self, index: usize) {
        self.is_listening[index] = false;
        assert!(self.may_drain(), "a listener was closed before the drain delay was over");
        if index < self.inherited {
            assert!(self.is_unwatched[index], "an inherited listener was closed, and its clients still wake the loop");
            return self.left.extend(std::mem::take(&mut self.backlogs[index]));
        }
        assert!(self.backlogs[index].is_empty() || self.signals > 1, "a listener was closed with clients in its queue");
    }
}

impl World {
    pub fn timer_set(&mut self, owner: Option<usize>, timer: &Timer) {
        let armed = Armed::new(timer, self.at);
        self.timers.insert((owner, timer.number), armed);
    }

    pub fn timer_cancelled(&mut self, owner: Option<usize>, number: u32) {
        self.timers.remove(&(owner, number));
    }

    pub fn timers_gone(&mut self, number: usize) {
        self.timers.retain(|&(owner, _), _| owner != Some(number));
    }
}
