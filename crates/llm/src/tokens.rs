//! Counts of tokens, for calls whose provider tells none. Whoever records one marks it as estimated
//! and says how it was made.
//!
//! With the feature `tokenizer` the models of OpenAI are counted by their own tokenizer, once
//! [`load`] has read it (some tenths of a second and 50 to 100 MB of memory, so it is read only when
//! it is needed, and never where a caller waits on it unasked). A count looks at
//! [`EXACT_BYTES`] at most and scales up from there, so that it takes milliseconds at worst.
//! Everything else is a quarter of the bytes.

use crate::chat::{Choice, Tool};
use crate::embedding::EmbeddingInput;
use crate::message::{FinishReason, Message, Part};

/// Bytes of text that are counted one by one; what is longer is scaled up from them.
pub const EXACT_BYTES: usize = 64 * 1024;

/// Bytes of text that one token stands for on average in English.
const BYTES_PER_TOKEN: u64 = 4;

/// Tokens that OpenAI's chat form adds to each message of a prompt, and to the prompt as a whole.
const FRAME_TOKENS: u64 = 3;

/// How tokens were counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CountMethod {
    /// By the model's own tokenizer.
    Tokenizer,
    /// A token for every four bytes.
    Bytes,
}

impl CountMethod {
    /// The value of `throughline.usage.method`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tokenizer => "tokenizer",
            Self::Bytes => "bytes",
        }
    }
}

/// A count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenCount {
    /// The tokens.
    pub tokens: u64,
    /// How they were counted.
    pub method: CountMethod,
}

/// Counts the tokens of a text.
pub fn count_text(model: &str, text: &str) -> TokenCount {
    count_texts(model, std::iter::once(text), 0)
}

/// Counts the tokens of a prompt: its messages and the tools that it offers. Images and sounds are
/// not counted.
pub fn count_prompt(model: &str, messages: &[Message], tools: &[Tool]) -> TokenCount {
    let frames = FRAME_TOKENS * (messages.len() as u64 + 1);
    let mut texts = texts_of(messages.iter());
    for tool in tools {
        texts.push(tool.name.clone().into());
        texts.push(tool.description.as_str().into());
        texts.push(tool.parameters.to_string().into());
    }
    count_texts(model, texts.iter().map(AsRef::as_ref), frames)
}

/// Counts the tokens of inputs to be embedded; those that are in tokens already have so many.
pub fn count_inputs(model: &str, inputs: &[EmbeddingInput]) -> TokenCount {
    let given = inputs.iter().map(|input| match input {
        EmbeddingInput::Tokens(tokens) => tokens.len() as u64,
        EmbeddingInput::Text(_) => 0,
    });
    let given: u64 = given.sum();
    let texts = inputs.iter().filter_map(|input| match input {
        EmbeddingInput::Text(text) => Some(text.as_str()),
        EmbeddingInput::Tokens(_) => None,
    });
    let counted = count_texts(model, texts, 0);
    TokenCount { tokens: counted.tokens + given, ..counted }
}

/// Counts the tokens of what a model answered. What a provider withheld is not counted.
pub fn count_answer(model: &str, choices: &[Choice]) -> TokenCount {
    let told = choices.iter().filter(|c| c.finish_reason != FinishReason::ContentFilter);
    let texts = texts_of(told.map(|choice| &choice.message));
    count_texts(model, texts.iter().map(AsRef::as_ref), 0)
}

/// Reads the tokenizer of a model, if it has one that we know and that has not been read. Blocks for
/// some tenths of a second: call it where nobody waits. Whether the model has one by now.
pub fn load(model: &str) -> bool {
    tokenizer::load(model)
}

/// Whether a model has a tokenizer that we know, read or not.
pub fn has_tokenizer(model: &str) -> bool {
    tokenizer::is_known(model)
}

/// Whether the tokenizer of a model could be read and has not been.
pub fn is_loadable(model: &str) -> bool {
    tokenizer::is_loadable(model)
}

fn texts_of<'a>(messages: impl Iterator<Item = &'a Message>) -> Vec<std::borrow::Cow<'a, str>> {
    let mut texts = Vec::new();
    for part in messages.flat_map(|message| &message.parts) {
        match part {
            Part::Text(text) | Part::Reasoning(text) | Part::Refusal(text) => {
                texts.push(text.as_str().into());
            }
            Part::ToolCall(call) => {
                texts.push(call.name.as_str().into());
                texts.push(call.arguments.as_str().into());
            }
            Part::ToolResult(result) => texts.push(match result.result.as_str() {
                Some(text) => text.into(),
                None => result.result.to_string().into(),
            }),
            Part::Media(_) | Part::Other(_) => {}
        }
    }
    texts
}

/// Counts texts. `frames` are added only to exact counts: the quarter of the bytes is rough anyway.
fn count_texts<'a>(
    model: &str,
    texts: impl Iterator<Item = &'a str> + Clone,
    frames: u64,
) -> TokenCount {
    let by_bytes = |texts: &mut dyn Iterator<Item = &'a str>| {
        texts.map(|text| (text.len() as u64).div_ceil(BYTES_PER_TOKEN)).sum()
    };
    match tokenizer::count(model, texts.clone()) {
        Some(tokens) => TokenCount { tokens: tokens + frames, method: CountMethod::Tokenizer },
        None => TokenCount { tokens: by_bytes(&mut texts.into_iter()), method: CountMethod::Bytes },
    }
}

#[cfg(not(feature = "tokenizer"))]
mod tokenizer {
    pub(super) fn load(_: &str) -> bool {
        false
    }

    pub(super) fn is_known(_: &str) -> bool {
        false
    }

    pub(super) fn is_loadable(_: &str) -> bool {
        false
    }

    pub(super) fn count<'a>(_: &str, _: impl Iterator<Item = &'a str>) -> Option<u64> {
        None
    }
}

#[cfg(feature = "tokenizer")]
mod tokenizer {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::OnceLock;

    use tiktoken_rs::CoreBPE;
    use tiktoken_rs::tokenizer::Tokenizer;

    use super::EXACT_BYTES;

    /// Longest piece that is given to the tokenizer at once, bytes: a text without a space would
    /// otherwise take time that grows with the square of its length.
    const PIECE_BYTES: usize = 1_024;

    type Slot = OnceLock<Option<CoreBPE>>;

    static O200K: Slot = OnceLock::new();
    static CL100K: Slot = OnceLock::new();

    type Load = fn() -> Option<CoreBPE>;

    /// The tokenizer that a model counts with, as providers, gateways and clouds spell the model.
    fn slot_of(model: &str) -> Option<(&'static Slot, Load)> {
        let lowercase = model.trim().to_ascii_lowercase();
        let name = crate::prices::bare_name(&lowercase);
        let known = tiktoken_rs::tokenizer::get_tokenizer(name);
        // Models that are newer than the tokenizer's list keep the encoding of their family.
        let is_newer = ["gpt-", "o"].into_iter().any(|family| {
            let generation = name.strip_prefix(family).and_then(|rest| rest.chars().next());
            generation.is_some_and(|c| matches!(c, '4'..='9'))
        });
        match known {
            Some(Tokenizer::Cl100kBase) => Some((&CL100K, || tiktoken_rs::cl100k_base().ok())),
            Some(Tokenizer::O200kBase | Tokenizer::O200kHarmony) => {
                Some((&O200K, || tiktoken_rs::o200k_base().ok()))
            }
            None if is_newer => Some((&O200K, || tiktoken_rs::o200k_base().ok())),
            _ => None,
        }
    }

    pub(super) fn load(model: &str) -> bool {
        slot_of(model).is_some_and(|(slot, read)| slot.get_or_init(read).is_some())
    }

    pub(super) fn is_known(model: &str) -> bool {
        slot_of(model).is_some()
    }

    pub(super) fn is_loadable(model: &str) -> bool {
        slot_of(model).is_some_and(|(slot, _)| slot.get().is_none())
    }

    pub(super) fn count<'a>(model: &str, texts: impl Iterator<Item = &'a str>) -> Option<u64> {
        let bpe = slot_of(model)?.0.get()?.as_ref()?;
        let (mut counted_bytes, mut tokens, mut left_bytes) = (0usize, 0u64, 0usize);
        for text in texts {
            let end = text.floor_char_boundary(EXACT_BYTES - counted_bytes);
            let (exact, rest) = text.split_at(end);
            for piece in pieces(exact) {
                // The tokenizer panics where its expression engine gives up.
                let count = catch_unwind(AssertUnwindSafe(|| bpe.count_ordinary(piece))).ok()?;
                tokens += count as u64;
            }
            counted_bytes += exact.len();
            left_bytes += rest.len();
        }
        if left_bytes > 0 && counted_bytes > 0 {
            let scaled = u128::from(tokens) * left_bytes as u128 / counted_bytes as u128;
            tokens = tokens.saturating_add(u64::try_from(scaled).unwrap_or(u64::MAX));
        }
        Some(tokens)
    }

    /// A text in pieces, cut before a space where there is one.
    fn pieces(mut text: &str) -> impl Iterator<Item = &str> {
        std::iter::from_fn(move || {
            if text.is_empty() {
                return None;
            }
            let limit = text.floor_char_boundary(PIECE_BYTES);
            let end = match text[..limit].rfind(' ') {
                _ if limit == text.len() => limit,
                Some(space) if space > 0 => space,
                _ => limit,
            };
            let (piece, rest) = text.split_at(end);
            text = rest;
            Some(piece)
        })
    }

    #[cfg(test)]
    mod tests {
        use super::super::*;

        #[test]
        fn r3_1_tokens_are_counted_by_the_models_own_tokenizer() {
            assert!(load("gpt-4o") && load("openai/gpt-4-0613") && !load("claude-sonnet-4-5"));
            assert!(!is_loadable("gpt-4o") && !is_loadable("llama-3"));
            let count = |model: &str, text: &str| count_text(model, text);
            let exact = |tokens| TokenCount { tokens, method: CountMethod::Tokenizer };
            // Figures of OpenAI's own tokenizer page.
            assert_eq!(count("gpt-4o-2024-08-06", "tiktoken is great!"), exact(6));
            assert_eq!(count("gpt-4", "tiktoken is great!"), exact(6));
            assert_eq!(count("gpt-4", "お誕生日おめでとう"), exact(9));
            assert_eq!(count("gpt-6.1-terra", "hello world"), exact(2));
            assert_eq!(count("claude-sonnet-4-5", "hello").method, CountMethod::Bytes);
            // One user message: three tokens of frame, three of the reply's, the role is counted in.
            let prompt = count_prompt("gpt-4o", &[Message::user("hello world")], &[]);
            assert_eq!(prompt, exact(8));
        }

        #[test]
        fn a_long_text_is_scaled_up_and_takes_no_long_time() {
            assert!(load("gpt-4o"));
            let words = "the quick brown fox jumps over the lazy dog ".repeat(6_000);
            let per_line = count_text("gpt-4o", "the quick brown fox jumps over the lazy dog ");
            let counted = count_text("gpt-4o", &words).tokens;
            let expected = 6_000 * (per_line.tokens - 1);
            assert!(
                counted.abs_diff(expected) * 50 < expected,
                "{counted} is not about {expected}"
            );
            let began = std::time::Instant::now();
            for hard in [" ".repeat(1 << 17), "a".repeat(1 << 17), "é\u{301}".repeat(1 << 15)] {
                assert!(count_text("gpt-4o", &hard).tokens > 0);
            }
            assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_without_a_tokenizer_are_counted_by_bytes() {
        let count = count_text("llama-3", "hello world");
        assert_eq!(count, TokenCount { tokens: 3, method: CountMethod::Bytes });
        let prompt = count_prompt("llama-3", &[Message::user("12345678")], &[]);
        assert_eq!(prompt.tokens, 2);
        assert_eq!(prompt.method.as_str(), "bytes");
        let withheld = Choice {
            message: Message::assistant("12345678"),
            finish_reason: FinishReason::ContentFilter,
        };
        assert_eq!(count_answer("llama-3", &[withheld]).tokens, 0);
    }
}
