//! Which runs a command makes of which scenarios: dealt in turn, but for those whose runs are long (`one_in` in their files),
//! which come up once in so many turns. Their weight is relative: dealt among themselves alone, they all come up.

use scenarios::Scenario;

/// In how many turns `scenario` comes up once, dealt among `all`.
fn turns(scenario: &Scenario, all: &[Scenario]) -> u64 {
    let lightest = all.iter().map(|one| one.one_in).min().unwrap_or(1).max(1);
    u64::from((scenario.one_in / lightest).max(1))
}

/// The first `runs` runs dealt over `all`: each the place of its scenario, and how often that came up before.
pub fn deal(all: &[Scenario], runs: u64) -> Vec<(usize, u64)> {
    let every: Vec<u64> = all.iter().map(|one| turns(one, all)).collect();
    let mut dealt = Vec::new();
    let mut turn = 0;
    let wanted = usize::try_from(runs).unwrap_or(usize::MAX);
    while dealt.len() < wanted && !all.is_empty() {
        // At the end of its turns: who deals few runs, to look at something, gets no long one.
        let mine = |place: &usize| (turn + 1) % every[*place] == 0;
        let come_up = (0..all.len()).filter(mine);
        dealt.extend(come_up.map(|place| (place, turn / every[place])));
        turn += 1;
    }
    dealt.truncate(wanted);
    dealt
}

/// How many seeds `scenario` gets where one of ordinary length gets `seeds`: at least one, if that gets any.
pub fn share(scenario: &Scenario, all: &[Scenario], seeds: u64) -> u64 {
    (seeds / turns(scenario, all)).max(seeds.min(1))
}

/// Whether the runs of `scenario` are long beside those of `all`.
pub fn is_long(scenario: &Scenario, all: &[Scenario]) -> bool {
    turns(scenario, all) > 1
}
