//! Facts of the worker as a program: its loop, its link, its disk and its door together.
#![expect(
    clippy::disallowed_methods,
    reason = "tests run on a runtime of their own, against real files and sockets"
)]

use super::harbour::{Harbour, Mood};
use super::{assignment, writer};
use crate::service::{Desired, Spec, State};
use crate::types::TaskId;
use crate::worker::words::{Assignment, Signal};

fn web(id: u64) -> Assignment {
    let mut spec = Spec::new("web", &["web"]);
    spec.restart.delay_ms = 10;
    assignment(id, spec)
}

impl Harbour {
    /// Waits until managers have heard that a task is in `state`.
    async fn hears(&self, task: u64, state: State) {
        let heard = |harbour: &Harbour| {
            let script = harbour.script();
            let report = script.reports.get(&TaskId(task));
            report.is_some_and(|report| report.observation.state == state)
        };
        self.until(&format!("{task} is {state}"), heard).await;
    }

    fn beats(&self) -> u64 {
        self.script().beats.values().sum()
    }
}

#[tokio::test]
async fn a_worker_that_is_killed_takes_its_tasks_up_again() {
    let harbour = Harbour::new(1).await;
    let worker = harbour.start().await;
    harbour.script().assign(vec![web(1), web(2)]);
    harbour.hears(1, State::Running).await;
    harbour.hears(2, State::Running).await;
    worker.cut_off().await;
    harbour.table.end(2, 1, 0);
    harbour.table.lock().found_fails = 2; // Until it answers, nothing is started.
    let worker = harbour.start().await;
    harbour
        .until("task 2 again", |harbour| {
            harbour.table.lock().started.len() == 3
        })
        .await;
    let status = harbour
        .until_status(&worker, "a session", |status| status.contact.is_welcome)
        .await;
    assert_eq!(status.epoch.0, 2, "a new process has a new session");
    let started = harbour.table.lock().started.clone();
    let wanted = [(TaskId(1), 1), (TaskId(2), 1), (TaskId(2), 2)];
    assert_eq!(started, wanted, "what is right is never restarted");
    let last = harbour.script().hellos.last().cloned().unwrap();
    assert!(last.is_anew);
    assert_eq!(last.tasks[&TaskId(1)].state, State::Running);
    // And what was taken up is watched.
    harbour.table.end(1, 1, 3);
    harbour
        .until("task 1 again", |harbour| {
            harbour.table.lock().started.contains(&(TaskId(1), 2))
        })
        .await;
    worker.stop().await;
    let alive = harbour.table.lock().alive.len();
    assert_eq!(alive, 2, "a worker that stops leaves its tasks");
}

#[tokio::test]
async fn a_task_that_is_not_wanted_any_more_ends_and_is_forgotten() {
    let harbour = Harbour::new(1).await;
    let worker = harbour.start().await;
    harbour.script().assign(vec![web(1), web(2)]);
    harbour.hears(1, State::Running).await;
    harbour.hears(2, State::Running).await;
    let stopped = Assignment {
        desired: Desired::Stop,
        ..web(1)
    };
    harbour.script().assign(vec![stopped]);
    harbour.hears(1, State::Stopped).await;
    harbour
        .until("2 is forgotten", |harbour| {
            harbour.table.lock().forgotten == [TaskId(2)]
        })
        .await;
    assert!(harbour.table.lock().alive.is_empty());
    worker.stop_with_tasks(std::time::Duration::ZERO).await;
}

#[tokio::test]
async fn nothing_starts_while_the_disk_takes_nothing_and_everything_goes_on() {
    let harbour = Harbour::new(1).await;
    let worker = harbour.start().await;
    harbour.script().assign(vec![web(1)]);
    harbour.hears(1, State::Running).await;
    // A directory where the file is to be written: no write succeeds.
    let obstacle = harbour.dir().join("worker.state.tmp");
    std::fs::create_dir(&obstacle).unwrap();
    harbour.script().assign(vec![web(1), web(2)]);
    let status = harbour
        .until_status(&worker, "an unsaved state", |status| {
            status.unsaved.is_some() && status.tasks.len() == 2
        })
        .await;
    assert!(!status.complaints().is_empty());
    let before = harbour.beats();
    harbour
        .until("heartbeats", |harbour| harbour.beats() > before + 3)
        .await;
    assert_eq!(harbour.table.lock().started.len(), 1, "nothing is started");
    assert!(!harbour.script().reports.contains_key(&TaskId(2)));
    // A task that shall end is told to at once.
    harbour.script().assign(vec![web(2)]);
    harbour
        .until("1 is gone", |harbour| harbour.table.lock().alive.is_empty())
        .await;
    assert!(harbour.table.lock().forgotten.is_empty());
    std::fs::remove_dir(&obstacle).unwrap();
    harbour.hears(2, State::Running).await;
    harbour
        .until("1 is forgotten", |harbour| {
            harbour.table.lock().forgotten == [TaskId(1)]
        })
        .await;
    let status = harbour
        .until_status(&worker, "no complaint", |status| {
            status.complaints().is_empty()
        })
        .await;
    assert_eq!(status.effects_held, 0);
    worker.cut_off().await;
}

#[tokio::test]
async fn tasks_go_on_while_managers_are_away_and_all_is_told_afterwards() {
    let harbour = Harbour::new(1).await;
    let worker = harbour.start().await;
    harbour.script().assign(vec![web(1)]);
    harbour.hears(1, State::Running).await;
    harbour.script().moods.insert(0, Mood::Silent);
    harbour
        .until_status(&worker, "no session", |status| !status.contact.is_welcome)
        .await;
    harbour.table.end(1, 1, 7);
    harbour
        .until("a restart without managers", |harbour| {
            harbour.table.lock().started.len() == 2
        })
        .await;
    harbour.script().moods.clear();
    harbour
        .until("what happened is told", |harbour| {
            let script = harbour.script();
            script.reports[&TaskId(1)].observation.attempts == 2
        })
        .await;
    assert_eq!(harbour.script().hellos.len(), 2);
    assert_eq!(harbour.script().epoch, 1, "it never went away itself");
    worker.cut_off().await;
}

#[tokio::test]
async fn a_manager_that_cannot_help_is_left_for_another_without_a_hello() {
    for mood in [Mood::Silent, Mood::Lost] {
        let harbour = Harbour::new(2).await;
        let worker = harbour.start().await;
        harbour
            .until("heartbeats", |harbour| harbour.beats() > 2)
            .await;
        let first = *harbour.script().beats.keys().next().unwrap();
        let other = 1 - first;
        harbour.script().moods.insert(first, mood);
        harbour
            .until("the other hears", |harbour| {
                harbour.script().beats.get(&other).copied() > Some(2)
            })
            .await;
        // Assignments come from the other too.
        harbour.script().assign(vec![web(1)]);
        harbour.hears(1, State::Running).await;
        assert_eq!(harbour.script().hellos.len(), 1, "{mood:?}");
        worker.cut_off().await;
    }
}

#[tokio::test]
async fn a_leader_in_a_hurry_hears_often_and_a_dead_manager_is_left_soon() {
    let mut harbour = Harbour::new(2).await;
    // By itself the worker would neither beat nor leave a silent manager while this test runs.
    let hours = std::time::Duration::from_secs(36_000);
    (
        harbour.knobs.worker_heartbeat,
        harbour.knobs.worker_call_timeout,
    ) = (hours, hours);
    (
        harbour.knobs.worker_retry_min,
        harbour.knobs.worker_retry_max,
    ) = (hours, hours);
    harbour.script().pace_ms = Some(50);
    let worker = harbour.start().await;
    harbour
        .until("heartbeats", |harbour| harbour.beats() > 4)
        .await;
    let first = *harbour.script().beats.keys().next().unwrap();
    harbour.script().moods.insert(first, Mood::Silent);
    harbour
        .until("the other hears", |harbour| {
            harbour.script().beats.get(&(1 - first)).copied() > Some(2)
        })
        .await;
    assert_eq!(harbour.script().hellos.len(), 1);
    worker.cut_off().await;
}

#[tokio::test]
async fn a_session_that_is_over_begins_with_a_hello() {
    let harbour = Harbour::new(1).await;
    let worker = harbour.start().await;
    harbour.script().assign(vec![web(1)]);
    harbour.hears(1, State::Running).await;
    harbour.script().is_over = true;
    let status = harbour
        .until_status(&worker, "the next session", |status| {
            status.epoch.0 == 2 && status.contact.is_welcome
        })
        .await;
    assert!(!harbour.script().hellos[1].is_anew);
    assert_eq!(status.tasks.len(), 1);
    assert_eq!(harbour.table.lock().started.len(), 1);
    worker.cut_off().await;
}

#[tokio::test]
async fn a_worker_that_was_removed_ends_its_tasks_stays_out_and_says_why() {
    let harbour = Harbour::new(2).await;
    let worker = harbour.start().await;
    harbour.script().assign(vec![web(1), web(2)]);
    harbour.hears(1, State::Running).await;
    harbour.hears(2, State::Running).await;
    harbour.script().is_removed = true;
    let status = harbour
        .until_status(&worker, "the end of its tasks", |status| {
            status.contact.is_removed && status.tasks.is_empty()
        })
        .await;
    assert!(harbour.table.lock().alive.is_empty());
    let complaints = status.complaints();
    assert_eq!(complaints, ["worker w1 was removed from this cluster"]);
    // It asks again, but seldom; each of the pauses is 50 ms or more by now.
    let asked = harbour.script().hellos.len();
    assert!(asked <= 4, "{asked} hellos");
    // The same cluster takes it again, by whatever an operator did meanwhile.
    harbour.script().is_removed = false;
    harbour
        .until_status(&worker, "a session", |status| {
            status.contact.is_welcome && !status.contact.is_removed
        })
        .await;
    worker.cut_off().await;
}

#[tokio::test]
async fn a_single_writer_ends_before_its_lease_when_managers_are_silent() {
    let harbour = Harbour::new(1).await;
    harbour.script().lease_ms = 1_500;
    let worker = harbour.start().await;
    harbour
        .script()
        .assign(vec![assignment(1, writer("data")), web(2)]);
    harbour.hears(1, State::Running).await;
    harbour.hears(2, State::Running).await;
    harbour.script().moods.insert(0, Mood::Silent);
    let status = harbour
        .until_status(&worker, "the end of the writer", |status| {
            status.tasks[0].observation.state == State::Stopped
        })
        .await;
    assert!(status.lease_left_ms > 0, "before its end, not at it");
    worker.cut_off().await;
    let table = harbour.table.lock();
    assert_eq!(table.signals[0].1, Signal::Term);
    let alive: Vec<TaskId> = table.alive.keys().map(|(task, _)| *task).collect();
    assert_eq!(alive, [TaskId(2)], "the other needs no lease");
}

#[tokio::test]
async fn managers_are_remembered_across_restarts() {
    let harbour = Harbour::new(2).await;
    let worker = harbour.start().await;
    harbour
        .until("heartbeats", |harbour| harbour.beats() > 0)
        .await;
    worker.stop().await;
    let text = std::fs::read_to_string(harbour.dir().join("managers.json")).unwrap();
    let managers: Vec<String> = serde_json::from_str(&text).unwrap();
    assert_eq!(managers.len(), 2);
    // Damage there is no reason not to start.
    std::fs::write(harbour.dir().join("managers.json"), "{").unwrap();
    let worker = harbour.start().await;
    let before = harbour.beats();
    harbour
        .until("heartbeats again", |harbour| harbour.beats() > before)
        .await;
    worker.cut_off().await;
}

#[tokio::test]
async fn the_door_tells_how_it_stands() {
    let harbour = Harbour::new(1).await;
    let worker = harbour.start().await;
    harbour.script().assign(vec![web(1)]);
    harbour.hears(1, State::Running).await;
    let address = worker.http_address.clone();
    let health = harbour.get(&address, "/health").await;
    assert!(health.starts_with("HTTP/1.1 200"), "{health}");
    assert!(health.contains("\"status\":\"healthy\""), "{health}");
    let metrics = harbour.get(&address, "/metrics").await;
    for line in [
        "seaworthy_worker_tasks{state=\"running\"} 1",
        "seaworthy_worker_has_session 1",
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
    let tasks = harbour.get(&address, "/v1/tasks").await;
    assert!(tasks.contains("\"state\":\"running\""), "{tasks}");
    for (path, status) in [
        ("/v1/tasks/1/logs", 404),
        ("/v1/tasks/x/logs", 400),
        ("/v1/tasks/1/logs?stream=x", 400),
        ("/elsewhere", 404),
    ] {
        let answer = harbour.get(&address, path).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{answer}"
        );
        assert!(answer.contains("\"message\""), "{answer}");
    }
    worker.cut_off().await;
}

#[tokio::test]
async fn a_directory_has_one_worker() {
    let harbour = Harbour::new(1).await;
    let worker = harbour.start().await;
    let error = harbour.try_start().await.err().unwrap().to_string();
    assert!(error.contains("in use by another worker"), "{error}");
    worker.cut_off().await;
    harbour.start().await.stop().await;
}

#[tokio::test]
async fn without_disk_and_session_little_waits_and_both_come_back() {
    let harbour = Harbour::new(1).await;
    let worker = harbour.start().await;
    harbour.script().assign(vec![web(1)]);
    harbour.hears(1, State::Running).await;
    let obstacle = harbour.dir().join("worker.state.tmp");
    std::fs::create_dir(&obstacle).unwrap();
    harbour.script().assign(vec![web(1), web(2)]);
    harbour.script().is_over = true;
    for _ in 0..3 {
        let status = harbour
            .until_status(&worker, "a hello that waits", |status| {
                let lost = status.contact.lost.as_deref().unwrap_or_default();
                lost.contains("cannot be written")
            })
            .await;
        assert!(status.effects_held < 5, "{status:?}");
        harbour
            .until_status(&worker, "another try", |status| {
                status.contact.lost.is_some() && status.unsaved.is_some()
            })
            .await;
    }
    assert_eq!(harbour.script().hellos.len(), 1);
    std::fs::remove_dir(&obstacle).unwrap();
    harbour.hears(2, State::Running).await;
    worker.cut_off().await;
}
