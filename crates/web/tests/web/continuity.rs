//! Where traces broke, as the API and the pages show it.

use axum::http::StatusCode;
use serde_json::Value;
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
    let mut sighting =
        Sighting::of(&span, SpanRole::Other, service.into(), Sighting::name(&span.name));
    sighting.received_unix_nano = span.end_unix_nano;
    sighting
}

/// A report of one lost header, one split trace and a skewed clock.
fn shown() -> Value {
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
    throughline_web::continuity_json(&tracker.report(T0, now))
}

/// Only these, or all but these.
fn part(keys: [&str; 2], is_in: bool) -> String {
    let Value::Object(mut shown) = shown() else { return String::new() };
    shown.retain(|key, _| keys.contains(&key.as_str()) == is_in);
    serde_json::to_string_pretty(&shown).unwrap()
}

#[test]
fn r2_6_the_counts_of_a_report_as_json() {
    insta::assert_snapshot!(part(["services", "coverage"], true), @r#"
    {
      "coverage": {
        "folded_spans": 0,
        "forgotten_spans": 0,
        "from": "2023-11-14T16:34:00.000000000Z",
        "is_rebuilding": false,
        "left_out_findings": 0,
        "mended_from": "2023-11-14T16:34:00.000000000Z",
        "missed_spans": 0,
        "unnamed_spans": 0,
        "untracked_spans": 0
      },
      "services": [
        {
          "mended_late": 0,
          "orphans": 1,
          "remote": 0,
          "roots": 0,
          "score": 0.75,
          "service": "stock",
          "spans": 4,
          "untracked": 0,
          "waiting": 0,
          "with_parent": 4
        },
        {
          "mended_late": 0,
          "orphans": 0,
          "remote": 0,
          "roots": 4,
          "score": 1.0,
          "service": "shop",
          "spans": 8,
          "untracked": 0,
          "waiting": 0,
          "with_parent": 4
        },
        {
          "mended_late": 0,
          "orphans": 0,
          "remote": 0,
          "roots": 1,
          "score": null,
          "service": "bank",
          "spans": 1,
          "untracked": 0,
          "waiting": 0,
          "with_parent": 0
        }
      ]
    }
    "#);
}

#[test]
fn r2_6_the_findings_of_a_report_as_json() {
    insta::assert_snapshot!(part(["services", "coverage"], false), @r#"
    {
      "clock_skews": [
        {
          "calls": 3,
          "examples": [
            "00000000000000000000000000000003",
            "00000000000000000000000000000002",
            "00000000000000000000000000000001"
          ],
          "from": "shop",
          "last": "2023-11-14T22:14:00.090000000Z",
          "odd_calls": 3,
          "offset_ms": -1000.0,
          "to": "stock"
        }
      ],
      "edges_left_out": 0,
      "is_well": false,
      "missing_roots": {
        "count": 0,
        "examples": []
      },
      "since": "2023-11-14T22:14:00.000000000Z",
      "split_traces": [
        {
          "call": "HTTP GET",
          "count": 1,
          "examples": [
            {
              "callee": "00000000000000000000000000000009",
              "caller": "00000000000000000000000000000004"
            }
          ],
          "first": "2023-11-14T22:14:01.080000000Z",
          "from": "shop",
          "hint": "the second service began a trace of its own: check that the caller's client writes traceparent, that nothing in between strips it, and that the service reads it",
          "last": "2023-11-14T22:14:01.080000000Z",
          "operation": "POST /pay",
          "to": "bank"
        }
      ],
      "suspected_edges": [
        {
          "caller": "HTTP GET",
          "count": 1,
          "edge": "shop → stock (GET /stock)",
          "examples": [
            "00000000000000000000000000000004"
          ],
          "first": "2023-11-14T22:14:00.100000000Z",
          "from": "shop",
          "hint": "the caller's span was not exported, or its traceparent header was changed on the way: check the caller's exporter for drops, and every proxy in between",
          "kind": "call",
          "last": "2023-11-14T22:14:00.100000000Z",
          "operation": "GET /stock",
          "to": "stock"
        }
      ]
    }
    "#);
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
