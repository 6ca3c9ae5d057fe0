//! The sizes of messages.

use std::fmt;
use std::str::FromStr;

/// The sizes of messages in bytes, from 1 to [`Sizes::MAX`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sizes {
    /// Each size in turn, over and over; at least one.
    List(Vec<u32>),
    /// A size at random from the first to the second, all equally likely.
    Range(u32, u32),
}

/// The reason why a text is no [`Sizes`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SizesError(String);

impl Sizes {
    /// The largest size of a message: 16 MiB.
    pub const MAX: u32 = 16 << 20;

    /// Returns the size of the next message after `count` messages.
    #[inline]
    pub(super) fn get(&self, count: u64, random: &mut fastrand::Rng) -> u32 {
        match self {
            Self::List(sizes) => match sizes[..] {
                [size] => size,
                _ => sizes[(count % sizes.len() as u64) as usize],
            },
            Self::Range(least, most) => random.u32(*least..=*most),
        }
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::List(sizes) => {
                let sizes: Vec<String> = sizes.iter().map(ToString::to_string).collect();
                f.write_str(&sizes.join(","))
            }
            Self::Range(least, most) => write!(f, "{least}-{most}"),
        }
    }
}

impl FromStr for Sizes {
    type Err = SizesError;

    /// Reads `SIZE[,SIZE…]` or `MIN-MAX`, in bytes or with a unit such as KiB.
    fn from_str(text: &str) -> Result<Self, SizesError> {
        let size = |text: &str| {
            let size: bytesize::ByteSize = text
                .trim()
                .parse()
                .map_err(|_| SizesError(format!("'{text}' is not a size; expected bytes, such as 64 or 4KiB")))?;
            let bounds = 1..=u64::from(Self::MAX);
            let size = Some(size.as_u64()).filter(|size| bounds.contains(size)).and_then(|size| u32::try_from(size).ok());
            size.ok_or_else(|| SizesError(format!("'{text}' is out of bounds; expected from 1 to 16MiB")))
        };
        if let Some((least, most)) = text.split_once('-') {
            let (least, most) = (size(least)?, size(most)?);
            if least > most {
                return Err(SizesError(format!("{least} is more than {most}; expected MIN-MAX")));
            }
            return Ok(Self::Range(least, most));
        }
        text.split(',').map(size).collect::<Result<_, _>>().map(Self::List)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_ranges_are_read() {
        assert_eq!("64".parse(), Ok(Sizes::List(vec![64])));
        assert_eq!("64,4KiB,1".parse(), Ok(Sizes::List(vec![64, 4096, 1])));
        assert_eq!("1-16MiB".parse(), Ok(Sizes::Range(1, Sizes::MAX)));
        for text in ["", "0", "-1", "17MiB", "9-3", "a", "1,,2", "1-2-3"] {
            assert!(text.parse::<Sizes>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_list_goes_round_and_a_range_keeps_its_bounds() {
        let mut random = fastrand::Rng::with_seed(1);
        let list = Sizes::List(vec![1, 2, 3]);
        assert_eq!([0, 1, 2, 3].map(|count| list.get(count, &mut random)), [1, 2, 3, 1]);
        let sizes: Vec<u32> = (0..1_000).map(|count| Sizes::Range(5, 9).get(count, &mut random)).collect();
        assert!((5..=9).all(|size| sizes.contains(&size)) && sizes.iter().all(|size| (5..=9).contains(size)));
    }
}
