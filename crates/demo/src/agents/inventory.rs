//! Forecasts what will be sold tomorrow, article by article, and learns what was sold in the end.

use throughline::llm::ChatRequest;
use throughline::{ChatModel as _, Dimensions, Phase, Traced, decision, keys, step, workflow};

use super::{Failed, within};
use crate::seed::Seed;
use crate::stories::inventory::{AGENT, Article, Features, INSTRUCTIONS, read};

/// Small and quick.
const MODEL: &str = "gpt-4.1-nano";

/// The agent.
#[derive(Debug, Clone)]
pub(crate) struct InventoryAgent {
    model: Traced,
    features: Features,
    seed: Seed,
}

impl InventoryAgent {
    /// An agent over this model and these features, whose sales the seed decides.
    pub(crate) fn new(model: Traced, features: Features, seed: Seed) -> Self {
        Self { model, features, seed }
    }

    /// Forecasts one article.
    ///
    /// # Errors
    /// [`Failed`], when the model cannot be asked.
    pub(crate) async fn forecast(&self, article: Article) -> Result<(), Failed> {
        let session = format!("stock-{}", article.sku.to_lowercase());
        let whose = Dimensions::new().agent(AGENT).session(session).role("planning");
        workflow("replenishment")
            .dimensions(whose)
            .run(async {
                self.observe(&article);
                let step = step(AGENT, Phase::Plan, "forecast").start();
                within(step, self.plan(&article)).await
            })
            .await
    }

    /// Notes what was sold on the day before.
    fn observe(&self, article: &Article) {
        let Some(before) = article.day_before() else { return };
        let sold = before.sold(self.seed);
        decision("observe.sales")
            .action("noted")
            .reason(format!("{sold} of {} were sold", before.sku))
            .confidence(1.0)
            .attribute(keys::FORECAST_ID, forecast_id(&before))
            .attribute(keys::FORECAST_ACTUAL, sold)
            .record();
    }

    async fn plan(&self, article: &Article) -> Result<(), Failed> {
        let letter = self.features.letter(article);
        let request = ChatRequest::new(MODEL).system(INSTRUCTIONS).user(letter.as_str());
        let answer = self.model.chat(request).await.map_err(Failed::of)?.text();
        let Some((units, confidence)) = read(&answer) else {
            tracing::warn!(article = article.sku, "the forecast cannot be read, none is made");
            return Ok(());
        };
        decision("plan.forecast")
            .action("order")
            .reason(format!("{units} of {} will be sold", article.sku))
            .confidence(confidence)
            .model_version(MODEL)
            .attribute(keys::FORECAST_ID, forecast_id(article))
            .attribute(keys::FORECAST_VALUE, units)
            .record();
        Ok(())
    }
}

fn forecast_id(article: &Article) -> String {
    format!("{}/{}", article.sku, article.day())
}
