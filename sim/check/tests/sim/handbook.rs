//! Tests of the handbook's pure parts: what is measured, what is drawn, what is refused, and that equal runs give equal bytes.

use sim::handbook::lanes::{Span, lanes};
use sim::handbook::model::{gather, percentile};
use sim::handbook::{book, live, page, picture};
use sim::report::{Report, StoryLine};
use sim::timeline::{Band, BandKind, Moment, State, Timeline};

/// A moment of `n1` or another node.
fn moment(at_us: u64, place: &str, state: State) -> Moment {
    Moment {
        at_us,
        place: place.to_owned(),
        state,
    }
}

/// A good run of `scenario` that measured everything as `value`.
fn good(scenario: &scenarios::Scenario, seed: u64, value: f64) -> Report {
    let one =
        |one: &scenarios::Expectation| (one.key(), if one.unit == "ms" { value } else { 0.0 });
    let profiles = &scenario.cluster.profiles;
    let timeline = Timeline {
        start_us: 1_000_000,
        calm_us: 9_000_000,
        end_us: 10_000_000,
        acknowledged_us: vec![1_500_000, 1_510_000, 9_999_999, 10_000_000],
        refused_us: vec![3_000_000],
        unknown_us: vec![3_100_000],
        moments: vec![
            moment(500_000, "n1", State::Leader),
            moment(600_000, "n2", State::Follower),
            moment(3_000_000, "n1", State::Paused),
            moment(4_000_000, "n1", State::Resumed),
            moment(5_000_000, "n2", State::Down),
        ],
        bands: vec![
            Band {
                place: "net".into(),
                kind: BandKind::Cut,
                from_us: 2_000_000,
                to_us: 4_000_000,
                words: "cut: n1 | n2 & <n3>".into(),
            },
            Band {
                place: "n2".into(),
                kind: BandKind::Disk,
                from_us: 9_900_000,
                to_us: 9_900_000,
                words: "a \"bit\" rots".into(),
            },
        ],
    };
    let line = |at_us, place: &str, text: &str| StoryLine {
        at_us,
        place: place.into(),
        level: 0,
        text: text.into(),
    };
    Report {
        scenario: scenario.name.clone(),
        seed,
        nodes: 3,
        profile: profiles[usize::try_from(seed).unwrap() % profiles.len()].clone(),
        measures: scenario.expect.iter().map(one).collect(),
        hash: format!("{seed:032x}"),
        timeline: Some(timeline),
        lines: vec![
            line(900_000, "n1", "LEADS term 2"),
            line(2_000_000, "storm", "— The <network> is cut."),
            line(2_000_100, "n2", "votes for node 1 in term 2"),
        ],
        ..Report::default()
    }
}

/// Runs of seeds 1 to `count`.
fn runs(scenario: &scenarios::Scenario, count: u64) -> Vec<Report> {
    (1..=count)
        .map(|seed| good(scenario, seed, seed as f64 * 10.0))
        .collect()
}

#[test]
fn percentiles_are_the_nearest_rank() {
    let values: Vec<f64> = (1..=100).map(f64::from).collect();
    assert_eq!(percentile(&values, 0.5), 50.0);
    assert_eq!(percentile(&values, 0.99), 99.0);
    assert_eq!(percentile(&values, 1.0), 100.0);
    assert_eq!(percentile(&values, 0.0), 1.0);
    assert_eq!(percentile(&[7.0], 0.99), 7.0);
    assert_eq!(percentile(&[], 0.5), 0.0);
}

#[test]
fn amounts_read_like_a_person_says_them() {
    assert_eq!(page::amount(312.4, "ms"), "312 ms");
    assert_eq!(page::amount(999.7, "ms"), "1 s");
    assert_eq!(page::amount(1_310.0, "ms"), "1.31 s");
    assert_eq!(page::amount(20_000.0, "ms"), "20 s");
    assert_eq!(page::amount(0.0, "writes"), "0");
}

#[test]
fn a_paused_node_goes_on_as_what_it_was() {
    let scenario = scenarios::find("leader-crash").unwrap();
    let run = good(&scenario, 1, 1.0);
    let all = lanes(run.timeline.as_ref().unwrap());
    let states: Vec<State> = all[0].spans.iter().map(|span| span.state).collect();
    assert_eq!(
        states,
        [State::Starting, State::Leader, State::Paused, State::Leader]
    );
    let last = Span {
        from_us: 5_000_000,
        to_us: 10_000_000,
        state: State::Down,
    };
    assert_eq!(all[1].spans.last(), Some(&last));
    for lane in &all {
        assert!(
            lane.spans
                .windows(2)
                .all(|two| two[0].to_us == two[1].from_us),
            "no gaps: {lane:?}"
        );
    }
}

#[test]
fn equal_runs_give_equal_bytes_in_any_order() {
    for scenario in scenarios::all() {
        let one = gather(&scenario, runs(&scenario, 12)).unwrap();
        let mut shuffled = runs(&scenario, 12);
        shuffled.reverse();
        shuffled.swap(2, 7);
        for run in &mut shuffled {
            // What the machine had to do for it must not show.
            run.cpu_us = 123;
        }
        let other = gather(&scenario, shuffled).unwrap();
        assert_eq!(book::files(&[one]), book::files(&[other]));
    }
}

#[test]
fn a_failed_run_or_an_unmeasured_expectation_stops_the_page() {
    let scenario = scenarios::find("leader-crash").unwrap();
    let mut bad = runs(&scenario, 12);
    bad[4].failures.push("two leaders\nand more".to_owned());
    assert_eq!(
        gather(&scenario, bad).unwrap_err(),
        ["leader-crash seed 5 failed: two leaders"]
    );
    let mut silent = runs(&scenario, 12);
    silent.iter_mut().for_each(|run| run.measures.clear());
    assert_eq!(
        gather(&scenario, silent).unwrap_err().len(),
        scenario.expect.len()
    );
    assert!(gather(&scenario, Vec::new()).is_err());
}

#[test]
fn a_median_beyond_its_bound_stops_the_page() {
    let mut scenario = scenarios::find("leader-crash").unwrap();
    scenario
        .expect
        .retain(|one| one.unit == "ms" && one.profile.as_deref() == Some("lan"));
    scenario.expect[0].median_max = Some(30.0);
    let wrong = gather(&scenario, runs(&scenario, 12)).unwrap_err();
    assert!(wrong[0].contains("the median is"), "{wrong:?}");
}

#[test]
fn what_was_run_live_stands_on_the_page_and_what_is_out_of_date_is_refused() {
    let scenario = scenarios::find("leader-crash").unwrap();
    let one = &scenario.expect[1];
    let text = format!(
        r#"{{"scenario":"leader-crash","runs":[{{"seed":7,"date":"2026-11-21","machine":"2 cores of X","load":1.25,"worst_sync_ms":12.5,
        "version":"0.1.0","build":"release","commit":"abc+","nodes":3,"profile":"lan","seconds":40.5,"clients":2,"operations":9,
        "acknowledged":8,"errors":{{}},"departures":["no power"],"measures":[{{"id":{:?},"text":{:?},"unit":"ms","value":412.3,
        "max":{},"min":null}}]}}]}}"#,
        one.id,
        one.text,
        one.max.unwrap()
    );
    let mut model = gather(&scenario, runs(&scenario, 12)).unwrap();
    assert!(!page::write(&model).contains("## Also run live"));
    model.live = Some(live::parse(&text, &scenario).unwrap());
    let page = page::write(&model);
    let row = format!(
        "| 7 | 3 nodes, lan | {} | {} | 412 ms | at most 1 s |",
        one.id, one.text
    );
    for part in [
        "## Also run live",
        &row,
        "2 cores of X, load 1.2, worst sync 12 ms;",
        "storm live leader-crash --seed 7",
    ] {
        assert!(page.contains(part), "no {part} in {page}");
    }
    let mut stricter = scenario.clone();
    stricter.expect[1].max = Some(1.0);
    let why = live::parse(&text, &stricter).unwrap_err().to_string();
    assert!(why.contains("does not expect so any more"), "{why}");
    let other = scenarios::find("follower-crash").unwrap();
    assert!(live::parse(&text, &other).is_err());
}

#[test]
fn pictures_are_well_formed() {
    let scenario = scenarios::find("partition-heal").unwrap();
    let drawn = picture::draw(&good(&scenario, 3, 1.0)).unwrap();
    assert_eq!(unbalanced(&drawn), None);
    assert!(drawn.contains("n2 &amp; &lt;n3&gt;"));
    assert!(!drawn.contains("NaN") && !drawn.contains("inf"), "{drawn}");
}

/// The first tag that is closed wrongly or never; no comments, no CDATA.
fn unbalanced(text: &str) -> Option<String> {
    let mut open: Vec<&str> = Vec::new();
    for piece in text.split('<').skip(1) {
        let (tag, _) = piece.split_once('>')?;
        let name = tag
            .trim_start_matches('/')
            .split_whitespace()
            .next()
            .unwrap_or("");
        if tag.matches('"').count() % 2 == 1 {
            return Some(tag.to_owned());
        }
        if tag.starts_with('/') {
            if open.pop() != Some(name) {
                return Some(tag.to_owned());
            }
        } else if !tag.ends_with('/') {
            open.push(name);
        }
    }
    open.pop().map(str::to_owned)
}

#[test]
fn the_check_names_the_first_line_that_differs() {
    assert_eq!(
        book::first_difference("a\nb\nc\n", "a\nB\nc\n"),
        "line 2:\n  there: b\n  right: B"
    );
    assert_eq!(
        book::first_difference("a\n", "a\nb\n"),
        "line 2:\n  there: (the end)\n  right: b"
    );
    let folder = std::env::temp_dir().join(format!("handbook-check-{}", std::process::id()));
    let scenario = scenarios::find("power-loss").unwrap();
    let files = book::files(&[gather(&scenario, runs(&scenario, 12)).unwrap()]);
    book::write(&folder, &files, "`cccc`").unwrap();
    assert!(book::compare(&folder, &files).unwrap().is_empty());
    std::fs::write(folder.join("power-loss.md"), "# Old\n").unwrap();
    std::fs::write(folder.join("gone.md"), "").unwrap();
    std::fs::remove_file(folder.join("SUMMARY.md")).unwrap();
    assert_eq!(book::compare(&folder, &files).unwrap().len(), 3);
    std::fs::remove_dir_all(&folder).unwrap();
}

/// The commit of a page is written when the page changes, and never makes it differ.
#[test]
fn the_commit_of_a_page_is_no_difference() {
    let page = format!("# A page\n{}`(none)`.\nend\n", book::BUILT_ON);
    let first = book::stamped(&page, "`aaaa`");
    assert_eq!(first, format!("# A page\n{}`aaaa`.\nend\n", book::BUILT_ON));
    assert!(book::is_same(&first, &page));
    assert!(!book::is_same(&first, &page.replace("end", "END")));

    let out = std::env::temp_dir().join(format!("seaworthy-book-{}", std::process::id()));
    let files: book::Files = [("page.md".to_owned(), page.clone())].into();
    book::write(&out, &files, "`aaaa`").expect("written");
    book::write(&out, &files, "`bbbb`").expect("nothing to write");
    assert_eq!(
        book::compare(&out, &files).expect("compared"),
        Vec::<String>::new()
    );
    let read = || std::fs::read_to_string(out.join("page.md")).expect("there");
    assert_eq!(read(), first, "nothing else has changed");

    let changed: book::Files = [("page.md".to_owned(), page.replace("end", "END"))].into();
    assert_eq!(book::compare(&out, &changed).expect("compared").len(), 1);
    book::write(&out, &changed, "`bbbb`").expect("written");
    assert!(read().contains("`bbbb`"), "it is another page now");
    std::fs::remove_dir_all(&out).expect("removed");
}
