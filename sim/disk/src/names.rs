//! Which names are on the platter: a log of directory changes that are not durable yet.
//!
//! Directories hold two maps, what programs see and what the platter holds; this log is the
//! difference, in order. Left out: limits on names, links between disks.

use crate::Rng;
use crate::fault::CrashMode;
use std::collections::BTreeSet;

/// Number of a file or directory within its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ino(pub(crate) u64);

/// What a sync does for names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum NameMode {
    /// One ordered journal (ext4-like): a sync of X makes every change up to the last that touches X
    /// durable, a power loss keeps a prefix of the rest.
    #[default]
    Ordered,
    /// The least that POSIX promises: only a sync of a directory makes its names durable, and
    /// directories lose changes independently.
    Strict,
}

/// One name set or removed.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    /// The directory.
    pub(crate) dir: Ino,
    /// The name in it.
    pub(crate) name: String,
    /// What the name means now; `None`: removed.
    pub(crate) to: Option<Ino>,
    /// The file that this is about, also when its name is removed.
    pub(crate) about: Ino,
}

/// The changes that are not durable, grouped by call.
#[derive(Debug, Default)]
pub(crate) struct NameLog {
    /// What a sync does.
    pub(crate) mode: NameMode,
    /// Oldest first; a group happens as a whole (in Strict: per directory).
    pending: Vec<Vec<Change>>,
}

impl NameLog {
    /// An empty log.
    pub(crate) fn new(mode: NameMode) -> Self {
        Self {
            mode,
            pending: Vec::new(),
        }
    }

    /// Appends the changes of one call.
    pub(crate) fn push(&mut self, group: Vec<Change>) {
        self.pending.push(group);
    }

    /// Every file that a pending change may bring back or needs.
    pub(crate) fn mentioned(&self) -> impl Iterator<Item = Ino> {
        self.pending
            .iter()
            .flatten()
            .flat_map(|c| [Some(c.dir), c.to])
            .flatten()
    }

    /// Takes out what a sync of `ino` makes durable.
    pub(crate) fn sync(&mut self, ino: Ino) -> Vec<Change> {
        match self.mode {
            NameMode::Ordered => {
                let touches = |c: &Change| c.dir == ino || c.about == ino;
                let last = self.pending.iter().rposition(|g| g.iter().any(touches));
                let upto = last.map_or(0, |i| i + 1);
                self.pending.drain(..upto).flatten().collect()
            }
            NameMode::Strict => self.take_of(ino, usize::MAX),
        }
    }

    /// Takes out what a power loss leaves of the pending changes, and forgets the rest.
    pub(crate) fn lose_power(&mut self, mode: CrashMode, rng: &mut Rng) -> Vec<Change> {
        let survivors = match (mode, self.mode) {
            (CrashMode::LoseAll, _) => Vec::new(),
            (CrashMode::KeepAll, _) => self.pending.drain(..).flatten().collect(),
            (_, NameMode::Ordered) => {
                let upto = rng.below(self.pending.len() as u64 + 1) as usize;
                self.pending.drain(..upto).flatten().collect()
            }
            (_, NameMode::Strict) => self.lose_power_by_directory(rng),
        };
        self.pending.clear();
        survivors
    }

    /// Of each directory a prefix, independently.
    fn lose_power_by_directory(&mut self, rng: &mut Rng) -> Vec<Change> {
        let dirs: BTreeSet<Ino> = self.pending.iter().flatten().map(|c| c.dir).collect();
        let mut survivors = Vec::new();
        for dir in dirs {
            let groups = self
                .pending
                .iter()
                .filter(|g| g.iter().any(|c| c.dir == dir))
                .count();
            let upto = rng.below(groups as u64 + 1) as usize;
            survivors.extend(self.take_of(dir, upto));
        }
        survivors
    }

    /// Takes the changes of `dir` out of the first `upto` groups that have any.
    fn take_of(&mut self, dir: Ino, upto: usize) -> Vec<Change> {
        let mut taken = Vec::new();
        let mut groups = 0;
        for group in &mut self.pending {
            if groups < upto && group.iter().any(|c| c.dir == dir) {
                groups += 1;
                taken.extend(group.extract_if(.., |c| c.dir == dir));
            }
        }
        self.pending.retain(|g| !g.is_empty());
        taken
    }

    /// Forgets pending changes of one name (it was damaged on the platter).
    pub(crate) fn forget(&mut self, dir: Ino, name: &str) {
        for group in &mut self.pending {
            group.retain(|c| c.dir != dir || c.name != name);
        }
        self.pending.retain(|g| !g.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(dir: u64, name: &str, to: u64) -> Vec<Change> {
        vec![Change {
            dir: Ino(dir),
            name: name.into(),
            to: Some(Ino(to)),
            about: Ino(to),
        }]
    }

    fn log(mode: NameMode) -> NameLog {
        NameLog {
            mode,
            pending: vec![set(1, "a", 2), set(3, "b", 4), set(1, "c", 5)],
        }
    }

    fn names(changes: &[Change]) -> Vec<&str> {
        changes.iter().map(|c| c.name.as_str()).collect()
    }

    #[test]
    fn ordered_sync_commits_everything_before() {
        let mut l = log(NameMode::Ordered);
        assert_eq!(names(&l.sync(Ino(4))), ["a", "b"]);
        assert_eq!(names(&l.sync(Ino(9))), [""; 0]);
        assert_eq!(names(&l.sync(Ino(1))), ["c"]);
    }

    #[test]
    fn strict_sync_of_a_file_commits_no_name() {
        let mut l = log(NameMode::Strict);
        assert_eq!(names(&l.sync(Ino(4))), [""; 0]);
        assert_eq!(names(&l.sync(Ino(1))), ["a", "c"]);
        assert_eq!(
            names(&l.lose_power(CrashMode::KeepAll, &mut Rng::new(0))),
            ["b"]
        );
    }

    #[test]
    fn strict_directories_lose_changes_independently() {
        let mut seen = BTreeSet::new();
        for seed in 0..100 {
            let left = log(NameMode::Strict).lose_power(CrashMode::Random, &mut Rng::new(seed));
            seen.insert(names(&left).join(""));
        }
        let all = ["", "a", "ab", "ac", "acb", "b"];
        assert_eq!(seen.iter().map(String::as_str).collect::<Vec<_>>(), all);
    }
}
