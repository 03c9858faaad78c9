//! Connections under partitions, resets, kills and power losses.

use crate::support::*;
use node::rt::Stream;
use sim::net::{NetTrace, Note};
use sim::{NetConfig, Network, SimWorld};
use std::io::ErrorKind;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The kind of error that reading gives.
async fn read_error(stream: &mut Stream) -> ErrorKind {
    stream.read(&mut [0; 64]).await.unwrap_err().kind()
}

#[test]
fn connect_hangs_through_a_partition_until_it_heals() {
    simulate(1, exact(), |world| async move {
        let (a, b) = (env(&world, "a"), env(&world, "b"));
        let _listener = b.net.listen("b:1").await.unwrap();
        world.network.isolate("b");
        let healer = world.clone();
        drop(tokio::spawn(async move {
            pause(10 * S).await;
            healer.network.rejoin("b");
        }));
        let start = now();
        a.net.connect("b:1").await.unwrap();
        // The first packet is repeated after 1, 3, 7 and 15 s.
        assert!(near(now() - start, 15 * S + 2 * MS), "{:?}", now() - start);
        assert_eq!(world.network.counters().hangs, 1);
    });
}

#[test]
fn connect_gives_up_after_127_seconds_in_either_direction() {
    simulate(2, exact(), |world| async move {
        let (a, b) = (env(&world, "a"), env(&world, "b"));
        let _listener = b.net.listen("b:1").await.unwrap();
        for (from, to) in [("a", "b"), ("b", "a")] {
            world.network.block(from, to);
            let start = now();
            let error = a.net.connect("b:1").await.err().unwrap();
            assert_eq!(error.kind(), ErrorKind::TimedOut);
            assert!(near(now() - start, 127 * S), "{:?}", now() - start);
            world.network.heal_all();
        }
        assert_eq!(world.network.open_connections(), 0);
    });
}

#[test]
fn data_waits_for_the_heal_and_resumes_within_seconds() {
    simulate(3, exact(), |world| async move {
        let (mut caller, mut callee) = connected(&world).await;
        for outage in [1, 4, 12] {
            world.network.partition(&[&["a"], &["b"]]);
            assert!(world.network.is_blocked("a", "b") && world.network.is_blocked("b", "a"));
            say(&mut caller, "held").await;
            assert!(within(outage * S, callee.read(&mut [0; 1])).await.is_none());
            world.network.heal_all();
            let start = now();
            hear(&mut callee, "held").await;
            assert!(now() - start <= 3 * S + 2 * MS, "{:?}", now() - start);
            say(&mut callee, "back").await;
            hear(&mut caller, "back").await;
        }
    });
}

#[test]
fn packets_under_way_are_dropped_when_the_block_begins() {
    simulate(4, exact(), |world| async move {
        let (mut caller, mut callee) = connected(&world).await;
        say(&mut caller, "x").await;
        world.network.clog("a", "b", 50 * MS);
        let start = now();
        hear(&mut callee, "x").await;
        assert!(
            now() - start >= 200 * MS,
            "sent again after the first time-out only"
        );
        assert_eq!(world.network.counters().retransmits, 1);
    });
}

#[test]
fn asymmetric_partition_delivers_one_way_and_fails_the_sender_without_acknowledgement() {
    simulate(5, exact(), |world| async move {
        let (mut caller, mut callee) = connected(&world).await;
        world.network.block("b", "a");
        say(&mut caller, "one way").await;
        hear(&mut callee, "one way").await;
        say(&mut callee, "lost").await;
        let start = now();
        assert_eq!(read_error(&mut caller).await, ErrorKind::TimedOut);
        assert!(now() - start <= 16 * S);
        // The callee's own data was never acknowledged either.
        assert_eq!(read_error(&mut callee).await, ErrorKind::TimedOut);
        assert!(now() - start <= 20 * S);
    });
}

#[test]
fn short_asymmetric_partition_costs_nothing_but_time() {
    simulate(6, exact(), |world| async move {
        let (mut caller, mut callee) = connected(&world).await;
        world.network.clog("b", "a", 8 * S);
        say(&mut caller, "one way").await;
        hear(&mut callee, "one way").await;
        say(&mut callee, "late").await;
        hear(&mut caller, "late").await;
        pause(60 * S).await;
        say(&mut caller, "fine").await;
        hear(&mut callee, "fine").await;
        assert_eq!(world.network.counters().give_ups, 0);
    });
}

#[test]
fn writer_with_a_full_window_notices_a_silent_peer() {
    simulate(7, exact(), |world| async move {
        let (mut caller, _callee) = connected(&world).await;
        caller.write_all(&vec![0; 256 << 10]).await.unwrap();
        pause(S).await;
        world.network.isolate("a");
        let start = now();
        let error = caller.write(b"x").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(now() - start < 25 * S, "{:?}", now() - start);
    });
}

#[test]
fn power_loss_is_silent_and_answers_with_a_reset_after_the_restart() {
    simulate(8, exact(), |world| async move {
        let (mut caller, mut callee) = connected(&world).await;
        world.network.host_power_loss("b");
        assert_eq!(read_error(&mut callee).await, ErrorKind::ConnectionAborted);
        assert!(
            within(60 * S, caller.read(&mut [0; 1])).await.is_none(),
            "silence"
        );
        drop(callee);
        world.network.host_up("b");
        assert!(
            within(60 * S, caller.read(&mut [0; 1])).await.is_none(),
            "nobody asks, nobody answers"
        );
        say(&mut caller, "there?").await;
        let start = now();
        assert_eq!(read_error(&mut caller).await, ErrorKind::ConnectionReset);
        assert!(near(now() - start, 2 * MS), "{:?}", now() - start);
    });
}

#[test]
fn writes_to_a_host_without_power_time_out_and_calls_hang() {
    simulate(9, exact(), |world| async move {
        let (mut caller, _callee) = connected(&world).await;
        world.network.host_power_loss("b");
        say(&mut caller, "there?").await;
        let start = now();
        assert_eq!(read_error(&mut caller).await, ErrorKind::TimedOut);
        assert!(now() - start >= 15 * S && now() - start < 19 * S);
        let a = env(&world, "a");
        assert!(within(30 * S, a.net.connect("b:1")).await.is_none());
        world.network.host_up("b");
        let error = a.net.connect("b:1").await.err().unwrap();
        assert_eq!(
            error.kind(),
            ErrorKind::ConnectionRefused,
            "up, but nobody listens"
        );
    });
}

#[test]
fn killed_process_closes_its_connections_at_once() {
    simulate(10, exact(), |world| async move {
        let (a, b) = (env(&world, "a"), env(&world, "b"));
        let mut listener = b.net.listen("b:1").await.unwrap();
        let mut idle = a.net.connect("b:1").await.unwrap();
        let mut busy = a.net.connect("b:1").await.unwrap();
        let mut waiting = a.net.connect("b:1").await.unwrap();
        let (mut idle_callee, _) = listener.accept().await.unwrap();
        let (_busy_callee, _) = listener.accept().await.unwrap();
        say(&mut busy, "never read").await;
        pause(5 * MS).await;
        world.network.host_killed("b");
        let start = now();
        assert_eq!(
            idle.read(&mut [0; 8]).await.unwrap(),
            0,
            "nothing unread: an ordinary end"
        );
        assert_eq!(read_error(&mut busy).await, ErrorKind::ConnectionReset);
        assert_eq!(read_error(&mut waiting).await, ErrorKind::ConnectionReset);
        assert!(near(now() - start, MS), "{:?}", now() - start);

        // The old process can do nothing any more, whatever its destructors try.
        assert_eq!(
            idle_callee.write(b"x").await.unwrap_err().kind(),
            ErrorKind::ConnectionAborted
        );
        assert_eq!(
            listener.accept().await.err().unwrap().kind(),
            ErrorKind::ConnectionAborted
        );
        assert!(b.net.listen("b:2").await.is_err() && b.net.connect("a:1").await.is_err());
        let error = a.net.connect("b:1").await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);

        let again = env(&world, "b");
        let mut reopened = again.net.listen("b:1").await.unwrap();
        drop(listener);
        let mut caller = a.net.connect("b:1").await.unwrap();
        let (mut callee, _) = reopened.accept().await.unwrap();
        say(&mut caller, "new life").await;
        hear(&mut callee, "new life").await;
    });
}

#[test]
fn a_kill_behind_a_partition_is_not_heard() {
    simulate(11, exact(), |world| async move {
        let (mut caller, _callee) = connected(&world).await;
        world.network.isolate("b");
        world.network.host_killed("b");
        assert!(within(10 * S, caller.read(&mut [0; 1])).await.is_none());
        world.network.rejoin("b");
        assert_eq!(
            caller.read(&mut [0; 1]).await.unwrap(),
            0,
            "the kernel sends its end again"
        );
    });
}

#[test]
fn madsim_kill_pause_and_restart_go_with_the_network() {
    simulate(12, exact(), |world| async move {
        let handle = madsim::runtime::Handle::current();
        let served = world.clone();
        let node = handle
            .create_node()
            .name("b")
            .init(move || {
                let world = served.clone();
                async move {
                    let env = env(&world, "b");
                    let mut listener = env.net.listen("b:1").await.unwrap();
                    loop {
                        let (mut stream, _) = listener.accept().await.unwrap();
                        drop(tokio::spawn(async move {
                            let mut buffer = [0; 64];
                            while let Ok(len @ 1..) = stream.read(&mut buffer).await {
                                if stream.write_all(&buffer[..len]).await.is_err() {
                                    return;
                                }
                            }
                        }));
                    }
                }
            })
            .build();
        let a = env(&world, "a");
        pause(MS).await;
        let mut stream = a.net.connect("b:1").await.unwrap();
        say(&mut stream, "echo").await;
        hear(&mut stream, "echo").await;

        handle.pause(node.id());
        let mut second = a.net.connect("b:1").await.unwrap();
        say(&mut second, "kernel answers").await;
        assert!(within(S, second.read(&mut [0; 1])).await.is_none());
        handle.resume(node.id());
        hear(&mut second, "kernel answers").await;

        world.network.host_power_loss("b");
        handle.kill(node.id());
        assert!(within(S, stream.read(&mut [0; 1])).await.is_none());
        world.network.host_up("b");
        handle.restart(node.id());
        pause(MS).await;
        let mut third = a.net.connect("b:1").await.unwrap();
        say(&mut third, "again").await;
        hear(&mut third, "again").await;
        handle.kill(node.id());
    });
}

#[test]
fn injected_reset_hits_both_ends() {
    simulate(13, exact(), |world| async move {
        let (mut caller, mut callee) = connected(&world).await;
        assert_eq!(world.network.reset("b", "a"), 1);
        assert_eq!(read_error(&mut caller).await, ErrorKind::ConnectionReset);
        assert_eq!(read_error(&mut callee).await, ErrorKind::ConnectionReset);
    });
}

#[test]
fn slow_and_squeezed_links_are_so_for_their_time() {
    simulate(14, exact(), |world| async move {
        let (mut caller, mut callee) = connected(&world).await;
        world.network.slow("a", "b", 300 * MS, 10 * S);
        let start = now();
        say(&mut caller, "slow").await;
        hear(&mut callee, "slow").await;
        assert!(near(now() - start, 301 * MS));
        pause(10 * S).await;
        world.network.squeeze("a", "b", 1_000, 10 * S);
        let start = now();
        say(&mut caller, &"x".repeat(1_000)).await;
        hear(&mut callee, &"x".repeat(1_000)).await;
        assert!(near(now() - start, S + MS));
        world.network.calm_all();
        let start = now();
        say(&mut caller, "fast").await;
        hear(&mut callee, "fast").await;
        assert!(near(now() - start, MS));
    });
}

#[test]
fn bits_flip_when_asked() {
    simulate(15, exact(), |world| async move {
        let (mut caller, mut callee) = connected(&world).await;
        world.network.set_flip_chance("a", "b", 1.0);
        say(&mut caller, "abcdefgh").await;
        let mut got = [0; 8];
        callee.read_exact(&mut got).await.unwrap();
        let bits: u32 = got
            .iter()
            .zip(b"abcdefgh")
            .map(|(left, right)| (left ^ right).count_ones())
            .sum();
        assert_eq!(bits, 1);
    });
}

/// The story of a swizzle, as text.
fn swizzled(seed: u64) -> Vec<String> {
    let notes = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&notes);
    let trace = Arc::new(move |at: Duration, note: &Note| {
        kept.lock().unwrap().push(format!("{at:?} {note:?}"));
    });
    simulate_traced(
        seed,
        NetConfig::default(),
        trace,
        sim::lane::no_debt,
        |world: SimWorld| async move {
            for host in ["a", "b", "c", "d", "e"] {
                world.network.add_host(host);
            }
            world.network.swizzle(&["a", "c", "d"], 10 * S);
            pause(11 * S).await;
            for from in ["a", "b", "c", "d", "e"] {
                for to in ["a", "b", "c", "d", "e"] {
                    assert!(!world.network.is_blocked(from, to));
                }
            }
        },
    );
    let notes = notes.lock().unwrap();
    notes.clone()
}

#[test]
fn swizzle_blocks_and_heals_every_link_of_its_hosts() {
    let story = swizzled(16);
    let blocked = story.iter().filter(|line| line.contains("Blocked")).count();
    let healed = story.iter().filter(|line| line.contains("Healed")).count();
    assert_eq!(blocked, healed);
    // Three of five hosts: all pairs but those between the other two.
    assert!(blocked >= 18, "{story:#?}");
    assert_ne!(story, swizzled(17));
    assert_eq!(story, swizzled(16));
}

#[test]
fn ended_network_wakes_everybody() {
    simulate(18, exact(), |world| async move {
        let (mut caller, _callee) = connected(&world).await;
        let network: Network = world.network.clone();
        drop(tokio::spawn(async move {
            pause(S).await;
            network.shutdown();
        }));
        assert!(caller.read(&mut [0; 1]).await.is_err());
    });
}

#[test]
#[should_panic(expected = "no host nobody")]
fn misspelt_fault_ends_the_run_with_its_own_panic() {
    simulate(19, exact(), |world| async move {
        // Streams that are alive are dropped by the panic, and come back to the network.
        let _open = connected(&world).await;
        world.network.isolate("nobody");
    });
}

#[test]
fn full_backlog_makes_calls_wait() {
    let config = NetConfig {
        backlog_len_max: 1,
        ..exact()
    };
    simulate(20, config, |world| async move {
        let (a, b) = (env(&world, "a"), env(&world, "b"));
        let mut listener = b.net.listen("b:1").await.unwrap();
        let _first = a.net.connect("b:1").await.unwrap();
        pause(5 * MS).await;
        assert!(within(500 * MS, a.net.connect("b:1")).await.is_none());
        let call = tokio::spawn(async move { a.net.connect("b:1").await });
        pause(10 * MS).await;
        listener.accept().await.unwrap();
        let start = now();
        drop(call.await.unwrap().unwrap());
        assert!(now() - start > 900 * MS && now() - start < 1_100 * MS);
    });
}

#[test]
fn nothing_of_a_run_survives_it() {
    let trace: NetTrace = Arc::new(|_, _| {});
    let alive = Arc::downgrade(&trace);
    simulate_traced(21, exact(), trace, sim::lane::no_debt, |world| async move {
        let handle = madsim::runtime::Handle::current();
        let served = world.clone();
        let node = handle
            .create_node()
            .init(move || {
                let world = served.clone();
                async move {
                    let env = env(&world, "b");
                    let mut listener = env.net.listen("b:1").await.unwrap();
                    let lane = env.lanes.open("wal");
                    loop {
                        let (mut stream, _) = listener.accept().await.unwrap();
                        let (clock, lane) = (env.clock.clone(), lane.clone());
                        drop(tokio::spawn(async move {
                            lane.run(|| ()).await.unwrap();
                            let mut buffer = [0; 8];
                            drop(clock.timeout(1_000 * S, stream.read(&mut buffer)).await);
                        }));
                    }
                }
            })
            .build();
        pause(MS).await;
        let a = env(&world, "a");
        let _stream = a.net.connect("b:1").await.unwrap();
        pause(S).await;
        // How a runner ends a run: kill the nodes, end the network, let both be noticed.
        handle.kill(node.id());
        world.network.shutdown();
        pause(MS).await;
    });
    assert!(
        alive.upgrade().is_none(),
        "tasks of the run hold the network"
    );
}
