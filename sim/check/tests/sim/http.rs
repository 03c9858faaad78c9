//! axum and hyper over the streams, and what a request costs.

use crate::support::*;
use axum::Router;
use axum::body::Body;
use axum::routing::{get, post};
use http_body_util::BodyExt;
use hyper::client::conn::http1::SendRequest;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use node::rt::http::Timer;
use node::rt::{Clock, Net};
use sim::{NetConfig, SimWorld};
use std::time::Duration;

/// Serves a small router on `address` for ever.
async fn serve(net: Net, clock: Clock, address: &'static str) {
    let router = Router::new()
        .route("/hello", get(|| async { "hello" }))
        .route("/echo", post(|body: String| async move { body }));
    let mut listener = net.listen(address).await.unwrap();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            return;
        };
        let service = TowerToHyperService::new(router.clone());
        let timer = Timer(clock.clone());
        drop(tokio::spawn(async move {
            let mut builder = hyper::server::conn::http1::Builder::new();
            builder
                .timer(timer)
                .header_read_timeout(Duration::from_secs(10));
            drop(
                builder
                    .serve_connection(TokioIo::new(stream), service)
                    .await,
            );
        }));
    }
}

/// A client connection to `address`.
async fn client(net: &Net, address: &str) -> SendRequest<Body> {
    let stream = net.connect(address).await.unwrap();
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    drop(tokio::spawn(async move { drop(connection.await) }));
    sender
}

/// Status and body of one request.
async fn ask(sender: &mut SendRequest<Body>, request: Request<Body>) -> (StatusCode, Vec<u8>) {
    sender.ready().await.unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let status = answer.status();
    let body = answer
        .into_body()
        .collect()
        .await
        .unwrap()
        .to_bytes()
        .to_vec();
    (status, body)
}

/// Starts the server on `b` and gives a client of `a`.
async fn pair(world: &SimWorld) -> SendRequest<Body> {
    let (a, b) = (env(world, "a"), env(world, "b"));
    drop(tokio::spawn(serve(b.net, b.clock, "b:80")));
    pause(MS).await;
    client(&a.net, "b:80").await
}

#[test]
fn axum_answers_over_simulated_streams() {
    let config = NetConfig {
        partial_chance: 0.3,
        ..exact()
    };
    simulate(1, config, |world| async move {
        let mut sender = pair(&world).await;
        let hello = Request::get("http://b/hello").body(Body::empty()).unwrap();
        assert_eq!(
            ask(&mut sender, hello).await,
            (StatusCode::OK, b"hello".to_vec())
        );
        let big = "z".repeat(300_000);
        let echo = Request::post("http://b/echo")
            .body(Body::from(big.clone()))
            .unwrap();
        assert_eq!(
            ask(&mut sender, echo).await,
            (StatusCode::OK, big.into_bytes())
        );
        let none = Request::get("http://b/none").body(Body::empty()).unwrap();
        assert_eq!(ask(&mut sender, none).await.0, StatusCode::NOT_FOUND);
    });
}

#[test]
fn idle_http_connection_costs_no_events() {
    simulate(2, exact(), |world| async move {
        let mut sender = pair(&world).await;
        let hello = Request::get("http://b/hello").body(Body::empty()).unwrap();
        ask(&mut sender, hello).await;
        pause(MS).await;
        let before = world.network.counters();
        pause(5 * S).await;
        assert_eq!(world.network.counters(), before);
    });
}

/// CPU seconds of this thread. Outside a simulation only.
#[expect(unsafe_code, reason = "std has no CPU clock")]
fn cpu_seconds() -> f64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a live timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[test]
fn requests_are_cheap() {
    const REQUESTS: u32 = 2_000;
    let measured = std::thread::spawn(|| {
        let runtime = madsim::runtime::Runtime::with_seed_and_config(3, madsim::Config::default());
        let start = cpu_seconds();
        let (virtual_s, events) = runtime.block_on(async {
            let world = SimWorld::new(
                [3; 32],
                NetConfig::default(),
                sim::Network::untraced(),
                sim::lane::no_debt,
            );
            let mut sender = pair(&world).await;
            let start = now();
            for _ in 0..REQUESTS {
                let hello = Request::get("http://b/hello").body(Body::empty()).unwrap();
                ask(&mut sender, hello).await;
            }
            let took = now() - start;
            let events = world.network.counters().events;
            world.network.shutdown();
            (took.as_secs_f64(), events)
        });
        (cpu_seconds() - start, virtual_s, events)
    });
    let (cpu_s, virtual_s, events) = measured.join().unwrap();
    println!(
        "throughput: {:.0} requests per CPU second, {events} events, {:.0} virtual s per CPU s",
        f64::from(REQUESTS) / cpu_s,
        virtual_s / cpu_s
    );
    // One event per direction, and a few for parts.
    assert!(events < u64::from(REQUESTS) * 3, "{events}");
    assert!(f64::from(REQUESTS) / cpu_s > 500.0, "even unoptimised");
}
