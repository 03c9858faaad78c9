//! The grammar of secrets.

use clap::{Args, Subcommand};
use std::fmt;

/// The secret verbs.
#[derive(Clone, Debug, Subcommand)]
pub enum Secret {
    /// Make a secret
    #[command(after_help = "\
Examples:
  seaworthy secret create db-password --from-file ./password
  pass show db | seaworthy secret create db-password --from-stdin
  seaworthy service create web --secret db-password -- ./web

A task finds it as a file in the directory that SEAWORTHY_SECRETS names (in containers /run/secrets).")]
    Create {
        /// Its name
        name: String,
        /// Its value
        #[command(flatten)]
        source: Source,
    },
    /// Give a secret another value
    #[command(after_help = "\
Tasks keep the version that they were assigned with. To bring the new one to all of a service's tasks, roll them:
  seaworthy service update web --env ROTATED=2")]
    Update {
        /// The secret
        name: String,
        /// Its new value
        #[command(flatten)]
        source: Source,
    },
    /// List secrets, without their values
    #[command(visible_alias = "list")]
    Ls,
    /// Show a secret: its version, who uses it, never its value
    Inspect {
        /// The secret
        name: String,
    },
    /// Remove a secret that no service names
    Rm {
        /// The secret
        name: String,
    },
}

/// Where a value comes from.
#[derive(Clone, Args)]
#[group(required = true, multiple = false)]
pub struct Source {
    /// A file with the value, as it is, last line end included; - for standard input
    #[arg(long, value_name = "FILE")]
    pub from_file: Option<String>,
    /// Read the value from standard input
    #[arg(long)]
    pub from_stdin: bool,
    /// The value itself; it stays in the shell's history
    #[arg(long, value_name = "VALUE")]
    pub from_literal: Option<String>,
}

impl fmt::Debug for Source {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match (&self.from_file, self.from_stdin) {
            (Some(file), _) => file,
            (None, true) => "standard input",
            (None, false) => "the command line",
        };
        write!(out, "Source({kind})")
    }
}
