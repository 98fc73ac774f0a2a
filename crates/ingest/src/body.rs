//! Bodies, read and unfolded without ever holding more than the limit.

use std::io::Read;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::time::Instant;

use crate::allowance::Reservation;
use crate::failure::Failure;

/// First step in which an unfolded body grows, bytes; each later one doubles it.
const FIRST_STEP_BYTES: usize = 64 * 1024;

/// How much room is made for what a client says is still to come, bytes: it may never come.
const MAX_TRUSTED_BYTES: usize = 1024 * 1024;

/// How long a request that is refused early may go on sending its body, in all.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    Identity,
    Gzip,
    Zstd,
}

impl Compression {
    /// The compression that a header names.
    pub(crate) fn of_header(name: Option<&http::HeaderValue>) -> Result<Self, Failure> {
        let Some(name) = name else { return Ok(Self::Identity) };
        let text = name.to_str().unwrap_or_default().trim();
        match text.to_ascii_lowercase().as_str() {
            "" | "identity" => Ok(Self::Identity),
            "gzip" | "x-gzip" => Ok(Self::Gzip),
            "zstd" => Ok(Self::Zstd),
            _ => Err(Failure::Compression(text.to_owned())),
        }
    }
}

/// What bounds a body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) limit_bytes: usize,
    pub(crate) idle_timeout: Duration,
    pub(crate) timeout: Duration,
    pub(crate) busy_retry_after: Duration,
}

impl Bounds {
    fn too_large(&self) -> Failure {
        Failure::TooLarge { limit_bytes: self.limit_bytes }
    }

    fn stalled(&self, is_idle: bool) -> Failure {
        if is_idle {
            let secs = self.idle_timeout.as_secs();
            return Failure::Stalled { expected: "the rest of the body", got: "nothing", secs };
        }
        let secs = self.timeout.as_secs();
        Failure::Stalled { expected: "the whole body", got: "a part of it", secs }
    }

    fn take(&self, reservation: &mut Reservation, bytes: usize) -> Result<(), Failure> {
        reservation.grow(bytes).map_err(|_| Failure::Busy(self.busy_retry_after))
    }
}

/// Reads a body as it comes; `frame_bytes` more than the limit is for what wraps it.
pub(crate) async fn read(
    body: &mut Body,
    bounds: Bounds,
    frame_bytes: usize,
    reservation: &mut Reservation,
) -> Result<Bytes, Failure> {
    let limit = bounds.limit_bytes.saturating_add(frame_bytes);
    if body.size_hint().lower() > limit as u64 {
        return Err(bounds.too_large());
    }
    let deadline = Instant::now() + bounds.timeout;
    let mut whole = Bytes::new();
    let mut joined = BytesMut::new();
    loop {
        let idle_until = Instant::now() + bounds.idle_timeout;
        let frame = tokio::time::timeout_at(idle_until.min(deadline), body.frame())
            .await
            .map_err(|_| bounds.stalled(idle_until <= deadline))?;
        let Some(frame) = frame else { break };
        // A body that comes byte by byte is never late with the next one, only as a whole.
        if Instant::now() > deadline {
            return Err(bounds.stalled(false));
        }
        // Trailers of a request say nothing here.
        let Ok(data) = frame.map_err(|_| Failure::Broken)?.into_data() else { continue };
        let so_far = whole.len() + joined.len();
        if so_far.saturating_add(data.len()) > limit {
            return Err(bounds.too_large());
        }
        bounds.take(reservation, data.len())?;
        // A body that comes in one piece, as most do, is not copied.
        if so_far == 0 {
            whole = data;
            continue;
        }
        if joined.is_empty() {
            let expected = usize::try_from(body.size_hint().lower()).unwrap_or(0);
            joined.reserve(so_far + data.len() + expected.min(MAX_TRUSTED_BYTES));
            joined.extend_from_slice(&std::mem::take(&mut whole));
        }
        joined.extend_from_slice(&data);
    }
    Ok(if joined.is_empty() { whole } else { joined.freeze() })
}

/// Unfolds a body that was read.
pub(crate) fn unfold(
    compression: Compression,
    wire: Bytes,
    bounds: Bounds,
    reservation: &mut Reservation,
) -> Result<Bytes, Failure> {
    let malformed = |name: &str, error: &std::io::Error| {
        Failure::Malformed(format!("expected a body compressed with {name}: {error}"))
    };
    let unfolded = match compression {
        Compression::Identity => return Ok(wire),
        Compression::Gzip => {
            let source = flate2::bufread::MultiGzDecoder::new(&*wire);
            read_capped(source, bounds, reservation)?.map_err(|error| malformed("gzip", &error))?
        }
        Compression::Zstd => {
            let mut source = zstd::stream::read::Decoder::with_buffer(&*wire)
                .map_err(|error| malformed("zstd", &error))?;
            source
                .window_log_max(window_log(bounds.limit_bytes))
                .map_err(|error| malformed("zstd", &error))?;
            read_capped(source, bounds, reservation)?.map_err(|error| malformed("zstd", &error))?
        }
    };
    reservation.shrink(wire.len());
    Ok(Bytes::from(unfolded))
}

/// As [`unfold`], of a body that may well be larger than `bounds` allow: `None` then, or when anything
/// else is wrong with it, and nothing is taken for it.
pub(crate) fn try_unfold(
    compression: Compression,
    wire: &Bytes,
    bounds: Bounds,
    reservation: &mut Reservation,
) -> Option<Bytes> {
    let before = reservation.bytes();
    let unfolded = unfold(compression, wire.clone(), bounds, reservation).ok();
    if unfolded.is_none() {
        reservation.shrink(reservation.bytes().saturating_sub(before));
    }
    unfolded
}

/// Reads `source` to its end, never holding more than one byte beyond the limit. The outer error
/// is ours, the inner one the decompressor's.
fn read_capped(
    mut source: impl Read,
    bounds: Bounds,
    reservation: &mut Reservation,
) -> Result<std::io::Result<Vec<u8>>, Failure> {
    let mut out = Vec::new();
    loop {
        let room = bounds.limit_bytes.saturating_add(1) - out.len();
        let step = out.len().max(FIRST_STEP_BYTES).min(room);
        bounds.take(reservation, step)?;
        out.reserve_exact(step);
        match source.by_ref().take(step as u64).read_to_end(&mut out) {
            Err(error) => return Ok(Err(error)),
            Ok(_) if out.len() > bounds.limit_bytes => return Err(bounds.too_large()),
            Ok(read) if read < step => {
                reservation.shrink(step - read);
                return Ok(Ok(out));
            }
            Ok(_) => {}
        }
    }
}

/// Largest window that a zstd frame may ask for, as a power of two: no larger than a body may be,
/// since a frame that knows its size asks for a window of that size.
fn window_log(limit_bytes: usize) -> u32 {
    /// 8 MiB, which RFC 8878 asks every decoder to support, and zstd's own default limit, 128 MiB.
    const RANGE: (u32, u32) = (23, 27);
    let log = limit_bytes.checked_next_power_of_two().map_or(RANGE.1, usize::trailing_zeros);
    log.clamp(RANGE.0, RANGE.1)
}

/// Lets a client finish sending what is not wanted, within bounds: with HTTP/1 it reads the answer
/// only then, and a connection closed before is a broken pipe to it instead of an answer.
pub(crate) async fn drain(body: &mut Body, limit_bytes: usize) {
    let drained = async {
        let mut left = limit_bytes;
        while let Some(Ok(frame)) = body.frame().await {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            match left.checked_sub(bytes) {
                Some(rest) => left = rest,
                None => break,
            }
        }
    };
    // Whoever is slower than that gets the answer if he looks for it.
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, drained).await;
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::Arc;

    use super::*;
    use crate::allowance::MemoryGate;

    const KIB: usize = 1024;

    fn folded(compression: Compression, bytes: &[u8]) -> Bytes {
        match compression {
            Compression::Identity => Bytes::copy_from_slice(bytes),
            Compression::Gzip => {
                let mut gzip = flate2::write::GzEncoder::new(Vec::new(), Default::default());
                gzip.write_all(bytes).unwrap();
                gzip.finish().unwrap().into()
            }
            Compression::Zstd => zstd::encode_all(bytes, 3).unwrap().into(),
        }
    }

    #[test]
    fn what_unfolds_to_much_is_given_up_and_costs_nothing() {
        let bounds = Bounds {
            limit_bytes: 256 * KIB,
            idle_timeout: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            busy_retry_after: Duration::from_secs(1),
        };
        let gate = Arc::new(MemoryGate::new(64 * KIB * KIB, Default::default()));
        for compression in [Compression::Gzip, Compression::Zstd] {
            let small = vec![7; 200 * KIB];
            let wire = folded(compression, &small);
            let mut reservation = gate.reserve();
            reservation.grow(wire.len()).unwrap();
            let body = try_unfold(compression, &wire, bounds, &mut reservation).unwrap();
            assert_eq!(body, small);
            assert_eq!(reservation.bytes(), small.len());

            let bomb = folded(compression, &vec![0; 8 * KIB * KIB]);
            assert!(bomb.len() <= 16 * KIB, "{}", bomb.len());
            for wire in [bomb.clone(), bomb.slice(..bomb.len() / 2), Bytes::from_static(b"no")] {
                let mut reservation = gate.reserve();
                reservation.grow(wire.len()).unwrap();
                assert_eq!(try_unfold(compression, &wire, bounds, &mut reservation), None);
                assert_eq!(reservation.bytes(), wire.len());
            }
        }
    }
}
