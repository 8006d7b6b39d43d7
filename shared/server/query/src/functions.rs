//! Scalar functions that the engine lacks, or knows with another meaning.

mod json;
mod number;
mod text;
mod time;

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, Int64Array, StringArray},
        compute::cast,
        datatypes::{DataType, Int64Type},
    },
    common::{exec_err, plan_err},
    error::Result,
    logical_expr::{
        ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature,
        Volatility,
    },
    scalar::ScalarValue,
};

pub(crate) use time::{TRY_TIMESTAMP, interval_span};

/// A function as we write them: whole columns in, one out.
struct Plain {
    name: &'static str,
    signature: Signature,
    /// The type of the result, or why the arguments do not fit.
    returns: fn(&[DataType]) -> Result<DataType>,
    run: fn(&[ArrayRef]) -> Result<ArrayRef>,
}

impl std::fmt::Debug for Plain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

// A name is one function.
impl PartialEq for Plain {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Plain {}

impl Hash for Plain {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Plain {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        (self.returns)(types)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let result = (self.run)(&columns)?;
        if constant && result.len() == 1 {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
        }
        Ok(ColumnarValue::Array(result))
    }
}

/// A function with so many arguments, whose types `returns` checks.
fn plain(
    name: &'static str,
    counts: &[usize],
    returns: fn(&[DataType]) -> Result<DataType>,
    run: fn(&[ArrayRef]) -> Result<ArrayRef>,
) -> Arc<ScalarUDF> {
    let counts = counts.iter().map(|&count| TypeSignature::Any(count)).collect();
    let signature = Signature::one_of(counts, Volatility::Immutable);
    Arc::new(ScalarUDF::new_from_impl(Plain { name, signature, returns, run }))
}

/// All of them.
pub(crate) fn all() -> Vec<Arc<ScalarUDF>> {
    [text::all(), time::all(), number::all(), json::all()].concat()
}

fn is_text(kind: &DataType) -> bool {
    matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null)
}

fn is_whole(kind: &DataType) -> bool {
    kind.is_integer() || kind.is_null()
}

/// Demands texts, and then whole numbers.
fn texts_then_numbers(types: &[DataType], texts: usize) -> Result<()> {
    let fits =
        |(at, kind): (usize, &DataType)| if at < texts { is_text(kind) } else { is_whole(kind) };
    match types.iter().enumerate().find(|(at, kind)| !fits((*at, kind))) {
        None => Ok(()),
        Some((at, kind)) => plan_err!("Unexpected type {kind} of argument {}", at + 1),
    }
}

fn as_text(column: &ArrayRef) -> Result<StringArray> {
    Ok(cast(column, &DataType::Utf8)?.as_string::<i32>().clone())
}

fn as_numbers(column: &ArrayRef) -> Result<Int64Array> {
    Ok(cast(column, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
}

fn column(columns: &[ArrayRef], at: usize) -> Result<&ArrayRef> {
    match columns.get(at) {
        Some(column) => Ok(column),
        None => exec_err!("argument {} is missing", at + 1),
    }
}

fn value(texts: &StringArray, row: usize) -> Option<&str> {
    texts.is_valid(row).then(|| texts.value(row))
}

fn whole(numbers: &Int64Array, row: usize) -> Option<i64> {
    numbers.is_valid(row).then(|| numbers.value(row))
}
