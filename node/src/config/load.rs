//! Putting a configuration together: flags over environment over file over built-in values.
//!
//! Every key knows where its value came from. A key nobody knows is an error with its line and the nearest right name;
//! all such errors are told at once. Reading the file and the environment is the caller's work.

use super::check::Finding;
use super::keys::{self, Key, Kind};
use super::{Config, NOT_SETTINGS};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use toml::de::{DeTable, DeValue};
use toml::{Spanned, Value};

/// What a configuration is put together from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Name and text of the file.
    pub file: Option<(String, String)>,
    /// The process environment; only `SEAWORTHY_*` is looked at.
    pub variables: BTreeMap<String, String>,
    /// Flag as written, key, value; later ones win.
    pub flags: Vec<(String, String, String)>,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Built in.
    Default,
    /// The file.
    File {
        /// Line, from 1.
        line: usize,
    },
    /// This environment variable.
    Variable(String),
    /// This flag.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => out.write_str("default"),
            Origin::File { line } => write!(out, "file, line {line}"),
            Origin::Variable(name) | Origin::Flag(name) => out.write_str(name),
        }
    }
}

/// A configuration and where each part came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Origin of every key that is not built in.
    origins: BTreeMap<String, Origin>,
}

impl Loaded {
    /// Where the value of `path` came from.
    pub fn origin(&self, path: &str) -> Origin {
        self.origins.get(path).cloned().unwrap_or(Origin::Default)
    }

    /// Every key with its value (`-` when unset) and origin.
    pub fn table(&self) -> Vec<(&'static str, String, Origin)> {
        let values = Value::try_from(&self.config).expect("a configuration is plain data");
        keys::KEYS
            .iter()
            .map(|key| {
                let value = at(&values, key.path);
                let text = match key.kind {
                    Kind::Secret if value.is_some() => "(hidden)".to_owned(),
                    _ => shown(value),
                };
                (key.path, text, self.origin(key.path))
            })
            .collect()
    }
}

/// The configuration of `sources`, or everything that is wrong with them. [`Config::validate`] judges the result.
pub fn load(sources: &Sources) -> Result<Loaded, Vec<Finding>> {
    let mut loading = Loading::default();
    if let Some((name, text)) = &sources.file {
        loading.file(name, text);
    }
    for (name, text) in &sources.variables {
        loading.variable(name, text);
    }
    for (flag, path, text) in &sources.flags {
        loading.flag(flag, path, text);
    }
    loading.finish(sources.file.is_some())
}

/// The work of [`load`].
#[derive(Default)]
struct Loading {
    /// Values so far.
    values: toml::Table,
    /// Where they came from.
    origins: BTreeMap<String, Origin>,
    /// What is wrong.
    found: Vec<Finding>,
    /// True when the file is no TOML.
    unreadable: bool,
}

impl Loading {
    fn file(&mut self, name: &str, text: &str) {
        let tree = match DeTable::parse(text) {
            Ok(tree) => tree,
            Err(error) => {
                let place = place(name, text, error.span().map_or(0, |span| span.start));
                let advice = "the file must be TOML: key = value lines under [table] headings";
                self.found
                    .push(Finding::error(place, error.message(), advice));
                self.unreadable = true;
                return;
            }
        };
        FileWalk { name, text }.table("", tree.get_ref(), self);
        // Parsed a second time for plain values: the spans above are only needed for messages.
        self.values = text.parse().unwrap_or_default();
    }

    fn variable(&mut self, name: &str, text: &str) {
        let Some(rest) = name.strip_prefix("SEAWORTHY_") else {
            return;
        };
        if NOT_SETTINGS.contains(&name) || is_service_link(rest) {
            return;
        }
        let path = rest.to_lowercase().replace("__", ".");
        let origin = Origin::Variable(name.to_owned());
        match keys::find(&path) {
            Some(key) => self.set(name, key, text, origin),
            None => {
                let meant = keys::nearest_path(&path)
                    .or_else(|| keys::nearest_path(&path.replacen('_', ".", 1)));
                let advice = match meant {
                    Some(known) => format!("did you mean {}?", keys::variable(known)),
                    None => "see `seaworthy config keys` for every setting".to_owned(),
                };
                let message = "no setting has this name";
                self.found.push(Finding::error(name, message, advice));
            }
        }
    }

    fn flag(&mut self, flag: &str, path: &str, text: &str) {
        match keys::find(path) {
            Some(key) => self.set(flag, key, text, Origin::Flag(flag.to_owned())),
            None => self.found.push(unknown(flag, path)),
        }
    }

    /// Takes a value written as text.
    fn set(&mut self, place: &str, key: &Key, text: &str, origin: Origin) {
        let Some(value) = value_of(key.kind, text) else {
            let message = format!("\"{text}\" does not fit {}", key.path);
            let advice = match key.kind {
                Kind::Members => "write name=peer/http,name=peer/http,...".to_owned(),
                kind => format!("it takes {}", kind.words()),
            };
            self.found.push(Finding::error(place, message, advice));
            return;
        };
        self.origins.insert(key.path.to_owned(), origin);
        let (table, leaf) = match key.path.split_once('.') {
            None => (&mut self.values, key.path),
            Some((section, leaf)) => {
                let entry = self
                    .values
                    .entry(section)
                    .or_insert_with(|| Value::Table(toml::Table::new()));
                // A file that makes a value of a section has been found wrong already.
                let Value::Table(table) = entry else { return };
                (table, leaf)
            }
        };
        table.insert(leaf.to_owned(), value);
    }

    fn finish(mut self, has_file: bool) -> Result<Loaded, Vec<Finding>> {
        let required = keys::KEYS.iter().filter(|key| key.required);
        // Of a file that could not be read at all, nothing can be said to be missing.
        for key in required.filter(|_| !self.unreadable) {
            if !self.origins.contains_key(key.path) {
                self.found.push(missing_key(key, has_file));
            }
        }
        if !self.found.is_empty() {
            return Err(self.found);
        }
        match Config::deserialize(Value::Table(self.values)) {
            Ok(config) => Ok(Loaded {
                config,
                origins: self.origins,
            }),
            Err(error) => Err(vec![Finding::error("configuration", error.message(), "")]),
        }
    }
}

/// A key without default that nobody set.
fn missing_key(key: &Key, has_file: bool) -> Finding {
    let variable = keys::variable(key.path);
    let advice = if has_file {
        format!("add it to the file, or set {variable}")
    } else {
        format!("name a file with --config, or set {variable}")
    };
    let message = format!("missing: {}", key.what);
    Finding::error(key.path, message, advice)
}

/// A key nobody knows, at `place`.
fn unknown(place: impl Into<String>, path: &str) -> Finding {
    let advice = match keys::nearest_path(path) {
        Some(known) => format!("did you mean `{known}`?"),
        None => "see `seaworthy config keys` for every setting".to_owned(),
    };
    Finding::error(place, format!("unknown key `{path}`"), advice)
}

/// A look at the file with places, for messages.
struct FileWalk<'a> {
    /// Name of the file.
    name: &'a str,
    /// Its text.
    text: &'a str,
}

impl FileWalk<'_> {
    fn table(&self, section: &str, table: &DeTable<'_>, to: &mut Loading) {
        for (name, value) in table.iter() {
            let leaf = name.get_ref().as_ref();
            let path = match section {
                "" => leaf.to_owned(),
                section => format!("{section}.{leaf}"),
            };
            let start = name.span().start;
            if let Some(key) = keys::find(&path) {
                self.value(key, value, start, to);
            } else if section.is_empty() && keys::is_section(&path) {
                self.section(&path, value, to);
            } else {
                to.found.push(unknown(self.place(start), &path));
            }
        }
    }

    fn section(&self, path: &str, value: &Spanned<DeValue<'_>>, to: &mut Loading) {
        match value.get_ref().as_table() {
            Some(table) => self.table(path, table, to),
            None => to.found.push(Finding::error(
                self.place(value.span().start),
                format!("`{path}` is a table, not a value"),
                format!("write its keys under a [{path}] heading"),
            )),
        }
    }

    fn value(&self, key: &Key, value: &Spanned<DeValue<'_>>, start: usize, to: &mut Loading) {
        let given = value.get_ref();
        let fits = match key.kind {
            Kind::Text | Kind::Secret => given.is_str(),
            Kind::Flag => given.is_bool(),
            Kind::Number => given
                .as_integer()
                .is_some_and(|n| !n.as_str().starts_with('-')),
            Kind::Word(words) => given.as_str().is_some_and(|word| words.contains(&word)),
            Kind::Members => given.is_array(),
        };
        let origin = Origin::File {
            line: line_and_column(self.text, start).0,
        };
        to.origins.insert(key.path.to_owned(), origin);
        if !fits {
            to.found.push(Finding::error(
                self.place(value.span().start),
                format!(
                    "`{}` takes {}, not this {}",
                    key.path,
                    key.kind.words(),
                    given.type_str()
                ),
                key.what,
            ));
        } else if let Some(members) = given.as_array() {
            for member in members.iter() {
                self.member(member, to);
            }
        }
    }

    fn member(&self, member: &Spanned<DeValue<'_>>, to: &mut Loading) {
        let place = self.place(member.span().start);
        let advice = "write { name = \"n1\", peer = \"host:port\", http = \"host:port\" }";
        let Some(table) = member.get_ref().as_table() else {
            let message = "a member is a table with name, peer and http";
            to.found.push(Finding::error(place, message, advice));
            return;
        };
        for (name, value) in table.iter() {
            let leaf = name.get_ref().as_ref();
            if !keys::MEMBER_KEYS.contains(&leaf) {
                let advice = match keys::nearest(leaf, keys::MEMBER_KEYS.iter().copied()) {
                    Some(known) => format!("did you mean `{known}`?"),
                    None => "a member has name, peer and http".to_owned(),
                };
                let message = format!("unknown key `{leaf}` of a member");
                let place = self.place(name.span().start);
                to.found.push(Finding::error(place, message, advice));
            } else if !value.get_ref().is_str() {
                let message = format!("`{leaf}` of a member takes a text in quotes");
                let place = self.place(value.span().start);
                to.found.push(Finding::error(place, message, advice));
            }
        }
        for leaf in keys::MEMBER_KEYS {
            if !table
                .iter()
                .any(|(name, _)| name.get_ref().as_ref() == *leaf)
            {
                let message = format!("a member without `{leaf}`");
                to.found
                    .push(Finding::error(place.clone(), message, advice));
            }
        }
    }

    fn place(&self, offset: usize) -> String {
        place(self.name, self.text, offset)
    }
}

fn place(name: &str, text: &str, offset: usize) -> String {
    let (line, column) = line_and_column(text, offset);
    format!("{name}:{line}:{column}")
}

/// Line and column of a byte offset, both from 1; columns count characters.
fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    (line, column)
}

/// The value that `text` means for a key of `kind`.
fn value_of(kind: Kind, text: &str) -> Option<Value> {
    match kind {
        Kind::Text | Kind::Secret => Some(Value::String(text.to_owned())),
        Kind::Number => {
            let number: i64 = text.trim().parse().ok()?;
            (number >= 0).then_some(Value::Integer(number))
        }
        Kind::Flag => match text {
            "true" | "1" => Some(Value::Boolean(true)),
            "false" | "0" => Some(Value::Boolean(false)),
            _ => None,
        },
        Kind::Word(words) => words
            .contains(&text)
            .then(|| Value::String(text.to_owned())),
        Kind::Members => members_of(text),
    }
}

/// Members written `name=peer/http,...`.
fn members_of(text: &str) -> Option<Value> {
    let mut members = Vec::new();
    for one in text.split(',').filter(|one| !one.trim().is_empty()) {
        let (name, doors) = one.trim().split_once('=')?;
        let (peer, http) = doors.split_once('/')?;
        let member = [("name", name), ("peer", peer), ("http", http)]
            .map(|(key, text)| (key.to_owned(), Value::String(text.to_owned())));
        members.push(Value::Table(toml::Table::from_iter(member)));
    }
    Some(Value::Array(members))
}

/// True for what Kubernetes sets in every pod beside a service called "seaworthy": no setting of ours.
fn is_service_link(rest: &str) -> bool {
    rest.starts_with("SERVICE_") || rest == "PORT" || rest.starts_with("PORT_")
}

/// The value at a dotted path.
fn at<'a>(values: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.')
        .try_fold(values, |value, name| value.get(name))
}

/// A value for people.
fn shown(value: Option<&Value>) -> String {
    match value {
        None => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(members)) if members.is_empty() => "-".to_owned(),
        Some(Value::Array(members)) => members
            .iter()
            .map(|one| {
                let text = |key| one.get(key).and_then(Value::as_str).unwrap_or("?");
                format!("{}={}/{}", text("name"), text("peer"), text("http"))
            })
            .collect::<Vec<_>>()
            .join(","),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::knobs::Profile;

    const FILE: &str = r#"
name = "n1"
data_dir = "/var/lib/seaworthy"

[listen]
http = "127.0.0.1:8001"
peer = "127.0.0.1:9001"

[[cluster.members]]
name = "n1"
peer = "127.0.0.1:9001"
http = "127.0.0.1:8001"
"#;

    fn sources(text: &str) -> Sources {
        Sources {
            file: Some(("node.toml".into(), text.into())),
            ..Sources::default()
        }
    }

    fn errors(sources: &Sources) -> Vec<String> {
        let found = load(sources).expect_err("must be refused");
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_plain_file_is_read() {
        let loaded = load(&sources(FILE)).unwrap();
        assert_eq!(loaded.config.name, "n1");
        assert_eq!(loaded.config.cluster.members.len(), 1);
        assert_eq!(loaded.config.profile, Profile::Edge);
        assert_eq!(loaded.origin("listen.http"), Origin::File { line: 6 });
        assert_eq!(loaded.origin("profile"), Origin::Default);
    }

    #[test]
    fn flags_win_over_environment_over_file() {
        let mut sources = sources(FILE);
        let one = load(&sources).unwrap();
        assert_eq!(one.config.listen.http, "127.0.0.1:8001");
        let variable = ("SEAWORTHY_LISTEN__HTTP".to_owned(), "h:2".to_owned());
        sources.variables.extend([variable]);
        let two = load(&sources).unwrap();
        assert_eq!(two.config.listen.http, "h:2");
        assert_eq!(
            two.origin("listen.http"),
            Origin::Variable("SEAWORTHY_LISTEN__HTTP".into())
        );
        sources
            .flags
            .push(("--http".into(), "listen.http".into(), "h:3".into()));
        let three = load(&sources).unwrap();
        assert_eq!(three.config.listen.http, "h:3");
        assert_eq!(three.origin("listen.http"), Origin::Flag("--http".into()));
    }

    #[test]
    fn unknown_keys_name_line_column_and_the_nearest_name() {
        let text = FILE.replace("http = \"127.0.0.1:8001\"\npeer", "htpp = \"x\"\npeer");
        let found = errors(&sources(&text));
        assert_eq!(
            found[0],
            "error: node.toml:6:1: unknown key `listen.htpp`\n  did you mean `listen.http`?"
        );
        assert!(found.iter().any(|one| one.contains("listen.http: missing")));
    }

    #[test]
    fn keys_of_members_are_looked_at_too() {
        let text = FILE.replace("[[cluster.members]]\nname", "[[cluster.members]]\nnaem");
        let found = errors(&sources(&text));
        assert!(found[0].contains("node.toml:10:1: unknown key `naem` of a member"));
        assert!(found[0].contains("did you mean `name`?"));
        assert!(found[1].contains("a member without `name`"));
    }

    #[test]
    fn wrong_kinds_are_told_with_what_fits() {
        let found = errors(&sources(&format!("profile = \"lann\"\n{FILE}")));
        assert!(found[0].contains("node.toml:1:11"), "{}", found[0]);
        assert!(found[0].contains("one of \"lan\", \"edge\", \"wan\""));
        let found = errors(&sources(&format!("{FILE}\n[limits]\nrange_max = \"many\"")));
        assert!(found[0].contains("`limits.range_max` takes a whole number"));
        let found = errors(&sources(&format!("listen = 3\n{}", "name = \"a\"")));
        assert!(found[0].contains("`listen` is a table"), "{found:?}");
    }

    #[test]
    fn broken_toml_is_told_with_its_line_alone() {
        let found = errors(&sources("name = \"n1\"\ndata_dir = \n"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("error: node.toml:2:"), "{}", found[0]);
    }

    #[test]
    fn everything_may_come_from_the_environment() {
        let variables = [
            ("SEAWORTHY_NAME", "a"),
            ("SEAWORTHY_DATA_DIR", "/d"),
            ("SEAWORTHY_LISTEN__HTTP", "h:1"),
            ("SEAWORTHY_LISTEN__PEER", "h:2"),
            ("SEAWORTHY_CLUSTER__MEMBERS", "a=h:2/h:1,b=i:2/i:1"),
            ("SEAWORTHY_CLUSTER__JOIN", "true"),
            ("SEAWORTHY_LIMITS__RANGE_MAX", "7"),
            ("SEAWORTHY_ENDPOINTS", "http://not-a-setting"),
            ("SEAWORTHY_SERVICE_HOST", "10.0.0.1"),
            ("PATH", "/bin"),
        ];
        let sources = Sources {
            variables: variables
                .map(|(name, text)| (name.to_owned(), text.to_owned()))
                .into(),
            ..Sources::default()
        };
        let config = load(&sources).unwrap().config;
        assert_eq!(config.cluster.members[1].http, "i:1");
        assert!(config.cluster.join);
        assert_eq!(config.limits.range_max, 7);
    }

    #[test]
    fn a_token_is_read_and_never_shown() {
        let text = FILE.replace("[[cluster", "[cluster]\ntoken = \"swt-very\"\n[[cluster");
        let loaded = load(&sources(&text)).unwrap();
        let token = loaded.config.cluster.token.clone().unwrap();
        assert_eq!(token.0, "swt-very");
        let shown = format!("{:?} {:?}", loaded.table(), loaded);
        assert!(
            shown.contains("(hidden)") && !shown.contains("very"),
            "{shown}"
        );
        let wrong = FILE.replace("[[cluster", "[cluster]\ntoken = 7\n[[cluster");
        assert!(errors(&sources(&wrong))[0].contains("takes a text in quotes, not this integer"));
    }

    #[test]
    fn misspelt_variables_are_told() {
        let mut sources = sources(FILE);
        let wrong = ("SEAWORTHY_LISTEN_HTTP".to_owned(), "h:2".to_owned());
        sources.variables.extend([wrong]);
        let found = errors(&sources);
        assert!(
            found[0].contains("did you mean SEAWORTHY_LISTEN__HTTP?"),
            "{found:?}"
        );
    }

    #[test]
    fn the_table_of_keys_is_the_type() {
        let text = format!(
            "profile = \"lan\"\n{}\n[limits]\n[storage]\nsnapshot_entries = 1\ndisk_low_bytes = 1\n[workers]\ndown_after_ms = 5000\n",
            FILE.replace(
                "[listen]",
                "[listen]\nadvertise_http = \"h:1\"\nadvertise_peer = \"h:2\""
            )
            .replace(
                "[[cluster",
                "[cluster]\ntoken = \"swt-1\"\ntoken_file = \"f\"\n[[cluster"
            )
        );
        let loaded = load(&sources(&text)).unwrap();
        let mut paths = Vec::new();
        for (name, value) in toml::Table::try_from(&loaded.config).unwrap() {
            match value {
                Value::Table(inner) => {
                    paths.extend(inner.keys().map(|leaf| format!("{name}.{leaf}")));
                }
                _ => paths.push(name),
            }
        }
        let mut known: Vec<&str> = keys::KEYS.iter().map(|key| key.path).collect();
        known.sort_unstable();
        paths.sort_unstable();
        assert_eq!(paths, known);
        assert!(loaded.table().iter().all(|(_, value, _)| value != "-"));
    }
}
