//! Text into one query: our dialect of the parser's tokens, and the names the answer's columns get.

use std::any::TypeId;

use datafusion::sql::sqlparser::{
    ast::{Expr, Query, Select, SelectItem, SetExpr, Statement},
    dialect::{Dialect, GenericDialect},
    keywords::Keyword,
    parser::Parser,
    tokenizer::{Token, TokenWithSpan, Tokenizer},
};

use crate::Failure;

/// How deep a statement may nest.
const DEPTH: usize = 100;

/// The words of SQL as users of the established service write it.
#[derive(Debug)]
struct AuditDialect;

impl Dialect for AuditDialect {
    // Much of what the parser knows depends on being the generic dialect.
    fn dialect(&self) -> TypeId {
        TypeId::of::<GenericDialect>()
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        ch == '"'
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        ch.is_alphabetic() || ch == '_'
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        ch.is_alphanumeric() || ch == '_' || ch == '$'
    }

    fn supports_unicode_string_literal(&self) -> bool {
        true
    }

    fn supports_filter_during_aggregation(&self) -> bool {
        true
    }

    fn supports_within_after_array_aggregation(&self) -> bool {
        true
    }

    fn supports_group_by_expr(&self) -> bool {
        true
    }

    fn supports_left_associative_joins_without_parens(&self) -> bool {
        true
    }

    fn supports_window_clause_named_window_reference(&self) -> bool {
        true
    }

    fn supports_window_function_null_treatment_arg(&self) -> bool {
        true
    }

    fn supports_parens_around_table_factor(&self) -> bool {
        true
    }

    fn supports_values_as_table_factor(&self) -> bool {
        true
    }

    fn supports_lambda_functions(&self) -> bool {
        true
    }

    fn allow_extract_custom(&self) -> bool {
        true
    }
}

/// What a column of the answer is called, as far as the statement says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Label {
    /// As this was written.
    Alias(String),
    /// As this column is documented.
    Column(String),
    /// By its place.
    Unnamed,
}

/// A statement that can be worked on.
#[derive(Debug)]
pub(crate) struct Parsed {
    /// With all names in lower case.
    pub(crate) query: Box<Query>,
    /// For finding places.
    pub(crate) tokens: Vec<TokenWithSpan>,
    /// One per column, unless a wildcard hides how many there are.
    pub(crate) labels: Option<Vec<Label>>,
}

/// Parses one statement, which must be a query.
pub(crate) fn parse(sql: &str) -> Result<Parsed, Failure> {
    let tokens =
        Tokenizer::new(&AuditDialect, sql).tokenize_with_location().map_err(Failure::tokenizer)?;
    let as_written = query(tokens.iter().cloned().map(user_is_a_name).collect())?;
    let folded = tokens.iter().cloned().map(user_is_a_name).map(fold).collect();
    Ok(Parsed { query: query(folded)?, labels: labels(&as_written), tokens })
}

/// Elsewhere `user` is who asks; here it is a column of nearly every view.
fn user_is_a_name(mut token: TokenWithSpan) -> TokenWithSpan {
    if let Token::Word(word) = &mut token.token
        && word.keyword == Keyword::USER
    {
        word.keyword = Keyword::NoKeyword;
    }
    token
}

/// Names are the same in either case.
fn fold(mut token: TokenWithSpan) -> TokenWithSpan {
    if let Token::Word(word) = &mut token.token
        && (word.quote_style.is_some() || word.keyword == Keyword::NoKeyword)
    {
        word.value = word.value.to_lowercase();
    }
    token
}

fn query(tokens: Vec<TokenWithSpan>) -> Result<Box<Query>, Failure> {
    let mut seen = tokens.iter().filter(|token| !matches!(token.token, Token::Whitespace(_)));
    let first = seen.next().map(|token| token.span.start);
    let second = seen
        .skip_while(|token| token.token != Token::SemiColon)
        .find(|token| token.token != Token::SemiColon)
        .map(|token| token.span.start);
    let statements = Parser::new(&AuditDialect)
        .with_recursion_limit(DEPTH)
        .with_tokens_with_locations(tokens)
        .parse_statements()
        .map_err(Failure::parser)?;
    let mut statements = statements.into_iter();
    let refusal = |message: &str| {
        let failure = Failure::new(message).hint("a query begins with SELECT, WITH or VALUES");
        first.map_or(failure.clone(), |place| failure.at(place))
    };
    let too_many = || {
        let failure = Failure::new("only one statement can be run at a time");
        second.map_or(failure.clone(), |place| failure.at(place))
    };
    match (statements.next(), statements.next()) {
        (None, _) => Err(refusal("there is no statement")),
        (Some(_), Some(_)) => Err(too_many()),
        (Some(Statement::Query(query)), None) => Ok(query),
        (Some(_), None) => {
            Err(refusal("only queries can be run: the audit log is read, never changed"))
        }
    }
}

fn labels(query: &Query) -> Option<Vec<Label>> {
    let label = |item: &SelectItem| match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(Label::Alias(alias.value.clone())),
        SelectItem::UnnamedExpr(Expr::Identifier(name)) => {
            Some(Label::Column(name.value.to_lowercase()))
        }
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(path)) => {
            path.last().map(|name| Label::Column(name.value.to_lowercase()))
        }
        SelectItem::UnnamedExpr(_) => Some(Label::Unnamed),
        _ => None,
    };
    first_select(&query.body)?.projection.iter().map(label).collect()
}

fn first_select(body: &SetExpr) -> Option<&Select> {
    match body {
        SetExpr::Select(select) => Some(select),
        SetExpr::Query(query) => first_select(&query.body),
        SetExpr::SetOperation { left, .. } => first_select(left),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_either_case_and_user_is_a_column() {
        let parsed = parse(r#"SELECT USER, "ExitCode" AS "Code", count(*), e.UID FROM "Exec" AS e WHERE user = 'Joe';"#).unwrap();
        assert_eq!(
            parsed.query.to_string(),
            r#"SELECT user, "exitcode" AS "code", count(*), e.uid FROM "exec" AS e WHERE user = 'Joe'"#
        );
        let labels = [
            Label::Column("user".into()),
            Label::Alias("Code".into()),
            Label::Unnamed,
            Label::Column("uid".into()),
        ];
        assert_eq!(parsed.labels.unwrap(), labels);
        assert_eq!(parse("SELECT *, 1 FROM exec").unwrap().labels, None);
    }

    #[test]
    fn only_one_query() {
        for refused in [
            "",
            ";",
            "-- nothing",
            "SELECT 1; SELECT 2",
            "DELETE FROM exec",
            "DROP TABLE exec",
            "INSERT INTO exec VALUES (1)",
            "UPDATE exec SET a = 1",
            "CREATE TABLE t AS SELECT 1",
            "COPY exec TO 'x'",
            "SET a = 1",
            "EXPLAIN SELECT 1",
            "EXPLAIN ANALYZE SELECT 1",
            "SHOW TABLES",
            "DESCRIBE exec",
            "BEGIN",
            "CALL f()",
            "EXECUTE x",
            "LOAD 'x'",
            "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
            "PRAGMA x",
            "ATTACH 'x' AS y",
            "VACUUM",
        ] {
            assert!(parse(refused).is_err(), "{refused}");
        }
        assert!(parse("WITH a AS (SELECT 1) SELECT * FROM a;;").is_ok());
        assert!(parse("VALUES (1), (2)").is_ok());
    }

    #[test]
    fn a_mistake_has_its_place() {
        let failure = parse("SELECT user\nFRM exec WHERE (").unwrap_err();
        assert_eq!(failure.line, Some(2), "{failure:?}");
        let failure = parse("SELECT 'abc").unwrap_err();
        assert_eq!((failure.line, failure.column), (Some(1), Some(8)), "{failure:?}");
        assert_eq!(parse("  DELETE FROM exec").unwrap_err().column, Some(3));
        assert!(
            parse(&format!("SELECT {}1{}", "(".repeat(5000), ")".repeat(5000))).unwrap_err().limit
        );
    }
}
