//! The tables: a view of each event type, and `events` with all of them.

use std::{collections::HashSet, sync::Arc};

use async_trait::async_trait;
use datafusion::{
    arrow::{
        array::{RecordBatch, RecordBatchOptions},
        datatypes::{Field, Schema, SchemaRef},
    },
    catalog::{Session, TableProvider},
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext},
    logical_expr::{Expr, TableType},
    physical_plan::{
        ExecutionPlan,
        stream::RecordBatchStreamAdapter,
        streaming::{PartitionStream, StreamingTableExec},
    },
};
use serde_json::Value;
use shared_events::SqlType;

use crate::{
    rows::{Builder, data_type, time},
    snapshot::{Lines, Snapshot},
    views::View,
};

/// The table of all events.
pub(crate) const EVENTS: &str = "events";

/// Where a column's value comes from.
#[derive(Debug, Clone)]
enum Source {
    /// This path in the event's JSON; an empty one leads nowhere.
    Path(Vec<&'static str>),
    /// The line itself.
    Line,
}

#[derive(Debug, Clone)]
struct Column {
    name: String,
    sql_type: SqlType,
    source: Source,
}

/// One table over the log.
#[derive(Debug)]
pub(crate) struct EventTable {
    event_type: Option<&'static str>,
    columns: Vec<Column>,
    schema: SchemaRef,
    snapshot: Arc<Snapshot>,
}

fn schema(columns: &[Column]) -> SchemaRef {
    let field = |column: &Column| Field::new(&column.name, data_type(&column.sql_type), true);
    Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
}

impl EventTable {
    /// A view, with its documented columns under lower-case names.
    pub(crate) fn of_view(view: &View, snapshot: Arc<Snapshot>) -> Self {
        let mut names = HashSet::new();
        let columns = view.columns.iter().map(|column| Column {
            name: column.name.to_lowercase(),
            sql_type: column.sql_type.clone(),
            source: Source::Path(column.path.clone()),
        });
        let columns =
            columns.filter(|column| names.insert(column.name.clone())).collect::<Vec<_>>();
        Self { event_type: Some(view.event_type), schema: schema(&columns), columns, snapshot }
    }

    /// All events, also those without a view.
    pub(crate) fn of_all(snapshot: Arc<Snapshot>) -> Self {
        let path = |name: &str, sql_type, key| Column {
            name: name.into(),
            sql_type,
            source: Source::Path(vec![key]),
        };
        let columns = vec![
            path("event_date", SqlType::Date, "time"),
            path("event_time", SqlType::Timestamp, "time"),
            path("event_type", SqlType::Varchar, "event"),
            path("uid", SqlType::Varchar, "uid"),
            path("session_id", SqlType::Varchar, "sid"),
            path("user", SqlType::Varchar, "user"),
            Column { name: "event_data".into(), sql_type: SqlType::Varchar, source: Source::Line },
        ];
        Self { event_type: None, schema: schema(&columns), columns, snapshot }
    }
}

#[async_trait]
impl TableProvider for EventTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let columns = match projection {
            None => self.columns.clone(),
            Some(wanted) => wanted.iter().filter_map(|&at| self.columns.get(at).cloned()).collect(),
        };
        let schema = schema(&columns);
        let partition = Scan {
            event_type: self.event_type,
            columns,
            schema: schema.clone(),
            snapshot: self.snapshot.clone(),
        };
        let partitions: Vec<Arc<dyn PartitionStream>> = vec![Arc::new(partition)];
        Ok(Arc::new(StreamingTableExec::try_new(schema, partitions, None, [], false, limit)?))
    }
}

/// One pass over the log.
#[derive(Debug)]
struct Scan {
    event_type: Option<&'static str>,
    columns: Vec<Column>,
    schema: SchemaRef,
    snapshot: Arc<Snapshot>,
}

impl PartitionStream for Scan {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, ctx: Arc<TaskContext>) -> SendableRecordBatchStream {
        let batches = Batches {
            event_type: self.event_type,
            builders: self
                .columns
                .iter()
                .map(|column| (column.source.clone(), Builder::new(&column.sql_type)))
                .collect(),
            schema: self.schema.clone(),
            first_day: self.snapshot.first_day,
            lines: self.snapshot.lines(),
            seen: HashSet::new(),
            size: ctx.session_config().batch_size(),
            line: Vec::new(),
        };
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), futures::stream::iter(batches)))
    }
}

struct Batches {
    event_type: Option<&'static str>,
    builders: Vec<(Source, Builder)>,
    schema: SchemaRef,
    first_day: Option<chrono::NaiveDate>,
    lines: Lines,
    /// An event may stand in the log twice, when its sender never got our answer.
    seen: HashSet<Box<str>>,
    size: usize,
    line: Vec<u8>,
}

impl Iterator for Batches {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        self.batch().transpose()
    }
}

impl Batches {
    fn batch(&mut self) -> Result<Option<RecordBatch>> {
        let mut rows = 0;
        // A few large events fill a batch as well as many small ones.
        let mut bytes = 0;
        while rows < self.size && bytes < 4 << 20 {
            let mut line = std::mem::take(&mut self.line);
            let more = self.lines.next(&mut line).map_err(DataFusionError::IoError)?;
            if more && self.take(&line) {
                rows += 1;
                bytes += line.len();
            }
            self.line = line;
            if !more {
                break;
            }
        }
        if rows == 0 {
            return Ok(None);
        }
        let columns = self.builders.iter_mut().map(|(_, builder)| builder.finish()).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(Some(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?))
    }

    /// Adds the event of this line, if it is one that belongs here.
    fn take(&mut self, line: &[u8]) -> bool {
        if self
            .event_type
            .is_some_and(|wanted| kind(line).is_some_and(|kind| kind != wanted.as_bytes()))
        {
            return false;
        }
        // What is no event was reported when the log was opened.
        let Ok(event) = serde_json::from_slice::<Value>(line) else { return false };
        let Some(found) = event.get("event").and_then(Value::as_str) else { return false };
        if self.event_type.is_some_and(|wanted| wanted != found) {
            return false;
        }
        if let Some(first) = self.first_day
            && time(event.get("time")).is_none_or(|time| time.date_naive() < first)
        {
            return false;
        }
        if let Some(uid) = event.get("uid").and_then(Value::as_str)
            && !uid.is_empty()
            && !self.seen.insert(uid.into())
        {
            return false;
        }
        let whole = std::str::from_utf8(line).unwrap_or_default();
        for (source, builder) in &mut self.builders {
            match source {
                Source::Line => builder.push(Some(&Value::from(whole))),
                Source::Path(path) => builder.push(at(&event, path)),
            }
        }
        true
    }
}

fn at<'a>(event: &'a Value, path: &[&str]) -> Option<&'a Value> {
    if path.is_empty() {
        return None;
    }
    path.iter().try_fold(event, |value, key| value.get(key))
}

/// The type of an event when its line begins as the log writes it; most lines need no more.
fn kind(line: &[u8]) -> Option<&[u8]> {
    let rest = line.strip_prefix(b"{\"ei\":")?;
    let digits = rest.iter().position(|byte| *byte == b',')?;
    let kind = rest.get(digits..)?.strip_prefix(b",\"event\":\"")?;
    let end = kind.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
    (kind.get(end) == Some(&b'"')).then(|| kind.get(..end)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_is_read_off_the_beginning() {
        assert_eq!(
            kind(br#"{"ei":0,"event":"session.start","uid":"x"}"#),
            Some(&b"session.start"[..])
        );
        for other in
            [r#"{"event":"exec"}"#, r#"{"ei":0,"event":"a\"b"}"#, r#"{"ei":0,"event":"a"#, ""]
        {
            assert_eq!(kind(other.as_bytes()), None, "{other}");
        }
    }
}
