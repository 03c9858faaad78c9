//! Specifications as files: our own in TOML, JSON or YAML, and Compose files.
//!
//! A file is read whole or not at all: a key that nobody knows is an error that names its line.

use super::spec::Spec;
use super::{compose, yaml};

/// What a file holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Read {
    /// The services that it describes, in its order.
    pub specs: Vec<Spec>,
    /// What was taken from it differently than it says, or not at all: a sentence each, with its line.
    pub notes: Vec<String>,
}

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Toml,
    Json,
    Yaml,
}

/// Whether `name` looks like a file that describes services.
pub fn is_file_name(name: &str) -> bool {
    name == "-" || name.contains('/') || form_of(name).is_some()
}

fn form_of(name: &str) -> Option<Form> {
    let (_, extension) = name.rsplit_once('.')?;
    match extension.to_ascii_lowercase().as_str() {
        "toml" => Some(Form::Toml),
        "json" => Some(Form::Json),
        "yaml" | "yml" => Some(Form::Yaml),
        _ => None,
    }
}

/// Reads the file `name` with this text, or says everything that is wrong. What a Compose file says that means nothing here is
/// wrong too, unless `ignore_unsupported`: then it is noted.
pub fn read(name: &str, text: &str, ignore_unsupported: bool) -> Result<Read, Vec<String>> {
    let one = |spec: Spec| Read {
        specs: vec![spec],
        notes: Vec::new(),
    };
    let named = |fault: String| vec![format!("{name}: {}", fault.trim_end())];
    match form_of(name).unwrap_or_else(|| guess(text)) {
        Form::Toml => toml::from_str(text)
            .map(one)
            .map_err(|error| named(error.to_string())),
        Form::Json => serde_json::from_str(text)
            .map(one)
            .map_err(|error| named(error.to_string())),
        Form::Yaml => {
            let root = yaml::parse(text).map_err(|fault| named(fault.to_string()))?;
            if compose::is_compose(&root) {
                return compose::read(name, root, ignore_unsupported);
            }
            yaml::read(&root)
                .map(one)
                .map_err(|fault| named(fault.to_string()))
        }
    }
}

/// The form of a text without a telling name.
fn guess(text: &str) -> Form {
    let lines = text.lines().map(str::trim);
    let mut lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    match lines.next() {
        Some(line) if line.starts_with('{') => Form::Json,
        Some(line) if line.starts_with('[') || line.contains('=') && !line.contains(": ") => {
            Form::Toml
        }
        _ => Form::Yaml,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_specification_in_three_spellings_is_the_same() {
        let toml = "name = 'web'\ncommand = ['sleep', '1']\n";
        let json = "{\"name\": \"web\", \"command\": [\"sleep\", \"1\"]}";
        let yaml = "# ours\nname: web\ncommand: [sleep, '1']\n";
        for (name, text) in [
            ("a.toml", toml),
            ("a.json", json),
            ("a.yml", yaml),
            ("-", toml),
            ("-", json),
            ("-", yaml),
        ] {
            let read = read(name, text, false).unwrap();
            assert_eq!(read.specs, [Spec::new("web", &["sleep", "1"])], "{name}");
        }
        assert!(is_file_name("./web") && is_file_name("a.yaml") && !is_file_name("web"));
    }

    #[test]
    fn faults_name_file_and_line() {
        let faults = read("a.yaml", "name: web\nreplica: 3\n", false).unwrap_err();
        assert!(
            faults[0].starts_with("a.yaml: line 2: unknown field"),
            "{faults:?}"
        );
        let faults = read("a.toml", "name = 'web'\nreplica = 3\n", false).unwrap_err();
        assert!(faults[0].contains("line 2"), "{faults:?}");
    }
}
