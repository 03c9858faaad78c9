//! Amounts as people write them: processors, bytes, times. Flags and Compose files share these.

/// Thousandths of a processor: `0.5`, `2` or `250m`.
pub fn cpu(text: &str) -> Result<u64, String> {
    let wrong = || format!("\"{text}\" is no number of processors: write 0.5, 2 or 250m");
    if let Some(milli) = text.strip_suffix('m') {
        return milli.parse().map_err(|_| wrong());
    }
    match text.parse::<f64>() {
        Ok(whole) if (0.0..=1e6).contains(&whole) => Ok((whole * 1000.0).round() as u64),
        _ => Err(wrong()),
    }
}

/// Bytes: `512`, `64KiB`, `256MiB`, `1.5GiB`; `k`, `m`, `g` (and `MB` and the like) are powers of 1024 too, as in Compose.
pub fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("\"{text}\" is no size: write 256MiB or 1.5GiB");
    let end = text.find(|letter: char| letter.is_ascii_alphabetic());
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(wrong()),
    };
    match number.trim().parse::<f64>() {
        Ok(number) if (0.0..=1e9).contains(&number) => {
            Ok((number * (1_u64 << shift) as f64).round() as u64)
        }
        _ => Err(wrong()),
    }
}

/// Milliseconds of a time such as `90s`, `1m30s`, `1.5h`.
pub fn time_ms(text: &str) -> Result<u64, String> {
    let wrong = || format!("\"{text}\" is no time: write 500ms, 90s or 1m30s");
    let mut rest = text.trim();
    let mut total = 0.0;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| letter.is_ascii_alphabetic());
        let (number, tail) = rest.split_at(digits.ok_or_else(wrong)?);
        let end = tail.find(|letter: char| !letter.is_ascii_alphabetic());
        let (unit, tail) = tail.split_at(end.unwrap_or(tail.len()));
        let factor = match unit {
            "us" => 1e-3,
            "ms" => 1.0,
            "s" => 1e3,
            "m" => 6e4,
            "h" => 3.6e6,
            "d" => 8.64e7,
            _ => return Err(wrong()),
        };
        let number: f64 = number.parse().map_err(|_| wrong())?;
        if !(0.0..=1e12).contains(&number) {
            return Err(wrong());
        }
        total += number * factor;
        rest = tail;
    }
    Ok(total.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_people_write_them() {
        assert_eq!(cpu("0.5"), Ok(500));
        assert_eq!(cpu("250m"), Ok(250));
        assert_eq!(cpu("2"), Ok(2000));
        assert!(cpu("-1").is_err() && cpu("many").is_err());
        assert_eq!(bytes("512"), Ok(512));
        assert_eq!(bytes("64KiB"), Ok(65_536));
        assert_eq!(bytes("1.5g"), Ok(3 << 29));
        assert!(bytes("5 parsecs").is_err() && bytes("").is_err());
        assert_eq!(time_ms("1m30s"), Ok(90_000));
        assert_eq!(time_ms("1.5h"), Ok(5_400_000));
        assert_eq!(time_ms("20ms"), Ok(20));
        for wrong in ["", "5", "s", "1x", "-1s", "1m 3"] {
            assert!(time_ms(wrong).is_err(), "{wrong}");
        }
    }
}
