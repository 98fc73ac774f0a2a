//! Properties that the rest of the house relies on: no span is lost in a tree, summaries merge in
//! any order, ids and names parse what they print.

use proptest::prelude::*;
use throughline_trace::access::{AccessError, ApiKey, KeyHash, Keyring, Scope};
use throughline_trace::{
    FallbackState, Phase, Span, SpanId, StatusCode, StepName, TraceId, TraceSummary, TraceTree,
    Usage, Value, keys,
};

fn trace_id() -> TraceId {
    TraceId::from_u128(0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736)
}

fn span(id: u64, parent: Option<u64>, name: &str, start: u64) -> Span {
    let mut span = Span::new(trace_id(), SpanId::from_u64(id), parent.map(SpanId::from_u64), name);
    span.start_unix_nano = start;
    span.end_unix_nano = start + 10;
    span
}

prop_compose! {
    fn any_span()(
        id in 1u64..12, parent in proptest::option::of(1u64..14), start in 0u64..50,
        length in 0u64..20, failed: bool, shape in 0u8..6, tokens in 0i64..1000, name in "[a-z]{1,4}",
    ) -> Span {
        let mut span = span(id, parent, &name, start);
        span.end_unix_nano = start + length;
        if failed {
            span.status.code = StatusCode::Error;
            span.attributes.set(keys::ERROR_TYPE, "TIMEOUT");
        }
        match shape {
            0 => {
                span.attributes.set(keys::GEN_AI_OPERATION_NAME, "chat");
                span.attributes.set(keys::GEN_AI_REQUEST_MODEL, format!("m{}", tokens % 40));
                span.attributes.set(keys::GEN_AI_USAGE_INPUT_TOKENS, tokens);
                span.attributes.set(keys::COST_USD, tokens as f64 / 7.0);
            }
            1 => {
                span.attributes.set(keys::GEN_AI_OPERATION_NAME, "execute_tool");
                span.attributes.set(keys::GEN_AI_TOOL_NAME, "search");
            }
            2 => span.attributes.set(keys::FALLBACK_DECISION, "triggered"),
            3 => span.attributes.set(keys::AGENT_ID, format!("agent{}", tokens % 30)),
            _ => {}
        }
        span
    }
}

fn summary_of(spans: &[Span]) -> TraceSummary {
    let mut summary = TraceSummary::empty(trace_id());
    for span in spans {
        summary.add_span(span, span.end_unix_nano + 1);
    }
    summary
}

proptest! {
    #[test]
    fn a_tree_keeps_every_span_and_marks_what_does_not_fit(
        spans in proptest::collection::vec(any_span(), 0..40),
    ) {
        let ids: std::collections::HashSet<_> = spans.iter().map(|s| s.span_id).collect();
        let tree = TraceTree::build(spans.clone());
        prop_assert_eq!(tree.nodes().len(), spans.len());
        for (at, node) in tree.nodes().iter().enumerate() {
            match node.parent {
                Some(parent) => {
                    prop_assert!(parent < at, "parents come before their children");
                    let parent = &tree.nodes()[parent];
                    prop_assert_eq!(parent.depth + 1, node.depth);
                    prop_assert_eq!(Some(parent.span.span_id), node.span.parent_span_id);
                }
                None => {
                    let named = node.span.parent_span_id;
                    prop_assert_eq!(node.depth, 0);
                    prop_assert_eq!(node.is_orphan, named.is_some_and(|id| !ids.contains(&id)));
                    prop_assert!(named.is_none() || node.is_orphan || node.is_cycle);
                }
            }
        }
        let below: usize = tree.nodes().iter().filter(|n| n.parent.is_none()).map(|n| n.descendants + 1).sum();
        prop_assert_eq!(below, spans.len());
    }

    #[test]
    fn summaries_merge_in_any_order_and_grouping(
        spans in proptest::collection::vec(any_span(), 0..40), cut_a in 0usize..40, cut_b in 0usize..40,
    ) {
        let whole = summary_of(&spans);
        let (low, high) = (cut_a.min(cut_b).min(spans.len()), cut_a.max(cut_b).min(spans.len()));
        let parts = [&spans[..low], &spans[low..high], &spans[high..]].map(summary_of);
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
            let mut left = TraceSummary::empty(trace_id());
            for at in order {
                left.merge(parts[at].clone());
            }
            prop_assert_eq!(&left, &whole);
            let mut right = parts[order[1]].clone();
            right.merge(parts[order[2]].clone());
            let mut grouped = parts[order[0]].clone();
            grouped.merge(right);
            prop_assert_eq!(&grouped, &whole);
        }
    }

    #[test]
    fn ids_parse_what_they_print_and_nothing_panics(number: u128, text in ".{0,40}") {
        let id = TraceId::from_u128(number);
        prop_assert_eq!(id.to_string().parse::<TraceId>().unwrap(), id);
        prop_assert_eq!(id.to_string().to_uppercase().parse::<TraceId>().unwrap(), id);
        let _ = text.parse::<TraceId>();
        let _ = text.parse::<SpanId>();
        let _ = text.parse::<StepName>();
    }

    #[test]
    fn json_survives_the_value_form(text in "\\PC{0,20}", number: i64, float in -1e12f64..1e12) {
        let json = serde_json::json!({"t": text, "n": number, "f": float, "l": [null, true]});
        prop_assert_eq!(Value::from_json(json.clone()).to_json(), json);
    }
}

#[test]
fn a_tree_reads_as_text() {
    let mut failed = span(5, Some(2), "attempt gpt-4o", 5);
    failed.status.code = StatusCode::Error;
    failed.attributes.set(keys::ERROR_TYPE, "TIMEOUT");
    let spans = vec![
        span(1, None, "invoke_agent fraud", 0),
        failed,
        span(2, Some(1), "chat gpt-4o", 4),
        span(2, Some(1), "chat again", 6),
        span(9, Some(77), "lost", 1),
        span(20, Some(21), "ring a", 2),
        span(21, Some(20), "ring b", 3),
    ];
    insta::assert_snapshot!(TraceTree::build(spans).to_text(), @r"
    invoke_agent fraud
      chat gpt-4o
        attempt gpt-4o ! TIMEOUT
      = chat again
    ? lost (orphan of 000000000000004d)
    @ ring a
      ring b
    ");
}

#[test]
fn a_chain_of_a_hundred_thousand_levels_needs_no_stack() {
    let spans = (1..=100_000).map(|id| span(id, (id > 1).then(|| id - 1), "level", id)).collect();
    let tree = TraceTree::build(spans);
    assert_eq!(tree.nodes().last().map(|node| node.depth), Some(99_999));
}

#[test]
fn attempts_and_agent_runs_do_not_count_tokens_twice() {
    let mut call = span(2, Some(1), "chat gpt-4o", 1);
    call.attributes.set(keys::GEN_AI_OPERATION_NAME, "chat");
    call.attributes.set(keys::GEN_AI_USAGE_INPUT_TOKENS, 100);
    call.attributes.set(keys::COST_USD, 0.25);
    let mut attempt = call.clone();
    attempt.attributes.set(keys::ROLE, "attempt");
    attempt.attributes.set(keys::RETRY_COUNT, 1);
    let mut run = call.clone();
    run.attributes.set(keys::GEN_AI_OPERATION_NAME, "invoke_agent");
    let mut fallback = span(4, Some(1), "fallback score", 3);
    fallback.attributes.set(keys::FALLBACK_DECISION, "triggered");
    fallback.attributes.set(keys::FALLBACK_RESULT, "success");
    let summary = summary_of(&[call, attempt, run, fallback]);
    assert_eq!((summary.input_tokens, summary.llm_calls, summary.retries), (100, 1, 1));
    assert_eq!(summary.cost_usd(), 0.25);
    assert_eq!(summary.fallback, FallbackState::Degraded);
}

#[test]
fn a_part_that_is_larger_than_its_whole_was_left_out_of_it() {
    let read = |counts: [(&str, i64); 3]| {
        let usage = Usage::from_attributes(&counts.into_iter().collect()).unwrap();
        (usage.input_tokens, usage.output_tokens)
    };
    let input = keys::GEN_AI_USAGE_INPUT_TOKENS;
    let (cached, written) = (keys::GEN_AI_USAGE_CACHE_READ, keys::GEN_AI_USAGE_CACHE_WRITE);
    assert_eq!(read([(input, 100), (cached, 64), (written, 36)]), (100, 0));
    // Anthropic's total leaves cached tokens out.
    assert_eq!(read([(input, 10), (cached, 64), (written, 36)]), (110, 0));
    let (output, thought) = (keys::GEN_AI_USAGE_OUTPUT_TOKENS, keys::GEN_AI_USAGE_REASONING);
    assert_eq!(read([(input, 1), (output, 5), (thought, 8)]), (1, 13));
}

#[test]
fn step_names_have_three_parts_and_foreign_phases_are_mapped() {
    let name: StepName = "researcher.plan.web_search".parse().unwrap();
    assert_eq!(
        (name.agent(), name.phase(), name.domain()),
        ("researcher", Phase::Plan, "web_search")
    );
    assert_eq!(name.to_string(), "researcher.plan.web_search");
    for wrong in
        ["researcher.plan", "researcher.tool_call.x", "Res.plan.x", "a.plan.", "a.plan.b c"]
    {
        assert!(wrong.parse::<StepName>().is_err(), "{wrong}");
    }
    assert_eq!(Phase::from_text("tool_call"), Some(Phase::Act));
    assert_eq!(Phase::from_text("refine"), Some(Phase::Reflect));
}

#[test]
fn a_keyring_lets_in_live_keys_with_the_scope_and_nobody_else() {
    let key = |scopes: &[Scope], revoked| ApiKey {
        id: "k1".to_owned(),
        name: "test".to_owned(),
        scopes: scopes.to_vec(),
        created_unix_nano: 1,
        revoked_unix_nano: revoked,
    };
    let ring = Keyring::required();
    ring.replace([
        (KeyHash::of("tl_read"), key(&[Scope::Read], None)),
        (KeyHash::of("tl_admin"), key(&[Scope::Admin], None)),
        (KeyHash::of("tl_gone"), key(&[Scope::Admin], Some(2))),
    ]);
    assert!(ring.check(Some("tl_read"), Scope::Read).unwrap().is_some());
    assert!(ring.check(Some(" tl_admin\n"), Scope::Ingest).unwrap().is_some());
    assert_eq!(ring.check(None, Scope::Read), Err(AccessError::Missing));
    assert_eq!(ring.check(Some("tl_gone"), Scope::Read), Err(AccessError::Unknown));
    assert!(matches!(ring.check(Some("tl_read"), Scope::Ingest), Err(AccessError::Scope { .. })));
    assert_eq!(Keyring::open().check(None, Scope::Admin), Ok(None));
    assert_eq!(Keyring::key_of_header("Bearer tl_a").as_deref(), Some("tl_a"));
    assert_eq!(Keyring::key_of_header("Basic eDp0bF9i").as_deref(), Some("tl_b"));
    assert_eq!(Keyring::key_of_header("Digest x"), None);
}
