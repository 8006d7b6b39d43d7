//! A named gap: output that was left out of a recording on purpose.
//!
//! It travels as the schema's own `unknown` event, so that every reader of the format passes it.

use serde::{Deserialize, Serialize};

use crate::{AuditEvent, Unknown};

/// The value of `unknown_event` that marks a gap.
pub const GAP_EVENT: &str = "session.output.gap";

/// Where output is missing, and how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputGap {
    /// Bytes of output before the gap, recorded or not.
    pub offset: u64,
    /// Bytes left out.
    pub bytes: u64,
}

impl OutputGap {
    /// The event to record. Index, time and the rest are the caller's to fill.
    #[must_use]
    pub fn to_event(self) -> AuditEvent {
        let data = format!(r#"{{"offset":{},"bytes":{}}}"#, self.offset, self.bytes);
        Unknown { unknown_event: GAP_EVENT.into(), data, ..Unknown::default() }.into()
    }

    /// The gap an event names, if it names one.
    #[must_use]
    pub fn from_event(event: &AuditEvent) -> Option<Self> {
        match event {
            AuditEvent::Unknown(unknown) if unknown.unknown_event == GAP_EVENT => {
                serde_json::from_str(&unknown.data).ok()
            }
            _ => None,
        }
    }
}
