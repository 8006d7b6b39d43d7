//! What goes on of a piece of a stream.

use bytes::Bytes;

/// A piece of a stream, of which parts are left out and into which others are put. Nothing is copied.
pub(crate) struct Onward {
    data: Bytes,
    from: usize,
    pieces: Vec<Bytes>,
}

impl Onward {
    pub(crate) fn new(data: Bytes) -> Self {
        Self { data, from: 0, pieces: Vec::new() }
    }

    /// Everything up to `at` that was not left out goes on.
    fn pass(&mut self, at: usize) {
        if at > self.from {
            self.pieces.push(self.data.slice(self.from..at.min(self.data.len())));
            self.from = at;
        }
    }

    /// Leaves out what is between `start` and `end`.
    pub(crate) fn omit(&mut self, start: usize, end: usize) {
        self.pass(start);
        self.from = self.from.max(end);
    }

    /// Puts `piece` in at `at`.
    pub(crate) fn insert(&mut self, at: usize, piece: Bytes) {
        self.pass(at);
        self.pieces.push(piece);
    }

    /// What goes on.
    pub(crate) fn finish(mut self) -> Vec<Bytes> {
        self.pass(self.data.len());
        self.pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces() {
        let data = Bytes::from_static(b"0123456789");
        assert_eq!(Onward::new(data.clone()).finish(), [&data]);
        let mut onward = Onward::new(data);
        onward.insert(0, "a".into());
        onward.omit(2, 4);
        onward.insert(4, "b".into());
        onward.omit(8, 10);
        let all: Vec<u8> = onward.finish().concat();
        assert_eq!(all, b"a01b4567");
    }
}
