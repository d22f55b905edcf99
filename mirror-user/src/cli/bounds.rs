//! Bounds on memory that flags set, each of a part of what the next is for. In: flags with their values.
//! Out: whether they can be kept together.

use super::ByteSize;

/// What is wrong with the bounds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BoundError {
    /// Below what it takes to work.
    #[error("{flag} {size} is below the minimum of {least}: {why}")]
    TooSmall {
        /// The flag.
        flag: &'static str,
        /// Its value.
        size: ByteSize,
        /// The least that it may be.
        least: ByteSize,
        /// What it takes.
        why: &'static str,
    },
    /// A part that exceeds the whole.
    #[error("{part} {least} is greater than {whole} {most}: raise the second or lower the first")]
    Order {
        /// Flag of the part.
        part: &'static str,
        /// Its value.
        least: ByteSize,
        /// Flag of the whole.
        whole: &'static str,
        /// Its value.
        most: ByteSize,
    },
}

/// A flag and its value.
pub(super) type SizeFlag = (&'static str, ByteSize);

/// Compares bounds, each of which is for a part of what the next is for, with the least that they may be
/// and with one another.
///
/// # Errors
/// One is too small, for the reason given, or a part exceeds the whole.
pub(super) fn check(
    bounds: [(SizeFlag, ByteSize); 3],
    why: &'static str,
) -> Result<(), BoundError> {
    for ((flag, size), least) in bounds {
        if size < least {
            return Err(BoundError::TooSmall { flag, size, least, why });
        }
    }
    let [smallest, middle, largest] = bounds.map(|(bound, _)| bound);
    for ((part, least), (whole, most)) in [(smallest, middle), (middle, largest)] {
        if least > most {
            return Err(BoundError::Order { part, least, whole, most });
        }
    }
    Ok(())
}
