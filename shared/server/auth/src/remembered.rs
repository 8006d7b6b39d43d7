//! A map that holds so much and no more: what came first goes first.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Values by key, of which the oldest make room.
#[derive(Debug)]
pub(crate) struct Remembered<K, V> {
    values: HashMap<K, V>,
    order: VecDeque<K>,
    most: usize,
}

impl<K: Hash + Eq + Copy, V> Remembered<K, V> {
    /// Holds `most` values.
    pub(crate) fn new(most: usize) -> Self {
        Self { values: HashMap::new(), order: VecDeque::new(), most }
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.values.get(key)
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.values.get_mut(key)
    }

    /// Puts a value, in the place of the one that is there.
    pub(crate) fn insert(&mut self, key: K, value: V) {
        if self.values.insert(key, value).is_some() {
            return;
        }
        self.order.push_back(key);
        while self.order.len() > self.most {
            let Some(oldest) = self.order.pop_front() else { return };
            self.values.remove(&oldest);
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        assert_eq!(self.values.len(), self.order.len());
        self.values.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_make_room() {
        let mut map = Remembered::new(2);
        for key in [1, 2, 1, 3] {
            map.insert(key, key * 10);
        }
        assert_eq!((map.get(&1), map.get(&2), map.get(&3)), (None, Some(&20), Some(&30)));
        map.insert(2, 21);
        assert_eq!(map.get_mut(&2), Some(&mut 21));
        assert_eq!(map.len(), 2);
    }
}
