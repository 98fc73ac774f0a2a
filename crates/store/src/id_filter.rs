//! Which traces a segment may have: a Bloom filter, so that a new trace is not looked up in every
//! segment of the past.

use throughline_trace::TraceId;

/// Bits for each trace: about one in a hundred is thought to be there and is not.
const BITS_PER_TRACE: usize = 10;

/// Bits that a trace sets.
const PROBES: u64 = 7;

/// The filter of one segment.
#[derive(Debug)]
pub(crate) struct IdFilter {
    bits: Vec<u8>,
}

impl IdFilter {
    /// An empty filter for this many traces.
    pub(crate) fn for_traces(traces: usize) -> Self {
        Self::with_bits(traces * BITS_PER_TRACE)
    }

    /// An empty filter of so many bits.
    pub(crate) fn with_bits(bits: usize) -> Self {
        Self { bits: vec![0; bits.div_ceil(8).max(8)] }
    }

    /// The filter that [`IdFilter::as_bytes`] gave.
    pub(crate) fn from_bytes(bits: Vec<u8>) -> Option<Self> {
        (!bits.is_empty()).then_some(Self { bits })
    }

    /// The form that is stored.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bits
    }

    /// Remembers a trace.
    pub(crate) fn insert(&mut self, id: TraceId) {
        for (byte, bit) in places(id, self.bits.len()) {
            self.bits[byte] |= bit;
        }
    }

    /// Whether the trace may be there; `false` is certain.
    pub(crate) fn may_contain(&self, id: TraceId) -> bool {
        places(id, self.bits.len()).all(|(byte, bit)| self.bits[byte] & bit != 0)
    }
}

/// The bits of a trace. Ids may be anything, so they are mixed first (the finaliser of MurmurHash3).
fn places(id: TraceId, bytes: usize) -> impl Iterator<Item = (usize, u8)> {
    let mix = |mut x: u64| {
        x = (x ^ (x >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        x = (x ^ (x >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        x ^ (x >> 33)
    };
    let number = u128::from_be_bytes(*id.as_bytes());
    let low = mix(number as u64);
    let high = mix((number >> 64) as u64 ^ low);
    let step = mix(low ^ high) | 1;
    let bits = bytes as u64 * 8;
    (0..PROBES).map(move |probe| {
        let place = high.wrapping_add(probe.wrapping_mul(step)) % bits;
        ((place / 8) as usize, 1 << (place % 8))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_inserted_is_denied_and_little_else_is_affirmed() {
        let mut filter = IdFilter::for_traces(2_000);
        (0..2_000).for_each(|n| filter.insert(TraceId::from_u128(n * 3 + 1)));
        let filter = IdFilter::from_bytes(filter.as_bytes().to_vec()).unwrap();
        assert!((0..2_000).all(|n| filter.may_contain(TraceId::from_u128(n * 3 + 1))));
        let wrong =
            (0..2_000).filter(|n| filter.may_contain(TraceId::from_u128(n * 3 + 2))).count();
        assert!(wrong < 60, "{wrong} of 2000");
    }
}
