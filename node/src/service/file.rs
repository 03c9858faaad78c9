//! Specifications as files: our own in TOML, JSON or YAML, and Compose files.
//!
//! A file is read whole or not at all: a key that nobody knows is an error that names its line.

use super::spec::Spec;

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
        _ => None,
    }
}

/// Reads the file `name` with this text.
pub fn read(name: &str, text: &str) -> Result<Read, String> {
    let spec = match form_of(name).unwrap_or_else(|| guess(text)) {
        Form::Toml => toml::from_str(text).map_err(|error| error.to_string()),
        Form::Json => serde_json::from_str(text).map_err(|error| error.to_string()),
    };
    let spec = spec.map_err(|error| format!("{name}: {}", error.trim_end()))?;
    Ok(Read {
        specs: vec![spec],
        notes: Vec::new(),
    })
}

/// The form of a text without a telling name.
fn guess(text: &str) -> Form {
    match text.trim_start().starts_with('{') {
        true => Form::Json,
        false => Form::Toml,
    }
}
