//! The production worker as a process of its own host.
use crate::cluster::Cluster;
use crate::plan::Plan;

/// Starts all workers of `plan`.
pub async fn start_all(_cluster: &Cluster, _plan: &Plan) {}
