//! Compose files as specifications: every key is taken over or refused with its line, none is dropped in silence.
//!
//! What means something else here than it says is taken over with a note. What means nothing here is a fault, or with
//! `ignore_unsupported` a note. What is wrong is a fault always. All faults are told at once.
//!
//! Map: here the file and its top; `service`, the keys of a service; `deploy`, what stands under `deploy`; `value`, texts, lists and
//! maps in the spellings that Compose allows; `place`, ports and volumes; `secrets`.

mod deploy;
mod place;
mod secrets;
mod service;
#[cfg(test)]
mod tests;
mod value;

use super::file::Read;
use super::yaml::{Key, Node, Value};
use std::collections::BTreeMap;

/// Whether the document is a Compose file: it has services.
pub(super) fn is_compose(root: &Node) -> bool {
    match &root.value {
        Value::Map(fields) => fields.iter().any(|(key, _)| key.name == "services"),
        _ => false,
    }
}

/// Reads a Compose file, or says everything that is wrong.
pub(super) fn read(
    name: &str,
    mut root: Node,
    ignore_unsupported: bool,
) -> Result<Read, Vec<String>> {
    let mut report = Report {
        file: name.to_owned(),
        ignore_unsupported,
        faults: Vec::new(),
        notes: Vec::new(),
    };
    report.dollars(&mut root);
    let mut specs = Vec::new();
    let volumes = volumes(&root, &mut report);
    let secrets = secrets::named(&root, &mut report);
    for (key, node) in report.map("the file", &root) {
        let path = key.name.as_str();
        match path {
            "services" => {
                for (key, node) in report.map(path, node) {
                    let named = (&volumes, &secrets);
                    specs.push(service::read(key, node, named, &mut report));
                }
            }
            // Read above; and Compose itself gives the version no meaning.
            "volumes" | "secrets" | "version" => {}
            "name" => {
                let why = "services keep their own names, without the project's";
                report.note(key.line, path, why);
            }
            "networks" => {
                report.unsupported(key.line, path, "there are no networks between tasks yet");
            }
            "configs" => {
                let why = "give tasks files or variables in another way";
                report.unsupported(key.line, path, why);
            }
            "include" | "models" => report.unsupported(key.line, path, "write one file"),
            name if name.starts_with("x-") => {}
            _ => report.unknown(key, path),
        }
    }
    place::share_volumes(&mut specs, &mut report);
    if specs.is_empty() && report.faults.is_empty() {
        let fault = format!("{name}: there are no services in it");
        report.faults.push(fault);
    }
    match report.faults.is_empty() {
        true => Ok(Read {
            specs,
            notes: report.notes,
        }),
        false => Err(report.faults),
    }
}

/// The volumes that the file names: as it calls them, and as the cluster does.
fn volumes(root: &Node, report: &mut Report) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let top = match &root.value {
        Value::Map(fields) => fields.iter().find(|(key, _)| key.name == "volumes"),
        _ => None,
    };
    let Some((_, node)) = top else {
        return found;
    };
    for (volume, node) in report.map("volumes", node) {
        let path = format!("volumes.{}", volume.name);
        let mut name = volume.name.clone();
        for (key, node) in report.map(&path, node) {
            let path = format!("{path}.{}", key.name);
            match key.name.as_str() {
                "name" => name = report.text(&path, node),
                "external" => {}
                "driver" if node.text() == Some("local") => {}
                "labels" => report.note(key.line, &path, "volumes have no labels here"),
                other if other.starts_with("x-") => {}
                _ => {
                    let why = "a volume is a directory on its worker";
                    report.unsupported(key.line, &path, why);
                }
            }
        }
        found.insert(volume.name.clone(), name);
    }
    found
}

/// What was found while reading.
struct Report {
    /// The file's name.
    file: String,
    /// Whether keys that mean nothing here are dropped with a note.
    ignore_unsupported: bool,
    /// What is wrong.
    faults: Vec<String>,
    /// What is taken otherwise, or dropped.
    notes: Vec<String>,
}

impl Report {
    /// Something is wrong.
    fn wrong(&mut self, line: usize, path: &str, why: &str) {
        let file = &self.file;
        self.faults.push(format!("{file}:{line}: {path}: {why}"));
    }

    /// Something is taken otherwise than it says.
    fn note(&mut self, line: usize, path: &str, why: &str) {
        let file = &self.file;
        self.notes.push(format!("{file}:{line}: {path}: {why}"));
    }

    /// Compose has this, and it means nothing here.
    fn unsupported(&mut self, line: usize, path: &str, why: &str) {
        match self.ignore_unsupported {
            true => self.note(line, path, &format!("dropped: {why}")),
            false => self.wrong(line, path, &format!("is not supported: {why}")),
        }
    }

    /// Nobody knows this key.
    fn unknown(&mut self, key: &Key, path: &str) {
        let why = "no key of a Compose file is known by this name";
        self.unsupported(key.line, path, why);
    }

    /// The fields of a map; nothing is an empty one.
    fn map<'a>(&mut self, path: &str, node: &'a Node) -> &'a [(Key, Node)] {
        match &node.value {
            Value::Map(fields) => fields,
            _ if node.is_null() => &[],
            _ => {
                let why = format!("must be a map, and is {}", node.kind());
                self.wrong(node.line, path, &why);
                &[]
            }
        }
    }

    /// The items of a list; nothing is an empty one.
    fn list<'a>(&mut self, path: &str, node: &'a Node) -> &'a [Node] {
        match &node.value {
            Value::List(items) => items,
            _ if node.is_null() => &[],
            _ => {
                let why = format!("must be a list, and is {}", node.kind());
                self.wrong(node.line, path, &why);
                &[]
            }
        }
    }

    /// A text; empty when it is none.
    fn text(&mut self, path: &str, node: &Node) -> String {
        match node.text() {
            Some(text) => text.to_owned(),
            None => {
                let why = format!("must be a text, and is {}", node.kind());
                self.wrong(node.line, path, &why);
                String::new()
            }
        }
    }

    /// A text that `parse` reads.
    fn parsed<T>(
        &mut self,
        path: &str,
        node: &Node,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let Some(text) = node.text() else {
            self.text(path, node);
            return None;
        };
        match parse(text) {
            Ok(value) => Some(value),
            Err(why) => {
                self.wrong(node.line, path, &why);
                None
            }
        }
    }

    /// A whole number.
    fn number(&mut self, path: &str, node: &Node) -> Option<u32> {
        self.parsed(path, node, |text| {
            text.parse()
                .map_err(|_| format!("\"{text}\" is no whole number"))
        })
    }

    /// Compose fills in variables of the shell; we do not, and say so. `$$` is a dollar sign.
    fn dollars(&mut self, node: &mut Node) {
        match &mut node.value {
            Value::List(items) => items.iter_mut().for_each(|item| self.dollars(item)),
            Value::Map(fields) => fields.iter_mut().for_each(|(_, node)| self.dollars(node)),
            Value::Scalar { text, .. } if text.contains('$') => {
                if text.replace("$$", "").contains('$') {
                    let why = "variables of the shell are not filled in: write the value, or $$ for a dollar sign";
                    let what = format!("\"{text}\"");
                    self.wrong(node.line, &what, why);
                }
                *text = text.replace("$$", "$");
            }
            Value::Scalar { .. } => {}
        }
    }
}
