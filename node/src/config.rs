//! The operator's configuration: a TOML file, `SEAWORTHY_` environment and flags, in that order of precedence from low to high.
//!
//! Unknown keys are errors. [`Config::validate`] says everything that is wrong at once, each with what to do.
//!
//! Here: the settings as types. [`keys`] is the table of their names, [`load`] puts file, environment and flags
//! together, [`check`] judges the result.

pub mod check;
pub mod keys;
pub mod load;

pub use check::{Finding, Level};
pub use load::{Loaded, Origin, Sources, load};

use crate::knobs::Profile;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Environment variables of the command line that are no settings of a node.
pub const NOT_SETTINGS: &[&str] = &[
    "SEAWORTHY_ENDPOINTS",
    "SEAWORTHY_OUTPUT",
    "SEAWORTHY_TIMEOUT",
    "SEAWORTHY_CONFIG",
    "SEAWORTHY_TOKEN",
];

/// Everything an operator may set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// This node's name, unique in the cluster.
    pub name: String,
    /// Directory of everything the node keeps. Created if missing.
    pub data_dir: PathBuf,
    /// Timing profile.
    #[serde(default = "edge")]
    pub profile: Profile,
    /// Where this node listens.
    pub listen: Listen,
    /// The cluster it belongs to.
    #[serde(default)]
    pub cluster: Cluster,
    /// Limits on requests.
    #[serde(default)]
    pub limits: Limits,
    /// Storage.
    #[serde(default)]
    pub storage: Storage,
    /// Watching over workers.
    #[serde(default)]
    pub workers: Workers,
    /// Logging.
    #[serde(default)]
    pub log: Log,
}

fn edge() -> Profile {
    Profile::Edge
}

impl Config {
    /// The peer address that others reach this node by.
    pub fn peer_address(&self) -> String {
        self.listen
            .advertise_peer
            .clone()
            .unwrap_or_else(|| self.listen.peer.clone())
    }

    /// The HTTP address that others reach this node by.
    pub fn http_address(&self) -> String {
        self.listen
            .advertise_http
            .clone()
            .unwrap_or_else(|| self.listen.http.clone())
    }

    /// A lone node `n1` in `home` for tests, on ports of the system's choice.
    #[cfg(test)]
    pub(crate) fn lone(home: &std::path::Path) -> Self {
        let any = "127.0.0.1:0".to_owned();
        Config {
            name: "n1".to_owned(),
            data_dir: home.join("n1"),
            profile: Profile::Lan,
            listen: Listen {
                http: any.clone(),
                peer: any,
                advertise_http: None,
                advertise_peer: None,
            },
            cluster: Cluster::default(),
            limits: Limits::default(),
            storage: Storage::default(),
            workers: Workers::default(),
            log: Log::default(),
        }
    }
}

/// Listening addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// API, health and metrics, `host:port`.
    pub http: String,
    /// Other nodes, `host:port`.
    pub peer: String,
    /// The HTTP address others reach this node by, when it differs.
    #[serde(default)]
    pub advertise_http: Option<String>,
    /// The peer address others reach this node by, when it differs.
    #[serde(default)]
    pub advertise_peer: Option<String>,
}

/// The founding members, or the members to join through.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Founding members, the same list on each of them; empty for a cluster of this node alone. After the first start the list
    /// is only used to find peers.
    #[serde(default)]
    pub members: Vec<Founder>,
    /// True when this node is to join an existing cluster through `members` instead of founding one with them.
    #[serde(default)]
    pub join: bool,
    /// The token by which it joins, unless a member has added it by name.
    #[serde(default)]
    pub token: Option<TokenText>,
    /// A file that holds the token.
    #[serde(default)]
    pub token_file: Option<String>,
}

/// The text of a token, which is shown nowhere.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenText(pub String);

impl std::fmt::Debug for TokenText {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("TokenText(hidden)")
    }
}

/// One founding member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Founder {
    /// Name.
    pub name: String,
    /// Peer address, `host:port`.
    pub peer: String,
    /// HTTP address, `host:port`.
    pub http: String,
}

/// Limits on requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Longest key, bytes.
    pub key_bytes_max: usize,
    /// Longest value, bytes.
    pub value_bytes_max: usize,
    /// Longest request body, bytes.
    pub body_bytes_max: usize,
    /// Most records one range answer holds.
    pub range_max: usize,
    /// Most steps of one transaction.
    pub txn_ops_max: usize,
    /// Most open client connections.
    pub connections_max: usize,
    /// A client that takes longer than this to send a request's head, or to take an answer, is cut off, milliseconds.
    pub slow_client_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            key_bytes_max: 4 << 10,
            value_bytes_max: 1 << 20,
            body_bytes_max: 3 << 19,
            range_max: 1_000,
            txn_ops_max: 128,
            connections_max: 4_096,
            slow_client_ms: 10_000,
        }
    }
}

/// Storage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Storage {
    /// Entries between snapshots; unset for the built-in number (10,000).
    pub snapshot_entries: Option<u64>,
    /// Free bytes below which the node takes no more writes; unset for the built-in number (256 MiB).
    pub disk_low_bytes: Option<u64>,
}

/// Watching over workers. The leader's settings count, so all managers should have the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Workers {
    /// Silence after which a worker is marked down and its tasks run elsewhere, milliseconds; unset for the built-in number
    /// (30,000; inventory T-8), 1,000 at least. Less brings a lost worker's tasks back sooner, and replaces tasks that only a short cut
    /// of the network hid; below 5,000 workers are asked for more heartbeats, five within the bound. It says nothing about volumes:
    /// their lease always ends first.
    pub down_after_ms: Option<u64>,
}

/// Logging.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `text` or `json`.
    pub format: LogFormat,
    /// A level (`info`) or filter (`info,node=debug`).
    pub filter: String,
}

impl Default for Log {
    fn default() -> Self {
        Log {
            format: LogFormat::Text,
            filter: "info".to_owned(),
        }
    }
}

/// Shape of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}
