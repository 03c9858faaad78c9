//! The worker: it keeps running what it was given, whether managers are there or not.
//!
//! `docs/orchestration.md` says what is promised; this page says how the promises are kept.
//!
//! # The picture
//!
//! ```text
//!   managers                                   disk (one file, a lane)
//!      |  welcome, assignments, answers, acks     ^  |
//!      v                                          |  v  at the start only
//!   shell: one loop, carries effects out ---- core::Worker ---- task::Task, one for each
//!      |                                       (pure)           (pure)
//!      v
//!   executor (processes, containers, simulated): prepare, start, signal, wait, check, found
//! ```
//!
//! Two pure machines, one inside the other. [`task::Task`] knows one task's life: attempts, restarts, health, grace, its
//! leave to run. [`core::Worker`] knows all tasks, what managers said and in which order, what they have not heard yet, and
//! the lease. Both are stepped with an input and the time and answer with effects. A shell carries the effects out and brings
//! what came of them back as inputs.
//!
//! # State and phase
//!
//! What managers hear of a task, its state, only moves forward. What the worker does about its process, the phase, goes round:
//!
//! ```text
//!   Unprepared -> Preparing -> Waiting -> Launching -> Up -> Ending -> Done
//!       ^             |         ^  ^          |        |       |
//!       +--- again ---+         |  +- failed -+        |       | its health gave up
//!                               +---- a restart -------+-------+
//! ```
//!
//! # What comes before what
//!
//! The effects of a step stand in the order in which they are carried out, with one `Persist` among them at most.
//!
//! 1. Signals come first and wait for nothing. A full disk must not keep a process alive whose lease ends; and a signal that is
//!    forgotten in a crash is given again, since what asked for it is still true.
//! 2. `Persist`: what [`Worker::saved`] gives becomes durable.
//! 3. Then starts: the number of an attempt is on the disk before its process can be there, so that whatever is found after a crash
//!    is the newest attempt of its task or an orphan. Then reports: a number never stands for two things. Then what is to be
//!    forgotten.
//!
//! If `Persist` fails, the shell tries it again and holds what stands behind it back; what runs goes on, and inputs are still taken.
//! A later `Persist` makes all earlier ones good.
//!
//! # Coming back
//!
//! After its own restart the worker reads its file, asks the executor which processes carry its mark, and gives both to
//! [`Worker::resume`]. A process that is the one on the disk, by number and beginning, is taken up as it is: nothing that is right is
//! restarted. Everything else with the mark is an orphan and is killed; no attempt of its task begins before it is gone. If
//! the executor cannot say what runs, nothing may be started, and the shell asks again.
//!
//! The worker's time is its own ([`Worker::time_ms`]): it goes on from what the disk says, so that a restart neither shortens a
//! pause nor makes a short run look long.
//!
//! # Single writers
//!
//! A task with a volume that nobody else may write to runs only while it has leave. The leave is the worker's lease, counted
//! from before the heartbeat that was answered was sent (`lease`), and only from managers whose assignments the worker has. A
//! second before the lease ends the process has been killed. It is started tied to the worker's process and to its lease, of which
//! guards hear ([`Executor::lease`](executor::Executor::lease)), so that a worker that cannot watch its clock any more leaves
//! nothing that writes. Of two tasks with one volume the second waits until the first has no process.
//!
//! # Map
//!
//! [`words`] and [`exchange`], what is said; [`task`] with `attempt`, `restart` and `health`, one task's life; [`core`] with `lease` and
//! `report`, the worker; [`disk`], its file; [`executor`], the seam; [`process`] with [`logs`], tasks as processes; [`secrets`]. Then the
//! program: [`config`]; `running`, where it begins and ends; `shell`, the loop; `link` with `outbox` and `managers`, its talk with
//! managers; `door` with [`status`], what it tells of itself.
//!
//! # Caveats
//!
//! - A worker whose disk is full keeps its session, but cannot begin another one: a hello names reports that are not written yet. If
//!   managers are away then too, it is marked down when they are back, until there is room.
//! - A machine that is suspended keeps no lease's end while it sleeps, and a virtual one whose clocks stand still meanwhile not even
//!   afterwards. Whoever suspends machines must not put single writers on them.
//! - A process that cannot be killed (uninterruptible sleep on a dead disk) outlives its lease; the task stays `stopping` and says so.
//! - The file is written whole for each change: 1,000 tasks are about a megabyte. Changes that wait together should share a write.
//! - A process that ended while its worker was away has no exit code; by `on-failure` a finished job runs once more. A shim would know.
//! - Local restarts are counted, and reported, one by one, but a report in the place of an older one hides the steps between.
//! - Limits of processor and memory need writable control groups; without them a task runs unlimited and the log says so.
//! - Each task's sealed secrets are in the file, which is written whole: large secrets of many tasks make each write longer.
//! - Output is rotated by copying and cutting: lines written in between are lost ([`process`], `logs`).

mod attempt;
pub mod config;
pub mod container;
pub mod core;
pub mod disk;
mod door;
pub mod exchange;
pub mod executor;
mod health;
mod lease;
mod link;
mod log_times;
pub mod logs;
mod managers;
mod outbox;
pub mod process;
mod report;
mod restart;
mod running;
pub mod secrets;
mod shell;
pub mod status;
pub mod task;
pub mod words;
pub use config::WorkerConfig;
pub use core::Worker;
pub use report::Report;
pub use running::{RunningWorker, StartError, start};
#[cfg(test)]
mod tests;
