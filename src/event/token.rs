//! The 64 bits that epoll stores with a descriptor and returns with its events.

use slotmap::{Key, KeyData};

/// The name under which a descriptor is watched: a fixed number, for a descriptor that lives as long as the loop, or the key of a slot map.
///
/// The key of a slot map holds an index, and in its upper half a generation that is never 0. This leaves the values below 2^32 to fixed
/// names. The key of a removed value finds nothing, even if its slot is in use again.
///
/// ```
/// use edgecho::event::{Name, Token};
/// use slotmap::{DefaultKey, SlotMap};
///
/// let mut peers = SlotMap::new();
/// let key = peers.insert("a peer");
/// assert_eq!(Token::of_key(key).name(), Name::Key(key));
/// assert_eq!(Token::fixed(3).name::<DefaultKey>(), Name::Fixed(3));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(u64);

impl Token {
    /// Creates a token with a fixed name.
    #[must_use]
    pub const fn fixed(name: u32) -> Self {
        Self(name as u64)
    }

    /// Creates a token from the key of a slot map.
    #[inline]
    #[must_use]
    pub fn of_key(key: impl Key) -> Self {
        Self(key.data().as_ffi())
    }

    /// Returns the name. `K` is the key type of the slot map.
    #[inline]
    #[must_use]
    pub fn name<K: Key>(self) -> Name<K> {
        match u32::try_from(self.0) {
            Ok(fixed) => Name::Fixed(fixed),
            Err(_) => Name::Key(KeyData::from_ffi(self.0).into()),
        }
    }

    #[inline]
    pub(super) const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    #[inline]
    pub(super) const fn into_raw(self) -> u64 {
        self.0
    }
}

/// The name in a [`Token`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name<K> {
    /// The fixed name of a descriptor that lives as long as the loop.
    Fixed(u32),
    /// The key of a value in a slot map, which may have been removed.
    Key(K),
}

#[cfg(test)]
mod tests {
    use super::*;
    use slotmap::{DefaultKey, SlotMap};

    #[test]
    fn fixed_names_and_keys_are_distinct() {
        let mut slots = SlotMap::new();
        for value in 0..1_000 {
            let key: DefaultKey = slots.insert(value);
            let token = Token::of_key(key);
            assert!(token.into_raw() > u64::from(u32::MAX));
            assert_eq!(Token::from_raw(token.into_raw()).name(), Name::Key(key));
        }
        for name in [0, 1, u32::MAX] {
            assert_eq!(Token::fixed(name).name::<DefaultKey>(), Name::Fixed(name));
        }
    }

    #[test]
    fn the_token_of_a_removed_value_finds_nothing() {
        fn find<'a>(slots: &SlotMap<DefaultKey, &'a str>, token: Token) -> Option<&'a str> {
            let Name::Key(key) = token.name() else { panic!("{token:?} names no key") };
            slots.get(key).copied()
        }
        let mut slots = SlotMap::new();
        let key = slots.insert("old");
        let old = Token::of_key(key);
        slots.remove(key);
        let new = Token::of_key(slots.insert("new"));

        let index = |token: Token| token.into_raw() as u32;
        assert_eq!(index(old), index(new), "this test needs both values in one slot");
        assert_eq!(find(&slots, old), None);
        assert_eq!(find(&slots, new), Some("new"));
    }
}
