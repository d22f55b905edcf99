//! Errors with their causes. In: an error. Out: one line that ends in what failed first, such as the
//! kernel's errno. Libraries often leave the cause to `source()`, so that their text alone says only
//! that a call failed.

use std::{
    error::Error,
    fmt::{self, Display, Formatter},
};

/// Shows an error and its causes, separated by colons. A cause whose text is already shown is left out.
#[derive(Clone, Copy, Debug)]
pub struct WithCauses<'e>(pub &'e (dyn Error + 'static));

impl Display for WithCauses<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut shown = self.0.to_string();
        let mut next = self.0.source();
        while let Some(error) = next {
            let cause = error.to_string();
            if !shown.contains(&cause) {
                shown = format!("{shown}: {cause}");
            }
            next = error.source();
        }
        f.write_str(&shown)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the call failed")]
    struct Silent(#[source] io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("loading: {0}")]
    struct Quoting(#[source] Silent);

    #[test]
    fn the_first_cause_is_shown_and_nothing_twice() {
        let cause = || Silent(io::Error::from_raw_os_error(libc::EPERM));
        let text = WithCauses(&cause()).to_string();
        assert_eq!(text, "the call failed: Operation not permitted (os error 1)");
        let text = WithCauses(&Quoting(cause())).to_string();
        assert_eq!(text, "loading: the call failed: Operation not permitted (os error 1)");
    }
}
