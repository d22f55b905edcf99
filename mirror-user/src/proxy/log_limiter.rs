//! How many lines about single requests or connections a worker logs.

use std::cell::Cell;

/// Lines of the log about single requests or connections, per worker and sweep (100 ms). Writing
/// one takes a lock and a system call, and a client that provokes them decides how many there are.
const LINES: u32 = 2;

/// Lines asked for since the last sweep.
#[derive(Debug, Default)]
pub(super) struct LogLimiter(Cell<u32>);

impl LogLimiter {
    /// Asks for one; whether it may be written.
    pub(super) fn take(&self) -> bool {
        self.0.set(self.0.get().saturating_add(1));
        self.0.get() <= LINES
    }

    /// How many were refused since the last call.
    pub(super) fn reset(&self) -> u32 {
        self.0.replace(0).saturating_sub(LINES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_limit_are_refused_and_counted() {
        let log_limiter = LogLimiter::default();
        for _ in 0..2 {
            assert!((0..LINES).all(|_| log_limiter.take()));
            assert!(!log_limiter.take());
            assert!(!log_limiter.take());
            assert_eq!(log_limiter.reset(), 2);
        }
        assert!(log_limiter.take());
        assert_eq!(log_limiter.reset(), 0);
    }
}
