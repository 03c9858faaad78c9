//! The table of settings: every key, what it takes and what it is for.
//!
//! Loading, messages about misspelt keys, `config show` and the documents all read this one table; a test holds it
//! against the types of [`crate::config::Config`].

/// What a key takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A whole number, not negative.
    Number,
    /// `true` or `false`.
    Flag,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A text that is never shown.
    Secret,
    /// The list of members: tables in the file, `name=peer/http,...` elsewhere.
    Members,
}

impl Kind {
    /// The kind in words, for messages.
    pub fn words(self) -> String {
        match self {
            Kind::Text | Kind::Secret => "a text in quotes".to_owned(),
            Kind::Number => "a whole number".to_owned(),
            Kind::Flag => "true or false".to_owned(),
            Kind::Word(words) => format!("one of \"{}\"", words.join("\", \"")),
            Kind::Members => "a list of members, each with name, peer and http".to_owned(),
        }
    }
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its place, dotted.
    pub path: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// True when there is no default.
    pub required: bool,
    /// One line for people.
    pub what: &'static str,
}

macro_rules! keys {
    ($($path:literal $kind:expr, $required:literal, $what:literal;)*) => {
        /// Every setting, in the order in which people meet them.
        pub const KEYS: &[Key] = &[
            $(Key { path: $path, kind: $kind, required: $required, what: $what },)*
        ];
    };
}

keys! {
    "name" Kind::Text, true, "this node's name, unique in the cluster";
    "data_dir" Kind::Text, true, "directory of everything the node keeps";
    "profile" Kind::Word(&["lan", "edge", "wan"]), false, "timing: heartbeats and elections";
    "listen.http" Kind::Text, true, "API, health and metrics, host:port";
    "listen.peer" Kind::Text, true, "other nodes, host:port";
    "listen.advertise_http" Kind::Text, false, "HTTP address others use, when it differs";
    "listen.advertise_peer" Kind::Text, false, "peer address others use, when it differs";
    "cluster.members" Kind::Members, false, "founding members, the same list on each of them";
    "cluster.join" Kind::Flag, false, "join an existing cluster instead of founding one";
    "cluster.token" Kind::Secret, false, "the manager's token by which it joins; never shown";
    "cluster.token_file" Kind::Text, false, "a file that holds that token";
    "limits.key_bytes_max" Kind::Number, false, "longest key, bytes";
    "limits.value_bytes_max" Kind::Number, false, "longest value, bytes";
    "limits.body_bytes_max" Kind::Number, false, "longest request body, bytes";
    "limits.range_max" Kind::Number, false, "most records of one range answer";
    "limits.txn_ops_max" Kind::Number, false, "most steps of one transaction";
    "limits.connections_max" Kind::Number, false, "most open client connections";
    "limits.slow_client_ms" Kind::Number, false, "patience with slow clients, milliseconds";
    "storage.snapshot_entries" Kind::Number, false, "entries between snapshots";
    "storage.disk_low_bytes" Kind::Number, false, "free bytes below which writes are refused";
    "workers.down_after_ms" Kind::Number, false, "silence after which a worker counts as down, milliseconds";
    "log.format" Kind::Word(&["text", "json"]), false, "shape of log lines";
    "log.filter" Kind::Text, false, "a level or filter: info, info,node=debug";
}

/// Keys inside one entry of `cluster.members`.
pub const MEMBER_KEYS: &[&str] = &["name", "peer", "http"];

/// The key at `path`.
pub fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// True when `path` names a table of the file.
pub fn is_section(path: &str) -> bool {
    KEYS.iter().any(|key| {
        key.path
            .split_once('.')
            .is_some_and(|parts| parts.0 == path)
    })
}

/// The environment variable that sets `path`.
pub fn variable(path: &str) -> String {
    format!("SEAWORTHY_{}", path.replace('.', "__").to_uppercase())
}

/// The known path most like `path`, if any is near enough to be meant.
pub fn nearest_path(path: &str) -> Option<&'static str> {
    let leaf = path.rsplit('.').next().unwrap_or(path);
    let section = path.rsplit_once('.').map(|parts| parts.0);
    KEYS.iter()
        .map(|key| (likeness(key.path, section, leaf, path), key.path))
        .filter(|(distance, known)| near_enough(*distance, leaf.len().max(known.len() / 2)))
        .min()
        .map(|(_, known)| known)
}

/// How far `known` is from what was written: by its last name, one more when it lives in another table, or as a whole.
fn likeness(known: &str, section: Option<&str>, leaf: &str, path: &str) -> usize {
    let (known_section, known_leaf) = match known.rsplit_once('.') {
        Some((section, leaf)) => (Some(section), leaf),
        None => (None, known),
    };
    let elsewhere = usize::from(known_section != section);
    (distance(known_leaf, leaf) + elsewhere).min(distance(known, path))
}

/// The word of `words` most like `word`, if any is near enough to be meant.
pub fn nearest<'a>(word: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    words
        .into_iter()
        .map(|known| (distance(known, word), known))
        .filter(|(distance, _)| near_enough(*distance, word.len()))
        .min()
        .map(|(_, known)| known)
}

/// One slip in three letters may be a typing error; more is another word.
fn near_enough(distance: usize, length: usize) -> bool {
    distance <= (length / 3).max(1)
}

/// Edit distance: insertions, removals, exchanges and swaps of neighbours (optimal string alignment).
pub fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().collect();
    let right: Vec<char> = right.chars().collect();
    let mut rows = vec![(0..=right.len()).collect::<Vec<usize>>()];
    for i in 1..=left.len() {
        let mut row = vec![i];
        for j in 1..=right.len() {
            let exchange = usize::from(left[i - 1] != right[j - 1]);
            let mut best = (rows[i - 1][j] + 1)
                .min(row[j - 1] + 1)
                .min(rows[i - 1][j - 1] + exchange);
            if i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_slips() {
        assert_eq!(distance("http", "http"), 0);
        assert_eq!(distance("http", "htpt"), 1);
        assert_eq!(distance("peer", "pear"), 1);
        assert_eq!(distance("", "abc"), 3);
    }

    #[test]
    fn nearest_path_finds_slips_and_lost_tables() {
        assert_eq!(nearest_path("listen.htpp"), Some("listen.http"));
        assert_eq!(nearest_path("http"), Some("listen.http"));
        assert_eq!(nearest_path("datadir"), Some("data_dir"));
        assert_eq!(nearest_path("log.level"), None);
        assert_eq!(nearest_path("zebra"), None);
    }

    #[test]
    fn variables_are_upper_case_with_double_underscores() {
        assert_eq!(variable("listen.http"), "SEAWORTHY_LISTEN__HTTP");
        assert_eq!(variable("data_dir"), "SEAWORTHY_DATA_DIR");
    }
}
