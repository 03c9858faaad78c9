//! What a call costs in virtual time, and how long trouble makes it last.
//!
//! The shim charges the cost to whoever called: the simulation thread collects it as debt, which
//! the storage lane sleeps; a simulated thread moves its own clock. Left out: queues between
//! callers (two nodes never share a disk) and read-ahead.

use crate::Rng;
use crate::fault::OpKind;

/// Price list of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Costs {
    /// Cheapest call, in nanoseconds.
    pub op_min_ns: u64,
    /// Dearest call, in nanoseconds.
    pub op_max_ns: u64,
    /// Per byte read or written, in picoseconds.
    pub byte_ps: u64,
    /// Fastest sync, in nanoseconds.
    pub sync_min_ns: u64,
    /// Slowest ordinary sync, in nanoseconds.
    pub sync_max_ns: u64,
    /// Chance of a slow sync, in millionths.
    pub tail_ppm: u32,
    /// Longest slow sync, in nanoseconds.
    pub tail_max_ns: u64,
}

impl Default for Costs {
    /// Between SATA and NVMe: calls 1-3 us, 500 MB/s, syncs 100-400 us, one in a hundred up to 8 ms.
    fn default() -> Self {
        Self {
            op_min_ns: 1_000,
            op_max_ns: 3_000,
            byte_ps: 2_000,
            sync_min_ns: 100_000,
            sync_max_ns: 400_000,
            tail_ppm: 10_000,
            tail_max_ns: 8_000_000,
        }
    }
}

impl Costs {
    /// A disk that takes no time.
    pub fn free() -> Self {
        Self {
            op_min_ns: 0,
            op_max_ns: 0,
            byte_ps: 0,
            sync_min_ns: 0,
            sync_max_ns: 0,
            tail_ppm: 0,
            tail_max_ns: 0,
        }
    }

    /// The price of one call.
    fn draw(&self, kind: OpKind, bytes: u64, rng: &mut Rng) -> u64 {
        let op =
            rng.between(self.op_min_ns, self.op_max_ns) + bytes.saturating_mul(self.byte_ps) / 1000;
        if kind != OpKind::Sync {
            return op;
        }
        let slow = rng.chance_ppm(self.tail_ppm);
        let max = if slow {
            self.tail_max_ns
        } else {
            self.sync_max_ns
        };
        op + rng.between(self.sync_min_ns, max)
    }
}

/// Which calls a stall holds up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stall {
    /// Every call.
    Everything,
    /// Syncs only: reads and writes still hit the cache.
    Syncs,
}

/// The clockwork of one disk.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Price list.
    pub(crate) costs: Costs,
    /// Until when syncs hang, in virtual nanoseconds.
    sync_stall_ns: u64,
    /// Until when everything hangs, in virtual nanoseconds.
    stall_ns: u64,
    /// How much dearer calls are.
    factor: u64,
    /// Until when they are dearer, in virtual nanoseconds.
    slow_until_ns: u64,
    /// Draws prices.
    rng: Rng,
}

impl Pace {
    /// A healthy disk with default prices.
    pub(crate) fn new(rng: Rng) -> Self {
        Self {
            costs: Costs::default(),
            sync_stall_ns: 0,
            stall_ns: 0,
            factor: 1,
            slow_until_ns: 0,
            rng,
        }
    }

    /// Holds calls up until `until_ns`; an earlier time ends a stall.
    pub(crate) fn stall(&mut self, what: Stall, until_ns: u64) {
        match what {
            Stall::Everything => self.stall_ns = until_ns,
            Stall::Syncs => self.sync_stall_ns = until_ns,
        }
    }

    /// Multiplies costs by `factor` until `until_ns`.
    pub(crate) fn slow_down(&mut self, factor: u64, until_ns: u64) {
        self.factor = factor.max(1);
        self.slow_until_ns = until_ns;
    }

    /// Nanoseconds that a call takes which starts at `now_ns`.
    pub(crate) fn cost(&mut self, kind: OpKind, bytes: u64, now_ns: u64) -> u64 {
        let price = self.costs.draw(kind, bytes, &mut self.rng);
        let factor = if now_ns < self.slow_until_ns {
            self.factor
        } else {
            1
        };
        let sync_stall = if kind == OpKind::Sync {
            self.sync_stall_ns
        } else {
            0
        };
        let hang = self.stall_ns.max(sync_stall).saturating_sub(now_ns);
        hang.saturating_add(price.saturating_mul(factor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_lasts_until_its_end_and_no_longer() {
        let mut pace = Pace::new(Rng::new(0));
        pace.costs = Costs::free();
        pace.stall(Stall::Syncs, 1_000);
        assert_eq!(pace.cost(OpKind::Write, 10, 400), 0);
        assert_eq!(pace.cost(OpKind::Sync, 0, 400), 600);
        assert_eq!(pace.cost(OpKind::Sync, 0, 1_000), 0);
        pace.stall(Stall::Everything, 2_000);
        assert_eq!(pace.cost(OpKind::Look, 0, 1_500), 500);
    }

    #[test]
    fn default_syncs_have_a_tail() {
        let mut pace = Pace::new(Rng::new(0));
        let costs: Vec<u64> = (0..10_000).map(|_| pace.cost(OpKind::Sync, 0, 0)).collect();
        let slow = costs.iter().filter(|c| **c > 403_000).count();
        assert!((50..150).contains(&slow), "{slow}");
        assert!(costs.iter().all(|c| (100_000..8_010_000).contains(c)));
    }
}
