//! Tokens in disjoint buckets, so that each is billed once.

use throughline_trace::Usage;

/// The tokens of a call, each in one bucket. The buckets of a report add up to its totals, whatever
/// the provider said: details are taken from what is left of the total, in the order of the fields.
///
/// ```
/// use throughline_llm::UsageBuckets;
/// # use throughline_trace::Usage;
/// let usage = Usage {
///     input_tokens: 1_000, cache_read_tokens: 400, output_tokens: 100, reasoning_tokens: 20,
///     ..Usage::default()
/// };
/// let buckets = UsageBuckets::of(usage);
/// assert_eq!((buckets.input, buckets.cache_read), (600, 400));
/// assert_eq!((buckets.output, buckets.reasoning), (80, 20));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UsageBuckets {
    /// Tokens in that were read from a cache.
    pub cache_read: u64,
    /// Tokens in that were written to a cache, for the shortest time on offer.
    pub cache_write: u64,
    /// Tokens in that were written to a cache for an hour.
    pub cache_write_1h: u64,
    /// Tokens in of sound, not cached.
    pub audio_input: u64,
    /// Tokens in of images, not cached.
    pub image_input: u64,
    /// All other tokens in: text, not cached.
    pub input: u64,
    /// Tokens out spent on reasoning.
    pub reasoning: u64,
    /// Tokens out of sound.
    pub audio_output: u64,
    /// Tokens out of images.
    pub image_output: u64,
    /// All other tokens out: text.
    pub output: u64,
}

impl UsageBuckets {
    /// The buckets of a report whose details are parts of its totals ([`with_subsets`]).
    pub fn of(usage: Usage) -> Self {
        let (mut input, mut output) = (usage.input_tokens, usage.output_tokens);
        let cache_read = take(&mut input, usage.cache_read_tokens);
        let mut written = take(&mut input, usage.cache_write_tokens);
        Self {
            cache_read,
            cache_write_1h: take(&mut written, usage.cache_write_1h_tokens),
            cache_write: written,
            audio_input: take(&mut input, usage.audio_input_tokens),
            image_input: take(&mut input, usage.image_input_tokens),
            input,
            reasoning: take(&mut output, usage.reasoning_tokens),
            audio_output: take(&mut output, usage.audio_output_tokens),
            image_output: take(&mut output, usage.image_output_tokens),
            output,
        }
    }

    /// All tokens in.
    pub fn input_total(self) -> u64 {
        let cached = self.cache_read + self.cache_write + self.cache_write_1h;
        cached + self.audio_input + self.image_input + self.input
    }

    /// All tokens out.
    pub fn output_total(self) -> u64 {
        self.reasoning + self.audio_output + self.image_output + self.output
    }
}

/// Takes at most `wanted` of what is left.
fn take(left: &mut u64, wanted: u64) -> u64 {
    let taken = wanted.min(*left);
    *left -= taken;
    taken
}

/// A report as our invariant has it. One whose cached tokens exceed its tokens in, or whose
/// reasoning tokens exceed its tokens out, comes from a source that counts them beside the others
/// (Anthropic's own form does); then they are added to the total.
pub fn with_subsets(usage: Usage) -> Usage {
    let cached = usage.cache_read_tokens.saturating_add(usage.cache_write_tokens);
    let mut usage = usage;
    if cached > usage.input_tokens {
        usage.input_tokens = usage.input_tokens.saturating_add(cached);
    }
    if usage.reasoning_tokens > usage.output_tokens {
        usage.output_tokens = usage.output_tokens.saturating_add(usage.reasoning_tokens);
    }
    usage
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_usage() -> impl Strategy<Value = Usage> {
        let number = prop_oneof![0u64..2_000, Just(u64::MAX), any::<u64>()];
        proptest::collection::vec(number, 10).prop_map(|n| Usage {
            input_tokens: n[0],
            output_tokens: n[1],
            cache_read_tokens: n[2],
            cache_write_tokens: n[3],
            reasoning_tokens: n[4],
            audio_input_tokens: n[5],
            image_input_tokens: n[6],
            audio_output_tokens: n[7],
            image_output_tokens: n[8],
            cache_write_1h_tokens: n[9],
        })
    }

    proptest! {
        /// R3.1: cost is never counted twice, because no token is in two buckets.
        #[test]
        fn r3_1_buckets_add_up_to_the_totals_whatever_the_provider_says(usage in any_usage()) {
            let buckets = UsageBuckets::of(usage);
            prop_assert_eq!(buckets.input_total(), usage.input_tokens);
            prop_assert_eq!(buckets.output_total(), usage.output_tokens);
            let mended = with_subsets(usage);
            let buckets = UsageBuckets::of(mended);
            prop_assert_eq!(buckets.input_total(), mended.input_tokens);
            prop_assert_eq!(buckets.output_total(), mended.output_tokens);
            prop_assert!(mended.input_tokens >= usage.input_tokens);
        }
    }
}
