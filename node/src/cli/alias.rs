//! Other words for the same commands, as the runbooks of the products before us wrote them.
//!
//! An alias is expanded before the grammar sees the line; it adds no behaviour. Only words at the front count, so a key
//! called `raft` is safe.

/// Words as typed, and the words they stand for.
pub const ALIASES: &[(&[&str], &[&str])] = &[
    (&["cluster", "join"], &["cluster", "members", "add"]),
    (
        &["cluster", "join-token", "worker"],
        &["cluster", "token", "create"],
    ),
    (
        &["cluster", "join-token", "manager"],
        &["cluster", "token", "create", "--role", "manager"],
    ),
    (&["cluster", "status"], &["cluster", "info"]),
    (&["cluster", "verify"], &["cluster", "health"]),
    (&["raft", "status"], &["cluster", "info"]),
    (&["raft", "leader"], &["cluster", "info"]),
    (&["health", "verify"], &["cluster", "health"]),
    (&["snapshot", "create"], &["cluster", "snapshot"]),
    (&["backup", "create"], &["cluster", "snapshot"]),
    (&["kv", "ls"], &["kv", "range"]),
    (&["kv", "rm"], &["kv", "delete"]),
    (&["kv", "del"], &["kv", "delete"]),
];

/// `args` (the program's name first) with a leading alias replaced.
pub fn expanded(args: Vec<String>) -> Vec<String> {
    let found = ALIASES
        .iter()
        .find(|(typed, _)| args.len() > typed.len() && args[1..].iter().zip(*typed).all(same));
    let Some((typed, meant)) = found else {
        return args;
    };
    let mut line: Vec<String> = args[..1].to_vec();
    line.extend(meant.iter().map(|word| (*word).to_owned()));
    line.extend_from_slice(&args[1 + typed.len()..]);
    line
}

fn same((given, typed): (&String, &&str)) -> bool {
    given == typed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn runbook_words_are_understood() {
        let table = [
            (
                "seaworthy raft status --output json",
                "seaworthy cluster info --output json",
            ),
            (
                "seaworthy cluster join-token worker --ttl 1h",
                "seaworthy cluster token create --ttl 1h",
            ),
            ("seaworthy kv get raft", "seaworthy kv get raft"),
            ("seaworthy raft", "seaworthy raft"),
            ("seaworthy", "seaworthy"),
        ];
        for (typed, meant) in table {
            assert_eq!(expanded(words(typed)), words(meant));
        }
    }
}
