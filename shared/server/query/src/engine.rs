//! One question answered.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, LazyLock},
};

use chrono::{Days, NaiveDate, Utc};
use datafusion::{
    arrow::{array::RecordBatch, datatypes::Schema},
    dataframe::DataFrame,
    error::DataFusionError,
    execution::{
        SessionStateDefaults,
        context::{SQLOptions, SessionContext},
        disk_manager::{DiskManagerBuilder, DiskManagerMode},
        runtime_env::RuntimeEnvBuilder,
        session_state::SessionStateBuilder,
    },
    logical_expr::planner::ExprPlanner,
    prelude::SessionConfig,
    sql::{parser::Statement, sqlparser::ast},
};
use futures::StreamExt;

use crate::{
    Column, Failure, Reply, Request, cell, functions,
    parse::{Label, Parsed, parse},
    planner::TimePlanner,
    rewrite::rewrite,
    snapshot::Snapshot,
    table::{EVENTS, EventTable},
    views::views,
};

/// The documented names of columns by their lower-case form, where these differ.
static MIXED_CASE: LazyLock<HashMap<String, &'static str>> = LazyLock::new(|| {
    let columns = views().iter().flat_map(|view| view.columns.iter());
    let names = columns.map(|column| (column.name.to_lowercase(), column.name.as_str()));
    names.filter(|(lower, name)| lower != name).collect()
});

fn documented(lower: &str) -> String {
    MIXED_CASE.get(lower).map_or_else(|| lower.to_owned(), |name| (*name).to_owned())
}

/// Answers one question; the process's limits are set already.
pub async fn answer(request: &Request) -> Result<Reply, Failure> {
    answer_on(request, Utc::now().date_naive()).await
}

async fn answer_on(request: &Request, today: NaiveDate) -> Result<Reply, Failure> {
    let mut parsed = parse(&request.sql)?;
    let known: HashSet<String> =
        views().iter().map(|view| view.name.clone()).chain([EVENTS.to_owned()]).collect();
    rewrite(&mut parsed.query, &known)?;
    let first_day = request
        .days
        .map(|days| today.checked_sub_days(Days::new(days.into())).unwrap_or(NaiveDate::MIN));
    let snapshot = Snapshot::take(&request.log_dir, first_day).map_err(|error| {
        Failure::new("the audit log cannot be read").hint(error.kind().to_string())
    })?;
    let snapshot = Arc::new(snapshot);
    let Parsed { query, tokens, labels } = parsed;
    let failed = |error: DataFusionError| Failure::engine(&error, &tokens);
    let context = context(request.memory_bytes).map_err(failed)?;
    for view in views() {
        let table = Arc::new(EventTable::of_view(view, snapshot.clone()));
        context.register_table(view.name.as_str(), table).map_err(failed)?;
    }
    context
        .register_table(EVENTS, Arc::new(EventTable::of_all(snapshot.clone())))
        .map_err(failed)?;
    let statement = Statement::Statement(Box::new(ast::Statement::Query(query)));
    let plan = context.state().statement_to_plan(statement).await.map_err(failed)?;
    let read_only =
        SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    read_only.verify_plan(&plan).map_err(failed)?;
    let schema = plan.schema().as_arrow().clone();
    let mut stream =
        DataFrame::new(context.state(), plan).execute_stream().await.map_err(failed)?;
    let mut rows = Rows { rows: Vec::new(), bytes: 0, request };
    while let Some(batch) = stream.next().await {
        rows.add(&batch.map_err(failed)?, &failed)?;
    }
    Ok(Reply {
        columns: columns(&schema, labels),
        rows: rows.rows,
        scanned_bytes: snapshot.bytes_read(),
    })
}

fn context(memory_bytes: u64) -> Result<SessionContext, DataFusionError> {
    let mut config = SessionConfig::new()
        .with_target_partitions(1)
        .with_batch_size(2048)
        .with_information_schema(false);
    let options = config.options_mut();
    options.sql_parser.default_null_ordering = "nulls_last".into();
    options.sql_parser.collect_spans = true;
    options.sql_parser.map_string_types_to_utf8view = false;
    // The rest is for what operators do not account for.
    let pool = usize::try_from(memory_bytes / 2).unwrap_or(usize::MAX);
    let no_files = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_limit(pool, 1.0)
        .with_disk_manager_builder(no_files)
        .build_arc()?;
    let mut planners: Vec<Arc<dyn ExprPlanner>> = vec![Arc::new(TimePlanner)];
    planners.extend(SessionStateDefaults::default_expr_planners());
    let mut scalars = SessionStateDefaults::default_scalar_functions();
    // Later ones replace earlier ones of the same name.
    scalars.extend(functions::all());
    // No table functions, file formats or table factories: nothing but our tables can be read.
    let state = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(runtime)
        .with_expr_planners(planners)
        .with_scalar_functions(scalars)
        .with_higher_order_functions(SessionStateDefaults::default_higher_order_functions())
        .with_aggregate_functions(SessionStateDefaults::default_aggregate_functions())
        .with_window_functions(SessionStateDefaults::default_window_functions())
        .build();
    Ok(SessionContext::new_with_state(state))
}

struct Rows<'a> {
    rows: Vec<Vec<Option<String>>>,
    bytes: usize,
    request: &'a Request,
}

impl Rows<'_> {
    fn add(
        &mut self,
        batch: &RecordBatch,
        failed: &impl Fn(DataFusionError) -> Failure,
    ) -> Result<(), Failure> {
        let columns = batch
            .columns()
            .iter()
            .map(cell::shown)
            .collect::<Result<Vec<_>, _>>()
            .map_err(failed)?;
        for row in 0..batch.num_rows() {
            let cells = columns
                .iter()
                .map(|column| cell::cell(column, row))
                .collect::<Result<Vec<_>, _>>()
                .map_err(failed)?;
            self.bytes += cells.iter().flatten().map(|text| text.len() + 4).sum::<usize>() + 4;
            self.rows.push(cells);
            let too_much = if self.rows.len() > self.request.max_rows {
                format!("the answer has more than {} rows", self.request.max_rows)
            } else if self.bytes > self.request.max_bytes {
                format!("the answer has more than {} bytes", self.request.max_bytes)
            } else {
                continue;
            };
            return Err(Failure::new(too_much)
                .hint("add LIMIT, or ask for fewer columns or days")
                .limit());
        }
        Ok(())
    }
}

fn columns(schema: &Schema, labels: Option<Vec<Label>>) -> Vec<Column> {
    let labels = labels.filter(|labels| labels.len() == schema.fields().len());
    let name = |at: usize, field: &str| match labels.as_ref().and_then(|labels| labels.get(at)) {
        Some(Label::Alias(alias)) => alias.clone(),
        Some(Label::Column(column)) => documented(column),
        Some(Label::Unnamed) => format!("_col{at}"),
        None => documented(field),
    };
    let column = |(at, field): (usize, &Arc<datafusion::arrow::datatypes::Field>)| Column {
        name: name(at, field.name()),
        sql_type: cell::type_name(field.data_type()),
    };
    schema.fields().iter().enumerate().map(column).collect()
}

#[cfg(test)]
mod tests;
