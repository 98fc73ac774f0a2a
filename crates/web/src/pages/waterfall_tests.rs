//! Rows as readable lines, and what long, deep and odd traces become.

use throughline_trace::{Span, Status, StatusCode, TraceId, TraceSummary};

use super::*;

fn span(id: u64, parent: Option<u64>, name: &str, from_ms: u64, to_ms: u64) -> Span {
    let parent = parent.map(SpanId::from_u64);
    let mut span = Span::new(TraceId::from_u128(1), SpanId::from_u64(id), parent, name);
    span.start_unix_nano = 1_000_000_000 + from_ms * 1_000_000;
    span.end_unix_nano = 1_000_000_000 + to_ms * 1_000_000;
    span
}

fn trace(spans: Vec<Span>) -> StoredTrace {
    let mut summary = TraceSummary::empty(TraceId::from_u128(1));
    for span in &spans {
        summary.add_span(span, 0);
    }
    StoredTrace {
        summary,
        spans,
        logs: Vec::new(),
        decisions: Vec::new(),
        truncated: None,
        is_skeleton: false,
    }
}

/// The value of an attribute in a piece of HTML.
fn value<'a>(html: &'a str, name: &str) -> &'a str {
    let start = format!("{name}=\"");
    html.split_once(&start)
        .and_then(|(_, rest)| rest.split_once('"'))
        .map_or("", |(value, _)| value)
}

/// Rows as lines: classes, indented text, place of the bar.
fn picture(view: &View<'_>) -> String {
    let html = rows(view, 0, usize::MAX).into_string();
    let mut picture = String::new();
    for piece in html.split("<div class=\"r ").skip(1) {
        let class = piece.split('"').next().unwrap();
        let level: usize = value(piece, "aria-level").parse().unwrap();
        let bar = piece.split_once("<rect class=\"b\"").unwrap().1;
        let name = piece.split_once("title=").map_or("", |(_, rest)| rest);
        let name = name.split_once("<a class=\"nm\"").map_or("", |(_, rest)| rest);
        let mut text = String::new();
        for part in name.split_once('>').map_or("", |(_, rest)| rest).split('<') {
            let shown = part.split_once('>').map_or(part, |(_, shown)| shown).trim();
            if !shown.is_empty() {
                text = text + " | " + shown;
            }
        }
        let indent = "  ".repeat(level - 1);
        let _ = writeln!(
            picture,
            "{indent}[{class}]{text} @{}+{}",
            value(bar, "x"),
            value(bar, "width")
        );
    }
    picture
}

#[test]
fn attempts_branches_and_strays_are_marked() {
    let mut spans = vec![
        span(1, None, "invoke_agent shop", 0, 100),
        span(2, Some(1), "fallback pay", 10, 90),
        span(3, Some(2), "chat gpt-4o", 10, 50),
        span(4, Some(3), "attempt gpt-4o", 10, 20),
        span(5, Some(3), "attempt gpt-4o", 25, 50),
        span(6, Some(2), "execute_tool queue", 50, 90),
        span(7, Some(6), "publish", 60, 60),
        span(8, Some(99), "late", 95, 100),
    ];
    spans[1].attributes.set(keys::FALLBACK_DECISION, "triggered");
    spans[1].attributes.set(keys::FALLBACK_BRANCH, "degraded");
    spans[2].attributes.set(keys::ROLE, "llm_call");
    spans[2].attributes.set(keys::RETRY_COUNT, 1);
    spans[2].attributes.set(keys::FALLBACK_BRANCH, "primary");
    spans[2].attributes.set(keys::ERROR_TYPE, "TIMEOUT");
    spans[2].status = Status { code: StatusCode::Error, message: "TIMEOUT".to_owned() };
    for (at, nth) in [(3, 0), (4, 1)] {
        spans[at].attributes.set(keys::ROLE, "attempt");
        spans[at].attributes.set(keys::RETRY_COUNT, nth);
    }
    spans[5].attributes.set(keys::ROLE, "tool");
    spans[5].attributes.set(keys::FALLBACK_BRANCH, "degraded");
    let trace = trace(spans);
    insta::assert_snapshot!(picture(&View::new(&trace)), @r"
    [other] | invoke_agent shop | unknown_service | 100 ms @0.000%+100.000%
      [fallback] | fallback pay | fell back | 80.0 ms @10.000%+80.000%
        [llm err] | chat gpt-4o | TIMEOUT | 1 retry | 40.0 ms @10.000%+40.000%
          [attempt lost] | attempt gpt-4o | given up | 10.0 ms @10.000%+10.000%
          [attempt] | attempt gpt-4o | retry 1 | 25.0 ms @25.000%+25.000%
        [tool deg branch] | execute_tool queue | degraded | 40.0 ms @50.000%+40.000%
          [other deg] | publish | 0 ns @60.000%+3
    [other orphan] | late | parent missing | unknown_service | 5.00 ms @95.000%+5.000%
    ");
}

/// Where vertical lines run, as text: one string a row, `|` for a line that goes on below.
fn open_lines(spans: Vec<Span>) -> Vec<String> {
    let trace = trace(spans);
    let view = View::new(&trace);
    let nodes = view.tree.nodes();
    nodes
        .iter()
        .zip(&view.facts)
        .map(|(node, facts)| {
            (1..=node.depth)
                .map(|level| if facts.lines & (1 << level) != 0 { '|' } else { ' ' })
                .collect()
        })
        .collect()
}

#[test]
fn lines_run_down_to_the_last_child_and_no_further() {
    let lines = open_lines(vec![
        span(1, None, "root", 0, 100),
        span(2, Some(1), "a", 1, 40),
        span(3, Some(2), "a1", 2, 10),
        span(4, Some(2), "a2", 12, 20),
        span(5, Some(1), "b", 50, 90),
        span(6, Some(5), "b1", 51, 60),
        span(7, None, "second root", 95, 99),
    ]);
    assert_eq!(lines, ["", "|", "||", "| ", " ", "  ", ""]);
}

#[test]
fn a_long_trace_comes_in_parts_that_join_without_gap_or_repetition() {
    let count = ROWS_WITH_PAGE + 250;
    let mut spans = vec![span(1, None, "root", 0, 1_000)];
    spans.extend((2..=count as u64).map(|id| span(id, Some(1), "child", id, id + 1)));
    let trace = trace(spans);
    let view = View::new(&trace);
    let first = rows(&view, 0, ROWS_WITH_PAGE).into_string();
    let next =
        format!("data-rows=\"/traces/{}/rows?from={ROWS_WITH_PAGE}\"", trace.summary.trace_id);
    assert!(first.contains(&next), "the rest is announced");
    let rest = rows(&view, ROWS_WITH_PAGE, ROWS_PER_ANSWER).into_string();
    assert!(!rest.contains("data-rows"), "nothing is left");
    let ids = |html: &str| -> Vec<String> {
        html.split("id=\"s-").skip(1).map(|piece| piece[..16].to_owned()).collect()
    };
    let mut all = ids(&first);
    assert_eq!(all.len(), ROWS_WITH_PAGE);
    all.extend(ids(&rest));
    let unique: std::collections::BTreeSet<_> = all.iter().collect();
    assert_eq!((all.len(), unique.len()), (count, count));
    assert!(rows(&view, count + 5, 10).into_string().is_empty());
}

#[test]
fn deep_levels_are_compressed_and_numbered() {
    let spans =
        (1..=60_u64).map(|id| span(id, (id > 1).then(|| id - 1), "level", id, 200 - id)).collect();
    let trace = trace(spans);
    let html = rows(&View::new(&trace), 0, 100).into_string();
    assert!(html.contains("class=\"g i24\""), "the deepest indentation is used");
    assert!(
        !html.contains("class=\"g i25\""),
        "and none beyond, which the style sheet does not know"
    );
    assert!(html.contains(">59</span>"), "the level is told as a number");
    assert_eq!(level_x(12) + (24 - 12) * DEEP_UNITS, level_x(59));
}

#[test]
fn rulers_have_round_ticks() {
    let labels = |length: u64| {
        ticks(length).into_iter().map(|(_, label)| label).collect::<Vec<_>>().join(" ")
    };
    let shown = [1, 7, 420_000_000, 6_120_000_000, 60_000_000_000, 90 * 60_000_000_000, u64::MAX]
        .map(labels);
    insta::assert_snapshot!(shown.join("\n"), @r"
    0 1 ns
    0 2 ns 4 ns 6 ns
    0 100 ms 200 ms 300 ms 400 ms
    0 1 s 2 s 3 s 4 s 5 s 6 s
    0 10 s 20 s 30 s 40 s 50 s 60 s
    0 20 min 40 min 60 min 80 min
    0 50000 d 100000 d 150000 d 200000 d
    ");
}

#[test]
fn times_outside_the_trace_stay_on_the_line() {
    let mut odd = span(1, None, "odd", 0, 10);
    odd.events.push(throughline_trace::Event {
        time_unix_nano: 1,
        name: "early".to_owned(),
        ..Default::default()
    });
    odd.events.push(throughline_trace::Event {
        time_unix_nano: u64::MAX,
        name: "late".to_owned(),
        ..Default::default()
    });
    let trace = trace(vec![odd, span(2, Some(1), "", 3, 3)]);
    let view = View::new(&trace);
    let html = rows(&view, 0, 10).into_string();
    assert!(html.contains("(no name)"));
    for piece in html.split(" x=\"").skip(1) {
        let x: f64 = piece.split('%').next().unwrap().parse().unwrap();
        assert!((0.0..=100.0).contains(&x), "{x}");
    }
    assert!(overview(&view).into_string().contains("<path"));
}
