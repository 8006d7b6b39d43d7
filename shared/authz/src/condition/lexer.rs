//! Tokens of a condition, each with its column.

use super::ConditionError;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    Word(String),
    Text(String),
    Sign(&'static str),
}

const SIGNS: [&str; 11] = ["&&", "||", "==", "!=", "!", "(", ")", "[", "]", ",", "."];

pub(super) fn tokens(text: &str) -> Result<Vec<(usize, Token)>, ConditionError> {
    // Roles are written by administrators, but they are parsed for every check.
    const LONGEST: usize = 4096;
    if text.len() > LONGEST {
        return Err(ConditionError {
            column: LONGEST,
            what: format!("is longer than {LONGEST} bytes"),
        });
    }
    let mut out = Vec::new();
    let mut rest = text;
    let mut column = 1;
    while let Some(first) = rest.chars().next() {
        let start = column;
        let taken = if first.is_whitespace() {
            first.len_utf8()
        } else if first.is_alphabetic() || first == '_' {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            out.push((start, Token::Word(rest.get(..end).unwrap_or_default().to_owned())));
            end
        } else if first == '"' || first == '`' {
            let end = closing(rest, first)
                .ok_or_else(|| ConditionError { column, what: "unclosed quote".to_owned() })?;
            let quoted = rest.get(..end).and_then(crate::template::unquote);
            let inner = quoted
                .ok_or_else(|| ConditionError { column, what: "bad escape in text".to_owned() })?;
            out.push((start, Token::Text(inner)));
            end
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            out.push((start, Token::Sign(sign)));
            sign.len()
        } else {
            return Err(ConditionError { column, what: format!("unexpected {first:?}") });
        };
        let (eaten, after) = rest.split_at(taken);
        column += eaten.chars().count();
        rest = after;
    }
    Ok(out)
}

/// The length of a quoted text with both quotes.
fn closing(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if character == '\\' && quote == '"' {
            escaped = true;
        } else if character == quote {
            return Some(at + character.len_utf8());
        }
    }
    None
}
