//! Guards: what ends a process although the program that started it can do nothing any more (Linux).
//!
//! A tied process has a guard beside it in its group, a shell that reads from a pipe of this program. When the pipe closes, because this
//! program ended in whatever way, the guard kills the group. Before that it runs the last words of the process, until they succeed or
//! have failed twenty times in two seconds: what has left the group (a container) may be about to begin just then.
//!
//! A program that stands still (`SIGSTOP`, a machine that swaps) closes no pipe. So the guard of a leased process is a dead man's switch
//! as well: it kills by its own clock when the lease has ended and this program has not written a later end. The end stands in a
//! [`Page`], memory without a name that this program writes once for all its guards and each guard looks at when it wakes: at the end
//! that it knows, and every two seconds at least. A page that makes no sense is a lease that has ended. The process itself is
//! started through a gate that looks at the page last thing before it becomes the task's program, in the group that the guard kills:
//! if this program stood still while it started the process, either the guard still lives and will kill it, or the gate stays shut.
//!
//! The clock is that of `/proc/uptime`, which counts the time that the machine sleeps (`CLOCK_BOOTTIME`). But nobody wakes while it
//! sleeps: after that, a lease that has ended is noticed within two seconds. A virtual machine whose host stops it and hides that from
//! its clocks is beyond what any clock in it can tell.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a part of the real half of the seam: here the operating system is named"
)]

use super::clock::Mono;
use super::real_processes::signal_group;
use rustix::fs::MemfdFlags;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::time::Duration;

/// Functions of both scripts: `left` says how many hundredths of a second the lease in `$page` has left; none is left of one that
/// cannot be read. The end stands there twice: an odd pair was read while it was written.
const LEFT: &str = r#"
left() { left=0; tries=0
while read -r end again _ <"$page" && read -r up _ </proc/uptime; do
  if [ "$end" = "$again" ]; then part=${up#*.}; left=$((end - ${up%.*} * 100 - ${part#0})); return; fi
  tries=$((tries+1)); [ $tries -lt 1000 ] || return
done; }
"#;
/// The guard: deaf to what its group is told, it says a line when it is ready, and kills the group when its pipe closes or, if it
/// was told `lease`, that has ended.
const GUARD: &str = r#"exec 3<&2 2>/dev/null; page=/proc/self/fd/3; tie=$1; shift
trap '' TERM HUP INT
finish() { n=0
while [ $# -gt 0 ] && [ $n -lt 20 ] && ! "$@" </dev/null >/dev/null 2>&1; do n=$((n+1)); sleep 0.1; done
kill -KILL 0; }
watch() { while left; [ $left -gt 0 ]; do
  [ $left -lt 200 ] || left=200
  part=$((left % 100)); [ $part -ge 10 ] || part=0$part
  sleep $((left / 100)).$part || sleep 1
done; finish "$@"; }
[ "$tie" != lease ] || watch "$@" &
echo; read -r _; finish "$@""#;
/// The gate of a leased process: it becomes the program behind it while the lease in its input lasts.
const GATE: &str =
    r#"page=/proc/self/fd/0; left; [ $left -gt 0 ] || exit 125; exec "$@" </dev/null"#;
/// Where a guard finds its programs.
const GUARD_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Characters of a page.
const PAGE_LEN: usize = 48;

/// Where the end of the lease stands.
#[derive(Debug)]
pub(super) struct Page(File);

impl Page {
    /// A page of a lease that has ended.
    pub(super) fn new() -> io::Result<Self> {
        let page = Page(File::from(rustix::fs::memfd_create(
            "lease",
            MemfdFlags::CLOEXEC,
        )?));
        page.write(0)?;
        Ok(page)
    }

    /// The lease ends at `until`, on a clock that began when [`boot_time`] was `origin`.
    pub(super) fn set(&self, until: Mono, origin: Duration) -> io::Result<()> {
        // Read before the clock: if this program stops in between, the lease only becomes shorter.
        let up = uptime()?;
        let left = origin.saturating_add(until.0).saturating_sub(boot_time());
        self.write(up.saturating_add(left).as_millis() / 10)
    }

    /// Writes an end, hundredths of a second of `/proc/uptime`, over the one before.
    fn write(&self, end: u128) -> io::Result<()> {
        let text = format!("{:<1$}\n", format!("{end} {end}"), PAGE_LEN);
        self.0.write_all_at(text.as_bytes(), 0)
    }

    /// For a child.
    pub(super) fn share(&self) -> io::Result<Stdio> {
        Ok(self.0.try_clone()?.into())
    }
}

/// Time since the machine was started, as shells can read it. (In some containers it is not what the clock says.)
fn uptime() -> io::Result<Duration> {
    let text = fs::read_to_string("/proc/uptime")?;
    let seconds = text.split(' ').next().and_then(|up| up.parse().ok());
    seconds
        .and_then(|up| Duration::try_from_secs_f64(up).ok())
        .ok_or_else(|| io::Error::other("/proc/uptime makes no sense"))
}

/// Time since the machine was started, what it slept included.
pub(super) fn boot_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::try_from(now).unwrap_or_default()
}

/// Starts a guard with the last words of what it guards, and waits until it guards. With a page it watches the lease too.
pub(super) fn start(last_words: &[String], page: Option<&Page>) -> io::Result<Child> {
    let mut guard = std::process::Command::new("/bin/sh");
    let tie = if page.is_some() { "lease" } else { "program" };
    guard.args(["-c", &format!("{LEFT}{GUARD}"), "guard", tie]);
    guard.args(last_words);
    guard.env_clear().env("PATH", GUARD_PATH).process_group(0);
    guard
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(page.map_or_else(|| Ok(Stdio::null()), Page::share)?);
    let mut guard = guard.spawn()?;
    let ready = match &mut guard.stdout {
        Some(stdout) => stdout.read_exact(&mut [0]),
        None => Err(io::ErrorKind::BrokenPipe.into()),
    };
    match ready {
        Ok(()) => Ok(guard),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && page.is_some() => {
            dismiss(guard);
            Err(io::Error::other("its lease has ended"))
        }
        Err(error) => {
            dismiss(guard);
            Err(error)
        }
    }
}

/// `words` behind a gate, for a process whose input is a page.
pub(super) fn gated(words: &[String]) -> Vec<String> {
    let shell = ["/bin/sh", "-c", &format!("{LEFT}{GATE}"), "gate"].map(str::to_owned);
    shell.into_iter().chain(words.iter().cloned()).collect()
}

/// Ends a guard and what is left of its group.
pub(super) fn dismiss(mut guard: Child) {
    // It is not yet waited for, so its number is still its own.
    drop(signal_group(guard.id(), rustix::process::Signal::KILL));
    drop(guard.kill());
    drop(guard.wait());
}
