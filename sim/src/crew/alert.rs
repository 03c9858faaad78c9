//! A monitoring system with one rule: tasks have waited for a worker for more than five minutes (T-12, W-A10).
//!
//! It reads every manager's metrics page every few seconds, as a scraper does, and holds the greatest value against the bound; managers
//! that do not answer say nothing. Left out: the monitoring system's own delays.

use crate::cluster::Cluster;
use crate::trace::Level;
use scenarios::Scenario;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(5);
/// What the rule looks at.
const SERIES: &str = "seaworthy_task_pending_oldest_seconds ";
/// The bound, seconds.
const BOUND_S: f64 = 300.0;

/// When the alert was raised, and when it was cleared. A clone is the same.
#[derive(Clone, Default)]
pub struct Alerts(Arc<Mutex<Vec<(Duration, bool)>>>);

impl Alerts {
    /// Everything so far.
    pub fn all(&self) -> Vec<(Duration, bool)> {
        let changes = self.0.lock();
        changes
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }
}

/// Whether a scenario expects anything of the alert.
pub fn is_wanted(scenario: &Scenario) -> bool {
    let mut expected = scenario.expect.iter();
    expected.any(|one| one.measure.starts_with("alert"))
}

/// Watches until `done`.
pub async fn watch(cluster: Cluster, done: Arc<AtomicBool>) {
    let mut is_on = false;
    while !done.load(Ordering::Relaxed) {
        let oldest_s = cluster
            .running()
            .iter()
            .filter_map(|name| cluster.handle(name))
            .filter_map(|handle| value(&handle.metrics_text()))
            .fold(0.0, f64::max);
        if is_on != (oldest_s > BOUND_S) {
            is_on = !is_on;
            let text = match is_on {
                true => format!("ALERT: a task has waited for {oldest_s:.0} s"),
                false => "the alert is over".to_owned(),
            };
            cluster.recorder.line("alerts", Level::Story, text);
            cluster.recorder.sometimes("an alert was raised");
            let mut changes = cluster
                .alerts
                .0
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            changes.push((cluster.recorder.now(), is_on));
        }
        madsim::time::sleep(LOOK).await;
    }
}

/// The value of the series on a metrics page.
fn value(page: &str) -> Option<f64> {
    page.lines()
        .find_map(|line| line.strip_prefix(SERIES))?
        .parse()
        .ok()
}
