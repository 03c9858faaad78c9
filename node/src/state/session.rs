//! Client sessions: a command that is sent twice is done once.
//!
//! A session remembers the outcome of its last command. Sessions end by a command or, when there are too many, by
//! being the least recently used one, where use is counted in entries of the log and so is the same everywhere.

use super::apply::{Batch, Step, Stop, refuse};
use super::command::{Done, Nothing, Outcome, Refusal, SessionClose, SessionDone};
use super::keys;
use super::record::{Session, decode, encode};
use super::view::{Error, View};
use bytes::Bytes;

/// Most sessions forgotten by one entry, so that a lower limit does not make an entry slow.
const EVICTIONS_MAX: usize = 8;

impl Batch<'_> {
    /// Takes note of a command of a session; gives the outcome if the command was done before.
    pub(super) fn begin_session(
        &mut self,
        step: &Step,
        id: u64,
        seq: u64,
    ) -> Result<Option<Outcome>, Stop> {
        let key = keys::session(id);
        let raw = self.over.get(&key)?.ok_or_else(unknown)?;
        let mut session: Session = decode("session", raw.clone())?;
        if seq == 0 {
            return Err(refuse(
                Refusal::Invalid,
                "sequence numbers of a session begin at 1",
            ));
        }
        if seq < session.seq {
            return Err(refuse(
                Refusal::SessionStale,
                format!("the session has gone on to sequence number {}", session.seq),
            ));
        }
        let replay = session.outcome.clone().filter(|_| seq == session.seq);
        self.over
            .replace(keys::session_use(session.used_index, id), Some(&[]), None);
        session.used_index = step.index;
        self.over
            .replace(keys::session_use(step.index, id), None, Some(Bytes::new()));
        self.over.replace(key, Some(&raw), Some(encode(&session)));
        Ok(replay.map(|outcome| Outcome {
            replayed: true,
            ..outcome
        }))
    }

    /// Remembers the outcome, unless the command ended the session.
    pub(super) fn end_session(
        &mut self,
        id: u64,
        seq: u64,
        outcome: &Outcome,
    ) -> Result<(), Error> {
        let key = keys::session(id);
        let Some(raw) = self.over.get(&key)? else {
            return Ok(());
        };
        let mut session: Session = decode("session", raw.clone())?;
        session.seq = seq;
        session.outcome = Some(outcome.clone());
        self.over.replace(key, Some(&raw), Some(encode(&session)));
        Ok(())
    }

    /// [`super::command::SessionOpen`].
    pub(super) fn session_open(&mut self, step: &Step) -> Result<Done, Stop> {
        let id = step.index;
        let session = Session {
            used_index: step.index,
            ..Session::default()
        };
        self.over
            .replace(keys::session(id), None, Some(encode(&session)));
        self.over
            .replace(keys::session_use(id, id), None, Some(Bytes::new()));
        self.meta.sessions += 1;
        self.evict()?;
        Ok(Done::Session(SessionDone { id }))
    }

    /// [`SessionClose`].
    pub(super) fn session_close(&mut self, close: &SessionClose) -> Result<Done, Stop> {
        let raw = self.over.get(&keys::session(close.id))?;
        self.forget(close.id, &raw.ok_or_else(unknown)?)?;
        Ok(Done::Nothing(Nothing {}))
    }

    /// Forgets the least recently used sessions while there are too many.
    fn evict(&mut self) -> Result<(), Error> {
        for _ in 0..EVICTIONS_MAX {
            if self.meta.sessions <= self.meta.limits.sessions_max.max(1) {
                return Ok(());
            }
            let (start, end) = keys::session_use_range(self.meta.session_floor);
            let oldest = self.over.scan(&start, &end).next().transpose()?;
            let (key, _) = oldest.ok_or_else(|| Error::corrupt("sessions miscounted"))?;
            let (used_index, id) = keys::session_use_parts(&key);
            let raw = self.over.get(&keys::session(id))?;
            self.forget(
                id,
                &raw.ok_or_else(|| Error::corrupt("a session is missing"))?,
            )?;
            self.meta.session_floor = used_index;
        }
        Ok(())
    }

    /// Removes a session.
    fn forget(&mut self, id: u64, raw: &Bytes) -> Result<(), Error> {
        let session: Session = decode("session", raw.clone())?;
        let used = keys::session_use(session.used_index, id);
        self.over.replace(used, Some(&[]), None);
        self.over.replace(keys::session(id), Some(raw), None);
        self.meta.sessions = self.meta.sessions.saturating_sub(1);
        Ok(())
    }
}

/// The refusal of an unknown session.
fn unknown() -> Stop {
    refuse(
        Refusal::SessionUnknown,
        "no such session; it may have been forgotten: open a new one",
    )
}
