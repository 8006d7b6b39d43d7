//! Labels as people type them: `k=v,k2=v2`.

use crate::Labels;

/// The text names no labels.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no label, expected key=value, several separated by commas")]
pub struct LabelsError(String);

/// Reads `k=v,k2=v2`. A key or a value that holds a comma or an equals sign stands in double quotes.
pub fn parse_labels(text: &str) -> Result<Labels, LabelsError> {
    let mut labels = Labels::new();
    for pair in split(text, ',') {
        if pair.trim().is_empty() {
            continue;
        }
        let fault = || LabelsError(pair.chars().take(64).collect());
        let parts = split(pair, '=');
        let [key, value] = parts.as_slice() else { return Err(fault()) };
        let (key, value) = (unquoted(key), unquoted(value));
        if key.is_empty() {
            return Err(fault());
        }
        labels.insert(key.to_owned(), value.to_owned());
    }
    Ok(labels)
}

/// The parts between a sign, where that stands outside of quotes.
fn split(text: &str, sign: char) -> Vec<&str> {
    let mut quoted = false;
    text.split(move |character| {
        quoted ^= character == '"';
        character == sign && !quoted
    })
    .collect()
}

fn unquoted(text: &str) -> &str {
    let text = text.trim();
    text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_with_and_without_quotes() {
        let read = |text: &str| {
            parse_labels(text).map(|labels| labels.into_iter().collect::<Vec<(String, String)>>())
        };
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(read("env=prod, team=a").unwrap(), [pair("env", "prod"), pair("team", "a")]);
        assert_eq!(read("note=\"a,b=c\",x=").unwrap(), [pair("note", "a,b=c"), pair("x", "")]);
        assert_eq!(read("").unwrap(), []);
        for bad in ["env", "=x", "a=b=c", "a=b,c"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
