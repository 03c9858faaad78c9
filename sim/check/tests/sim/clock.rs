//! Clocks that drift, jump and stand.

use crate::support::*;
use node::rt::{Clock, Mono};
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::time::Duration;

#[test]
fn drift_is_exact_over_a_hundred_seconds() {
    simulate(1, exact(), |world| async move {
        for (host, ppm) in [("fast", 500), ("slow", -500), ("true", 0), ("wild", 50_000)] {
            world.clocks.set_drift(host, ppm);
            let clock = env(&world, host).clock;
            let (start, local, wall) = (now(), clock.now(), clock.wall_ms());
            clock.sleep(100 * S).await;
            let passed = (now() - start).as_secs_f64();
            let wanted = 100.0 / (1.0 + ppm as f64 / 1e6);
            assert!(
                (passed - wanted).abs() < 1e-6,
                "{host}: {passed} for {wanted}"
            );
            let slept = clock.now().since(local);
            assert!(
                slept >= 100 * S && near(slept, 100 * S),
                "{host}: {slept:?}"
            );
            assert!((clock.wall_ms() - wall).abs_diff(100_000) <= 1);
        }
    });
}

#[test]
fn sleep_ends_at_its_local_time_when_the_rate_changes() {
    simulate(2, exact(), |world| async move {
        let clock = env(&world, "a").clock;
        let sleeper = tokio::spawn(sleep_and_read(clock.clone(), 100 * S));
        let start = now();
        pause(40 * S).await;
        world.clocks.set_drift("a", 100_000);
        let end = sleeper.await.unwrap();
        assert!(near(end.0, 100 * S) && end.0 >= 100 * S, "{end:?}");
        let wanted = 40.0 + 60.0 / 1.1;
        assert!(((now() - start).as_secs_f64() - wanted).abs() < 1e-3);

        let sleeper = tokio::spawn(sleep_and_read(clock.clone(), 10 * S));
        let before = clock.now();
        pause(S).await;
        world.clocks.set_drift("a", -100_000);
        let end = sleeper.await.unwrap();
        assert!(near(end.since(before), 10 * S), "{:?}", end.since(before));
    });
}

/// Sleeps and gives the clock's reading then.
async fn sleep_and_read(clock: Clock, span: Duration) -> Mono {
    clock.sleep(span).await;
    clock.now()
}

#[test]
fn wall_jumps_do_not_touch_the_monotonic_clock() {
    simulate(3, exact(), |world| async move {
        let clock = env(&world, "a").clock;
        let (start, wall) = (now(), clock.wall_ms());
        assert!(wall >= sim::clock::EPOCH_MS);
        let sleeper = tokio::spawn(sleep_and_read(clock.clone(), 10 * S));
        pause(S).await;
        world.clocks.jump_wall("a", 3_600_000);
        let passed = clock.wall_ms() - wall - 3_600_000;
        assert!((1_000..=1_001).contains(&passed), "{passed}");
        let before = clock.wall_ms();
        world.clocks.jump_wall("a", -7_200_000);
        assert_eq!(clock.wall_ms(), before - 7_200_000);
        sleeper.await.unwrap();
        assert!(near(now() - start, 10 * S));
        assert_ne!(env(&world, "b").clock.wall_ms(), clock.wall_ms());
    });
}

#[test]
fn frozen_wall_clock_goes_on_where_it_stood() {
    simulate(4, exact(), |world| async move {
        let clock = env(&world, "a").clock;
        let wall = clock.wall_ms();
        world.clocks.freeze_wall("a", 5 * S);
        let mono = clock.now();
        clock.sleep(4 * S).await;
        assert_eq!(clock.wall_ms(), wall);
        assert!(near(clock.now().since(mono), 4 * S));
        world.clocks.jump_wall("a", 10);
        assert_eq!(clock.wall_ms(), wall + 10);
        clock.sleep(4 * S).await;
        assert!(
            (clock.wall_ms() - wall).abs_diff(3_010) <= 1,
            "{}",
            clock.wall_ms() - wall
        );
    });
}

#[test]
fn suspended_machine_finds_its_sleeps_over() {
    simulate(5, exact(), |world| async move {
        let clock = env(&world, "a").clock;
        let (start, wall) = (now(), clock.wall_ms());
        let sleeper = tokio::spawn(sleep_and_read(clock.clone(), 60 * S));
        pause(S).await;
        world.clocks.jump_mono("a", 100 * S);
        let end = sleeper.await.unwrap();
        assert!(near(end.0, 101 * S) || end.0 > 101 * S);
        assert!(now() - start < 2 * S);
        assert!(clock.wall_ms() >= wall + 101_000);
    });
}

#[test]
fn sleeps_are_exact_above_a_millisecond_and_never_shorter() {
    simulate(6, exact(), |world| async move {
        let clock = env(&world, "a").clock;
        for (asked_us, wanted_us) in [
            (0, 1_000),
            (10, 1_000),
            (1_000, 1_000),
            (1_234, 1_234),
            (50_001, 50_001),
        ] {
            let start = now();
            clock.sleep(Duration::from_micros(asked_us)).await;
            let took = now() - start;
            assert!(
                near(took, Duration::from_micros(wanted_us)),
                "{asked_us}: {took:?}"
            );
        }
        pause(S).await;
        let start = now();
        clock.sleep_until(Mono(Duration::from_millis(1))).await;
        assert_eq!(now(), start, "a deadline that has passed is ready at once");
        let late = clock.timeout(5 * MS, std::future::pending::<()>()).await;
        assert_eq!(late.unwrap_err().after, 5 * MS);
        assert_eq!(clock.timeout(S, async { 7 }).await, Ok(7));
    });
}

#[test]
fn endless_sleep_does_not_overflow() {
    simulate(7, exact(), |world| async move {
        let clock = env(&world, "a").clock;
        assert!(within(S, clock.sleep(Duration::MAX)).await.is_none());
        world.clocks.set_drift("a", -100_000);
        assert!(within(S, clock.sleep(Duration::MAX)).await.is_none());
    });
}

#[test]
fn dropped_sleeps_wake_nobody_later() {
    simulate(8, exact(), |world| async move {
        let clock = env(&world, "a").clock;
        let polls = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&polls);
        let busy = clock.clone();
        drop(tokio::spawn(async move {
            for _ in 0..100 {
                busy.timeout(10 * S, busy.sleep(MS)).await.unwrap();
            }
            poll_fn::<(), _>(|_| {
                counted.fetch_add(1, Ordering::Relaxed);
                Poll::Pending
            })
            .await;
        }));
        clock.sleep(60 * S).await;
        assert_eq!(polls.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn each_process_starts_its_monotonic_clock_at_zero() {
    simulate(9, exact(), |world| async move {
        let first = env(&world, "a").clock;
        first.sleep(50 * S).await;
        let second = env(&world, "a").clock;
        assert_eq!(second.now(), Mono::default());
        assert!(near(first.now().0, 50 * S));
        let start = now();
        second.sleep_until(Mono(10 * S)).await;
        assert!(near(now() - start, 10 * S));
        assert_eq!(first.wall_ms(), second.wall_ms());
    });
}
