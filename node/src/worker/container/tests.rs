//! Containers: through a runtime of a few lines of shell that has no walls, and through a real one where one is installed.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "tests run on a runtime of their own, against real files and processes"
)]

use super::*;
use crate::rt::images::{Blob, Error, ImagesDriver};
use crate::rt::real;
use crate::service::Spec;
use crate::service::spec::{Health, Mount};
use crate::worker::tests::assignment;
use bytes::Bytes;
use futures::StreamExt;
use image::Digest;
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;
use tokio::time::timeout;

/// Longest time that anything here may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A runtime without walls: it runs the words of `config.json` in the root file system, in a session of their own.
const RUNTIME: &str = r#"#!/bin/sh
log=/dev/null
while [ $# -gt 0 ]; do
  case "$1" in --root) root=$2; shift 2;; --log) log=$2; shift 2;; --*) shift;; *) break;; esac
done
words() { sed 's/.*"args":\[\([^]]*\)\].*/\1/' "$1" | tr ',' '\n' | tr -d '"'; }
verb=$1; shift
while [ $# -gt 1 ]; do
  case "$1" in --bundle) bundle=$2; shift 2;; --pid-file) pidfile=$2; shift 2;; --process) process=$2; shift 2;;
  --force) shift;; *) break;; esac
done
note="$root/$1"; IFS='
'
case $verb in
run)
  mkdir "$note" || exit 1
  set -- $(words "$bundle/config.json"); cd "$bundle/rootfs" || exit 1
  command -v "$1" >/dev/null || { echo "executable file $1 not found" >"$log"; rm -r "$note"; exit 127; }
  setsid "$@" & pid=$!
  echo $pid >"$note/pid"; echo $pid >"$pidfile"; wait $pid; code=$?
  rm -r "$note"; exit $code;;
kill) read -r pid <"$note/pid" && kill -s "$2" -- "-$pid";;
exec)
  SEAWORTHY_MARK=$(sed 's/.*"SEAWORTHY_MARK=\([^"]*\)".*/\1/' "$process"); export SEAWORTHY_MARK
  set -- $(words "$process"); exec "$@";;
delete) read -r pid <"$note/pid" && kill -s KILL -- "-$pid"; rm -rf "$note";;
esac
"#;

/// Registries in memory.
#[derive(Clone, Default)]
struct Shelf(Arc<Mutex<Shelved>>);

#[derive(Default)]
struct Shelved {
    /// Manifests by reference.
    manifests: BTreeMap<String, Bytes>,
    /// Blobs by digest.
    blobs: BTreeMap<String, Bytes>,
    /// Whether it answers.
    is_away: bool,
    /// How often it was asked for a blob.
    asked: usize,
}

impl Shelf {
    fn blob_of(&self, kind: &str, bytes: &[u8]) -> serde_json::Value {
        let digest = Digest::of(bytes).to_string();
        let mut shelved = self.0.lock().unwrap();
        shelved
            .blobs
            .insert(digest.clone(), Bytes::copy_from_slice(bytes));
        json!({ "mediaType": kind, "digest": digest, "size": bytes.len() })
    }

    /// An image of one file under `reference`.
    fn put(&self, reference: &str, config: &serde_json::Value, file: (&str, &str)) -> Vec<u8> {
        let layer = self.blob_of("application/vnd.oci.image.layer.v1.tar", &archive(&[file]));
        let config = json!({ "config": config }).to_string();
        let config = self.blob_of(
            "application/vnd.oci.image.config.v1+json",
            config.as_bytes(),
        );
        let manifest = json!({ "config": config, "layers": [layer] }).to_string();
        let mut shelved = self.0.lock().unwrap();
        shelved
            .manifests
            .insert(reference.to_owned(), Bytes::from(manifest.clone()));
        manifest.into_bytes()
    }
}

impl ImagesDriver for Shelf {
    fn manifest(&self, image: &str) -> BoxFuture<'static, Result<Bytes, Error>> {
        let shelved = self.0.lock().unwrap();
        let found = shelved.manifests.get(image).cloned();
        let answer = match shelved.is_away {
            true => Err(Error::Unreachable("away".to_owned())),
            false => found.ok_or_else(|| Error::Refused(format!("there is no {image}"))),
        };
        Box::pin(async { answer })
    }

    fn blob(&self, _: &str, digest: &str) -> BoxFuture<'static, Result<Blob, Error>> {
        let mut shelved = self.0.lock().unwrap();
        shelved.asked += 1;
        let found = shelved.blobs.get(digest).cloned();
        Box::pin(async {
            let bytes = found.ok_or_else(|| Error::Refused("no such blob".to_owned()))?;
            let piece = |piece: &[u8]| Ok(Bytes::copy_from_slice(piece));
            let pieces: Vec<_> = bytes.chunks(100).map(piece).collect();
            Ok(futures::stream::iter(pieces).boxed())
        })
    }
}

/// An archive of files.
fn archive(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        builder
            .append_data(&mut header, name, text.as_bytes())
            .unwrap();
    }
    builder.into_inner().unwrap()
}

/// A worker that has containers.
struct Yard {
    root: tempfile::TempDir,
    executor: ContainerExecutor,
    shelf: Shelf,
}

impl Yard {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let program = root.path().join("walls");
        fs::write(&program, RUNTIME).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let rootfs = root.path().join("image");
        fs::create_dir(&rootfs).unwrap();
        fs::write(rootfs.join("hello"), "ahoy\n").unwrap();
        Yard::with(root, program)
    }

    fn with(root: tempfile::TempDir, program: PathBuf) -> Self {
        let shelf = Shelf::default();
        let executor = executor(&root, program, &shelf);
        let yard = Yard {
            root,
            executor,
            shelf,
        };
        yard.lease(PATIENCE);
        yard
    }

    /// The lease lasts for so long from now on.
    fn lease(&self, span: Duration) {
        self.executor.lease(self.executor.clock.now().plus(span));
    }

    /// The same directory, as an executor that has started nothing.
    fn again(&self) -> ContainerExecutor {
        executor(
            &self.root,
            self.executor.runtime.program.clone(),
            &self.shelf,
        )
    }

    /// Task `id`, which runs the file `script` of its image.
    fn script(&self, id: u64, script: &str) -> Arc<Assignment> {
        fs::write(self.root.path().join("image/script"), script).unwrap();
        Arc::new(assignment(id, self.spec(&["sh", "./script"])))
    }

    fn spec(&self, words: &[&str]) -> Spec {
        let mut spec = Spec::new("web", words);
        spec.image = Some(format!("rootfs:{}", self.path("image").display()));
        spec
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    async fn start(&self, assignment: Arc<Assignment>) -> Handle {
        let prepared = self.executor.prepare(Arc::clone(&assignment));
        prepared.await.unwrap();
        self.executor
            .start(assignment, 1, Vec::new())
            .await
            .unwrap()
    }

    async fn wait(&self, id: u64, handle: &Handle) -> Exit {
        let wait = self.executor.wait(TaskId(id), 1, handle.clone());
        timeout(PATIENCE, wait).await.expect("it ends")
    }

    async fn prepare(&self, image: &str) -> Result<(), Refusal> {
        let mut spec = Spec::new("web", &[]);
        spec.image = Some(image.to_owned());
        self.executor.forget(TaskId(9)).await;
        self.executor.prepare(Arc::new(assignment(9, spec))).await
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path("tasks").join(path)).unwrap_or_default()
    }

    /// Waits until a task has written `text`.
    async fn says(&self, id: u64, text: &str) {
        for _ in 0..2_000 {
            if self.read(&format!("{id}/stdout.log")).contains(text) {
                return;
            }
            self.executor.clock.sleep(Duration::from_millis(10)).await;
        }
        let errors = self.read(&format!("{id}/stderr.log"));
        panic!("task {id} does not say {text}: {errors}");
    }

    /// Ends the worker as far as the operating system can tell, and waits until nothing of its containers is left.
    async fn dies_and_takes_all_with_it(self) {
        let watcher = self.again();
        assert_eq!(watcher.found().await.unwrap().len(), 1);
        // The worker's end closes its pipes; here its executor goes, and with it the only other ends.
        let Yard { root, executor, .. } = self;
        drop(executor);
        let gone = async {
            while !watcher.found().await.unwrap().is_empty() {
                watcher.clock.sleep(Duration::from_millis(10)).await;
            }
        };
        let gone = timeout(PATIENCE, gone).await;
        gone.expect("it dies, though it is in a session of its own");
        watcher.forget(TaskId(1)).await;
        assert_eq!(fs::read_dir(watcher.notes()).unwrap().count(), 0);
        drop(root);
    }
}

fn executor(root: &tempfile::TempDir, program: PathBuf, shelf: &Shelf) -> ContainerExecutor {
    let env = real::env("test").unwrap();
    let runtime = real::container_runtime(Some(&program), "");
    let containers = Containers {
        runtime: runtime.unwrap().unwrap(),
        images: Images::new(shelf.clone()),
        platform: real::host().platform,
    };
    let dir = root.path().to_owned();
    ContainerExecutor::new(&env, dir, &Knobs::default(), containers)
}

/// A volume `data` at `/data` that nobody else may have.
fn data() -> Mount {
    Mount {
        volume: "data".to_owned(),
        target: "/data".to_owned(),
        shared: false,
    }
}

/// The task, with a script as its health check.
fn checked(task: &Assignment, script: &str, timeout_ms: u64) -> Arc<Assignment> {
    let mut task = task.clone();
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    Arc::make_mut(&mut task.spec).health = Some(Health {
        check: HealthCheck::Exec { command },
        interval_ms: 1,
        timeout_ms,
        retries: 1,
        start_period_ms: 0,
    });
    Arc::new(task)
}

#[tokio::test]
async fn a_container_begins_runs_and_leaves_nothing() {
    let yard = Yard::new();
    let script = "cat hello; echo mine >hello; exit 7";
    let handle = yard.start(yard.script(1, script)).await;
    assert_eq!(yard.wait(1, &handle).await.code, Some(7));
    assert_eq!(yard.read("1/stdout.log"), "ahoy\n");
    assert_eq!(yard.read("1/bundle/rootfs/hello"), "mine\n", "its own copy");
    let image = fs::read_to_string(yard.path("image/hello"));
    assert_eq!(image.unwrap(), "ahoy\n");
    assert_eq!(fs::read_dir(yard.executor.notes()).unwrap().count(), 0);
    yard.executor.forget(TaskId(1)).await;
    assert!(!yard.path("tasks/1").exists());
}

#[tokio::test]
async fn a_task_without_an_image_is_a_process() {
    let yard = Yard::new();
    let plain = assignment(1, Spec::new("web", &["sleep", "1000"]));
    let handle = yard.start(Arc::new(plain)).await;
    assert_eq!(parse_handle(&handle), None);
    assert_eq!(yard.executor.found().await.unwrap().len(), 1);
    yard.executor.signal(&handle, Signal::Term);
    assert_eq!(yard.wait(1, &handle).await.signal, Some(15));
}

#[tokio::test]
async fn signals_reach_the_inside() {
    let yard = Yard::new();
    let script = "trap 'echo told; exit 3' TERM; echo up; while :; do sleep 0.01; done";
    let handle = yard.start(yard.script(1, script)).await;
    yard.says(1, "up").await;
    yard.executor.signal(&handle, Signal::Term);
    assert_eq!(yard.wait(1, &handle).await.code, Some(3));
    yard.says(1, "told").await;
    let script = "trap '' TERM; echo up; while :; do sleep 1; done";
    let deaf = yard.start(yard.script(2, script)).await;
    yard.says(2, "up").await;
    yard.executor.signal(&deaf, Signal::Term);
    let moment = yard.executor.clock.sleep(Duration::from_millis(100));
    moment.await;
    assert_eq!(yard.executor.found().await.unwrap().len(), 1);
    yard.executor.signal(&deaf, Signal::Kill);
    let code = yard.wait(2, &deaf).await.code;
    assert_eq!(code, Some(137), "as runtimes tell it");
    assert_eq!(yard.executor.found().await.unwrap(), []);
}

#[tokio::test]
async fn what_runs_is_found_again_and_orphans_end() {
    let yard = Yard::new();
    let kept = yard.start(yard.script(11, "echo up; sleep 1000")).await;
    let orphan = yard.start(yard.script(1, "sleep 1000")).await;
    let again = yard.again();
    let found = again.found().await.unwrap();
    let handles: Vec<_> = found.iter().map(|one| (one.task.0, &one.handle)).collect();
    assert_eq!(handles, [(1, &orphan), (11, &kept)]);
    let ended = timeout(PATIENCE, again.end_orphan(TaskId(1), 1)).await;
    ended.expect("an orphan can be ended");
    let left = again.found().await.unwrap();
    assert_eq!(left.len(), 1, "task 11 is not task 1");
    yard.wait(1, &orphan).await;
    let watch = again.wait(TaskId(11), 1, kept.clone());
    again.signal(&kept, Signal::Kill);
    timeout(PATIENCE, watch).await.expect("its end is noticed");
    assert_eq!(fs::read_dir(again.notes()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_container_does_not_outlive_its_runtime() {
    let yard = Yard::new();
    let handle = yard.start(yard.script(1, "echo up; sleep 1000")).await;
    yard.says(1, "up").await;
    let (_, process) = parse_handle(&handle).unwrap();
    let processes = &yard.executor.processes;
    processes.signal(process, processes::Signal::Kill).unwrap();
    assert_eq!(yard.wait(1, &handle).await.signal, Some(9));
    assert_eq!(yard.executor.found().await.unwrap(), []);
}

#[tokio::test]
async fn a_single_writer_dies_with_its_worker() {
    let yard = Yard::new();
    let mut writer = Arc::unwrap_or_clone(yard.script(1, "echo up; sleep 1000"));
    Arc::make_mut(&mut writer.spec).volumes.push(data());
    yard.start(Arc::new(writer)).await;
    yard.says(1, "up").await;
    yard.dies_and_takes_all_with_it().await;
}

#[tokio::test]
async fn a_single_writer_dies_when_its_lease_ends() {
    let yard = Yard::new();
    let mut writer = Arc::unwrap_or_clone(yard.script(1, "trap '' TERM; echo up; sleep 1000"));
    Arc::make_mut(&mut writer.spec).volumes.push(data());
    yard.lease(Duration::from_secs(2));
    let handle = yard.start(Arc::new(writer)).await;
    yard.says(1, "up").await;
    yard.wait(1, &handle).await;
    assert_eq!(yard.executor.found().await.unwrap(), []);
}

#[tokio::test]
async fn health_is_checked_inside() {
    let yard = Yard::new();
    let task = yard.script(1, "echo up; sleep 1000");
    let check = |script: &str, ms: u64| yard.executor.check(checked(&task, script, ms), 1);
    let handle = yard.start(Arc::clone(&task)).await;
    assert!(check("exit 0", 5_000).await);
    assert!(!check("exit 1", 5_000).await);
    let slow = timeout(PATIENCE, check("sleep 1000", 200)).await;
    assert!(!slow.unwrap());
    let (task, attempt) = (TaskId(1), 1);
    let mark = yard.executor.check_mark(Key { task, attempt });
    let left = yard.executor.processes.marked(&mark).await;
    assert_eq!(left.unwrap(), [], "a check does not pile up");
    yard.executor.signal(&handle, Signal::Kill);
    yard.wait(1, &handle).await;
}

#[test]
fn what_a_runtime_says_is_explained_where_it_does_not_do_so() {
    let crun = "cgroups in hybrid mode not supported, drop all controllers from cgroupv2";
    assert!(super::advice(crun).contains("name runc"));
    assert_eq!(super::advice("exec format error"), "");
}

#[tokio::test]
async fn what_cannot_begin_says_why() {
    let yard = Yard::new();
    let refused = |task: Arc<Assignment>| {
        let executor = yard.executor.clone();
        async move { executor.start(task, 1, Vec::new()).await.unwrap_err() }
    };
    let missing = assignment(1, yard.spec(&["no-such-program"]));
    let refusal = refused(Arc::new(missing)).await;
    let says = |word: &str| refusal.message.contains(word);
    assert!(
        refusal.is_permanent && says("no-such-program"),
        "{refusal:?}"
    );
    assert_eq!(yard.executor.found().await.unwrap(), []);
    let refusal = refused(Arc::new(assignment(2, yard.spec(&[])))).await;
    let says = |word: &str| refusal.message.contains(word);
    assert!(refusal.is_permanent && says("no command"), "{refusal:?}");
    fs::remove_file(&yard.executor.runtime.program).unwrap();
    let refusal = refused(yard.script(3, "exit")).await;
    let says = |word: &str| refusal.message.contains(word);
    assert!(
        !refusal.is_permanent && says("still installed"),
        "{refusal:?}"
    );
    for (image, word) in [
        ("rootfs:/no/such.tar", "/no/such.tar"),
        ("oci:/no/such", "/no/such/index.json"),
        ("rootfs:relative", "absolute"),
        ("no/such:1", "there is no no/such:1"),
        ("bad image", "is not an image"),
    ] {
        let refusal = yard.prepare(image).await.unwrap_err();
        assert!(
            refusal.is_permanent && refusal.message.contains(word),
            "{refusal:?}"
        );
    }
}

#[tokio::test]
async fn an_image_is_pulled_once_checked_and_kept() {
    let yard = Yard::new();
    let shelf = || yard.shelf.0.lock().unwrap();
    let wishes = json!({ "Cmd": ["serve"], "Env": null });
    let first = yard.shelf.put("h/web:1", &wishes, ("bin/serve", "one"));
    yard.prepare("h/web:1").await.unwrap();
    assert_eq!(yard.read("9/bundle/rootfs/bin/serve"), "one");
    let asked = shelf().asked;
    yard.prepare("h/web:1").await.unwrap();
    assert_eq!(shelf().asked, asked, "nothing is fetched twice");
    // The tag moves; then the registry goes, and what the tag led to last counts.
    yard.shelf.put("h/web:1", &wishes, ("bin/serve", "two"));
    yard.prepare("h/web:1").await.unwrap();
    shelf().is_away = true;
    yard.prepare("h/web:1").await.unwrap();
    assert_eq!(yard.read("9/bundle/rootfs/bin/serve"), "two");
    let refusal = yard.prepare("h/other:1").await.unwrap_err();
    assert!(!refusal.is_permanent, "{refusal:?}");
    shelf().is_away = false;
    // By its digest it is the first one for ever, whatever a registry says.
    let pinned = format!("h/web@{}", Digest::of(&first));
    shelf()
        .manifests
        .insert(pinned.clone(), Bytes::from(first.clone()));
    yard.prepare(&pinned).await.unwrap();
    assert_eq!(yard.read("9/bundle/rootfs/bin/serve"), "one");
    let forged = format!("h/web@{}", Digest::of(b"else"));
    shelf()
        .manifests
        .insert(forged.clone(), Bytes::from(first.clone()));
    let refusal = yard.prepare(&forged).await.unwrap_err();
    assert!(refusal.message.contains("forged"), "{refusal:?}");
}

#[tokio::test]
async fn a_damaged_blob_is_not_used() {
    let yard = Yard::new();
    yard.shelf.put("h/web:1", &json!({}), ("a", "contents"));
    let whole = yard.shelf.0.lock().unwrap().blobs.clone();
    type Spoil = fn(&Bytes) -> Vec<u8>;
    let spoil = |spoil: Spoil| {
        let blobs = whole
            .iter()
            .map(|(digest, bytes)| (digest.clone(), Bytes::from(spoil(bytes))));
        yard.shelf.0.lock().unwrap().blobs = blobs.collect();
    };
    let kinds: [(&str, Spoil); 3] = [
        ("forged", |bytes| {
            bytes.iter().map(|byte| byte ^ 1).collect()
        }),
        ("broke off", |bytes| bytes[1..].to_vec()),
        ("longer", |bytes| [&bytes[..], b"x"].concat()),
    ];
    for (word, kind) in kinds {
        spoil(kind);
        let refusal = yard.prepare("h/web:1").await.unwrap_err();
        assert!(refusal.message.contains(word), "{refusal:?}");
        assert!(!yard.path("tasks/9/bundle").exists());
    }
    spoil(|bytes| bytes.to_vec());
    yard.prepare("h/web:1").await.unwrap();
    assert_eq!(yard.read("9/bundle/rootfs/a"), "contents");
}

#[tokio::test]
async fn a_layout_and_an_archive_are_taken_from_the_machine() {
    let yard = Yard::new();
    let layout = yard.path("layout");
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    let manifest = yard.shelf.put("x", &json!({}), ("a", "from a layout"));
    yard.shelf.blob_of("m", &manifest);
    for (digest, bytes) in &yard.shelf.0.lock().unwrap().blobs {
        let file = layout.join("blobs").join(digest.replace(':', "/"));
        fs::write(file, bytes).unwrap();
    }
    let index = json!({ "manifests": [{
        "mediaType": "m", "digest": Digest::of(&manifest).to_string(), "size": manifest.len(),
        "annotations": { "org.opencontainers.image.ref.name": "1.0" },
    }] });
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
    let named = |name: &str| format!("oci:{}:{name}", layout.display());
    yard.prepare(&named("1.0")).await.unwrap();
    assert_eq!(yard.read("9/bundle/rootfs/a"), "from a layout");
    let refusal = yard.prepare(&named("2.0")).await.unwrap_err();
    assert!(refusal.message.contains("1.0"), "{refusal:?}");
    let file = yard.path("r.tar.gz");
    let fast = flate2::Compression::fast();
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), fast);
    let packed = archive(&[("a", "from an archive")]);
    std::io::Write::write_all(&mut writer, &packed).unwrap();
    fs::write(&file, writer.finish().unwrap()).unwrap();
    let image = format!("rootfs:{}", file.display());
    yard.prepare(&image).await.unwrap();
    assert_eq!(yard.read("9/bundle/rootfs/a"), "from an archive");
    fs::write(&file, "nonsense that is no archive").unwrap();
    let refusal = yard.prepare(&image).await.unwrap_err();
    assert!(refusal.message.contains("unpacked"), "{refusal:?}");
}

#[tokio::test]
async fn what_nobody_uses_goes() {
    let yard = Yard::new();
    yard.shelf.put("h/web:1", &json!({}), ("a", "1"));
    yard.prepare("h/web:1").await.unwrap();
    let images = yard.path("images");
    let count = |part: &str| fs::read_dir(images.join(part)).unwrap().count();
    let counts = || (count("refs"), count("blobs"), count("unpacked"));
    fs::write(images.join("blobs/tmp-x"), "half").unwrap();
    yard.executor.tidy().await;
    assert_eq!(counts(), (1, 3, 1));
    let (now, day_ms) = (yard.executor.clock.wall_ms(), 24 * 3_600 * 1_000);
    store::tidy(&images, now + day_ms + 1_000).unwrap();
    assert_eq!(counts(), (1, 2, 1), "what is half-made goes first");
    store::tidy(&images, now + 8 * day_ms).unwrap();
    assert_eq!(counts(), (0, 0, 0));
    assert_eq!(yard.read("9/bundle/rootfs/a"), "1", "a task has its own");
}

/// Where a real runtime is installed: the same promises behind real walls. A host that lets nobody build walls is told and left alone.
#[tokio::test]
async fn a_real_runtime_keeps_the_promises() {
    let path = std::env::var("PATH").unwrap_or_default();
    let Some(runtime) = real::container_runtime(None, &path).unwrap() else {
        return;
    };
    let root = tempfile::tempdir().unwrap();
    let image = root.path().join("image");
    for program in ["sh", "cat", "sleep", "hostname"] {
        lift(program, &image, &path);
    }
    let yard = Yard::with(root, runtime.program);
    let script = "trap 'echo told; exit 3' TERM; echo $$ $HOME; cat /data/x; echo up; while :; do sleep 0.01; done";
    let mut one = assignment(1, yard.spec(&["sh", "-c", script]));
    Arc::make_mut(&mut one.spec).volumes.push(data());
    Arc::make_mut(&mut one.spec).resources.limits.memory_bytes = 64 << 20;
    fs::create_dir_all(yard.path("volumes/data")).unwrap();
    fs::write(yard.path("volumes/data/x"), "of the volume\n").unwrap();
    let one = Arc::new(one);
    let prepared = yard.executor.prepare(Arc::clone(&one)).await;
    prepared.unwrap();
    let handle = match yard.executor.start(Arc::clone(&one), 1, Vec::new()).await {
        Ok(handle) => handle,
        Err(refusal) => {
            return eprintln!("no containers here: {}", refusal.message);
        }
    };
    yard.says(1, "up").await;
    let said = yard.read("1/stdout.log");
    assert_eq!(said, "1 /root\nof the volume\nup\n", "a world of its own");
    assert_eq!(yard.again().found().await.unwrap()[0].handle, handle);
    yard.executor.signal(&handle, Signal::Term);
    assert_eq!(yard.wait(1, &handle).await.code, Some(3));
    assert_eq!(fs::read_dir(yard.executor.notes()).unwrap().count(), 0);
    real_checks_and_kills(&yard).await;
    yard.executor.start(one, 2, Vec::new()).await.unwrap();
    yard.dies_and_takes_all_with_it().await;
}

/// Health checks, kills, programs that are not there, and orphans of a real runtime.
async fn real_checks_and_kills(yard: &Yard) {
    let two = assignment(2, yard.spec(&["sh", "-c", "echo up; sleep 1000"]));
    let check = |script: &str| yard.executor.check(checked(&two, script, 1_000), 1);
    let handle = yard.start(Arc::new(two.clone())).await;
    yard.says(2, "up").await;
    assert!(check("test $(hostname) = web-1").await);
    assert!(!check("exit 1").await);
    assert!(!timeout(PATIENCE, check("sleep 1000")).await.unwrap());
    yard.executor.signal(&handle, Signal::Kill);
    assert_eq!(yard.wait(2, &handle).await.code, Some(137));
    let missing = Arc::new(assignment(3, yard.spec(&["no-such-program"])));
    let refusal = yard
        .executor
        .start(missing, 1, Vec::new())
        .await
        .unwrap_err();
    let says = refusal.message.contains("no-such-program");
    assert!(refusal.is_permanent && says, "{refusal:?}");
    let orphan = yard
        .start(Arc::new(assignment(4, yard.spec(&["sleep", "1000"]))))
        .await;
    let (_, process) = parse_handle(&orphan).unwrap();
    let processes = &yard.executor.processes;
    processes.signal(process, processes::Signal::Kill).unwrap();
    let ended = timeout(PATIENCE, yard.again().end_orphan(TaskId(4), 1)).await;
    ended.expect("an orphan can be ended");
    assert_eq!(yard.executor.found().await.unwrap(), []);
}

/// Copies a program of this machine with its libraries into a root file system.
fn lift(program: &str, rootfs: &Path, path: &str) {
    let mut files = path.split(':').map(|dir| Path::new(dir).join(program));
    let file = files.find(|file| file.is_file()).unwrap();
    let told = std::process::Command::new("ldd")
        .arg(&file)
        .output()
        .unwrap();
    let text = String::from_utf8(told.stdout).unwrap();
    let libraries = text
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(|library| (PathBuf::from(library), library.to_owned()));
    for (from, to) in libraries.chain([(file, format!("/bin/{program}"))]) {
        let to = rootfs.join(to.trim_start_matches('/'));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
    }
}
