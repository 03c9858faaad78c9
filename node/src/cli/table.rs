//! Text for people: tables, sizes, and values that may not be text.

use base64::Engine;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

/// Longest value shown in a table, characters.
const CELL_CHARS_MAX: usize = 60;

/// A table without lines, a heading in capitals, columns two spaces apart.
pub fn table(heading: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(heading.iter().map(|word| word.to_uppercase()));
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines: Vec<String> = table
        .lines()
        .map(|line| line.trim_end().to_owned() + "\n")
        .collect();
    lines.concat()
}

/// Two columns, name and value, without a heading.
pub fn pairs(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let line = |(name, value): &(&str, String)| format!("{name:width$}  {value}\n");
    rows.iter().map(line).collect()
}

/// A field of an answer as text; `-` when it is absent.
pub fn field(value: &Value, name: &str) -> String {
    match value.get(name) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// The bytes of a field that is text, or base64 under `<name>_base64`.
pub fn bytes(value: &Value, name: &str) -> Option<Vec<u8>> {
    if let Some(text) = value.get(name).and_then(Value::as_str) {
        return Some(text.as_bytes().to_vec());
    }
    let text = value.get(format!("{name}_base64"))?.as_str()?;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

/// Bytes in one line: text as it is, everything else escaped, long ones cut.
pub fn cell(bytes: Option<Vec<u8>>) -> String {
    let Some(bytes) = bytes else {
        return "-".to_owned();
    };
    let text = match String::from_utf8(bytes) {
        Ok(text) => text
            .escape_debug()
            .to_string()
            .replace("\\\"", "\"")
            .replace("\\'", "'"),
        Err(error) => error.as_bytes().escape_ascii().to_string(),
    };
    if text.chars().count() <= CELL_CHARS_MAX {
        return text;
    }
    let cut: String = text.chars().take(CELL_CHARS_MAX - 1).collect();
    cut + "…"
}

/// A size for people.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut number = bytes as f64;
    let mut unit = "B";
    for next in UNITS {
        if number < 1024.0 {
            break;
        }
        number /= 1024.0;
        unit = next;
    }
    format!("{number:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tables_have_plain_columns() {
        let rows = vec![
            vec!["1".to_owned(), "north".to_owned()],
            vec!["12".to_owned(), "s".to_owned()],
        ];
        assert_eq!(table(&["id", "name"], rows), "ID  NAME\n1   north\n12  s\n");
        assert_eq!(
            pairs(&[("a", "1".into()), ("bcd", "2".into())]),
            "a    1\nbcd  2\n"
        );
    }

    #[test]
    fn values_are_shown_whatever_they_hold() {
        assert_eq!(cell(Some(b"plain \"text\"".to_vec())), "plain \"text\"");
        assert_eq!(cell(Some(b"two\nlines".to_vec())), "two\\nlines");
        assert_eq!(cell(Some(vec![0xff, 0])), "\\xff\\x00");
        assert_eq!(cell(None), "-");
        assert_eq!(cell(Some(vec![b'x'; 100])).chars().count(), CELL_CHARS_MAX);
    }

    #[test]
    fn bytes_come_as_text_or_base64() {
        assert_eq!(bytes(&json!({"value": "a"}), "value"), Some(b"a".to_vec()));
        assert_eq!(
            bytes(&json!({"value_base64": "/w=="}), "value"),
            Some(vec![0xff])
        );
        assert_eq!(bytes(&json!({}), "value"), None);
    }

    #[test]
    fn sizes_are_rounded() {
        assert_eq!(size(12), "12 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(5 << 30), "5.0 GiB");
    }
}
