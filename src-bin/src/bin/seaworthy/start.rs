//! Where a node begins: the one place of the program that names the node's start.

pub(crate) use node::node::{Ended, Running};

use anyhow::Result;
use node::config::Config;
use node::knobs::Knobs;
use node::rt::Env;

/// Starts a node.
pub(crate) async fn start(env: Env, config: Config, knobs: Knobs) -> Result<Running> {
    Ok(node::node::start(env, config, knobs).await?)
}
