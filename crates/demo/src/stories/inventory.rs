//! Fjell & Fjord orders what will be sold: forecasts from features that a pipeline makes. When the season
//! turns, features of the season before make forecasts wrong until the pipeline has run again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::provider::{ChatRequest, Reply, Role};
use crate::seed::Seed;

/// The agent's name.
pub const AGENT: &str = "inventory";

/// The pipeline that makes its features, as rules and the workflow server call it.
pub const PIPELINE: &str = "inventory-feature-pipeline";

/// Words of the system prompt by which its requests are known.
const MARK: &str = "forecast sales for Fjell & Fjord";

/// The system prompt.
pub(crate) const INSTRUCTIONS: &str = "You forecast sales for Fjell & Fjord from the features of an \
article. Say how many units will be sold tomorrow and how sure you are, as JSON alone, in this form: \
{\"units\": 40, \"confidence\": 0.9}";

/// Forecasts before the first season turns.
const FIRST_SEASON: u64 = 40;

/// Forecasts of each season after it.
const SEASON: u64 = 720;

/// What is sold in every other season, of what is sold in the first.
const HIGH_SEASON: f64 = 1.6;

/// Articles and what is sold of them a day.
const ARTICLES: [(&str, f64); 8] = [
    ("TENT-2P", 34.0),
    ("BOOT-BR", 61.0),
    ("JACKET-R", 48.0),
    ("STOVE-G", 27.0),
    ("ROPE-60", 19.0),
    ("LAMP-H", 75.0),
    ("MAT-XL", 42.0),
    ("BAG-50", 55.0),
];

/// One article whose sales of tomorrow are wanted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Article {
    /// Its number.
    pub sku: &'static str,
    usual: f64,
    run: u64,
}

impl Article {
    /// What forecast number `run` is about.
    pub fn of(run: u64) -> Self {
        let (sku, usual) = ARTICLES[(run % ARTICLES.len() as u64) as usize];
        Self { sku, usual, run }
    }

    /// The day that the forecast is of, counted from the first.
    pub fn day(&self) -> u64 {
        self.run / ARTICLES.len() as u64
    }

    /// Units that are sold on that day, as it turns out.
    pub fn sold(&self, seed: Seed) -> f64 {
        let chance = seed.named("sold").nth(self.run).dice().between(0.94, 1.06);
        (self.usual * factor(season(self.run)) * chance).round()
    }

    /// The day before, unless this is the first.
    pub fn day_before(&self) -> Option<Self> {
        Some(Self { run: self.run.checked_sub(ARTICLES.len() as u64)?, ..*self })
    }
}

/// The features that forecasts are made from; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Features(Arc<Made>);

#[derive(Debug, Default)]
struct Made {
    /// The season that they were made of.
    season: AtomicU64,
    /// The season that it is.
    current: AtomicU64,
}

impl Features {
    /// Those of an article, as the prompt tells them.
    pub fn letter(&self, article: &Article) -> String {
        self.0.current.fetch_max(season(article.run), Ordering::Relaxed);
        let season = self.0.season.load(Ordering::Relaxed);
        let usual = article.usual * factor(season);
        format!("Article {}: features v{} say {usual:.1} units a day.", article.sku, season + 1)
    }

    /// Makes them anew, of what is sold now.
    pub fn renew(&self) {
        self.0.season.store(self.0.current.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// The season of a forecast.
fn season(run: u64) -> u64 {
    (run + SEASON - FIRST_SEASON) / SEASON
}

fn factor(season: u64) -> f64 {
    if season.is_multiple_of(2) { 1.0 } else { HIGH_SEASON }
}

/// What the model says to features; `None` to anything else.
pub(super) fn perform(seed: Seed, request: &ChatRequest) -> Option<Reply> {
    request.texts(Role::System).find(|text| text.contains(MARK))?;
    let letter = request.texts(Role::User).next()?;
    let (_, after) = letter.split_once(" say ")?;
    let usual: f64 = after.split(' ').next()?.parse().ok()?;
    let mut dice = seed.named("inventory").dice();
    let units = (usual * dice.between(0.96, 1.04)).round();
    let sure = (dice.between(0.82, 0.95) * 100.0).round() / 100.0;
    Some(Reply::text(json!({"units": units, "confidence": sure}).to_string()))
}

/// The units and the confidence in an answer.
pub(crate) fn read(answer: &str) -> Option<(f64, f64)> {
    let value: Value = serde_json::from_str(answer).ok()?;
    Some((value.get("units")?.as_f64()?, value.get("confidence")?.as_f64()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mean absolute percentage error of what features say.
    fn error(features: &Features, runs: std::ops::Range<u64>) -> f64 {
        let (seed, count) = (Seed::new(7), (runs.end - runs.start) as f64);
        let of = |run| {
            let article = Article::of(run);
            let letter = features.letter(&article);
            let said = letter.split_once(" say ").expect("as written").1;
            let said: f64 = said.split(' ').next().expect("a word").parse().expect("a number");
            (said - article.sold(seed)).abs() / article.sold(seed)
        };
        100.0 * runs.map(of).sum::<f64>() / count
    }

    #[test]
    fn a_season_that_turns_makes_old_features_wrong_until_they_are_renewed() {
        let features = Features::default();
        assert!(error(&features, 0..FIRST_SEASON) < 6.0);
        assert!(error(&features, FIRST_SEASON..100) > 30.0);
        features.renew();
        assert!(error(&features, 100..200) < 6.0);
        let next = FIRST_SEASON + SEASON;
        assert!(error(&features, next..next + 50) > 50.0);
        assert_eq!(Article::of(9).day_before().map(|before| before.run), Some(1));
        assert_eq!(Article::of(7).day_before(), None);
    }
}
