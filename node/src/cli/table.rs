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

/// How long ago `then_ms` was, in one unit: `12s`, `5m`, `3h`, `2d`.
pub fn ago(now_ms: u64, then_ms: u64) -> String {
    let seconds = now_ms.saturating_sub(then_ms) / 1000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A time in UTC, such as `2026-11-21T15:04:05Z`; `-` for the beginning of time, which means that there is none.
pub fn time(unix_ms: u64) -> String {
    if unix_ms == 0 {
        return "-".to_owned();
    }
    let (days, seconds) = (unix_ms / 86_400_000, unix_ms / 1000 % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day of the Gregorian calendar, `days` after the first of January 1970. Years begin in March here, so that
/// the day that is sometimes there is the last.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (era * 400 + year + next, month, day)
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
    fn times_are_told_in_utc() {
        assert_eq!(time(951_782_399_000), "2000-02-28T23:59:59Z");
        assert_eq!(time(951_868_799_999), "2000-02-29T23:59:59Z");
        assert_eq!(time(1_795_359_845_000), "2026-11-22T15:04:05Z");
        assert_eq!(time(1_704_067_199_000), "2023-12-31T23:59:59Z");
        assert_eq!(time(0), "-");
        assert_eq!(ago(100_000, 40_000), "1m");
        assert_eq!(ago(0, 40_000), "0s");
    }

    #[test]
    fn sizes_are_rounded() {
        assert_eq!(size(12), "12 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(5 << 30), "5.0 GiB");
    }
}
