//! Tests of what is measured of users' calls.

use std::time::Duration;
use workloads::calls::{Call, take};

fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A call of `service`, begun at `began`, answered at `answered`, at the first try or a later one.
fn call(service: &str, began: u64, answered: Option<u64>, at_once: bool) -> Call {
    Call {
        service: service.to_owned(),
        began: at(began),
        answered: answered.map(at),
        at_once,
    }
}

#[test]
fn calls_are_measured_within_their_span_and_for_their_service() {
    let calls = [
        call("web", 0, None, false), // before the span
        call("web", 100, Some(105), true),
        call("web", 300, Some(1_305), false),
        call("solo", 400, None, false),
        call("web", 500, Some(504), true),
        call("web", 700, None, false),
    ];
    let take = |measure, service| take(&calls, measure, service, (at(100), at(2_000)));
    assert_eq!(take("calls_lost", Some("web")), Some(1.0));
    assert_eq!(take("calls_lost", None), Some(2.0));
    assert_eq!(take("calls_lost_percent", Some("web")), Some(25.0));
    assert_eq!(take("calls_tried_again_percent", Some("web")), Some(50.0));
    assert_eq!(take("call_ms", Some("web")), Some(1_005.0));
    assert_eq!(take("call_ms", Some("solo")), None, "none was answered");
    // Answers at 105, 504 and 1305, and the span ends at 2000.
    assert_eq!(take("call_gap_ms", Some("web")), Some(801.0));
    assert_eq!(take("call_gap_ms", Some("solo")), Some(1_900.0));
    assert_eq!(take("calls_smooth_ms", Some("web")), Some(600.0));
    assert_eq!(take("calls_lost", Some("nobody")), None);
}
