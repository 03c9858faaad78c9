//! How connections come about: listening, calling, answering, accepting.
//!
//! A call takes one round trip. The listener's kernel answers even when its process is paused; it refuses when nobody listens.
//! Through a partition or to a host without power the first packet is repeated after 1, 3, 7, .. s, as in Linux. The callee
//! may accept when the caller's last word of the handshake has arrived, which travels ahead of the caller's first data.

use super::conn::{Conn, ConnId, Dial, End, Life, Load, Pipe, Side};
use super::core::{Core, Door, Event};
use super::trace::Note;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::task::{Context, Poll};
use std::time::Duration;

impl Core {
    /// Opens a listening socket of `life`; gives its port.
    pub(super) fn listen(&mut self, life: Life, port: u16) -> io::Result<u16> {
        if !self.is_current(life) {
            return Err(dead());
        }
        let port = if port == 0 {
            self.free_port(life.host)
        } else {
            port
        };
        if self.doors.contains_key(&(life.host, port)) {
            return Err(ErrorKind::AddrInUse.into());
        }
        let door = Door {
            life,
            queue: VecDeque::new(),
            waker: None,
        };
        self.doors.insert((life.host, port), door);
        Ok(port)
    }

    /// Closes a listening socket; what waits there is reset.
    pub(super) fn close_door(&mut self, life: Life, port: u16) {
        let key = (life.host, port);
        if self.doors.get(&key).is_none_or(|door| door.life != life) {
            return;
        }
        let queue = self.doors.remove(&key).map(|door| door.queue);
        for conn in queue.into_iter().flatten() {
            self.close(conn, Side::Callee);
        }
    }

    /// The next connection at a listening socket, and the caller's host and port.
    pub(super) fn poll_accept(
        &mut self,
        life: Life,
        port: u16,
        context: &Context<'_>,
    ) -> Poll<io::Result<(ConnId, String)>> {
        let Some(door) = self.doors.get_mut(&(life.host, port)) else {
            return Poll::Ready(Err(dead()));
        };
        if door.life != life {
            return Poll::Ready(Err(dead()));
        }
        while let Some(id) = door.queue.pop_front() {
            if let Some(conn) = self.conns.get_mut(&id) {
                conn.end(Side::Callee).held = true;
                let (host, port) = (conn.host(Side::Caller), conn.end(Side::Caller).port);
                return Poll::Ready(Ok((id, format!("{}:{port}", self.name(host)))));
            }
        }
        door.waker = Some(context.waker().clone());
        Poll::Pending
    }

    /// Sends the first packet of a connection from `life` to `name:port`.
    pub(super) fn dial(&mut self, life: Life, name: &str, port: u16) -> io::Result<ConnId> {
        if !self.is_current(life) {
            return Err(dead());
        }
        let Some(to) = self.host(name) else {
            let reason = format!("there is no host {name}");
            return Err(io::Error::new(ErrorKind::HostUnreachable, reason));
        };
        let caller = End::new(life, self.free_port(life.host));
        let mut callee = End::new(
            Life {
                host: to,
                incarnation: 0,
            },
            port,
        );
        // Nobody owns the other socket before the first packet arrives.
        callee.open = false;
        callee.held = false;
        let started = self.now();
        let id = self.add_conn(Conn {
            ends: [caller, callee],
            pipes: [Pipe::default(), Pipe::default()],
            dial: Dial {
                started,
                ..Dial::default()
            },
        });
        let latency = self.latency(life.host, to);
        self.schedule(started + latency, Event::Syn(id));
        Ok(id)
    }

    /// How the attempt ended.
    pub(super) fn poll_dial(&mut self, id: ConnId, context: &Context<'_>) -> Poll<io::Result<()>> {
        let Some(conn) = self.conns.get_mut(&id) else {
            return Poll::Ready(Err(dead()));
        };
        match conn.dial.outcome {
            Some(outcome) => Poll::Ready(outcome.map_err(io::Error::from)),
            None if !conn.ends[0].open => Poll::Ready(Err(dead())),
            None => {
                conn.dial.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// The caller that still waits for connection `id`, and the host it called; forgets a connection nobody waits for.
    fn calling(&mut self, id: ConnId) -> Option<&mut Conn> {
        let waits = |conn: &Conn| conn.ends[0].open && conn.dial.outcome.is_none();
        if !self.conns.get(&id).is_some_and(waits) {
            return None;
        }
        self.conns.get_mut(&id)
    }

    /// The first packet arrives: the kernel answers, unless packets are dropped or the backlog is full.
    pub(super) fn on_syn(&mut self, id: ConnId) {
        let Some(conn) = self.calling(id) else {
            return self.abandon(id);
        };
        let (from, to, port) = (
            conn.host(Side::Caller),
            conn.host(Side::Callee),
            conn.ends[1].port,
        );
        let full = self.full.contains(&to)
            || self
                .doors
                .get(&(to, port))
                .is_some_and(|door| door.queue.len() >= self.config.backlog_len_max);
        if full || !self.is_up(to) || self.blocked(from, to) {
            return self.repeat_syn(id);
        }
        let life = self.doors.get(&(to, port)).map(|door| door.life);
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.dial.refused = life.is_none();
            if let Some(life) = life {
                let callee = conn.end(Side::Callee);
                callee.life = life;
                callee.open = true;
            }
        }
        let latency = self.latency(to, from);
        self.schedule(self.now() + latency, Event::Answer(id));
    }

    /// The answer arrives: the caller is connected, or refused.
    pub(super) fn on_answer(&mut self, id: ConnId) {
        let Some(conn) = self.calling(id) else {
            return self.abandon(id);
        };
        let (from, to, refused) = (
            conn.host(Side::Caller),
            conn.host(Side::Callee),
            conn.dial.refused,
        );
        if self.blocked(to, from) {
            return self.repeat_syn(id);
        }
        if refused {
            self.counters.refused += 1;
            self.note(Note::Refused(self.pair(from, to)));
            return self.settle(id, Err(ErrorKind::ConnectionRefused));
        }
        self.counters.connects += 1;
        self.note(Note::Connected(self.pair(from, to)));
        self.settle(id, Ok(()));
        self.transmit(id, Side::Caller, Load::Open);
    }

    /// The attempt has lasted too long.
    pub(super) fn on_dial_end(&mut self, id: ConnId) {
        let Some(conn) = self.calling(id) else {
            return self.abandon(id);
        };
        let (from, to) = (conn.host(Side::Caller), conn.host(Side::Callee));
        self.counters.connect_timeouts += 1;
        self.note(Note::ConnectTimedOut(self.pair(from, to)));
        self.settle(id, Err(ErrorKind::TimedOut));
    }

    /// Ends the attempt and tells the caller.
    fn settle(&mut self, id: ConnId, outcome: Result<(), ErrorKind>) {
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        conn.dial.outcome = Some(outcome);
        let waker = conn.dial.waker.take();
        if outcome.is_err() {
            conn.end(Side::Callee).open = false;
        }
        self.wake(waker);
    }

    /// The caller has gone before it was connected: the callee's socket, if any, ends with it.
    fn abandon(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(&id)
            && !conn.ends[0].open
        {
            conn.end(Side::Callee).open = false;
        }
        self.forget_if_over(id);
    }

    /// The first packet or its answer was dropped: it is sent again 1, 3, 7, .. s after the first time.
    fn repeat_syn(&mut self, id: ConnId) {
        let (retry, timeout) = (self.config.syn_retry, self.config.connect_timeout);
        let now = self.now();
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        conn.dial.tries += 1;
        let (started, tries) = (conn.dial.started, conn.dial.tries);
        let (from, to) = (conn.host(Side::Caller), conn.host(Side::Callee));
        if tries == 1 {
            self.counters.hangs += 1;
            self.note(Note::Hangs(self.pair(from, to)));
        }
        let waited = retry.saturating_mul(2u32.saturating_pow(tries).saturating_sub(1));
        if waited >= timeout {
            self.schedule((started + timeout).max(now), Event::DialEnd(id));
            return;
        }
        let latency = self.latency(from, to);
        let sent: Duration = (started + waited).max(now);
        self.schedule(sent + latency, Event::Syn(id));
    }
}

/// The answer to every call of a process that has ended.
pub(super) fn dead() -> io::Error {
    io::Error::new(ErrorKind::ConnectionAborted, "this process has ended")
}
