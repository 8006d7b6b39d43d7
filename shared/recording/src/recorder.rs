//! A session being recorded: numbers events, makes prints of output, and cuts what a bucket does
//! not admit into named gaps. No I/O; the caller writes the slices that come out.

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use shared_events::{AuditEvent, Metadata, OutputGap, SessionPrint, Timestamp};

use crate::chain::Header;
use crate::checkpoint::Signer;
use crate::encoder::{EncodeError, Encoder, Limits, Slice};
use crate::format::MAX_PRINT;
use crate::policy::TokenBucket;

/// Records one session.
#[derive(Debug)]
pub struct SessionRecorder {
    encoder: Encoder,
    cluster: String,
    next_index: i64,
    /// Used again for each print, so that a print costs no allocation.
    print: AuditEvent,
    next_chunk: i64,
    recorded: i64,
    first_print: Option<DateTime<Utc>>,
    last_ms: i64,
    bucket: Option<TokenBucket>,
    /// Output so far, recorded or not.
    output: u64,
    gap: Option<OutputGap>,
}

impl SessionRecorder {
    /// Begins a recording. Without a bucket all output is recorded.
    #[must_use]
    pub fn new(header: Header, limits: Limits, bucket: Option<TokenBucket>) -> Self {
        let cluster = header.cluster.to_string();
        let metadata = Metadata {
            event: SessionPrint::KIND.into(),
            cluster_name: cluster.clone(),
            ..Metadata::default()
        };
        Self {
            encoder: Encoder::new(header, limits),
            cluster,
            next_index: 0,
            print: SessionPrint { metadata, ..SessionPrint::default() }.into(),
            next_chunk: 0,
            recorded: 0,
            first_print: None,
            last_ms: 0,
            bucket,
            output: 0,
            gap: None,
        }
    }

    /// Signs each slice from here on, as long as the signer has a key.
    #[must_use]
    pub fn signed(mut self, signer: Arc<Signer>) -> Self {
        self.encoder = self.encoder.signed(signer);
        self
    }

    /// Numbers and prepares an event (the same event then goes to the audit log), and records it.
    pub fn event(
        &mut self,
        event: &mut AuditEvent,
        now: DateTime<Utc>,
        slices: &mut Vec<Slice>,
    ) -> Result<(), EncodeError> {
        self.close_gap(now, slices)?;
        self.record(event, now, slices)
    }

    fn record(
        &mut self,
        event: &mut AuditEvent,
        now: DateTime<Utc>,
        slices: &mut Vec<Slice>,
    ) -> Result<(), EncodeError> {
        event.metadata_mut().index = self.next_index;
        event.prepare(now, &self.cluster);
        slices.extend(self.encoder.push(event)?);
        self.next_index += 1;
        Ok(())
    }

    /// Records output of the session.
    pub fn output(
        &mut self,
        mut data: Bytes,
        now: DateTime<Utc>,
        slices: &mut Vec<Slice>,
    ) -> Result<(), EncodeError> {
        if data.is_empty() {
            return Ok(());
        }
        let admitted = match &mut self.bucket {
            Some(bucket) => bucket.take(data.len(), now),
            None => data.len(),
        };
        let left_out = data.split_off(admitted.min(data.len()));
        if !data.is_empty() {
            self.close_gap(now, slices)?;
        }
        self.output += data.len() as u64;
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(MAX_PRINT));
            self.one_print(piece, now, slices)?;
        }
        self.leave_out(left_out.len() as u64);
        Ok(())
    }

    /// Output that somebody else's bucket did not admit: it becomes part of a named gap.
    pub fn leave_out(&mut self, bytes: u64) {
        if bytes > 0 {
            let gap = self.gap.get_or_insert(OutputGap { offset: self.output, bytes: 0 });
            gap.bytes += bytes;
            self.output += bytes;
        }
    }

    fn one_print(
        &mut self,
        data: Bytes,
        now: DateTime<Utc>,
        slices: &mut Vec<Slice>,
    ) -> Result<(), EncodeError> {
        let first = *self.first_print.get_or_insert(now);
        self.last_ms = self.last_ms.max((now - first).num_milliseconds());
        if let AuditEvent::SessionPrint(print) = &mut self.print {
            print.metadata.index = self.next_index;
            print.metadata.time = Timestamp::rounded(now);
            print.chunk_index = self.next_chunk;
            print.bytes = i64::try_from(data.len()).unwrap_or(i64::MAX);
            print.ms = self.last_ms;
            print.offset = self.recorded;
            self.recorded += print.bytes;
            print.data = data;
        }
        let slice = self.encoder.push(&self.print);
        if let AuditEvent::SessionPrint(print) = &mut self.print {
            print.data = Bytes::new();
        }
        slices.extend(slice?);
        self.next_index += 1;
        self.next_chunk += 1;
        Ok(())
    }

    fn close_gap(
        &mut self,
        now: DateTime<Utc>,
        slices: &mut Vec<Slice>,
    ) -> Result<(), EncodeError> {
        match self.gap.take() {
            None => Ok(()),
            Some(gap) => self.record(&mut gap.to_event(), now, slices),
        }
    }

    /// Bytes that are in no slice yet; the caller cuts one within a second of the first.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.encoder.pending()
    }

    /// Cuts a slice, if there is anything to cut.
    pub fn flush(&mut self) -> Option<Slice> {
        self.encoder.flush()
    }

    /// Ends the recording.
    pub fn finish(
        &mut self,
        now: DateTime<Utc>,
        slices: &mut Vec<Slice>,
    ) -> Result<(), EncodeError> {
        self.close_gap(now, slices)?;
        slices.extend(self.encoder.finish());
        Ok(())
    }
}

#[cfg(test)]
mod tests;
