//! What the models of Anthropic take, as far as their names tell: a request that was made for another
//! provider says nothing about it, and a field too many is refused.

/// How a model is told to think.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Thinking {
    /// Not at all, or nothing is known about it.
    None,
    /// With so many tokens.
    Budget,
    /// With so much effort.
    Adaptive,
}

/// The longest answer that is asked for when a request does not say, tokens: Anthropic wants a number.
/// It is one that every model of the age takes; an answer that ends by itself costs no more for it.
pub fn default_max_tokens(model: &str) -> u64 {
    match version(model) {
        Some((3, 7..) | (4.., _)) => 32_000,
        Some((3, 5..)) => 8_192,
        Some(_) => 4_096,
        // A newer way to name them, or a model of somebody else's.
        None if model.contains("claude") => 32_000,
        None => 8_192,
    }
}

/// The longest answer that was asked for, of whichever model, before [`default_max_tokens`].
#[deprecated(note = "`default_max_tokens` says it by model")]
pub const DEFAULT_MAX_TOKENS: u64 = 4_096;

/// How the model thinks.
pub(crate) fn thinking_of(model: &str) -> Thinking {
    match version(model) {
        Some(is) if is >= (4, 6) => Thinking::Adaptive,
        Some(is) if is >= (3, 7) => Thinking::Budget,
        _ => Thinking::None,
    }
}

/// Whether the model refuses to be told how it chooses its words.
pub(crate) fn takes_no_sampling(model: &str) -> bool {
    version(model).is_some_and(|is| is >= (4, 7))
}

/// The version in a name: `claude-3-5-haiku-20241022` is 3.5, `anthropic/claude-opus-4.6` is 4.6,
/// `claude-sonnet-4-20250514` is 4.0.
fn version(model: &str) -> Option<(u64, u64)> {
    let (_, name) = model.split_once("claude-")?;
    let mut numbers = name
        .split(['-', '.', '@', ':'])
        .skip_while(|part| part.parse::<u64>().is_err())
        // A date is no version.
        .map_while(|part| part.parse::<u64>().ok().filter(|_| part.len() <= 2));
    let major = numbers.next()?;
    Some((major, numbers.next().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_what_a_model_takes() {
        use Thinking::{Adaptive, Budget, None as Nothing};
        for (model, is, max_tokens, thinking) in [
            ("claude-3-haiku-20240307", Some((3, 0)), 4_096, Nothing),
            ("claude-3-5-haiku-latest", Some((3, 5)), 8_192, Nothing),
            ("claude-3-7-sonnet-20250219", Some((3, 7)), 32_000, Budget),
            ("claude-sonnet-4-20250514", Some((4, 0)), 32_000, Budget),
            ("claude-opus-4-1@20250805", Some((4, 1)), 32_000, Budget),
            ("anthropic.claude-haiku-4-5-20251001-v1:0", Some((4, 5)), 32_000, Budget),
            ("anthropic/claude-opus-4.6", Some((4, 6)), 32_000, Adaptive),
            ("claude-opus-4-7", Some((4, 7)), 32_000, Adaptive),
            ("claude-sonnet-5", Some((5, 0)), 32_000, Adaptive),
            ("claude-latest", None, 32_000, Nothing),
            ("some-model-4-6", None, 8_192, Nothing),
        ] {
            assert_eq!(version(model), is, "{model}");
            assert_eq!(default_max_tokens(model), max_tokens, "{model}");
            assert_eq!(thinking_of(model), thinking, "{model}");
        }
        assert!(takes_no_sampling("claude-opus-4-7") && !takes_no_sampling("claude-sonnet-4-6"));
    }
}
