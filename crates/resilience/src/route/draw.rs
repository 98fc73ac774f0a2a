//! Draws: sticky ones, which move as few sessions as possible when weights change, and random ones.

/// A hash that is the same on every machine and in every version: FNV-1a, stirred so that texts
/// that differ little differ everywhere.
fn stable_hash(parts: [&str; 2]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        // A byte that no UTF-8 text has keeps ("ab", "c") and ("a", "bc") apart.
        for byte in part.bytes().chain([0xFF]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    stirred(hash)
}

fn stirred(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// A number above 0 and below 1.
fn unit(value: u64) -> f64 {
    ((value >> 11) as f64 + 0.5) / (1u64 << 53) as f64
}

/// Where a key falls between 0 and 1, the same on every machine: below 0.1 for one key in ten. The
/// salt keeps experiments apart.
pub fn bucket(salt: &str, key: &str) -> f64 {
    unit(stable_hash([salt, key]))
}

/// The position of the target that a key belongs to, by weighted rendezvous: the key has a score at
/// every target, and the highest wins. Another weight changes the score at that target only, so
/// that only sessions that come to it or leave it move. `None` without targets.
pub fn sticky<'a>(key: &str, targets: impl IntoIterator<Item = (&'a str, f64)>) -> Option<usize> {
    let score = |(name, weight): (&str, f64)| {
        if weight > 0.0 { -weight / bucket(name, key).ln() } else { 0.0 }
    };
    let scores = targets.into_iter().map(score).enumerate();
    scores.reduce(|best, next| if next.1 > best.1 { next } else { best }).map(|(at, _)| at)
}

/// The position of a target drawn in proportion to the weights. `None` without targets.
pub fn drawn<'a>(random: u64, targets: impl IntoIterator<Item = (&'a str, f64)>) -> Option<usize> {
    let weights: Vec<f64> = targets.into_iter().map(|(_, weight)| weight.max(0.0)).collect();
    let mut left = unit(stirred(random)) * weights.iter().sum::<f64>();
    let mut last = None;
    for (at, weight) in weights.iter().enumerate() {
        if *weight > 0.0 || last.is_none() {
            last = Some(at);
        }
        if left < *weight {
            return Some(at);
        }
        left -= weight;
    }
    last
}

/// Two different ones of these, or the only one twice.
pub(super) fn two(open: &[usize], random: u64) -> Option<(usize, usize)> {
    let count = open.len();
    let first = (random % count.max(1) as u64) as usize;
    if count < 2 {
        return open.first().map(|only| (*only, *only));
    }
    let step = 1 + ((random >> 16) % (count as u64 - 1)) as usize;
    Some((open[first], open[(first + step) % count]))
}

/// The one with the least of something; the first of equals.
pub(super) fn best(open: &[usize], of: impl Fn(usize) -> f64) -> Option<usize> {
    open.iter().copied().reduce(|best, next| if of(next) < of(best) { next } else { best })
}
