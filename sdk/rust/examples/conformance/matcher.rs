// SPDX-License-Identifier: Apache-2.0
//! Matchers, and variables in values.

use regex::Regex;
use serde_json::Value;

fn shown(value: &Value) -> String {
    value.to_string().chars().take(2000).collect()
}

/// Says why a value is not as expected.
pub fn check(value: &Value, expected: &Value, place: &str) -> Result<(), String> {
    match expected {
        Value::Object(members) if !members.is_empty() && members.keys().all(|name| name.starts_with('$')) => {
            for (operator, operand) in members {
                if !holds(value, operator, operand) {
                    return Err(format!("{place} is {}, of which {operator} {operand} does not hold", shown(value)));
                }
            }
            Ok(())
        }
        Value::Object(members) => {
            let object =
                value.as_object().ok_or_else(|| format!("{place} is {} instead of an object", shown(value)))?;
            for (name, inner) in members {
                let found = object.get(name).ok_or_else(|| format!("{place} has no '{name}': {}", shown(value)))?;
                check(found, inner, &format!("{place}.{name}"))?;
            }
            Ok(())
        }
        Value::Array(elements) => {
            let found = value.as_array().ok_or_else(|| format!("{place} is {} instead of an array", shown(value)))?;
            if found.len() != elements.len() {
                return Err(format!(
                    "{place} has {} elements instead of {}: {}",
                    found.len(),
                    elements.len(),
                    shown(value)
                ));
            }
            for (index, (one, other)) in found.iter().zip(elements).enumerate() {
                check(one, other, &format!("{place}[{index}]"))?;
            }
            Ok(())
        }
        _ if value == expected || (value.is_number() && value.as_f64() == expected.as_f64()) => Ok(()),
        _ => Err(format!("{place} is {} instead of {}", shown(value), shown(expected))),
    }
}

fn matches(value: &Value, expected: &Value) -> bool {
    check(value, expected, "").is_ok()
}

fn holds(value: &Value, operator: &str, operand: &Value) -> bool {
    let word = operand.as_str().unwrap_or_default();
    let text = value.as_str();
    match operator {
        "$any" => true,
        "$type" => match word {
            "string" => value.is_string(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "boolean" => value.is_boolean(),
            "array" => value.is_array(),
            "object" => value.is_object(),
            "null" => value.is_null(),
            other => panic!("there is no type {other}"),
        },
        "$contains" => text.map_or(false, |text| text.contains(word)),
        "$starts" => text.map_or(false, |text| text.starts_with(word)),
        "$ends" => text.map_or(false, |text| text.ends_with(word)),
        "$matches" => {
            let pattern = Regex::new(word).expect("an expression that all languages have");
            text.map_or(false, |text| pattern.is_match(text))
        }
        "$at_least" => value.as_f64().map_or(false, |number| Some(number) >= operand.as_f64()),
        "$at_most" => value.as_f64().map_or(false, |number| Some(number) <= operand.as_f64()),
        "$length" => {
            let length = match value {
                Value::String(text) => text.chars().count(),
                Value::Array(elements) => elements.len(),
                _ => return false,
            };
            matches(&length.into(), operand)
        }
        "$each" => value.as_array().map_or(false, |elements| elements.iter().all(|one| matches(one, operand))),
        "$has" => value.as_array().map_or(false, |elements| elements.iter().any(|one| matches(one, operand))),
        "$not" => !matches(value, operand),
        "$one_of" => operand.as_array().into_iter().flatten().any(|one| matches(value, one)),
        other => panic!("there is no operator {other}"),
    }
}

/// A value with its variables replaced.
pub fn substitute(value: &Value, known: &dyn Fn(&str) -> Option<Value>) -> Value {
    match value {
        Value::String(text) => {
            let whole = text.strip_prefix('$').filter(|name| name.chars().all(|c| c.is_alphanumeric() || c == '_'));
            if let Some(value) = whole.and_then(known) {
                return value;
            }
            let mut pieces = text.split("${");
            let mut made = pieces.next().unwrap_or_default().to_string();
            for piece in pieces {
                match piece.split_once('}').and_then(|(name, rest)| Some((known(name)?, rest))) {
                    Some((Value::String(value), rest)) => made.extend([&value, rest]),
                    Some((value, rest)) => made.extend([&value.to_string(), rest]),
                    None => made.extend(["${", piece]),
                }
            }
            made.into()
        }
        Value::Array(elements) => elements.iter().map(|one| substitute(one, known)).collect(),
        Value::Object(members) => members
            .iter()
            .map(|(name, one)| (name.clone(), substitute(one, known)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        other => other.clone(),
    }
}
