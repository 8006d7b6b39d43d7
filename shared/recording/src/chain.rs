//! The hash chain: what makes edits, cuts and swaps of a recording visible.
//!
//! Behind the content of each slice, in the same body, stands an empty gzip member whose extra
//! field (RFC 1952 §2.3.1.1) is the link. Readers that know nothing of it see an empty member.
//! A link holds the hash of the link before it and of the slice's stored bytes: the part header
//! and everything in the body before the link. The first link names the recording it begins.
//!
//! It proves nothing against whoever recorded: a recorder can make any chain it likes. What it
//! proves is that nothing was changed since the head was last made known elsewhere, or was signed
//! (see [`checkpoint`](crate::checkpoint), [`seal`](crate::seal)).

mod state;

use sha2::{Digest, Sha256};
use shared_types::{ClusterName, HostId, SessionId};

use crate::gzip;

pub use state::{ChainFault, ChainState, ChainStatus};

/// SHA-256.
pub type Hash = [u8; 32];

const LINK: [u8; 2] = *b"GL";
const ORIGIN: [u8; 2] = *b"GO";
const CHECKPOINT: [u8; 2] = *b"GC";
const LINK_VERSION: u8 = 1;
const KIND_MORE: u8 = b'm';
const KIND_END: u8 = b'e';
const LINK_LEN: usize = 2 + 8 + 32 * 3;
/// A signed checkpoint is a signature, a certificate and little else.
const MAX_CHECKPOINT: usize = 8 * 1024;

/// What a chain begins with: which recording it is, and who made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The cluster the session was in.
    pub cluster: ClusterName,
    /// The session.
    pub session: SessionId,
    /// The service that recorded it.
    pub recorder: HostId,
}

impl Header {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32 + 32);
        out.extend_from_slice(self.session.uuid().as_bytes());
        out.extend_from_slice(self.recorder.uuid().as_bytes());
        out.extend_from_slice(self.cluster.as_ref().as_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (session, rest) = bytes.split_at_checked(16)?;
        let (recorder, cluster) = rest.split_at_checked(16)?;
        Some(Self {
            session: SessionId(uuid::Uuid::from_slice(session).ok()?),
            recorder: HostId(uuid::Uuid::from_slice(recorder).ok()?),
            cluster: std::str::from_utf8(cluster).ok()?.parse().ok()?,
        })
    }

    /// What the first link names as the one before it.
    #[must_use]
    pub fn origin(&self) -> Hash {
        let mut hash = Sha256::new();
        hash.update(b"gatehouse recording origin 1\0");
        hash.update(self.encode());
        hash.finalize().into()
    }
}

/// One link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Number of the slice, from 0, whatever parts and events are numbered.
    pub seq: u64,
    /// Whether the recorder ended the recording here.
    pub end: bool,
    /// Head of the link before; the origin for the first.
    pub previous: Hash,
    /// SHA-256 of the slice's stored bytes.
    pub slice: Hash,
    /// In the first link: what the recording is.
    pub origin: Option<Header>,
    /// A signature over the head, by whoever vouches for the recorder.
    pub checkpoint: Option<Vec<u8>>,
}

impl Link {
    /// The hash that stands for the recording up to here.
    #[must_use]
    pub fn head(&self) -> Hash {
        let mut hash = Sha256::new();
        hash.update(b"gatehouse recording link 1\0");
        hash.update([self.kind()]);
        hash.update(self.seq.to_be_bytes());
        hash.update(self.previous);
        hash.update(self.slice);
        hash.finalize().into()
    }

    pub(crate) fn kind(&self) -> u8 {
        if self.end { KIND_END } else { KIND_MORE }
    }

    fn extra(&self) -> Vec<u8> {
        let mut data = Vec::with_capacity(LINK_LEN);
        data.extend_from_slice(&[LINK_VERSION, self.kind()]);
        data.extend_from_slice(&self.seq.to_be_bytes());
        for hash in [&self.previous, &self.slice, &self.head()] {
            data.extend_from_slice(hash);
        }
        let mut out = Vec::with_capacity(LINK_LEN + 4);
        subfield(LINK, &data, &mut out);
        if let Some(origin) = &self.origin {
            subfield(ORIGIN, &origin.encode(), &mut out);
        }
        if let Some(checkpoint) = &self.checkpoint {
            subfield(CHECKPOINT, checkpoint, &mut out);
        }
        out
    }

    /// Appends the link as an empty gzip member.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        gzip::empty_member(&self.extra(), out);
    }

    /// Length of the encoded link that has this origin, and a checkpoint of this length.
    pub(crate) fn encoded_len(origin: Option<&Header>, checkpoint: Option<usize>) -> usize {
        let origin = origin.map_or(0, |origin| 4 + origin.encode().len());
        gzip::empty_member_len(4 + LINK_LEN + origin + checkpoint.map_or(0, |len| 4 + len))
    }

    /// Reads the link that `bytes` are, to the last byte. There is one way to write a link.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (_, extra) = gzip::header(bytes).ok()?;
        let mut fields = Subfields(extra?);
        let data = fields.take(LINK)?;
        let origin = fields.take(ORIGIN).map(Header::decode);
        let checkpoint = fields.take(CHECKPOINT);
        let (version_kind, data) = data.split_at_checked(2)?;
        let (seq, data) = data.split_at_checked(8)?;
        let (previous, data) = data.split_at_checked(32)?;
        let (slice, _head) = data.split_at_checked(32)?;
        let link = Self {
            seq: u64::from_be_bytes(seq.try_into().ok()?),
            end: version_kind.get(1) == Some(&KIND_END),
            previous: previous.try_into().ok()?,
            slice: slice.try_into().ok()?,
            origin: match origin {
                None => None,
                Some(origin) => Some(origin?),
            },
            checkpoint: checkpoint
                .filter(|checkpoint| checkpoint.len() <= MAX_CHECKPOINT)
                .map(<[u8]>::to_vec),
        };
        let mut canonical = Vec::with_capacity(bytes.len());
        link.encode(&mut canonical);
        (canonical == bytes).then_some(link)
    }
}

pub(crate) fn subfield(id: [u8; 2], data: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&id);
    out.extend_from_slice(&u16::try_from(data.len()).unwrap_or(u16::MAX).to_le_bytes());
    out.extend_from_slice(data);
}

pub(crate) struct Subfields<'a>(pub(crate) &'a [u8]);

impl<'a> Subfields<'a> {
    /// The data of the next subfield, if it has this id.
    pub(crate) fn take(&mut self, id: [u8; 2]) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(4)?;
        if !head.starts_with(&id) {
            return None;
        }
        let len = u16::from_le_bytes(head.get(2..)?.try_into().ok()?);
        let (data, rest) = rest.split_at_checked(usize::from(len))?;
        self.0 = rest;
        Some(data)
    }
}

/// The hash of a slice's stored bytes, which come in two pieces.
pub(crate) fn slice_hash(header: &[u8], content: &[u8]) -> Hash {
    Sha256::new().chain_update(header).chain_update(content).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link() -> Link {
        Link {
            seq: 7,
            end: true,
            previous: [1; 32],
            slice: [2; 32],
            origin: Some(Header {
                cluster: "example.test".parse().unwrap(),
                session: SessionId::random(),
                recorder: HostId::random(),
            }),
            checkpoint: Some(vec![9; 300]),
        }
    }

    #[test]
    fn links_survive_and_have_one_form() {
        let mut bytes = Vec::new();
        link().encode(&mut bytes);
        let read = Link::decode(&bytes).unwrap();
        assert_eq!((read.seq, read.end, read.checkpoint), (7, true, link().checkpoint));
        for at in 0..bytes.len() {
            // Origin and checkpoint are bound by what is hashed and signed, not by the form.
            if at > 12 + 4 + LINK_LEN && at < bytes.len() - 10 {
                continue;
            }
            let mut wrong = bytes.clone();
            wrong[at] ^= 0xff;
            assert!(Link::decode(&wrong).is_none(), "byte {at}");
        }
        bytes.push(0);
        assert!(Link::decode(&bytes).is_none());
    }
}
