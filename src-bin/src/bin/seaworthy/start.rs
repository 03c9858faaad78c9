//! Where a node begins: the one place of the program that names the node's start.

use anyhow::{Result, bail};
use node::config::Config;
use node::handle::Handle;
use node::knobs::Knobs;
use node::rt::Env;
use node::rt::net::BoxFuture;

/// A node under way.
pub(crate) struct Running {
    /// Asks it, stops it.
    pub(crate) handle: Handle,
    /// Where clients reach it, with the port that was picked.
    pub(crate) http_address: String,
    /// Where other nodes reach it, with the port that was picked.
    pub(crate) peer_address: String,
    /// Ends with the node.
    ended: BoxFuture<'static, Ended>,
}

/// How a node ended.
pub(crate) struct Ended {
    /// Why.
    pub(crate) reason: String,
    /// True when its disk failed or an invariant broke.
    pub(crate) poisoned: bool,
}

impl Running {
    /// Ends when the node has ended.
    pub(crate) async fn ended(self) -> Ended {
        self.ended.await
    }
}

/// Starts a node.
pub(crate) async fn start(_env: Env, config: Config, _knobs: Knobs) -> Result<Running> {
    bail!(
        "this build holds no node to start as {}: `node::start` is not part of it",
        config.name
    )
}
