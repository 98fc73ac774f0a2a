//! What a call costs: a versioned table of list prices, and the sum over disjoint buckets of tokens.
//!
//! The table is data (`prices.json` beside the sources). A deployment with its own rates loads
//! another one with [`PriceTable::from_json`]. A model that the table does not know has no cost:
//! an absent figure is honest, a guessed one is not.

use std::sync::LazyLock;

use serde::Deserialize;
use throughline_trace::Usage;

/// Tokens that one price stands for.
const TOKENS_PER_PRICE: f64 = 1_000_000.0;

static BUILTIN: LazyLock<PriceTable> = LazyLock::new(|| {
    // A test reads the file, so that a release cannot carry one that does not parse.
    PriceTable::from_json(include_str!("../prices.json")).unwrap_or_default()
});

/// Cost of `usage` with `model` by the built-in table, US dollars; `None` for an unknown model.
pub fn cost_usd(model: &str, usage: Usage) -> Option<f64> {
    PriceTable::builtin().cost_usd(model, usage)
}

/// Version of the built-in table, for `throughline.price_version`.
pub fn version() -> &'static str {
    PriceTable::builtin().version()
}

/// Why a text is no price table.
#[derive(Debug, thiserror::Error)]
pub enum PriceError {
    /// The JSON does not have the shape of `prices.json`.
    #[error("expected a price table with `version` and `models`, got JSON that does not fit: {0}")]
    Json(#[from] serde_json::Error),
    /// A price is negative or not a number.
    #[error("expected prices that are not negative, got one for the model {model:?} that is")]
    Negative {
        /// The model whose price it is.
        model: String,
    },
}

/// List prices of models.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct PriceTable {
    version: String,
    models: Vec<ModelPrice>,
}

/// List prices of one model, US dollars per million tokens.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ModelPrice {
    /// Name without version or date (`gpt-4o`).
    pub name: String,
    /// Who sells it (`openai`).
    #[serde(default)]
    pub provider: String,
    /// What a short prompt costs.
    #[serde(flatten)]
    pub rates: Rates,
    /// What the whole call costs when its prompt is long, where the provider asks more for it.
    #[serde(default)]
    pub long_prompt: Option<LongPrompt>,
}

/// Prices of the disjoint buckets of tokens, US dollars per million.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct Rates {
    /// Tokens in that were neither read from a cache nor written to one.
    pub input: f64,
    /// Tokens in that were read from a cache; as `input` when the provider has no such price.
    #[serde(default)]
    pub cached_input: Option<f64>,
    /// Tokens in that were written to a cache (the shortest life on offer); else as `input`.
    #[serde(default)]
    pub cache_write: Option<f64>,
    /// Tokens out, reasoning included.
    pub output: f64,
}

/// Prices that hold for a whole call once its prompt is longer than a limit.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct LongPrompt {
    /// The prices hold above this many tokens in.
    pub above_input_tokens: u64,
    /// The prices.
    #[serde(flatten)]
    pub rates: Rates,
}

impl PriceTable {
    /// The table that this version of Throughline carries.
    pub fn builtin() -> &'static Self {
        &BUILTIN
    }

    /// Reads a table of the shape of `prices.json`.
    ///
    /// # Errors
    /// [`PriceError`] when the JSON does not fit or a price is negative.
    pub fn from_json(text: &str) -> Result<Self, PriceError> {
        let table: Self = serde_json::from_str(text)?;
        for model in &table.models {
            let long = model.long_prompt.map(|long| long.rates);
            let is_sound = |rates: Rates| {
                let all =
                    [Some(rates.input), rates.cached_input, rates.cache_write, Some(rates.output)];
                all.into_iter().flatten().all(|price| price.is_finite() && price >= 0.0)
            };
            if !is_sound(model.rates) || !long.is_none_or(is_sound) {
                return Err(PriceError::Negative { model: model.name.clone() });
            }
        }
        Ok(table)
    }

    /// Which edition of the prices this is (a date).
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The models, in the order of the file.
    pub fn models(&self) -> &[ModelPrice] {
        &self.models
    }

    /// The prices of a model as a provider, gateway or cloud spells it: `gpt-4o`,
    /// `gpt-4o-2024-08-06`, `openai/gpt-4o`, `us.anthropic.claude-sonnet-4-5-20250929-v1:0`.
    /// The longest known name whose remainder is only a version or a date wins, so that `gpt-4o`
    /// never answers for `gpt-4o-mini`.
    pub fn price(&self, model: &str) -> Option<&ModelPrice> {
        let lowercase = model.trim().to_ascii_lowercase();
        let bare = bare_name(&lowercase);
        self.models
            .iter()
            .filter(|price| bare.strip_prefix(price.name.as_str()).is_some_and(is_version_tail))
            .max_by_key(|price| price.name.len())
    }

    /// Cost of `usage` with `model`, US dollars; `None` for an unknown model.
    pub fn cost_usd(&self, model: &str, usage: Usage) -> Option<f64> {
        self.price(model).map(|price| price.cost_usd(usage))
    }
}

impl ModelPrice {
    /// Cost of `usage`, US dollars. Every token is billed in exactly one bucket: the cached ones
    /// are a part of the tokens in, the reasoning ones a part of the tokens out.
    ///
    /// A report whose cached tokens exceed its tokens in contradicts that and comes from sources
    /// that count cached tokens beside the others (Anthropic's own wire form); then they are.
    pub fn cost_usd(&self, usage: Usage) -> f64 {
        let cached = usage.cache_read_tokens.saturating_add(usage.cache_write_tokens);
        let (plain, whole_prompt) = match usage.input_tokens.checked_sub(cached) {
            Some(plain) => (plain, usage.input_tokens),
            None => (usage.input_tokens, usage.input_tokens.saturating_add(cached)),
        };
        let rates = self
            .long_prompt
            .filter(|long| whole_prompt > long.above_input_tokens)
            .map_or(self.rates, |long| long.rates);
        let sum = plain as f64 * rates.input
            + usage.cache_read_tokens as f64 * rates.cached_input.unwrap_or(rates.input)
            + usage.cache_write_tokens as f64 * rates.cache_write.unwrap_or(rates.input)
            + usage.output_tokens as f64 * rates.output;
        sum / TOKENS_PER_PRICE
    }
}

/// The name without the path and vendor that gateways and clouds put before it.
fn bare_name(model: &str) -> &str {
    let name = model.rsplit('/').next().unwrap_or(model);
    ["anthropic.", "openai.", "google."]
        .into_iter()
        .find_map(|vendor| name.split_once(vendor).map(|(_, rest)| rest))
        .unwrap_or(name)
}

/// Whether what follows a name only says which edition of the model it is: dates, revisions,
/// `latest`, `preview`. A single digit directly after the name is another model (`claude-opus-4-9`).
fn is_version_tail(tail: &str) -> bool {
    if tail.is_empty() {
        return true;
    }
    if !tail.starts_with(['-', '@', ':']) {
        return false;
    }
    tail[1..].split(['-', '@', ':']).enumerate().all(|(at, part)| {
        let is_number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let is_revision = part
            .strip_prefix('v')
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()));
        let is_word = matches!(part, "latest" | "preview" | "exp" | "experimental");
        is_word || is_revision || (is_number && (at > 0 || part.len() >= 3))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn usage(input: u64, cached: u64, written: u64, output: u64) -> Usage {
        Usage {
            input_tokens: input,
            output_tokens: output,
            cache_read_tokens: cached,
            cache_write_tokens: written,
            reasoning_tokens: output / 2,
        }
    }

    #[test]
    fn the_built_in_table_parses() {
        let table = PriceTable::from_json(include_str!("../prices.json")).unwrap();
        assert!(table.models().len() > 50);
        assert_eq!(table.version(), version());
        for (at, model) in table.models().iter().enumerate() {
            assert!(
                table.models()[..at].iter().all(|other| other.name != model.name),
                "{}",
                model.name
            );
        }
    }

    #[test]
    fn names_find_their_model() {
        let name =
            |model: &str| PriceTable::builtin().price(model).map(|price| price.name.as_str());
        for (asked, found) in [
            ("gpt-4o", Some("gpt-4o")),
            ("GPT-4o-2024-08-06", Some("gpt-4o")),
            ("gpt-4o-2024-05-13", Some("gpt-4o-2024-05-13")),
            ("gpt-4o-mini-2024-07-18", Some("gpt-4o-mini")),
            ("openai/gpt-5.1", Some("gpt-5.1")),
            ("gpt-4-0613", Some("gpt-4")),
            ("gpt-4-1106-preview", Some("gpt-4-1106-preview")),
            ("claude-opus-4-20250514", Some("claude-opus-4")),
            ("claude-opus-4-9", None),
            ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", Some("claude-sonnet-4-5")),
            ("claude-sonnet-4-5@20250929", Some("claude-sonnet-4-5")),
            ("models/gemini-2.5-flash-preview-05-20", Some("gemini-2.5-flash")),
            ("gpt-4o-audio-preview", None),
            ("ft:gpt-4o:acme", None),
            ("llama-3.3-70b", None),
            ("", None),
        ] {
            assert_eq!(name(asked), found, "{asked}");
        }
    }

    #[test]
    fn each_token_is_billed_once() {
        // 600 plain at 2.50, 400 cached at 1.25, 100 out at 10, per million.
        let cost = cost_usd("gpt-4o", usage(1_000, 400, 0, 100)).unwrap();
        assert!((cost - 0.003).abs() < 1e-12, "{cost}");
        // Anthropic beside-counting: 10 plain at 3, 1,000 read at 0.30, 100 written at 3.75.
        let cost = cost_usd("claude-sonnet-4-5", usage(10, 1_000, 100, 0)).unwrap();
        assert!((cost - 0.000_705).abs() < 1e-12, "{cost}");
    }

    #[test]
    fn a_long_prompt_costs_more_as_a_whole() {
        let at = |input| cost_usd("gemini-2.5-pro", usage(input, 0, 0, 1_000_000)).unwrap();
        assert!((at(200_000) - 10.25).abs() < 1e-9);
        assert!((at(200_001) - 15.500_002_5).abs() < 1e-6);
    }

    #[test]
    fn a_negative_price_is_refused() {
        let text = r#"{"version":"x","models":[{"name":"m","input":-1,"output":1}]}"#;
        assert_eq!(
            PriceTable::from_json(text).unwrap_err().to_string(),
            "expected prices that are not negative, got one for the model \"m\" that is"
        );
    }

    proptest! {
        #[test]
        fn caching_never_costs_more_than_the_dearest_bucket(
            input in 0u64..1_000_000, cached in 0u64..1_000_000, output in 0u64..1_000_000,
        ) {
            let cached = cached.min(input);
            let with = cost_usd("gpt-4o", usage(input, cached, 0, output)).unwrap();
            let without = cost_usd("gpt-4o", usage(input, 0, 0, output)).unwrap();
            prop_assert!(with <= without + 1e-9);
            let exact = ((input - cached) as f64 * 2.5 + cached as f64 * 1.25 + output as f64 * 10.0) / 1e6;
            prop_assert!((with - exact).abs() < 1e-9);
        }
    }
}
