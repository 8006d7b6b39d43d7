//! `--format`: the same value as text, JSON or YAML.

use std::io::Write;
use std::str::FromStr;

use serde::Serialize;

use crate::error::CliError;

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
            value.serialize(&mut serializer).map_err(|error| CliError::wrap("print JSON", &error))?;
            bytes.push(b'\n');
            bytes
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
}
