//! One request taken apart: path, query, headers and body, each read strictly; and the shapes of answers.
//!
//! Which parameters exist is said by the route's table entry; anything else is refused with the list of what is known.

use super::Api;
use super::table::{Body, Place, Route};
use crate::error::{Code, Error};
use crate::handle::Consistency;
use axum::response::Response;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Longest time-out a request may ask for, milliseconds.
const TIMEOUT_MS_MAX: u64 = 600_000;
/// Age that `consistency=bounded` allows when it names none, milliseconds.
const AGE_MS_DEFAULT: u64 = 1_000;
/// Bytes of a body over the limit that are read and thrown away, so that the client gets to read our answer.
const DRAIN_BYTES_MAX: usize = 16 << 20;

/// One request.
pub(super) struct Call {
    /// The door.
    pub(super) api: Arc<Api>,
    /// The table entry that matched.
    route: &'static Route,
    /// Path parameters, decoded.
    path: BTreeMap<&'static str, Bytes>,
    /// Query parameters, decoded.
    query: BTreeMap<String, Bytes>,
    /// Headers.
    headers: HeaderMap,
    /// Body; empty when the route has none.
    pub(super) body: Bytes,
}

impl Call {
    /// Takes `request` apart.
    pub(super) async fn read(
        api: Arc<Api>,
        route: &'static Route,
        request: axum::extract::Request,
    ) -> Result<Call, Error> {
        let (head, body) = request.into_parts();
        let path = path_params(route.path, head.uri.path())?;
        let query = query_params(head.uri.query().unwrap_or_default())?;
        known(route, &query)?;
        let body = match route.body {
            Body::None => Bytes::new(),
            Body::Bytes | Body::Json(_) | Body::MaybeJson(_) => {
                read_body(&api, &head.headers, body).await?
            }
        };
        Ok(Call {
            api,
            route,
            path,
            query,
            headers: head.headers,
            body,
        })
    }

    /// A path parameter's bytes.
    pub(super) fn path(&self, name: &str) -> Bytes {
        self.path.get(name).cloned().unwrap_or_default()
    }

    /// A path parameter that is a number.
    pub(super) fn path_number(&self, name: &str) -> Result<u64, Error> {
        number(name, &self.path(name))
    }

    /// A path parameter that is a name.
    pub(super) fn path_text(&self, name: &str) -> Result<String, Error> {
        text(name, &self.path(name))
    }

    /// A query parameter that is text, if given.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>, Error> {
        self.bytes(name).map(|bytes| text(name, &bytes)).transpose()
    }

    /// A query parameter's bytes, if given.
    pub(super) fn bytes(&self, name: &str) -> Option<Bytes> {
        debug_assert!(
            self.route.has(Place::Query, name),
            "{name} is not in the table"
        );
        self.query.get(name).cloned()
    }

    /// A query parameter that is a number, if given.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Error> {
        self.bytes(name)
            .map(|bytes| number(name, &bytes))
            .transpose()
    }

    /// A query parameter that is a switch: absent is off, and given without a value is on.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Error> {
        match self.bytes(name).as_deref() {
            None | Some(b"false" | b"0") => Ok(false),
            Some(b"" | b"true" | b"1") => Ok(true),
            Some(_) => Err(invalid(format!("`{name}` must be `true` or `false`"))),
        }
    }

    /// The time-out asked for.
    pub(super) fn timeout(&self) -> Result<Option<Duration>, Error> {
        let asked = self.number("timeout_ms")?;
        match asked {
            Some(0) => Err(invalid("`timeout_ms` must be at least 1".to_owned())),
            Some(ms) => Ok(Some(Duration::from_millis(ms.min(TIMEOUT_MS_MAX)))),
            None => Ok(None),
        }
    }

    /// The freshness asked for; linearizable if not said.
    pub(super) fn consistency(&self) -> Result<Consistency, Error> {
        let age_ms = self.number("max_age_ms")?;
        let asked = self.bytes("consistency");
        match asked.as_deref() {
            Some(b"bounded") => Ok(Consistency::Bounded {
                max_age: Duration::from_millis(age_ms.unwrap_or(AGE_MS_DEFAULT)),
            }),
            _ if age_ms.is_some() => Err(invalid(
                "`max_age_ms` belongs to `consistency=bounded`".to_owned(),
            )),
            None | Some(b"linearizable") => Ok(Consistency::Linearizable),
            Some(b"local") => Ok(Consistency::Local),
            Some(_) => Err(invalid(
                "`consistency` must be `linearizable`, `bounded` or `local`".to_owned(),
            )),
        }
    }

    /// Session and sequence number of a write; zeros for none.
    pub(super) fn session(&self) -> Result<(u64, u64), Error> {
        let session = self.header_number("seaworthy-session")?;
        let seq = self.header_number("seaworthy-seq")?;
        match (session, seq) {
            (None, None) => Ok((0, 0)),
            (Some(session), Some(seq)) if session > 0 && seq > 0 => Ok((session, seq)),
            _ => Err(invalid(
                "`Seaworthy-Session` and `Seaworthy-Seq` go together, and both start at 1"
                    .to_owned(),
            )),
        }
    }

    /// A header that is a number, if given.
    pub(super) fn header_number(&self, name: &str) -> Result<Option<u64>, Error> {
        let value = self.headers.get(name);
        value
            .map(|value| number(name, value.as_bytes()))
            .transpose()
    }

    /// True when the client asks for the value as it is.
    pub(super) fn wants_bytes(&self) -> bool {
        let accept = self.headers.get(ACCEPT).map(HeaderValue::as_bytes);
        accept.is_some_and(|accept| accept.starts_with(b"application/octet-stream"))
    }

    /// The JSON body.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|error| {
            invalid(format!(
                "the body is not the JSON this route takes: {error}"
            ))
            .hint("GET /openapi.json describes every route")
        })
    }
}

/// Refuses query parameters the route does not have.
fn known(route: &'static Route, query: &BTreeMap<String, Bytes>) -> Result<(), Error> {
    let Some(stranger) = query.keys().find(|name| !route.has(Place::Query, name)) else {
        return Ok(());
    };
    let names: Vec<&str> = route
        .params()
        .filter(|param| param.place == Place::Query)
        .map(|param| param.name)
        .collect();
    let hint = match names.is_empty() {
        true => "this route takes no query parameters".to_owned(),
        false => format!("this route takes {}", names.join(", ")),
    };
    Err(invalid(format!("unknown query parameter `{stranger}`")).hint(hint))
}

/// Reads a body within the limits of size and time.
async fn read_body(
    api: &Api,
    headers: &HeaderMap,
    mut body: axum::body::Body,
) -> Result<Bytes, Error> {
    let most = api.options.limits.body_bytes_max;
    let patience = Duration::from_millis(api.options.limits.slow_client_ms);
    let declared = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|bytes| bytes > most as u64) {
        if !headers.contains_key(EXPECT) {
            drain(api, &mut body, patience).await;
        }
        return Err(body_too_large(most));
    }
    let reading = Limited::new(&mut body, most).collect();
    match api.clock.timeout(patience, reading).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            drain(api, &mut body, patience).await;
            Err(body_too_large(most))
        }
        Ok(Err(error)) => Err(invalid(format!("the body broke off: {error}"))),
        Err(late) => Err(Error::new(
            Code::Timeout,
            format!("the body did not arrive within {:?}", late.after),
        )),
    }
}

/// Reads and forgets what is left of a body, within bounds: a connection closed with unread bytes is reset, and the client
/// would lose our answer.
async fn drain(api: &Api, body: &mut axum::body::Body, patience: Duration) {
    let reading = async {
        let mut seen = 0;
        while let Some(Ok(frame)) = body.frame().await {
            seen += frame.data_ref().map_or(0, Bytes::len);
            if seen > DRAIN_BYTES_MAX {
                return;
            }
        }
    };
    // Whether it ended, broke or took too long: the answer is the same.
    api.clock.timeout(patience, reading).await.ok();
}

fn body_too_large(most: usize) -> Error {
    Error::new(
        Code::TooLarge,
        format!("the body has more than {most} bytes"),
    )
    .hint("`limits.body_bytes_max` of the nodes' configuration sets the limit")
}

/// The request makes no sense.
pub(super) fn invalid(message: String) -> Error {
    Error::new(Code::InvalidArgument, message)
}

/// Text of a parameter.
fn text(name: &str, bytes: &[u8]) -> Result<String, Error> {
    let text = std::str::from_utf8(bytes);
    text.map(str::to_owned)
        .map_err(|_| invalid(format!("`{name}` is not UTF-8")))
}

/// A decimal number.
fn number(name: &str, bytes: &[u8]) -> Result<u64, Error> {
    std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| {
            let given = String::from_utf8_lossy(bytes).into_owned();
            invalid(format!("`{name}` must be a whole number, not `{given}`"))
        })
}

/// Path parameters of `path` by `template`, which is known to match. `{*name}` takes all that is left.
fn path_params(template: &'static str, path: &str) -> Result<BTreeMap<&'static str, Bytes>, Error> {
    let mut found = BTreeMap::new();
    let mut rest = path.strip_prefix('/').unwrap_or(path);
    for part in template.split('/').skip(1) {
        let (segment, after) = rest.split_once('/').unwrap_or((rest, ""));
        if let Some(name) = part
            .strip_prefix("{*")
            .and_then(|part| part.strip_suffix('}'))
        {
            found.insert(name, percent_decode(rest, false)?);
            return Ok(found);
        }
        if let Some(name) = part
            .strip_prefix('{')
            .and_then(|part| part.strip_suffix('}'))
        {
            found.insert(name, percent_decode(segment, false)?);
        }
        rest = after;
    }
    Ok(found)
}

/// Query parameters of `query`.
fn query_params(query: &str) -> Result<BTreeMap<String, Bytes>, Error> {
    let mut found = BTreeMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = String::from_utf8(percent_decode(name, true)?.to_vec())
            .map_err(|_| invalid("a query parameter's name is not UTF-8".to_owned()))?;
        let value = percent_decode(value, true)?;
        if found.insert(name.clone(), value).is_some() {
            return Err(invalid(format!("query parameter `{name}` is given twice")));
        }
    }
    Ok(found)
}

/// Bytes of percent-encoded text; `form` says that `+` stands for a space.
fn percent_decode(text: &str, form: bool) -> Result<Bytes, Error> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'%' => {
                let pair = rest.get(..2).and_then(hex_byte).ok_or_else(|| {
                    invalid(format!(
                        "`{text}` has a `%` without two hex digits after it"
                    ))
                    .hint("a percent sign itself is written %25")
                })?;
                bytes.push(pair);
                rest = &rest[2..];
            }
            b'+' if form => bytes.push(b' '),
            other => bytes.push(*other),
        }
    }
    Ok(Bytes::from(bytes))
}

/// The byte of two hex digits.
fn hex_byte(pair: &[u8]) -> Option<u8> {
    let digit = |byte: u8| (byte as char).to_digit(16);
    let value = digit(*pair.first()?)? * 16 + digit(*pair.get(1)?)?;
    u8::try_from(value).ok()
}

/// A JSON answer with status 200.
pub(super) fn json<T: Serialize>(answer: &T) -> Result<Response, Error> {
    json_with(StatusCode::OK, answer)
}

/// A JSON answer.
pub(super) fn json_with<T: Serialize>(status: StatusCode, answer: &T) -> Result<Response, Error> {
    let body = serde_json::to_vec(answer)
        .map_err(|error| Error::new(Code::Internal, format!("cannot write JSON: {error}")))?;
    Ok(plain(status, "application/json", Bytes::from(body)))
}

/// An answer of `kind`.
pub(super) fn plain(status: StatusCode, kind: &'static str, body: Bytes) -> Response {
    let mut response = Response::new(axum::body::Body::from(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// An error as an answer. Names the leader when the client might want to go there.
pub(super) fn refuse(api: &Api, mut error: Error) -> Response {
    if error.leader.is_none() && (error.retryable || error.outcome_unknown) {
        error.leader = api.handle.status().leader_info();
    }
    let status =
        StatusCode::from_u16(error.code.http_status()).expect("every code's status is a valid one");
    let body = serde_json::to_vec(&error).expect("an error is plain text and numbers");
    plain(status, "application/json", Bytes::from(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcard_keys_keep_slashes_and_bytes() {
        let found = path_params("/v1/kv/{*key}", "/v1/kv/a/b%2Fc//%FF%00+").unwrap();
        assert_eq!(found["key"], &b"a/b/c//\xff\0+"[..]);
        let found = path_params("/v1/leases/{id}/keepalive", "/v1/leases/17/keepalive").unwrap();
        assert_eq!(found["id"], &b"17"[..]);
    }

    #[test]
    fn bad_percent_encoding_is_refused() {
        for text in ["%", "%4", "%zz", "a%+1"] {
            let error = percent_decode(text, false).unwrap_err();
            assert_eq!(error.code, Code::InvalidArgument, "{text}");
        }
        assert_eq!(percent_decode("%41%42", false).unwrap(), &b"AB"[..]);
    }

    #[test]
    fn query_is_form_encoded_and_not_repeated() {
        let found = query_params("prefix=a+b%2B&&prev").unwrap();
        assert_eq!(found["prefix"], &b"a b+"[..]);
        assert_eq!(found["prev"], &b""[..]);
        assert!(query_params("a=1&a=2").is_err());
        assert!(query_params("%ff=1").is_err());
    }
}
