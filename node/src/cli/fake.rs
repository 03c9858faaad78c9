//! For tests: a server that answers from a closure and remembers what it was asked, and a terminal to type into.

use super::world::Sink;
use super::{World, run};
use crate::rt::{Env, Tasks, real};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

/// What the server was asked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Asked {
    /// Method, path and query.
    pub(crate) line: String,
    /// Body.
    pub(crate) body: String,
}

/// Answers requests: status, body.
pub(crate) type Answers = Arc<dyn Fn(&Asked) -> (u16, String) + Send + Sync>;

/// A server, a terminal in front of it, and what lies on the desk.
pub(crate) struct Fake {
    /// The real world.
    pub(crate) env: Env,
    /// The server's and the commands' tasks.
    pub(crate) tasks: Tasks,
    /// Where the server listens.
    pub(crate) address: String,
    /// What it was asked, in order.
    pub(crate) asked: Arc<Mutex<Vec<Asked>>>,
    /// Files by name; `-` is standard input.
    pub(crate) files: BTreeMap<String, String>,
    /// Environment variables.
    pub(crate) variables: BTreeMap<String, String>,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Typed {
    /// Exit code.
    pub(crate) code: u8,
    /// Standard output.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
}

impl Fake {
    /// A server that answers with `answers`.
    pub(crate) async fn new(
        answers: impl Fn(&Asked) -> (u16, String) + Send + Sync + 'static,
    ) -> Self {
        let env = real::env("test").unwrap();
        let tasks = Tasks::default();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let mut listener = env.net.listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_address();
        let answers: Answers = Arc::new(answers);
        let (memory, group) = (Arc::clone(&asked), tasks.clone());
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answers, memory) = (Arc::clone(&answers), Arc::clone(&memory));
                group.spawn(async move {
                    let service = service_fn(move |request| {
                        answer(request, Arc::clone(&answers), Arc::clone(&memory))
                    });
                    let connection = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service);
                    drop(connection.await);
                });
            }
        });
        Fake {
            env,
            tasks,
            address,
            asked,
            files: BTreeMap::new(),
            variables: BTreeMap::new(),
        }
    }

    /// Types `line` (without the program's name) against the server.
    pub(crate) async fn types(&self, line: &str) -> Typed {
        let (out, err) = (Paper::default(), Paper::default());
        let files = self.files.clone();
        let mut variables = self.variables.clone();
        let url = format!("http://{}", self.address);
        variables
            .entry("SEAWORTHY_ENDPOINTS".to_owned())
            .or_insert(url);
        let world = World::new(self.env.clone(), self.tasks.clone(), out.sink(), err.sink())
            .variables(variables)
            .reader(Box::new(move |name| {
                let text = files.get(name).ok_or(io::ErrorKind::NotFound)?;
                Ok(text.clone().into_bytes())
            }));
        let words = ["seaworthy"].into_iter().chain(line.split_whitespace());
        let code = run(words.map(str::to_owned).collect(), &world).await;
        Typed {
            code,
            out: out.text(),
            err: err.text(),
        }
    }

    /// What the server was asked so far, as lines.
    pub(crate) fn lines(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        asked.iter().map(|one| one.line.clone()).collect()
    }
}

async fn answer(
    request: Request<Incoming>,
    answers: Answers,
    memory: Arc<Mutex<Vec<Asked>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let line = format!("{} {}", request.method(), request.uri());
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let asked = Asked {
        line,
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    memory.lock().unwrap().push(asked.clone());
    let (status, text) = answers(&asked);
    let response = Response::builder().status(status);
    Ok(response.body(Full::new(text.into())).unwrap())
}

/// Something to write on and read from.
#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Paper {
    fn sink(&self) -> Sink {
        Box::new(self.clone())
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
