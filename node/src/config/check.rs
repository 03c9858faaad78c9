//! Judging a configuration: everything that is wrong or unwise, all at once, each with advice.
//!
//! Nothing here looks at the disk or the network; whether an address can be listened on shows at the start.

use super::{Config, Founder};
use std::collections::BTreeMap;
use std::fmt;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The node does not start with it.
    Error,
    /// The node starts, but somebody should think about it.
    Warning,
}

/// Something about the configuration that a person should know.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// Where: `file:line:column`, an environment variable, a flag, or a key.
    pub place: String,
    /// What is the matter.
    pub message: String,
    /// What to do.
    pub advice: String,
}

impl Finding {
    /// Something that must be put right.
    pub fn error(
        place: impl Into<String>,
        message: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Finding {
            level: Level::Error,
            place: place.into(),
            message: message.into(),
            advice: advice.into(),
        }
    }

    /// Something to think about.
    pub fn warning(
        place: impl Into<String>,
        message: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Finding {
            level: Level::Warning,
            ..Finding::error(place, message, advice)
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Error => "error",
            Level::Warning => "warning",
        };
        write!(out, "{level}: {}: {}", self.place, self.message)?;
        if !self.advice.is_empty() {
            write!(out, "\n  {}", self.advice)?;
        }
        Ok(())
    }
}

/// Longest name of a node, bytes: it must fit a DNS label.
const NAME_BYTES_MAX: usize = 63;
/// Largest value a frame between peers can surely carry, bytes.
const VALUE_BYTES_CEILING: usize = 16 << 20;
/// Members beyond which every write waits for too many disks.
const MEMBERS_WISE_MAX: usize = 7;
/// Least silence after which a worker may count as down, milliseconds: workers then send a heartbeat each 200 ms, and less cannot be told
/// from a segment that was lost or a pause of the machine.
const DOWN_AFTER_MS_MIN: u64 = 1_000;
/// Silence that is more than an election and a passing cut, milliseconds.
const DOWN_AFTER_MS_WISE: u64 = 10_000;
/// Greatest such silence, milliseconds.
const DOWN_AFTER_MS_MAX: u64 = 3_600_000;
/// Least free space that lets the log be cut when it is needed most (four segments), bytes.
const DISK_LOW_BYTES_WISE: u64 = 64 << 20;

impl Config {
    /// Everything that is wrong or unwise, errors first.
    pub fn validate(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        self.check_names(&mut found);
        self.check_listen(&mut found);
        self.check_members(&mut found);
        self.check_count(&mut found);
        self.check_limits(&mut found);
        self.check_storage(&mut found);
        self.check_workers(&mut found);
        found.sort_by_key(|finding| finding.level);
        found
    }

    fn check_names(&self, found: &mut Vec<Finding>) {
        check_name("name", &self.name, found);
        if self.data_dir.as_os_str().is_empty() {
            found.push(Finding::error(
                "data_dir",
                "the data directory is empty",
                "name a directory on a local disk, for example data_dir = \"/var/lib/seaworthy\"",
            ));
        }
        if self.log.filter.trim().is_empty() {
            found.push(Finding::error(
                "log.filter",
                "the log filter is empty",
                "use a level such as \"info\"",
            ));
        }
    }

    fn check_listen(&self, found: &mut Vec<Finding>) {
        let listen = &self.listen;
        check_address("listen.http", &listen.http, found);
        check_address("listen.peer", &listen.peer, found);
        for (key, address) in [
            ("listen.advertise_http", &listen.advertise_http),
            ("listen.advertise_peer", &listen.advertise_peer),
        ] {
            if let Some(address) = address {
                check_reachable(key, address, found);
            }
        }
        if listen.http == listen.peer && port(&listen.http) != Some(0) {
            found.push(Finding::error(
                "listen.peer",
                format!("the HTTP and the peer door are both {}", listen.http),
                "give the peer door a port of its own, for example 9001",
            ));
        }
        self.check_any_address(found);
    }

    /// A node that listens everywhere must say by which address others find it.
    fn check_any_address(&self, found: &mut Vec<Finding>) {
        let alone = self.cluster.members.is_empty();
        let listed = self.own_entry().is_some();
        let said = self.listen.advertise_peer.is_some();
        if !alone && !listed && !said && is_any_address(&self.listen.peer) {
            found.push(Finding::error(
                "listen.advertise_peer",
                format!(
                    "the node listens on {}, which others cannot dial",
                    self.listen.peer
                ),
                "set listen.advertise_peer (and advertise_http) to an address the others reach",
            ));
        }
    }

    fn own_entry(&self) -> Option<&Founder> {
        self.cluster
            .members
            .iter()
            .find(|one| one.name == self.name)
    }

    fn check_members(&self, found: &mut Vec<Finding>) {
        let members = &self.cluster.members;
        let mut seen: BTreeMap<String, String> = BTreeMap::new();
        for (at, member) in members.iter().enumerate() {
            let place = format!("cluster.members[{at}]");
            check_name(&format!("{place}.name"), &member.name, found);
            check_reachable(&format!("{place}.peer"), &member.peer, found);
            check_reachable(&format!("{place}.http"), &member.http, found);
            for (kind, text) in [
                ("name", &member.name),
                ("address", &member.peer),
                ("address", &member.http),
            ] {
                if let Some(first) = seen.insert(format!("{kind} {text}"), place.clone()) {
                    found.push(Finding::error(
                        &place,
                        format!("the {kind} {text} is already used in {first}"),
                        "names and addresses of members must all differ",
                    ));
                }
            }
        }
        self.check_token(found);
        self.check_own_entry(found);
    }

    fn check_token(&self, found: &mut Vec<Finding>) {
        let cluster = &self.cluster;
        let (token, file) = (cluster.token.is_some(), cluster.token_file.is_some());
        if token && file {
            found.push(Finding::error(
                "cluster.token_file",
                "the token is given twice: as text and as a file",
                "keep one of cluster.token and cluster.token_file",
            ));
        }
        if (token || file) && !cluster.join {
            let key = if token {
                "cluster.token"
            } else {
                "cluster.token_file"
            };
            found.push(Finding::error(
                key,
                "a token lets a node join a cluster, but this one is not to join any",
                "set cluster.join = true (--join), or leave the token out",
            ));
        }
    }

    fn check_own_entry(&self, found: &mut Vec<Finding>) {
        let cluster = &self.cluster;
        if cluster.join && cluster.members.is_empty() {
            found.push(Finding::error(
                "cluster.members",
                "the node is to join a cluster, but knows nobody in it",
                "list at least one member of the cluster to join, better all of them",
            ));
        }
        if cluster.members.is_empty() || cluster.join {
            return;
        }
        let Some(own) = self.own_entry() else {
            found.push(Finding::error(
                "cluster.members",
                format!("this node, \"{}\", is not among the members", self.name),
                "add it to the list, correct `name`, or set cluster.join = true",
            ));
            return;
        };
        let doors = [
            (
                "peer",
                &own.peer,
                &self.listen.peer,
                &self.listen.advertise_peer,
            ),
            (
                "http",
                &own.http,
                &self.listen.http,
                &self.listen.advertise_http,
            ),
        ];
        for (kind, listed, listens, advertised) in doors {
            let same = advertised.as_ref() == Some(listed) || port(listed) == port(listens);
            if !same {
                found.push(Finding::warning(
                    format!("listen.{kind}"),
                    format!("the members list says {listed}, but this node listens on {listens}"),
                    "right only behind a port forwarding; otherwise make the ports agree",
                ));
            }
        }
    }

    fn check_count(&self, found: &mut Vec<Finding>) {
        let count = self.cluster.members.len();
        if self.cluster.join || count < 2 {
            return;
        }
        let advice = "use one member, or an odd number: three stand one failure, five stand two";
        let message = if count == 2 {
            "with two members, losing either one stops the cluster".to_owned()
        } else if count.is_multiple_of(2) {
            format!(
                "{count} members stand no more failures than {}, and every write waits for one more",
                count - 1
            )
        } else if count > MEMBERS_WISE_MAX {
            format!(
                "{count} voting members make every write wait for {} disks",
                count / 2 + 1
            )
        } else {
            return;
        };
        found.push(Finding::warning("cluster.members", message, advice));
    }

    fn check_limits(&self, found: &mut Vec<Finding>) {
        let limits = &self.limits;
        for (key, value) in [
            ("limits.key_bytes_max", limits.key_bytes_max),
            ("limits.value_bytes_max", limits.value_bytes_max),
            ("limits.body_bytes_max", limits.body_bytes_max),
            ("limits.range_max", limits.range_max),
            ("limits.txn_ops_max", limits.txn_ops_max),
            ("limits.connections_max", limits.connections_max),
        ] {
            if value == 0 {
                let message = "zero would refuse every request";
                found.push(Finding::error(key, message, "leave it out for the default"));
            }
        }
        if limits.body_bytes_max < limits.value_bytes_max {
            found.push(Finding::error(
                "limits.body_bytes_max",
                format!(
                    "a body of {} bytes cannot carry a value of {} bytes",
                    limits.body_bytes_max, limits.value_bytes_max
                ),
                "make it at least value_bytes_max, better half as much again (values in base64)",
            ));
        }
        if limits.value_bytes_max > VALUE_BYTES_CEILING {
            found.push(Finding::error(
                "limits.value_bytes_max",
                format!("values over {VALUE_BYTES_CEILING} bytes do not fit between nodes"),
                "store large objects elsewhere and keep their address here",
            ));
        }
        if limits.slow_client_ms < 100 {
            found.push(Finding::warning(
                "limits.slow_client_ms",
                format!("clients are cut off after {} ms", limits.slow_client_ms),
                "honest clients on a bad line need a second or more",
            ));
        }
    }

    fn check_storage(&self, found: &mut Vec<Finding>) {
        if self.storage.snapshot_entries == Some(0) {
            found.push(Finding::error(
                "storage.snapshot_entries",
                "zero entries between snapshots would snapshot for ever",
                "leave it out for the default (10000)",
            ));
        }
        if self
            .storage
            .disk_low_bytes
            .is_some_and(|bytes| bytes < DISK_LOW_BYTES_WISE)
        {
            found.push(Finding::warning(
                "storage.disk_low_bytes",
                "so little free space may be too little to write the snapshot that frees some",
                "keep at least 64 MiB (67108864)",
            ));
        }
    }

    fn check_workers(&self, found: &mut Vec<Finding>) {
        let Some(ms) = self.workers.down_after_ms else {
            return;
        };
        if ms < DOWN_AFTER_MS_MIN {
            found.push(Finding::error(
                "workers.down_after_ms",
                format!("{ms} ms of silence cannot be told from a slow network"),
                "leave it out for the default (30000), or give at least 1000",
            ));
        } else if ms < DOWN_AFTER_MS_WISE {
            found.push(Finding::warning(
                "workers.down_after_ms",
                format!("a worker that is only slow for {ms} ms loses its tasks to others"),
                "10000 and more outlast an election and a short cut of the network",
            ));
        } else if ms > DOWN_AFTER_MS_MAX {
            found.push(Finding::error(
                "workers.down_after_ms",
                format!("{ms} ms are more than an hour: a lost worker's tasks would not be replaced before"),
                "leave it out for the default (30000)",
            ));
        }
    }
}

fn check_name(place: &str, name: &str, found: &mut Vec<Finding>) {
    let fine = !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if !fine {
        found.push(Finding::error(
            place,
            format!("\"{name}\" cannot be a node's name"),
            format!("use 1 to {NAME_BYTES_MAX} letters, digits, '-', '_' and '.'"),
        ));
    }
}

fn check_address(place: &str, address: &str, found: &mut Vec<Finding>) {
    if port(address).is_none() {
        found.push(Finding::error(
            place,
            format!("\"{address}\" is not an address"),
            "write host:port, for example 127.0.0.1:8001 or [::1]:8001",
        ));
    }
}

/// An address that others dial: neither "any" nor port 0 will do.
fn check_reachable(place: &str, address: &str, found: &mut Vec<Finding>) {
    check_address(place, address, found);
    if is_any_address(address) || port(address) == Some(0) {
        found.push(Finding::error(
            place,
            format!("nobody can dial {address}"),
            "write the address and port by which the other nodes reach this one",
        ));
    }
}

/// The port of `host:port`.
fn port(address: &str) -> Option<u16> {
    let (host, port) = address.rsplit_once(':')?;
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let plain = !host.is_empty() && !host.contains([':', '/', ' ']);
    (bracketed || plain).then(|| port.parse().ok()).flatten()
}

fn is_any_address(address: &str) -> bool {
    address.starts_with("0.0.0.0:") || address.starts_with("[::]:")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TokenText;
    use crate::knobs::Profile;

    fn config(members: usize) -> Config {
        let member = |at: usize| Founder {
            name: format!("n{at}"),
            peer: format!("10.0.0.{at}:9001"),
            http: format!("10.0.0.{at}:8001"),
        };
        let mut config = Config::lone("/tmp".as_ref());
        config.profile = Profile::Edge;
        config.listen.http = "0.0.0.0:8001".into();
        config.listen.peer = "0.0.0.0:9001".into();
        config.cluster.members = (1..=members).map(member).collect();
        config
    }

    fn told(config: &Config) -> Vec<(Level, String)> {
        let brief = |finding: Finding| (finding.level, finding.place);
        config.validate().into_iter().map(brief).collect()
    }

    #[test]
    fn one_three_and_five_members_are_fine() {
        for count in [0, 1, 3, 5, 7] {
            assert_eq!(told(&config(count)), vec![], "{count} members");
        }
    }

    #[test]
    fn two_members_are_a_warning() {
        let found = config(2).validate();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].level, Level::Warning);
        assert!(found[0].message.contains("either one"), "{}", found[0]);
    }

    #[test]
    fn all_problems_are_told_at_once_errors_first() {
        let mut config = config(2);
        config.name = "n9".into();
        config.listen.http = "nonsense".into();
        config.limits.body_bytes_max = 10;
        config.cluster.members[1].peer = config.cluster.members[0].peer.clone();
        let found = told(&config);
        let errors: Vec<&str> = found
            .iter()
            .filter(|one| one.0 == Level::Error)
            .map(|one| one.1.as_str())
            .collect();
        assert_eq!(
            errors,
            [
                "listen.http",
                "listen.advertise_peer",
                "cluster.members[1]",
                "cluster.members",
                "limits.body_bytes_max"
            ]
        );
        assert_eq!(found.last().unwrap().0, Level::Warning);
    }

    #[test]
    fn a_worker_needs_some_heartbeats_time() {
        for (ms, level) in [
            (999, Some(Level::Error)),
            (1_000, Some(Level::Warning)),
            (10_000, None),
            (3_600_000, None),
            (3_600_001, Some(Level::Error)),
        ] {
            let mut config = config(3);
            config.workers.down_after_ms = Some(ms);
            let place = "workers.down_after_ms".to_owned();
            let wanted: Vec<_> = level.map(|level| (level, place)).into_iter().collect();
            assert_eq!(told(&config), wanted, "{ms}");
        }
    }

    #[test]
    fn same_door_twice_and_unlisted_ports_are_told() {
        let mut config = config(3);
        config.listen.http = "0.0.0.0:9001".into();
        let found = told(&config);
        assert!(found.contains(&(Level::Error, "listen.peer".into())));
        assert!(found.contains(&(Level::Warning, "listen.http".into())));
    }

    #[test]
    fn joining_needs_somebody_to_join() {
        let mut config = config(0);
        config.cluster.join = true;
        assert_eq!(
            told(&config),
            vec![(Level::Error, "cluster.members".into())]
        );
    }

    #[test]
    fn a_token_is_for_a_node_that_joins_and_given_once() {
        let mut config = config(3);
        config.cluster.token = Some(TokenText("swt-1".into()));
        assert_eq!(told(&config), vec![(Level::Error, "cluster.token".into())]);
        config.cluster.join = true;
        assert_eq!(told(&config), vec![]);
        config.cluster.token_file = Some("f".into());
        assert_eq!(
            told(&config),
            vec![(Level::Error, "cluster.token_file".into())]
        );
    }

    #[test]
    fn ports_are_read_from_addresses() {
        assert_eq!(port("a:1"), Some(1));
        assert_eq!(port("[::1]:80"), Some(80));
        assert_eq!(port("::1:80"), None);
        assert_eq!(port("a:70000"), None);
        assert_eq!(port(":80"), None);
        assert_eq!(port("http://a:80"), None);
    }
}
