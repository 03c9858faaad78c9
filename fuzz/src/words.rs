//! Targets that a person or a client reaches: the configuration, JSON of the HTTP door, scenarios.

use crate::Target;
use crate::mutate::Source;
use node::api::txn::TxnRequest;
use node::api::wire::{LeaseRequest, MemberRequest, Record, TransferRequest};
use node::config::{Sources, load};
use scenarios::Scenario;
use serde_json::{from_str, to_string};

/// The targets of this file.
pub const TARGETS: &[Target] = &[
    Target {
        name: "config",
        cost: 5,
        run: config,
    },
    Target {
        name: "http-json",
        cost: 1,
        run: http_json,
    },
    Target {
        name: "scenario",
        cost: 5,
        run: scenario,
    },
];

const CONFIG: &str = r#"
name = "n1"
data_dir = "data"
profile = "edge"
[listen]
http = "127.0.0.1:7101"
peer = "127.0.0.1:7201"
[[cluster.members]]
name = "n1"
peer = "127.0.0.1:7201"
http = "127.0.0.1:7101"
[limits]
key_bytes_max = 4096
[storage]
snapshot_entries = 1000
[log]
format = "json"
"#;

const TXN: &str = r#"{
"compare": [ {"key": "a", "target": "version", "relation": "equal", "number": 0} ],
"success": [ {"put": {"key": "a", "value": "b", "lease": 0, "prev": true}} ],
"failure": [ {"get": {"key": "a", "prefix": true}}, {"delete": {"key_base64": "YQ=="}} ]
}"#;

const SCENARIO: &str = include_str!("../../scenarios/files/leader-crash.toml");

/// Words that turn up in the wrong place.
const WORDS: &[&str] = &[
    "\"\"",
    "-1",
    "0",
    "18446744073709551615",
    "18446744073709551616",
    "1e400",
    "nan",
    "true",
    "null",
    "[",
    "]]",
    "{",
    "}",
    "[listen]",
    "[[cluster.members]]",
    "=",
    "\"\u{0}\"",
    "\"\u{10ffff}\"",
    "\"127.0.0.1:0\"",
    "\":99999\"",
    "'''",
    "\"\"\"",
];

/// A configuration loads or is told off; what loads can be shown and judged.
fn config(source: &mut Source) -> bool {
    let text = source.mutated_text(&[CONFIG], WORDS);
    let sources = Sources {
        file: Some(("node.toml".to_owned(), text)),
        ..Sources::default()
    };
    match load(&sources) {
        Ok(loaded) => {
            loaded.table();
            drop(loaded.config.validate());
            true
        }
        Err(findings) => {
            assert!(
                !findings.is_empty(),
                "a configuration is refused for a reason"
            );
            false
        }
    }
}

/// A body is understood or refused; what was understood survives a round trip.
fn http_json(source: &mut Source) -> bool {
    let text = source.mutated_text(&[TXN], WORDS);
    let request = from_str::<TxnRequest>(&text).ok();
    if let Some(request) = &request {
        let again = to_string(request).expect("a request is plain data");
        assert_eq!(
            from_str::<TxnRequest>(&again).ok().as_ref(),
            Some(request),
            "a transaction survives a round trip"
        );
    }
    if let Ok(record) = from_str::<Record>(&text) {
        drop((record.key_bytes(), record.value_bytes()));
    }
    drop(from_str::<LeaseRequest>(&text));
    drop(from_str::<MemberRequest>(&text));
    drop(from_str::<TransferRequest>(&text));
    request.is_some()
}

/// A scenario is understood or refused; what was understood survives a round trip.
fn scenario(source: &mut Source) -> bool {
    let text = source.mutated_text(&[SCENARIO], WORDS);
    let Ok(scenario) = Scenario::parse(&text) else {
        return false;
    };
    let again = toml::to_string(&scenario).expect("a scenario is plain data");
    Scenario::parse(&again).expect("a scenario survives a round trip");
    true
}
