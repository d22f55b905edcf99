//! Local replies to gRPC calls. In: the status that an HTTP client gets, and why. Out: the fields of a response
//! that a gRPC client reads as an error: "Trailers-Only" (gRPC over HTTP/2, "Responses"), which has status
//! 200 and no content.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header, request};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

const CONTENT_TYPE: &str = "application/grpc";
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// What is encoded in a `grpc-message`: this, and all that is not ASCII ("Percent-Encoded" there).
const ENCODED: &AsciiSet = &CONTROLS.add(b'%');

/// Whether a request is a call of gRPC: HTTP/2, with a content-type of `application/grpc` or of a format of it,
/// as `application/grpc+proto`.
pub(crate) fn is_call(head: &request::Parts) -> bool {
    let format = || {
        let of = head.headers.get(header::CONTENT_TYPE)?.as_bytes();
        of.strip_prefix(CONTENT_TYPE.as_bytes())
    };
    head.version == Version::HTTP_2
        && format().is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// The fields of the response.
pub(crate) fn fields(status: StatusCode, reason: &str) -> HeaderMap {
    let mut fields = HeaderMap::with_capacity(4);
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    fields.insert(STATUS, HeaderValue::from(code(status)));
    let message = utf8_percent_encode(reason, ENCODED).to_string();
    if let Ok(message) = HeaderValue::try_from(message) {
        fields.insert(MESSAGE, message);
    }
    fields
}

/// The code that gRPC's own mapping has for a status ("HTTP to gRPC Status Code Mapping"), but for 500, which
/// is what requests to an invalid backend get: UNAVAILABLE (GRPCRouteRule, `backendRefs`).
fn code(status: StatusCode) -> u16 {
    const UNKNOWN: u16 = 2;
    const UNIMPLEMENTED: u16 = 12;
    const INTERNAL: u16 = 13;
    const UNAVAILABLE: u16 = 14;
    match status.as_u16() {
        400 => INTERNAL,
        404 => UNIMPLEMENTED,
        500 | 502 | 503 | 504 => UNAVAILABLE,
        _ => UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn a_call_is_known_by_its_content_type() {
        for (of, version, expected) in [
            ("application/grpc", Version::HTTP_2, true),
            ("application/grpc+proto", Version::HTTP_2, true),
            ("application/grpc;charset=utf-8", Version::HTTP_2, true),
            ("application/grpc-web", Version::HTTP_2, false),
            ("application/grpc", Version::HTTP_11, false),
            ("text/plain", Version::HTTP_2, false),
        ] {
            let request = Request::builder().version(version).header("content-type", of);
            assert_eq!(is_call(&request.body(()).unwrap().into_parts().0), expected, "{of}");
        }
        let without = Request::builder().version(Version::HTTP_2).body(()).unwrap();
        assert!(!is_call(&without.into_parts().0));
    }

    #[test]
    fn statuses_are_those_of_grpc() {
        for (status, expected) in
            [(400, 13), (404, 12), (500, 14), (502, 14), (503, 14), (504, 14), (418, 2)]
        {
            let fields = fields(StatusCode::from_u16(status).unwrap(), "100 % é\n\x7f~");
            assert_eq!(fields["grpc-status"], expected.to_string());
            assert_eq!(fields["grpc-message"], "100 %25 %C3%A9%0A%7F~");
            assert_eq!(fields["content-type"], "application/grpc");
        }
    }
}
