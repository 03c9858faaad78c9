//! The story of one run, short enough for a page: which lines are worth telling, and in which words.

use crate::report::{Report, StoryLine};

/// Most lines of a story.
const LINES_MAX: usize = 40;

/// The lines of a run's story that a reader needs, and how many more of them there are.
pub fn told(run: &Report) -> (Vec<&StoryLine>, usize) {
    let start_us = run.timeline.as_ref().map_or(0, |timeline| timeline.start_us);
    let mut leaders: Vec<&str> = Vec::new();
    let mut lines: Vec<&StoryLine> = Vec::new();
    for line in run.lines.iter().filter(|line| line.level == 0) {
        let steps_down = line.text.starts_with("is follower") && leaders.contains(&line.place.as_str());
        if line.text.starts_with("LEADS") {
            leaders.push(&line.place);
        } else if steps_down || line.text.starts_with("is started") {
            leaders.retain(|name| *name != line.place);
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
        "starts: ",
        "cuts a snapshot",
        "rebuilds its store: the store cannot be used and will be rebuilt: it was not closed",
        "keeps its log",
        "has ended (exit code 0)",
    ];
    !NOISE.iter().any(|noise| line.text.starts_with(noise))
}

/// The steps of the scenario as they happened: when (virtual microseconds) and the sentence.
pub fn steps(run: &Report) -> Vec<(u64, &str)> {
    let storm = run.lines.iter().filter(|line| line.place == "storm");
    storm.filter_map(|line| Some((line.at_us, line.text.strip_prefix("— ")?))).collect()
}
