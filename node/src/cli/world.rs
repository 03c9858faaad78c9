//! What a command may touch: the seam, two outputs, the environment as a map, files through a closure, and the host.

use super::args::{self, Output};
use super::exit::{Error, Exit};
use crate::config::Config;
use crate::rt::net::BoxFuture;
use crate::rt::{Env, Tasks};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard};

/// A place to write to.
pub type Sink = Box<dyn Write + Send>;

/// Reads a whole file; `-` is standard input.
pub type Reader = Box<dyn Fn(&str) -> io::Result<Vec<u8>> + Send + Sync>;

/// Runs the commands that need the operating system.
pub type Host = Box<dyn Fn(HostCommand) -> BoxFuture<'static, Result<Exit, Error>> + Send + Sync>;

/// A command that only the program can run.
#[derive(Clone, Debug)]
pub enum HostCommand {
    /// Run a node until it is told to stop. The configuration is complete and valid.
    Server(Box<Config>),
    /// Run a worker until it is told to stop.
    Worker(Box<super::worker::Run>),
    /// Run a cluster for trying things out.
    Dev(args::Dev),
    /// Explain the log in a data directory.
    Wal {
        /// Data directory.
        dir: String,
        /// How to answer.
        output: Output,
    },
}

/// Everything a command may touch.
pub struct World {
    /// Clock, network, randomness.
    pub env: Env,
    /// Tasks the command starts; the caller stops them.
    pub tasks: Tasks,
    /// Environment variables.
    pub variables: BTreeMap<String, String>,
    /// Standard output.
    out: Mutex<Sink>,
    /// Standard error.
    err: Mutex<Sink>,
    /// Files.
    reader: Reader,
    /// The operating system.
    host: Host,
}

/// What a command found out, for programs and for people.
pub struct Answer {
    /// For programs.
    pub json: serde_json::Value,
    /// For people, with its line end.
    pub text: String,
}

impl World {
    /// A world that writes to `out` and `err` and has neither variables nor files nor a host.
    pub fn new(env: Env, tasks: Tasks, out: Sink, err: Sink) -> Self {
        World {
            env,
            tasks,
            variables: BTreeMap::new(),
            out: Mutex::new(out),
            err: Mutex::new(err),
            reader: Box::new(|_| Err(io::ErrorKind::NotFound.into())),
            host: Box::new(|_| Box::pin(async { Err(no_host()) })),
        }
    }

    /// The same world with environment variables.
    pub fn variables(mut self, variables: BTreeMap<String, String>) -> Self {
        self.variables = variables;
        self
    }

    /// The same world with files.
    pub fn reader(mut self, reader: Reader) -> Self {
        self.reader = reader;
        self
    }

    /// The same world with a host for `server`, `dev` and `debug wal`.
    pub fn with_host(mut self, host: Host) -> Self {
        self.host = host;
        self
    }

    /// Hands `command` to the host.
    pub(super) async fn host(&self, command: HostCommand) -> Result<Exit, Error> {
        (self.host)(command).await
    }

    /// The contents of a file named on the command line.
    pub(super) fn read(&self, name: &str) -> Result<Vec<u8>, Error> {
        (self.reader)(name).map_err(|error| {
            let message = format!("cannot read {name}: {error}");
            Error::usage(message, "name a file that exists, or - for standard input")
        })
    }

    /// Writes to standard output.
    pub fn out(&self, text: &str) -> Result<(), Error> {
        self.out_bytes(text.as_bytes())
    }

    /// Writes bytes to standard output.
    pub fn out_bytes(&self, bytes: &[u8]) -> Result<(), Error> {
        let mut out = lock(&self.out);
        out.write_all(bytes)
            .and_then(|()| out.flush())
            .map_err(|error| match error.kind() {
                io::ErrorKind::BrokenPipe => Error::Closed,
                _ => Error::local(format!("cannot write the output: {error}"), ""),
            })
    }

    /// Writes to standard error. When that fails there is nobody left to tell.
    pub fn err(&self, text: &str) {
        let mut err = lock(&self.err);
        drop(err.write_all(text.as_bytes()).and_then(|()| err.flush()));
    }

    /// Writes `answer` as `output` asks.
    pub fn answer(&self, output: Output, answer: &Answer) -> Result<(), Error> {
        match output {
            Output::Json => self.out(&format!("{:#}\n", answer.json)),
            Output::Table => self.out(&answer.text),
        }
    }
}

fn lock(sink: &Mutex<Sink>) -> MutexGuard<'_, Sink> {
    sink.lock().expect("no writer panics while holding a sink")
}

fn no_host() -> Error {
    Error::local(
        "this command needs the operating system",
        "run it from the program `seaworthy`",
    )
}
