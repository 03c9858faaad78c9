//! Lanes: order, costs, and their end.

use crate::support::*;
use node::rt::lane::{Closed, Lane};
use sim::{Network, SimWorld};
use std::cell::Cell;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

thread_local! {
    /// What the jobs of this thread's simulation have cost, in nanoseconds.
    static DEBT_NS: Cell<u64> = const { Cell::new(0) };
}

/// The bill.
fn take_debt() -> u64 {
    DEBT_NS.take()
}

/// Charges `span`.
fn cost(span: Duration) {
    DEBT_NS.set(DEBT_NS.get() + span.as_nanos() as u64);
}

/// A simulation with costs.
fn simulate_lane<T, F>(seed: u64, story: impl FnOnce(SimWorld, Lane) -> F + Send + 'static) -> T
where
    T: Send + 'static,
    F: Future<Output = T>,
{
    simulate_traced(seed, exact(), Network::untraced(), take_debt, |world| {
        let lane = env(&world, "a").lanes.open("wal");
        story(world, lane)
    })
}

#[test]
fn jobs_run_in_order_and_cost_their_time() {
    simulate_lane(1, |_, lane| async move {
        let order = Arc::new(Mutex::new(Vec::new()));
        let start = now();
        let jobs: Vec<_> = (0..100)
            .map(|number| {
                let order = Arc::clone(&order);
                lane.run(move || {
                    order.lock().unwrap().push(number);
                    cost(Duration::from_micros(500));
                    number * 2
                })
            })
            .collect();
        for (number, job) in jobs.into_iter().enumerate() {
            assert_eq!(job.await, Ok(number * 2));
        }
        assert_eq!(*order.lock().unwrap(), (0..100).collect::<Vec<_>>());
        let took = now() - start;
        assert!(took >= 50 * MS && took < 52 * MS, "{took:?}");
    });
}

#[test]
fn effects_land_at_different_moments_of_a_job() {
    simulate_lane(2, |_, lane| async move {
        let mut shares = Vec::new();
        for _ in 0..50 {
            let start = now();
            let ran = lane.run(|| {
                cost(MS);
                now()
            });
            shares.push(ran.await.unwrap() - start);
        }
        let (min, max) = (
            shares[1..].iter().min().unwrap(),
            shares[1..].iter().max().unwrap(),
        );
        assert!(*min < MS / 5 && *max > MS * 4 / 5, "{min:?} {max:?}");
    });
}

#[test]
fn small_costs_add_up_instead_of_costing_timers() {
    simulate_lane(3, |_, lane| async move {
        let start = now();
        for _ in 0..1_000 {
            lane.run(|| cost(Duration::from_micros(1))).await.unwrap();
        }
        let took = now() - start;
        assert!(
            took >= Duration::from_micros(950) && took < Duration::from_micros(1_500),
            "{took:?}"
        );
    });
}

#[test]
fn what_a_dead_process_left_unpaid_is_not_charged() {
    simulate_lane(4, |_, lane| async move {
        cost(100 * S);
        let start = now();
        lane.run(|| ()).await.unwrap();
        assert!(now() - start < MS);
    });
}

#[test]
fn dropping_the_answer_does_not_recall_the_work() {
    simulate_lane(5, |_, lane| async move {
        let done = Arc::new(Mutex::new(false));
        let mark = Arc::clone(&done);
        drop(lane.run(move || *mark.lock().unwrap() = true));
        drop(lane);
        pause(MS).await;
        assert!(*done.lock().unwrap());
    });
}

#[test]
fn lane_closes_with_its_node() {
    simulate_lane(6, |world, _| async move {
        let handle = madsim::runtime::Handle::current();
        let kept: Arc<Mutex<Option<Lane>>> = Arc::default();
        let given = Arc::clone(&kept);
        let lanes = env(&world, "n").lanes;
        let node = handle
            .create_node()
            .init(move || {
                let (given, lanes) = (Arc::clone(&given), lanes.clone());
                async move {
                    *given.lock().unwrap() = Some(lanes.open("wal"));
                    std::future::pending::<()>().await;
                }
            })
            .build();
        pause(MS).await;
        let lane = kept.lock().unwrap().clone().unwrap();
        let ran = Arc::new(Mutex::new(0));
        let jobs: Vec<_> = (0..3)
            .map(|_| {
                let ran = Arc::clone(&ran);
                lane.run(move || {
                    *ran.lock().unwrap() += 1;
                    cost(10 * MS);
                })
            })
            .collect();
        pause(5 * MS).await;
        handle.kill(node.id());
        for job in jobs {
            assert_eq!(
                job.await,
                Err(Closed),
                "on the disk perhaps, but nobody was told"
            );
        }
        assert_eq!(*ran.lock().unwrap(), 1);
        pause(MS).await;
        assert_eq!(lane.run(|| ()).await, Err(Closed));
    });
}
