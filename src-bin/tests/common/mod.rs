//! What the tests with real processes share: a server started from its home directory.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Starts a server by `node.toml` in `home`; what it says goes to the end of `log` there.
pub(crate) fn serve(home: &Path) -> Child {
    let options = File::options()
        .append(true)
        .create(true)
        .open(home.join("log"));
    let log = options.unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_seaworthy"));
    command
        .arg("server")
        .arg("--config")
        .arg(home.join("node.toml"))
        .env_clear(); // `SEAWORTHY_` variables are settings of the node, and whoever runs this may have some.
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    command.spawn().unwrap()
}
