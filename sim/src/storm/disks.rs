//! What the storm does to disks.

use super::{Storm, nanos};
use crate::timeline::BandKind;
use rand::Rng;
use scenarios::Crash;
use simdisk::{CrashMode, Damage, Fault, OpKind, Rule, Stall, disk};
use std::time::Duration;

impl Storm {
    /// Disks hold everything up for a while.
    pub(super) async fn stall(&self, names: Vec<String>, span: Duration) {
        let until = nanos(self.cluster.recorder.now() + span);
        let what = self.chance(|rng| {
            if rng.random_bool(0.5) {
                Stall::Everything
            } else {
                Stall::Syncs
            }
        });
        let words = if what == Stall::Syncs {
            "syncs hang"
        } else {
            "disk stalls"
        };
        for name in &names {
            self.strike(name, BandKind::Disk, span, words);
            self.tell(
                name,
                format!("its disk STALLS ({what:?}) for {} ms", span.as_millis()),
            );
            self.cluster.recorder.sometimes("a disk stalled");
            disk(name).stall_until(what, until);
        }
        madsim::time::sleep(span).await;
    }

    /// Disks are slow for a while.
    pub(super) async fn slow(&self, names: Vec<String>, factor: f64, span: Duration) {
        let until = nanos(self.cluster.recorder.now() + span);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a small factor"
        )]
        let factor = factor as u64;
        for name in &names {
            self.strike(
                name,
                BandKind::Disk,
                span,
                &format!("disk {factor} times slower"),
            );
            self.tell(name, format!("its disk is {factor} times slower"));
            self.cluster.recorder.sometimes("a disk was slow");
            disk(name).slow_down(factor, until);
        }
        madsim::time::sleep(span).await;
    }

    /// The next sync of the log fails. The node gives up; its supervisor starts it again after a while.
    pub(super) async fn sync_error(&self, names: Vec<String>, down: Duration) {
        for name in &names {
            self.strike(name, BandKind::Disk, Duration::ZERO, "sync fails");
            self.tell(name, "its next log sync FAILS".to_owned());
            self.cluster.hold(name, self.cluster.recorder.now() + down);
            disk(name).inject(Rule::once(OpKind::Sync, "/wal/", Fault::Eio));
        }
        madsim::time::sleep(down).await;
    }

    /// Disks fill up and are freed again.
    pub(super) async fn fill(&self, names: Vec<String>, left_kb: f64, span: Duration) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a few megabytes"
        )]
        let left = (left_kb.max(0.0) * 1024.0) as u64;
        let before: Vec<(String, u64)> = names
            .iter()
            .map(|name| (name.clone(), disk(name).capacity()))
            .collect();
        for (name, capacity) in &before {
            let used = capacity - disk(name).free_bytes();
            self.strike(name, BandKind::Disk, span, "disk full");
            self.tell(name, format!("its disk is FULL but for {} KiB", left >> 10));
            self.cluster.recorder.sometimes("a disk was full");
            disk(name).set_capacity(used + left);
        }
        madsim::time::sleep(span).await;
        for (name, capacity) in before {
            self.tell(&name, "its disk has room again".to_owned());
            disk(&name).set_capacity(capacity);
        }
    }

    /// Nodes stop, their stores are damaged, and they start.
    pub(super) async fn damage_store(&self, names: Vec<String>) {
        for name in names {
            if self.cluster.is_off(&name) {
                continue;
            }
            let how = self.chance(|rng| {
                if rng.random_bool(0.5) {
                    Crash::Stop
                } else {
                    Crash::Kill
                }
            });
            self.cluster.down(&name, how, CrashMode::KeepAll).await;
            self.strike(&name, BandKind::Disk, Duration::ZERO, "store damaged");
            self.tell(&name, "its store is damaged".to_owned());
            let files = disk(&name).list_files();
            let store: Vec<&(String, u64)> = files
                .iter()
                .filter(|(path, size)| path.contains("/store/") && *size > 0)
                .collect();
            if let Some((path, size)) = (!store.is_empty())
                .then(|| self.chance(|rng| store[rng.random_range(0..store.len())]))
            {
                let cut = self.chance(|rng| rng.random_range(0..*size));
                let removed = self.chance(|rng| rng.random_bool(0.5));
                let damage = if removed {
                    Damage::Remove
                } else {
                    Damage::Truncate(cut)
                };
                disk(&name).damage(path, damage);
                self.cluster.recorder.sometimes("a store was damaged");
            }
            madsim::time::sleep(Duration::from_millis(100)).await;
            self.cluster.up(&name);
        }
    }

    /// A bit of the log flips while the node is down.
    pub(super) async fn rot(&self, names: Vec<String>, down: Duration) {
        for name in names {
            if self.cluster.is_off(&name) {
                continue;
            }
            self.cluster
                .down(&name, Crash::Kill, CrashMode::KeepAll)
                .await;
            let seed = self.chance(|rng| rng.random());
            let mut rng = simdisk::Rng::new(seed);
            if let Some(flipped) = disk(&name).flip_bit("/wal/0", &mut rng) {
                self.strike(&name, BandKind::Disk, Duration::ZERO, "a bit rots");
                self.tell(
                    &name,
                    format!("a bit ROTS in {} at {}", flipped.path, flipped.offset),
                );
                self.cluster.recorder.sometimes("a bit of a log rotted");
            }
            madsim::time::sleep(down).await;
            self.cluster.up(&name);
        }
    }

    /// Nodes come back with an empty disk.
    pub(super) async fn wipe(&self, names: Vec<String>, down: Duration) {
        for name in names {
            if self.cluster.is_off(&name) {
                continue;
            }
            self.cluster
                .down(&name, Crash::PowerLoss, CrashMode::LoseAll)
                .await;
            self.strike(&name, BandKind::Disk, Duration::ZERO, "empty disk");
            self.tell(&name, "its disk is replaced by an EMPTY one".to_owned());
            self.cluster.recorder.sometimes("a disk was replaced");
            disk(&name).wipe();
            madsim::time::sleep(down).await;
            self.cluster.up(&name);
        }
    }
}
