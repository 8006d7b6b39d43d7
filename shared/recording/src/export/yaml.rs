//! YAML of JSON values, in blocks. Strings that could be read as anything else are quoted.

use std::io::{self, Write};

use serde_json::Value;

/// Writes one document.
pub(super) fn document(value: &Value, out: &mut impl Write) -> io::Result<()> {
    match value {
        Value::Object(map) if !map.is_empty() => block(value, 0, out),
        _ => {
            out.write_all(scalar(value).as_bytes())?;
            out.write_all(b"\n")
        }
    }
}

fn block(value: &Value, depth: usize, out: &mut impl Write) -> io::Result<()> {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                write!(out, "{indent}{}:", text(key))?;
                nested(value, depth, out)?;
            }
        }
        Value::Array(list) => {
            for value in list {
                write!(out, "{indent}-")?;
                nested(value, depth, out)?;
            }
        }
        _ => {}
    }
    Ok(())
}

fn nested(value: &Value, depth: usize, out: &mut impl Write) -> io::Result<()> {
    let empty = match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => true,
    };
    if empty {
        writeln!(out, " {}", scalar(value))
    } else {
        writeln!(out)?;
        block(value, depth + 1, out)
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(string) => text(string),
        other => other.to_string(),
    }
}

/// A plain scalar where nothing can go wrong with one, or else a quoted one.
fn text(string: &str) -> String {
    let plain = string.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && string.chars().all(|c| c.is_ascii_alphanumeric() || "-_./@+".contains(c));
    const WORDS: [&str; 9] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"];
    let word = WORDS.iter().any(|word| string.eq_ignore_ascii_case(word));
    if plain && !word { string.to_owned() } else { super::quoted(string) }
}
