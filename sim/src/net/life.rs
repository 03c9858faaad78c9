//! Sockets and hosts end: a stream is dropped, a process is killed, a host loses power and comes back.
//!
//! - Dropped stream: the peer sees the end of the stream after what was written, or a reset if unread data was thrown away.
//! - Killed process: its kernel does that for all its sockets, at once. A later connection is refused until it listens again.
//! - Power loss: silence. Peers notice when they write: a reset once the host is back, or a time-out.
//!
//! A process that has ended can do nothing more: its incarnation number has passed, and every call on its sockets fails.

use super::conn::Load;
use super::conn::{ConnId, HostId, Side};
use super::core::Core;
use super::pipe::drop_wire;
use super::trace::Note;
use std::collections::BTreeSet;
use std::io::ErrorKind;

impl Core {
    /// `side`'s socket is closed by its process or its kernel.
    pub(super) fn close(&mut self, id: ConnId, side: Side) {
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        let connected = matches!(conn.dial.outcome, Some(Ok(())));
        let end = conn.end(side);
        if !std::mem::replace(&mut end.open, false) {
            return;
        }
        let (reader, writer) = (end.reader.take(), end.writer.take());
        // A connection that has failed is forgotten already; its kernel speaks only when asked.
        let speaks = connected && end.error.is_none();
        let rude = !end.unread.is_empty() || !end.held;
        let ended = std::mem::replace(&mut end.shut, true);
        end.unread.clear();
        self.wake(reader);
        self.wake(writer);
        if speaks && rude {
            self.send_rst(id, side.peer());
        } else if speaks && !ended {
            self.transmit(id, side, Load::Fin);
        }
        self.forget_if_over(id);
    }

    /// The process of `host` was killed; the kernel lives.
    pub(super) fn host_killed(&mut self, host: HostId) {
        for (id, side) in self.ends_of(host) {
            self.close(id, side);
        }
        self.end_process(host);
        let note = Note::Killed(self.name(host));
        self.note(note);
    }

    /// `host` has lost power: its sockets vanish without a word.
    pub(super) fn host_power_loss(&mut self, host: HostId) {
        for (id, side) in self.ends_of(host) {
            self.vanish(id, side);
        }
        self.end_process(host);
        self.hosts[usize::from(host.0)].up = false;
        let note = Note::PowerLost(self.name(host));
        self.note(note);
    }

    /// `host` has power (again). Its next process is a new one.
    pub(super) fn host_up(&mut self, host: HostId) {
        let state = &mut self.hosts[usize::from(host.0)];
        if !std::mem::replace(&mut state.up, true) {
            let note = Note::Up(self.name(host));
            self.note(note);
        }
    }

    /// Resets both ends of every connection between `a` and `b`, whoever called; gives how many.
    pub(super) fn reset_pair(&mut self, a: HostId, b: HostId) -> usize {
        let between: Vec<ConnId> = self
            .conns
            .iter()
            .filter(|(_, conn)| matches!(conn.dial.outcome, Some(Ok(()))))
            .filter(|(_, conn)| {
                let hosts = (conn.host(Side::Caller), conn.host(Side::Callee));
                hosts == (a, b) || hosts == (b, a)
            })
            .map(|(id, _)| id)
            .collect();
        for id in &between {
            for side in [Side::Caller, Side::Callee] {
                self.counters.resets += 1;
                self.fail(*id, side, ErrorKind::ConnectionReset);
            }
        }
        self.note(Note::Reset(self.pair(a, b)));
        between.len()
    }

    /// The table of connections of `host` is full: nobody new gets in, and each caller keeps its oldest connection to it alone.
    pub(super) fn fill(&mut self, host: HostId) {
        self.full.insert(host);
        let mut callers = BTreeSet::new();
        let inward = self.conns.iter().filter(|(_, conn)| {
            conn.host(Side::Callee) == host && matches!(conn.dial.outcome, Some(Ok(())))
        });
        // In the order in which they were opened.
        let lost = inward.filter(|(_, conn)| !callers.insert(conn.host(Side::Caller)));
        let lost: Vec<ConnId> = lost.map(|(id, _)| id).collect();
        for id in lost {
            for side in [Side::Caller, Side::Callee] {
                self.counters.resets += 1;
                self.fail(id, side, ErrorKind::ConnectionReset);
            }
        }
    }

    /// The open sockets of `host`.
    fn ends_of(&self, host: HostId) -> Vec<(ConnId, Side)> {
        let sides = [Side::Caller, Side::Callee];
        let ends = self
            .conns
            .iter()
            .flat_map(|(id, conn)| sides.map(|side| (id, side, &conn.ends[side.index()])));
        ends.filter(|(_, _, end)| end.open && end.life.host == host)
            .map(|(id, side, _)| (id, side))
            .collect()
    }

    /// Removes the listening sockets of `host` and starts the next incarnation.
    fn end_process(&mut self, host: HostId) {
        let ports: Vec<u16> = self
            .doors
            .keys()
            .filter(|(of, _)| *of == host)
            .map(|(_, port)| *port)
            .collect();
        for port in ports {
            if let Some(door) = self.doors.remove(&(host, port)) {
                self.wake(door.waker);
            }
        }
        self.hosts[usize::from(host.0)].incarnation += 1;
    }

    /// `side`'s socket is gone without a word.
    fn vanish(&mut self, id: ConnId, side: Side) {
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        drop_wire(conn.pipe(side));
        let end = conn.end(side);
        end.open = false;
        end.shut = true;
        end.unread.clear();
        let (reader, writer) = (end.reader.take(), end.writer.take());
        let dialer = conn.dial.waker.take();
        self.wake(reader);
        self.wake(writer);
        self.wake(dialer);
        self.forget_if_over(id);
    }
}
