//! Snapshot transfer: resume, refusal, a failing disk.
#![expect(
    clippy::disallowed_methods,
    reason = "tokio::test builds the runtime of a test"
)]

use super::*;

/// What a snapshot's bytes are at each position.
fn byte(position: u64) -> u8 {
    (position.wrapping_mul(31) >> 3) as u8
}

fn source(total: u64) -> SnapshotSource {
    let read = move |offset: u64, max: usize| -> BoxFuture<'static, io::Result<Bytes>> {
        let end = total.min(offset + max as u64);
        Box::pin(async move { Ok((offset..end).map(byte).collect()) })
    };
    SnapshotSource {
        total,
        read: Box::new(read),
    }
}

/// Gives every snapshot asked for; counts the requests.
async fn give_snapshots(mut two: Node, total: u64, asked: Arc<Mutex<Vec<u64>>>) {
    while let Some(next) = two.inbound.recv().await {
        if let Inbound::Snapshot { request, reply, .. } = next {
            asked.lock().unwrap().push(request.offset);
            reply.send(Ok(source(total))).ok();
        }
    }
}

fn request(offset: u64) -> SnapshotRequest {
    SnapshotRequest {
        group: 0,
        index: 9,
        term: 2,
        offset,
    }
}

fn file(size: u64) -> SnapshotFile {
    SnapshotFile { size, checksum: 0 }
}

#[tokio::test]
async fn a_cut_snapshot_goes_on_where_it_ended() {
    const TOTAL: u64 = 400_000;
    let (net, one, two) = pair().await;
    let asked = Arc::new(Mutex::new(Vec::new()));
    one.tasks
        .spawn(give_snapshots(two, TOTAL, Arc::clone(&asked)));
    let stored = Arc::new(Mutex::new(Vec::new()));
    let (file_bytes, cutting) = (Arc::clone(&stored), net.clone());
    let sink = move |offset: u64, data: Bytes| -> BoxFuture<'static, io::Result<()>> {
        let mut bytes = file_bytes.lock().unwrap();
        assert_eq!(offset, bytes.len() as u64);
        let crosses = |mark: u64| (offset..offset + data.len() as u64).contains(&mark);
        if crosses(100_000) || crosses(300_000) {
            cutting.cut(&address(2));
        }
        bytes.extend_from_slice(&data);
        Box::pin(async { Ok(()) })
    };
    one.transport
        .fetch_snapshot(NodeId(2), request(0), file(TOTAL), sink)
        .await
        .unwrap();
    assert!(*stored.lock().unwrap() == (0..TOTAL).map(byte).collect::<Vec<_>>());
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 3);
    assert!(
        asked[0] == 0 && asked[1] > 100_000 && asked[2] > 300_000,
        "{asked:?}"
    );
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_had_is_an_error_with_its_reason() {
    let (net, one, mut two) = pair().await;
    let sink =
        |_: u64, _: Bytes| -> BoxFuture<'static, io::Result<()>> { Box::pin(async { Ok(()) }) };
    let fetch = one
        .transport
        .fetch_snapshot(NodeId(2), request(0), file(10), sink);
    let (got, ()) = tokio::join!(fetch, async {
        let Inbound::Snapshot { reply, .. } = two.next().await else {
            panic!()
        };
        reply.send(Err(Error::new(Code::NotFound, "trimmed"))).ok();
    });
    assert!(matches!(got, Err(FetchError::Refused { error, .. }) if error.code == Code::NotFound));
    // A file of another size than the one offered is another file.
    let fetch = one
        .transport
        .fetch_snapshot(NodeId(2), request(0), file(10), sink);
    let (got, ()) = tokio::join!(fetch, async {
        let Inbound::Snapshot { reply, .. } = two.next().await else {
            panic!()
        };
        reply.send(Ok(source(11))).ok();
    });
    assert!(matches!(got, Err(FetchError::Refused { .. })));
    net.refuse(&address(2), true);
    let got = one
        .transport
        .fetch_snapshot(NodeId(2), request(3), file(10), sink)
        .await;
    assert!(matches!(got, Err(FetchError::Silent { offset: 3, .. })));
}

#[tokio::test]
async fn a_failing_disk_ends_the_fetch() {
    let (_net, one, two) = pair().await;
    one.tasks.spawn(give_snapshots(two, 10, Arc::default()));
    let sink = |_: u64, _: Bytes| -> BoxFuture<'static, io::Result<()>> {
        Box::pin(async { Err(io::Error::other("disk")) })
    };
    let got = one
        .transport
        .fetch_snapshot(NodeId(2), request(0), file(10), sink)
        .await;
    assert!(matches!(got, Err(FetchError::Sink(_))));
}
