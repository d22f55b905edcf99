//! What a head that was read makes the agent hold beside the buffer that it was read into. In: its bytes
//! and its fields. Out: bytes to be charged; none for what most heads are.

use http::HeaderMap;

/// Heads of no more fields are part of what each connection is charged with.
const FEW: usize = 64;

/// Heads of no more bytes likewise.
const SHORT: usize = 4 * 1024;

/// What a field takes in a [`HeaderMap`], and once more where a head is taken apart for its way on: its
/// entry is 104 bytes in http 1.4, with room for twice as many when the map has just grown.
const FIELD: usize = 256;

/// Of a head of `length` bytes: the bytes themselves, which are held until the head has left, and what
/// is printed of them.
pub(super) fn of(length: usize, headers: &HeaderMap) -> usize {
    let fields = if headers.len() > FEW { headers.len() * FIELD } else { 0 };
    let text = if length > SHORT { 2 * length } else { 0 };
    fields + text
}
