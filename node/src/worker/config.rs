//! What an operator decides about a worker.

use crate::fleet::command::Machine;
use std::path::PathBuf;

/// Longest name of a worker, bytes.
const NAME_LEN_MAX: usize = 63;

/// How a worker is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerConfig {
    /// What it says of itself. An empty address stands for the one it listens on.
    pub machine: Machine,
    /// Managers to begin with, `host:port`; others are learnt from them.
    pub join: Vec<String>,
    /// The token to show, needed until it has a name in the cluster.
    pub token: Option<String>,
    /// Directory of everything that it keeps: an absolute path that stays the same.
    pub data_dir: PathBuf,
    /// Where its own door listens, `host:port`.
    pub listen: String,
}

impl WorkerConfig {
    /// What is wrong with it, with what to do, if anything is.
    pub fn validate(&self) -> Result<(), String> {
        let name = &self.machine.name;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() || name.len() > NAME_LEN_MAX || !name.bytes().all(plain) {
            return Err(format!(
                "\"{name}\" cannot be a worker's name: use 1 to {NAME_LEN_MAX} letters, digits, \"-\", \"_\" and \".\""
            ));
        }
        if self.join.is_empty() {
            return Err("no manager is named: name one as host:port".to_owned());
        }
        if !self.data_dir.is_absolute() {
            let dir = self.data_dir.display();
            return Err(format!(
                "the data directory {dir} is not an absolute path: tasks are found again by it"
            ));
        }
        if self.machine.capacity.cpu_milli == 0 || self.machine.capacity.memory_bytes == 0 {
            return Err(
                "a worker without processor or memory can run nothing: say what it has".to_owned(),
            );
        }
        Ok(())
    }
}
