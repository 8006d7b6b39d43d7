//! Differences of times: the engine makes them durations, users compare them with intervals.

use datafusion::{
    arrow::datatypes::{DataType, TimeUnit},
    common::DFSchema,
    error::Result,
    logical_expr::{
        Expr, ExprSchemable, cast,
        planner::{ExprPlanner, PlannerResult, RawBinaryExpr},
    },
    sql::sqlparser::ast::BinaryOperator,
};

use crate::functions;

/// Plans what users write between times.
#[derive(Debug)]
pub(crate) struct TimePlanner;

const DURATION: DataType = DataType::Duration(TimeUnit::Millisecond);
const TIME: DataType = DataType::Timestamp(TimeUnit::Millisecond, None);

impl ExprPlanner for TimePlanner {
    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        let RawBinaryExpr { op, left, right } = expr;
        let types = (left.get_type(schema), right.get_type(schema));
        let (left, right) = match (&op, &types) {
            (BinaryOperator::Minus, (Ok(DataType::Date32), Ok(DataType::Date32))) => {
                (cast(left, TIME), cast(right, TIME))
            }
            (op, (Ok(a), Ok(b))) if compares(op) => match (a, b) {
                (DataType::Duration(_), DataType::Interval(_)) => {
                    (cast(left, DURATION), span(right))
                }
                (DataType::Interval(_), DataType::Duration(_)) => {
                    (span(left), cast(right, DURATION))
                }
                _ => (left, right),
            },
            _ => (left, right),
        };
        Ok(PlannerResult::Original(RawBinaryExpr { op, left, right }))
    }
}

fn span(interval: Expr) -> Expr {
    functions::interval_span().call(vec![interval])
}

fn compares(op: &BinaryOperator) -> bool {
    use BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq)
}
