//! What a call costs: a versioned table of list prices, and the sum over disjoint buckets of tokens.
//!
//! The table is data (`prices.json` beside the sources). A deployment with its own rates loads
//! another one ([`PriceTable::from_file`]) and lays it over the built-in one
//! ([`PriceTable::with`]). A model that the table does not know has no cost: an absent figure is
//! honest, a guessed one is not.
//!
//! ```
//! use throughline_llm::prices::PriceTable;
//!
//! let own = PriceTable::from_json(
//!     r#"{"version": "acme-3", "models": [{"name": "gpt-4o", "input": 2, "output": 8}]}"#,
//! )?;
//! let prices = PriceTable::builtin().with(own);
//! assert!(prices.version().ends_with("+acme-3"));
//! assert_eq!(prices.price("gpt-4o-2024-08-06").map(|price| price.rates.output), Some(8.0));
//! # Ok::<(), throughline_llm::prices::PriceError>(())
//! ```

mod read;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::LazyLock;

use throughline_trace::Usage;

use crate::usage::{UsageBuckets, with_subsets};

/// Tokens that one price stands for.
const TOKENS_PER_PRICE: f64 = 1_000_000.0;

/// What writing to a cache for an hour costs, in prices of `input`, where a table says nothing else: so
/// Anthropic sells it, and nobody else does.
const ONE_HOUR_WRITE_FACTOR: f64 = 2.0;

/// Names of the tier that list prices are for.
const STANDARD_TIERS: [&str; 4] = ["", "standard", "default", "auto"];

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

/// Why a file or text is no price table.
#[derive(Debug, thiserror::Error)]
pub enum PriceError {
    /// The JSON does not have the shape of `prices.json`.
    #[error("expected a price table with `version` and `models`, got JSON that does not fit: {0}")]
    Json(#[from] serde_json::Error),
    /// A field of a model has a value that cannot be meant.
    #[error("line {line}, model {model:?}: expected {expected} in `{field}`, got {got}")]
    Field {
        /// The line on which the model begins, from 1.
        line: usize,
        /// The model; empty for what is not a model's.
        model: String,
        /// The field.
        field: String,
        /// What was expected.
        expected: &'static str,
        /// What came.
        got: String,
    },
    /// The file cannot be read.
    #[error("cannot read the price table {path}: {source}")]
    File {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The file is too large to be a price table.
    #[error("expected a price table of at most {limit_bytes} bytes, got one of {bytes}")]
    TooLarge {
        /// What it has.
        bytes: u64,
        /// What is read.
        limit_bytes: u64,
    },
}

/// Factors on the list prices, by the name of the service tier (`batch`: 0.5).
pub type Tiers = BTreeMap<String, f64>;

/// List prices of models.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PriceTable {
    version: String,
    models: Vec<ModelPrice>,
    /// Where each model stands.
    places: HashMap<String, usize>,
    /// Tiers of all models of a provider.
    tiers: BTreeMap<String, Tiers>,
}

/// List prices of one model, US dollars per million tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelPrice {
    /// Name without version or date (`gpt-4o`).
    pub name: String,
    /// Who sells it (`openai`).
    pub provider: String,
    /// What a short prompt costs.
    pub rates: Rates,
    /// What the whole call costs when its prompt is long, where the provider asks more for it.
    pub long_prompt: Option<LongPrompt>,
    /// Service tiers that this model has prices of its own for.
    pub tiers: Tiers,
}

/// Prices of the disjoint buckets of tokens, US dollars per million.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// Tokens in that were neither read from a cache nor written to one.
    pub input: f64,
    /// Tokens in that were read from a cache; as `input` when the provider has no such price.
    pub cached_input: Option<f64>,
    /// Tokens in that were written to a cache (the shortest life on offer); else as `input`.
    pub cache_write: Option<f64>,
    /// Tokens in that were written to a cache for an hour; twice `input` when the table does not say.
    pub cache_write_1h: Option<f64>,
    /// Tokens out, reasoning included.
    pub output: f64,
    /// Tokens in of sound. They cost many times those of text, so that without a price of theirs a
    /// call with sound has no cost.
    pub audio_input: Option<f64>,
    /// Tokens out of sound; as `audio_input`.
    pub audio_output: Option<f64>,
    /// Tokens in of images; as `input` when the provider has no such price.
    pub image_input: Option<f64>,
    /// Tokens out of images; without a price of theirs a call that makes images has no cost.
    pub image_output: Option<f64>,
}

/// Prices that hold for a whole call once its prompt is longer than a limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LongPrompt {
    /// The prices hold above this many tokens in.
    pub above_input_tokens: u64,
    /// The prices.
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
    /// [`PriceError`] when the JSON does not fit, a price is negative or missing, a field is
    /// unknown (a misspelt price would count as none), or a model is there twice.
    pub fn from_json(text: &str) -> Result<Self, PriceError> {
        read::from_json(text)
    }

    /// Reads a file of the shape of `prices.json`, of at most 4 MiB.
    ///
    /// # Errors
    /// [`PriceError`], also when the file cannot be read.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, PriceError> {
        read::from_file(path.as_ref())
    }

    /// This table with another laid over it: a model of the other takes the place of ours as a whole,
    /// tiers are joined. The version names both.
    #[must_use]
    pub fn with(&self, mut over: Self) -> Self {
        for price in over.models.iter_mut().filter(|price| price.provider.is_empty()) {
            if let Some(ours) = self.models.iter().find(|ours| ours.name == price.name) {
                price.provider.clone_from(&ours.provider);
            }
        }
        let stays = |price: &&ModelPrice| over.models.iter().all(|o| o.name != price.name);
        let mut models: Vec<ModelPrice> = self.models.iter().filter(stays).cloned().collect();
        let version = format!("{}+{}", self.version, over.version);
        models.extend(over.models);
        let mut tiers = self.tiers.clone();
        for (provider, more) in over.tiers {
            tiers.entry(provider).or_default().extend(more);
        }
        Self::new(version, models, tiers)
    }

    fn new(version: String, models: Vec<ModelPrice>, tiers: BTreeMap<String, Tiers>) -> Self {
        let places = models.iter().enumerate().map(|(at, price)| (price.name.clone(), at));
        Self { version, places: places.collect(), models, tiers }
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
        let ends = bare.match_indices(VERSION_MARKS).map(|(at, _)| at);
        std::iter::once(bare.len())
            .chain(ends.rev())
            .filter(|end| is_version_tail(&bare[*end..]))
            .find_map(|end| self.models.get(*self.places.get(&bare[..end])?))
    }

    /// Cost of `usage` with `model`, US dollars, at list prices; `None` for an unknown model.
    pub fn cost_usd(&self, model: &str, usage: Usage) -> Option<f64> {
        self.cost_usd_in_tier(model, usage, None)
    }

    /// [`cost_usd`](Self::cost_usd) in a service tier, as the provider names it (`batch`,
    /// `priority`); `None` also for a tier whose price is not known.
    pub fn cost_usd_in_tier(&self, model: &str, usage: Usage, tier: Option<&str>) -> Option<f64> {
        self.cost_at(self.price(model)?, usage, tier)
    }

    /// [`cost_usd_in_tier`](Self::cost_usd_in_tier) with a model whose prices were looked up in this table.
    pub fn cost_at(&self, price: &ModelPrice, usage: Usage, tier: Option<&str>) -> Option<f64> {
        let tier = tier.unwrap_or_default();
        let factor = price.tiers.get(tier).or_else(|| self.tiers.get(&price.provider)?.get(tier));
        let factor = match factor {
            Some(factor) => *factor,
            None if STANDARD_TIERS.contains(&tier) => 1.0,
            None => return None,
        };
        Some(price.cost_usd(usage)? * factor)
    }
}

impl ModelPrice {
    /// Cost of `usage`, US dollars; `None` when it has tokens that have no price ([`Rates`]). Every
    /// token is billed in exactly one bucket ([`UsageBuckets`]).
    ///
    /// A report whose cached tokens exceed its tokens in contradicts that and comes from sources
    /// that count cached tokens beside the others (Anthropic's own wire form); then they are.
    pub fn cost_usd(&self, usage: Usage) -> Option<f64> {
        let usage = with_subsets(usage);
        let tokens = UsageBuckets::of(usage);
        let rates = self
            .long_prompt
            .filter(|long| usage.input_tokens > long.above_input_tokens)
            .map_or(self.rates, |long| long.rates);
        let bill = |tokens: u64, price: Option<f64>| match tokens {
            0 => Some(0.0),
            tokens => Some(tokens as f64 * price?),
        };
        let one_hour = rates.cache_write_1h.unwrap_or(rates.input * ONE_HOUR_WRITE_FACTOR);
        let or_input = |price: Option<f64>| Some(price.unwrap_or(rates.input));
        let sum = bill(tokens.input, Some(rates.input))?
            + bill(tokens.cache_read, or_input(rates.cached_input))?
            + bill(tokens.cache_write, or_input(rates.cache_write))?
            + bill(tokens.cache_write_1h, Some(one_hour))?
            + bill(tokens.audio_input, rates.audio_input)?
            + bill(tokens.image_input, or_input(rates.image_input))?
            + bill(tokens.output, Some(rates.output))?
            + bill(tokens.reasoning, Some(rates.output))?
            + bill(tokens.audio_output, rates.audio_output)?
            + bill(tokens.image_output, rates.image_output)?;
        Some(sum / TOKENS_PER_PRICE)
    }
}

/// The name without the path and vendor that gateways and clouds put before it.
pub(crate) fn bare_name(model: &str) -> &str {
    let name = model.rsplit('/').next().unwrap_or(model);
    // Most names are bare, and to look for one text costs more than the rest.
    if !name.contains('.') {
        return name;
    }
    ["anthropic.", "openai.", "google."]
        .into_iter()
        .find_map(|vendor| name.split_once(vendor).map(|(_, rest)| rest))
        .unwrap_or(name)
}

/// What stands before each part of an edition.
const VERSION_MARKS: [char; 3] = ['-', '@', ':'];

/// Whether what follows a name only says which edition of the model it is: dates, revisions,
/// `latest`, `preview`. A single digit directly after the name is another model (`claude-opus-4-9`).
fn is_version_tail(tail: &str) -> bool {
    if tail.is_empty() {
        return true;
    }
    if !tail.starts_with(VERSION_MARKS) {
        return false;
    }
    tail[1..].split(VERSION_MARKS).enumerate().all(|(at, part)| {
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
            ..Usage::default()
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
            ("gpt-4o-audio-preview-2025-06-03", Some("gpt-4o-audio-preview")),
            ("gpt-4o-search-preview", None),
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
    fn a_wrong_table_says_where() {
        let message = |models: &str| {
            let text = format!("{{\n\"version\": \"x\",\n\"models\": [\n{models}]}}");
            PriceTable::from_json(&text).unwrap_err().to_string()
        };
        insta::assert_snapshot!(message(r#"{"name":"m","input":-1,"output":1}"#), @r#"line 4, model "m": expected a price of at least 0 in `input`, got -1"#);
        insta::assert_snapshot!(message("{\"name\":\"a\",\"input\":1,\"output\":1},\n{\"name\":\"m\",\"input\":1}"), @r#"line 5, model "m": expected a price in `output`, got none"#);
        insta::assert_snapshot!(message(r#"{"name":"m","input":1,"outptu":1}"#), @r#"line 4, model "m": expected one of the fields input, cached_input, cache_write, cache_write_1h, output, audio_input, audio_output, image_input, image_output, name, provider, long_prompt, tiers, note in `outptu`, got 1"#);
        insta::assert_snapshot!(message(r#"{"input":1,"output":1}"#), @r#"line 4, model "": expected the name of a model in `name`, got none"#);
        insta::assert_snapshot!(message(r#"{"name":"m","input":1,"output":1,"tiers":{"batch":"half"}}"#), @r#"line 4, model "m": expected factors of at least 0 by the name of the tier in `tiers.batch`, got "half""#);
        insta::assert_snapshot!(message(r#"{"name":"m","input":1,"output":1},{"name":"M","input":1,"output":1}"#), @r#"line 4, model "m": expected each model once in `name`, got "M""#);
        insta::assert_snapshot!(message("{\"name\":\"m\",,}"), @"expected a price table with `version` and `models`, got JSON that does not fit: key must be a string at line 4 column 13");
        let missing = PriceTable::from_file("no/such/prices.json").unwrap_err().to_string();
        assert!(missing.starts_with("cannot read the price table no/such/prices.json: "));
    }

    #[test]
    fn sound_costs_its_own_price_or_nothing_is_told() {
        let table = PriceTable::from_json(
            r#"{"version":"x","models":[{"name":"m","input":1,"output":2,"audio_input":10,"audio_output":20},
                {"name":"n","input":1,"output":2}]}"#,
        )
        .unwrap();
        let spoken = Usage {
            input_tokens: 1_000_000,
            audio_input_tokens: 500_000,
            output_tokens: 1_000_000,
            audio_output_tokens: 1_000_000,
            ..Usage::default()
        };
        assert_eq!(table.cost_usd("m", spoken), Some(0.5 + 5.0 + 20.0));
        assert_eq!(table.cost_usd("n", spoken), None);
    }

    #[test]
    fn models_that_hear_and_speak_have_prices_of_sound() {
        // 700 of text at 2.50 and 300 of sound at 32; 40 of text at 10 and 60 of sound at 64.
        let spoken = Usage {
            input_tokens: 1_000,
            audio_input_tokens: 300,
            output_tokens: 100,
            audio_output_tokens: 60,
            ..Usage::default()
        };
        let cost = cost_usd("gpt-audio-2025-08-28", spoken).unwrap();
        assert!((cost - (0.001_75 + 0.009_6 + 0.000_4 + 0.003_84)).abs() < 1e-12, "{cost}");
        // 700 at 0.30 and 300 heard at 1.00; 100 out at 2.50.
        let heard = Usage { audio_output_tokens: 0, ..spoken };
        let cost = cost_usd("gemini-2.5-flash", heard).unwrap();
        assert!((cost - (0.000_21 + 0.000_3 + 0.000_25)).abs() < 1e-12, "{cost}");
        assert_eq!(cost_usd("gemini-2.5-flash", spoken), None, "it does not speak");
    }

    #[test]
    fn what_a_cache_keeps_for_an_hour_costs_twice_the_input() {
        // 10 plain at 3, 1,000 read at 0.30, 300 written at 3.75 and 700 for an hour at 6.
        let written = Usage { cache_write_1h_tokens: 700, ..usage(2_010, 1_000, 1_000, 0) };
        let cost = cost_usd("claude-sonnet-4-5", written).unwrap();
        assert!((cost - (0.000_03 + 0.000_3 + 0.001_125 + 0.004_2)).abs() < 1e-12, "{cost}");
        // More for an hour than was written at all is as much as was written.
        let odd = Usage { cache_write_1h_tokens: 5_000, ..written };
        let cost = cost_usd("claude-sonnet-4-5", odd).unwrap();
        assert!((cost - (0.000_03 + 0.000_3 + 0.006)).abs() < 1e-12, "{cost}");
        let own =
            r#"{"version":"x","models":[{"name":"m","input":1,"output":1,"cache_write_1h":5}]}"#;
        let own = PriceTable::from_json(own).unwrap().cost_usd("m", written).unwrap();
        // 10 + 1,000 + 300 at 1, 700 at 5.
        assert!((own - 0.004_81).abs() < 1e-12, "{own}");
    }

    #[test]
    fn tiers_have_their_own_price_or_none() {
        let table = PriceTable::builtin();
        let usage = usage(1_000_000, 0, 0, 0);
        assert_eq!(table.cost_usd_in_tier("gpt-4o", usage, Some("default")), Some(2.5));
        assert_eq!(table.cost_usd_in_tier("gpt-4o", usage, Some("batch")), Some(1.25));
        assert_eq!(table.cost_usd_in_tier("gpt-4o", usage, Some("unheard-of")), None);
    }

    #[test]
    fn a_table_is_laid_over_another() {
        let own = r#"{"version":"acme-3","models":[{"name":"GPT-4o","input":2,"output":8},
            {"name":"house-model","input":1,"output":1}],"tiers":{"openai":{"priority":2}}}"#;
        let merged = PriceTable::builtin().with(PriceTable::from_json(own).unwrap());
        let usage = usage(1_000_000, 0, 0, 0);
        assert_eq!(merged.cost_usd("gpt-4o-2024-08-06", usage), Some(2.0));
        assert_eq!(merged.cost_usd_in_tier("gpt-4o", usage, Some("priority")), Some(4.0));
        assert_eq!(merged.cost_usd_in_tier("gpt-4o", usage, Some("batch")), Some(1.0));
        assert_eq!(merged.cost_usd("house-model", usage), Some(1.0));
        assert_eq!(merged.cost_usd("gpt-4.1", usage), Some(2.0));
        assert_eq!(merged.version(), format!("{}+acme-3", version()));
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
