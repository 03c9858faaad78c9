//! The network's one state, its event queue and its chances.
//!
//! Events are handled by one task, the pump, at their exact moment. A task and not timer callbacks, because a callback runs
//! under madsim's timer lock and could arm no further timer; one task and not one per connection, because a wake-up costs
//! more than everything else here. Whoever schedules an event earlier than all armed ones arms the pump's timer itself,
//! so the pump is polled once per moment at which something happens, and never to re-arm.
//!
//! Wakers and notes are collected while the state is locked and used after it is released.

use super::config::NetConfig;
use super::conn::{Conn, ConnId, Conns, HostId, Life, Side};
use super::link::Link;
use super::trace::{Counters, HostName, NetTrace, Note, Pair};
use crate::alarm::arm;
use madsim::time::TimeHandle;
use node::rt::Rngs;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// First of the ports that callers and port 0 get.
const EPHEMERAL_PORT_MIN: u16 = 32_768;

/// Something that happens at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    /// The first packet of a connection arrives.
    Syn(ConnId),
    /// The answer to it arrives.
    Answer(ConnId),
    /// The attempt has lasted too long.
    DialEnd(ConnId),
    /// The first segment sent by the side arrives.
    Arrive(ConnId, Side),
    /// The side, which waits to write, learns of room or probes for it.
    Room(ConnId, Side),
    /// A reset arrives at the side.
    Rst(ConnId, Side),
    /// The side has waited long enough for an acknowledgement that was dropped.
    AckLost(ConnId, Side),
    /// A clog of a swizzle begins; it ends at the moment given.
    Clog(HostId, HostId, Duration),
    /// A clog may have ended.
    Unclog(HostId, HostId),
}

/// A host, its kernel and the life of its process.
pub(super) struct Host {
    /// Its name.
    pub(super) name: HostName,
    /// It has power.
    pub(super) up: bool,
    /// Processes that have ended.
    pub(super) incarnation: u32,
    /// The port the next caller gets.
    next_port: u16,
}

/// A listening socket.
pub(super) struct Door {
    /// The process that owns it.
    pub(super) life: Life,
    /// Connections that wait to be accepted.
    pub(super) queue: VecDeque<ConnId>,
    /// Who waits for one.
    pub(super) waker: Option<Waker>,
}

/// The streams of chance, one per purpose.
pub(super) struct Dice {
    /// Jitter and tails.
    latency: ChaCha8Rng,
    /// Which transmissions are lost.
    loss: ChaCha8Rng,
    /// Which reads and writes are cut short, and where.
    partial: ChaCha8Rng,
    /// Which bits flip.
    pub(super) flip: ChaCha8Rng,
    /// Whom a swizzle hits, and when.
    pub(super) swizzle: ChaCha8Rng,
}

/// Everything the network knows.
pub(super) struct Core {
    /// Its calm behaviour.
    pub(super) config: NetConfig,
    /// Where links get their permanent latency from.
    rngs: Rngs,
    /// Chance.
    pub(super) dice: Dice,
    /// Hosts by number.
    pub(super) hosts: Vec<Host>,
    /// Numbers by name.
    names: BTreeMap<HostName, HostId>,
    /// Ordered pairs of different hosts.
    pub(super) links: BTreeMap<(HostId, HostId), Link>,
    /// Connections that are not over.
    pub(super) conns: Conns,
    /// Hosts whose table of connections is full.
    pub(super) full: BTreeSet<HostId>,
    /// Listening sockets by host and port.
    pub(super) doors: BTreeMap<(HostId, u16), Door>,
    /// What is scheduled, by moment and then in the order of scheduling.
    events: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    /// Number of the next event.
    next_event: u64,
    /// Moments for which madsim holds a timer of the pump.
    armed: BTreeSet<Duration>,
    /// The pump.
    pump: Option<Waker>,
    /// The simulation's time.
    time: TimeHandle,
    /// To be woken when the lock is released.
    wakes: Vec<Waker>,
    /// To be told when the lock is released.
    notes: Vec<(Duration, Note)>,
    /// What happened so far.
    pub(super) counters: Counters,
    /// The network has ended; so does the pump.
    pub(super) ended: bool,
}

/// The network as its users share it.
pub(super) struct Shared {
    /// The state.
    core: Mutex<Core>,
    /// Who is told.
    trace: NetTrace,
}

impl Shared {
    /// An empty network. Call inside the runtime.
    pub(super) fn new(config: NetConfig, rngs: &Rngs, trace: NetTrace) -> Arc<Self> {
        let core = Mutex::new(Core::new(config, rngs));
        Arc::new(Shared { core, trace })
    }

    /// Runs `work` on the state; then wakes and tells.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Core) -> T) -> T {
        // Poisoned by a panic that already ends the run: the streams that it drops still come here.
        let mut core = self.core.lock().unwrap_or_else(PoisonError::into_inner);
        let result = work(&mut core);
        let wakes = std::mem::take(&mut core.wakes);
        let notes = std::mem::take(&mut core.notes);
        drop(core);
        wakes.into_iter().for_each(Waker::wake);
        for (at, note) in &notes {
            (self.trace)(*at, note);
        }
        result
    }

    /// Handles what is due. Ready when the network has ended.
    pub(super) fn poll_pump(&self, context: &mut Context<'_>) -> Poll<()> {
        self.with(|core| core.pump(context.waker()))
    }
}

impl Core {
    /// Nothing there yet.
    fn new(config: NetConfig, rngs: &Rngs) -> Self {
        Core {
            config,
            rngs: rngs.clone(),
            dice: Dice {
                latency: rngs.stream("net.latency"),
                loss: rngs.stream("net.loss"),
                partial: rngs.stream("net.partial"),
                flip: rngs.stream("net.flip"),
                swizzle: rngs.stream("net.swizzle"),
            },
            hosts: Vec::new(),
            names: BTreeMap::new(),
            links: BTreeMap::new(),
            conns: Conns::default(),
            full: BTreeSet::new(),
            doors: BTreeMap::new(),
            events: BinaryHeap::new(),
            next_event: 0,
            armed: BTreeSet::new(),
            pump: None,
            time: TimeHandle::current(),
            wakes: Vec::new(),
            notes: Vec::new(),
            counters: Counters::default(),
            ended: false,
        }
    }

    /// The simulation's time. It stands still while a task runs.
    pub(super) fn now(&self) -> Duration {
        self.time.elapsed()
    }

    /// The number of `name`; the host is added when it is new, up and with links to all others.
    pub(super) fn add_host(&mut self, name: &str) -> HostId {
        if let Some(id) = self.names.get(name) {
            return *id;
        }
        let id = HostId(u16::try_from(self.hosts.len()).expect("fewer than 65536 hosts"));
        let name: HostName = name.into();
        for other in self.names.clone().into_values() {
            let other_name = self.name(other);
            self.add_link((id, &name), (other, &other_name));
            self.add_link((other, &other_name), (id, &name));
        }
        self.names.insert(Arc::clone(&name), id);
        self.hosts.push(Host {
            name,
            up: true,
            incarnation: 0,
            next_port: EPHEMERAL_PORT_MIN,
        });
        id
    }

    /// Adds one direction; its latency depends on the two names alone, not on who was added when.
    fn add_link(&mut self, from: (HostId, &str), to: (HostId, &str)) {
        let mut rng = self.rngs.stream(&format!("net.base.{}>{}", from.1, to.1));
        let base = self.config.base.draw(&mut rng);
        self.links
            .insert((from.0, to.0), Link::new(&self.config, base));
    }

    /// The number of `name`, if there is such a host.
    pub(super) fn host(&self, name: &str) -> Option<HostId> {
        self.names.get(name).copied()
    }

    /// The name of `host`.
    pub(super) fn name(&self, host: HostId) -> HostName {
        Arc::clone(&self.hosts[usize::from(host.0)].name)
    }

    /// True when neither `life` nor the network has ended.
    pub(super) fn is_current(&self, life: Life) -> bool {
        let host = &self.hosts[usize::from(life.host.0)];
        !self.ended && host.up && host.incarnation == life.incarnation
    }

    /// True when `host` has power.
    pub(super) fn is_up(&self, host: HostId) -> bool {
        self.hosts[usize::from(host.0)].up
    }

    /// True when packets from `from` to `to` are dropped now.
    pub(super) fn blocked(&self, from: HostId, to: HostId) -> bool {
        let now = self.now();
        let link = self.links.get(&(from, to));
        link.is_some_and(|link| link.blocked(now))
    }

    /// A port of `host` that nobody listens on.
    pub(super) fn free_port(&mut self, host: HostId) -> u16 {
        loop {
            let next = &mut self.hosts[usize::from(host.0)].next_port;
            let port = *next;
            *next = port.checked_add(1).unwrap_or(EPHEMERAL_PORT_MIN);
            if !self.doors.contains_key(&(host, port)) {
                return port;
            }
        }
    }

    /// Keeps `conn` under a new number.
    pub(super) fn add_conn(&mut self, conn: Conn) -> ConnId {
        self.conns.add(conn)
    }

    /// Latency of one packet from `from` to `to`, with its chance.
    pub(super) fn latency(&mut self, from: HostId, to: HostId) -> Duration {
        let Some(link) = self.links.get(&(from, to)) else {
            return self.config.loopback.draw(&mut self.dice.latency);
        };
        let base = link.latency(self.time.elapsed());
        let jitter = self
            .config
            .jitter
            .mul_f64(self.dice.latency.random::<f64>());
        let late = chance(&mut self.dice.latency, self.config.tail_chance);
        let tail = if late {
            self.config.tail.draw(&mut self.dice.latency)
        } else {
            Duration::ZERO
        };
        base + jitter + tail
    }

    /// By how much a segment is late because transmissions of it were lost.
    pub(super) fn loss_delay(&mut self, from: HostId, to: HostId) -> Duration {
        let Some(link) = self.links.get(&(from, to)) else {
            return Duration::ZERO;
        };
        let loss = link.loss;
        let (mut delay, mut wait) = (Duration::ZERO, self.config.rto_min);
        while chance(&mut self.dice.loss, loss) && delay < self.config.give_up {
            delay += wait;
            wait = (wait * 2).min(self.config.rto_max);
            self.counters.retransmits += 1;
        }
        delay
    }

    /// How many of `len` bytes a read or write does: all, or by chance fewer, but at least one.
    pub(super) fn cut_short(&mut self, len: usize) -> usize {
        if len > 1 && chance(&mut self.dice.partial, self.config.partial_chance) {
            self.counters.partial += 1;
            return self.dice.partial.random_range(1..len);
        }
        len
    }

    /// Wakes `waker` when the lock is released.
    pub(super) fn wake(&mut self, waker: Option<Waker>) {
        self.wakes.extend(waker);
    }

    /// Tells `note` when the lock is released.
    pub(super) fn note(&mut self, note: Note) {
        self.notes.push((self.now(), note));
    }

    /// The names of two hosts.
    pub(super) fn pair(&self, from: HostId, to: HostId) -> Pair {
        Pair {
            from: self.name(from),
            to: self.name(to),
        }
    }

    /// Lets `event` happen at `at`.
    pub(super) fn schedule(&mut self, at: Duration, event: Event) {
        let number = self.next_event;
        self.next_event += 1;
        self.events.push(Reverse((at, number, event)));
        if self.armed.first().is_none_or(|first| at < *first) {
            self.arm(at);
        }
    }

    /// Arms the pump's timer for `at`, if the pump has started.
    fn arm(&mut self, at: Duration) {
        if let Some(pump) = &self.pump {
            self.armed.insert(at);
            arm(&self.time, at, pump);
        }
    }

    /// Handles the events that are due, and sees to it that the next one will be.
    fn pump(&mut self, waker: &Waker) -> Poll<()> {
        if !self
            .pump
            .as_ref()
            .is_some_and(|known| known.will_wake(waker))
        {
            self.pump = Some(waker.clone());
            self.armed.clear();
        }
        while !self.ended
            && let Some(event) = self.pop_due()
        {
            self.counters.events += 1;
            self.handle(event);
        }
        if self.ended {
            return Poll::Ready(());
        }
        if let Some(Reverse((at, ..))) = self.events.peek().copied()
            && self.armed.first().is_none_or(|first| at < *first)
        {
            self.arm(at);
        }
        Poll::Pending
    }

    /// The next event whose moment has come. Timers up to now have fired.
    fn pop_due(&mut self) -> Option<Event> {
        let now = self.now();
        while self.armed.first().is_some_and(|first| *first <= now) {
            self.armed.pop_first();
        }
        let Reverse((at, ..)) = self.events.peek()?;
        if *at > now {
            return None;
        }
        self.events.pop().map(|Reverse((_, _, event))| event)
    }

    /// Lets `event` happen.
    fn handle(&mut self, event: Event) {
        match event {
            Event::Syn(conn) => self.on_syn(conn),
            Event::Answer(conn) => self.on_answer(conn),
            Event::DialEnd(conn) => self.on_dial_end(conn),
            Event::Arrive(conn, side) => self.on_arrive(conn, side),
            Event::Room(conn, side) => self.on_room(conn, side),
            Event::Rst(conn, side) => self.on_rst(conn, side),
            Event::AckLost(conn, side) => self.on_ack_lost(conn, side),
            Event::Clog(from, to, until) => self.clog(from, to, until),
            Event::Unclog(from, to) => self.on_unclog(from, to),
        }
    }

    /// Forgets everything, so that no waker keeps a task and no task keeps the network.
    pub(super) fn end(&mut self) {
        self.ended = true;
        let conns = std::mem::take(&mut self.conns);
        for mut conn in conns.into_values() {
            for end in &mut conn.ends {
                self.wakes.extend(end.reader.take());
                self.wakes.extend(end.writer.take());
            }
            self.wakes.extend(conn.dial.waker.take());
        }
        for (_, mut door) in std::mem::take(&mut self.doors) {
            self.wakes.extend(door.waker.take());
        }
        self.events.clear();
        self.wakes.extend(self.pump.take());
    }
}

/// True with probability `share`; draws nothing when it cannot be.
pub(super) fn chance(rng: &mut ChaCha8Rng, share: f64) -> bool {
    share > 0.0 && rng.random_bool(share.min(1.0))
}
