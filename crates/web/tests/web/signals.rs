//! Signals and detectors, by layer, on their page and in the API (requirements R5.7 and R6.2).

use std::sync::Arc;

use axum::http::StatusCode;
use throughline_govern::detect::TimeSpan;
use throughline_govern::signals::{
    DEFINITIONS, Observed, Reading, SchemaCompliance, SignalReport, SignalRow, TraceFacts,
};
use throughline_govern::{AgentWindow, DriftWatch};
use throughline_store::Governance;
use throughline_web::governance::{AsksSignals, SignalsAsked, Standing, View};

use crate::Site;

const MINUTE: u64 = 60_000_000_000;

/// What an agent's responses and prompts tell.
fn report(asked: SignalsAsked) -> SignalReport {
    let mut observed = Observed::default();
    for tokens in 0..200 {
        observed.prompt_tokens.add(400 + tokens, 1);
    }
    let responses = SchemaCompliance { valid: 57, invalid: 3, without_schema: 0 };
    observed.traces.push(TraceFacts { responses, ..TraceFacts::default() });
    let window_s = |own: u64| asked.minutes.map_or(own, |minutes| minutes * 60);
    let row = |row: &throughline_govern::signals::Definition| {
        SignalRow::new(Reading::of(row.id, &observed), window_s(row.window_s))
    };
    let signals = DEFINITIONS.iter().map(row).collect();
    SignalReport { agent: asked.agent, at_unix_nano: 1, signals, own: Vec::new() }
}

/// An agent whose prompts grew by half.
fn standing() -> Standing {
    let mut watch = DriftWatch::default();
    for minute in 0..40 {
        let mut window = AgentWindow::default();
        let tokens = if minute < 34 { 400 } else { 600 };
        (0..60).for_each(|at| window.prompt_tokens.add(tokens + at, 1));
        let span =
            TimeSpan { from_unix_nano: minute * MINUTE, to_unix_nano: (minute + 1) * MINUTE };
        watch.observe(span, &[("support".to_owned(), window)].into());
    }
    Standing { detectors: watch.standing(), ..Standing::default() }
}

/// A view that has them.
pub(crate) fn view(governance: Governance) -> View {
    let signals: AsksSignals = Arc::new(|asked| Box::pin(async { Ok(Arc::new(report(asked))) }));
    let standing = tokio::sync::watch::channel(Arc::new(standing())).1;
    View { governance, standing, signals }
}

#[tokio::test]
async fn r5_7_data_quality_is_shown_by_layer_with_what_it_rests_on() {
    let site = Site::open();
    let page = site.get("/governance/signals?agent=support&window=1h").await;
    assert_eq!(page.status, StatusCode::OK);
    let at = |text: &str| page.body.find(text).unwrap_or_else(|| panic!("{text} is missing"));
    let order = [
        "Drift",
        "prompt_tokens",
        "drifted",
        "Input",
        "prompt_token_distribution_skewness",
        "Processing",
        "context_drift_score",
        "Output",
        "response_schema_compliance_rate",
        "0.950",
        "order_fulfillment_accuracy",
    ];
    let places = order.map(at);
    assert!(places[2] > places[0] && places[4] > places[3], "{places:?}");
    assert!(places[6] > places[5] && places[8] > places[7] && places[9] > places[8], "{places:?}");
    assert!(page.body.contains("Missing: "), "what has too little data says so");
    let none = site.get("/governance/signals?agent=nobody").await;
    assert!(none.body.contains("Nothing was compared yet"));
    let refused = site.get("/governance/signals?window=2h").await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert!(refused.body.contains("one of 5m, 15m, 1h, 6h, 24h"), "{}", refused.body);
}

#[tokio::test]
async fn r5_7_signals_and_detectors_are_answered_with_their_layer() {
    let site = Site::open();
    let json = async |path: &str| -> serde_json::Value {
        serde_json::from_str(&site.get(path).await.body).unwrap()
    };
    let told = json("/api/v1/signals?agent=support&window=15m").await;
    let rows = told["signals"].as_array().unwrap();
    let of = |name: &str| rows.iter().find(|row| row["name"] == name).unwrap();
    let compliance = of("response_schema_compliance_rate");
    assert_eq!(compliance["layer"], "output");
    assert_eq!(
        (compliance["value"].as_f64(), compliance["count"].as_u64()),
        (Some(0.95), Some(60))
    );
    assert_eq!(compliance["window_s"], 900);
    assert_eq!(of("prompt_token_distribution_skewness")["layer"], "input");
    assert_eq!(of("order_fulfillment_accuracy")["layer"], "output");
    let missing = of("context_drift_score");
    assert!(missing["value"].is_null() && missing["missing"] != "", "{missing}");
    let detectors = json("/api/v1/detectors?agent=support").await;
    let detectors = detectors["items"].as_array().unwrap();
    let tokens = detectors.iter().find(|one| one["signal"] == "prompt_tokens").unwrap();
    assert_eq!(
        (tokens["is_firing"].as_bool(), tokens["layer"].as_str()),
        (Some(true), Some("input"))
    );
    assert!(tokens["observed"].as_f64() > tokens["expected"].as_f64(), "{tokens}");
    let (mut next, mut seen) = (String::new(), Vec::new());
    loop {
        let page = json(&format!("/api/v1/detectors?limit=3{next}")).await;
        for one in page["items"].as_array().unwrap() {
            seen.push(one["signal"].as_str().unwrap().to_owned());
        }
        let Some(cursor) = page["next"].as_str() else { break };
        next = format!("&cursor={cursor}");
    }
    assert_eq!(seen.len(), 8, "{seen:?}");
    let none = json("/api/v1/detectors?agent=nobody").await;
    assert_eq!(none["items"], serde_json::json!([]));
}
