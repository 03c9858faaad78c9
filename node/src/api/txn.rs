//! Transactions in JSON: what a client may send, its limits, and the answer.
//!
//! A transaction compares, then does one of two lists, all at one revision. Comparisons and steps name keys as `key` or
//! `key_base64`; a step's range is `range_end` (exclusive), or `prefix: true` for everything that starts with the key.

use super::wire::{DeleteResult, Place, PutResult, RangeResult, from_text};
use crate::config::Limits;
use crate::error::{Code, Error};
use crate::state::command::{self, Relation, Target, TxnStep};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TxnRequest {
    /// All must hold for `success` to be done.
    pub compare: Vec<Compare>,
    /// Done when all hold.
    pub success: Vec<TxnOp>,
    /// Done otherwise.
    pub failure: Vec<TxnOp>,
}

/// One comparison: what is stored, `relation`, what is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Compare {
    /// Key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Key in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_base64: Option<String>,
    /// `version`, `create_revision`, `mod_revision`, `lease` or `value`.
    pub target: TargetName,
    /// `equal`, `greater`, `less` or `not_equal`.
    pub relation: RelationName,
    /// The number to compare with, for all targets but `value`. An absent key has 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// The value to compare with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The value to compare with, in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_base64: Option<String>,
}

/// What a comparison looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetName {
    /// Count of writes since creation.
    #[default]
    Version,
    /// Revision of creation.
    CreateRevision,
    /// Revision of the last write.
    ModRevision,
    /// The value.
    Value,
    /// The lease.
    Lease,
}

/// How a comparison compares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RelationName {
    /// Same.
    #[default]
    Equal,
    /// Stored is greater.
    Greater,
    /// Stored is less.
    Less,
    /// Different.
    NotEqual,
}

/// One step, named by what it does: `{"put": {...}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TxnOp {
    /// Writes a key.
    Put(PutStep),
    /// Removes a key or a range.
    Delete(RangeStep),
    /// Reads a key or a range, seeing the earlier steps.
    Get(RangeStep),
}

/// A step that writes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PutStep {
    /// Key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Key in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_base64: Option<String>,
    /// Value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Value in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_base64: Option<String>,
    /// Lease to tie the key to, zero for none.
    pub lease: u64,
    /// Whether the answer carries the record that was there before.
    pub prev: bool,
}

/// A step that removes or reads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RangeStep {
    /// Key, or start of the range.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Key in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_base64: Option<String>,
    /// End of the range, exclusive; absent for one key, a single zero byte for no end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range_end: Option<String>,
    /// End of the range in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range_end_base64: Option<String>,
    /// Everything that starts with the key.
    pub prefix: bool,
    /// Most records to read; zero for the server's limit.
    pub limit: u64,
    /// Read keys without values.
    pub keys_only: bool,
    /// Read the count alone.
    pub count_only: bool,
    /// Whether a removal's answer carries the records that were there before.
    pub prev: bool,
}

/// Answer to a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxnAnswer {
    /// Where it stands.
    #[serde(flatten)]
    pub place: Place,
    /// True when all comparisons held.
    pub succeeded: bool,
    /// One result per step done.
    pub results: Vec<TxnResult>,
}

/// Result of one step, named as the step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TxnResult {
    /// Of a put.
    Put(PutResult),
    /// Of a delete.
    Delete(DeleteResult),
    /// Of a get.
    Get(RangeResult),
}

impl TxnAnswer {
    /// The answer at `place`. `request` says which reads were for keys alone.
    pub(crate) fn of(place: Place, done: command::TxnDone, request: &TxnRequest) -> Self {
        let steps = if done.succeeded {
            &request.success
        } else {
            &request.failure
        };
        let mut results = Vec::with_capacity(done.results.len());
        for (position, result) in done.results.into_iter().enumerate() {
            let keys_only = matches!(steps.get(position), Some(TxnOp::Get(step)) if step.keys_only);
            results.extend(result.step.map(|step| TxnResult::of(step, keys_only)));
        }
        TxnAnswer {
            place,
            succeeded: done.succeeded,
            results,
        }
    }
}

impl TxnResult {
    fn of(step: command::Step, keys_only: bool) -> Self {
        match step {
            command::Step::Put(done) => TxnResult::Put(done.into()),
            command::Step::Delete(done) => TxnResult::Delete(done.into()),
            command::Step::Get(done) => TxnResult::Get(RangeResult::of(&done, keys_only)),
        }
    }
}

impl TxnRequest {
    /// The command, or what is wrong with the request.
    pub(crate) fn command(&self, limits: &Limits) -> Result<command::Txn, Error> {
        let parts = self.compare.len() + self.success.len() + self.failure.len();
        if parts > limits.txn_ops_max {
            let most = limits.txn_ops_max;
            let message = format!("a transaction has at most {most} parts, this one has {parts}");
            return Err(Error::new(Code::TooLarge, message).hint("split it"));
        }
        let compare = self.compare.iter().map(|one| one.command(limits));
        let success = self.success.iter().map(|step| step.command(limits));
        let failure = self.failure.iter().map(|step| step.command(limits));
        Ok(command::Txn {
            compare: compare.collect::<Result<_, Error>>()?,
            success: success.collect::<Result<_, Error>>()?,
            failure: failure.collect::<Result<_, Error>>()?,
        })
    }
}

impl Compare {
    fn command(&self, limits: &Limits) -> Result<command::Compare, Error> {
        let key = key(&self.key, &self.key_base64, limits)?;
        let value = from_text("value", self.value.clone(), self.value_base64.clone())?;
        let by_value = self.target == TargetName::Value;
        if by_value != value.is_some() || by_value == self.number.is_some() {
            return Err(Error::new(
                Code::InvalidArgument,
                "a comparison needs `value` for target `value`, and `number` for every other target",
            ));
        }
        Ok(command::Compare {
            key,
            target: self.target.wire() as i32,
            relation: self.relation.wire() as i32,
            number: self.number.unwrap_or_default(),
            value: value.unwrap_or_default(),
        })
    }
}

impl TargetName {
    fn wire(self) -> Target {
        match self {
            TargetName::Version => Target::Version,
            TargetName::CreateRevision => Target::CreateRevision,
            TargetName::ModRevision => Target::ModRevision,
            TargetName::Value => Target::Value,
            TargetName::Lease => Target::Lease,
        }
    }
}

impl RelationName {
    fn wire(self) -> Relation {
        match self {
            RelationName::Equal => Relation::Equal,
            RelationName::Greater => Relation::Greater,
            RelationName::Less => Relation::Less,
            RelationName::NotEqual => Relation::NotEqual,
        }
    }
}

impl TxnOp {
    fn command(&self, limits: &Limits) -> Result<command::TxnOp, Error> {
        let step = match self {
            TxnOp::Put(step) => TxnStep::Put(step.command(limits)?),
            TxnOp::Delete(step) => TxnStep::Delete(step.delete(limits)?),
            TxnOp::Get(step) => TxnStep::Get(step.get(limits)?),
        };
        Ok(command::TxnOp { step: Some(step) })
    }
}

impl PutStep {
    fn command(&self, limits: &Limits) -> Result<command::Put, Error> {
        let value = from_text("value", self.value.clone(), self.value_base64.clone())?
            .ok_or_else(|| Error::new(Code::InvalidArgument, "a put needs a `value`"))?;
        check_value(&value, limits)?;
        Ok(command::Put {
            key: key(&self.key, &self.key_base64, limits)?,
            value,
            lease: self.lease,
            expect: None,
            prev: self.prev,
        })
    }
}

impl RangeStep {
    fn delete(&self, limits: &Limits) -> Result<command::Delete, Error> {
        if self.limit != 0 || self.keys_only || self.count_only {
            return Err(Error::new(
                Code::InvalidArgument,
                "`limit`, `keys_only` and `count_only` belong to a get, not to a delete",
            ));
        }
        let (key, range_end) = self.range(limits)?;
        Ok(command::Delete {
            key,
            range_end,
            expect: None,
            prev: self.prev,
        })
    }

    fn get(&self, limits: &Limits) -> Result<command::Get, Error> {
        if self.prev {
            return Err(Error::new(
                Code::InvalidArgument,
                "`prev` belongs to a put or a delete, not to a get",
            ));
        }
        let (key, range_end) = self.range(limits)?;
        let most = limits.range_max as u64;
        Ok(command::Get {
            key,
            range_end,
            limit: if self.limit == 0 {
                most
            } else {
                self.limit.min(most)
            },
            keys_only: self.keys_only,
            count_only: self.count_only,
            revision: 0,
        })
    }

    /// Start and end, as commands have them.
    fn range(&self, limits: &Limits) -> Result<(Bytes, Bytes), Error> {
        let key = key(&self.key, &self.key_base64, limits)?;
        let end = from_text(
            "range_end",
            self.range_end.clone(),
            self.range_end_base64.clone(),
        )?;
        match (end, self.prefix) {
            (Some(_), true) => Err(Error::new(
                Code::InvalidArgument,
                "give `range_end` or `prefix`, not both",
            )),
            (Some(end), false) => Ok((key, end)),
            (None, true) => {
                let end = prefix_end(&key);
                Ok((key, end))
            }
            (None, false) => Ok((key, Bytes::new())),
        }
    }
}

/// The key of a comparison or step.
fn key(text: &Option<String>, base64: &Option<String>, limits: &Limits) -> Result<Bytes, Error> {
    let key = from_text("key", text.clone(), base64.clone())?
        .ok_or_else(|| Error::new(Code::InvalidArgument, "`key` is missing"))?;
    check_key(&key, limits)?;
    Ok(key)
}

/// Refuses a key that is empty or too long.
pub(crate) fn check_key(key: &Bytes, limits: &Limits) -> Result<(), Error> {
    if key.is_empty() {
        return Err(Error::new(Code::InvalidArgument, "the key is empty"));
    }
    if key.len() > limits.key_bytes_max {
        return Err(too_large("key", key.len(), limits.key_bytes_max));
    }
    Ok(())
}

/// Refuses a value that is too long.
pub(crate) fn check_value(value: &Bytes, limits: &Limits) -> Result<(), Error> {
    if value.len() > limits.value_bytes_max {
        return Err(too_large("value", value.len(), limits.value_bytes_max));
    }
    Ok(())
}

/// Something is over its limit.
fn too_large(what: &str, bytes: usize, most: usize) -> Error {
    let message = format!("the {what} has {bytes} bytes, at most {most} are allowed");
    Error::new(Code::TooLarge, message).hint(format!(
        "`limits.{what}_bytes_max` of the nodes' configuration sets the limit"
    ))
}

/// The end of the range of everything that starts with `prefix`: the prefix with its last byte that can grow grown, and
/// "to the end" (one zero byte) when none can.
pub(crate) fn prefix_end(prefix: &[u8]) -> Bytes {
    let kept = prefix.iter().rposition(|byte| *byte < u8::MAX);
    let Some(last) = kept else {
        return Bytes::from_static(&[0]);
    };
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Bytes::from(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<command::Txn, Error> {
        let request: TxnRequest = serde_json::from_str(json)
            .map_err(|error| Error::new(Code::InvalidArgument, error.to_string()))?;
        request.command(&Limits::default())
    }

    #[test]
    fn prefix_ends_are_exact() {
        assert_eq!(prefix_end(b"a"), &b"b"[..]);
        assert_eq!(prefix_end(b"a\xff"), &b"b"[..]);
        assert_eq!(prefix_end(b"\xff\xff"), &b"\0"[..]);
        assert_eq!(prefix_end(b""), &b"\0"[..]);
    }

    #[test]
    fn full_transaction_becomes_a_command() {
        let txn = parse(
            r#"{"compare":[{"key":"a","target":"mod_revision","relation":"less","number":7},
                           {"key_base64":"/w==","target":"value","relation":"equal","value":"x"}],
                "success":[{"put":{"key":"b","value":"1","lease":4,"prev":true}},{"delete":{"key":"c","prefix":true}}],
                "failure":[{"get":{"key":"a","range_end":"b"}}]}"#,
        )
        .unwrap();
        assert_eq!(txn.compare[0].relation, Relation::Less as i32);
        assert_eq!(txn.compare[1].key, &b"\xff"[..]);
        let Some(TxnStep::Delete(delete)) = &txn.success[1].step else {
            panic!("not a delete")
        };
        assert_eq!(delete.range_end, &b"d"[..]);
        let Some(TxnStep::Get(get)) = &txn.failure[0].step else {
            panic!("not a get")
        };
        assert_eq!(get.limit, 1_000);
    }

    #[test]
    fn nonsense_is_refused_with_words() {
        for (json, word) in [
            (
                r#"{"compare":[{"key":"a","target":"value","relation":"equal","number":1}]}"#,
                "value",
            ),
            (r#"{"compare":[{"key":"a","relation":"equal"}]}"#, "number"),
            (r#"{"success":[{"put":{"key":"","value":"x"}}]}"#, "empty"),
            (r#"{"success":[{"put":{"key":"a"}}]}"#, "value"),
            (r#"{"success":[{"fly":{}}]}"#, "fly"),
            (r#"{"success":[{"get":{"key":"a","prev":true}}]}"#, "prev"),
            (r#"{"sucess":[]}"#, "sucess"),
            (
                r#"{"success":[{"delete":{"key":"a","range_end":"b","prefix":true}}]}"#,
                "not both",
            ),
        ] {
            let error = parse(json).unwrap_err();
            assert_eq!(error.code, Code::InvalidArgument, "{json}");
            assert!(error.message.contains(word), "{json}: {error}");
        }
    }

    #[test]
    fn too_many_parts_are_refused() {
        let step = r#"{"get":{"key":"a"}}"#;
        let json = format!(r#"{{"success":[{}]}}"#, vec![step; 129].join(","));
        assert_eq!(parse(&json).unwrap_err().code, Code::TooLarge);
    }
}
