//! The operator's command line, as a library: the program and the simulator run the very same commands.
//!
//! Reading order: [`args`] and [`args_fleet`], the grammar; [`world`], what a command may touch; [`exit`], how it ends; [`remote`],
//! how it asks a cluster; then one file per noun (`kv`, `cluster`, `config`, `service`, ...). [`run`] is the door.
//!
//! Nothing here prints, exits, reads the environment or opens a file by itself: [`World`] does, so that a scenario can
//! type a command inside the simulation. The commands that need the operating system (`server`, `worker`, `dev`, `debug wal`) are
//! handed to [`world::Host`], which only the program fills in.

pub mod alias;
pub mod args;
pub mod args_fleet;
pub mod args_secret;
pub mod cluster;
pub mod config;
pub mod events;
pub mod exit;
mod explain;
pub mod kv;
pub mod lease;
mod logs;
pub mod node;
pub mod remote;
mod resident;
pub mod secret;
pub mod service;
mod spec_flags;
pub mod table;
mod token;
pub mod txn;
pub mod volume;
pub mod watch;
pub mod worker;
pub mod world;

#[cfg(test)]
mod door_tests;
#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod fleet_tests;
#[cfg(test)]
mod tests;

pub use exit::{Error, Exit};
pub use world::{Host, HostCommand, World};

use args::{Cli, Command, Debug, Output};
use clap::{CommandFactory, Parser};
use world::Answer;

/// Runs the command line `args` (the program's name first) in `world`; gives the exit code.
pub async fn run(args: Vec<String>, world: &World) -> u8 {
    let args = alias::expanded(args);
    let parsed = resident::parsed(&args).map_or_else(|| Cli::try_parse_from(args), Ok);
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => return not_parsed(&error, world).code(),
    };
    let output = match args::output_of(&cli.global, &world.variables) {
        Ok(output) => output,
        Err(error) => return told(&error, Output::Table, world).code(),
    };
    match dispatch(cli, output, world).await {
        Ok(exit) => exit.code(),
        Err(error) => told(&error, output, world).code(),
    }
}

/// Help and version are answers; everything else clap says is about a wrong command line.
fn not_parsed(error: &clap::Error, world: &World) -> Exit {
    let text = error.render().to_string();
    if error.use_stderr() {
        world.err(&text);
        return Exit::Usage;
    }
    match world.out(&text) {
        Ok(()) => Exit::Ok,
        Err(error) => error.exit(),
    }
}

/// Tells a person or a program why the command failed.
fn told(error: &Error, output: Output, world: &World) -> Exit {
    match (error, output) {
        (Error::Closed, _) => {}
        (_, Output::Json) => world.err(&format!("{}\n", error.json())),
        (_, Output::Table) => world.err(&format!("{error}\n")),
    }
    error.exit()
}

async fn dispatch(cli: Cli, output: Output, world: &World) -> Result<Exit, Error> {
    let remote = || remote::Remote::new(&cli.global, world);
    match cli.command {
        Command::Kv(command) => kv::run(command, &remote()?, output, world).await,
        Command::Lease(command) => lease::run(command, &remote()?, output, world).await,
        Command::Cluster(command) => cluster::run(command, &remote()?, output, world).await,
        Command::Service(command) => service::run(command, &remote()?, output, world).await,
        Command::Node(command) => node::run(command, &remote()?, output, world).await,
        Command::Volume(command) => volume::run(command, &remote()?, output, world).await,
        Command::Secret(command) => secret::run(command, &remote()?, output, world).await,
        Command::Events(options) => events::run(&options, &remote()?, output, world).await,
        Command::Bench(options) => bench(&options, &remote()?, output, world).await,
        Command::Config(command) => config::run(command, output, world).await,
        Command::Worker(command) => worker::run(command, world).await,
        Command::Server(settings) => config::serve(&settings, world).await,
        Command::Dev(options) => world.host(HostCommand::Dev(options)).await,
        Command::Debug(Debug::Wal { dir }) => world.host(HostCommand::Wal { dir, output }).await,
        Command::Completion { shell } => completion(shell, world),
        Command::Version => version(output, world),
    }
}

async fn bench(
    options: &args::Bench,
    remote: &remote::Remote,
    output: Output,
    world: &World,
) -> Result<Exit, Error> {
    let (json, text) = match &options.verb {
        Some(args::BenchVerb::Fleet(options)) => {
            let report = crate::bench::fleet::run(options, remote, world).await?;
            (report.json(), report.text())
        }
        None => {
            let report = crate::bench::run(options, remote, world).await?;
            (report.json(), report.text())
        }
    };
    world.answer(output, &Answer { json, text })?;
    Ok(Exit::Ok)
}

fn completion(shell: clap_complete::Shell, world: &World) -> Result<Exit, Error> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "seaworthy", &mut script);
    world.out(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Ok)
}

fn version(output: Output, world: &World) -> Result<Exit, Error> {
    let version = env!("CARGO_PKG_VERSION");
    let answer = Answer {
        json: serde_json::json!({ "version": version }),
        text: format!("seaworthy {version}\n"),
    };
    world.answer(output, &answer)?;
    Ok(Exit::Ok)
}
