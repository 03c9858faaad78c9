//! The run's clock: real time since its start, monotonic for whatever is measured here, and by the wall for what nodes wrote
//! into their logs.
//!
//! Both run on one machine, so they agree to within a millisecond unless somebody sets the wall clock during a run.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Seconds of a day.
const DAY_S: i64 = 86_400;

/// The clock of one run. A copy is the same clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunClock {
    /// Zero, monotonic.
    origin: Instant,
    /// The same moment on the wall, since 1970.
    wall: Duration,
}

impl RunClock {
    /// A clock that begins now.
    pub(crate) fn start() -> Self {
        RunClock {
            origin: Instant::now(),
            wall: since_1970(),
        }
    }

    /// Time since the start.
    pub(crate) fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// The same in nanoseconds, as clients note it.
    pub(crate) fn nanos(&self) -> u64 {
        u64::try_from(self.now().as_nanos()).unwrap_or(u64::MAX)
    }

    /// A moment of the wall clock, milliseconds since 1970; the start for one before it.
    pub(crate) fn of_millis(&self, millis: u64) -> Duration {
        Duration::from_millis(millis).saturating_sub(self.wall)
    }

    /// The moment that a log line tells, such as `2026-11-21T15:35:24.123456Z`; the start for one before it.
    pub(crate) fn of_stamp(&self, stamp: &str) -> Option<Duration> {
        Some(stamp_since_1970(stamp)?.saturating_sub(self.wall))
    }
}

/// Wall time since 1970.
fn since_1970() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// Today's date, UTC, such as `2026-11-21`.
pub(crate) fn today() -> String {
    let seconds = i64::try_from(since_1970().as_secs()).unwrap_or_default();
    let (year, month, day) = civil(seconds.div_euclid(DAY_S));
    format!("{year:04}-{month:02}-{day:02}")
}

/// A stamp of UTC as time since 1970.
fn stamp_since_1970(stamp: &str) -> Option<Duration> {
    let (date, time) = stamp.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.splitn(3, '-').map(str::parse::<i64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let mut time = time.splitn(3, ':');
    let hours: i64 = time.next()?.parse().ok()?;
    let minutes: i64 = time.next()?.parse().ok()?;
    let seconds: f64 = time.next()?.parse().ok()?;
    let in_range = (1..=12).contains(&month) && (1..=31).contains(&day) && seconds >= 0.0;
    let whole = days(year, month, day) * DAY_S + hours * 3_600 + minutes * 60;
    let whole = u64::try_from(whole).ok().filter(|_| in_range)?;
    Some(Duration::from_secs(whole) + Duration::try_from_secs_f64(seconds).ok()?)
}

/// Days from 1970 to a date of the Gregorian calendar. A year begins in March here, so that the leap day is its last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The date that is so many days after 1970.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_lines_stamp_is_a_moment() {
        let at = |text| stamp_since_1970(text);
        assert_eq!(
            at("1970-01-01T00:00:01.5Z"),
            Some(Duration::from_millis(1_500))
        );
        let later = at("2026-11-21T15:35:24.250000Z").expect("it is a stamp");
        assert_eq!(later.as_millis(), 1_795_275_324_250);
        assert_eq!(at("2026-11-21 15:35"), None);
        assert_eq!(at("2026-13-21T00:00:00Z"), None);
    }

    #[test]
    fn days_and_dates_are_each_others_inverse() {
        for day in (-1_000..60_000).step_by(13) {
            let (year, month, date) = civil(day);
            assert_eq!(days(year, month, date), day);
        }
        assert_eq!(civil(days(2024, 2, 29)), (2024, 2, 29));
    }

    #[test]
    fn what_nodes_log_is_placed_on_the_runs_clock() {
        let clock = RunClock {
            origin: Instant::now(),
            wall: stamp_since_1970("2026-11-21T15:35:24Z").expect("it is a stamp"),
        };
        assert_eq!(
            clock.of_stamp("2026-11-21T15:35:25.25Z"),
            Some(Duration::from_millis(1_250))
        );
        assert_eq!(clock.of_stamp("2026-11-21T15:35:23Z"), Some(Duration::ZERO));
    }
}
