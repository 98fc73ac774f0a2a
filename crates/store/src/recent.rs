//! A bounded map that keeps what was used lately.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;

use foldhash::fast::RandomState;

/// Two generations: what is used moves to the young one; when that is full, the old one is
/// dropped as a whole. Anything used within the last `max_weight` of other uses is still there.
#[derive(Debug)]
pub(crate) struct Recent<K, V> {
    young: HashMap<K, V, RandomState>,
    old: HashMap<K, V, RandomState>,
    young_weight: usize,
    max_weight: usize,
    weigh: fn(&V) -> usize,
}

impl<K: Eq + Hash, V> Recent<K, V> {
    /// A map whose generations weigh at most about `max_weight` each.
    pub(crate) fn new(max_weight: usize, weigh: fn(&V) -> usize) -> Self {
        Self {
            young: HashMap::default(),
            old: HashMap::default(),
            young_weight: 0,
            max_weight,
            weigh,
        }
    }

    /// The value under `key`, which thereby becomes young.
    pub(crate) fn get_mut<Q>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        if !self.young.contains_key(key)
            && let Some((key, value)) = self.old.remove_entry(key)
        {
            self.insert(key, value);
        }
        self.young.get_mut(key)
    }

    /// The value under `key`, made now if it is not there.
    pub(crate) fn get_or_try_insert<E>(
        &mut self,
        key: K,
        make: impl FnOnce() -> Result<V, E>,
    ) -> Result<&mut V, E> {
        match self.young.entry(key) {
            Entry::Occupied(found) => Ok(found.into_mut()),
            Entry::Vacant(slot) => {
                let value = match self.old.remove(slot.key()) {
                    Some(value) => value,
                    None => make()?,
                };
                self.young_weight += (self.weigh)(&value);
                Ok(slot.insert(value))
            }
        }
    }

    /// Puts a young value in.
    pub(crate) fn insert(&mut self, key: K, value: V) {
        self.young_weight += (self.weigh)(&value);
        self.young.insert(key, value);
    }

    /// Says that young values became heavier.
    pub(crate) fn add_weight(&mut self, weight: usize) {
        self.young_weight += weight;
    }

    /// Takes a value out, young or old.
    pub(crate) fn remove<Q>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.young.remove(key);
        self.old.remove(key);
    }

    /// Drops the old generation when the young one is full. Never called while values that are
    /// not stored yet are in here.
    pub(crate) fn age(&mut self) {
        if self.young_weight > self.max_weight {
            self.old = std::mem::take(&mut self.young);
            self.young_weight = 0;
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        *self = Self::new(self.max_weight, self.weigh);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_rest_goes() {
        let mut map = Recent::new(2, |_| 1);
        for key in 0..3 {
            map.insert(key, key * 10);
        }
        map.age();
        assert_eq!(map.get_mut(&1), Some(&mut 10));
        map.insert(4, 40);
        let made: Result<&mut i32, ()> = map.get_or_try_insert(5, || Ok(50));
        assert_eq!(made, Ok(&mut 50));
        map.age();
        assert_eq!(map.get_mut(&0), None);
        assert_eq!(map.get_or_try_insert(1, || Err(())), Ok(&mut 10));
        map.remove(&1);
        assert_eq!(map.get_mut(&1), None);
    }
}
