//! Bugs planted in the talk of workers and managers: a proxy on a worker's side of its connections that reads HTTP and JSON and
//! changes a word of a question or an answer into what a worker or a manager with the bug would have said.
//!
//! Whole messages are changed, with their lengths; whatever is no JSON of theirs passes as it is.

use bytes::BytesMut;
use node::rt::net::{BoxFuture, Listener, NetDriver};
use node::rt::{Net, Stream};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// Most bytes on their way through in one direction.
const PIPE_BYTES: usize = 64 << 10;
/// How the head of a message ends.
const HEAD_END: &[u8] = b"\r\n\r\n";
/// One in this many reports is swallowed, one in this many lists of assignments is cut.
const SOME: u64 = 3;

/// What is said wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slur {
    /// Leases are ten times as long as granted.
    LongLease,
    /// Whoever shall stop shall run.
    NeverStop,
    /// Some lists of assignments lack a task.
    MissingTask,
    /// Some lists of assignments are those before, under the new number.
    OldTasks,
    /// Some reports are acknowledged and thrown away.
    LostReport,
    /// Hellos name no task.
    EmptyHello,
    /// A new process says that it is the old one.
    OldSession,
    /// Nobody hears that a session is over.
    NeverOver,
    /// A machine says that it has twice of everything.
    DoubleRoom,
    /// Nobody hears how often a leader must hear of its workers.
    OwnPace,
}

/// What the proxies of one worker know together, over all its lives.
#[derive(Default)]
pub(super) struct Heard {
    /// Messages of the kind that is changed now and then.
    count: u64,
    /// The tasks of the last list of assignments.
    tasks: Option<Value>,
    /// Managers, as told last.
    managers: Option<Value>,
}

/// A worker's network with a mumbler in it.
pub(super) struct Mumbler {
    /// The real one.
    inner: Net,
    /// What is said wrong.
    slur: Slur,
    /// What is known.
    heard: Arc<Mutex<Heard>>,
}

impl Mumbler {
    /// Changes what passes between a worker and managers over `inner`.
    pub(super) fn new(inner: Net, slur: Slur, heard: Arc<Mutex<Heard>>) -> Self {
        Mumbler { inner, slur, heard }
    }
}

impl NetDriver for Mumbler {
    fn listen(&self, address: &str) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        let (inner, address) = (self.inner.clone(), address.to_owned());
        Box::pin(async move { inner.listen(&address).await })
    }

    fn connect(&self, address: &str) -> BoxFuture<'static, io::Result<Stream>> {
        let (inner, address) = (self.inner.clone(), address.to_owned());
        let mouth = Mouth {
            slur: self.slur,
            heard: Arc::clone(&self.heard),
            asked: VecDeque::new(),
        };
        Box::pin(async move {
            let stream = inner.connect(&address).await?;
            let (near, far) = tokio::io::duplex(PIPE_BYTES);
            drop(madsim::task::spawn(async move {
                // Either end closes or fails: so does the other.
                drop(pass(far, stream, mouth).await);
            }));
            Ok(Box::new(near) as Stream)
        })
    }
}

/// Passes messages both ways until one side ends.
async fn pass(worker: DuplexStream, wire: Stream, mut mouth: Mouth) -> io::Result<()> {
    let (mut from_worker, mut to_worker) = tokio::io::split(worker);
    let (mut from_wire, mut to_wire) = tokio::io::split(wire);
    let (mut asked, mut answered) = (BytesMut::new(), BytesMut::new());
    loop {
        tokio::select! {
            biased; // Answers first: they free the worker.
            count = from_wire.read_buf(&mut answered) => {
                if count? == 0 { return Ok(()) }
                while let Some(message) = Message::take(&mut answered) {
                    to_worker.write_all(&mouth.answer(message).bytes()).await?;
                }
                to_worker.flush().await?;
            }
            count = from_worker.read_buf(&mut asked) => {
                if count? == 0 { return Ok(()) }
                while let Some(message) = Message::take(&mut asked) {
                    match mouth.ask(message) {
                        Said::On(message) => to_wire.write_all(&message.bytes()).await?,
                        Said::Back(message) => to_worker.write_all(&message.bytes()).await?,
                    }
                }
                to_wire.flush().await?;
                to_worker.flush().await?;
            }
        }
    }
}

/// A message of HTTP/1.1 whose length stands in its head.
struct Message {
    /// The head, without the empty line.
    head: String,
    /// The body.
    body: Vec<u8>,
}

/// Where a question goes.
enum Said {
    /// To the manager.
    On(Message),
    /// Nowhere: this is its answer.
    Back(Message),
}

impl Message {
    /// Takes a whole message.
    fn take(from: &mut BytesMut) -> Option<Message> {
        let end = from
            .windows(HEAD_END.len())
            .position(|window| window == HEAD_END)?;
        let head = String::from_utf8_lossy(&from[..end]).into_owned();
        let length = head.split("\r\n").find_map(length_of).unwrap_or(0);
        let begin = end + HEAD_END.len();
        if from.len() < begin + length {
            return None;
        }
        let message = from.split_to(begin + length);
        let body = message[begin..].to_vec();
        Some(Message { head, body })
    }

    /// An answer of `body`.
    fn ok(body: &Value) -> Message {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 0";
        let mut message = Message {
            head: head.to_owned(),
            body: Vec::new(),
        };
        message.set(body);
        message
    }

    /// Its bytes.
    fn bytes(self) -> Vec<u8> {
        let mut bytes = self.head.into_bytes();
        bytes.extend(HEAD_END);
        bytes.extend(self.body);
        bytes
    }

    /// Its body as JSON.
    fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// Puts another body in.
    fn set(&mut self, body: &Value) {
        self.body = body.to_string().into_bytes();
        let length = self.body.len();
        let lines = self
            .head
            .split("\r\n")
            .map(|line| match length_of(line).is_some() {
                true => format!("content-length: {length}"),
                false => line.to_owned(),
            });
        self.head = lines.collect::<Vec<_>>().join("\r\n");
    }
}

/// The length that a line of a head names.
fn length_of(line: &str) -> Option<usize> {
    let (name, value) = line.split_once(':')?;
    let named = name.eq_ignore_ascii_case("content-length");
    named.then(|| value.trim().parse().ok()).flatten()
}

/// What a question was.
struct Asked {
    /// Its first line.
    line: String,
    /// Its body.
    body: Option<Value>,
}

/// Who speaks on one connection.
struct Mouth {
    /// What is said wrong.
    slur: Slur,
    /// What is known.
    heard: Arc<Mutex<Heard>>,
    /// Questions without an answer.
    asked: VecDeque<Asked>,
}

impl Mouth {
    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// True for one in [`SOME`].
    fn now_and_then(&self) -> bool {
        let mut heard = self.heard();
        heard.count += 1;
        heard.count.is_multiple_of(SOME)
    }

    /// The worker asks.
    fn ask(&mut self, mut message: Message) -> Said {
        let line = message.head.lines().next().unwrap_or_default().to_owned();
        let mut body = message.json();
        if let Some(body) = &mut body {
            match self.slur {
                Slur::EmptyHello if line.contains("/hello") => body["hello"]["tasks"] = json!({}),
                Slur::OldSession if line.contains("/hello") => {
                    body["hello"]["is_anew"] = json!(false);
                }
                Slur::DoubleRoom if line.contains("/hello") => double(body),
                Slur::LostReport if line.contains("/report") && self.now_and_then() => {
                    return Said::Back(Message::ok(&acknowledged(body)));
                }
                _ => {}
            }
            message.set(body);
        }
        self.asked.push_back(Asked { line, body });
        Said::On(message)
    }

    /// A manager answers.
    fn answer(&mut self, mut message: Message) -> Message {
        let (Some(asked), Some(mut body)) = (self.asked.pop_front(), message.json()) else {
            return message;
        };
        if body["managers"].is_array() {
            self.heard().managers = Some(body["managers"].clone());
        }
        let is_list = body["assignments"]["tasks"].is_array();
        match self.slur {
            Slur::LongLease => {
                if let Some(lease_ms) = body["lease_ms"].as_u64() {
                    body["lease_ms"] = json!(10 * lease_ms);
                }
            }
            Slur::OwnPace => {
                if let Some(body) = body.as_object_mut() {
                    body.remove("pace_ms");
                }
            }
            Slur::NeverStop if is_list => {
                let tasks = body["assignments"]["tasks"].as_array_mut();
                for task in tasks.into_iter().flatten() {
                    task["desired"] = json!("run");
                }
            }
            Slur::MissingTask if is_list && self.now_and_then() => {
                let tasks = body["assignments"]["tasks"].as_array_mut();
                tasks.into_iter().for_each(|tasks| drop(tasks.pop()));
            }
            Slur::OldTasks if is_list => {
                let new = body["assignments"]["tasks"].clone();
                let old = self.heard().tasks.replace(new);
                if let Some(old) = old.filter(|_| self.now_and_then()) {
                    body["assignments"]["tasks"] = old;
                }
            }
            Slur::NeverOver => {
                if let Some(calm) = self.calmed(&asked, &message, &body) {
                    return calm;
                }
            }
            _ => {}
        }
        message.set(&body);
        message
    }

    /// What is said in place of the end of a session; none if the answer says no such thing.
    fn calmed(&self, asked: &Asked, message: &Message, body: &Value) -> Option<Message> {
        let is_conflict = message.head.starts_with("HTTP/1.1 409");
        if is_conflict && asked.line.contains("/assignments") {
            let managers = self.heard().managers.clone().unwrap_or(json!([]));
            return Some(Message::ok(&json!({ "managers": managers })));
        }
        let said = asked.body.as_ref().filter(|_| body["reply"] == "over")?;
        if asked.line.contains("/report") {
            return Some(Message::ok(&acknowledged(said)));
        }
        asked.line.contains("/beat").then(|| {
            Message::ok(&json!({
                "reply": "beat",
                "number": said["number"],
                "epoch": said["epoch"],
                "revision": said["revision"],
                "lease_ms": 0,
            }))
        })
    }
}

/// The answer that all of these reports were taken.
fn acknowledged(reports: &Value) -> Value {
    let numbers = reports["reports"].as_array().into_iter().flatten();
    let greatest = numbers.filter_map(|one| one["number"].as_u64()).max();
    json!({ "reply": "acknowledged", "life": reports["life"], "number": greatest })
}

/// A hello of a machine that has twice of everything.
fn double(hello: &mut Value) {
    let capacity = &mut hello["machine"]["capacity"];
    for amount in ["cpu_milli", "memory_bytes"] {
        capacity[amount] = json!(capacity[amount].as_u64().map(|has| 2 * has));
    }
}
