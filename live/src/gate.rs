//! Gates: a way to each manager that can be cut for single workers, in the place of a network that only root could cut.
//!
//! A manager of a run with cuts tells others the address of its gate, and everything that comes there is passed on to where it
//! listens. Whose connection it is the kernel knows: the socket at its other end belongs to a process, and `/proc` says to which. A cut
//! holds bytes, ends and new connections back, as a network does that loses everything; what was held arrives when it is
//! whole again, as after a retransmission. Whoever is no worker is never held.

use anyhow::{Context, Result};
use scenarios::Flow;
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Bytes that are passed on at once.
const PIECE: usize = 16 << 10;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// From a worker to a manager.
    ToManager,
    /// And back.
    ToWorker,
}

/// Who is cut off now, and how.
type Cuts = BTreeMap<String, Flow>;

/// Processes of workers, by name.
type Pids = Arc<dyn Fn() -> Vec<(String, u32)> + Send + Sync>;

/// All gates of a run. A clone is the same.
#[derive(Clone)]
pub(crate) struct Gates {
    /// Who is cut off.
    cuts: watch::Sender<Cuts>,
    /// Whoever listens.
    #[expect(dead_code, reason = "it is held so that the gates stay open")]
    doors: Arc<Doors>,
}

/// Listeners that end with whoever holds them.
struct Doors(Vec<JoinHandle<()>>);

impl Drop for Doors {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

impl Gates {
    /// Opens a gate at the first of each pair of addresses, which leads to the second.
    pub(crate) async fn open(ways: &[(String, String)], pids: Pids) -> Result<Self> {
        let cuts = watch::Sender::new(Cuts::new());
        let mut doors = Vec::new();
        for (gate, behind) in ways {
            let listener = TcpListener::bind(gate)
                .await
                .with_context(|| format!("the gate {gate}"))?;
            let (behind, pids, cuts) = (behind.clone(), Arc::clone(&pids), cuts.subscribe());
            doors.push(tokio::spawn(serve(listener, behind, pids, cuts)));
        }
        Ok(Gates {
            cuts,
            doors: Arc::new(Doors(doors)),
        })
    }

    /// Cuts a worker off.
    pub(crate) fn cut(&self, worker: &str, flow: Flow) {
        self.cuts.send_modify(|cuts| {
            cuts.insert(worker.to_owned(), flow);
        });
    }

    /// Ends the cut of a worker.
    pub(crate) fn heal(&self, worker: &str) {
        self.cuts.send_modify(|cuts| {
            cuts.remove(worker);
        });
    }

    /// Ends all cuts.
    pub(crate) fn heal_all(&self) {
        self.cuts.send_modify(BTreeMap::clear);
    }
}

/// Whether `worker` is cut off in this direction.
fn is_cut(cuts: &Cuts, worker: &str, way: Way) -> bool {
    cuts.get(worker).is_some_and(|flow| match flow {
        Flow::Symmetric => true,
        Flow::Outbound => way == Way::ToManager,
        Flow::Inbound => way == Way::ToWorker,
    })
}

/// Lets connections through, each with two pumps.
async fn serve(listener: TcpListener, behind: String, pids: Pids, cuts: watch::Receiver<Cuts>) {
    while let Ok((near, peer)) = listener.accept().await {
        let (behind, pids, cuts) = (behind.clone(), Arc::clone(&pids), cuts.clone());
        tokio::spawn(async move {
            let Ok(gate) = near.local_addr() else { return };
            let owner = owner(peer, gate, &pids());
            // A connection that ends badly on one side ends on the other: both halves are dropped.
            pass(near, &behind, owner.as_deref(), cuts).await.ok();
        });
    }
}

/// One connection, to its end.
async fn pass(
    near: TcpStream,
    behind: &str,
    owner: Option<&str>,
    mut cuts: watch::Receiver<Cuts>,
) -> std::io::Result<()> {
    whole(&mut cuts, owner, Way::ToManager).await;
    let far = TcpStream::connect(behind).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
    let there = pump(near_read, far_write, owner, Way::ToManager, cuts.clone());
    let back = pump(far_read, near_write, owner, Way::ToWorker, cuts);
    tokio::try_join!(there, back)?;
    Ok(())
}

/// Bytes of one direction, and their end.
async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    owner: Option<&str>,
    way: Way,
    mut cuts: watch::Receiver<Cuts>,
) -> std::io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        let read = from.read(&mut piece).await;
        whole(&mut cuts, owner, way).await;
        match read? {
            0 => return to.shutdown().await,
            many => to.write_all(&piece[..many]).await?,
        }
    }
}

/// Waits until the way of `owner` is whole.
async fn whole(cuts: &mut watch::Receiver<Cuts>, owner: Option<&str>, way: Way) {
    if let Some(owner) = owner {
        // The run is over when nobody can cut any more.
        cuts.wait_for(|cuts| !is_cut(cuts, owner, way)).await.ok();
    }
}

/// The worker whose process holds the socket at `peer` that is connected to `gate`; none for anybody else's.
fn owner(peer: SocketAddr, gate: SocketAddr, pids: &[(String, u32)]) -> Option<String> {
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    let socket = format!("socket:[{}]", inode(&table, peer, gate)?);
    let holds = |pid: u32| {
        let files = fs::read_dir(format!("/proc/{pid}/fd"));
        let mut files = files.into_iter().flatten().flatten();
        files.any(|file| {
            fs::read_link(file.path()).is_ok_and(|link| link.to_str() == Some(socket.as_str()))
        })
    };
    let found = pids.iter().find(|(_, pid)| holds(*pid));
    found.map(|(name, _)| name.clone())
}

/// The inode of the socket from `local` to `remote` in a table of the kernel.
fn inode(table: &str, local: SocketAddr, remote: SocketAddr) -> Option<&str> {
    let (local, remote) = (hex(local)?, hex(remote)?);
    table.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_it = words.get(1) == Some(&local.as_str()) && words.get(2) == Some(&remote.as_str());
        words.get(9).copied().filter(|_| is_it)
    })
}

/// An address as the kernel's tables have it: bytes of the host's order, then the port.
fn hex(address: SocketAddr) -> Option<String> {
    match address {
        SocketAddr::V4(address) => {
            let bytes = u32::from_ne_bytes(address.ip().octets());
            Some(format!("{bytes:08X}:{:04X}", address.port()))
        }
        SocketAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// A manager that says everything again, and its gate; this process is the worker w1.
    async fn gated() -> (Gates, String) {
        let manager = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let behind = manager.local_addr().expect("it is bound").to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = manager.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await.ok();
                });
            }
        });
        let free = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let gate = free.local_addr().expect("it is bound").to_string();
        drop(free);
        let pids: Pids = Arc::new(|| vec![("w1".to_owned(), std::process::id())]);
        let ways = [(gate.clone(), behind)];
        let gates = Gates::open(&ways, pids).await.expect("it was free");
        (gates, gate)
    }

    /// Says a byte and waits for it; false when it does not come soon.
    async fn answers(stream: &mut TcpStream) -> bool {
        stream.write_all(b"x").await.expect("the gate is open");
        let mut byte = [0];
        let heard = tokio::time::timeout(Duration::from_millis(300), stream.read_exact(&mut byte));
        heard.await.is_ok_and(|heard| heard.is_ok())
    }

    #[tokio::test]
    async fn a_cut_holds_everything_of_its_worker_and_gives_it_back() {
        let (gates, gate) = gated().await;
        let mut old = TcpStream::connect(&gate).await.expect("it is open");
        assert!(answers(&mut old).await);
        for flow in [Flow::Symmetric, Flow::Outbound, Flow::Inbound] {
            gates.cut("w1", flow);
            assert!(!answers(&mut old).await, "{flow:?}");
            let mut new = TcpStream::connect(&gate).await.expect("it is open");
            assert!(!answers(&mut new).await, "{flow:?}");
            gates.heal("w1");
            let mut byte = [0];
            old.read_exact(&mut byte)
                .await
                .expect("what was held comes");
            new.read_exact(&mut byte)
                .await
                .expect("what was held comes");
        }
        gates.cut("w2", Flow::Symmetric);
        assert!(answers(&mut old).await, "another worker's cut is not ours");
    }

    #[test]
    fn a_socket_is_found_in_the_kernels_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                     0: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0 20 4 30 10 -1\n";
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        assert_eq!(inode(table, at(8080), at(50_000)), Some("4711"));
        assert_eq!(inode(table, at(8081), at(50_000)), None);
    }
}
