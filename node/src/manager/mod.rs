//! The managers' side of orchestration: sessions with workers, and the loop that keeps what runs equal to what is wanted.
//!
//! One task on every node. On the leader it answers workers (hello, heartbeat, report), watches for silence, asks the scheduler and
//! proposes what it says. Elsewhere it only remembers when it last heard from each worker, for a leader that asks.

use crate::error::{Code, Error};
use crate::fleet::meeting::{Call, Reply};
use crate::handle::Handle;
use crate::knobs::Knobs;
use crate::rt::Env;
use tokio::sync::mpsc;

/// A call on its way to the manager's task.
pub(crate) struct Asked {
    /// What is asked.
    pub(crate) call: Call,
    /// Takes the answer.
    pub(crate) answer: Box<dyn FnOnce(Result<Reply, Error>) + Send>,
}

/// Runs until the node's tasks are stopped.
pub(crate) async fn run(env: Env, knobs: Knobs, handle: Handle, mut calls: mpsc::Receiver<Asked>) {
    let _ = (env, knobs, handle);
    while let Some(asked) = calls.recv().await {
        (asked.answer)(Err(Error::new(Code::Internal, "not built yet")));
    }
}
