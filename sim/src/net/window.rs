//! A direction's window: how much a writer may have under way or unread, and how it learns of reads.
//!
//! While a writer does not wait, that costs no events: reads leave dated releases, and the writer looks at them when it
//! writes. A writer that waits wakes when the next release reaches it; if there is none, or the way back is blocked, it probes
//! every `rto_max`, as TCP's persist timer does, and fails when it has heard nothing for `give_up`.

use super::conn::{ConnId, Side};
use super::core::{Core, Event};

impl Core {
    /// Bytes that `side` may write now.
    pub(super) fn room(&mut self, id: ConnId, side: Side) -> usize {
        let (now, window) = (self.now(), self.config.window_bytes);
        let Some((from, to)) = self.route(id, side) else {
            return 0;
        };
        let deaf = self.blocked(to, from);
        let Some(conn) = self.conns.get_mut(&id) else {
            return 0;
        };
        let pipe = conn.pipe(side);
        while !deaf
            && let Some((at, len)) = pipe.releases.front().copied()
            && at <= now
        {
            pipe.outstanding -= len;
            pipe.releases.pop_front();
        }
        window.saturating_sub(pipe.outstanding)
    }

    /// `reader` has read `len` bytes; its peer learns of it after the way back.
    pub(super) fn release(&mut self, id: ConnId, reader: Side, len: usize) {
        let now = self.now();
        let writer = reader.peer();
        let Some((from, to)) = self.route(id, reader) else {
            return;
        };
        let link = self.links.get(&(from, to));
        let back = link.map_or(self.config.loopback.min, |link| link.latency(now));
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        let waits = conn.end(writer).writer.is_some();
        let releases = &mut conn.pipe(writer).releases;
        match releases.back_mut() {
            Some((at, sum)) if *at >= now + back => *sum += len,
            _ => releases.push_back((now + back, len)),
        }
        if waits {
            self.arm_room(id, writer);
        }
    }

    /// Sees to it that `side`, which waits to write, looks at its window when it may have changed.
    pub(super) fn arm_room(&mut self, id: ConnId, side: Side) {
        let (now, probe) = (self.now(), self.config.rto_max);
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        let pipe = conn.pipe(side);
        // A moment that has passed means that the way back is blocked: ask again later.
        let next = pipe.releases.front().map(|(at, _)| *at);
        let at = next.filter(|at| *at > now).unwrap_or(now + probe);
        if pipe.room_at.is_none_or(|armed| at < armed) {
            pipe.room_at = Some(at);
            self.schedule(at, Event::Room(id, side));
        }
    }

    /// A writer that waits looks at its window, or probes.
    pub(super) fn on_room(&mut self, id: ConnId, side: Side) {
        let now = self.now();
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        if conn.pipe(side).room_at.is_none_or(|at| at > now) {
            return; // An earlier look has taken its place.
        }
        conn.pipe(side).room_at = None;
        if conn.end(side).writer.is_none() || !conn.end(side).alive() {
            return;
        }
        if self.room(id, side) > 0 {
            self.wake_end(id, side, false);
        } else if self.probe(id, side) {
            self.arm_room(id, side);
        }
    }

    /// Asks the peer whether it is there; false when the connection has failed.
    fn probe(&mut self, id: ConnId, side: Side) -> bool {
        let (now, give_up) = (self.now(), self.config.give_up);
        let Some((from, to)) = self.route(id, side) else {
            return false;
        };
        let silent = !self.is_up(to) || self.blocked(from, to) || self.blocked(to, from);
        let Some(conn) = self.conns.get_mut(&id) else {
            return false;
        };
        if !silent {
            conn.pipe(side).probe_lost = None;
            // A kernel that does not know the connection answers a probe with a reset.
            if !conn.end(side.peer()).alive() {
                self.send_rst(id, side);
            }
            return true;
        }
        let since = *conn.pipe(side).probe_lost.get_or_insert(now);
        if now - since >= give_up {
            self.give_up(id, side);
            return false;
        }
        true
    }
}
