//! Tasks as real processes: started, told, killed, found again.
#![expect(
    clippy::disallowed_methods,
    reason = "tests run on a runtime of their own, against real files and processes"
)]

use super::assignment;
use crate::knobs::Knobs;
use crate::rt::{Env, real};
use crate::service::Spec;
use crate::service::spec::{Health, HealthCheck};
use crate::types::TaskId;
use crate::worker::executor::Executor;
use crate::worker::logs::{LogQuery, Since, Tell};
use crate::worker::process::ProcessExecutor;
use crate::worker::words::{Assignment, Exit, Handle, Signal};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Longest time that anything here may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A worker's executor in a directory of its own.
struct Yard {
    root: tempfile::TempDir,
    env: Env,
    executor: ProcessExecutor,
}

impl Yard {
    fn new() -> Self {
        let (root, env) = (tempfile::tempdir().unwrap(), real::env("test").unwrap());
        let executor = ProcessExecutor::new(&env, root.path().to_owned(), &Knobs::default());
        Yard {
            root,
            env,
            executor,
        }
    }

    /// The same directory, as an executor that has started nothing.
    fn again(&self) -> ProcessExecutor {
        let env = real::env("again").unwrap();
        ProcessExecutor::new(&env, self.root.path().to_owned(), &Knobs::default())
    }

    /// Starts attempt 1 of task `id`, a shell.
    async fn shell(&self, id: u64, script: &str) -> Handle {
        self.start(shell(id, script)).await
    }

    /// The lease lasts for so long from now on.
    fn lease(&self, span: Duration) {
        self.executor.lease(self.env.clock.now().plus(span));
    }

    async fn start(&self, assignment: Arc<Assignment>) -> Handle {
        self.executor
            .prepare(Arc::clone(&assignment))
            .await
            .unwrap();
        self.executor
            .start(assignment, 1, Vec::new())
            .await
            .unwrap()
    }

    async fn wait(&self, id: u64, handle: &Handle) -> Exit {
        let wait = self.executor.wait(TaskId(id), 1, handle.clone());
        self.env
            .clock
            .timeout(PATIENCE, wait)
            .await
            .expect("it ends")
    }

    fn output(&self, id: u64) -> String {
        let path = self
            .root
            .path()
            .join("tasks")
            .join(id.to_string())
            .join("stdout.log");
        std::fs::read_to_string(path).unwrap_or_default()
    }

    /// Waits until a task has written `text`.
    async fn says(&self, id: u64, text: &str) {
        for _ in 0..2_000 {
            if self.output(id).contains(text) {
                return;
            }
            self.env.clock.sleep(Duration::from_millis(10)).await;
        }
        panic!("task {id} does not say {text}, but: {}", self.output(id));
    }
}

fn shell(id: u64, script: &str) -> Arc<Assignment> {
    Arc::new(assignment(id, Spec::new("web", &["sh", "-c", script])))
}

#[tokio::test]
async fn a_process_has_its_own_environment_and_its_exit_code_is_told() {
    let yard = Yard::new();
    let mut spec = Spec::new(
        "web",
        &[
            "sh",
            "-c",
            "echo $GREETING $SEAWORTHY_SLOT; env | wc -l; exit 7",
        ],
    );
    spec.env.insert("GREETING".to_owned(), "ahoy".to_owned());
    let handle = yard.start(Arc::new(assignment(1, spec))).await;
    assert_eq!(
        yard.wait(1, &handle).await,
        Exit {
            code: Some(7),
            ..Exit::UNSEEN
        }
    );
    let output = yard.output(1);
    assert!(output.starts_with("ahoy 1\n"), "{output}");
    let variables: u32 = output.lines().nth(1).unwrap().trim().parse().unwrap();
    assert!(variables < 10, "nothing is inherited: {variables}");
}

#[tokio::test]
async fn a_signal_reaches_the_whole_group() {
    let yard = Yard::new();
    let handle = yard
        .shell(1, "sleep 1000 & sleep 1000 & echo up; wait")
        .await;
    yard.says(1, "up").await;
    yard.executor.signal(&handle, Signal::Term);
    let exit = yard.wait(1, &handle).await;
    assert_eq!(exit.signal, Some(15));
    assert_eq!(yard.executor.found().await.unwrap(), []);
}

#[tokio::test]
async fn one_that_does_not_listen_is_killed_and_nothing_of_it_stays() {
    let yard = Yard::new();
    // A child in a session of its own: its group is not the task's, but its mark is.
    let handle = yard
        .shell(
            1,
            "trap '' TERM; setsid sleep 1000 & echo up; sleep 1000; sleep 1000",
        )
        .await;
    yard.says(1, "up").await;
    yard.executor.signal(&handle, Signal::Term);
    yard.env.clock.sleep(Duration::from_millis(100)).await;
    assert_eq!(yard.executor.found().await.unwrap().len(), 1);
    yard.executor.signal(&handle, Signal::Kill);
    assert_eq!(yard.wait(1, &handle).await.signal, Some(9));
    assert_eq!(yard.executor.found().await.unwrap(), []);
}

#[tokio::test]
async fn what_runs_is_found_again_and_watched() {
    let yard = Yard::new();
    let handle = yard.shell(11, "echo up; sleep 1000").await;
    let other = yard.shell(1, "sleep 1000").await;
    yard.says(11, "up").await;
    let again = yard.again();
    let found = again.found().await.unwrap();
    assert_eq!(found.len(), 2);
    let same = found.iter().find(|found| found.task == TaskId(11)).unwrap();
    assert_eq!(
        (same.attempt, &same.handle),
        (1, &handle),
        "by its name for ever"
    );
    again.end_orphan(TaskId(1), 1).await;
    assert_eq!(
        again.found().await.unwrap().len(),
        1,
        "task 11 is not task 1"
    );
    yard.wait(1, &other).await;
    let watch = again.wait(TaskId(11), 1, handle.clone());
    yard.executor.signal(&handle, Signal::Kill);
    yard.env
        .clock
        .timeout(PATIENCE, watch)
        .await
        .expect("its end is noticed");
}

#[tokio::test]
async fn a_single_writer_dies_with_its_worker() {
    let yard = Yard::new();
    yard.lease(PATIENCE);
    let mut spec = super::writer("data-1");
    let script = "trap '' TERM; echo $SEAWORTHY_VOLUME_DATA_1; sleep 1000; sleep 1000";
    spec.command = ["sh", "-c", script].map(str::to_owned).to_vec();
    let handle = yard.start(Arc::new(assignment(1, spec))).await;
    yard.says(1, "volumes/data-1").await;
    // The worker's end closes its pipes; here its executor goes, and with it the only other ends.
    let (watcher, clock) = (yard.again(), yard.env.clock.clone());
    assert_eq!(watcher.found().await.unwrap().len(), 1);
    let Yard {
        root,
        env,
        executor,
    } = yard;
    drop((env, executor));
    let watch = watcher.wait(TaskId(1), 1, handle);
    clock.timeout(PATIENCE, watch).await.expect("it dies");
    assert_eq!(watcher.found().await.unwrap(), []);
    drop(root);
}

#[tokio::test]
async fn a_guard_does_not_outlive_its_task() {
    let yard = Yard::new();
    yard.lease(PATIENCE);
    let mut spec = super::writer("v");
    spec.command = ["sh", "-c", "exit 3"].map(str::to_owned).to_vec();
    let handle = yard.start(Arc::new(assignment(1, spec))).await;
    let group: u32 = handle.0.split('.').nth(1).unwrap().parse().unwrap();
    assert!(Path::new(&format!("/proc/{group}")).exists(), "the guard");
    assert_eq!(yard.wait(1, &handle).await.code, Some(3));
    assert!(
        !Path::new(&format!("/proc/{group}")).exists(),
        "it has been waited for"
    );
}

#[tokio::test]
async fn a_single_writer_dies_when_its_lease_ends_though_nobody_signals_it() {
    let yard = Yard::new();
    let mut spec = super::writer("v");
    spec.command = ["sh", "-c", "trap '' TERM; echo up; sleep 1000; sleep 1000"]
        .map(str::to_owned)
        .to_vec();
    let began = yard.env.clock.now();
    let passed = || yard.env.clock.now().since(began);
    yard.lease(Duration::from_millis(1_500));
    let first = yard.start(Arc::new(assignment(1, spec.clone()))).await;
    yard.says(1, "up").await;
    yard.lease(Duration::from_millis(2_500));
    let second = yard.start(Arc::new(assignment(2, spec))).await;
    let (one, other) = tokio::join!(yard.wait(1, &first), yard.wait(2, &second));
    assert_eq!(
        (one.signal, other.signal),
        (Some(9), Some(9)),
        "killed, whichever lease it began with"
    );
    let (least, most) = (Duration::from_millis(2_450), Duration::from_millis(4_000));
    assert!((least..most).contains(&passed()), "{:?}", passed());
    assert_eq!(yard.executor.found().await.unwrap(), []);
}

#[tokio::test]
async fn nothing_that_needs_a_lease_begins_without_one() {
    let yard = Yard::new();
    let mut spec = super::writer("v");
    spec.command = ["sh", "-c", "echo up"].map(str::to_owned).to_vec();
    for id in [1, 2] {
        let task = Arc::new(assignment(id, spec.clone()));
        yard.executor.prepare(Arc::clone(&task)).await.unwrap();
        // Its guard may be quicker than its start.
        if let Ok(handle) = yard.executor.start(task, 1, Vec::new()).await {
            assert!(!yard.wait(id, &handle).await.is_success());
        }
        yard.lease(Duration::from_millis(10));
        yard.env.clock.sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(yard.output(1) + &yard.output(2), "");
    yard.lease(PATIENCE);
    let held = yard.start(Arc::new(assignment(3, spec))).await;
    assert!(yard.wait(3, &held).await.is_success());
    assert_eq!(yard.output(3), "up\n");
}

#[tokio::test]
async fn what_cannot_be_started_says_why() {
    let yard = Yard::new();
    let missing = Arc::new(assignment(1, Spec::new("web", &["/no/such/program"])));
    yard.executor.prepare(Arc::clone(&missing)).await.unwrap();
    let refusal = yard
        .executor
        .start(missing, 1, Vec::new())
        .await
        .unwrap_err();
    assert!(
        refusal.is_permanent && refusal.message.contains("/no/such/program"),
        "{refusal:?}"
    );
    let mut spec = Spec::new("web", &[]);
    assert!(
        yard.executor
            .prepare(Arc::new(assignment(2, spec.clone())))
            .await
            .unwrap_err()
            .is_permanent
    );
    spec.image = Some("web:1".to_owned());
    assert!(
        yard.executor
            .prepare(Arc::new(assignment(2, spec)))
            .await
            .unwrap_err()
            .message
            .contains("web:1")
    );
    let refusal = yard
        .executor
        .prepare(Arc::new(assignment(3, super::writer("../../etc"))))
        .await
        .unwrap_err();
    assert!(refusal.is_permanent, "{refusal:?}");
}

#[tokio::test]
async fn health_is_found_out() {
    let yard = Yard::new();
    let check = |check: HealthCheck| {
        let mut spec = Spec::new("web", &["web"]);
        spec.health = Some(Health {
            check,
            interval_ms: 1,
            timeout_ms: 2_000,
            retries: 1,
            start_period_ms: 0,
        });
        let assignment = Arc::new(assignment(1, spec));
        yard.executor.check(assignment, 1)
    };
    yard.executor.prepare(shell(1, "true")).await.unwrap();
    let exec = |script: &str| HealthCheck::Exec {
        command: ["sh", "-c", script].map(str::to_owned).to_vec(),
    };
    assert!(check(exec("exit 0")).await);
    assert!(!check(exec("exit 1")).await);
    assert!(!check(exec("sleep 1000")).await, "it has two seconds");
    let mut listener = yard.env.net.listen("127.0.0.1:0").await.unwrap();
    let port = listener
        .local_address()
        .rsplit_once(':')
        .unwrap()
        .1
        .parse()
        .unwrap();
    assert!(check(HealthCheck::Tcp { port }).await);
    let answers = ["HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 500 No\r\n\r\n"];
    let server = async {
        drop(listener.accept().await.unwrap());
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 16];
            tokio::io::AsyncReadExt::read_exact(&mut stream, &mut request)
                .await
                .unwrap();
            assert!(request.starts_with(b"GET /health HTTP"), "{request:?}");
            tokio::io::AsyncWriteExt::write_all(&mut stream, answer.as_bytes())
                .await
                .unwrap();
        }
    };
    let http = || HealthCheck::Http {
        port,
        path: "/health".to_owned(),
    };
    let (_, (good, bad)) =
        tokio::join!(server, async { (check(http()).await, check(http()).await) });
    assert!(good && !bad);
    drop(listener);
    assert!(!check(HealthCheck::Tcp { port }).await);
    assert!(
        !check(HealthCheck::Http {
            port,
            path: "/a b".to_owned()
        })
        .await
    );
}

#[tokio::test]
async fn what_is_forgotten_leaves_nothing() {
    let yard = Yard::new();
    let handle = yard.shell(1, "echo up").await;
    yard.wait(1, &handle).await;
    assert_eq!(yard.output(1), "up\n");
    yard.executor.tidy().await;
    yard.executor.forget(TaskId(1)).await;
    yard.executor.forget(TaskId(1)).await;
    assert!(!yard.root.path().join("tasks/1").exists());
}

#[tokio::test]
async fn limits_hold_where_the_host_lets_us_set_them() {
    let yard = Yard::new();
    let mut spec = Spec::new(
        "web",
        &[
            "sh",
            "-c",
            "cat /proc/self/cgroup; x=$(head -c 100000000 /dev/zero | tr '\\0' x); echo ${#x}",
        ],
    );
    spec.resources.limits.memory_bytes = 32 << 20;
    spec.resources.limits.cpu_milli = 500;
    let handle = yard.start(Arc::new(assignment(1, spec))).await;
    let exit = yard.wait(1, &handle).await;
    let output = yard.output(1);
    if output.contains("seaworthy-") {
        assert!(exit.oom && !exit.is_success(), "{exit:?} {output}");
    } else {
        // No writable control groups here: it runs without its limits.
        assert!(
            exit.is_success() && output.contains("100000000"),
            "{exit:?} {output}"
        );
    }
}

#[tokio::test]
async fn a_limited_program_that_is_not_there_is_refused_for_good() {
    let yard = Yard::new();
    let mut spec = Spec::new("web", &["no-such-program"]);
    spec.resources.limits.cpu_milli = 500;
    let assignment = Arc::new(assignment(1, spec));
    yard.executor
        .prepare(Arc::clone(&assignment))
        .await
        .unwrap();
    let refused = yard
        .executor
        .start(assignment, 1, Vec::new())
        .await
        .unwrap_err();
    assert!(refused.is_permanent, "{}", refused.message);
}

#[tokio::test]
async fn what_a_task_writes_can_be_read_and_followed() {
    let yard = Yard::new();
    let handle = yard
        .shell(1, "echo one; echo two; echo bad >&2; sleep 1000")
        .await;
    yard.says(1, "two").await;
    let page = async |task, stream, since: Option<u64>| {
        let query = LogQuery {
            stream,
            tail: Some(1),
            since: since.map(Since::Offset),
        };
        yard.executor.logs(TaskId(task), query).await
    };
    let last = page(1, Tell::Stdout, None).await.unwrap();
    assert_eq!((&last.bytes[..], last.next_offset), (&b"two\n"[..], 8));
    let rest = page(1, Tell::Stdout, Some(last.next_offset)).await.unwrap();
    assert!(rest.bytes.is_empty());
    let nothing = page(9, Tell::Stdout, None).await.unwrap_err();
    assert!(nothing.is_permanent, "{nothing:?}");
    yard.executor.signal(&handle, Signal::Kill);
    yard.wait(1, &handle).await;
    let bad = page(1, Tell::Stderr, None).await.unwrap();
    assert_eq!(&bad.bytes[..], b"bad\n", "output outlives its task");
}
