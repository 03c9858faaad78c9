//! The ground a run stands on: ports that nobody else uses, and the words for this machine.

use anyhow::{Result, bail};
use node::rt::real;
use std::fs::File;
use std::io::{self, Write};
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

/// Ports that are tried: below those that the kernel gives to outgoing connections, or a client could sit on the port of a node
/// that is down for a moment.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// So many loopback addresses that were free a moment ago.
pub(crate) fn free_addresses(count: usize) -> Result<Vec<String>> {
    // Runs at the same time have neighbouring process ids, and begin far from each other.
    let begin = u64::from(std::process::id()) * STRIDE % PORTS.len() as u64;
    let begin = u16::try_from(begin).unwrap_or_default();
    let (first, last) = PORTS.clone().partition(|port| *port >= PORTS.start + begin);
    let order: (Vec<u16>, Vec<u16>) = (first, last);
    let all = order.0.into_iter().chain(order.1);
    let address = all.map(|port| format!("127.0.0.1:{port}"));
    let free: Vec<String> = address
        .filter(|address| TcpListener::bind(address).is_ok())
        .take(count)
        .collect();
    if free.len() < count {
        bail!(
            "only {} of {count} ports are free between {} and {}",
            free.len(),
            PORTS.start,
            PORTS.end
        );
    }
    Ok(free)
}

/// How far from each other two runs with neighbouring process ids begin to look for ports; a prime.
const STRIDE: u64 = 7_919;

/// This machine in a few words: processor, cores, memory, kernel.
pub(crate) fn machine() -> String {
    let host = real::host();
    let processor = field("/proc/cpuinfo", "model name");
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "{} cores of {}, {:.0} GiB, {} {}",
        host.cpu_milli / 1_000,
        processor.as_deref().unwrap_or("an unnamed processor"),
        host.memory_bytes as f64 / (1_u64 << 30) as f64,
        host.platform,
        kernel.trim()
    )
}

/// The load of the machine over the last minute, as the kernel counts it.
pub(crate) fn load() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// How long the disk under `dir` holds up a small write that has to be durable, as a node's log would feel it.
pub(crate) fn sync_once(dir: &Path) -> io::Result<Duration> {
    let mut file = File::create(dir.join("sync-probe"))?;
    let began = Instant::now();
    file.write_all(&[0; 4_096])?;
    file.sync_data()?;
    Ok(began.elapsed())
}

/// The value behind `name :` in a file of `/proc`.
fn field(path: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_different_and_can_be_listened_on() {
        let mut addresses = free_addresses(6).expect("some ports are free");
        for address in &addresses {
            TcpListener::bind(address).expect("it was free");
        }
        addresses.dedup();
        assert_eq!(addresses.len(), 6);
    }

    #[test]
    fn a_sync_takes_its_time() {
        let dir = tempfile::tempdir().expect("there is room");
        assert!(sync_once(dir.path()).expect("there is room") > Duration::ZERO);
        assert!(sync_once(&dir.path().join("missing")).is_err());
    }

    #[test]
    fn this_machine_has_words() {
        assert!(machine().contains(" cores of "), "{}", machine());
    }
}
