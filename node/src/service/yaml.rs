//! YAML as a tree that knows its lines, and as what serde reads.
//!
//! Scalars stay text until somebody says what they shall be: `80` may be a port or a word. Anchors, aliases and `<<` are
//! followed within bounds. A key that stands twice, a tag of one's own and a second document are errors.

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{self, DeserializeSeed, IntoDeserializer, Visitor};
use std::collections::BTreeMap;
use std::fmt;

/// Deepest nesting.
const DEPTH_MAX: usize = 64;
/// Nodes of one file, those of aliases counted each time: a file of a few lines must not become gigabytes.
const NODES_MAX: usize = 100_000;

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    /// Its line, from 1.
    pub(super) line: usize,
    /// What it is.
    pub(super) value: Value,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// A text, number, switch or nothing.
    Scalar {
        /// As written.
        text: String,
        /// Whether it stands without quotes, so that it may be a number, a switch or nothing.
        plain: bool,
    },
    /// A list.
    List(Vec<Node>),
    /// Keys with their lines, and values.
    Map(Vec<(Key, Node)>),
}

/// A key of a map.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Key {
    /// The key.
    pub(super) name: String,
    /// Its line, from 1.
    pub(super) line: usize,
}

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// The line, from 1; zero: not known yet.
    pub(super) line: usize,
    /// What.
    pub(super) message: String,
}

impl Node {
    /// The text of a scalar that is something.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } if !self.is_null() => Some(text),
            _ => None,
        }
    }

    /// Whether it is nothing.
    pub(super) fn is_null(&self) -> bool {
        let nothing = ["", "~", "null", "Null", "NULL"];
        matches!(&self.value, Value::Scalar { text, plain: true } if nothing.contains(&&**text))
    }

    /// Whether it is a switch, and how it stands.
    pub(super) fn switch(&self) -> Option<bool> {
        match &self.value {
            Value::Scalar { text, plain: true } => match text.as_str() {
                "true" | "True" | "TRUE" => Some(true),
                "false" | "False" | "FALSE" => Some(false),
                _ => None,
            },
            _ => None,
        }
    }

    /// What it is, for people.
    pub(super) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Scalar { .. } if self.is_null() => "nothing",
            Value::Scalar { .. } => "a value",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }
}

/// A collection that is being read.
enum Open {
    /// A list, and its anchor.
    List(Node, usize),
    /// A map, its anchor, and the key that waits for its value.
    Map(Node, usize, Option<Key>),
}

/// Reads the only document of `text`.
pub(super) fn parse(text: &str) -> Result<Node, Fault> {
    let mut reader = Reader::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| Fault {
            line: error.marker().line(),
            message: error.info().to_owned(),
        })?;
        reader.take(event, span.start.line())?;
    }
    let nothing = fault(1, "the file is empty");
    reader.root.ok_or(nothing)
}

fn fault(line: usize, message: impl Into<String>) -> Fault {
    Fault {
        line,
        message: message.into(),
    }
}

/// A tree that grows.
#[derive(Default)]
struct Reader {
    /// Collections that are open, the innermost last.
    open: Vec<Open>,
    /// Nodes with an anchor.
    anchors: BTreeMap<usize, Node>,
    /// The document.
    root: Option<Node>,
    /// Nodes so far.
    count: usize,
}

impl Reader {
    fn take(&mut self, event: Event<'_>, line: usize) -> Result<(), Fault> {
        match event {
            Event::DocumentStart(_) if self.root.is_some() => {
                Err(fault(line, "a second document: one file is one document"))
            }
            Event::Scalar(text, style, anchor, tag) => {
                let is_text = tag.as_ref().is_some_and(|tag| tag.suffix == "str");
                check_tag(tag.as_deref(), line)?;
                let value = Value::Scalar {
                    text: text.into_owned(),
                    plain: style == ScalarStyle::Plain && !is_text,
                };
                self.put(Node { line, value }, anchor)
            }
            Event::Alias(anchor) => {
                let known = self.anchors.get(&anchor).cloned();
                let node = known.ok_or_else(|| fault(line, "an alias to what surrounds it"))?;
                self.count += weight(&node);
                self.put(node, 0)
            }
            Event::SequenceStart(anchor, tag) => {
                check_tag(tag.as_deref(), line)?;
                let value = Value::List(Vec::new());
                self.enter(Open::List(Node { line, value }, anchor), line)
            }
            Event::MappingStart(anchor, tag) => {
                check_tag(tag.as_deref(), line)?;
                let value = Value::Map(Vec::new());
                self.enter(Open::Map(Node { line, value }, anchor, None), line)
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List(node, anchor)) | Some(Open::Map(node, anchor, _)) => {
                    self.put(node, anchor)
                }
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn enter(&mut self, open: Open, line: usize) -> Result<(), Fault> {
        if self.open.len() >= DEPTH_MAX {
            return Err(fault(line, format!("nested deeper than {DEPTH_MAX}")));
        }
        self.open.push(open);
        Ok(())
    }

    /// Puts a whole node where it belongs.
    fn put(&mut self, node: Node, anchor: usize) -> Result<(), Fault> {
        self.count += 1;
        if self.count > NODES_MAX {
            return Err(fault(node.line, format!("more than {NODES_MAX} values")));
        }
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List(list, _)) => {
                if let Value::List(items) = &mut list.value {
                    items.push(node);
                }
            }
            Some(Open::Map(map, _, waiting)) => match waiting.take() {
                None => *waiting = Some(key(node)?),
                Some(key) => {
                    if let Value::Map(fields) = &mut map.value {
                        insert(fields, key, node)?;
                    }
                }
            },
        }
        Ok(())
    }
}

/// Nodes below and with `node`.
fn weight(node: &Node) -> usize {
    match &node.value {
        Value::Scalar { .. } => 1,
        Value::List(items) => 1 + items.iter().map(weight).sum::<usize>(),
        Value::Map(fields) => 1 + fields.iter().map(|(_, node)| weight(node)).sum::<usize>(),
    }
}

fn check_tag(tag: Option<&saphyr_parser::Tag>, line: usize) -> Result<(), Fault> {
    match tag {
        Some(tag) if !tag.is_yaml_core_schema() => {
            let message = format!("the tag {}{} means nothing here", tag.handle, tag.suffix);
            Err(fault(line, message))
        }
        _ => Ok(()),
    }
}

fn key(node: Node) -> Result<Key, Fault> {
    match node.value {
        Value::Scalar { text, .. } => Ok(Key {
            name: text,
            line: node.line,
        }),
        _ => Err(fault(node.line, "a key that is no text")),
    }
}

/// Adds a field; `<<` brings those of other maps that are not there.
fn insert(fields: &mut Vec<(Key, Node)>, key: Key, node: Node) -> Result<(), Fault> {
    if key.name != "<<" {
        // What `<<` brought before gives way to what is written.
        if let Some(at) = fields.iter().position(|(other, _)| other.name == key.name) {
            if fields[at].0.line != 0 {
                let message = format!("the key `{}` stands here again", key.name);
                return Err(fault(key.line, message));
            }
            fields.remove(at);
        }
        fields.push((key, node));
        return Ok(());
    }
    let sources = match node.value {
        Value::List(items) => items,
        _ => vec![node],
    };
    for source in sources {
        let Value::Map(brought) = source.value else {
            return Err(fault(key.line, "`<<` takes maps"));
        };
        for (name, value) in brought {
            if !fields.iter().any(|(other, _)| other.name == name.name) {
                // A line of zero marks it as brought.
                fields.push((Key { line: 0, ..name }, value));
            }
        }
    }
    Ok(())
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "line {}: {}", self.line, self.message)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        fault(0, message.to_string())
    }
}

impl Fault {
    /// The same fault at `line`, unless it is known better.
    fn at(mut self, line: usize) -> Self {
        if self.line == 0 {
            self.line = line;
        }
        self
    }
}

/// Reads `node` as a `T`.
pub(super) fn read<T: de::DeserializeOwned>(node: &Node) -> Result<T, Fault> {
    T::deserialize(node).map_err(|fault| fault.at(node.line))
}

impl<'de> de::Deserializer<'de> for &Node {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let read = match &self.value {
            _ if self.is_null() => visitor.visit_unit(),
            Value::Scalar { text, plain } => scalar(text, *plain, self.switch(), visitor),
            Value::List(items) => visitor.visit_seq(Items(items.iter())),
            Value::Map(fields) => visitor.visit_map(Fields(fields.iter(), None)),
        };
        read.map_err(|fault| fault.at(self.line))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.is_null() {
            true => visitor.visit_none(),
            false => visitor.visit_some(self),
        }
    }

    /// A text takes what looks like a number too.
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.text() {
            Some(text) => visitor
                .visit_str(text)
                .map_err(|fault| fault_at(fault, self)),
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_string(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_string(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let read = match &self.value {
            Value::Map(fields) => {
                let fields = MapAccessDeserializer::new(Fields(fields.iter(), None));
                fields.deserialize_enum(name, variants, visitor)
            }
            _ => {
                let word = StrDeserializer::<Fault>::new(self.text().unwrap_or_default());
                word.deserialize_enum(name, variants, visitor)
            }
        };
        read.map_err(|fault| fault.at(self.line))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct ignored_any
    }
}

fn fault_at(fault: Fault, node: &Node) -> Fault {
    fault.at(node.line)
}

fn scalar<'de, V: Visitor<'de>>(
    text: &str,
    plain: bool,
    switch: Option<bool>,
    visitor: V,
) -> Result<V::Value, Fault> {
    if !plain {
        return visitor.visit_str(text);
    }
    if let Some(switch) = switch {
        return visitor.visit_bool(switch);
    }
    if let Ok(number) = text.parse::<u64>() {
        return visitor.visit_u64(number);
    }
    if let Ok(number) = text.parse::<i64>() {
        return visitor.visit_i64(number);
    }
    let looks_like_one = text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
    match text.parse::<f64>() {
        Ok(number) if looks_like_one => visitor.visit_f64(number),
        _ => visitor.visit_str(text),
    }
}

/// The items of a list.
struct Items<'a>(std::slice::Iter<'a, Node>);

impl<'de> de::SeqAccess<'de> for Items<'_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fault> {
        self.0.next().map(|item| seed.deserialize(item)).transpose()
    }
}

/// The fields of a map, and the value of the key that was given out.
struct Fields<'a>(std::slice::Iter<'a, (Key, Node)>, Option<&'a Node>);

impl<'de> de::MapAccess<'de> for Fields<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        let Some((key, value)) = self.0.next() else {
            return Ok(None);
        };
        self.1 = Some(value);
        let name: StrDeserializer<'_, Fault> = key.name.as_str().into_deserializer();
        let line = if key.line == 0 { value.line } else { key.line };
        seed.deserialize(name)
            .map(Some)
            .map_err(|fault| fault.at(line))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        match self.1.take() {
            Some(value) => seed
                .deserialize(value)
                .map_err(|fault| fault.at(value.line)),
            None => Err(fault(0, "a key without a value")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Spec;

    #[test]
    fn a_specification_reads_as_in_toml() {
        let text = "name: web\nreplicas: 3\ncommand: [sleep, 100]\nenv:\n  PORT: 8080\n  YES: true\nhealth:\n  check:\n    http:\n      port: 80\n      path: /h\nupdate: {order: stop-first}\n";
        let spec: Spec = read(&parse(text).unwrap()).unwrap();
        assert_eq!((spec.replicas, &*spec.command[1]), (3, "100"));
        assert_eq!((&*spec.env["PORT"], &*spec.env["YES"]), ("8080", "true"));
        assert!(spec.health.is_some());
    }

    #[test]
    fn faults_name_their_line() {
        for (text, line, words) in [
            ("name: web\nreplica: 3\n", 2, "unknown field `replica`"),
            ("name: web\nreplicas: many\n", 2, "invalid type"),
            (
                "name: web\nupdate:\n  order: sideways\n",
                3,
                "unknown variant `sideways`",
            ),
            ("name: a\nname: b\n", 2, "again"),
            ("name: a\n---\nname: b\n", 2, "second document"),
            ("name: !mine a\n", 1, "tag"),
            ("name: [a\n", 2, ""),
            ("a: *b\n", 1, ""),
        ] {
            let node = parse(text);
            let fault = node.and_then(|node| read::<Spec>(&node)).unwrap_err();
            assert_eq!(fault.line, line, "{text}: {fault}");
            assert!(fault.message.contains(words), "{text}: {fault}");
        }
    }

    #[test]
    fn merges_give_way_and_aliases_are_bounded() {
        let text = "a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  y: 3\n";
        let node = parse(text).unwrap();
        let Value::Map(fields) = &node.value else {
            panic!("{node:?}")
        };
        let Value::Map(b) = &fields[1].1.value else {
            panic!("{node:?}")
        };
        let b: Vec<(&str, &str)> = b
            .iter()
            .map(|(key, node)| (&*key.name, node.text().unwrap()))
            .collect();
        assert_eq!(b, [("x", "1"), ("y", "3")]);
        let mut bomb = "l0: &l0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..10 {
            let below = level - 1;
            bomb += &format!(
                "l{level}: &l{level} [*l{below}, *l{below}, *l{below}, *l{below}, *l{below}, *l{below}, *l{below}, *l{below}]\n"
            );
        }
        assert!(parse(&bomb).unwrap_err().message.contains("more than"));
        let deep = "[".repeat(1_000);
        assert!(parse(&deep).is_err());
    }
}
