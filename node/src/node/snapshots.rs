//! Snapshots: cut while writes go on, offered to followers that need one, fetched from the leader, installed.
//!
//! A snapshot file is durable before the log gives anything up, and the log's mark is durable before the entries go. A
//! follower fetches the file first and only then lets Raft see the message, so that a snapshot in Raft is always one on disk.

use super::Shared;
use super::apply::{Item, Picture};
use super::datadir::Dirs;
use super::run::{GROUP, Internal, Run, deny};
use super::serve::Look;
use crate::error::{Code, Error};
use crate::handle::{Reply, SnapshotInfo};
use crate::rt::{Event, Lane, Mono};
use crate::snapshot;
use crate::transport::{ReadPiece, SnapshotSource};
use crate::types::{Index, NodeId, Role, Term};
use crate::wal::{self, Record};
use crate::wire::{SnapshotFile, SnapshotRequest};
use bytes::Bytes;
use raft::eraftpb::{Message, MessageType, Snapshot};
use std::collections::BTreeMap;
use std::path::PathBuf;
use tokio::sync::oneshot;

/// A transfer that ended.
pub(super) struct Fetched {
    /// The message that offered it, to be handed to Raft if the file arrived.
    message: Message,
    /// The file, or why there is none.
    result: Result<PathBuf, String>,
}

/// What the loop knows of snapshots.
pub(super) struct Snapshots {
    /// Where they lie.
    dirs: Dirs,
    /// The lane on which files are written and read.
    lane: Lane,
    /// Position of the newest one.
    newest: Index,
    /// Size of the newest one, bytes.
    newest_bytes: u64,
    /// True while one is being cut.
    cutting: bool,
    /// Who asked for the one being cut.
    askers: Vec<Reply<SnapshotInfo>>,
    /// The one being fetched.
    fetching: Option<Index>,
    /// Files that were fetched and may be installed.
    fetched: BTreeMap<Index, PathBuf>,
    /// When a follower's transfer last moved.
    moved: BTreeMap<NodeId, Mono>,
    /// Looks into history that wait for the read lane.
    pub(super) looks: Vec<Look>,
}

impl Snapshots {
    /// Nothing known yet.
    pub(super) fn new(shared: &Shared) -> Self {
        Snapshots {
            dirs: Dirs::new(&shared.config.data_dir),
            lane: shared.env.lanes.open("snapshot"),
            newest: Index(0),
            newest_bytes: 0,
            cutting: false,
            askers: Vec::new(),
            fetching: None,
            fetched: BTreeMap::new(),
            moved: BTreeMap::new(),
            looks: Vec::new(),
        }
    }

    /// The lane of snapshot files.
    pub(super) fn lane(&self) -> &Lane {
        &self.lane
    }

    /// The fetched file that ends at `index`.
    pub(super) fn path_of(&self, index: Index) -> Option<PathBuf> {
        self.fetched.get(&index).cloned()
    }
}

impl Run {
    /// Cuts a snapshot when enough has happened since the last one: entries (but not while the log is small against the
    /// last snapshot, which bounds write amplification), or bytes.
    pub(super) fn maybe_cut(&mut self) {
        let knobs = &self.shared.knobs;
        let behind = self.applied.0.0.saturating_sub(self.snapshots.newest.0);
        let log_bytes = self.core.log().bytes();
        let worth = log_bytes * 100 >= self.snapshots.newest_bytes * knobs.snapshot_ratio_percent;
        let due = (behind >= knobs.snapshot_entries && worth)
            || (log_bytes >= knobs.snapshot_log_bytes && behind > knobs.snapshot_margin);
        if due {
            self.cut();
        }
    }

    /// An operator wants a snapshot.
    pub(super) fn snapshot_wanted(&mut self, reply: Reply<SnapshotInfo>) {
        if self.applied.0 == Index(0) {
            let error = Error::new(Code::NoLeader, "this node has no state yet");
            return deny(reply, error);
        }
        self.snapshots.askers.push(reply);
        self.cut();
    }

    /// Begins to cut, unless one is being cut.
    fn cut(&mut self) {
        if !std::mem::replace(&mut self.snapshots.cutting, true) {
            self.applier.push(Item::Cut);
            self.applier.start();
        }
    }

    /// Writes a picture to a file, beside everything else.
    pub(super) fn write_snapshot(&mut self, picture: Picture) {
        let (dir, keep) = (
            self.snapshots.dirs.snapshots.clone(),
            self.shared.knobs.snapshots_kept,
        );
        let wall_ms = self.shared.env.clock.wall_ms();
        let job = self.snapshots.lane.run(move || {
            let info = snapshot::write(&dir, GROUP, wall_ms, &picture.view)?;
            snapshot::remove_old(&dir, keep)?;
            Ok::<_, snapshot::Error>(info)
        });
        let news = self.news.clone();
        self.shared.tasks.spawn(async move {
            let result = match job.await {
                Ok(result) => result.map_err(|error| error.to_string()),
                Err(closed) => Err(closed.to_string()),
            };
            // The loop may have ended.
            drop(news.send(Internal::Cut(result)).await);
        });
    }

    /// A snapshot was written, or could not be: a full disk is waited out, the log simply keeps more.
    pub(super) fn on_cut(&mut self, result: Result<SnapshotInfo, String>) {
        self.snapshots.cutting = false;
        let askers = std::mem::take(&mut self.snapshots.askers);
        match result {
            Ok(info) => {
                self.record(Event::SnapshotCut {
                    group: GROUP,
                    index: info.index,
                    bytes: info.bytes,
                });
                self.shared.metrics.count_snapshot();
                self.release_log(&info);
                for reply in askers {
                    drop(reply.send(Ok(info.clone())));
                }
            }
            Err(reason) => {
                tracing::warn!(%reason, "a snapshot could not be cut");
                // No retry before as much has happened again.
                self.snapshots.newest = self.applied.0;
                let error = Error::new(Code::ReadOnly, format!("no snapshot: {reason}"))
                    .hint("nothing is lost: the log keeps everything; free disk space");
                for reply in askers {
                    deny(reply, error.clone());
                }
            }
        }
    }

    /// Gives up what the snapshot covers, but for a margin.
    fn release_log(&mut self, info: &SnapshotInfo) {
        if info.index <= self.snapshots.newest && self.snapshots.newest_bytes > 0 {
            return;
        }
        let name = snapshot::file_name(info.index.0, info.term.0);
        match snapshot::read_meta(&self.snapshots.dirs.snapshots.join(name)) {
            Ok(meta) => self.offer(&meta),
            Err(error) => return self.poison(&format!("the snapshot just written: {error}")),
        }
        let mark = wal::SnapshotMark {
            index: info.index,
            term: info.term,
        };
        self.writer
            .write_records(vec![Record::SnapshotMark { group: GROUP, mark }]);
        let margin = self.shared.knobs.snapshot_margin;
        let through = Index(info.index.0.saturating_sub(margin));
        let before = self.core.log().base().0;
        self.core.log_mut().compact(through);
        if through > before {
            self.record(Event::Trimmed {
                group: GROUP,
                first: Index(through.0 + 1),
            });
        }
        let (trimmed, news) = (self.writer.release(GROUP, through), self.news.clone());
        self.shared.tasks.spawn(async move {
            // The loop may have ended.
            drop(news.send(Internal::Trimmed(trimmed.await)).await);
        });
    }

    /// Offers a snapshot to followers.
    fn offer(&mut self, info: &snapshot::Meta) {
        self.snapshots.newest = info.index;
        self.snapshots.newest_bytes = info.bytes;
        let mut offered = Snapshot::default();
        let meta = offered.mut_metadata();
        meta.index = info.index.0;
        meta.term = info.term.0;
        meta.set_conf_state(info.conf.clone());
        offered.data = SnapshotFile {
            size: info.bytes,
            checksum: info.checksum,
        }
        .to_data();
        self.core.log_mut().offer(offered);
    }

    /// At the start: the newest file that the log reaches is on offer again.
    pub(super) fn offer_newest_snapshot(&mut self) {
        let Ok(files) = snapshot::list(&self.snapshots.dirs.snapshots) else {
            return;
        };
        let (base, last) = (self.core.log().base().0, self.core.log().last().0);
        let metas = files.into_iter().filter_map(|file| file.meta.ok());
        let fits = metas
            .into_iter()
            .find(|meta| meta.index >= base && meta.index <= last);
        let Some(meta) = fits else { return };
        self.offer(&meta);
        // The log remembers marks, not what its readers no longer need: say it again.
        let through = Index(
            meta.index
                .0
                .saturating_sub(self.shared.knobs.snapshot_margin),
        );
        let (trimmed, news) = (self.writer.release(GROUP, through), self.news.clone());
        self.shared.tasks.spawn(async move {
            // The loop may have ended.
            drop(news.send(Internal::Trimmed(trimmed.await)).await);
        });
    }

    /// A message from a peer, on its way to Raft. A snapshot is fetched before Raft sees it.
    pub(super) fn on_message(&mut self, from: NodeId, message: Message) {
        if let Err(invalid) = self.core.admit(&message) {
            // A leader believes that this node holds what it does not hold: its disk lied about a sync.
            return self.poison(&format!(
                "{invalid}; this node must not vote: empty its data directory and start it again"
            ));
        }
        if message.get_msg_type() != MessageType::MsgSnapshot {
            return self.core.step(message);
        }
        let meta = message.get_snapshot().get_metadata();
        let index = Index(meta.index);
        if index <= self.core.commit() || self.snapshots.fetched.contains_key(&index) {
            return self.core.step(message);
        }
        if self.snapshots.fetching.is_none() {
            self.fetch(from, index, Term(meta.term), message);
        }
    }

    /// Fetches the file that `message` offers.
    fn fetch(&mut self, from: NodeId, index: Index, term: Term, message: Message) {
        let Ok(file) = SnapshotFile::from_data(&message.get_snapshot().data) else {
            return;
        };
        self.snapshots.fetching = Some(index);
        let (dir, lane) = (
            self.snapshots.dirs.snapshots.clone(),
            self.snapshots.lane.clone(),
        );
        let (transport, news) = (self.shared.transport.clone(), self.news.clone());
        self.shared.tasks.spawn(async move {
            let result = receive(transport, lane, dir, from, index, term, file).await;
            // The loop may have ended.
            drop(
                news.send(Internal::Fetched(Fetched { message, result }))
                    .await,
            );
        });
    }

    /// A transfer ended.
    pub(super) fn on_fetched(&mut self, fetched: Fetched) {
        self.snapshots.fetching = None;
        match fetched.result {
            Ok(path) => {
                let index = Index(fetched.message.get_snapshot().get_metadata().index);
                self.snapshots.fetched.insert(index, path);
                self.core.step(fetched.message);
            }
            // The leader offers it again when it hears nothing.
            Err(reason) => tracing::warn!(%reason, "a snapshot did not arrive"),
        }
    }

    /// A snapshot replaced the state: it is now the newest one of this node too.
    pub(super) fn snapshot_installed(&mut self, index: Index) {
        let Some(path) = self.snapshots.fetched.remove(&index) else {
            return;
        };
        self.snapshots.fetched.clear();
        if let Ok(meta) = snapshot::read_meta(&path) {
            self.offer(&meta);
        }
    }

    /// A follower fetches a file.
    pub(super) fn serve_snapshot(
        &mut self,
        from: NodeId,
        request: SnapshotRequest,
        reply: oneshot::Sender<Result<SnapshotSource, Error>>,
    ) {
        let now = self.now();
        self.snapshots.moved.insert(from, now);
        let name = snapshot::file_name(request.index, request.term);
        let path = self.snapshots.dirs.snapshots.join(name);
        let lane = self.snapshots.lane.clone();
        self.shared.tasks.spawn(async move {
            // The asker may be gone.
            drop(reply.send(open_source(lane, path).await));
        });
    }

    /// Gives up on followers whose transfer does not move, so that Raft offers them a snapshot again; and cuts one when a
    /// follower needs what the log no longer has.
    pub(super) fn tend_snapshots(&mut self, now: Mono) {
        if self.core.role() != Role::Leader {
            self.snapshots.moved.clear();
            return;
        }
        let first = self.core.log().base().0;
        for (id, progress) in self.progress() {
            match progress.snapshot {
                Some(_) => {
                    let since = *self.snapshots.moved.entry(id).or_insert(now);
                    if now.since(since) >= self.shared.knobs.snapshot_timeout {
                        self.snapshots.moved.remove(&id);
                        self.core.snapshot_failed(id);
                    }
                }
                None => {
                    self.snapshots.moved.remove(&id);
                    let offered = self.core.log().offered(id).is_some();
                    if progress.active && progress.next <= first && !offered {
                        self.cut();
                    }
                }
            }
        }
    }
}

/// Opens a snapshot file for a follower that fetches it.
async fn open_source(lane: Lane, path: PathBuf) -> Result<SnapshotSource, Error> {
    let shown = path.clone();
    let size = lane
        .run(move || snapshot::read_meta(&shown).map(|meta| meta.bytes))
        .await;
    let gone = |why: String| {
        Error::new(
            Code::NotFound,
            format!("the snapshot is not here any more: {why}"),
        )
    };
    let total = size.map_err(|closed| gone(closed.to_string()))?;
    let total = total.map_err(|error| gone(error.to_string()))?;
    let read: ReadPiece = Box::new(move |offset, length_max| {
        let path = path.clone();
        let job = lane.run(move || snapshot::read_chunk(&path, offset, length_max));
        Box::pin(async move {
            let chunk = job.await.map_err(std::io::Error::other)?;
            chunk.map(Bytes::from).map_err(std::io::Error::other)
        })
    });
    Ok(SnapshotSource { total, read })
}

/// Receives a snapshot file, from where an earlier try ended, and verifies it.
async fn receive(
    transport: crate::transport::Transport,
    lane: Lane,
    dir: PathBuf,
    from: NodeId,
    index: Index,
    term: Term,
    file: SnapshotFile,
) -> Result<PathBuf, String> {
    let offer = snapshot::Offer {
        index,
        term,
        bytes: file.size,
        checksum: file.checksum,
    };
    let open = lane.run(move || snapshot::Receiver::open(&dir, offer));
    let receiver = open.await.map_err(|closed| closed.to_string())?;
    let receiver = receiver.map_err(|error| error.to_string())?;
    let offset = receiver.offset();
    let receiver = std::sync::Arc::new(std::sync::Mutex::new(Some(receiver)));
    let (sink_lane, sink) = (lane.clone(), std::sync::Arc::clone(&receiver));
    let request = SnapshotRequest {
        group: GROUP.0,
        index: index.0,
        term: term.0,
        offset,
    };
    let transfer = transport.fetch_snapshot(from, request, file, move |at, bytes| {
        let sink = std::sync::Arc::clone(&sink);
        let job = sink_lane.run(move || {
            let mut receiver = sink.lock().expect("one job at a time holds the receiver");
            let receiver = receiver
                .as_mut()
                .expect("the receiver ends after the last piece");
            receiver.append(at, &bytes).map_err(std::io::Error::other)
        });
        Box::pin(async move { job.await.map_err(std::io::Error::other)? })
    });
    transfer.await.map_err(|error| error.to_string())?;
    let finish = lane.run(move || {
        let receiver = receiver.lock().expect("the transfer has ended").take();
        let receiver = receiver.expect("the receiver ends here");
        receiver
            .finish()
            .map(|(_, path)| path)
            .map_err(|error| error.to_string())
    });
    finish.await.map_err(|closed| closed.to_string())?
}
