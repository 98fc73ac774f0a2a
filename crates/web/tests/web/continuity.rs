//! Where traces broke, as the API and the pages show it.

use axum::http::StatusCode;
use throughline_trace::{
    ContinuityTracker, Conversation, GRACE_NANOS, Sighting, Span, SpanId, SpanKind, SpanRole,
    TraceId,
};

use crate::fixtures::{self, MS};
use crate::{Site, recent_ns};

/// A whole minute.
const T0: u64 = 1_700_000_040_000_000_000;

fn sighting(
    (trace, id, parent): (u128, u64, Option<u64>),
    (service, name, kind): (&str, &str, SpanKind),
    (start, end): (u64, u64),
) -> Sighting {
    let mut span = Span::new(
        TraceId::from_u128(trace),
        SpanId::from_u64(id),
        parent.map(SpanId::from_u64),
        name,
    );
    span.kind = kind;
    span.start_unix_nano = T0 + start * MS;
    span.end_unix_nano = T0 + end * MS;
    let mut sighting = Sighting::of(&span, SpanRole::Other, service.into());
    sighting.received_unix_nano = span.end_unix_nano;
    sighting
}

#[test]
fn r2_6_a_report_as_json() {
    use SpanKind::{Client, Server};
    let mut tracker = ContinuityTracker::default();
    let conversation = Some(Conversation::new("s-1", None));
    for trace in 1..=4 {
        // The clock of stock is a second behind; in the last trace the header was changed.
        let parent = if trace == 4 { 99 } else { 2 };
        let shift = trace as u64 * 10 + 1_000;
        for mut one in [
            sighting(
                (trace, 3, Some(parent)),
                ("stock", "GET /stock", Server),
                (shift - 980, shift - 940),
            ),
            sighting((trace, 2, Some(1)), ("shop", "HTTP GET", Client), (shift + 10, shift + 70)),
            sighting((trace, 1, None), ("shop", "POST /order", Server), (shift, shift + 100)),
        ] {
            one.conversation = conversation.filter(|_| trace == 4);
            tracker.see(&one);
        }
    }
    let mut split = sighting((9, 1, None), ("bank", "POST /pay", Server), (1_060, 1_080));
    split.conversation = conversation;
    tracker.see(&split);
    let now = T0 + 10 * GRACE_NANOS;
    tracker.advance(now);
    let shown = throughline_web::continuity_json(&tracker.report(T0, now));
    insta::assert_snapshot!(serde_json::to_string_pretty(&shown).unwrap(), @"");
}

#[tokio::test]
async fn r2_6_the_page_says_that_all_is_well() {
    let site = Site::open();
    let empty = site.get("/continuity").await;
    assert_eq!(empty.status, StatusCode::OK);
    assert!(empty.body.contains("No span came in this time."));
    site.commit(fixtures::fraud(0xa1, recent_ns())).await;
    let deadline = std::time::Instant::now() + crate::LISTEN_LIMIT;
    // What is committed is counted a moment later.
    while site.get("/api/v1/continuity").await.json()["services"] == serde_json::json!([]) {
        assert!(std::time::Instant::now() < deadline, "it is never counted");
        tokio::task::yield_now().await;
    }
    let page = site.get("/continuity?since=6h").await;
    assert!(page.body.contains("All is well."), "{}", page.body);
    assert!(site.get("/overview").await.body.contains("href=\"/continuity\""));
}

#[tokio::test]
async fn r2_6_a_time_that_cannot_be_read_is_refused() {
    let site = Site::open();
    for path in
        ["/api/v1/continuity?since=soon", "/api/v1/continuity?until=1h", "/continuity?since=2h"]
    {
        assert_eq!(site.get(path).await.status, StatusCode::BAD_REQUEST, "{path}");
    }
}
