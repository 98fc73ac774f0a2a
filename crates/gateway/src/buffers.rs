//! Parts of messages outlive the buffer of the connection that they came in, as they lie in it: one of a
//! stream that lasts would keep all of the buffer, and the connection would take another.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue};

/// Longest body that is copied out, bytes: longer ones fill their buffers.
const MAX_COPIED_BYTES: usize = 32 << 10;

/// A body in memory of its own.
pub(crate) fn own_body(body: Bytes) -> Bytes {
    if body.len() > MAX_COPIED_BYTES { body } else { Bytes::copy_from_slice(&body) }
}

/// Gives the values of headers memory of their own.
pub(crate) fn own_headers(headers: &mut HeaderMap) {
    let mut all = BytesMut::with_capacity(headers.values().map(HeaderValue::len).sum());
    for value in headers.values() {
        all.extend_from_slice(value.as_bytes());
    }
    let all = all.freeze();
    let mut at = 0;
    for value in headers.values_mut() {
        let end = at + value.len();
        // What was a value is one.
        if let Ok(mut own) = HeaderValue::from_maybe_shared(all.slice(at..end)) {
            own.set_sensitive(value.is_sensitive());
            *value = own;
        }
        at = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_copied_out_says_the_same_and_leaves_the_buffer_alone() {
        let mut buffer = BytesMut::with_capacity(64 << 10);
        buffer.extend_from_slice(b"secret\xffplain");
        let mut headers = HeaderMap::new();
        let mut secret = HeaderValue::from_maybe_shared(buffer.split_to(7).freeze()).unwrap();
        secret.set_sensitive(true);
        headers.append("x-key", secret);
        headers.append("x-key", HeaderValue::from_maybe_shared(buffer.split().freeze()).unwrap());
        headers.append("x-none", HeaderValue::from_static(""));
        let before = headers.clone();
        own_headers(&mut headers);
        assert_eq!(headers, before);
        assert!(headers["x-key"].is_sensitive());
        drop(before);
        buffer.extend_from_slice(b"{}");
        let body = own_body(buffer.split().freeze());
        assert_eq!(body, "{}");
        assert!(buffer.try_reclaim(60 << 10), "nothing holds the buffer any more");
        let long = Bytes::from(vec![b' '; MAX_COPIED_BYTES + 1]);
        assert_eq!(own_body(long.clone()).as_ptr(), long.as_ptr());
    }
}
