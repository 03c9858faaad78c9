//! Logs by `tracing`, on standard error: lines for people or JSON for machines.

use node::cli::Error;
use node::config::LogFormat;
use std::io::{self, IsTerminal};
use tracing_subscriber::EnvFilter;

/// Libraries whose daily business is not an operator's; a filter that names them has the last word.
const QUIET: &str = "fjall=warn,lsm_tree=warn";

/// Begins logging. Once per process.
pub(crate) fn begin(filter: &str, format: LogFormat) -> Result<(), Error> {
    let filter = EnvFilter::try_new(format!("{QUIET},{filter}")).map_err(|error| {
        Error::usage(
            format!("log.filter \"{filter}\": {error}"),
            "use a level such as info, or a filter such as info,node=debug",
        )
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    let begun = match format {
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    begun.map_err(|error| Error::local(format!("cannot begin logging: {error}"), ""))
}
