//! A simulation per test, and small steps that many tests take.

use madsim::runtime::Runtime;
use madsim::time::TimeHandle;
use node::rt::journal::{Event, JournalSink};
use node::rt::{Env, Stream};
use sim::net::{NetTrace, Span};
use sim::{NetConfig, Network, SimWorld};
use std::future::Future;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// One millisecond.
pub(crate) const MS: Duration = Duration::from_millis(1);
/// One second.
pub(crate) const S: Duration = Duration::from_secs(1);

/// A journal nobody reads.
pub(crate) struct Silent;

impl JournalSink for Silent {
    fn record(&self, _: &Event) {}
}

/// One millisecond each way, no chance at all, 125 MB/s.
pub(crate) fn exact() -> NetConfig {
    NetConfig {
        base: Span::micros(1000, 1000),
        jitter: Duration::ZERO,
        tail_chance: 0.0,
        partial_chance: 0.0,
        ..NetConfig::default()
    }
}

/// Runs `story` in a simulation of its own, on a fresh thread.
pub(crate) fn simulate<T, F>(
    seed: u64,
    config: NetConfig,
    story: impl FnOnce(SimWorld) -> F + Send + 'static,
) -> T
where
    T: Send + 'static,
    F: Future<Output = T>,
{
    simulate_traced(seed, config, Network::untraced(), sim::lane::no_debt, story)
}

/// The same with a trace and a disk's bill.
pub(crate) fn simulate_traced<T, F>(
    seed: u64,
    config: NetConfig,
    trace: NetTrace,
    take_debt: sim::lane::TakeDebt,
    story: impl FnOnce(SimWorld) -> F + Send + 'static,
) -> T
where
    T: Send + 'static,
    F: Future<Output = T>,
{
    let run = move || {
        let mut runtime = Runtime::with_seed_and_config(seed, madsim::Config::default());
        runtime.set_time_limit(Duration::from_secs(100_000));
        runtime.block_on(async move {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&seed.to_le_bytes());
            let world = SimWorld::new(bytes, config, trace, take_debt);
            let result = story(world.clone()).await;
            world.network.shutdown();
            result
        })
    };
    match std::thread::spawn(run).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// The simulation's time.
pub(crate) fn now() -> Duration {
    TimeHandle::current().elapsed()
}

/// Sleeps `span` of the simulation's time.
pub(crate) async fn pause(span: Duration) {
    madsim::time::sleep(span).await;
}

/// True when `left` and `right` differ by 5 us at most: polls take virtual time of their own.
pub(crate) fn near(left: Duration, right: Duration) -> bool {
    left.abs_diff(right) <= Duration::from_micros(5)
}

/// An environment of `host`.
pub(crate) fn env(world: &SimWorld, host: &str) -> Env {
    world.env(host, Silent)
}

/// Environments of `a` and `b`, and a connection from one to the other's port 1.
pub(crate) async fn connected(world: &SimWorld) -> (Stream, Stream) {
    let (a, b) = (env(world, "a"), env(world, "b"));
    let mut listener = b.net.listen("b:1").await.unwrap();
    let caller = a.net.connect("b:1").await.unwrap();
    let (callee, _) = listener.accept().await.unwrap();
    (caller, callee)
}

/// Writes `text` at once.
pub(crate) async fn say(stream: &mut Stream, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
}

/// Reads as many bytes as `text` has; they must be it.
pub(crate) async fn hear(stream: &mut Stream, text: &str) {
    let mut buffer = vec![0; text.len()];
    stream.read_exact(&mut buffer).await.unwrap();
    assert_eq!(String::from_utf8(buffer).unwrap(), text);
}

/// The output of `work` if it ends within `span` of the simulation's time.
pub(crate) async fn within<T>(span: Duration, work: impl Future<Output = T>) -> Option<T> {
    madsim::time::timeout(span, work).await.ok()
}
