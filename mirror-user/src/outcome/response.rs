//! What counts of a response: its status, and how long its head took. Primaries and shadows are counted
//! alike, so that they can be compared.

use std::time::Duration;

use super::labels::{CLASSES, class};

/// Codes of gRPC (0 to 16), and one for all others.
pub const GRPC_CODES: usize = 18;

/// What a response was, as metrics call it: the class of its status, or for a call of gRPC, whose status of
/// HTTP is 200 whatever became of it, whether it succeeded.
pub(super) const RESPONSE_CLASSES: [&str; CLASSES.len() + 2] =
    ["none", "1xx", "2xx", "3xx", "4xx", "5xx", "grpc_ok", "grpc_error"];

/// A response, of a primary or of a shadow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimedResponse {
    /// Its status; None if there was no response.
    pub status: Option<u16>,
    /// Its `grpc-status`.
    pub grpc: Option<u16>,
    /// From the head of the request to the head of the response.
    pub after: Duration,
}

impl TimedResponse {
    /// Its place in [`RESPONSE_CLASSES`].
    pub(super) fn class(&self) -> usize {
        match self.grpc {
            Some(0) => CLASSES.len(),
            Some(_) => CLASSES.len() + 1,
            None => class(self.status),
        }
    }

    /// The place of its `grpc-status` among [`GRPC_CODES`].
    pub(super) fn grpc_code(&self) -> Option<usize> {
        self.grpc.map(|code| usize::from(code).min(GRPC_CODES - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_of_grpc_is_told_by_its_own_status() {
        for (status, grpc, expected) in [
            (Some(200), None, "2xx"),
            (Some(503), None, "5xx"),
            (None, None, "none"),
            (Some(200), Some(0), "grpc_ok"),
            (Some(200), Some(14), "grpc_error"),
        ] {
            let response = TimedResponse { status, grpc, after: Duration::ZERO };
            assert_eq!(RESPONSE_CLASSES[response.class()], expected);
        }
        let code = |grpc| TimedResponse { grpc, ..TimedResponse::default() }.grpc_code();
        assert_eq!([code(None), code(Some(16)), code(Some(999))], [None, Some(16), Some(17)]);
    }
}
