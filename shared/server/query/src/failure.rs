//! Why a question has no answer, with the place in the statement where that is known.

use datafusion::{
    common::SchemaError,
    error::DataFusionError,
    sql::sqlparser::{
        parser::ParserError,
        tokenizer::{Location, Span, Token, TokenWithSpan, TokenizerError},
    },
};
use serde::Serialize;

/// What is shown to who asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What is wrong.
    pub message: String,
    /// The line in the statement, from 1.
    pub line: Option<u64>,
    /// The column in that line, from 1.
    pub column: Option<u64>,
    /// What would help.
    pub hint: Option<String>,
    /// Whether it asks for more than a query may take.
    pub limit: bool,
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), line: None, column: None, hint: None, limit: false }
    }

    pub(crate) fn at(mut self, place: Location) -> Self {
        // Place 0 means that nobody knows.
        if place.line > 0 {
            self.line = Some(place.line);
            self.column = Some(place.column);
        }
        self
    }

    pub(crate) fn within(self, span: Span) -> Self {
        self.at(span.start)
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn limit(mut self) -> Self {
        self.limit = true;
        self
    }

    pub(crate) fn tokenizer(error: TokenizerError) -> Self {
        Self::new(error.message).at(error.location)
    }

    /// The parser writes the place into its text.
    pub(crate) fn parser(error: ParserError) -> Self {
        let text = match error {
            ParserError::TokenizerError(text) | ParserError::ParserError(text) => text,
            ParserError::RecursionLimitExceeded => {
                return Self::new("the statement is nested too deeply").limit();
            }
        };
        let Some((message, place)) = text.rsplit_once(" at Line: ") else { return Self::new(text) };
        let mut numbers = place.split(", Column: ").map(|number| number.trim().parse().ok());
        match (numbers.next().flatten(), numbers.next().flatten()) {
            (Some(line), Some(column)) => Self::new(message).at(Location { line, column }),
            _ => Self::new(text),
        }
    }

    /// What the planner or the execution says, in the words users know.
    pub(crate) fn engine(error: &DataFusionError, tokens: &[TokenWithSpan]) -> Self {
        let span = error.diagnostic().and_then(|diagnostic| diagnostic.span);
        let place = |name: &str| {
            span.map(|span| Location { line: span.start.line, column: span.start.column })
                .or_else(|| find(tokens, name))
                .unwrap_or(Location { line: 0, column: 0 })
        };
        let root = error.find_root();
        match root {
            DataFusionError::SchemaError(schema, _) => match schema.as_ref() {
                SchemaError::FieldNotFound { field, valid_fields } => {
                    let near = nearest(
                        &field.name,
                        valid_fields.iter().map(|column| column.name.as_str()),
                    );
                    let failure = Self::new(format!("Column '{}' cannot be resolved", field.name))
                        .at(place(&field.name));
                    match near {
                        Some(near) => failure.hint(format!("there is a column '{near}'")),
                        None => failure,
                    }
                }
                SchemaError::AmbiguousReference { field } => {
                    Self::new(format!("Column '{}' is ambiguous", field.name))
                        .at(place(&field.name))
                }
                other => Self::new(other.to_string()).at(place("")),
            },
            DataFusionError::ResourcesExhausted(_) => {
                Self::new("the query needs more memory than it may take")
                    .hint("ask for fewer days or fewer columns, or narrow it by event_date")
                    .limit()
            }
            other => {
                let text = other.message().into_owned();
                // A second line suggests names of the engine's own functions.
                let first =
                    text.lines().next().unwrap_or_default().trim_end_matches('.').to_owned();
                match first
                    .strip_prefix("Invalid function '")
                    .and_then(|rest| rest.split('\'').next())
                {
                    Some(name) => {
                        Self::new(format!("Function '{name}' not registered")).at(place(name))
                    }
                    None => Self::new(first).at(place("")),
                }
            }
        }
    }
}

/// Where a name stands in the statement.
fn find(tokens: &[TokenWithSpan], name: &str) -> Option<Location> {
    tokens
        .iter()
        .find(|token| matches!(&token.token, Token::Word(word) if !name.is_empty() && word.value.eq_ignore_ascii_case(name)))
        .map(|token| token.span.start)
}

/// The name that was probably meant.
pub(crate) fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = name.chars().count() / 3;
    names
        .map(|other| (distance(name, other), other))
        .filter(|(steps, _)| *steps <= allowed)
        .min()
        .map(|(_, other)| other)
}

fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (at, mine) in left.chars().enumerate() {
        let mut diagonal = at;
        let mut before = at + 1;
        let mut fresh = vec![before];
        for (theirs, above) in right.iter().zip(row.iter().skip(1)) {
            let steps = (diagonal + usize::from(mine != *theirs)).min(above + 1).min(before + 1);
            diagonal = *above;
            before = steps;
            fresh.push(steps);
        }
        row = fresh;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parsers_place_is_taken_out_of_its_text() {
        let failure = Failure::parser(ParserError::ParserError(
            "Expected: x, found: y at Line: 3, Column: 14".into(),
        ));
        assert_eq!(
            (failure.message.as_str(), failure.line, failure.column),
            ("Expected: x, found: y", Some(3), Some(14))
        );
    }

    #[test]
    fn a_slip_is_recognised_and_another_word_is_not() {
        assert_eq!(
            nearest("identity_usr", ["identity_user", "uid", "identity_roles"].into_iter()),
            Some("identity_user")
        );
        assert_eq!(nearest("nosuch", ["user", "uid"].into_iter()), None);
    }
}
