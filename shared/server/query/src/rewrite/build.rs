//! Pieces of a syntax tree.

use datafusion::sql::sqlparser::{
    ast::{
        CaseWhen, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList,
        FunctionArguments, Ident, ObjectName, ObjectNamePart, Value, ValueWithSpan,
        helpers::attached_token::AttachedToken,
    },
    tokenizer::Span,
};

pub(super) fn named(function: &Function, name: &str) -> bool {
    matches!(function.name.0.as_slice(), [ObjectNamePart::Identifier(only)] if only.value.eq_ignore_ascii_case(name))
}

pub(super) fn list(args: Vec<FunctionArgExpr>) -> FunctionArgumentList {
    let args = args.into_iter().map(FunctionArg::Unnamed).collect();
    FunctionArgumentList { duplicate_treatment: None, args, clauses: vec![] }
}

pub(super) fn arguments(args: Vec<FunctionArgExpr>) -> FunctionArguments {
    FunctionArguments::List(list(args))
}

pub(super) fn function(name: &str, args: Vec<Expr>) -> Expr {
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: arguments(args.into_iter().map(FunctionArgExpr::Expr).collect()),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    })
}

pub(super) fn case(condition: Expr, result: Expr, otherwise: Option<Expr>) -> Expr {
    Expr::Case {
        case_token: AttachedToken::empty(),
        end_token: AttachedToken::empty(),
        operand: None,
        conditions: vec![CaseWhen { condition, result }],
        else_result: otherwise.map(Box::new),
    }
}

pub(super) fn value(value: Value) -> Expr {
    Expr::Value(ValueWithSpan { value, span: Span::empty() })
}

pub(super) fn string(text: &str) -> Expr {
    value(Value::SingleQuotedString(text.into()))
}

pub(super) fn number(text: &str) -> Expr {
    value(Value::Number(text.into(), false))
}

pub(super) fn null() -> Expr {
    value(Value::Null)
}

pub(super) fn take(expr: &mut Expr) -> Expr {
    std::mem::replace(expr, null())
}
