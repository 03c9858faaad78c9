//! What goes through the log about orchestration, and what comes out.
//!
//! Commands travel as JSON inside [`crate::state::command::Op::Fleet`], and are kept in logs: names of fields and variants never
//! change meaning. A command that no longer makes sense is refused, or does nothing where the text says so.

use super::TokenRole;
use super::secret::Version;
use crate::scheduler::Change;
use crate::scheduler::model::{Availability, Status};
use crate::secrets::seal::{PublicKey, Sealed};
use crate::service::Spec;
use crate::service::spec::Amounts;
use crate::types::{Epoch, Incarnation, NodeId, ServiceId, Term, WorkerId};
use crate::worker::Report;
use crate::worker::exchange::Hello;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// Makes a service; its name must be free. Answers [`Done::Service`].
    ServiceCreate {
        /// What is wanted.
        spec: Spec,
    },
    /// Gives a service a new specification; its mode stays. Answers [`Done::Service`].
    ServiceUpdate {
        /// Name.
        name: String,
        /// What is wanted now; its name is the same.
        spec: Spec,
        /// The version that is replaced; refused if it is another by now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expect_version: Option<u64>,
    },
    /// Sets the number of copies of a replicated service. Answers [`Done::Service`].
    ServiceScale {
        /// Name.
        name: String,
        /// Copies.
        replicas: u32,
    },
    /// Goes back to the contents before; refused if there are none. Answers [`Done::Service`].
    ServiceRollBack {
        /// Name.
        name: String,
    },
    /// Pauses a running rollout, or continues a paused one; refused if it is neither. Answers [`Done::Service`].
    ServicePause {
        /// Name.
        name: String,
        /// Whether it pauses; otherwise it continues.
        paused: bool,
    },
    /// Moves copies of a replicated service, one at a time, until they are spread as well as they can be. Answers [`Done::Service`].
    ServiceRebalance {
        /// Name.
        name: String,
    },
    /// Removes a service with all its tasks; their ends are waited for. Answers [`Done::Service`].
    ServiceRemove {
        /// Name.
        name: String,
    },
    /// A worker says who it is, and all it has. Answers [`Done::Welcome`].
    WorkerHello(Box<WorkerHello>),
    /// Workers report. Those of an older epoch or life, or that were taken before, do nothing. Answers [`Done::Nothing`].
    WorkerReports {
        /// Each worker's.
        batch: Vec<WorkerReports>,
    },
    /// The leader says which workers are down; nothing but its hello makes one ready again, so any other status does nothing. Void for
    /// another epoch or when `term` is over. Answers [`Done::Nothing`].
    WorkerStatus {
        /// The term in which this was decided.
        term: Term,
        /// Worker, its epoch, its new status.
        changes: Vec<(WorkerId, Epoch, Status)>,
    },
    /// An operator wants something of a worker. Answers [`Done::Nothing`].
    WorkerSet {
        /// Its name.
        name: String,
        /// Whether it takes tasks; none: as before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        availability: Option<Availability>,
        /// Labels to set; one without a value is removed.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        labels: BTreeMap<String, Option<String>>,
    },
    /// Removes a worker; its tasks end with it, as lost. Refused while it is ready and has tasks, or is down and may run tasks with
    /// single-writer volumes, unless `force` says that its machine is dead. Answers [`Done::Nothing`].
    WorkerRemove {
        /// Its name.
        name: String,
        /// Whether it is known to be dead: no lease of its is waited for.
        #[serde(default)]
        force: bool,
    },
    /// What the scheduler decided; changes that no longer make sense do nothing, and all of them when `term` is over. Answers
    /// [`Done::Nothing`].
    Plan {
        /// The term in which this was decided.
        term: Term,
        /// Changes, in order.
        changes: Vec<Change>,
    },
    /// Makes a volume that lies nowhere yet, or on a worker. Answers [`Done::Nothing`].
    VolumeCreate {
        /// Name.
        name: String,
        /// Name of the worker where it lies; none: where its first task goes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        worker: Option<String>,
    },
    /// Forgets a volume that no service names and no task has, or one whose worker was removed: then what names it begins with an
    /// empty one elsewhere. Answers [`Done::Nothing`].
    VolumeRemove {
        /// Name.
        name: String,
    },
    /// Makes a token by which workers or managers may join. Answers [`Done::Token`].
    TokenCreate {
        /// SHA-256 of its text, hex.
        hash: String,
        /// Its time from the entry's stamp on, milliseconds.
        ttl_ms: u64,
        /// What joins by it.
        #[serde(default, skip_serializing_if = "TokenRole::is_worker")]
        role: TokenRole,
    },
    /// Ends a token. Answers [`Done::Nothing`].
    TokenRevoke {
        /// Its id.
        id: u64,
    },
    /// Gives a secret a value: its next version, the first one makes it. Answers [`Done::Secret`].
    SecretPut {
        /// Its name.
        name: String,
        /// The version, one more than the newest; refused if there is that one by now.
        version: u64,
        /// The value, sealed.
        what: Version,
    },
    /// Removes a secret that no service names. Answers [`Done::Nothing`].
    SecretRemove {
        /// Its name.
        name: String,
    },
    /// A manager made the data key; refused while any manager has one. Answers [`Done::Nothing`].
    KeyringMake {
        /// Which manager.
        node: NodeId,
        /// Its public key.
        public: PublicKey,
        /// The data key, sealed for it.
        share: Sealed,
    },
    /// A manager has no share that it can open, and tells its public key to get one. Answers [`Done::Nothing`].
    KeyringJoin {
        /// Which manager.
        node: NodeId,
        /// Its public key.
        public: PublicKey,
    },
    /// A manager that has the data key shares it with one that has not. Void if that one has a share or another key by now. Answers
    /// [`Done::Nothing`].
    KeyringShare {
        /// Which data key.
        key: u64,
        /// Who gets it.
        node: NodeId,
        /// For which public key it is sealed.
        public: PublicKey,
        /// The data key, sealed.
        share: Sealed,
    },
    /// A manager is no member any more. Answers [`Done::Nothing`].
    KeyringLeave {
        /// Which.
        node: NodeId,
    },
    /// A node that nobody added shows a manager's token: the leader may make it a member. The same node again changes nothing.
    /// Answers [`Done::Token`].
    ManagerJoin {
        /// Its name.
        name: String,
        /// Life of its disk.
        life: Incarnation,
        /// SHA-256 of the token that it showed, hex.
        token_hash: String,
    },
}

/// The JSON of [`Command::ServiceCreate`], read in one go.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceCreate {
    /// The variant.
    #[serde(rename = "do")]
    _do: OnlyServiceCreate,
    spec: Spec,
}

/// The word for it.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum OnlyServiceCreate {
    ServiceCreate,
}

impl Command {
    /// The command as it is written into the log.
    pub(crate) fn to_json(&self) -> Bytes {
        super::records::write(self)
    }

    /// Reads a command. The variant's name may stand anywhere in it, so that all is kept in pieces until it is found and then read
    /// again; what a client waits for most is read at once.
    pub(crate) fn from_json(json: &[u8]) -> serde_json::Result<Command> {
        match serde_json::from_slice(json) {
            Ok(ServiceCreate { spec, .. }) => Ok(Command::ServiceCreate { spec }),
            Err(_) => serde_json::from_slice(json),
        }
    }
}

/// A worker's hello with what it brings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerHello {
    /// SHA-256 of the token that it showed, hex; needed by one that has no name in the cluster yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_hash: Option<String>,
    /// What it is.
    pub machine: Machine,
    /// Who it is, and what it has.
    pub hello: Hello,
}

/// What a worker says of its machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Its name, unique among workers; the one with which it joined stays.
    pub name: String,
    /// Its HTTP address, `host:port`.
    pub address: String,
    /// System and processor, such as `linux/amd64`.
    pub platform: String,
    /// Whether it runs images.
    #[serde(default)]
    pub containers: bool,
    /// What it has to give.
    pub capacity: Amounts,
    /// The key for which its tasks' secrets are sealed; none: it can open none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<PublicKey>,
    /// Labels that it begins with when it joins; afterwards operators set them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Reports of one worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerReports {
    /// Who.
    pub worker: WorkerId,
    /// In which session.
    pub epoch: Epoch,
    /// Life of the disk in which they are numbered.
    pub life: Incarnation,
    /// The reports, oldest first.
    pub reports: Vec<Report>,
}

/// What a command did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "done", rename_all = "snake_case")]
pub enum Done {
    /// Nothing more to say.
    Nothing,
    /// Of a service.
    Service {
        /// Its id.
        id: ServiceId,
        /// Its version now.
        version: u64,
    },
    /// Of a hello.
    Welcome {
        /// The worker.
        worker: WorkerId,
        /// Its session.
        epoch: Epoch,
    },
    /// Of a token.
    Token {
        /// Its id.
        id: u64,
        /// When it ends, milliseconds since the Unix epoch.
        expires_ms: u64,
    },
    /// Of a secret.
    Secret {
        /// Its newest version.
        version: u64,
    },
}
