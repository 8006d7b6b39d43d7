//! `--format`: the same value as text, JSON or YAML.

use std::io::Write;
use std::str::FromStr;

use serde::Serialize;

use crate::error::CliError;
use crate::text::is_harmless;

/// What `--format` takes wherever something is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// Indented by four blanks.
    Json,
    /// One document.
    Yaml,
}

/// A word that names no format.
#[derive(Debug, thiserror::Error)]
#[error("unsupported format {0:?}")]
pub struct UnknownFormat(String);

impl FromStr for Format {
    type Err = UnknownFormat;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            "yaml" => Ok(Self::Yaml),
            other => Err(UnknownFormat(other.to_owned())),
        }
    }
}

/// Writes `value` as JSON (indent 4) or YAML; `Text` writes JSON too, for commands without a text form.
pub fn write_structured<T: Serialize>(
    value: &T,
    format: Format,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let text = match format {
        Format::Json | Format::Text => {
            let mut bytes = Vec::new();
            let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
            let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, indent);
            value
                .serialize(&mut serializer)
                .map_err(|error| CliError::wrap("print JSON", &error))?;
            bytes.push(b'\n');
            harmless_json(bytes)
        }
        Format::Yaml => {
            let mut text = serde_saphyr::to_string(value)
                .map_err(|error| CliError::wrap("print YAML", &error))?;
            if !text.ends_with('\n') {
                text.push('\n');
            }
            text.into_bytes()
        }
    };
    out.write_all(&text)?;
    Ok(())
}

/// Prints `value` as JSON in one line.
pub fn print_json_line<T: Serialize>(value: &T) -> Result<(), CliError> {
    let mut line =
        serde_json::to_vec(value).map_err(|error| CliError::wrap("print JSON", &error))?;
    line.push(b'\n');
    std::io::stdout().lock().write_all(&harmless_json(line))?;
    Ok(())
}

/// The same JSON with the characters escaped that JSON allows in a string and a terminal obeys: DEL, C1, bidirectional
/// overrides. Outside of strings JSON has none of them.
fn harmless_json(json: Vec<u8>) -> Vec<u8> {
    match String::from_utf8(json) {
        Ok(text) if text.chars().any(drives_terminal) => {
            let mut safe = String::with_capacity(text.len() + 64);
            for c in text.chars() {
                if drives_terminal(c) {
                    safe.push_str(&format!("\\u{:04x}", u32::from(c)));
                } else {
                    safe.push(c);
                }
            }
            safe.into_bytes()
        }
        Ok(text) => text.into_bytes(),
        Err(error) => error.into_bytes(),
    }
}

fn drives_terminal(c: char) -> bool {
    c != '\n' && !is_harmless(c)
}

/// [`write_structured`] to standard output.
pub fn print_structured<T: Serialize>(value: &T, format: Format) -> Result<(), CliError> {
    write_structured(value, format, &mut std::io::stdout().lock())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_indented_by_four() {
        let mut out = Vec::new();
        write_structured(&serde_json::json!({"a": [1]}), Format::Json, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "{\n    \"a\": [\n        1\n    ]\n}\n");
    }

    #[test]
    fn no_character_in_json_drives_a_terminal() {
        let value = serde_json::json!({"a\u{9b}": "\u{1b}[31m\u{9b}31m\u{7f}\u{202e}北京"});
        let mut out = Vec::new();
        write_structured(&value, Format::Json, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(!text.chars().any(drives_terminal), "{text:?}");
        assert!(text.contains("北京") && text.contains("\\u009b31m"), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
        let mut out = Vec::new();
        write_structured(&value, Format::Yaml, &mut out).unwrap();
        assert!(!String::from_utf8(out).unwrap().chars().any(|c| c != '\n' && c.is_control()));
    }
}
