//! What can go wrong with a call, and when.
//!
//! Two ways to say when: at the n-th call of a disk from now, or by a [`Rule`] on the kind of call
//! and the file name. Faults that last (stalls, slowness) are in `cost`, faults at rest in `disk`.

use crate::Rng;
use std::collections::BTreeMap;

/// What a power loss leaves of unsynced changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashMode {
    /// Nothing.
    LoseAll,
    /// Everything, as if the kernel had just written all of it back.
    KeepAll,
    /// Of each file a prefix by offset, cut at a sector; of the names a prefix by time.
    Prefix,
    /// Each page kept, lost or torn by sectors, on its own; of the names a prefix by time.
    Random,
}

impl CrashMode {
    /// Every mode.
    pub const ALL: [Self; 4] = [Self::LoseAll, Self::KeepAll, Self::Prefix, Self::Random];
}

/// What happens instead of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails with EIO. A sync also gives up dirty pages for good.
    Eio,
    /// It fails with ENOSPC. A sync also gives up dirty pages for good.
    Enospc,
    /// A write or read moves fewer bytes than asked; other calls are not changed.
    Short,
    /// A sync says that all is well and does nothing; other calls are not changed.
    Lie,
    /// The power fails during it: a write may have got a prefix into the cache.
    Crash(CrashMode),
}

/// The kinds of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum OpKind {
    /// open, opendir.
    Open,
    /// read, pread, readv.
    Read,
    /// write, pwrite, writev.
    Write,
    /// fsync, fdatasync.
    Sync,
    /// ftruncate, fallocate.
    Resize,
    /// rename, link, unlink, mkdir, rmdir.
    Name,
    /// stat, readdir, access, realpath, flock.
    Look,
}

/// A fault for every call that matches.
#[derive(Debug, Clone)]
pub struct Rule {
    /// The kind of call; `None` for any.
    pub kind: Option<OpKind>,
    /// A part of the path; empty for any.
    pub path: String,
    /// What happens.
    pub fault: Fault,
    /// Chance that a matching call fails, in millionths.
    pub chance_ppm: u32,
    /// How many more calls may fail.
    pub times: u64,
}

impl Rule {
    /// `fault` once, at the next call of `kind` on a path that contains `path`.
    pub fn once(kind: OpKind, path: &str, fault: Fault) -> Self {
        Self {
            kind: Some(kind),
            path: path.into(),
            fault,
            chance_ppm: 1_000_000,
            times: 1,
        }
    }

    /// `fault` at every such call until the rules are cleared.
    pub fn always(kind: OpKind, path: &str, fault: Fault) -> Self {
        Self {
            times: u64::MAX,
            ..Self::once(kind, path, fault)
        }
    }

    /// `fault` at any call on any file, each with this chance in millionths.
    pub fn sometimes(fault: Fault, chance_ppm: u32) -> Self {
        Self {
            kind: None,
            path: String::new(),
            fault,
            chance_ppm,
            times: u64::MAX,
        }
    }

    /// Whether this rule speaks about such a call.
    fn matches(&self, kind: OpKind, path: &str) -> bool {
        self.times > 0 && self.kind.is_none_or(|k| k == kind) && path.contains(&self.path)
    }
}

/// The faults in store for one disk.
#[derive(Debug)]
pub(crate) struct Faults {
    /// By operation number of the disk.
    at: BTreeMap<u64, Fault>,
    /// In the order in which they were given; the first that fires wins.
    rules: Vec<Rule>,
    /// Decides chances.
    rng: Rng,
}

impl Faults {
    /// None yet.
    pub(crate) fn new(rng: Rng) -> Self {
        Self {
            at: BTreeMap::new(),
            rules: Vec::new(),
            rng,
        }
    }

    /// Plans a fault for operation number `op`.
    pub(crate) fn at(&mut self, op: u64, fault: Fault) {
        self.at.insert(op, fault);
    }

    /// Adds a rule.
    pub(crate) fn add(&mut self, rule: Rule) {
        self.rules.push(rule);
    }

    /// Forgets every plan and rule.
    pub(crate) fn clear(&mut self) {
        self.at.clear();
        self.rules.clear();
    }

    /// The fault of operation `op`, if it has one.
    pub(crate) fn take(&mut self, op: u64, kind: OpKind, path: &str) -> Option<Fault> {
        if let Some(fault) = self.at.remove(&op) {
            return Some(fault);
        }
        let rng = &mut self.rng;
        let fires = |r: &&mut Rule| r.matches(kind, path) && rng.chance_ppm(r.chance_ppm);
        let rule = self.rules.iter_mut().find(fires)?;
        rule.times -= u64::from(rule.times != u64::MAX);
        let fault = rule.fault;
        self.rules.retain(|r| r.times > 0);
        Some(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_fires_as_often_as_it_says() {
        let mut faults = Faults::new(Rng::new(0));
        faults.add(Rule::once(OpKind::Sync, ".jnl", Fault::Eio));
        faults.at(9, Fault::Enospc);
        assert_eq!(faults.take(1, OpKind::Sync, "a.sst"), None);
        assert_eq!(faults.take(2, OpKind::Write, "a.jnl"), None);
        assert_eq!(faults.take(3, OpKind::Sync, "a.jnl"), Some(Fault::Eio));
        assert_eq!(faults.take(4, OpKind::Sync, "a.jnl"), None);
        assert_eq!(faults.take(9, OpKind::Look, ""), Some(Fault::Enospc));
    }

    #[test]
    fn chances_are_about_right() {
        let mut faults = Faults::new(Rng::new(0));
        faults.add(Rule::sometimes(Fault::Eio, 100_000));
        let hits = (0..10_000)
            .filter(|i| faults.take(*i, OpKind::Read, "x").is_some())
            .count();
        assert!((800..1200).contains(&hits), "{hits}");
    }
}
