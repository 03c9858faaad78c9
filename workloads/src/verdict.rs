//! All judges of [`crate::check`] over one run's history: what they found, and the measures that come out of it.
//!
//! The same for a simulated run and for a live one. Pure. Keys under leases end by themselves; the history's judges do not know
//! them, so they are judged here, by the time that their clients had paid for.

use crate::check::{self, Finding, StaleRules, Verdict, WatchStep};
use crate::drive::{LeaseNote, Notes};
use crate::history::{Entry, Event, History, Key};
use std::collections::BTreeMap;

/// What the judges said.
#[derive(Clone, Debug, Default)]
pub struct Judged {
    /// Measures by name.
    pub measures: BTreeMap<String, f64>,
    /// What was wrong, for a person.
    pub failures: Vec<String>,
    /// Rare things that were seen; one that was seen twice is there twice.
    pub probes: Vec<&'static str>,
}

/// What the clients' history is judged against.
pub struct Evidence<'a> {
    /// What clients noted.
    pub notes: &'a Notes,
    /// All changes, in order.
    pub log: &'a [Event],
    /// Final values.
    pub finals: &'a BTreeMap<Key, Entry>,
}

/// Keys of the workload's own rules (leases end by themselves), which the history's judges do not know.
fn is_leased(key: &Key) -> bool {
    key.0.starts_with("lease-")
}

/// Judges the clients' history.
pub fn judge(evidence: &Evidence<'_>) -> Judged {
    let mut judged = Judged::default();
    let history = History {
        operations: evidence.notes.operations.clone(),
    };
    let log: Vec<Event> = evidence
        .log
        .iter()
        .filter(|event| !is_leased(&event.key))
        .cloned()
        .collect();
    let finals: BTreeMap<Key, Entry> = evidence
        .finals
        .iter()
        .filter(|(key, _)| !is_leased(key))
        .map(|(key, entry)| (key.clone(), *entry))
        .collect();
    match check::linearizable(&history) {
        Verdict::Linearizable => {}
        Verdict::Violation(violation) => judged.fail(format!("not linearizable: {violation}")),
        Verdict::Undecided(why) => judged.fail(format!("linearizability undecided: {why}")),
    }
    judged.count(
        "acknowledged_writes_lost",
        check::durability(&history, &log, &finals),
    );
    judged.count("revisions_out_of_order", check::revisions(&history));
    judged.count("writes_done_twice", check::sessions(&history, &log));
    // Ages are whole milliseconds; clients and nodes share no clock in production, but in a simulation and on one machine they do.
    let rules = StaleRules {
        tolerance_ns: 2_000_000,
        exact: true,
    };
    judged.count(
        "stale_reads_unlabelled",
        check::stale(&history, &log, rules),
    );
    let mut gaps = Vec::new();
    for record in &evidence.notes.watches {
        // A watcher sees everything, the leased keys too.
        gaps.extend(check::watch(record, evidence.log, 0));
    }
    judged.count("watch_gaps", gaps);
    judged.leases(&evidence.notes.leases);
    let events = evidence.notes.watches.iter().flat_map(|one| &one.steps);
    let seen = events
        .filter(|step| matches!(step, WatchStep::Event(_)))
        .count();
    if seen > 0 {
        judged.probes.push("a watcher saw changes");
    }
    if evidence.notes.departures > 0 {
        judged
            .probes
            .push("a client left a silent node for the new leader");
    }
    judged
}

impl Judged {
    fn fail(&mut self, what: String) {
        self.failures.push(what);
    }

    /// Findings of one judge, as a measure and as failures.
    fn count(&mut self, name: &str, findings: Vec<Finding>) {
        self.measures.insert(name.to_owned(), findings.len() as f64);
        for finding in findings {
            self.fail(format!("{name}: {finding}"));
        }
    }

    /// Counts leases whose key was gone before the time that its client had paid for.
    fn leases(&mut self, leases: &[LeaseNote]) {
        let mut early = 0.0;
        for lease in leases {
            let Some(gone_ns) = lease.gone_ns else {
                continue;
            };
            self.probes.push("a lease ended");
            // 500 ppm of drift either way on both clocks, and the grain of timers.
            let tolerance = lease.ttl_ns / 500 + 2_000_000;
            if gone_ns + tolerance < lease.renewed_ns + lease.ttl_ns {
                early += 1.0;
                let short = (lease.renewed_ns + lease.ttl_ns - gone_ns) / 1_000_000;
                self.fail(format!("the lease of {} ended {short} ms early", lease.key));
            }
        }
        self.measures.insert("leases_ended_early".to_owned(), early);
    }
}
