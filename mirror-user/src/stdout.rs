//! Printing. In: text. Out: the same on stdout. A reader that has ended (`mirror status | head -1`) has
//! what it wanted, so that a closed pipe is not an error; `print!` would panic.

use std::io::{self, ErrorKind, Write};

/// Writes all of `text` to stdout and flushes it.
///
/// # Errors
/// Any error of stdout but a closed pipe: a full disk, for example.
pub(crate) fn print(text: &str) -> io::Result<()> {
    write(&mut io::stdout().lock(), text)
}

fn write(out: &mut impl Write, text: &str) -> io::Result<()> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Failing(ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn only_a_closed_pipe_is_no_error() {
        write(&mut Failing(ErrorKind::BrokenPipe), "text").unwrap();
        let full = write(&mut Failing(ErrorKind::StorageFull), "text").unwrap_err();
        assert_eq!(full.kind(), ErrorKind::StorageFull);
        let mut all = Vec::new();
        write(&mut all, "text").unwrap();
        assert_eq!(all, b"text");
    }
}
