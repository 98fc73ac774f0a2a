//! What tokens cost: the prices of the configuration, and behind them the list prices that Throughline
//! carries.

use std::collections::BTreeMap;
use std::sync::Arc;

use throughline_llm::prices::{ModelPrice, PriceTable, Rates};
use throughline_trace::Usage;

use crate::config::PriceConfig;
use crate::plan::{PlanError, field, fits};

/// `throughline.price_version` of what was priced by the configuration.
const CONFIGURED: &str = "configured";

/// The prices of a plan.
#[derive(Debug, Default)]
pub(crate) struct Prices {
    /// By name or pattern: whole names first, then the longer pattern before the shorter.
    own: Vec<(String, Arc<ModelPrice>)>,
}

/// The price of one model.
#[derive(Debug, Clone)]
pub(crate) enum Price {
    /// Of the configuration.
    Own(Arc<ModelPrice>),
    /// Of the list.
    Listed(&'static ModelPrice),
}

impl Prices {
    pub(crate) fn of(config: &BTreeMap<String, PriceConfig>) -> Result<Self, PlanError> {
        let mut own = Vec::new();
        for (name, price) in config {
            if name.is_empty() {
                return Err(field("gateway.prices", "the name of a model", "none"));
            }
            for (what, usd) in price.named() {
                if !usd.is_finite() || usd < 0.0 {
                    let place = format!("gateway.prices[{name}].{what}");
                    let expected = "US dollars for a million tokens";
                    return Err(field(&place, expected, &usd.to_string()));
                }
            }
            own.push((name.clone(), Arc::new(model_price(name, price))));
        }
        own.sort_by_key(|(name, _)| (name.ends_with('*'), std::cmp::Reverse(name.len())));
        Ok(Self { own })
    }

    /// The price of a call, of the model that answered and the one that was asked. What the
    /// configuration says of either counts before the list.
    pub(crate) fn price(&self, answered: Option<&str>, asked: &str) -> Option<Price> {
        let models = || answered.into_iter().chain([asked]);
        let own = models().find_map(|model| {
            let found = self.own.iter().find(|(pattern, _)| fits(pattern, model));
            found.map(|(_, price)| Price::Own(Arc::clone(price)))
        });
        own.or_else(|| {
            models().find_map(|model| PriceTable::builtin().price(model)).map(Price::Listed)
        })
    }
}

impl Price {
    fn model(&self) -> &ModelPrice {
        match self {
            Self::Own(price) => price,
            Self::Listed(price) => price,
        }
    }

    /// Which edition of prices it is of.
    pub(crate) fn version(&self) -> &'static str {
        match self {
            Self::Own(_) => CONFIGURED,
            Self::Listed(_) => PriceTable::builtin().version(),
        }
    }

    /// The cost of a usage, US dollars. A service tier whose price is not known costs what the standard
    /// one does: whoever has a budget would spend it for nothing otherwise. `None` when there are
    /// tokens without a price, of sound for one.
    pub(crate) fn cost_usd(&self, usage: Usage, tier: Option<&str>) -> Option<f64> {
        let at_tier = PriceTable::builtin().cost_at(self.model(), usage, tier);
        at_tier.or_else(|| self.model().cost_usd(usage))
    }

    /// What a usage costs at least, US dollars, with tokens that have no price counted as text: what
    /// limits count when there is no cost.
    pub(crate) fn least_usd(&self, usage: Usage) -> f64 {
        let as_text = Usage {
            audio_input_tokens: 0,
            image_input_tokens: 0,
            audio_output_tokens: 0,
            image_output_tokens: 0,
            ..usage
        };
        self.model().cost_usd(as_text).unwrap_or_default()
    }
}

fn model_price(name: &str, price: &PriceConfig) -> ModelPrice {
    ModelPrice {
        name: name.to_owned(),
        provider: String::new(),
        rates: Rates {
            input: price.input,
            cached_input: price.cached_input,
            cache_write: price.cache_write,
            cache_write_1h: price.cache_write_1h,
            output: price.output,
            audio_input: price.audio_input,
            audio_output: price.audio_output,
            image_input: price.image_input,
            image_output: price.image_output,
        },
        long_prompt: None,
        tiers: BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn priced(own: &[(&str, f64)]) -> Prices {
        let price = |usd| PriceConfig { input: usd, output: usd, ..PriceConfig::default() };
        let own = own.iter().map(|(name, usd)| ((*name).to_owned(), price(*usd)));
        Prices::of(&own.collect()).unwrap()
    }

    fn million() -> Usage {
        Usage { input_tokens: 1_000_000, ..Usage::default() }
    }

    fn usd(prices: &Prices, answered: Option<&str>, asked: &str) -> Option<f64> {
        prices.price(answered, asked)?.cost_usd(million(), None)
    }

    #[test]
    fn the_price_of_the_configuration_counts_before_the_list() {
        let prices = priced(&[("gpt-4o", 7.0), ("llama-*", 1.0), ("llama-3.3-*", 2.0)]);
        assert_eq!(usd(&prices, Some("gpt-4o-2024-08-06"), "gpt-4o"), Some(7.0));
        assert_eq!(usd(&prices, None, "llama-2"), Some(1.0));
        assert_eq!(usd(&prices, None, "llama-3.3-70b"), Some(2.0), "the longer pattern");
        assert_eq!(usd(&prices, None, "gpt-4o-mini"), usd(&priced(&[]), None, "gpt-4o-mini"));
        assert_eq!(usd(&prices, Some("something"), "else"), None);
        let told = Prices::of(&BTreeMap::from([(
            "a".to_owned(),
            PriceConfig { input: -1.0, ..PriceConfig::default() },
        )]));
        insta::assert_snapshot!(told.expect_err("refused"), @"expected US dollars for a million tokens in `gateway.prices[a].input`, got -1");
    }

    #[test]
    fn a_tier_that_nobody_knows_costs_what_the_standard_one_does() {
        let price = priced(&[]).price(None, "gpt-4o").unwrap();
        let standard = price.cost_usd(million(), None);
        assert!(standard.is_some_and(|usd| usd > 0.0));
        assert_eq!(price.cost_usd(million(), Some("express")), standard);
        assert_ne!(price.cost_usd(million(), Some("batch")), standard, "one that is known");
    }

    #[test]
    fn tokens_without_a_price_cost_something_at_least() {
        let price = priced(&[("speaks", 3.0)]).price(None, "speaks").unwrap();
        let sound = Usage { audio_input_tokens: 1_000_000, ..million() };
        assert_eq!((price.cost_usd(sound, None), price.least_usd(sound)), (None, 3.0));
    }
}
