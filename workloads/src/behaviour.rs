//! What a simulated task does, as its command says: `["sim", "slow-start", "5s", "crash-after", "30s"]`.
//!
//! | words | meaning |
//! |---|---|
//! | `ok` | nothing: it runs until it is told to stop |
//! | `tag WORD` | nothing; makes two versions differ |
//! | `exit-after T`, `crash-after T`, `oom-after T` | it ends by itself: with code 0, with code 1, for want of memory |
//! | `slow-start T` | its health checks succeed only so long after its start |
//! | `unhealthy-after T` | and fail for good from then on |
//! | `flaky P` | each check fails with this chance (0 to 1) |
//! | `prepare-takes T`, `start-takes T`, `stop-takes T` | instead of a moment |
//! | `ignore-term` | it ends only when it is killed |
//! | `refuse`, `refuse-on HOST` | its image does not exist, anywhere or on one worker |
//! | `prepare-fails P`, `start-fails P` | an error that may pass, with this chance |

use std::time::Duration;

/// What a task does.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Behaviour {
    /// When it ends by itself after its start, and how.
    pub end: Option<(Duration, End)>,
    /// From when on its checks succeed.
    pub healthy_from: Duration,
    /// From when on they fail.
    pub unhealthy_from: Option<Duration>,
    /// Chance that a check fails.
    pub flaky: f64,
    /// Time to fetch what it needs.
    pub prepare: Option<Duration>,
    /// Time until its process is there.
    pub start: Option<Duration>,
    /// Time from being told to stop until it has.
    pub stop: Option<Duration>,
    /// Whether it stops only when killed.
    pub ignores_term: bool,
    /// Whether it can never run: nowhere, or not on this host.
    pub refused: Option<String>,
    /// Chance that fetching fails.
    pub prepare_fails: f64,
    /// Chance that starting fails.
    pub start_fails: f64,
}

/// How a task ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With code 0.
    Done,
    /// With code 1.
    Crash,
    /// It used more memory than it may.
    Oom,
}

impl Behaviour {
    /// What `words` say.
    pub fn parse(words: &[String]) -> Result<Behaviour, String> {
        let mut words = words.iter().map(String::as_str);
        if words.next() != Some("sim") {
            return Err("a simulated worker runs commands that begin with `sim`".to_owned());
        }
        let mut it = Behaviour::default();
        while let Some(word) = words.next() {
            match word {
                "ok" => {}
                "ignore-term" => it.ignores_term = true,
                "refuse" => it.refused = Some(String::new()),
                _ => {
                    let value = words.next();
                    let value =
                        value.ok_or_else(|| format!("`{word}`: unknown, or without its value"))?;
                    it.set(word, value)?;
                }
            }
        }
        Ok(it)
    }

    /// One word with a value.
    fn set(&mut self, word: &str, value: &str) -> Result<(), String> {
        match word {
            "tag" => {}
            "exit-after" => self.end = Some((span(value)?, End::Done)),
            "crash-after" => self.end = Some((span(value)?, End::Crash)),
            "oom-after" => self.end = Some((span(value)?, End::Oom)),
            "slow-start" => self.healthy_from = span(value)?,
            "unhealthy-after" => self.unhealthy_from = Some(span(value)?),
            "flaky" => self.flaky = chance(value)?,
            "prepare-takes" => self.prepare = Some(span(value)?),
            "start-takes" => self.start = Some(span(value)?),
            "stop-takes" => self.stop = Some(span(value)?),
            "refuse-on" => self.refused = Some(value.to_owned()),
            "prepare-fails" => self.prepare_fails = chance(value)?,
            "start-fails" => self.start_fails = chance(value)?,
            other => return Err(format!("no simulated task knows `{other}`")),
        }
        Ok(())
    }

    /// Whether it can never run on `host`.
    pub fn is_refused_on(&self, host: &str) -> bool {
        let place = self.refused.as_deref();
        place.is_some_and(|place| place.is_empty() || place == host)
    }

    /// Whether a process that has run for `age` is well, but for chance.
    pub fn is_well(&self, age: Duration) -> bool {
        age >= self.healthy_from && self.unhealthy_from.is_none_or(|end| age < end)
    }
}

/// A time such as `250ms`, `3s`, `2m`, `1h`.
fn span(text: &str) -> Result<Duration, String> {
    let place = text.find(|one: char| one.is_ascii_alphabetic());
    let (number, unit) = text.split_at(place.unwrap_or(text.len()));
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(format!("{text:?} is no time: 250ms, 3s, 2m, 1h")),
    };
    let number: u64 = number
        .parse()
        .map_err(|error| format!("{text:?}: {error}"))?;
    Ok(Duration::from_millis(number.saturating_mul(unit_ms)))
}

/// A chance.
fn chance(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|error| format!("{text:?}: {error}"))?;
    (0.0..=1.0)
        .contains(&number)
        .then_some(number)
        .ok_or_else(|| format!("{text:?} is no chance from 0 to 1"))
}
