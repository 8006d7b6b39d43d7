//! Where slices go: to this machine's disk, or to the auth service as they are made.

use async_trait::async_trait;
use shared_recording::Slice;

use crate::spool::{RecordingWriter, SpoolError};

/// Takes the slices of one recording. The recorder is the same for all of them; who calls it chooses one.
#[async_trait]
pub trait SliceWriter: Send + 'static {
    /// Takes a slice, which is the last to hold so many bytes of what a [`Window`](super::Window) admitted. Where there
    /// is no room and `patient`, waits for it within the writer's own limit. On an error the slice was not taken, and
    /// may come again.
    async fn write(&mut self, slice: &Slice, output: u64, patient: bool) -> Result<(), SpoolError>;

    /// The recording is complete. Without this it counts as cut off.
    async fn close(self: Box<Self>) -> Result<(), SpoolError>;
}

#[async_trait]
impl SliceWriter for RecordingWriter {
    async fn write(
        &mut self,
        slice: &Slice,
        _output: u64,
        patient: bool,
    ) -> Result<(), SpoolError> {
        RecordingWriter::write(self, slice, patient).await
    }

    async fn close(self: Box<Self>) -> Result<(), SpoolError> {
        RecordingWriter::close(*self).await
    }
}
