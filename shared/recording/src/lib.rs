//! The recording: how sessions become bytes, and bytes become what somebody saw.
//!
//! - [`Encoder`], [`SessionRecorder`]: events to slices, each a part of the container with a link
//!   of the hash [`chain`].
//! - [`checkpoint`], [`seal`], [`verify()`]: who signed the chain, and what was done to a recording since.
//! - [`Decoder`]: slices to events; of damaged input, a prefix of whole slices and the fault.
//! - [`filter`]: what of a recorded terminal's output may reach the viewer's.
//! - [`screen`], [`timeline`], [`player`], [`grep`]: what was on the screen, and when.
//! - [`database`]: statements and their results as what a screen would have shown.
//! - [`view`]: a screen in somebody's window.
//! - [`export`]: JSON, YAML, text, asciicast, a page that plays.
//!
//! What must stay true: nothing here does I/O of its own, knows a clock, or allocates by what a
//! length in a file says. The format is described in `docs/recording-format.md`.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod chain;
pub mod checkpoint;
pub mod database;
pub mod decoder;
pub mod encoder;
pub mod export;
pub mod filter;
pub mod format;
pub mod fuzz;
pub mod grep;
mod gzip;
pub mod player;
pub mod policy;
pub mod position;
pub mod recorder;
pub mod screen;
pub mod seal;
pub mod timeline;
pub mod verify;
pub mod view;

pub use chain::{ChainState, ChainStatus, Header, Link};
pub use checkpoint::Signer;
pub use decoder::{DecodeError, Decoder, Fault, Mark};
pub use encoder::{EncodeError, Encoder, Limits, Slice};
pub use filter::Filter;
pub use gzip::GzipFault;
pub use player::Player;
pub use policy::TokenBucket;
pub use position::Position;
pub use recorder::SessionRecorder;
pub use seal::{EndState, Received, Seal};
pub use timeline::Timeline;
pub use verify::{Report, Verdict, verify};
