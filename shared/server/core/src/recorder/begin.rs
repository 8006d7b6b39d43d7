//! A new recording: to this disk, or streamed.

use std::sync::Arc;

use shared_recording::{Header, SessionRecorder, Signer, TokenBucket};
use shared_types::{ClusterName, HostId, SessionId};

use super::{
    EventOutlet, OnNotice, OnTrouble, RecordError, Recorder, RecorderSettings, SliceWriter,
    StreamWriter, Window, limits,
};
use crate::{Authority, RecordingSpool};

/// What a recording is begun with.
pub struct NewRecording<'a> {
    /// Takes it when it is streamed.
    pub authority: &'a Arc<dyn Authority>,
    /// Takes it when it is uploaded later.
    pub recordings: &'a RecordingSpool,
    /// What its slices are signed with.
    pub signer: &'a Arc<Signer>,
    /// The cluster, for its header.
    pub cluster: ClusterName,
    /// This host, for its header.
    pub recorder: HostId,
    /// Whose recording it is.
    pub session: SessionId,
    /// Whether the session ends where it cannot be recorded.
    pub strict: bool,
    /// The window of one that is streamed.
    pub window: Option<Arc<Window>>,
    /// What does not fit the bucket is left out.
    pub bucket: Option<TokenBucket>,
    /// Hears of gaps.
    pub on_notice: OnNotice,
    /// Takes events that are recorded in batches.
    pub outlet: Option<Arc<dyn EventOutlet>>,
}

impl NewRecording<'_> {
    /// Begins it.
    pub async fn begin(self) -> Result<Recorder, RecordError> {
        let writer: Box<dyn SliceWriter> = match &self.window {
            Some(window) => {
                let authority = Arc::clone(self.authority);
                Box::new(StreamWriter::new(authority, self.session, Arc::clone(window)))
            }
            None => Box::new(self.recordings.begin(self.session, self.strict).await?),
        };
        let header =
            Header { cluster: self.cluster, session: self.session, recorder: self.recorder };
        let recorder = SessionRecorder::new(header, limits(), None).signed(Arc::clone(self.signer));
        let settings = RecorderSettings {
            bucket: self.bucket,
            on_trouble: if self.strict { OnTrouble::End } else { OnTrouble::LeaveGap },
            on_notice: self.on_notice,
            window: self.window,
            outlet: self.outlet,
        };
        Ok(Recorder::spawn(recorder, writer, settings))
    }
}
