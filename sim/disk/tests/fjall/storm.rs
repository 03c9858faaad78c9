//! Unmodified fjall with one worker thread on the simulated disk, under madsim.
//!
//! Nodes write numbered batches over three keyspaces while a supervisor cuts the power or kills
//! them. At each recovery the state must be exactly that after some batch, none synced may be
//! missing, none torn. Every seed runs in a process of its own; the main thread is the only one
//! when it forks, hence no test harness. Known hazards of fjall are stepped around: values are
//! smaller than a sector, a database is created under another name and renamed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use madsim::rand::{Rng as _, thread_rng};
use madsim::runtime::{Handle, Runtime};
use madsim::time::sleep;
use simdisk::{CrashMode, Fault, NameMode, OpKind, Rule, World, disk};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::FromRawFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Keyspaces that every batch writes to.
const KEYSPACES: [&str; 3] = ["alpha", "beta", "gamma"];

/// One storm.
#[derive(Clone, Copy)]
struct Plan {
    /// Everything random comes from it.
    seed: u64,
    /// Nodes with a database each.
    nodes: usize,
    /// Crashes and kills, over all nodes.
    crashes: u32,
    /// How the power fails; `None`: each time another way, or kill -9.
    mode: Option<CrashMode>,
    /// The power fails first at this call of the first node, from its creation on.
    first: Option<u64>,
    /// Syncs of the journal lie: a control that must be found out.
    lies: bool,
    /// Only syncs of directories make names durable.
    strict: bool,
    /// Calls fail now and then before each crash.
    faults: bool,
}

/// One node, crashed and killed four times.
const QUIET: Plan = Plan {
    seed: 0,
    nodes: 1,
    crashes: 4,
    mode: None,
    first: None,
    lies: false,
    strict: false,
    faults: false,
};

/// What a node must find again.
#[derive(Default)]
struct Oracle {
    /// Batches begun.
    attempted: u64,
    /// Batches known to be durable.
    synced: u64,
    /// Batches ever written.
    batches: u64,
    /// Good recoveries.
    opens: u64,
    /// What was wrong.
    errors: Vec<String>,
}

/// An open database.
struct Store {
    db: Database,
    keyspaces: Vec<Keyspace>,
}

fn open(path: &str) -> fjall::Result<Store> {
    let db = Database::builder(path)
        .worker_threads(1)
        .cache_size(256 * 1024)
        .max_cached_files(Some(100))
        .manual_journal_persist(true)
        .open()?;
    let options = || {
        KeyspaceCreateOptions::default()
            .max_memtable_size(16 * 1024)
            .manual_journal_persist(true)
    };
    let keyspaces = KEYSPACES
        .iter()
        .map(|n| db.keyspace(n, options))
        .collect::<Result<_, _>>()?;
    Ok(Store { db, keyspaces })
}

/// Creates under another name, so that a crash never leaves half a database under the real one.
fn open_or_create(dir: &str) -> fjall::Result<Store> {
    let (path, temp) = (format!("{dir}/db"), format!("{dir}/db.tmp"));
    if !fs::exists(&path)? {
        if fs::exists(&temp)? {
            fs::remove_dir_all(&temp)?;
        }
        open(&temp)?.db.persist(PersistMode::SyncAll)?;
        for part in [format!("{temp}/keyspaces"), temp.clone()] {
            File::open(part)?.sync_all()?;
        }
        fs::rename(&temp, &path)?;
        File::open(dir)?.sync_all()?;
    }
    open(&path)
}

fn fill(batch: u64, keyspace: usize) -> u8 {
    (batch as u8).wrapping_mul(31).wrapping_add(keyspace as u8)
}

impl Store {
    fn write(&self, i: u64, len: usize, mode: PersistMode) -> fjall::Result<()> {
        let mut batch = self.db.batch().durability(Some(mode));
        for (k, keyspace) in self.keyspaces.iter().enumerate() {
            batch.insert(keyspace, "last", i.to_be_bytes());
            batch.insert(keyspace, format!("k{i:08}"), vec![fill(i, k); len]);
            if i > 20 && i.is_multiple_of(3) {
                batch.remove(keyspace, format!("k{:08}", i - 20));
            }
        }
        batch.commit()
    }

    /// The batch after which the state is exactly this, or what is wrong.
    fn check(&self) -> Result<u64, String> {
        let mut last = None;
        for (k, keyspace) in self.keyspaces.iter().enumerate() {
            let found = keyspace.get("last").map_err(|e| format!("get: {e:?}"))?;
            let found = found.map_or(0, |v| u64::from_be_bytes((&*v).try_into().unwrap()));
            if *last.get_or_insert(found) != found {
                return Err(format!("torn: {last:?} and {found} in {k}"));
            }
            let removed = |i: &u64| (i + 20).is_multiple_of(3) && i + 20 <= found;
            let mut want: Vec<u64> = (1..=found).filter(|i| !removed(i)).collect();
            want.reverse();
            for pair in keyspace.range("k".."l") {
                let (key, value) = pair.into_inner().map_err(|e| format!("range: {e:?}"))?;
                let i: u64 = std::str::from_utf8(&key[1..]).unwrap().parse().unwrap();
                if want.pop() != Some(i) || value.iter().any(|b| *b != fill(i, k)) {
                    return Err(format!("wrong at {i} of {found} in {k}"));
                }
            }
            if !want.is_empty() {
                return Err(format!("{} missing of {found} in {k}", want.len()));
            }
        }
        Ok(last.unwrap_or(0))
    }
}

/// Storage work: runs at once, then takes the time that the disk charged.
async fn lane<T>(f: impl FnOnce() -> T) -> T {
    simdisk::clear_debt();
    let result = f();
    sleep(Duration::from_nanos(simdisk::take_debt())).await;
    result
}

/// The life of a node.
async fn node(name: String, oracle: Arc<Mutex<Oracle>>) {
    let d = disk(&name);
    let opened = lane(|| {
        let store = open_or_create(&format!("/simdisk/{name}"))?;
        // What was recovered counts only once it is durable.
        store.db.persist(PersistMode::SyncAll)?;
        Ok::<_, fjall::Error>(store)
    })
    .await;
    let store = match opened {
        Ok(store) => store,
        Err(e) => {
            if !d.is_down() {
                oracle
                    .lock()
                    .unwrap()
                    .errors
                    .push(format!("{name}: open: {e:?}"));
            }
            return;
        }
    };
    let found = lane(|| store.check()).await;
    if d.is_down() {
        return;
    }
    {
        let mut o = oracle.lock().unwrap();
        o.opens += 1;
        match found {
            Ok(last) if (o.synced..=o.attempted).contains(&last) => {
                (o.attempted, o.synced) = (last, last);
            }
            other => {
                let error = format!("{name}: {other:?}, synced {} of {}", o.synced, o.attempted);
                o.errors.push(error);
                return;
            }
        }
    }
    loop {
        let i = {
            let mut o = oracle.lock().unwrap();
            o.attempted += 1;
            o.batches += 1;
            o.attempted
        };
        let sync = thread_rng().gen_bool(0.1);
        let mode = if sync {
            PersistMode::SyncAll
        } else {
            PersistMode::Buffer
        };
        let len = thread_rng().gen_range(0..300);
        // A node that cannot write stops at once: the worker of fjall 3.1.13 would repeat a sync that
        // failed, believe the success, and flush one keyspace past what the journal holds.
        let write = || store.write(i, len, mode).inspect_err(|_| d.freeze());
        match lane(write).await {
            Ok(()) if sync => oracle.lock().unwrap().synced = i,
            Ok(()) => {}
            Err(_) => std::future::pending().await,
        }
    }
}

/// Cuts the power of a node, or kills it, at once or in the middle of a later call; restarts it.
async fn crash(handle: &Handle, name: &str, mode: Option<CrashMode>) {
    let d = disk(name);
    let n = thread_rng().gen_range(0..5);
    let mode = mode.or(CrashMode::ALL.get(n).copied());
    if let Some(mode) = mode.filter(|_| thread_rng().gen_bool(0.7)) {
        d.inject_at(thread_rng().gen_range(1..300), Fault::Crash(mode));
        await_down(name).await;
    }
    match mode {
        _ if d.is_down() => {}
        Some(mode) => d.power_loss(mode),
        None => d.kill(),
    }
    restart(handle, name).await;
}

/// Waits until a planned crash has struck, or gives it up.
async fn await_down(name: &str) {
    for _ in 0..500 {
        if disk(name).is_down() {
            return;
        }
        sleep(Duration::from_millis(1)).await;
    }
    disk(name).clear_faults();
}

/// From a disk without power to a new life.
async fn restart(handle: &Handle, name: &str) {
    handle.kill(name);
    sleep(Duration::from_millis(thread_rng().gen_range(1..10))).await;
    disk(name).power_on();
    handle.restart(name);
}

/// The whole storm; what it has to say in one line.
fn storm(plan: Plan) -> Result<String, String> {
    let world = World::install(plan.seed);
    let mut runtime = Runtime::with_seed_and_config(plan.seed, madsim::Config::default());
    runtime.set_allow_system_thread(true);
    let oracles: Vec<Arc<Mutex<Oracle>>> = (0..plan.nodes).map(|_| Arc::default()).collect();
    let watched = oracles.clone();
    runtime.block_on(async move {
        madsim::task::spawn(simdisk::pump());
        let handle = Handle::current();
        let names: Vec<String> = (0..plan.nodes).map(|i| format!("n{i}")).collect();
        for (name, oracle) in names.iter().zip(watched) {
            if plan.strict {
                disk(name).set_name_mode(NameMode::Strict);
            }
            let (n, o) = (name.clone(), oracle);
            let init = move || node(n.clone(), Arc::clone(&o));
            handle.create_node().name(name).init(init).build();
        }
        if let Some(op) = plan.first {
            disk("n0").inject_at(op, Fault::Crash(plan.mode.unwrap_or(CrashMode::Random)));
            await_down("n0").await;
            restart(&handle, "n0").await;
        }
        if plan.lies {
            disk("n0").inject(Rule::always(OpKind::Sync, ".jnl", Fault::Lie));
        }
        for _ in 0..plan.crashes {
            let victim = thread_rng().gen_range(0..plan.nodes);
            if plan.faults {
                // Long enough for the node to be up: a failing open would be reported.
                sleep(Duration::from_millis(100)).await;
                let fault = if thread_rng().gen_bool(0.5) {
                    Fault::Eio
                } else {
                    Fault::Enospc
                };
                disk(&names[victim]).inject(Rule::sometimes(fault, 1_000));
            }
            let ms = thread_rng().gen_range(1..600 / plan.nodes as u64);
            sleep(Duration::from_millis(ms)).await;
            if plan.faults {
                disk(&names[victim]).clear_faults();
            }
            crash(&handle, &names[victim], plan.mode).await;
        }
        sleep(Duration::from_millis(100)).await;
        for name in &names {
            disk(name).kill();
            handle.kill(name);
        }
        sleep(Duration::from_millis(1)).await;
    });
    drop(runtime);
    let oracles: Vec<_> = oracles
        .iter()
        .map(|o| std::mem::take(&mut *o.lock().unwrap()))
        .collect();
    let errors: Vec<_> = oracles.iter().flat_map(|o| &o.errors).collect();
    let (live, files) = (simdisk::live_threads(), simdisk::open_files());
    if !errors.is_empty() || live > 0 || files > 0 || !simdisk::escapes().is_empty() {
        let escapes = simdisk::escapes();
        return Err(format!(
            "{errors:?}, {live} threads, {files} files left, {escapes:?}"
        ));
    }
    let sum = |f: fn(&Oracle) -> u64| oracles.iter().map(f).sum::<u64>();
    let (opens, batches) = (sum(|o| o.opens), sum(|o| o.batches));
    let (hash, ops, slices) = (
        simdisk::op_hash(),
        simdisk::op_total(),
        simdisk::thread_slices(),
    );
    drop(world);
    Ok(format!(
        "{hash:016x} ops {ops} slices {slices} opens {opens} batches {batches}"
    ))
}

/// Runs a storm in a process of its own.
fn forked(plan: Plan) -> Result<String, String> {
    let mut ends = [0; 2];
    // SAFETY: two descriptors go into an array of two; this process has one thread, so the child is
    // a full copy; the child leaves by _exit and runs nobody else's destructors.
    unsafe {
        assert_eq!(libc::pipe(ends.as_mut_ptr()), 0);
        let child = libc::fork();
        if child == 0 {
            let report = match std::panic::catch_unwind(|| storm(plan)) {
                Ok(Ok(line)) => format!("+{line}"),
                Ok(Err(why)) => format!("-{why}"),
                Err(_) => "-panic".into(),
            };
            let mut out = File::from_raw_fd(ends[1]);
            out.write_all(report.as_bytes()).unwrap();
            libc::_exit(0);
        }
        libc::close(ends[1]);
        let mut report = String::new();
        File::from_raw_fd(ends[0])
            .read_to_string(&mut report)
            .unwrap();
        libc::waitpid(child, &mut 0, 0);
        match report.strip_prefix('+') {
            Some(line) => Ok(line.to_owned()),
            None => Err(format!("seed {}: {report}", plan.seed)),
        }
    }
}

/// Runs one kind of storm over seeds, each `times` times; all runs of a seed must agree.
fn sweep(title: &str, seeds: u64, times: u32, plan: impl Fn(u64) -> Plan) -> bool {
    let started = std::time::Instant::now();
    let (mut failures, mut digest) = (Vec::new(), 0_u64);
    for seed in 0..seeds {
        let first = forked(plan(seed));
        for _ in 1..times {
            let again = forked(plan(seed));
            if first != again {
                failures.push(format!("seed {seed} differs: {first:?} and {again:?}"));
            }
        }
        match first {
            Ok(line) => {
                digest = line.bytes().fold(digest, |d, b| {
                    (d ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)
                });
            }
            Err(why) => failures.push(why),
        }
    }
    let (failed, time) = (failures.len(), started.elapsed());
    println!("{title}: {seeds} seeds x {times}, {failed} failed, digest {digest:016x}");
    eprintln!("  {time:.1?}");
    failures.iter().take(5).for_each(|f| println!("  {f}"));
    failures.is_empty()
}

pub(crate) fn main() {
    World::pin_to_core(0);
    let mut seeds = 50;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        if arg == "--seeds" {
            seeds = args.next().and_then(|n| n.parse().ok()).expect("--seeds N");
        }
    }
    let mut good = true;
    for mode in CrashMode::ALL {
        let plan = |seed| Plan {
            seed,
            mode: Some(mode),
            ..QUIET
        };
        good &= sweep(&format!("one node, {mode:?}"), seeds, 1, plan);
    }
    let three = |seed| Plan {
        seed,
        nodes: 3,
        crashes: 8,
        ..QUIET
    };
    good &= sweep(
        "three nodes, kills and crashes, twice",
        seeds.min(30),
        2,
        three,
    );
    let five = |seed| Plan {
        seed,
        nodes: 5,
        crashes: 10,
        ..QUIET
    };
    good &= sweep("five nodes, twice", seeds.min(5), 2, five);
    let each = |op| Plan {
        seed: op,
        crashes: 1,
        first: Some(op + 1),
        ..QUIET
    };
    good &= sweep("a crash at each of the first calls", seeds * 8, 1, each);
    let strict = |seed| Plan {
        seed,
        strict: true,
        ..QUIET
    };
    good &= sweep("strict names", seeds, 1, strict);
    let faults = |seed| Plan {
        seed,
        faults: true,
        ..QUIET
    };
    good &= sweep("failing calls", seeds, 1, faults);
    let liar = |seed| Plan {
        seed,
        mode: Some(CrashMode::LoseAll),
        lies: true,
        ..QUIET
    };
    let tries = seeds.min(20);
    let caught = (0..tries)
        .filter(|seed| forked(liar(*seed)).is_err())
        .count() as u64;
    println!("control: lying syncs found out in {caught} of {tries} seeds");
    good &= caught * 2 > tries;
    std::process::exit(i32::from(!good));
}
