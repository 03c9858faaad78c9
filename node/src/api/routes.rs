//! The router over the route table, and the answers to requests that no route takes.

use super::Api;
use super::call::{Call, refuse};
use super::table::{self, Route};
use crate::error::{Code, Error};
use crate::rt::net::BoxFuture;
use axum::Router;
use axum::response::Response;
use axum::routing::{MethodFilter, on};
use http::{HeaderValue, Method};
use hyper::body::Incoming;
use std::convert::Infallible;
use std::sync::Arc;
use tower::ServiceExt;

/// The router over the table.
fn router(api: &Arc<Api>) -> Router {
    let mut router = Router::new();
    for route in table::all() {
        let filter = MethodFilter::try_from(route.method.clone())
            .expect("the table has common methods alone");
        let api = Arc::clone(api);
        let serve = move |request| answer(Arc::clone(&api), route, request);
        router = router.route(route.path, on(filter, serve));
    }
    let (lost, wrong) = (Arc::clone(api), Arc::clone(api));
    router
        .fallback(move |request| stray(Arc::clone(&lost), request))
        .method_not_allowed_fallback(move |request| stray(Arc::clone(&wrong), request))
}

/// What hyper calls for each request. Requests about one key, nearly all a busy node gets, go straight to their route; the
/// router would give them the same one, after boxing and labelling them for extractors that nobody here uses.
#[derive(Clone)]
pub(super) struct Front {
    /// The door.
    api: Arc<Api>,
    /// For all other requests.
    router: Router,
    /// The routes of one key.
    of_key: [Option<&'static Route>; 3],
}

/// Where a key's path begins.
const KEY_PREFIX: &str = "/v1/kv/";

impl Front {
    /// The front of `api`.
    pub(super) fn new(api: &Arc<Api>) -> Self {
        let route = |method| {
            let mut routes = table::all();
            routes.find(|one| one.method == method && one.path == "/v1/kv/{*key}")
        };
        Front {
            api: Arc::clone(api),
            router: router(api),
            of_key: [Method::GET, Method::PUT, Method::DELETE].map(route),
        }
    }

    /// The route of `request` if it is about one key.
    fn straight(&self, request: &axum::extract::Request) -> Option<&'static Route> {
        let key = request.uri().path().strip_prefix(KEY_PREFIX)?;
        let mut routes = self.of_key.iter().flatten().copied();
        routes.find(|route| !key.is_empty() && route.method == *request.method())
    }
}

impl hyper::service::Service<http::Request<Incoming>> for Front {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn call(&self, request: http::Request<Incoming>) -> Self::Future {
        let request = request.map(axum::body::Body::new);
        match self.straight(&request) {
            Some(route) => {
                let api = Arc::clone(&self.api);
                Box::pin(async move { Ok(answer(api, route, request).await) })
            }
            None => Box::pin(self.router.clone().oneshot(request)),
        }
    }
}

/// Serves one request of `route`, and counts it.
async fn answer(api: Arc<Api>, route: &'static Route, request: axum::extract::Request) -> Response {
    let began = api.clock.now();
    let served = match Call::read(Arc::clone(&api), route, request).await {
        Ok(call) => (route.handler)(call).await,
        Err(error) => Err(error),
    };
    let mut response = served.unwrap_or_else(|error| refuse(&api, error));
    sign(&api, &mut response);
    let took = api.clock.now().since(began);
    let status = response.status().as_u16();
    api.metrics
        .observe_http(route.method.as_str(), route.path, status, took);
    response
}

/// Answers a request that no route takes: wrong path (404) or wrong method (405).
async fn stray(api: Arc<Api>, request: axum::extract::Request) -> Response {
    let (method, path) = (request.method(), request.uri().path());
    let methods: Vec<&str> = table::all()
        .filter(|route| matches(route.path, path))
        .map(|route| route.method.as_str())
        .collect();
    let mut response = if methods.is_empty() {
        let error = Error::new(Code::NotFound, format!("no route is called {path}"));
        refuse(&api, error.hint(format!("did you mean {}?", nearest(path))))
    } else {
        let message = format!("{path} does not take {method}");
        let allowed = methods.join(", ");
        let error = Error::new(Code::InvalidArgument, message);
        let mut response = refuse(&api, error.hint(format!("it takes {allowed}")));
        *response.status_mut() = http::StatusCode::METHOD_NOT_ALLOWED;
        let allowed = HeaderValue::from_str(&allowed).expect("method names are plain text");
        response.headers_mut().insert(http::header::ALLOW, allowed);
        response
    };
    sign(&api, &mut response);
    let status = response.status().as_u16();
    // Methods and paths of strangers are not labels: they would grow without bound.
    api.metrics
        .observe_http("other", "unmatched", status, std::time::Duration::ZERO);
    response
}

/// Names the answering node.
fn sign(api: &Api, response: &mut Response) {
    if let Some(name) = &api.signature {
        response
            .headers_mut()
            .insert("seaworthy-node", name.clone());
    }
}

/// True when `path` is one of `template`'s.
pub(super) fn matches(template: &str, path: &str) -> bool {
    let mut segments = path.split('/');
    for part in template.split('/') {
        let Some(segment) = segments.next() else {
            return false;
        };
        if part.starts_with("{*") {
            return !segment.is_empty() || segments.next().is_some();
        }
        let fits = match part.starts_with('{') {
            true => !segment.is_empty(),
            false => part == segment,
        };
        if !fits {
            return false;
        }
    }
    segments.next().is_none()
}

/// The route whose path looks most like `path`.
fn nearest(path: &str) -> String {
    let closest = table::all().min_by_key(|route| distance(route.path, path));
    let route = closest.expect("the table is not empty");
    format!("{} {}", route.method, route.path.replace("{*", "{"))
}

/// How far a path is from a template, segment by segment; a parameter is like anything.
fn distance(template: &str, path: &str) -> usize {
    let parts: Vec<&str> = template.split('/').skip(1).collect();
    // A stranger's path may be long; what lies behind is only counted.
    let segments: Vec<&str> = path.split('/').skip(1).take(16).collect();
    let common: usize = parts
        .iter()
        .zip(&segments)
        .map(|(part, segment)| match part.starts_with('{') {
            true => 1,
            false => 2 * edits(part, segment),
        })
        .sum();
    common + 6 * parts.len().abs_diff(segments.len())
}

/// Letters to insert, remove or replace to turn one word into the other.
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, letter) in from.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], line + 1);
        for (column, other) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_match_their_paths_alone() {
        assert!(matches("/v1/kv/{*key}", "/v1/kv/a/b"));
        assert!(!matches("/v1/kv/{*key}", "/v1/kv/"));
        assert!(matches("/v1/leases/{id}", "/v1/leases/3"));
        assert!(!matches("/v1/leases/{id}", "/v1/leases/3/keepalive"));
        assert!(!matches("/v1/leases/{id}/keepalive", "/v1/leases/3"));
    }

    #[test]
    fn nearest_route_is_what_a_person_meant() {
        for (path, route) in [
            ("/helth", "GET /health"),
            ("/v1/kvs/a", "PUT /v1/kv/{key}"),
            ("/v1/cluster/member", "POST /v1/cluster/members"),
            ("/v1/cluster/nodes", "GET /v1/cluster"),
            ("/metric", "GET /metrics"),
        ] {
            assert_eq!(nearest(path), route, "{path}");
        }
        assert_eq!(edits("kitten", "sitting"), 3);
    }

    #[test]
    fn ids_and_parameters_are_unique() {
        for (position, route) in table::all().enumerate() {
            let mut before = table::all().take(position);
            assert!(before.all(|other| other.id != route.id), "{}", route.id);
            let names: Vec<_> = route.params().map(|param| param.name).collect();
            for (at, name) in names.iter().enumerate() {
                assert!(!names[..at].contains(name), "{} has {name} twice", route.id);
            }
        }
    }
}
