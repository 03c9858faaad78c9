//! What simulated tasks do follows from their commands.

use sim::crew::behaviour::{Behaviour, End};
use std::time::Duration;

/// What the words of `text` say.
fn parse(text: &str) -> Result<Behaviour, String> {
    let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
    Behaviour::parse(&words)
}

#[test]
fn words_say_what_a_task_does() {
    let task = parse("sim slow-start 2s crash-after 1m flaky 0.5 ignore-term tag two").unwrap();
    assert_eq!(task.healthy_from, Duration::from_secs(2));
    assert_eq!(task.end, Some((Duration::from_secs(60), End::Crash)));
    assert!(task.ignores_term);
    assert!(!task.is_well(Duration::from_secs(1)));
    assert!(task.is_well(Duration::from_secs(3)));
}

#[test]
fn a_task_is_refused_everywhere_or_on_one_worker() {
    assert!(parse("sim refuse").unwrap().is_refused_on("w1"));
    let one = parse("sim refuse-on w2").unwrap();
    assert!(one.is_refused_on("w2") && !one.is_refused_on("w1"));
}

#[test]
fn words_that_make_no_sense_are_errors_that_name_them() {
    for (text, word) in [
        ("sleep 5", "sim"),
        ("sim dance 5s", "dance"),
        ("sim crash-after", "crash-after"),
        ("sim crash-after soon", "soon"),
        ("sim flaky 2", "2"),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.contains(word), "{error}");
    }
}
