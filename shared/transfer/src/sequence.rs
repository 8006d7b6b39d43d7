//! The hash of a file whose bytes come one after the other.

use aws_lc_rs::digest::{Context, SHA256};

use crate::record::Missing;

/// One direction of one file.
pub(crate) struct Sequence {
    context: Option<Context>,
    next: u64,
    broken: Option<Missing>,
}

impl Sequence {
    pub(crate) fn new(hash: bool) -> Self {
        Self { context: hash.then(|| Context::new(&SHA256)), next: 0, broken: None }
    }

    /// Data for `offset` is about to come. Answers whether it belongs here.
    pub(crate) fn at(&mut self, offset: u64) -> bool {
        if self.broken.is_none() && offset != self.next {
            self.broken = Some(match self.next {
                0 => Missing::NotFromStart(offset),
                _ => Missing::OutOfSequence,
            });
            self.context = None;
        }
        self.broken.is_none()
    }

    /// There is no sequence any more.
    pub(crate) fn spoil(&mut self, why: Missing) {
        self.broken.get_or_insert(why);
        self.context = None;
    }

    pub(crate) fn update(&mut self, data: &[u8]) {
        if let Some(context) = &mut self.context {
            context.update(data);
        }
        self.next = self.next.saturating_add(data.len() as u64);
    }

    /// Where the next byte belongs.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    pub(crate) fn is_sequential(&self) -> bool {
        self.broken.is_none()
    }

    /// The hash, where `whole` says that nothing is missing.
    pub(crate) fn finish(self, whole: Result<(), Missing>) -> Result<[u8; 32], Missing> {
        if let Some(why) = self.broken {
            return Err(why);
        }
        whole?;
        let digest = self.context.ok_or(Missing::Off)?.finish();
        digest.as_ref().try_into().map_err(|_| Missing::Off)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaps_have_no_hash() {
        let mut whole = Sequence::new(true);
        assert!(whole.at(0));
        whole.update(b"ab");
        assert!(whole.at(2));
        whole.update(b"c");
        let hash = whole.finish(Ok(())).unwrap();
        assert_eq!(hash[..4], [0xba, 0x78, 0x16, 0xbf]);
        let mut late = Sequence::new(true);
        assert!(!late.at(5) && !late.at(0));
        assert_eq!(late.finish(Ok(())), Err(Missing::NotFromStart(5)));
        let mut leap = Sequence::new(true);
        assert!(leap.at(0));
        leap.update(b"ab");
        assert!(!leap.at(3));
        assert_eq!(leap.finish(Ok(())), Err(Missing::OutOfSequence));
        assert_eq!(Sequence::new(true).finish(Err(Missing::NotToEnd)), Err(Missing::NotToEnd));
        assert_eq!(Sequence::new(false).finish(Ok(())), Err(Missing::Off));
    }
}
