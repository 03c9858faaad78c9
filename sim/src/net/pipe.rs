//! How bytes travel: order, loss, retransmission, resets.
//!
//! Only the first segment of a direction has an event, so a connection under partition costs one event per
//! retransmission, whatever waits behind it. A segment passes if its link is open when it is sent and when it arrives and the
//! host there has power; otherwise it is sent again with doubling waits until `give_up`, then the sender's end fails.
//! Acknowledgements cost no events; only one that is dropped leads to a later look at whether the way back is open again.
//!
//! Left out: congestion windows (a link's bandwidth is shared in order of sending), reordering (TCP hides it), and
//! the packets of one segment (loss is drawn per segment of at most 64 KiB).

use super::conn::{Conn, ConnId, HostId, Load, Pipe, Segment, Side};
use super::core::{Core, Event, chance};
use super::dial::dead;
use super::trace::Note;
use bytes::{Buf, Bytes};
use rand::Rng;
use std::io::{self, ErrorKind};
use std::task::{Context, Poll};
use tokio::io::ReadBuf;

/// A write takes at most this.
const SEGMENT_BYTES_MAX: usize = 64 << 10;

impl Core {
    /// Writes a part of `buffer`, or waits for room.
    pub(super) fn poll_write(
        &mut self,
        id: ConnId,
        side: Side,
        buffer: &[u8],
        context: &Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if let Some(error) = self.write_error(id, side) {
            return Poll::Ready(Err(error));
        }
        if buffer.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let room = self.room(id, side);
        if room == 0 {
            self.counters.window_stalls += 1;
            if let Some(conn) = self.conns.get_mut(&id) {
                conn.end(side).writer = Some(context.waker().clone());
            }
            self.arm_room(id, side);
            return Poll::Pending;
        }
        let len = self.cut_short(buffer.len().min(room).min(SEGMENT_BYTES_MAX));
        self.transmit(id, side, Load::Data(Bytes::copy_from_slice(&buffer[..len])));
        Poll::Ready(Ok(len))
    }

    /// Why `side` cannot write, if it cannot.
    fn write_error(&mut self, id: ConnId, side: Side) -> Option<io::Error> {
        let Some(conn) = self.conns.get_mut(&id) else {
            return Some(dead());
        };
        let end = conn.end(side);
        if !end.open {
            return Some(dead());
        }
        if let Some(error) = end.error {
            let told = std::mem::replace(&mut end.told, true);
            return Some(if told {
                ErrorKind::BrokenPipe.into()
            } else {
                error.into()
            });
        }
        end.shut.then(|| ErrorKind::BrokenPipe.into())
    }

    /// Reads what there is, or waits for some.
    pub(super) fn poll_read(
        &mut self,
        id: ConnId,
        side: Side,
        buffer: &mut ReadBuf<'_>,
        context: &Context<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(conn) = self.conns.get_mut(&id) else {
            return Poll::Ready(Err(dead()));
        };
        let end = conn.end(side);
        if !end.open {
            return Poll::Ready(Err(dead()));
        }
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if !end.unread.is_empty() {
            let there = up_to(buffer.remaining(), end.unread.iter());
            let len = self.cut_short(there);
            self.take_unread(id, side, buffer, len);
            self.release(id, side, len);
            return Poll::Ready(Ok(()));
        }
        if let Some(error) = end.error {
            return Poll::Ready(Err(error.into()));
        }
        if !end.eof {
            end.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    /// Moves `len` unread bytes of `side` to `buffer`.
    fn take_unread(&mut self, id: ConnId, side: Side, buffer: &mut ReadBuf<'_>, mut len: usize) {
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        let unread = &mut conn.end(side).unread;
        while len > 0
            && let Some(front) = unread.front_mut()
        {
            let part = front.len().min(len);
            buffer.put_slice(&front[..part]);
            front.advance(part);
            len -= part;
            if front.is_empty() {
                unread.pop_front();
            }
        }
    }

    /// Ends the direction of `side` after what it has written.
    pub(super) fn shutdown(&mut self, id: ConnId, side: Side) -> io::Result<()> {
        let Some(conn) = self.conns.get_mut(&id) else {
            return Err(dead());
        };
        let end = conn.end(side);
        if !end.open {
            return Err(dead());
        }
        if end.error.is_none() && !std::mem::replace(&mut end.shut, true) {
            self.transmit(id, side, Load::Fin);
        }
        Ok(())
    }

    /// The hosts that `side` of `id` sends from and to.
    pub(super) fn route(&self, id: ConnId, side: Side) -> Option<(HostId, HostId)> {
        let conn = self.conns.get(&id)?;
        Some((conn.host(side), conn.host(side.peer())))
    }

    /// Sends `load` behind everything that `side` has sent.
    pub(super) fn transmit(&mut self, id: ConnId, side: Side, load: Load) {
        let now = self.now();
        let Some((from, to)) = self.route(id, side) else {
            return;
        };
        let mut at = match self.links.get_mut(&(from, to)) {
            Some(link) => link.depart(now, load.len()),
            None => now,
        };
        at += self.latency(from, to) + self.loss_delay(from, to);
        let lost = self.blocked(from, to);
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        let pipe = conn.pipe(side);
        at = at.max(pipe.last_at);
        pipe.last_at = at;
        pipe.outstanding += load.len();
        pipe.wire.push_back(Segment { at, lost, load });
        if !std::mem::replace(&mut pipe.moving, true) {
            self.schedule(at, Event::Arrive(id, side));
        }
    }

    /// The first segment of `side` arrives, and those that have caught up with it.
    pub(super) fn on_arrive(&mut self, id: ConnId, side: Side) {
        let now = self.now();
        let Some((from, to)) = self.route(id, side) else {
            return;
        };
        let open = self.is_up(to) && !self.blocked(from, to);
        loop {
            let Some(conn) = self.conns.get_mut(&id) else {
                return;
            };
            let pipe = conn.pipe(side);
            let Some(front) = pipe.wire.front_mut() else {
                pipe.moving = false;
                return self.forget_if_over(id);
            };
            if front.at > now {
                let at = front.at;
                return self.schedule(at, Event::Arrive(id, side));
            }
            if std::mem::take(&mut front.lost) || !open {
                return self.retransmit(id, side);
            }
            if pipe.tries > 0 {
                // The acknowledgement of what was sent again opens the window: everything lost in the same outage follows at
                // once, not one segment per time-out.
                pipe.wire
                    .iter_mut()
                    .for_each(|segment| segment.lost = false);
            }
            pipe.tries = 0;
            pipe.lost_since = None;
            let load = pipe.wire.pop_front().map(|segment| segment.load);
            if let Some(load) = load {
                self.deliver(id, side, load);
            }
        }
    }

    /// The first segment was dropped: again later, or never.
    fn retransmit(&mut self, id: ConnId, side: Side) {
        let now = self.now();
        let (first, longest, give_up) = (
            self.config.rto_min,
            self.config.rto_max,
            self.config.give_up,
        );
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        let pipe = conn.pipe(side);
        let since = *pipe.lost_since.get_or_insert(now);
        if now - since >= give_up {
            pipe.moving = false;
            return self.give_up(id, side);
        }
        let wait = first.saturating_mul(1 << pipe.tries.min(16)).min(longest);
        pipe.tries += 1;
        self.counters.retransmits += 1;
        self.schedule(now + wait, Event::Arrive(id, side));
    }

    /// `load` has arrived at the peer of `side`.
    fn deliver(&mut self, id: ConnId, side: Side, load: Load) {
        let receiver = side.peer();
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        let end = conn.end(receiver);
        match load {
            Load::Fin => {
                end.eof = true;
                self.wake_end(id, receiver, true);
            }
            // Data to a socket that is no more: its kernel does not know the connection.
            Load::Data(_) | Load::Open if !end.alive() => self.send_rst(id, side),
            Load::Open => self.queue_for_accept(id),
            Load::Data(bytes) => self.deliver_data(id, side, bytes),
        }
    }

    /// Puts the connection where it can be accepted.
    fn queue_for_accept(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(&id) else {
            return;
        };
        let end = &conn.ends[Side::Callee.index()];
        let (life, key) = (end.life, (end.life.host, end.port));
        match self.doors.get_mut(&key) {
            Some(door) if door.life == life => {
                door.queue.push_back(id);
                let waker = door.waker.take();
                self.wake(waker);
            }
            _ => self.close(id, Side::Callee),
        }
    }

    /// Puts `bytes` before the reader, and sees what becomes of the acknowledgement.
    fn deliver_data(&mut self, id: ConnId, side: Side, bytes: Bytes) {
        let Some((from, to)) = self.route(id, side) else {
            return;
        };
        self.counters.segments += 1;
        self.counters.bytes += bytes.len() as u64;
        let bytes = self.flip(from, to, bytes);
        let deaf = self.blocked(to, from);
        let deadline = self.now() + self.config.give_up;
        let now = self.now();
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        conn.end(side.peer()).unread.push_back(bytes);
        let pipe = conn.pipe(side);
        if deaf && pipe.ack_lost.is_none() {
            pipe.ack_lost = Some(now);
            self.schedule(deadline, Event::AckLost(id, side));
        }
        self.wake_end(id, side.peer(), true);
    }

    /// Perhaps one bit of `bytes` changes.
    fn flip(&mut self, from: HostId, to: HostId, bytes: Bytes) -> Bytes {
        let share = self
            .links
            .get(&(from, to))
            .map_or(0.0, |link| link.flip_chance);
        if bytes.is_empty() || !chance(&mut self.dice.flip, share) {
            return bytes;
        }
        self.counters.flips += 1;
        let mut changed = bytes.to_vec();
        let place = self.dice.flip.random_range(0..changed.len());
        changed[place] ^= 1 << self.dice.flip.random_range(0..8);
        changed.into()
    }

    /// Acknowledgements were dropped a `give_up` ago: if the way back has been blocked ever since, the sender has failed.
    pub(super) fn on_ack_lost(&mut self, id: ConnId, side: Side) {
        let now = self.now();
        let Some((from, to)) = self.route(id, side) else {
            return;
        };
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        let since = conn.pipe(side).ack_lost.take().unwrap_or(now);
        let link = self.links.get(&(to, from));
        if link.is_some_and(|link| link.blocked(now) && link.blocked_since <= since) {
            self.give_up(id, side);
        }
    }

    /// `side` has heard nothing for too long: its end fails, and nobody tells the peer.
    pub(super) fn give_up(&mut self, id: ConnId, side: Side) {
        let Some((from, to)) = self.route(id, side) else {
            return;
        };
        let heard = self
            .conns
            .get(&id)
            .is_some_and(|conn| conn.ends[side.index()].open);
        // A socket that was closed before has nobody to tell.
        if heard {
            self.counters.give_ups += 1;
            self.note(Note::GaveUp(self.pair(from, to)));
        }
        self.fail(id, side, ErrorKind::TimedOut);
    }

    /// `side`'s end fails: what it had under way is gone, and whoever waits there is woken.
    pub(super) fn fail(&mut self, id: ConnId, side: Side, error: ErrorKind) {
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        drop_wire(conn.pipe(side));
        if conn.end(side).error.is_none() {
            conn.end(side).error = Some(error);
        }
        self.wake_end(id, side, true);
        self.wake_end(id, side, false);
        self.forget_if_over(id);
    }

    /// The peer of `to` tells `to` that the connection is no more; behind its data, and lost in a partition.
    pub(super) fn send_rst(&mut self, id: ConnId, to: Side) {
        let Some((from_host, to_host)) = self.route(id, to.peer()) else {
            return;
        };
        let latency = self.latency(from_host, to_host);
        let now = self.now();
        let Some(conn) = self.conns.get(&id) else {
            return;
        };
        let at = (now + latency).max(conn.pipes[to.peer().index()].last_at);
        self.schedule(at, Event::Rst(id, to));
    }

    /// A reset arrives at `side`.
    pub(super) fn on_rst(&mut self, id: ConnId, side: Side) {
        let Some((from, to)) = self.route(id, side.peer()) else {
            return;
        };
        if !self.is_up(to) || self.blocked(from, to) {
            return;
        }
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        // Linux answers a write after the peer's end of stream with a broken pipe.
        let end = conn.end(side);
        let error = if end.eof {
            ErrorKind::BrokenPipe
        } else {
            ErrorKind::ConnectionReset
        };
        let news = end.alive();
        if news {
            self.counters.resets += 1;
            self.note(Note::Reset(self.pair(from, to)));
        }
        self.fail(id, side, error);
    }

    /// Wakes the reader (or else the writer) of `side`.
    pub(super) fn wake_end(&mut self, id: ConnId, side: Side, reader: bool) {
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        let end = conn.end(side);
        let waker = if reader {
            end.reader.take()
        } else {
            end.writer.take()
        };
        self.wake(waker);
    }

    /// Forgets `id` when nothing more can happen to it.
    pub(super) fn forget_if_over(&mut self, id: ConnId) {
        if self.conns.get(&id).is_some_and(Conn::is_over) {
            self.conns.remove(&id);
        }
    }
}

/// Takes everything of `pipe` off the wire. Its arrival event finds nothing.
pub(super) fn drop_wire(pipe: &mut Pipe) {
    pipe.wire.clear();
    pipe.lost_since = None;
    pipe.tries = 0;
}

/// Bytes in `parts`, counted until `bound` is reached.
fn up_to<'a>(bound: usize, parts: impl Iterator<Item = &'a Bytes>) -> usize {
    let mut sum = 0;
    for part in parts {
        sum += part.len();
        if sum >= bound {
            return bound;
        }
    }
    sum
}
