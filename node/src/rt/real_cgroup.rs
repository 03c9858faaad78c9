//! Limits of processor and memory by control groups, of whichever version the host has.
//!
//! Each attempt with a limit gets groups of its own below the one that this program runs in, named after its mark. A process goes into them
//! by itself before it becomes the task's program ([`Cage::wrap`]), so that nothing it begins is ever outside. Version 2 needs a
//! delegated subtree, version 1 a writable hierarchy; where there is neither, there are no limits, and [`Cage::make`] says why.
#![expect(
    clippy::disallowed_methods,
    reason = "a part of the real half of the seam: here the operating system is named"
)]

use super::processes::Limits;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where control groups are mounted.
const MOUNT: &str = "/sys/fs/cgroup";
/// What the names of our groups begin with.
const PREFIX: &str = "seaworthy-";
/// Period over which a share of processors is counted, microseconds.
const PERIOD_US: u64 = 100_000;
/// Least quota that the kernel takes, microseconds.
const QUOTA_US_MIN: u64 = 1_000;
/// Moves the shell into the groups named before `--`, then becomes the program behind it.
const WRAPPER: &str = r#"while [ "$1" != -- ]; do echo 0 > "$1/cgroup.procs" || exit 125; shift; done; shift; exec "$@""#;

/// The groups of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cage {
    /// The group that counts memory, if memory is limited.
    memory: Option<PathBuf>,
    /// The group that counts the processor, if it is limited and another one.
    cpu: Option<PathBuf>,
}

impl Cage {
    /// Makes groups with these limits for the attempt with `mark`. The error is a sentence for people.
    pub(super) fn make(limits: &Limits, mark: &str) -> Result<Cage, String> {
        let name = format!(
            "{PREFIX}{:016x}",
            xxhash_rust::xxh3::xxh3_64(mark.as_bytes())
        );
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let made = match Path::new(MOUNT).join("cgroup.controllers").exists() {
            true => make_v2(Path::new(MOUNT), &own, &name, limits),
            false => make_v1(Path::new(MOUNT), &own, &name, limits),
        };
        made.map_err(|(path, error)| {
            format!("cannot set limits through {}: {error}", path.display())
        })
    }

    /// The groups of a process that was put into some of ours.
    pub(super) fn of(pid: u32) -> Option<Cage> {
        let lines = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let group = |controller: &str| {
            let path = path_of(&lines, controller)?;
            let ours = Path::new(path).file_name()?.to_str()?.starts_with(PREFIX);
            let root = match controller {
                "" => PathBuf::from(MOUNT),
                named => Path::new(MOUNT).join(named),
            };
            ours.then(|| below(&root, path))
        };
        let cage = match Path::new(MOUNT).join("cgroup.controllers").exists() {
            true => Cage {
                memory: group(""),
                cpu: None,
            },
            false => Cage {
                memory: group("memory"),
                cpu: group("cpu"),
            },
        };
        (cage.memory.is_some() || cage.cpu.is_some()).then_some(cage)
    }

    /// The command that goes into the groups and becomes `words`.
    pub(super) fn wrap(&self, words: &[String]) -> Vec<String> {
        let shell = ["/bin/sh", "-c", WRAPPER, "sh"].map(str::to_owned);
        let groups = self.dirs().map(|dir| dir.display().to_string());
        let end = std::iter::once("--".to_owned());
        shell
            .into_iter()
            .chain(groups)
            .chain(end)
            .chain(words.iter().cloned())
            .collect()
    }

    /// Whether the kernel killed something in them for lack of memory.
    pub(super) fn was_oom(&self) -> bool {
        let Some(memory) = &self.memory else {
            return false;
        };
        let files = ["memory.events", "memory.oom_control"];
        let said = files
            .iter()
            .filter_map(|file| fs::read_to_string(memory.join(file)).ok());
        let count = |line: &str| line.strip_prefix("oom_kill ")?.trim().parse::<u64>().ok();
        said.flat_map(|text| text.lines().filter_map(count).collect::<Vec<_>>())
            .any(|count| count > 0)
    }

    /// Removes them. What is still busy stays, and is used again or removed with the next attempt of the same name.
    pub(super) fn remove(&self) {
        self.dirs().for_each(|dir| drop(fs::remove_dir(dir)));
    }

    fn dirs(&self) -> impl Iterator<Item = &PathBuf> {
        self.memory.iter().chain(&self.cpu)
    }
}

/// What failed, and on which file.
type Failed = (PathBuf, io::Error);

/// One group below our own, with both limits.
fn make_v2(mount: &Path, own: &str, name: &str, limits: &Limits) -> Result<Cage, Failed> {
    let parent = below(mount, path_of(own, "").unwrap_or("/"));
    // Children may only be limited when their parent lets them be; a parent that has processes of its own may not, but for the root.
    for controller in ["+memory", "+cpu"] {
        write(&parent.join("cgroup.subtree_control"), controller)?;
    }
    let dir = make_dir(parent.join(name))?;
    if limits.memory_bytes > 0 {
        write(&dir.join("memory.max"), &limits.memory_bytes.to_string())?;
        // Kernels without swap accounting have no such file.
        drop(write(&dir.join("memory.swap.max"), "0"));
    }
    if limits.cpu_milli > 0 {
        write(
            &dir.join("cpu.max"),
            &format!("{} {PERIOD_US}", quota_us(limits)),
        )?;
    }
    Ok(Cage {
        memory: Some(dir),
        cpu: None,
    })
}

/// A group for each limit, below our own in its hierarchy.
fn make_v1(mount: &Path, own: &str, name: &str, limits: &Limits) -> Result<Cage, Failed> {
    let mut cage = Cage {
        memory: None,
        cpu: None,
    };
    if limits.memory_bytes > 0 {
        let root = mount.join("memory");
        let dir = make_dir(below(&root, path_of(own, "memory").unwrap_or("/")).join(name))?;
        let bytes = limits.memory_bytes.to_string();
        // A group that is used again may have a lower limit for both together than the new one for memory.
        drop(write(&dir.join("memory.memsw.limit_in_bytes"), "-1"));
        write(&dir.join("memory.limit_in_bytes"), &bytes)?;
        // Kernels without swap accounting have no such file.
        drop(write(&dir.join("memory.memsw.limit_in_bytes"), &bytes));
        cage.memory = Some(dir);
    }
    if limits.cpu_milli > 0 {
        let root = mount.join("cpu");
        let dir = make_dir(below(&root, path_of(own, "cpu").unwrap_or("/")).join(name))?;
        write(&dir.join("cpu.cfs_period_us"), &PERIOD_US.to_string())?;
        write(&dir.join("cpu.cfs_quota_us"), &quota_us(limits).to_string())?;
        cage.cpu = Some(dir);
    }
    Ok(cage)
}

fn quota_us(limits: &Limits) -> u64 {
    (limits.cpu_milli * PERIOD_US / 1_000).max(QUOTA_US_MIN)
}

/// The path of a group below `root`. In a container the whole path is often not mounted: then the root is our own group.
fn below(root: &Path, path: &str) -> PathBuf {
    let whole = root.join(path.trim_start_matches('/'));
    match whole.is_dir() {
        true => whole,
        false => match Path::new(path).file_name() {
            Some(last) if last.to_string_lossy().starts_with(PREFIX) => root.join(last),
            _ => root.to_owned(),
        },
    }
}

/// The path in the line of `controller` in `/proc/PID/cgroup`; the empty one is version 2's.
fn path_of<'a>(lines: &'a str, controller: &str) -> Option<&'a str> {
    lines.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        controllers
            .split(',')
            .any(|one| one == controller)
            .then_some(path)
    })
}

fn make_dir(dir: PathBuf) -> Result<PathBuf, Failed> {
    match fs::create_dir(&dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err((dir, error)),
        _ => Ok(dir),
    }
}

fn write(path: &Path, text: &str) -> Result<(), Failed> {
    fs::write(path, text).map_err(|error| (path.to_owned(), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_in_both_versions() {
        let lines = "5:memory:/a/b\n3:cpu,cpuacct:/c\n0::/d\n";
        assert_eq!(path_of(lines, "memory"), Some("/a/b"));
        assert_eq!(path_of(lines, "cpu"), Some("/c"));
        assert_eq!(path_of(lines, ""), Some("/d"));
        assert_eq!(path_of(lines, "pids"), None);
    }

    #[test]
    fn limits_are_written_in_the_words_of_each_version() {
        let root = tempfile::tempdir().unwrap();
        let limits = Limits {
            cpu_milli: 1_500,
            memory_bytes: 64 << 20,
        };
        let read = |path: &str| fs::read_to_string(root.path().join(path)).unwrap();
        make_v2(root.path(), "0::/\n", "x", &limits).unwrap();
        assert_eq!(read("x/memory.max"), "67108864");
        assert_eq!(read("x/cpu.max"), "150000 100000");
        for dir in ["memory/own", "cpu"] {
            fs::create_dir_all(root.path().join(dir)).unwrap();
        }
        let cage = make_v1(root.path(), "4:memory:/own\n1:cpu:/\n", "y", &limits).unwrap();
        assert_eq!(read("memory/own/y/memory.limit_in_bytes"), "67108864");
        assert_eq!(read("cpu/y/cpu.cfs_quota_us"), "150000");
        let words = cage.wrap(&["sleep".to_owned(), "1".to_owned()]);
        assert_eq!(words[words.len() - 3..], ["--", "sleep", "1"]);
        assert_eq!(words.len(), 4 + 2 + 3);
    }

    #[test]
    fn a_kill_for_memory_is_seen_in_both_versions() {
        let root = tempfile::tempdir().unwrap();
        let cage = Cage {
            memory: Some(root.path().to_owned()),
            cpu: None,
        };
        assert!(!cage.was_oom());
        fs::write(root.path().join("memory.events"), "oom 1\noom_kill 0\n").unwrap();
        assert!(!cage.was_oom());
        fs::write(
            root.path().join("memory.oom_control"),
            "under_oom 0\noom_kill 2\n",
        )
        .unwrap();
        assert!(cage.was_oom());
    }
}
