//! Rules that a worker must satisfy: `node.labels.zone == north`, `node.name != w3`, `node.platform == linux/amd64`.
//!
//! A rule is read once and says what is wrong with it. A worker without the label satisfies `!=` and not `==`.

use super::model::Worker;
use std::fmt;

/// A rule, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constraint {
    subject: Subject,
    equal: bool,
    value: String,
}

/// What a rule looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Subject {
    Name,
    Platform,
    Label(String),
}

impl Constraint {
    /// Reads a rule; the error says what was expected instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (subject, equal, value) = match (text.split_once("!="), text.split_once("==")) {
            (Some((subject, value)), None) => (subject, false, value),
            (None, Some((subject, value))) => (subject, true, value),
            (Some(_), Some(_)) => return Err(format!("constraint `{text}` has both == and !=")),
            (None, None) => {
                return Err(format!(
                    "constraint `{text}` has no == or !=, such as `node.labels.zone == north`"
                ));
            }
        };
        let value = value.trim();
        if value.is_empty() || value.contains(char::is_whitespace) {
            return Err(format!(
                "constraint `{text}` needs one value, without spaces"
            ));
        }
        Ok(Constraint {
            subject: Subject::parse(subject.trim(), text)?,
            equal,
            value: value.to_owned(),
        })
    }

    /// Whether `worker` satisfies it.
    pub fn holds(&self, worker: &Worker) -> bool {
        let found = match &self.subject {
            Subject::Name => Some(&worker.name),
            Subject::Platform => Some(&worker.platform),
            Subject::Label(key) => worker.labels.get(key),
        };
        found.is_some_and(|found| *found == self.value) == self.equal
    }
}

impl Subject {
    fn parse(subject: &str, text: &str) -> Result<Self, String> {
        match subject.strip_prefix("node.labels.") {
            Some(key) if !key.is_empty() && !key.contains(char::is_whitespace) => {
                Ok(Subject::Label(key.to_owned()))
            }
            Some(_) => Err(format!("constraint `{text}` names no label")),
            None if subject == "node.name" => Ok(Subject::Name),
            None if subject == "node.platform" => Ok(Subject::Platform),
            None => Err(format!(
                "constraint `{text}` is about `{subject}`, which is none of node.name, node.platform, node.labels.KEY"
            )),
        }
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.subject {
            Subject::Name => out.write_str("node.name")?,
            Subject::Platform => out.write_str("node.platform")?,
            Subject::Label(key) => write!(out, "node.labels.{key}")?,
        }
        let sign = if self.equal { "==" } else { "!=" };
        write!(out, " {sign} {}", self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker() -> Worker {
        Worker {
            name: "w1".to_owned(),
            platform: "linux/amd64".to_owned(),
            labels: [("zone".to_owned(), "north".to_owned())].into(),
            ..Worker::default()
        }
    }

    #[test]
    fn rules_hold_or_not() {
        for (rule, holds) in [
            ("node.labels.zone == north", true),
            ("node.labels.zone==south", false),
            ("node.labels.zone != south", true),
            ("node.labels.rack != a", true),
            ("node.labels.rack == a", false),
            ("node.name == w1", true),
            ("node.name != w1", false),
            ("node.platform == linux/amd64", true),
        ] {
            let constraint = Constraint::parse(rule).unwrap();
            assert_eq!(constraint.holds(&worker()), holds, "{constraint}");
            assert_eq!(Constraint::parse(&constraint.to_string()), Ok(constraint));
        }
    }

    #[test]
    fn a_bad_rule_says_what_is_wrong() {
        for (rule, says) in [
            ("node.labels.zone = north", "no == or !="),
            ("node.labels. == north", "names no label"),
            ("node.zone == north", "none of node.name"),
            ("node.name == ", "one value"),
            ("node.name == a b", "one value"),
            ("node.name == a != b", "both"),
            ("", "no == or !="),
        ] {
            let error = Constraint::parse(rule).unwrap_err();
            assert!(error.contains(says), "{rule}: {error}");
        }
    }
}
