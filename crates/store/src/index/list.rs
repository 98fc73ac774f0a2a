//! Rising numbers of traces as bytes, in LEB128: the first, doubled, and one more if others follow; then the
//! length of what follows, and what each is more than the one before.

use crate::insert::{push_varint, read_varints, take_varint};

/// Writes numbers that rise, or stay; none of them is below zero. Without any it writes nothing.
pub(super) fn write_into(out: &mut Vec<u8>, traces: &[i64]) {
    let Some((first, rest)) = traces.split_first() else { return };
    push_varint(out, (*first as u64) << 1 | u64::from(!rest.is_empty()));
    if rest.is_empty() {
        return;
    }
    let (mut bytes, mut last) = (Vec::with_capacity(rest.len() * 2), *first);
    for trace in rest {
        push_varint(&mut bytes, trace.wrapping_sub(last) as u64);
        last = *trace;
    }
    push_varint(out, bytes.len() as u64);
    out.extend_from_slice(&bytes);
}

/// Takes a list off, still as bytes; `None` where there is none, or not all of one.
pub(super) fn take<'b>(bytes: &mut &'b [u8]) -> Option<&'b [u8]> {
    let whole = *bytes;
    if take_varint(bytes)? & 1 == 1 {
        let more = usize::try_from(take_varint(bytes)?).ok()?;
        *bytes = bytes.get(more..)?;
    }
    whole.get(..whole.len() - bytes.len())
}

/// Adds the numbers that [`write_into`] wrote. Of other bytes it makes some numbers.
pub(super) fn read_into(found: &mut Vec<i64>, mut list: &[u8]) {
    let Some(first) = take_varint(&mut list) else { return };
    let mut last = (first >> 1) as i64;
    found.push(last);
    if first & 1 == 0 || take_varint(&mut list).is_none() {
        return;
    }
    found.extend(read_varints(list).into_iter().map(|more| {
        last = last.wrapping_add(more);
        last
    }));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(
            mut lists in proptest::collection::vec(
                proptest::collection::vec(0..i64::MAX >> 1, 1..20), 1..5,
            ),
        ) {
            let mut bytes = Vec::new();
            for list in &mut lists {
                list.sort_unstable();
                write_into(&mut bytes, list);
            }
            let mut rest = bytes.as_slice();
            for list in &lists {
                let mut found = Vec::new();
                read_into(&mut found, take(&mut rest).unwrap());
                prop_assert_eq!(&found, list);
            }
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn other_bytes_are_taken_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut rest = bytes.as_slice();
            while let Some(list) = take(&mut rest) {
                read_into(&mut Vec::new(), list);
            }
        }
    }
}
