//! Same seed, same trace: within a process and between processes.

use crate::support::*;
use node::rt::Rngs;
use rand::Rng;
use sim::NetConfig;
use sim::SimWorld;
use sim::net::Note;
use std::io::ErrorKind;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use xxhash_rust::xxh3::Xxh3;

/// Seeds whose traces are compared.
const SEEDS: std::ops::Range<u64> = 100..105;
/// Tells a child process to print its traces.
const CHILD: &str = "SIM_CHECK_CHILD";
/// The hosts of the story.
const HOSTS: [&str; 4] = ["n1", "n2", "n3", "n4"];

/// A rolling hash.
type Hash = Arc<Mutex<Xxh3>>;

/// Adds `text` with the simulation's time.
fn note(hash: &Hash, text: &str) {
    let line = format!("{:?} {text}\n", now());
    hash.lock().unwrap().update(line.as_bytes());
}

/// Echoes on port 1 of `host` for ever.
async fn serve(world: SimWorld, host: &'static str, hash: Hash) {
    let env = env(&world, host);
    let Ok(mut listener) = env.net.listen(&format!("{host}:1")).await else {
        return;
    };
    while let Ok((mut stream, from)) = listener.accept().await {
        note(&hash, &from);
        let hash = Arc::clone(&hash);
        drop(tokio::spawn(async move {
            let mut buffer = [0; 2_000];
            while let Ok(len @ 1..) = stream.read(&mut buffer).await {
                note(&hash, &format!("{host} {len}"));
                if stream.write_all(&buffer[..len]).await.is_err() {
                    return;
                }
            }
        }));
    }
}

/// Calls hosts of chance with messages of chance, until its process is killed.
async fn call(world: SimWorld, host: &'static str, hash: Hash) {
    let env = env(&world, host);
    let mut rng = env.rngs.stream("calls");
    loop {
        let to = HOSTS[rng.random_range(0..HOSTS.len())];
        let text = vec![7; rng.random_range(1..5_000)];
        let talk = async {
            let mut stream = env.net.connect(&format!("{to}:1")).await?;
            stream.write_all(&text).await?;
            let mut back = vec![0; text.len()];
            stream.read_exact(&mut back).await
        };
        let outcome = env.clock.timeout(2 * S, talk).await;
        note(&hash, &format!("{host}>{to} {outcome:?}"));
        if matches!(outcome, Ok(Err(error)) if error.kind() == ErrorKind::ConnectionAborted) {
            return;
        }
        let span = Duration::from_millis(rng.random_range(1..100));
        env.clock.sleep(span).await;
    }
}

/// Starts the tasks of `host`'s next process.
fn start(world: &SimWorld, host: &'static str, hash: &Hash) {
    drop(tokio::spawn(serve(world.clone(), host, Arc::clone(hash))));
    drop(tokio::spawn(call(world.clone(), host, Arc::clone(hash))));
}

/// Faults of chance.
async fn disturb(world: SimWorld, hash: Hash) {
    let mut rng = world.rngs().stream("nemesis");
    for _ in 0..80 {
        let host = HOSTS[rng.random_range(0..HOSTS.len())];
        let other = HOSTS[rng.random_range(0..HOSTS.len())];
        match rng.random_range(0..10) {
            0 => world.network.isolate(host),
            1 => world.network.clog(host, other, S),
            2 => world.network.swizzle(&HOSTS, 3 * S),
            3 => drop(world.network.reset(host, other)),
            4 => world.network.slow(host, other, 50 * MS, S),
            5 => world.clocks.set_drift(host, rng.random_range(-500..500)),
            6 => world
                .clocks
                .jump_wall(host, rng.random_range(-5_000..5_000)),
            7 => {
                world.network.host_killed(host);
                start(&world, host, &hash);
            }
            8 => {
                world.network.host_power_loss(host);
                pause(Duration::from_millis(rng.random_range(1..5_000))).await;
                world.network.host_up(host);
                start(&world, host, &hash);
            }
            _ => world.network.heal_all(),
        }
        pause(Duration::from_millis(rng.random_range(1..1_000))).await;
    }
}

/// Ends every process and waits until the network has forgotten their connections.
async fn settle(world: &SimWorld) {
    world.network.heal_all();
    for host in HOSTS {
        world.network.host_killed(host);
    }
    pause(200 * S).await;
    assert_eq!(world.network.open_connections(), 0);
}

/// The hash of everything that happens in the story of `seed`.
fn trace(seed: u64) -> u64 {
    let hash: Hash = Arc::new(Mutex::new(Xxh3::new()));
    let noted = Arc::clone(&hash);
    let tell = Arc::new(move |_: Duration, told: &Note| note(&noted, &format!("{told:?}")));
    let mut rng = Rngs::from_seed([seed as u8; 32]).stream("config");
    let config = NetConfig {
        loss: 0.01,
        ..NetConfig::draw(&mut rng)
    };
    let heard = Arc::clone(&hash);
    let counters = simulate_traced(seed, config, tell, sim::lane::no_debt, |world| async move {
        for host in HOSTS {
            world.network.add_host(host);
        }
        for host in HOSTS {
            start(&world, host, &heard);
        }
        disturb(world.clone(), Arc::clone(&heard)).await;
        settle(&world).await;
        world.network.counters()
    });
    assert!(
        counters.connects > 100 && counters.hangs > 0 && counters.retransmits > 0,
        "{counters:?}"
    );
    let mut hash = hash.lock().unwrap();
    hash.update(format!("{counters:?}").as_bytes());
    hash.digest()
}

/// The traces of all seeds, as text.
fn traces() -> String {
    SEEDS.map(|seed| format!("{:016x};", trace(seed))).collect()
}

#[test]
fn same_seed_gives_the_same_trace_in_three_processes() {
    if std::env::var(CHILD).is_ok() {
        println!("traces={}", traces());
        return;
    }
    let mine = format!("traces={}\n", traces());
    for _ in 0..2 {
        let child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "--nocapture",
                "determinism::same_seed_gives_the_same_trace_in_three_processes",
            ])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let printed = String::from_utf8(child.stdout).unwrap();
        assert!(printed.contains(&mine), "{mine} is not in {printed}");
    }
    // A different seed is a different story, and a seed alone is the same as one in a batch.
    assert_ne!(trace(100), trace(101));
    assert!(mine.contains(&format!("{:016x};", trace(104))));
}
