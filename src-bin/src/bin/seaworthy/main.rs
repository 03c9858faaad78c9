//! The program `seaworthy`: a runtime, the real world, signals and logs around the command line of `node`.
//!
//! Reading order: here; [`server`], a node under the operating system's signals; [`worker`], a worker under them;
//! [`dev`] with [`crew`], several of both to try things out;
//! [`start`], where a node begins; [`logs`]; [`wal`]. Everything a scenario could want to type lives in `node::cli`.
#![expect(
    clippy::disallowed_methods,
    reason = "the program is where the operating system is named: runtime, files, environment"
)]

mod crew;
mod dev;
mod logs;
mod server;
mod start;
mod wal;
mod worker;

use node::cli::{self, HostCommand, World};
use node::rt::{Tasks, real};
use std::io::{self, Read};
use std::process::ExitCode;
use tokio::runtime::{Builder, Runtime};

fn main() -> ExitCode {
    abort_on_panic();
    let args: Vec<String> = std::env::args().collect();
    match begin(args) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            tell(&format!("error: {error}\n"));
            ExitCode::FAILURE
        }
    }
}

/// A node that has lost a task must not go on as half a node, in any build.
fn abort_on_panic() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        usual(panic);
        std::process::abort();
    }));
}

fn begin(args: Vec<String>) -> io::Result<u8> {
    let runtime = runtime(&args)?;
    let world = World::new(
        real::env("cli")?,
        Tasks::default(),
        Box::new(io::stdout()),
        Box::new(io::stderr()),
    )
    .variables(std::env::vars_os().filter_map(text).collect())
    .reader(Box::new(read))
    .with_host(Box::new(|command| Box::pin(host(command))));
    let code = runtime.block_on(cli::run(args, &world));
    // Tasks still under way belong to a command that has ended: nobody waits for them.
    runtime.shutdown_background();
    Ok(code)
}

/// Cores up to which one thread serves a node's connections: with its storage lanes beside it they are busy already, and
/// more threads would only hand each other work (docs/PERFORMANCE.md).
const ONE_THREAD_CORES: usize = 2;

/// Nodes use every core; a command that asks one, or loads one on the same machine, should leave the cores to it.
fn runtime(args: &[String]) -> io::Result<Runtime> {
    let runs_nodes = args
        .iter()
        .any(|word| ["server", "worker", "dev"].contains(&word.as_str()));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut builder = match runs_nodes && cores > ONE_THREAD_CORES {
        true => Builder::new_multi_thread(),
        false => Builder::new_current_thread(),
    };
    builder.enable_all().build()
}

/// A variable that is text; others cannot be ours.
fn text((name, value): (std::ffi::OsString, std::ffi::OsString)) -> Option<(String, String)> {
    Some((name.into_string().ok()?, value.into_string().ok()?))
}

fn read(name: &str) -> io::Result<Vec<u8>> {
    if name != "-" {
        return std::fs::read(name);
    }
    let mut bytes = Vec::new();
    io::stdin().read_to_end(&mut bytes)?;
    Ok(bytes)
}

async fn host(command: HostCommand) -> Result<cli::Exit, cli::Error> {
    match command {
        HostCommand::Server(config) => server::run(*config).await,
        HostCommand::Worker(run) => worker::run(*run).await,
        HostCommand::Dev(options) => dev::run(&options).await,
        HostCommand::Wal { dir, output } => wal::run(&dir, output).await,
    }
}

/// Writes to standard error; when that fails there is nobody left to tell.
fn tell(text: &str) {
    drop(io::Write::write_all(&mut io::stderr(), text.as_bytes()));
}
