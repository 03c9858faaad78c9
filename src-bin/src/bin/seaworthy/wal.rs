//! `debug wal`: explains the log in a data directory, read-only.

use node::cli::args::Output;
use node::cli::{Error, Exit};

/// Explains the log in `dir`.
pub(crate) async fn run(dir: &str, _output: Output) -> Result<Exit, Error> {
    Err(Error::local(
        format!("cannot explain {dir}: this build holds no log reader"),
        "use a build with `node::wal`",
    ))
}
