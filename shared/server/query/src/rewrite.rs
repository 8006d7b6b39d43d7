//! Makes a parsed query mean what users of the established service expect, and refuses what would
//! silently mean something else.
//!
//! Known to differ still: out-of-range subscripts give NULL instead of an error; text is compared
//! with dates and numbers where the other service reports a type error; patterns have no look-around;
//! `date_trunc` of a date is a timestamp. NULLs sort last through a setting of the engine.

mod build;

use std::{collections::HashSet, ops::ControlFlow};

use datafusion::sql::sqlparser::{
    ast::{
        BinaryOperator, CastKind, DateTimeField, Expr, Fetch, Function, FunctionArg,
        FunctionArgExpr, FunctionArgumentClause, FunctionArgumentList, FunctionArguments, Ident,
        LimitClause, ObjectName, ObjectNamePart, OrderByExpr, OrderByOptions, Query, Select,
        SelectItem, SetExpr, Spanned, TableFactor, Value, ValueWithSpan, VisitMut, VisitorMut,
    },
    tokenizer::Span,
};

use crate::{Failure, failure::nearest, functions::TRY_TIMESTAMP};
use build::{arguments, case, function, list, named, null, number, string, take};

/// Rewrites `query`, in which only the tables of `known` and its own may be named.
pub(crate) fn rewrite(query: &mut Query, known: &HashSet<String>) -> Result<(), Failure> {
    let mut pass = Pass { known, own: HashSet::new() };
    match VisitMut::visit(query, &mut Names(&mut pass.own)) {
        ControlFlow::Continue(()) => {}
        ControlFlow::Break(never) => match never {},
    }
    match VisitMut::visit(query, &mut pass) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(failure) => Err(*failure),
    }
}

/// Collects the names that a statement gives to its own parts.
struct Names<'a>(&'a mut HashSet<String>);

impl VisitorMut for Names<'_> {
    type Break = std::convert::Infallible;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Self::Break> {
        let parts = query.with.iter().flat_map(|with| &with.cte_tables);
        self.0.extend(parts.map(|part| part.alias.name.value.to_lowercase()));
        ControlFlow::Continue(())
    }
}

struct Pass<'a> {
    known: &'a HashSet<String>,
    /// What the statement itself names.
    own: HashSet<String>,
}

type Flow = ControlFlow<Box<Failure>>;

fn refuse(span: Span, message: impl Into<String>) -> Flow {
    ControlFlow::Break(Box::new(Failure::new(message).within(span)))
}

impl VisitorMut for Pass<'_> {
    type Break = Box<Failure>;

    fn pre_visit_query(&mut self, query: &mut Query) -> Flow {
        body(&query.body)?;
        let extras = [
            (!query.locks.is_empty(), "FOR UPDATE"),
            (query.for_clause.is_some(), "FOR"),
            (query.settings.is_some(), "SETTINGS"),
            (query.format_clause.is_some(), "FORMAT"),
            (!query.pipe_operators.is_empty(), "|>"),
        ];
        if let Some((_, what)) = extras.into_iter().find(|(there, _)| *there) {
            return refuse(query.span(), format!("{what} is not supported"));
        }
        fetch(query)
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> Flow {
        let extras = [
            (select.into.is_some(), "SELECT INTO"),
            (select.top.is_some(), "TOP"),
            (!select.lateral_views.is_empty(), "LATERAL VIEW"),
            (!select.connect_by.is_empty(), "CONNECT BY"),
            (!select.sort_by.is_empty(), "SORT BY"),
            (!select.cluster_by.is_empty() || !select.distribute_by.is_empty(), "CLUSTER BY"),
        ];
        if let Some((_, what)) = extras.into_iter().find(|(there, _)| *there) {
            return refuse(select.span(), format!("{what} is not supported"));
        }
        distinct_names(&mut select.projection);
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, table: &mut TableFactor) -> Flow {
        let span = table.span();
        match table {
            TableFactor::Table { sample: Some(_), .. }
            | TableFactor::Derived { sample: Some(_), .. } => {
                refuse(span, "TABLESAMPLE is not supported: it would count every row")
            }
            TableFactor::Table { args: Some(_), name, .. } => {
                refuse(span, format!("'{name}' is not a table: table functions are not supported"))
            }
            TableFactor::Table { name, .. } => self.table(name),
            TableFactor::Derived { .. }
            | TableFactor::NestedJoin { .. }
            | TableFactor::UNNEST { .. } => ControlFlow::Continue(()),
            other => refuse(span, format!("'{other}' is not supported")),
        }
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> Flow {
        let span = expr.span();
        match expr {
            Expr::Function(function) => {
                if let Some(replacement) = call(function, span)? {
                    *expr = replacement;
                }
            }
            Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. } => {
                return like(pattern, escape_char, span);
            }
            Expr::AtTimeZone { time_zone, .. } if !is_utc(time_zone) => {
                return refuse(span, "AT TIME ZONE is supported for 'UTC' only");
            }
            Expr::Substring { expr: text, substring_from, substring_for, .. } => {
                let parts = [Some(text), substring_from.as_mut(), substring_for.as_mut()];
                let args = parts.into_iter().flatten().map(|part| take(part)).collect::<Vec<_>>();
                *expr = function("substr", args);
            }
            Expr::Extract { field, expr: time, .. } if is_weekday(field) => {
                *expr = function("day_of_week", vec![take(time)]);
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

impl Pass<'_> {
    fn table(&self, name: &ObjectName) -> Flow {
        let [ObjectNamePart::Identifier(only)] = name.0.as_slice() else {
            return refuse(name.span(), format!("Table '{name}' does not exist"));
        };
        let lower = only.value.to_lowercase();
        if self.known.contains(&lower) || self.own.contains(&lower) {
            return ControlFlow::Continue(());
        }
        let failure =
            Failure::new(format!("Table '{}' does not exist", only.value)).within(only.span);
        let hint = match nearest(&lower, self.known.iter().map(String::as_str)) {
            Some(near) => format!("there is a table '{near}'"),
            None => "tables are event types with underscores, such as session_start, and 'events' with all of them".into(),
        };
        ControlFlow::Break(Box::new(failure.hint(hint)))
    }
}

/// The engine wants each column of a result to have a name of its own. What the answer calls them
/// comes from the statement as it was written.
fn distinct_names(projection: &mut [SelectItem]) {
    let mut seen = HashSet::new();
    for (at, item) in projection.iter_mut().enumerate() {
        let name = match &item {
            SelectItem::ExprWithAlias { alias, .. } => alias.value.to_lowercase(),
            SelectItem::UnnamedExpr(expr) => expr.to_string().to_lowercase(),
            _ => continue,
        };
        if seen.insert(name) {
            continue;
        }
        let alias = Ident::new(format!("_again{at}"));
        match item {
            SelectItem::ExprWithAlias { alias: old, .. } => *old = alias,
            SelectItem::UnnamedExpr(expr) => {
                *item = SelectItem::ExprWithAlias { expr: take(expr), alias }
            }
            _ => {}
        }
    }
}

fn body(body: &SetExpr) -> Flow {
    match body {
        SetExpr::Select(_) | SetExpr::Query(_) | SetExpr::Values(_) => ControlFlow::Continue(()),
        SetExpr::SetOperation { left, right, .. } => {
            self::body(left)?;
            self::body(right)
        }
        other => {
            refuse(other.span(), "only queries can be run: the audit log is read, never changed")
        }
    }
}

/// `FETCH FIRST n ROWS ONLY` is a limit.
fn fetch(query: &mut Query) -> Flow {
    let Some(Fetch { with_ties, percent, quantity }) = query.fetch.take() else {
        return ControlFlow::Continue(());
    };
    if with_ties || percent {
        return refuse(query.span(), "FETCH is supported with a number of rows and ONLY");
    }
    let limit = quantity.unwrap_or_else(|| number("1"));
    match &mut query.limit_clause {
        None => {
            query.limit_clause = Some(LimitClause::LimitOffset {
                limit: Some(limit),
                offset: None,
                limit_by: vec![],
            })
        }
        Some(LimitClause::LimitOffset { limit: there @ None, .. }) => *there = Some(limit),
        Some(_) => return refuse(query.span(), "LIMIT and FETCH cannot stand together"),
    }
    ControlFlow::Continue(())
}

/// Without ESCAPE nothing escapes; the engine always takes the backslash for it.
fn like(pattern: &mut Expr, escape: &mut Option<ValueWithSpan>, span: Span) -> Flow {
    let escape = match escape.take().map(|escape| escape.value) {
        None => None,
        Some(Value::SingleQuotedString(text)) if text.chars().count() == 1 => text.chars().next(),
        Some(_) => return refuse(span, "ESCAPE takes one character"),
    };
    let Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), .. }) = pattern else {
        return match escape {
            None => ControlFlow::Continue(()),
            Some(_) => refuse(span, "ESCAPE is supported with a pattern in quotes"),
        };
    };
    let mut meant = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            letter if Some(letter) == escape => match letters.next() {
                Some(next @ ('%' | '_' | '\\')) => meant.extend(['\\', next]),
                Some(next) if Some(next) == escape => meant.push(next),
                _ => {
                    return refuse(
                        span,
                        "Escape character must be followed by '%', '_' or the escape character itself",
                    );
                }
            },
            '\\' => meant.push_str("\\\\"),
            letter => meant.push(letter),
        }
    }
    *text = meant;
    ControlFlow::Continue(())
}

/// A function that has another name, another form or another meaning in the engine.
fn call(call: &mut Function, span: Span) -> ControlFlow<Box<Failure>, Option<Expr>> {
    let [ObjectNamePart::Identifier(name)] = call.name.0.as_slice() else {
        return ControlFlow::Continue(None);
    };
    let name = name.value.to_lowercase();
    let Some(args) = plain_args(call) else { return ControlFlow::Continue(None) };
    let renamed =
        |call: &mut Function, name: &str| call.name = ObjectName::from(vec![Ident::new(name)]);
    let replacement = match (name.as_str(), args.as_slice()) {
        ("if", [condition, yes]) => Some(case(condition.clone(), yes.clone(), None)),
        ("if", [condition, yes, no]) => {
            Some(case(condition.clone(), yes.clone(), Some(no.clone())))
        }
        ("concat", [first, rest @ ..]) if !rest.is_empty() => {
            Some(rest.iter().fold(first.clone(), |left, right| {
                let (left, right) = (Box::new(left), Box::new(right.clone()));
                Expr::Nested(Box::new(Expr::BinaryOp {
                    left,
                    op: BinaryOperator::StringConcat,
                    right,
                }))
            }))
        }
        // One NULL makes the result NULL.
        ("greatest" | "least", [_, _, ..]) => {
            let mut nulls = args.iter().map(|arg| Expr::IsNull(Box::new(arg.clone())));
            let first = nulls.next();
            let any = nulls.fold(first, |left, right| match left {
                Some(left) => Some(Expr::BinaryOp {
                    left: Box::new(left),
                    op: BinaryOperator::Or,
                    right: Box::new(right),
                }),
                None => Some(right),
            });
            any.map(|any| case(any, null(), Some(Expr::Function(call.clone()))))
        }
        ("try", [Expr::Cast { kind: CastKind::Cast, expr, data_type, array, format }]) => {
            Some(Expr::Cast {
                kind: CastKind::TryCast,
                expr: expr.clone(),
                data_type: data_type.clone(),
                array: *array,
                format: format.clone(),
            })
        }
        ("try", [Expr::Function(inner)]) if named(inner, "from_iso8601_timestamp") => {
            let mut inner = inner.clone();
            renamed(&mut inner, TRY_TIMESTAMP);
            Some(Expr::Function(inner))
        }
        ("try", _) => {
            refuse(span, "TRY is supported around CAST and from_iso8601_timestamp")?;
            None
        }
        ("count_if", [condition]) => {
            let both = |filter: &Expr| Expr::BinaryOp {
                left: Box::new(condition.clone()),
                op: BinaryOperator::And,
                right: Box::new(filter.clone()),
            };
            call.filter =
                Some(Box::new(call.filter.as_deref().map_or_else(|| condition.clone(), both)));
            call.args = arguments(vec![FunctionArgExpr::Wildcard]);
            renamed(call, "count");
            None
        }
        ("max_by" | "min_by", [value, key]) => {
            let options = OrderByOptions { asc: Some(name == "min_by"), nulls_first: Some(false) };
            let by = OrderByExpr { expr: key.clone(), options, with_fill: None };
            let mut list = list(vec![FunctionArgExpr::Expr(value.clone())]);
            list.clauses.push(FunctionArgumentClause::OrderBy(vec![by]));
            call.args = FunctionArguments::List(list);
            renamed(call, "first_value");
            None
        }
        ("regexp_replace", [text, pattern, rest @ ..]) if rest.len() < 2 => {
            let with = rest.first().cloned().unwrap_or_else(|| string(""));
            let all = [text.clone(), pattern.clone(), with, string("g")];
            call.args = arguments(all.map(FunctionArgExpr::Expr).into());
            None
        }
        ("replace", [text, what]) => {
            call.args = arguments(
                [text.clone(), what.clone(), string("")].map(FunctionArgExpr::Expr).into(),
            );
            None
        }
        ("year" | "quarter" | "month" | "week" | "day" | "hour" | "minute" | "second", [time]) => {
            Some(function("date_part", vec![string(&name), time.clone()]))
        }
        ("day_of_month", [time]) => Some(function("date_part", vec![string("day"), time.clone()])),
        ("day_of_year" | "doy", [time]) => {
            Some(function("date_part", vec![string("doy"), time.clone()]))
        }
        ("date", [time]) => Some(function("to_date", vec![time.clone()])),
        ("contains", _) => {
            renamed(call, "array_has");
            None
        }
        ("element_at", _) => {
            renamed(call, "array_element");
            None
        }
        ("dow", _) => {
            renamed(call, "day_of_week");
            None
        }
        ("arbitrary" | "any_value", _) => {
            renamed(call, "first_value");
            None
        }
        ("every", _) => {
            renamed(call, "bool_and");
            None
        }
        ("filter", _) => {
            renamed(call, "array_filter");
            None
        }
        ("transform", _) => {
            renamed(call, "array_transform");
            None
        }
        _ => None,
    };
    ControlFlow::Continue(replacement)
}

/// The arguments when they are nothing but expressions.
fn plain_args(function: &Function) -> Option<Vec<Expr>> {
    match &function.args {
        FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args,
            clauses,
        }) if clauses.is_empty() => {
            let plain = |arg: &FunctionArg| match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
                _ => None,
            };
            args.iter().map(plain).collect()
        }
        _ => None,
    }
}

fn is_utc(zone: &Expr) -> bool {
    matches!(zone, Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(zone), .. }) if zone.eq_ignore_ascii_case("utc"))
}

fn is_weekday(field: &DateTimeField) -> bool {
    match field {
        DateTimeField::Dow | DateTimeField::DayOfWeek => true,
        DateTimeField::Custom(name) => name.value.eq_ignore_ascii_case("day_of_week"),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
