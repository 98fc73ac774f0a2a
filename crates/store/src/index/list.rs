//! Rising numbers of traces as bytes: the first, then what each is more than the one before, in LEB128.

use crate::insert::{push_varint, read_varints};

/// Writes numbers that rise, or stay.
pub(super) fn write(traces: impl IntoIterator<Item = i64>) -> Vec<u8> {
    let (mut bytes, mut last) = (Vec::new(), 0_i64);
    for trace in traces {
        push_varint(&mut bytes, trace.wrapping_sub(last) as u64);
        last = trace;
    }
    bytes
}

/// Reads what [`write`] wrote. Of other bytes it makes some numbers.
pub(super) fn read(bytes: &[u8]) -> impl Iterator<Item = i64> {
    let mut last = 0_i64;
    read_varints(bytes).into_iter().map(move |more| {
        last = last.wrapping_add(more);
        last
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(mut traces in proptest::collection::vec(any::<i64>(), 0..20)) {
            traces.sort_unstable();
            let bytes = write(traces.iter().copied());
            prop_assert_eq!(read(&bytes).collect::<Vec<_>>(), traces);
        }
    }
}
