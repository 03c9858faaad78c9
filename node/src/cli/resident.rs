//! The command line of processes that stay.
//!
//! A command line is read once, but what reading it took stays with the process: the grammar of all commands is a quarter of a
//! mebibyte of heap, and more of code. `server` and `worker` are read by their own part of it. What that does not take, such as
//! a question for help or a mistake, is the whole grammar's to answer.

use super::args::{Cli, Command, Global, Settings};
use super::worker::Worker;
use clap::{Parser, Subcommand};

/// The whole command line, of which only these commands are known.
#[derive(Parser)]
struct Resident {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Stays,
}

/// The commands whose processes stay, as [`Command`] has them.
#[derive(Subcommand)]
enum Stays {
    Server(Box<Settings>),
    #[command(subcommand)]
    Worker(Worker),
}

/// What `args` (the program's name first) say, if they run a process that stays.
pub(super) fn parsed(args: &[String]) -> Option<Cli> {
    if !matches!(args.get(1)?.as_str(), "server" | "worker") {
        return None;
    }
    let Resident { global, command } = Resident::try_parse_from(args).ok()?;
    let command = match command {
        Stays::Server(settings) => Command::Server(*settings),
        Stays::Worker(worker) => Command::Worker(worker),
    };
    Some(Cli { global, command })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn processes_that_stay_are_read_as_by_the_whole_grammar() {
        let lines = [
            "seaworthy server",
            "seaworthy server --config a.toml --set log.format=json --validate --output json",
            "seaworthy server --name n0 --data-dir d --http a:1 --peer a:2 --member n0=a:2/a:1 --member n1=b:2/b:1 --join",
            "seaworthy worker start --join http://a:1,http://b:1 --token T --name w1 --data-dir d --listen a:9 --cpu 2",
            "seaworthy worker --timeout 1s start --join a:1 --name w1 --data-dir d --listen a:9 --label zone=north --stop-tasks",
        ];
        for line in lines {
            let read = parsed(&words(line)).map(|cli| format!("{cli:?}"));
            let whole = Cli::try_parse_from(words(line)).map(|cli| format!("{cli:?}"));
            assert_eq!(read, Some(whole.unwrap()), "{line}");
        }
    }

    #[test]
    fn all_else_is_left_to_the_whole_grammar() {
        let lines = [
            "seaworthy",
            "seaworthy kv get a",
            "seaworthy --output json server",
            "seaworthy server --help",
            "seaworthy server help",
            "seaworthy server --nmae n0",
            "seaworthy worker",
            "seaworthy worker start --name w1",
            "seaworthy worker list",
            "seaworthy server --version",
        ];
        for line in lines {
            assert!(parsed(&words(line)).is_none(), "{line}");
        }
    }
}
