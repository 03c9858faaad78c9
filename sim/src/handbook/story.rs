//! The story of one run, short enough for a page: which lines are worth telling, and in which words.

use crate::report::{Report, StoryLine};
use std::collections::BTreeSet;

/// Most lines of a story.
const LINES_MAX: usize = 40;

/// The lines of a run's story that a reader needs, and how many more of them there are.
pub fn told(run: &Report) -> (Vec<&StoryLine>, usize) {
    let start_us = run
        .timeline
        .as_ref()
        .map_or(0, |timeline| timeline.start_us);
    let (mut leaders, mut gone): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    let mut members: BTreeSet<&str> = BTreeSet::new();
    let mut lines: Vec<&StoryLine> = Vec::new();
    for line in run.lines.iter().filter(|line| line.level == 0) {
        let steps_down =
            line.text.starts_with("is follower") && leaders.contains(&line.place.as_str());
        if line.text.starts_with("LEADS") {
            leaders.push(&line.place);
        } else if steps_down || line.text.starts_with("is started") {
            leaders.retain(|name| *name != line.place);
        }
        let given_up = gone.contains(&line.place.as_str());
        if line.text.starts_with("GIVES UP") {
            gone.push(&line.place);
        } else if line.text.starts_with("is started") {
            gone.retain(|name| *name != line.place);
        }
        // A process that has ended is swept up by its supervisor, and all members tell the same of a change: once is enough.
        let swept = given_up && line.text.starts_with("is KILLED");
        let again = line.text.starts_with("members are") && !members.insert(line.text.as_str());
        if swept || again {
            continue;
        }
        // Before the clients begin, only the first leader matters.
        let early = line.at_us < start_us && !line.text.starts_with("LEADS");
        if !early && (steps_down || is_worth_telling(line)) {
            lines.push(line);
        }
    }
    let more = lines.len().saturating_sub(LINES_MAX);
    lines.truncate(LINES_MAX);
    (lines, more)
}

/// Whether a line belongs to the short story: faults, leaders, members and recoveries, not each vote and time-out.
fn is_worth_telling(line: &StoryLine) -> bool {
    const NOISE: [&str; 10] = [
        "is follower",
        "is candidate",
        "is learner",
        "votes for",
        "reads its log: clean",
        "cuts a snapshot",
        "rebuilds its store: the store cannot be used",
        "keeps its log",
        "starts: ",
        "has ended",
    ];
    !NOISE.iter().any(|noise| line.text.starts_with(noise))
}

/// The steps of the scenario as they happened: when (virtual microseconds) and the sentence.
pub fn steps(run: &Report) -> Vec<(u64, &str)> {
    let storm = run.lines.iter().filter(|line| line.place == "storm");
    storm
        .filter_map(|line| Some((line.at_us, line.text.strip_prefix("— ")?)))
        .collect()
}
