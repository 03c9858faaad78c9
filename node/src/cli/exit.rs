//! How a command ends: exit codes that scripts may rely on, and the error behind each.

use crate::error::{self, Code};
use std::fmt;

/// The exit codes, as `seaworthy help` documents them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Ok,
    /// Failed for a reason without a code of its own.
    Failed,
    /// The command line or a file named on it is wrong; nothing was tried.
    Usage,
    /// No such key, lease, member.
    NotFound,
    /// A condition does not hold; nothing changed.
    Condition,
    /// No endpoint answers, or the cluster has no leader or no room; nothing changed.
    Unavailable,
    /// The answer was lost: the write may have been done or not.
    Unknown,
    /// Looked, and found something wrong: an unhealthy cluster, a faulty configuration, a damaged log.
    Unwell,
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Exit::Ok => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::NotFound => 3,
            Exit::Condition => 4,
            Exit::Unavailable => 5,
            Exit::Unknown => 6,
            Exit::Unwell => 7,
        }
    }
}

/// Why a command failed.
#[derive(Clone, Debug, PartialEq)]
pub enum Error {
    /// The cluster said so, or nobody could be asked.
    Remote(error::Error),
    /// The command line, or a file it names, is wrong.
    Usage {
        /// What is wrong.
        message: String,
        /// What to do.
        hint: String,
    },
    /// Something on this machine went wrong.
    Local {
        /// What.
        message: String,
        /// What to do.
        hint: String,
    },
    /// Nobody reads the output any more (`| head`).
    Closed,
}

impl Error {
    /// A wrong command line.
    pub fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Error::Usage {
            message: message.into(),
            hint: hint.into(),
        }
    }

    /// Trouble on this machine.
    pub fn local(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Error::Local {
            message: message.into(),
            hint: hint.into(),
        }
    }

    /// How the command ends with it.
    pub fn exit(&self) -> Exit {
        match self {
            Error::Usage { .. } => Exit::Usage,
            Error::Local { .. } => Exit::Failed,
            // Whoever closed the pipe has seen enough.
            Error::Closed => Exit::Ok,
            Error::Remote(error) if error.outcome_unknown => Exit::Unknown,
            Error::Remote(error) => exit_of(error.code),
        }
    }

    /// The error for programs.
    pub fn json(&self) -> serde_json::Value {
        match self {
            Error::Remote(error) => serde_json::json!({ "error": error }),
            Error::Usage { message, hint } => plain("invalid_argument", message, hint),
            Error::Local { message, hint } => plain("local", message, hint),
            Error::Closed => plain("local", "the output was closed", ""),
        }
    }
}

fn plain(code: &str, message: &str, hint: &str) -> serde_json::Value {
    serde_json::json!({ "error": { "code": code, "message": message, "hint": hint } })
}

fn exit_of(code: Code) -> Exit {
    match code {
        Code::NotFound | Code::LeaseNotFound => Exit::NotFound,
        Code::PreconditionFailed | Code::Conflict | Code::SessionStale => Exit::Condition,
        Code::InvalidArgument | Code::TooLarge => Exit::Usage,
        _ if code.is_retryable() => Exit::Unavailable,
        _ => Exit::Failed,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (message, hint) = match self {
            Error::Remote(error) => (&error.message, error.hint.as_deref().unwrap_or("")),
            Error::Usage { message, hint } | Error::Local { message, hint } => (message, &**hint),
            Error::Closed => return out.write_str("error: the output was closed"),
        };
        write!(out, "error: {message}")?;
        if let Error::Remote(error) = self
            && error.outcome_unknown
        {
            write!(
                out,
                "\n  the write may have been done or not: read before trying again"
            )?;
        }
        if !hint.is_empty() {
            write!(out, "\n  {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

impl From<error::Error> for Error {
    fn from(error: error::Error) -> Self {
        Error::Remote(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_the_cluster_has_an_exit() {
        let exit = |code| Error::from(error::Error::new(code, "x")).exit();
        assert_eq!(exit(Code::NotFound), Exit::NotFound);
        assert_eq!(exit(Code::PreconditionFailed), Exit::Condition);
        assert_eq!(exit(Code::NoLeader), Exit::Unavailable);
        assert_eq!(exit(Code::ReadOnly), Exit::Unavailable);
        assert_eq!(exit(Code::InvalidArgument), Exit::Usage);
        assert_eq!(exit(Code::Internal), Exit::Failed);
        for code in Code::ALL {
            assert_ne!(exit(code), Exit::Ok);
            let unknown = Error::from(error::Error::new(code, "x").unknown());
            assert_eq!(unknown.exit(), Exit::Unknown);
        }
    }

    #[test]
    fn unknown_outcomes_tell_what_to_do() {
        let error = Error::from(error::Error::new(Code::Timeout, "no answer").unknown());
        assert_eq!(
            error.to_string(),
            "error: no answer\n  the write may have been done or not: read before trying again"
        );
    }
}
