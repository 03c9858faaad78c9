//! What the servers spent, read from `/proc`: CPU time and bytes handed to the disk.
//!
//! Left out: other systems than Linux. A process that cannot be read makes the cost unknown, not an error.

use std::fs;

/// Clock ticks a second in `/proc/PID/stat`; Linux shows 100 to user space whatever the kernel's own rate.
const TICKS_PER_SECOND: f64 = 100.0;

/// Totals since the processes started.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Cost {
    /// CPU time in user and kernel mode, seconds.
    pub(crate) cpu_seconds: f64,
    /// Bytes caused to be written to storage.
    pub(crate) write_bytes: f64,
}

impl Cost {
    /// The totals of `pids` together; nothing when there are none or one cannot be read.
    pub(crate) fn read(pids: &[u32]) -> Option<Cost> {
        let costs: Option<Vec<Cost>> = pids.iter().map(|pid| of(*pid)).collect();
        let costs = costs.filter(|costs| !costs.is_empty())?;
        Some(costs.iter().fold(Cost::default(), |sum, cost| Cost {
            cpu_seconds: sum.cpu_seconds + cost.cpu_seconds,
            write_bytes: sum.write_bytes + cost.write_bytes,
        }))
    }

    /// What was spent since `before`.
    pub(crate) fn since(self, before: Cost) -> Cost {
        Cost {
            cpu_seconds: self.cpu_seconds - before.cpu_seconds,
            write_bytes: self.write_bytes - before.write_bytes,
        }
    }
}

fn of(pid: u32) -> Option<Cost> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let io = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    Some(Cost {
        cpu_seconds: cpu_ticks(&stat)? / TICKS_PER_SECOND,
        write_bytes: write_bytes(&io)?,
    })
}

/// Ticks in user and kernel mode: fields 14 and 15, counted behind the name, which may hold blanks and brackets.
fn cpu_ticks(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn write_bytes(io: &str) -> Option<f64> {
    let line = io
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found_behind_an_odd_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 200 0 0 0 31 11 0 0 20 0 1 0 5 6 7";
        assert_eq!(cpu_ticks(stat), Some(42.0));
        assert_eq!(cpu_ticks("7 (cut"), None);
    }

    #[test]
    fn own_process_can_be_read_and_a_missing_one_cannot() {
        assert!(Cost::read(&[std::process::id()]).is_some());
        assert_eq!(Cost::read(&[u32::MAX]), None);
        assert_eq!(Cost::read(&[]), None);
    }

    #[test]
    fn bytes_written_are_not_cancelled_bytes() {
        let io = "wchar: 5\nwrite_bytes: 4096\ncancelled_write_bytes: 1\n";
        assert_eq!(write_bytes(io), Some(4096.0));
    }
}
