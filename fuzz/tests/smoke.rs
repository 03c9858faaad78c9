//! A few seconds of every target, and the proof that the fuzzer finds something when there is something to find.

use fuzz::mutate::Source;
use fuzz::{Target, once, run, targets};

/// Iterations per target, divided by what one costs.
const ITERATIONS: u64 = 4_000;

/// Also: some inputs get through and some do not, or the target tests nothing but its first line.
#[test]
fn every_target_holds() {
    for target in targets() {
        let iterations = (ITERATIONS / target.cost).max(50);
        let accepted = run(target, 0, iterations).unwrap_or_else(|failure| panic!("{failure}"));
        let name = target.name;
        assert!(
            0 < accepted && accepted < iterations,
            "{name}: {accepted} of {iterations} accepted"
        );
    }
}

#[test]
fn targets_have_names_of_their_own() {
    let mut names: Vec<&str> = targets().iter().map(|target| target.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), targets().len());
}

/// A decoder of a length and that many bytes, with a planted bug: it believes the length.
fn trusting(source: &mut Source) -> bool {
    let bytes = source.mutated(&[[3, 0, b'a', b'b', b'c']]);
    let Some((head, body)) = bytes.split_at_checked(2) else {
        return false;
    };
    let length = usize::from(u16::from_le_bytes([head[0], head[1]]));
    assert!(length <= body.len(), "a length was believed");
    true
}

#[test]
fn the_canary_is_found_and_found_again() {
    let canary = Target {
        name: "canary",
        cost: 1,
        run: trusting,
    };
    let failure =
        run(canary, 0, 1_000).expect_err("a planted bug is found within a thousand iterations");
    assert_eq!(
        once(canary, failure.seed, failure.iteration),
        Err(failure.clone())
    );
    assert!(
        failure
            .to_string()
            .contains("cargo run -p fuzz -- canary 0"),
        "{failure}"
    );
}
