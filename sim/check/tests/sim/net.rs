//! Connections while nobody interferes.

use crate::support::*;
use bytes::Bytes;
use node::rt::Stream;
use rand::Rng;
use rand::RngCore;
use sim::NetConfig;
use sim::net::Span;
use std::io::ErrorKind;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[test]
fn connect_takes_a_round_trip_and_data_one_way() {
    simulate(1, exact(), |world| async move {
        let (a, b) = (env(&world, "a"), env(&world, "b"));
        let mut listener = b.net.listen("0.0.0.0:7000").await.unwrap();
        assert_eq!(listener.local_address(), "b:7000");
        let start = now();
        let mut caller = a.net.connect("b:7000").await.unwrap();
        assert!(near(now() - start, 2 * MS), "{:?}", now() - start);
        let (mut callee, from) = listener.accept().await.unwrap();
        assert!(from.starts_with("a:"), "{from}");
        let start = now();
        say(&mut caller, "ping").await;
        hear(&mut callee, "ping").await;
        assert!(near(now() - start, MS), "{:?}", now() - start);
    });
}

#[test]
fn latency_stays_in_its_bounds_and_loopback_is_fast() {
    let config = NetConfig {
        base: Span::micros(300, 500),
        jitter: Duration::from_micros(100),
        tail_chance: 0.0,
        partial_chance: 0.0,
        ..NetConfig::default()
    };
    simulate(2, config, |world| async move {
        let (mut caller, mut callee) = connected(&world).await;
        let mut seen = Vec::new();
        for _ in 0..500 {
            let start = now();
            say(&mut caller, "x").await;
            hear(&mut callee, "x").await;
            seen.push(now() - start);
        }
        let (min, max) = (*seen.iter().min().unwrap(), *seen.iter().max().unwrap());
        assert!(
            min >= Duration::from_micros(300) && max <= Duration::from_micros(605),
            "{min:?} {max:?}"
        );
        assert!(
            max - min > Duration::from_micros(80),
            "the base is permanent, the jitter is not"
        );

        let a = env(&world, "a");
        let mut listener = a.net.listen("a:5").await.unwrap();
        let start = now();
        let _caller = a.net.connect("127.0.0.1:5").await.unwrap();
        assert!(now() - start < Duration::from_micros(110));
        listener.accept().await.unwrap();
    });
}

#[test]
fn nobody_listening_refuses_after_a_round_trip() {
    simulate(3, exact(), |world| async move {
        let a = env(&world, "a");
        world.network.add_host("b");
        let start = now();
        let error = a.net.connect("b:9").await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert!(near(now() - start, 2 * MS));
        let error = a.net.connect("nowhere:9").await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::HostUnreachable);
        let error = a.net.connect("b").await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(world.network.counters().refused, 1);
        assert_eq!(world.network.open_connections(), 0);
    });
}

#[test]
fn ports_are_exclusive_and_freed() {
    simulate(4, exact(), |world| async move {
        let a = env(&world, "a");
        let first = a.net.listen("a:1").await.unwrap();
        let taken = a.net.listen("a:1").await.err().unwrap();
        assert_eq!(taken.kind(), ErrorKind::AddrInUse);
        drop(first);
        a.net.listen("a:1").await.unwrap();
        let (one, two) = (
            a.net.listen("a:0").await.unwrap(),
            a.net.listen("a:0").await.unwrap(),
        );
        assert_ne!(one.local_address(), two.local_address());
        world.network.add_host("b");
        let foreign = a.net.listen("b:1").await.err().unwrap();
        assert_eq!(foreign.kind(), ErrorKind::AddrNotAvailable);
    });
}

/// Sends `bytes` in writes of chance and reads them in reads of chance; they must arrive whole and in order.
async fn transfer(
    mut from: Stream,
    mut to: Stream,
    bytes: Bytes,
    mut rng: impl Rng + Send + 'static,
) -> Duration {
    let start = now();
    let sent = bytes.clone();
    let writer = tokio::spawn(async move {
        let mut rest = sent;
        while !rest.is_empty() {
            let part = rest.split_to(rng.random_range(1..=40_000).min(rest.len()));
            from.write_all(&part).await.unwrap();
        }
        from.shutdown().await.unwrap();
        from
    });
    let mut got = Vec::new();
    to.read_to_end(&mut got).await.unwrap();
    assert!(got == bytes, "bytes are lost, doubled or out of order");
    drop(writer.await.unwrap());
    now() - start
}

#[test]
fn bytes_arrive_in_order_whatever_the_network_does() {
    for seed in 0..20 {
        let config = NetConfig {
            loss: 0.05,
            partial_chance: 0.3,
            window_bytes: 20_000,
            jitter: 5 * MS,
            ..NetConfig::default()
        };
        simulate(seed, config, |world| async move {
            let (caller, callee) = connected(&world).await;
            let mut rng = world.rngs().stream("test");
            let mut bytes = vec![0; 1 << 20];
            rng.fill_bytes(&mut bytes);
            transfer(caller, callee, bytes.into(), rng).await;
            let counters = world.network.counters();
            assert_eq!(counters.bytes, 1 << 20);
            assert!(counters.partial > 0 && counters.retransmits > 0 && counters.window_stalls > 0);
            pause(S).await;
            assert_eq!(world.network.open_connections(), 0);
        });
    }
}

#[test]
fn bandwidth_is_shared_by_the_connections_of_a_link() {
    let config = NetConfig {
        bytes_per_s: 1_000_000,
        ..exact()
    };
    simulate(5, config, |world| async move {
        let (a, b) = (env(&world, "a"), env(&world, "b"));
        let mut listener = b.net.listen("b:1").await.unwrap();
        let mut pairs = Vec::new();
        for name in ["one", "two"] {
            let caller = a.net.connect("b:1").await.unwrap();
            let (callee, _) = listener.accept().await.unwrap();
            pairs.push((caller, callee, world.rngs().stream(name)));
        }
        let bytes = || Bytes::from(vec![7; 1_000_000]);
        let start = |(caller, callee, rng)| tokio::spawn(transfer(caller, callee, bytes(), rng));
        let transfers: Vec<_> = pairs.into_iter().map(start).collect();
        let mut last = Duration::ZERO;
        for transfer in transfers {
            let took = transfer.await.unwrap();
            // Alone it would take one second.
            assert!(took > Duration::from_millis(1_300), "{took:?}");
            last = last.max(took);
        }
        assert!(last > 2 * S && last < 2 * S + 10 * MS, "{last:?}");
    });
}

#[test]
fn half_closed_connection_lives_in_the_other_direction() {
    simulate(6, exact(), |world| async move {
        let (mut caller, mut callee) = connected(&world).await;
        say(&mut caller, "question").await;
        caller.shutdown().await.unwrap();
        let mut all = String::new();
        callee.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "question");
        pause(S).await;
        say(&mut callee, "answer").await;
        hear(&mut caller, "answer").await;
        let error = caller.write(b"more").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        drop(callee);
        assert_eq!(caller.read(&mut [0; 8]).await.unwrap(), 0);
    });
}

#[test]
fn dropped_stream_delivers_what_was_written_and_ends() {
    simulate(7, exact(), |world| async move {
        let (mut caller, mut callee) = connected(&world).await;
        say(&mut caller, "last words").await;
        drop(caller);
        hear(&mut callee, "last words").await;
        assert_eq!(callee.read(&mut [0; 8]).await.unwrap(), 0);
        // The first write travels and comes back as a reset; the next one knows.
        say(&mut callee, "too late").await;
        pause(3 * MS).await;
        let error = callee.write(b"again").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        drop(callee);
        pause(S).await;
        assert_eq!(world.network.open_connections(), 0);
    });
}

#[test]
fn dropping_unread_data_resets_the_peer() {
    simulate(8, exact(), |world| async move {
        let (mut caller, callee) = connected(&world).await;
        say(&mut caller, "unread").await;
        pause(2 * MS).await;
        drop(callee);
        let error = caller.read(&mut [0; 8]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert_eq!(
            caller.write(b"x").await.unwrap_err().kind(),
            ErrorKind::ConnectionReset
        );
        assert_eq!(
            caller.write(b"x").await.unwrap_err().kind(),
            ErrorKind::BrokenPipe
        );
    });
}

#[test]
fn writer_blocks_at_the_window_and_goes_on_when_it_is_read() {
    simulate(9, exact(), |world| async move {
        let (mut caller, mut callee) = connected(&world).await;
        let written = std::sync::Arc::new(std::sync::Mutex::new(0));
        let count = std::sync::Arc::clone(&written);
        let writer = tokio::spawn(async move {
            let block = vec![1; 10_000];
            for _ in 0..1_000 {
                caller.write_all(&block).await.unwrap();
                *count.lock().unwrap() += block.len();
            }
            drop(caller);
        });
        pause(60 * S).await;
        let blocked_at = *written.lock().unwrap();
        assert!(
            blocked_at <= 256 << 10 && blocked_at > (256 << 10) - 10_000,
            "{blocked_at}"
        );
        let mut all = Vec::new();
        callee.read_to_end(&mut all).await.unwrap();
        assert_eq!(all.len(), 10_000_000);
        writer.await.unwrap();
    });
}

#[test]
fn abandoned_call_leaves_nothing_behind() {
    simulate(10, exact(), |world| async move {
        let (a, b) = (env(&world, "a"), env(&world, "b"));
        let mut listener = b.net.listen("b:1").await.unwrap();
        for span in [0, 1, 2] {
            let call = within(span * MS + MS / 2, a.net.connect("b:1")).await;
            drop(call);
            pause(10 * MS).await;
        }
        // Only the call that was answered in time ever reached the listener, and it has ended since.
        let (mut callee, _) = listener.accept().await.unwrap();
        assert_eq!(callee.read(&mut [0; 8]).await.unwrap(), 0);
        assert!(within(S, listener.accept()).await.is_none());
        drop(callee);
        pause(S).await;
        assert_eq!(world.network.open_connections(), 0);
    });
}

#[test]
fn bytes_arrive_whole_through_short_outages() {
    for seed in 0..10 {
        let config = NetConfig {
            bytes_per_s: 100_000,
            partial_chance: 0.1,
            ..NetConfig::default()
        };
        simulate(seed, config, |world| async move {
            let (caller, callee) = connected(&world).await;
            let mut rng = world.rngs().stream("test");
            let mut bytes = vec![0; 1 << 20];
            rng.fill_bytes(&mut bytes);
            let nemesis = world.clone();
            drop(tokio::spawn(async move {
                let mut rng = nemesis.rngs().stream("nemesis");
                loop {
                    let (from, to) = [("a", "b"), ("b", "a")][rng.random_range(0..2)];
                    let span = Duration::from_millis(rng.random_range(1..4_000));
                    nemesis.network.clog(from, to, span);
                    pause(Duration::from_millis(rng.random_range(1..8_000))).await;
                }
            }));
            let took = transfer(caller, callee, bytes.into(), rng).await;
            assert!(took > 10 * S && took < 200 * S, "{took:?}");
            let counters = world.network.counters();
            assert_eq!((counters.give_ups, counters.resets), (0, 0));
        });
    }
}
