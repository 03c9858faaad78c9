//! What the nemesis can do to the network.
//!
//! Blocks are per ordered pair, so they can be asymmetric. A *cut* lasts until healed, a *clog* until its moment; a link is
//! blocked by either. Blocked means that packets are dropped and sent again: delivery resumes at most `rto_max` after
//! the link is open again, and a connection whose end heard nothing for `give_up` fails.

use super::conn::HostId;
use super::core::{Core, Event};
use super::link::Link;
use super::trace::Note;
use super::{Network, known};
use rand::Rng;
use std::time::Duration;

impl Network {
    /// Drops everything from `from` to `to` until healed. The other direction stays.
    pub fn block(&self, from: &str, to: &str) {
        self.on_pair(from, to, Core::cut);
    }

    /// Lets `from` reach `to` again.
    pub fn unblock(&self, from: &str, to: &str) {
        self.on_pair(from, to, Core::heal);
    }

    /// Cuts `host` off from all others, both ways.
    pub fn isolate(&self, host: &str) {
        self.on_host(host, |core, host| core.each_pair_of(host, Core::cut));
    }

    /// Heals every link from and to `host`.
    pub fn rejoin(&self, host: &str) {
        self.on_host(host, |core, host| core.each_pair_of(host, Core::heal));
    }

    /// Cuts every link between hosts of different groups; hosts that are in no group keep all their links.
    pub fn partition(&self, groups: &[&[&str]]) {
        self.shared.with(|core| {
            for (number, group) in groups.iter().enumerate() {
                let others = || {
                    groups
                        .iter()
                        .enumerate()
                        .filter(|(other, _)| *other != number)
                };
                for from in *group {
                    for to in others().flat_map(|(_, other)| other.iter()) {
                        let (from, to) = (known(core, from), known(core, to));
                        core.cut(from, to);
                    }
                }
            }
        });
    }

    /// Heals every cut and clog, and empties every table. Slowness and loss stay; see [`Network::calm_all`].
    pub fn heal_all(&self) {
        self.shared.with(|core| {
            core.full.clear();
            core.each_pair(Core::heal);
        });
    }

    /// Ends every episode of slowness, and gives loss and bit flips their configured share again.
    pub fn calm_all(&self) {
        self.shared.with(|core| {
            core.each_pair(|core, from, to| {
                let (loss, flips) = (core.config.loss, core.config.flip_chance);
                core.change(from, to, |link, _| {
                    link.extra.1 = Duration::ZERO;
                    link.squeezed.1 = Duration::ZERO;
                    link.loss = loss;
                    link.flip_chance = flips;
                });
            });
        });
    }

    /// Drops everything from `from` to `to` for `span`.
    pub fn clog(&self, from: &str, to: &str, span: Duration) {
        self.on_pair(from, to, |core, from, to| {
            let until = core.now() + span;
            core.clog(from, to, until);
        });
    }

    /// Clogs each of `hosts`, both ways, one after another in an order and for times of chance, all healed after `span`
    /// (FoundationDB's swizzle-clogging: links come back in another order than they went).
    pub fn swizzle(&self, hosts: &[&str], span: Duration) {
        self.shared.with(|core| {
            for host in hosts {
                let host = known(core, host);
                core.swizzle_host(host, span);
            }
        });
    }

    /// Resets every connection between `a` and `b` at once, both ends; gives how many.
    pub fn reset(&self, a: &str, b: &str) -> usize {
        self.on_pair(a, b, Core::reset_pair)
    }

    /// Adds `extra` to the latency from `from` to `to` for `span`.
    pub fn slow(&self, from: &str, to: &str, extra: Duration, span: Duration) {
        self.on_pair(from, to, |core, from, to| {
            core.change(from, to, |link, now| link.extra = (extra, now + span));
        });
    }

    /// Allows only `bytes_per_s` from `from` to `to` for `span`.
    pub fn squeeze(&self, from: &str, to: &str, bytes_per_s: u64, span: Duration) {
        self.on_pair(from, to, |core, from, to| {
            core.change(from, to, |link, now| {
                link.squeezed = (bytes_per_s, now + span)
            });
        });
    }

    /// From now on this share of the transmissions from `from` to `to` is lost.
    pub fn set_loss(&self, from: &str, to: &str, share: f64) {
        self.on_pair(from, to, |core, from, to| {
            core.change(from, to, |link, _| link.loss = share);
        });
    }

    /// From now on a bit flips in this share of the data segments from `from` to `to`.
    pub fn set_flip_chance(&self, from: &str, to: &str, share: f64) {
        self.on_pair(from, to, |core, from, to| {
            core.change(from, to, |link, _| link.flip_chance = share);
        });
    }

    /// The table of connections of `host` is full: nobody new gets in, and each caller keeps its oldest connection alone, until
    /// [`Network::empty_table`]. What `host` opens itself is whole.
    pub fn fill_table(&self, host: &str) {
        self.on_host(host, Core::fill);
    }

    /// `host` takes connections again.
    pub fn empty_table(&self, host: &str) {
        self.on_host(host, |core, host| core.full.remove(&host));
    }

    /// True while packets from `from` to `to` are dropped.
    pub fn is_blocked(&self, from: &str, to: &str) -> bool {
        self.on_pair(from, to, |core, from, to| core.blocked(from, to))
    }

    /// `host` loses power: silence. Call before the madsim node is killed.
    pub fn host_power_loss(&self, host: &str) {
        self.on_host(host, Core::host_power_loss);
    }

    /// The process on `host` ends (kill -9, or a clean end with sockets left): its kernel closes the connections. Call before
    /// the madsim node is killed, and before the environment of the next process is made.
    pub fn host_killed(&self, host: &str) {
        self.on_host(host, Core::host_killed);
    }

    /// `host` has power again.
    pub fn host_up(&self, host: &str) {
        self.on_host(host, Core::host_up);
    }
}

impl Core {
    /// Blocks one direction until healed.
    fn cut(&mut self, from: HostId, to: HostId) {
        self.block(from, to, None);
    }

    /// Blocks one direction until a moment.
    pub(super) fn clog(&mut self, from: HostId, to: HostId, until: Duration) {
        self.block(from, to, Some(until));
        self.schedule(until, Event::Unclog(from, to));
    }

    /// Blocks one direction; a host reaches itself always.
    fn block(&mut self, from: HostId, to: HostId, until: Option<Duration>) {
        let now = self.now();
        let Some(link) = self.links.get_mut(&(from, to)) else {
            return;
        };
        let news = !link.blocked(now);
        link.block(now, until);
        if news {
            self.note(Note::Blocked(self.pair(from, to)));
        }
    }

    /// Opens one direction.
    fn heal(&mut self, from: HostId, to: HostId) {
        let now = self.now();
        let Some(link) = self.links.get_mut(&(from, to)) else {
            return;
        };
        let news = link.blocked(now);
        link.heal();
        if news {
            self.note(Note::Healed(self.pair(from, to)));
        }
    }

    /// A clog has ended, unless another one or a cut goes on.
    pub(super) fn on_unclog(&mut self, from: HostId, to: HostId) {
        let now = self.now();
        let Some(link) = self.links.get_mut(&(from, to)) else {
            return;
        };
        let ended = !link.clogged_until.is_zero() && now >= link.clogged_until;
        if ended {
            link.clogged_until = Duration::ZERO;
        }
        if ended && !link.cut {
            self.note(Note::Healed(self.pair(from, to)));
        }
    }

    /// Clogs `host` from a moment in the first half of `span` to one in the second.
    fn swizzle_host(&mut self, host: HostId, span: Duration) {
        let half = span / 2;
        let begin = self.now() + half.mul_f64(self.dice.swizzle.random::<f64>());
        let end = self.now() + half + half.mul_f64(self.dice.swizzle.random::<f64>());
        self.each_pair_of(host, |core, from, to| {
            core.schedule(begin, Event::Clog(from, to, end));
        });
    }

    /// Changes one direction, and tells of it if it behaves otherwise now.
    fn change(&mut self, from: HostId, to: HostId, change: impl FnOnce(&mut Link, Duration)) {
        let now = self.now();
        if let Some(link) = self.links.get_mut(&(from, to)) {
            let before = link.manner(now);
            change(link, now);
            if link.manner(now) != before {
                self.note(Note::Changed(self.pair(from, to)));
            }
        }
    }

    /// Does `work` for every ordered pair.
    fn each_pair(&mut self, mut work: impl FnMut(&mut Core, HostId, HostId)) {
        let pairs: Vec<(HostId, HostId)> = self.links.keys().copied().collect();
        for (from, to) in pairs {
            work(self, from, to);
        }
    }

    /// Does `work` for every ordered pair that `host` is part of.
    fn each_pair_of(&mut self, host: HostId, mut work: impl FnMut(&mut Core, HostId, HostId)) {
        self.each_pair(|core, from, to| {
            if from == host || to == host {
                work(core, from, to);
            }
        });
    }
}
