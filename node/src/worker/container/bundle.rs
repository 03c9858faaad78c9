//! What a container runtime is told of a container: the `config.json` of the OCI runtime specification. Pure.
//!
//! A container has file system, processes, host name and IPC of its own, and the network of its worker's machine (orchestration.md,
//! section 8). It gains no privileges (`noNewPrivileges`) and has the capabilities that engines give by default. A worker that is
//! not root maps its own user to the container's root; then the container has no other users.

use super::image::Wishes;
use super::never;
use crate::rt::process::ContainerRuntime;
use crate::service::Spec;
use crate::service::spec::Mount;
use crate::worker::process::{PATH, volume_variable};
use crate::worker::secrets::{IN_CONTAINER, VARIABLE};
use crate::worker::words::{Assignment, Refusal};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The annotation with the signal that ends the container in order.
pub(super) const STOP_SIGNAL: &str = "seaworthy.stop-signal";
/// The variable that holds the mark of a process.
const MARK: &str = "SEAWORTHY_MARK";
/// Period over which a share of processors is counted, microseconds.
const PERIOD_US: u64 = 100_000;
/// Least quota that the kernel takes, microseconds.
const QUOTA_US_MIN: u64 = 1_000;
/// What a container's root may do beyond what everybody may.
const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];
/// What of the kernel is hidden from containers.
const MASKED: [&str; 9] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/sys/firmware",
];
/// What of it they cannot write.
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Whom a container's first process runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct User {
    /// Its number.
    pub(super) uid: u32,
    /// Its group's.
    pub(super) gid: u32,
    /// Its home.
    pub(super) home: String,
}

impl User {
    /// Who `wish` (`user`, `user:group`, names or numbers, may be empty) is by the image's `/etc/passwd` and `/etc/group`.
    pub(super) fn find(wish: &str, passwd: &str, group: &str) -> Result<User, Refusal> {
        let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
        let row = |text: &str, key: &str| {
            let mut rows = text.lines().map(fields).filter(|row| row.len() > 2);
            rows.find(|row| row[0] == key || row[2] == key)
        };
        let number = |text: &str, file: &str| {
            text.parse::<u32>().map_err(|_| {
                never(format!(
                    "the image runs as {wish:?}, which is not in its {file}"
                ))
            })
        };
        let (name, team) = wish.split_once(':').unwrap_or((wish, ""));
        let name = if name.is_empty() { "0" } else { name };
        let known = row(passwd, name);
        let field = |index: usize| known.as_ref().and_then(|row| row.get(index));
        let uid = number(field(2).map_or(name, String::as_str), "/etc/passwd")?;
        let gid = match team {
            "" => field(3).map_or(Ok(0), |gid| number(gid, "/etc/passwd"))?,
            team => match row(group, team) {
                Some(row) => number(&row[2], "/etc/group")?,
                None => number(team, "/etc/group")?,
            },
        };
        let home = field(5).filter(|home| home.starts_with('/'));
        let home = home
            .map_or(if uid == 0 { "/root" } else { "/" }, String::as_str)
            .to_owned();
        Ok(User { uid, gid, home })
    }
}

/// Everything that makes a container.
pub(super) struct Bundle<'a> {
    /// What is to run.
    pub(super) assignment: &'a Assignment,
    /// How its image wants to be run.
    pub(super) wishes: &'a Wishes,
    /// As whom.
    pub(super) user: User,
    /// The directory with the worker's volumes, one directory each.
    pub(super) volumes: &'a Path,
    /// The directory of the task's secrets, in memory.
    pub(super) secrets: &'a Path,
    /// Files of the host that it sees at the same place.
    pub(super) shared: Vec<PathBuf>,
    /// The runtime that shall run it.
    pub(super) runtime: &'a ContainerRuntime,
    /// Its name at the runtime.
    pub(super) id: &'a str,
    /// Its mark.
    pub(super) mark: &'a str,
}

impl Bundle<'_> {
    fn spec(&self) -> &Spec {
        &self.assignment.spec
    }

    /// The configuration.
    pub(super) fn config(&self) -> Result<Value, Refusal> {
        let stop = self.wishes.stop_signal.as_deref().unwrap_or("TERM");
        Ok(json!({
            "ociVersion": "1.0.2",
            "process": self.process(&self.command()?, self.mark)?,
            "root": { "path": super::store::ROOTFS, "readonly": false },
            "hostname": format!("{}-{}", self.spec().name, self.assignment.slot),
            "mounts": self.mounts()?,
            "annotations": { STOP_SIGNAL: stop },
            "linux": self.linux(),
        }))
    }

    /// A process in the container: its first one, or a health check.
    pub(super) fn process(&self, args: &[String], mark: &str) -> Result<Value, Refusal> {
        let User { uid, gid, .. } = self.user;
        if !self.runtime.is_root() && (uid, gid) != (0, 0) {
            return Err(never(format!(
                "the image runs as user {uid}:{gid}, which a worker that is not root cannot give it: run the worker as root, or build the image to run as root"
            )));
        }
        let wish = self
            .wishes
            .working_dir
            .as_deref()
            .filter(|dir| !dir.is_empty());
        let cwd = self.spec().working_dir.as_deref().or(wish).unwrap_or("/");
        if !cwd.starts_with('/') {
            return Err(never(format!(
                "the working directory {cwd:?} of a container must begin with /"
            )));
        }
        Ok(json!({
            "terminal": false,
            "user": { "uid": uid, "gid": gid },
            "args": args,
            "env": self.env(mark),
            "cwd": cwd,
            "capabilities": { "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES },
            "noNewPrivileges": true,
        }))
    }

    /// The service's command, or the image's own.
    fn command(&self) -> Result<Vec<String>, Refusal> {
        let wishes = [&self.wishes.entrypoint, &self.wishes.cmd];
        let own = wishes.into_iter().flatten().flatten().cloned().collect();
        let given = Some(self.spec().command.clone()).filter(|words| !words.is_empty());
        let words: Vec<String> = given.unwrap_or(own);
        match words.is_empty() {
            true => Err(never(
                "the image has no command of its own: give the service one",
            )),
            false => Ok(words),
        }
    }

    /// `NAME=value`: the image's, ours, the service's, and the mark.
    fn env(&self, mark: &str) -> Vec<String> {
        let mut env = BTreeMap::from([
            ("PATH".to_owned(), PATH.to_owned()),
            ("HOME".to_owned(), self.user.home.clone()),
        ]);
        let own = self.wishes.env.iter().flatten();
        let pairs = own.filter_map(|pair| pair.split_once('='));
        env.extend(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
        env.extend([
            ("SEAWORTHY_SERVICE".to_owned(), self.spec().name.clone()),
            (
                "SEAWORTHY_SLOT".to_owned(),
                self.assignment.slot.to_string(),
            ),
            (
                "SEAWORTHY_TASK".to_owned(),
                self.assignment.task.to_string(),
            ),
        ]);
        for mount in &self.spec().volumes {
            env.insert(volume_variable(&mount.volume), mount.target.clone());
        }
        if !self.spec().secrets.is_empty() {
            env.insert(VARIABLE.to_owned(), IN_CONTAINER.to_owned());
        }
        env.extend(self.spec().env.clone());
        env.insert(MARK.to_owned(), mark.to_owned());
        env.into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    }

    fn mounts(&self) -> Result<Vec<Value>, Refusal> {
        let mount = |kind: &str, target: &str, options: &[&str]| json!({ "destination": target, "type": kind, "source": kind, "options": options });
        let bind = |from: &Path, target: &str, options: &[&str]| json!({ "destination": target, "type": "bind", "source": from, "options": options });
        let mut pts = vec![
            "nosuid",
            "noexec",
            "newinstance",
            "ptmxmode=0666",
            "mode=0620",
        ];
        // A network that belongs to another user name space cannot be shown by a new sysfs.
        let sys = match self.runtime.is_root() {
            true => {
                pts.push("gid=5");
                mount("sysfs", "/sys", &["nosuid", "noexec", "nodev", "ro"])
            }
            false => bind(
                Path::new("/sys"),
                "/sys",
                &["rbind", "nosuid", "noexec", "nodev", "ro"],
            ),
        };
        let mut mounts = vec![
            mount("proc", "/proc", &[]),
            mount(
                "tmpfs",
                "/dev",
                &["nosuid", "strictatime", "mode=755", "size=65536k"],
            ),
            mount("devpts", "/dev/pts", &pts),
            mount(
                "tmpfs",
                "/dev/shm",
                &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
            ),
            sys,
        ];
        for file in &self.shared {
            mounts.push(bind(file, &file.display().to_string(), &["rbind", "ro"]));
        }
        if !self.spec().secrets.is_empty() {
            let options = ["rbind", "ro", "nosuid", "nodev", "noexec"];
            mounts.push(bind(self.secrets, IN_CONTAINER, &options));
        }
        for Mount { volume, target, .. } in &self.spec().volumes {
            if !target.starts_with('/')
                || target == "/"
                || target.split('/').any(|part| part == "..")
            {
                return Err(never(format!(
                    "volume target {target:?} cannot be mounted: name an absolute path below / in the container"
                )));
            }
            mounts.push(bind(&self.volumes.join(volume), target, &["rbind", "rw"]));
        }
        Ok(mounts)
    }

    fn linux(&self) -> Value {
        let namespace = |kind: &str| json!({ "type": kind });
        let mut namespaces: Vec<Value> = ["pid", "ipc", "uts", "mount"].map(namespace).to_vec();
        let mut linux = json!({ "maskedPaths": MASKED, "readonlyPaths": READ_ONLY });
        if self.runtime.is_root() {
            linux["resources"] = self.resources();
            linux["cgroupsPath"] = json!(format!("/seaworthy/{}", self.id));
        } else {
            namespaces.push(namespace("user"));
            let map = |host: u32| json!([{ "containerID": 0, "hostID": host, "size": 1 }]);
            linux["uidMappings"] = map(self.runtime.uid);
            linux["gidMappings"] = map(self.runtime.gid);
        }
        linux["namespaces"] = json!(namespaces);
        linux
    }

    /// Limits, and no devices but those that every container has.
    fn resources(&self) -> Value {
        let limits = &self.spec().resources.limits;
        let mut resources = json!({ "devices": [{ "allow": false, "access": "rwm" }] });
        if limits.memory_bytes > 0 {
            resources["memory"] = json!({ "limit": limits.memory_bytes });
        }
        if limits.cpu_milli > 0 {
            let quota = (limits.cpu_milli.saturating_mul(PERIOD_US) / 1_000).max(QUOTA_US_MIN);
            resources["cpu"] = json!({ "quota": quota, "period": PERIOD_US });
        }
        resources
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Desired;
    use crate::types::{ServiceId, TaskId};

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:101:102:w:/srv:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nstaff:x:50:\n";

    fn config(spec: Spec, wishes: &Wishes, uid: u32) -> Result<Value, Refusal> {
        let assignment = Assignment {
            task: TaskId(7),
            service: ServiceId(1),
            slot: 2,
            version: 1,
            desired: Desired::Run,
            spec: spec.into(),
            secrets: BTreeMap::new(),
        };
        let runtime = ContainerRuntime {
            program: "/usr/bin/crun".into(),
            uid,
            gid: uid,
        };
        let user = User::find(wishes.user.as_deref().unwrap_or(""), PASSWD, GROUP)?;
        let bundle = Bundle {
            assignment: &assignment,
            wishes,
            user,
            volumes: Path::new("/w/volumes"),
            secrets: Path::new("/dev/shm/w/1"),
            shared: vec!["/etc/hosts".into()],
            runtime: &runtime,
            id: "sw-7",
            mark: "m",
        };
        bundle.config()
    }

    fn words(text: &[&str]) -> Option<Vec<String>> {
        Some(text.iter().map(|&word| word.to_owned()).collect())
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        let find = |wish: &str| {
            User::find(wish, PASSWD, GROUP).map(|user| (user.uid, user.gid, user.home))
        };
        assert_eq!(find(""), Ok((0, 0, "/root".to_owned())));
        assert_eq!(find("web"), Ok((101, 102, "/srv".to_owned())));
        assert_eq!(find("101:staff"), Ok((101, 50, "/srv".to_owned())));
        assert_eq!(find("9000:9"), Ok((9000, 9, "/".to_owned())));
        assert!(find("nobody").unwrap_err().message.contains("/etc/passwd"));
    }

    #[test]
    fn the_service_has_the_last_word() {
        let wishes = Wishes {
            env: words(&["A=image", "B=image", "SEAWORTHY_MARK=forged"]),
            entrypoint: words(&["/entry"]),
            cmd: words(&["serve"]),
            working_dir: Some("/srv".to_owned()),
            stop_signal: Some("SIGQUIT".to_owned()),
            ..Wishes::default()
        };
        let mut spec = Spec::new("web", &[]);
        let own = config(spec.clone(), &wishes, 0).unwrap();
        assert_eq!(own["process"]["args"], json!(["/entry", "serve"]));
        assert_eq!(own["process"]["cwd"], "/srv");
        assert_eq!(own["annotations"][STOP_SIGNAL], "SIGQUIT");
        spec.command = vec!["mine".to_owned()];
        spec.env.insert("A".to_owned(), "service".to_owned());
        spec.working_dir = Some("/else".to_owned());
        spec.resources.limits.memory_bytes = 1 << 20;
        spec.resources.limits.cpu_milli = 500;
        let given = config(spec, &wishes, 0).unwrap();
        assert_eq!(given["process"]["args"], json!(["mine"]));
        assert_eq!(given["process"]["cwd"], "/else");
        let env: Vec<&str> = given["process"]["env"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .collect();
        for pair in [
            "A=service",
            "B=image",
            "SEAWORTHY_MARK=m",
            "SEAWORTHY_SLOT=2",
            "HOME=/root",
        ] {
            assert!(env.contains(&pair), "{pair} in {env:?}");
        }
        let resources = &given["linux"]["resources"];
        assert_eq!(
            (&resources["memory"]["limit"], &resources["cpu"]["quota"]),
            (&json!(1 << 20), &json!(50_000))
        );
    }

    #[test]
    fn volumes_are_mounted_where_the_service_wants_them() {
        let mut spec = Spec::new("web", &["x"]);
        let mount = |target: &str| Mount {
            volume: "d".to_owned(),
            target: target.to_owned(),
            shared: false,
        };
        spec.volumes = vec![mount("/data")];
        let made = config(spec.clone(), &Wishes::default(), 0).unwrap();
        let mounts = made["mounts"].as_array().unwrap();
        let data = mounts
            .iter()
            .find(|mount| mount["destination"] == "/data")
            .unwrap();
        assert_eq!(data["source"], "/w/volumes/d");
        assert!(
            made["process"]["env"]
                .as_array()
                .unwrap()
                .contains(&json!("SEAWORTHY_VOLUME_D=/data"))
        );
        for bad in ["", "data", "/", "/a/../.."] {
            spec.volumes = vec![mount(bad)];
            assert!(
                config(spec.clone(), &Wishes::default(), 0).is_err(),
                "{bad}"
            );
        }
    }

    #[test]
    fn without_root_there_is_one_user() {
        let mut wishes = Wishes::default();
        let made = config(Spec::new("web", &["x"]), &wishes, 1000).unwrap();
        assert_eq!(made["linux"]["uidMappings"][0]["hostID"], 1000);
        assert!(
            made["linux"].get("resources").is_none(),
            "limits are set from outside"
        );
        wishes.user = Some("web".to_owned());
        let refusal = config(Spec::new("web", &["x"]), &wishes, 1000).unwrap_err();
        assert!(refusal.message.contains("101:102"), "{refusal:?}");
        assert!(
            config(Spec::new("web", &[]), &Wishes::default(), 0).is_err(),
            "no command"
        );
    }
}
