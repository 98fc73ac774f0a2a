//! What is told of the gateway.

use axum::http::StatusCode;
use throughline_trace::{
    GatewayStanding, KeyStanding, RouteStanding, RouteTargetStanding, TargetStanding,
};

use crate::Site;

/// A gateway with everything that can be told.
pub(crate) fn standing() -> GatewayStanding {
    let target = |name: &str, weight| RouteTargetStanding {
        name: name.to_owned(),
        provider: "sim".to_owned(),
        model: Some("gpt-4o".to_owned()),
        configured_weight: 1,
        weight,
    };
    GatewayStanding {
        routes: vec![RouteStanding {
            name: "smart".to_owned(),
            model: "smart".to_owned(),
            strategy: "weighted",
            targets: vec![target("v1", 95), target("v2", 5)],
            fallback: vec![target("spare", 1)],
            set_weights: None,
            cache_ttl_secs: None,
            has_contract: true,
        }],
        targets: vec![TargetStanding {
            name: "sim/gpt-4o".to_owned(),
            breaker: Some("open"),
            opens_in_ms: Some(1_500),
            used_up_for_ms: None,
            latency_ms: Some(12.5),
        }],
        keys: vec![KeyStanding {
            name: "team-a".to_owned(),
            requests: 3,
            requests_per_minute: Some(300),
            tokens: 900,
            tokens_per_minute: None,
            usd_today: 1.25,
            usd_per_day: Some(20.0),
            usd_this_month: 9.5,
            usd_per_month: None,
            models: vec!["smart".to_owned()],
        }],
        in_flight: 2,
        max_in_flight: 1_024,
    }
}

#[tokio::test]
async fn r3_4_breakers_weights_and_keys_are_seen_on_the_page_and_in_the_api() {
    let site = Site::open();
    let page = site.get("/gateway").await;
    assert_eq!(page.status, StatusCode::OK);
    for expected in
        ["smart", "95 %", "5 %", "sim/gpt-4o", "open for 1.50 s", "12.5 ms", "team-a", "$1.25"]
    {
        assert!(page.body.contains(expected), "{expected}: {}", page.body);
    }
    let told: serde_json::Value =
        serde_json::from_str(&site.get("/api/v1/gateway").await.body).unwrap();
    assert_eq!(told["targets"][0]["breaker"], "open");
    assert_eq!(told["routes"][0]["targets"][1]["weight"], 5);
    assert_eq!(told["keys"][0]["usd_this_month"], 9.5);
}
