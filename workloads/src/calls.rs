//! What users of services see: each call, what became of it, and what is measured of them all. Pure.

use std::time::Duration;

/// What became of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The service.
    pub service: String,
    /// When it began.
    pub began: Duration,
    /// When it was answered; none: by no copy that was tried.
    pub answered: Option<Duration>,
    /// Whether the first copy answered.
    pub at_once: bool,
}

/// Measures of the calls of `service` (of all, if none is named) that began from `begin` on and before `end`.
pub fn take(
    calls: &[Call],
    measure: &str,
    service: Option<&str>,
    (begin, end): (Duration, Duration),
) -> Option<f64> {
    let mine = |call: &&Call| {
        service.is_none_or(|name| call.service == name) && call.began >= begin && call.began < end
    };
    let mine: Vec<&Call> = calls.iter().filter(mine).collect();
    if mine.is_empty() {
        return None;
    }
    let millis = |span: Duration| span.as_micros() as f64 / 1e3;
    match measure {
        "calls_lost" => Some(mine.iter().filter(|call| call.answered.is_none()).count() as f64),
        "calls_lost_percent" => {
            let lost = mine.iter().filter(|call| call.answered.is_none()).count();
            Some(lost as f64 * 100.0 / mine.len() as f64)
        }
        "calls_tried_again_percent" => {
            let again = mine.iter().filter(|call| !call.at_once).count();
            Some(again as f64 * 100.0 / mine.len() as f64)
        }
        "call_ms" => {
            let answered = mine
                .iter()
                .filter_map(|call| Some(call.answered? - call.began));
            answered.max().map(millis)
        }
        "call_gap_ms" => {
            let answers = mine.iter().filter_map(|call| call.answered);
            let mut moments: Vec<Duration> = answers.chain([begin, end]).collect();
            moments.sort_unstable();
            let gaps = moments.windows(2).map(|pair| pair[1] - pair[0]);
            gaps.max().map(millis)
        }
        "calls_smooth_ms" => {
            let rough = mine.iter().filter(|call| !call.at_once);
            let last = rough.map(|call| call.began).max();
            Some(millis(last.unwrap_or(begin) - begin))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
