//! Protocols that do what echo does not: timers, and input that is held back.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use edgecho::protocol::{Background, Post, Protocol, Reply, SessionId, Timer};

use super::kernel::number_of;
use super::world::World;

type Times = Vec<(Duration, Option<Duration>)>;

/// Echo with timers.
pub struct Alarms {
    pub world: Rc<RefCell<World>>,
    pub own: Times,
    pub server: Times,
}

fn timers(times: &Times) -> impl Iterator<Item = Timer> {
    (0..).zip(times).map(|(number, &(after, every))| Timer { number, after, every })
}

impl Protocol for Alarms {
    type Session = usize;

    fn start(&mut self, post: &mut Post) {
        for timer in timers(&self.server) {
            self.world.borrow_mut().timer_set(None, &timer);
            post.set_timer(timer);
        }
    }

    fn open(&mut self, reply: &mut impl Reply) -> usize {
        let number = number_of(reply.peer());
        for timer in timers(&self.own) {
            self.world.borrow_mut().timer_set(Some(number), &timer);
            reply.set_timer(timer);
        }
        number
    }

    fn receive(&mut self, _session: &mut usize, input: &[u8], reply: &mut impl Reply) {
        reply.send(input);
    }

    fn close(&mut self, session: usize, _id: SessionId, _post: &mut Post) {
        self.world.borrow_mut().timers_gone(session);
    }

    fn on_timer(&mut self, &mut number: &mut usize, timer: u32, reply: &mut impl Reply) {
        self.world.borrow_mut().timer_came(Some(number), timer);
        match timer % 8 {
            0 => reply.send(b"ALARM\n"),
            1 => {
                let again = Timer::once(timer, Duration::from_millis(7));
                self.world.borrow_mut().timer_set(Some(number), &again);
                reply.set_timer(again);
            }
            2 => {
                self.world.borrow_mut().timer_cancelled(Some(number), timer + 1);
                reply.cancel_timer(timer + 1);
            }
            3 => {
                self.world.borrow_mut().socket(number).has_asked_to_close = true;
                reply.close();
            }
            _ => {}
        }
    }

    fn on_server_timer(&mut self, timer: u32, _post: &mut Post) {
        self.world.borrow_mut().timer_came(None, timer);
    }
}

/// Echo that takes a limited number of bytes between two times of a timer.
pub struct Hoard {
    pub world: Rc<RefCell<World>>,
    pub most_bytes: usize,
    pub every: Duration,
    pub taken_bytes: usize,
    pub waiting: Vec<SessionId>,
}

impl Protocol for Hoard {
    type Session = ();

    fn start(&mut self, post: &mut Post) {
        let timer = Timer::every(1, self.every);
        self.world.borrow_mut().timer_set(None, &timer);
        post.set_timer(timer);
    }

    fn open(&mut self, _reply: &mut impl Reply) {}

    fn receive(&mut self, (): &mut (), input: &[u8], reply: &mut impl Reply) {
        self.taken_bytes += input.len();
        self.world.borrow_mut().is_hoard_full = self.taken_bytes >= self.most_bytes;
        reply.send(input);
    }

    fn on_server_timer(&mut self, timer: u32, post: &mut Post) {
        let mut world = self.world.borrow_mut();
        world.timer_came(None, timer);
        world.is_hoard_full = false;
        self.taken_bytes = 0;
        self.waiting.drain(..).for_each(|id| post.resume(id));
    }

    fn background(&mut self) -> Option<&mut dyn Background> {
        Some(self)
    }
}

impl Background for Hoard {
    fn can_receive(&mut self, id: SessionId) -> bool {
        if self.taken_bytes < self.most_bytes {
            return true;
        }
        self.waiting.push(id);
        false
    }
}
