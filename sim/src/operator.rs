//! The operator: runs the production command line inside the simulation, on a host of its own.

use crate::cluster::Cluster;
use crate::trace::Level;
use node::cli;
use node::rt::Tasks;
use node::rt::journal::{Event, JournalSink};
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

/// The operator's machine.
pub const HOST: &str = "operator";

/// A journal that nobody reads: commands have none.
pub struct NoJournal;

impl JournalSink for NoJournal {
    fn record(&self, _: &Event) {}
}

/// What a command prints.
#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut paper = self
            .0
            .lock()
            .map_err(|_| io::Error::other("a writer panicked"))?;
        paper.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs `seaworthy <line>` against all nodes; gives exit code and output.
pub async fn run(cluster: &Cluster, line: &str) -> (u8, String) {
    let env = cluster.world.env(HOST, NoJournal);
    let tasks = Tasks::default();
    let paper = Paper::default();
    let endpoints: Vec<String> = cluster
        .names()
        .iter()
        .map(|name| format!("http://{name}:8080"))
        .collect();
    let world = cli::World::new(
        env,
        tasks.clone(),
        Box::new(paper.clone()),
        Box::new(paper.clone()),
    );
    let mut args = vec!["seaworthy".to_owned()];
    args.extend(line.split_whitespace().map(str::to_owned));
    args.push("--endpoints".to_owned());
    args.push(endpoints.join(","));
    let code = cli::run(args, &world).await;
    tasks.stop().await;
    let bytes = paper
        .0
        .lock()
        .map(|paper| paper.clone())
        .unwrap_or_default();
    let output = String::from_utf8_lossy(&bytes).into_owned();
    for line in output.lines() {
        cluster
            .recorder
            .line(HOST, Level::Detail, format!("  {line}"));
    }
    (code, output)
}
