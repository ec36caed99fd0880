// SPDX-License-Identifier: Apache-2.0
//! Members of JSON documents. Those that a newer server adds are passed over.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};

/// A document is not what it was to be.
#[derive(Debug)]
pub(crate) struct Malformed;

pub(crate) type Parsed<T> = Result<T, Malformed>;

pub(crate) fn member<'a>(document: &'a Value, name: &str) -> Parsed<&'a Value> {
    document.get(name).ok_or(Malformed)
}

/// None when it is null or missing.
pub(crate) fn optional<'a, T>(
    document: &'a Value,
    name: &str,
    read: impl FnOnce(&'a Value) -> Parsed<T>,
) -> Parsed<Option<T>> {
    match document.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => read(value).map(Some),
    }
}

pub(crate) fn as_text(value: &Value) -> Parsed<String> {
    value.as_str().map(str::to_string).ok_or(Malformed)
}

pub(crate) fn as_integer(value: &Value) -> Parsed<u64> {
    value.as_u64().ok_or(Malformed)
}

pub(crate) fn as_number(value: &Value) -> Parsed<f64> {
    value.as_f64().ok_or(Malformed)
}

pub(crate) fn text(document: &Value, name: &str) -> Parsed<String> {
    as_text(member(document, name)?)
}

pub(crate) fn optional_text(document: &Value, name: &str) -> Parsed<Option<String>> {
    optional(document, name, as_text)
}

pub(crate) fn integer(document: &Value, name: &str) -> Parsed<u64> {
    as_integer(member(document, name)?)
}

pub(crate) fn small<T: TryFrom<u64>>(document: &Value, name: &str) -> Parsed<T> {
    T::try_from(integer(document, name)?).map_err(|_| Malformed)
}

pub(crate) fn optional_integer(document: &Value, name: &str) -> Parsed<Option<u64>> {
    optional(document, name, as_integer)
}

pub(crate) fn flag(document: &Value, name: &str) -> Parsed<bool> {
    member(document, name)?.as_bool().ok_or(Malformed)
}

pub(crate) fn object(document: &Value, name: &str) -> Parsed<Map<String, Value>> {
    member(document, name)?.as_object().cloned().ok_or(Malformed)
}

pub(crate) fn list<T>(document: &Value, name: &str, read: impl FnMut(&Value) -> Parsed<T>) -> Parsed<Vec<T>> {
    member(document, name)?.as_array().ok_or(Malformed)?.iter().map(read).collect()
}

pub(crate) fn texts(document: &Value, name: &str) -> Parsed<BTreeMap<String, String>> {
    object(document, name)?.iter().map(|(name, value)| Ok((name.clone(), as_text(value)?))).collect()
}

pub(crate) fn time(document: &Value, name: &str) -> Parsed<SystemTime> {
    as_time(member(document, name)?)
}

/// A moment as RFC 3339 has it, of UTC: "2026-01-01T00:00:00.000Z".
pub(crate) fn as_time(value: &Value) -> Parsed<SystemTime> {
    let text = value.as_str().ok_or(Malformed)?;
    let field = |from: usize, to: usize| -> Parsed<u64> {
        let digits = text.get(from..to).ok_or(Malformed)?;
        digits.parse().map_err(|_| Malformed)
    };
    let (year, month, day) = (field(0, 4)?, field(5, 7)?, field(8, 10)?);
    let (hour, minute, second) = (field(11, 13)?, field(14, 16)?, field(17, 19)?);
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return Err(Malformed);
    }
    // Years that begin in March have their leap day at the end.
    let (shifted_year, shifted_month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = shifted_year * 365 + shifted_year / 4 - shifted_year / 100
        + shifted_year / 400
        + (shifted_month * 153 + 2) / 5
        + day
        - 1
        - 719_468;
    let fraction = text.get(19..).ok_or(Malformed)?.trim_end_matches('Z').trim_start_matches('.');
    let nanoseconds = match fraction.get(..fraction.len().min(9)) {
        Some("") => 0,
        Some(digits) => format!("{digits:0<9}").parse().map_err(|_| Malformed)?,
        None => return Err(Malformed),
    };
    let seconds = days * 86_400 + hour * 3_600 + minute * 60 + second;
    Ok(SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_to_its_fraction() {
        let since = |text: &str| {
            let time = as_time(&Value::from(text)).unwrap();
            time.duration_since(SystemTime::UNIX_EPOCH).unwrap()
        };
        assert_eq!(since("1970-01-01T00:00:00Z"), Duration::ZERO);
        assert_eq!(since("2024-02-29T23:59:59.5Z"), Duration::new(1_709_251_199, 500_000_000));
        assert_eq!(since("2026-03-01T00:00:00.123456Z"), Duration::new(1_772_323_200, 123_456_000));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in ["", "yesterday", "2026-13-01T00:00:00Z", "2026-01-01", "2026-01-01T00:00:00ü"] {
            assert!(as_time(&Value::from(text)).is_err(), "{text}");
        }
    }
}
