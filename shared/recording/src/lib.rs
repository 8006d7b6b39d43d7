//! The recording: how sessions become bytes, and bytes become what somebody saw.
//!
//! - [`Encoder`], [`SessionRecorder`]: events to slices, each a part of the container with a link
//!   of the hash [`chain`].
//! - [`Decoder`]: slices to events; of damaged input, a prefix of whole slices and the fault.
//! - [`filter`]: what of a recorded terminal's output may reach the viewer's.
//! - [`screen`], [`timeline`], [`player`]: what was on the screen, and when.
//! - [`export`]: JSON, YAML and text.
//!
//! What must stay true: nothing here does I/O of its own, knows a clock, or allocates by what a
//! length in a file says. The format is described in `docs/recording-format.md`.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod chain;
pub mod decoder;
pub mod encoder;
pub mod export;
pub mod filter;
pub mod format;
pub mod fuzz;
mod gzip;
pub mod player;
pub mod policy;
pub mod recorder;
pub mod screen;
pub mod timeline;

pub use chain::{ChainState, ChainStatus, Header, Link};
pub use decoder::{DecodeError, Decoder, Fault, Mark};
pub use encoder::{EncodeError, Encoder, Limits, Slice};
pub use filter::Filter;
pub use gzip::GzipFault;
pub use player::Player;
pub use policy::TokenBucket;
pub use recorder::SessionRecorder;
pub use timeline::Timeline;
