//! A row of the list.

use throughline_trace::{Span, SpanId, Status, StatusCode, keys};

use super::*;

fn summary() -> TraceSummary {
    let id = TraceId::from_u128(0xfeed);
    let mut root = Span::new(id, SpanId::from_u64(1), None, "invoke_agent <b>fraud</b>");
    root.start_unix_nano = 1_000_000_000;
    root.end_unix_nano = 3_500_000_000;
    root.attributes.set(keys::AGENT_ID, "fraud & co");
    root.status = Status { code: StatusCode::Error, message: "boom".to_owned() };
    let mut summary = TraceSummary::empty(id);
    summary.add_span(&root, 5);
    summary
}

#[test]
fn a_row_escapes_what_came_from_outside() {
    let html = row(&summary(), 5_000_000_000, 10_000_000_000).into_string();
    assert!(html.contains("invoke_agent &lt;b&gt;fraud&lt;/b&gt;"), "{html}");
    assert!(html.contains("?agent=fraud%20%26%20co"), "{html}");
    assert!(!html.contains("<b>fraud"), "{html}");
}

#[test]
fn the_bar_is_the_share_of_the_longest_trace() {
    let html = row(&summary(), 5_000_000_000, 10_000_000_000).into_string();
    assert!(html.contains(r#"<rect class="bar" width="50.00%""#), "{html}");
    assert!(html.contains("2.50 s"), "{html}");
    assert!(html.contains("1 error"), "{html}");
}
