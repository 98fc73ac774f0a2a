//! `/api/v1/openapi.json`: the API's description. A test holds it against the table of routes and
//! the lists of parameters, so that it stays true.

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};

use crate::api::audit::READS_PARAMS;
use crate::api::openapi_bodies;
use crate::api::series::SERIES_PARAMS;
use crate::filters::{DECISION_PARAMS, LOG_PARAMS, PAGING, SESSION_PARAMS, TRACE_PARAMS};
use crate::params::{DEFAULT_LIMIT, MAX_LIMIT};
use crate::state::Shared;

/// A path, what it answers, its query parameters, and the media type of the answer.
type Entry = (&'static str, &'static str, Vec<&'static str>, &'static str);

const JSON: &str = "application/json";

/// `GET /api/v1/openapi.json`
pub(crate) async fn document(State(app): State<Shared>) -> Json<Value> {
    Json(describe(&app.web.version))
}

fn entries() -> Vec<Entry> {
    [entries_of_traces(), further_entries(), audit_entries(), rollup_entries()].concat()
}

fn entries_of_traces() -> Vec<Entry> {
    let with = |lists: &[&[&'static str]]| lists.concat();
    vec![
        (
            "/api/v1/traces",
            "Summaries of traces, newest first: {items, next, search}. A search that stops for its limits before the page is full says so in `search.searched_until`; `next` goes on from there. `search.traces_cut` counts traces that cannot be looked at whole, as they are too large or in part retired.",
            with(&[&TRACE_PARAMS, &PAGING]),
            JSON,
        ),
        (
            "/api/v1/sessions",
            "Sessions with their totals (traces, turns, agents, models, tokens, cost, errors), the one whose trace started last first: {items, next, search}.",
            with(&[&SESSION_PARAMS, &PAGING]),
            JSON,
        ),
        (
            "/api/v1/traces/{trace_id}",
            "A whole trace: {summary, orphan_count, is_skeleton, truncated, spans, decisions, logs}; spans in reading order, depth first.",
            vec![],
            JSON,
        ),
        (
            "/api/v1/traces/{trace_id}/tree",
            "The tree of a trace as indented text: `?` marks orphans, `=` duplicates, `@` cycles, `!` failures.",
            vec![],
            "text/plain",
        ),
    ]
}

fn further_entries() -> Vec<Entry> {
    let with = |lists: &[&[&'static str]]| lists.concat();
    vec![
        ("/api/v1/openapi.json", "This description.", vec![], JSON),
        (
            "/api/v1/decisions",
            "Decisions, newest first: {items, next}; each with its place in the audit log as `chain`: {number, link}.",
            with(&[&DECISION_PARAMS, &PAGING]),
            JSON,
        ),
        (
            "/api/v1/decisions/gaps",
            "Decisions that an instance numbered and that never arrived, those noticed last first: {items}.",
            vec![],
            JSON,
        ),
        (
            "/api/v1/decisions/{decision_id}",
            "A decision, the chain that led to it, first ancestor first, and its place in the audit log: {decision, chain, audit}.",
            vec![],
            JSON,
        ),
        (
            "/api/v1/logs",
            "Log records, newest first: {items, next}.",
            with(&[&LOG_PARAMS, &PAGING]),
            JSON,
        ),
        ("/api/v1/metrics", "Names of stored metrics: {items}.", vec![], JSON),
        (
            "/api/v1/metrics/{name}",
            "The points of a metric: {name, unit, series}.",
            vec!["since"],
            JSON,
        ),
        (
            "/api/v1/facets",
            "Values that filters may be set to, the most frequent of the recent ones first.",
            vec![],
            JSON,
        ),
        ("/api/v1/stats", "How much is stored.", vec![], JSON),
        (
            "/api/v1/segments",
            "The files of the store: open, closed, sealed, skeleton, retired, missing or damaged.",
            vec![],
            JSON,
        ),
        (
            "/api/v1/live",
            "Server-sent events: `committed` with {batch_no, traces, decisions, log_count, metric_count} as soon as something is durable, `resync` with {missed} when the listener was too slow. Takes the filters of its kind.",
            vec!["kind", "agent", "session"],
            "text/event-stream",
        ),
    ]
}

fn audit_entries() -> Vec<Entry> {
    vec![
        (
            "/api/v1/audit/verify",
            "How the audit log stands: {log, head, key, checkpoint_count, last_checkpoint, anchors, last_verification}.",
            vec![],
            JSON,
        ),
        (
            "/api/v1/audit/reads",
            "Who read decisions, newest first: {items, next}. Needs the scope `admin`.",
            READS_PARAMS.to_vec(),
            JSON,
        ),
        (
            "/api/v1/audit/holds",
            "Legal holds, released ones too: {items}. Needs the scope `admin`.",
            vec![],
            JSON,
        ),
    ]
}

fn rollup_entries() -> Vec<Entry> {
    vec![
        (
            "/api/v1/series",
            "Measures over time from rollups, by a fixed lattice of dimensions (all; agent; agent and phase; model; tool; agent, version and branch): {measures, group_by, kinds, resolution, from, to, step_seconds, groups, groups_left_out, coverage}. Steps without spans or decisions have no point; a value is null where there is nothing to tell from. `coverage.whole` says whether everything that was acknowledged is counted; `coverage.incomplete_days` are days of which something is missing for good.",
            SERIES_PARAMS.to_vec(),
            JSON,
        ),
        (
            "/api/v1/agents",
            "Agents over a time, the busiest first, with totals: {items, left_out, coverage}.",
            vec!["since", "until"],
            JSON,
        ),
        (
            "/api/v1/models",
            "Models over a time, the busiest first, with totals: {items, left_out, coverage}.",
            vec!["since", "until"],
            JSON,
        ),
        (
            "/api/v1/tools",
            "Tools over a time, the busiest first, with totals: {items, left_out, coverage}.",
            vec!["since", "until"],
            JSON,
        ),
        (
            "/api/v1/continuity",
            "Where traces broke, the last hour unless `since` says otherwise (six hours are kept): {since, is_well, services, suspected_edges, edges_left_out, missing_roots, split_traces, clock_skews, coverage}. A service's `score` is the share of its spans with a parent id whose parent is there or legitimately remote; null without such spans.",
            vec!["since"],
            JSON,
        ),
    ]
}

fn parameter_text(name: &str) -> &'static str {
    match name {
        "q" => {
            "Traces: a query such as `model:gpt-4o tokens>5000 \"free text\"` (docs/search.md). Decisions and logs: part of the reason or body, in any case of letters."
        }
        "agent" => "Only of this agent.",
        "session" => "Only of this session or conversation.",
        "model" => "Only with a call answered by this model.",
        "service" => "Only from this service (`service.name`).",
        "error" => "`true`: only traces with a failed span; `false`: only without.",
        "fallback" => "How far fallbacks went: `none`, `skipped`, `degraded` or `failed`.",
        "min_duration" => "At least this long: `250ms`, `1.5s`, `2m`, or a number of milliseconds.",
        "max_duration" => "At most this long, written the same way.",
        "since" => {
            "At or after: back from now (`15m`, `24h`, `7d`), RFC 3339, or Unix nanoseconds."
        }
        "until" => "Before, written the same way.",
        "measure" => {
            "What each point tells, joined by commas: `spans`, `count`, `rate`, `errors`, `error_rate`, `outcome_{outcome}`, `p50`, `p75`, `p90`, `p95`, `p99`, `mean`, `ttft_p50`, `ttft_p90`, `ttft_p95`, `ttft_p99`, `input_tokens`, `output_tokens`, `cached_tokens`, `reasoning_tokens`, `tokens`, `cost_usd`, `retries`, `fallbacks`, `fallback_success_rate`, `fallback_activation_ratio`, `decisions`, `confidence`; `count` when left out."
        }
        "group_by" => {
            "One series for each value: `agent`, `phase`, `model`, `tool`, `version`, `branch`, joined by commas."
        }
        "operation" => {
            "What counts and durations are of, joined by commas: `root` (spans without a parent) or roles such as `agent_run`, `step`, `llm_call`, `tool`; what the dimensions are about when left out."
        }
        "phase" => "Only of this phase: `plan`, `act`, `observe` or `reflect`.",
        "tool" => "Only of this tool.",
        "version" => "Only of this version of the model, agent or service.",
        "branch" => "Only of this branch of a fallback: `primary` or `degraded`.",
        "step" => {
            "Time between points, whole minutes: `1m`, `5m`, `1h`, `1d`; one that gives at most 120 points when left out."
        }
        "stage" => "Only of this stage.",
        "action" => "Only with this action.",
        "trace_id" => "Only of this trace (32 hexadecimal characters).",
        "model_version" => "Only of this version of a model.",
        "input_hash" => "Only on the input with this hash.",
        "instance" => "Only recorded by this process.",
        "derived" => "`true`: only those that the server derived; `false`: only recorded ones.",
        "min_confidence" => "At least this sure, 0 to 1.",
        "max_confidence" => "At most this sure, 0 to 1.",
        "severity" => "At least this severe: `trace`, `debug`, `info`, `warn`, `error` or `fatal`.",
        "event_name" => "Only events of this name.",
        "cursor" => "Where the page begins: `next` of the page before, unchanged.",
        "limit" => "Items of a page.",
        "kind" => "`traces` or `decisions`; both when left out.",
        _ => "",
    }
}

fn describe(version: &str) -> Value {
    let mut paths: Map<String, Value> = entries()
        .into_iter()
        .map(|(path, text, query, media)| {
            let in_path = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
            let in_path = in_path.map(|name| {
                json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } })
            });
            let in_query = query.iter().map(|name| {
                let schema = match *name {
                    "limit" => json!({ "type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT }),
                    "error" | "derived" => json!({ "type": "boolean" }),
                    "min_confidence" | "max_confidence" => json!({ "type": "number", "minimum": 0, "maximum": 1 }),
                    _ => json!({ "type": "string" }),
                };
                json!({ "name": name, "in": "query", "description": parameter_text(name), "schema": schema })
            });
            let failure = |text: &str| json!({ "description": text, "content": { JSON: { "schema": { "$ref": "#/components/schemas/Failure" } } } });
            let entry = json!({ "get": {
                "summary": text,
                "parameters": in_path.chain(in_query).collect::<Vec<_>>(),
                "responses": {
                    "200": { "description": "The answer.", "content": { media: {} } },
                    "400": failure("A parameter cannot be read; the message names it."),
                    "401": failure("A key is needed."),
                    "403": failure("The key may not read."),
                    "404": failure("It is not stored."),
                },
            } });
            (path.to_owned(), entry)
        })
        .collect();
    for (path, operation) in openapi_bodies::operations() {
        paths.entry(path).or_insert_with(|| json!({}))["post"] = operation;
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": "Throughline", "version": version, "license": { "name": "Apache-2.0" } },
        "security": [{ "key": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": { "key": { "type": "http", "scheme": "bearer", "description": "An API key with the scope `read`; not needed while access control is off." } },
            "schemas": { "Failure": { "type": "object", "required": ["error"], "properties": { "error": {
                "type": "object", "required": ["code", "message", "hint"], "properties": {
                    "code": { "type": "string" }, "message": { "type": "string" }, "hint": { "type": "string" },
                },
            } } } },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_of_the_api_is_described_and_no_other() {
        let mut described: Vec<&str> = entries().into_iter().map(|(path, ..)| path).collect();
        described.extend(openapi_bodies::operations().into_iter().map(|(path, _)| path));
        let mut routed = crate::route_paths();
        routed.retain(|path| path.starts_with("/api/v1/"));
        described.sort_unstable();
        described.dedup();
        routed.sort_unstable();
        assert_eq!(described, routed);
    }

    #[test]
    fn every_parameter_has_a_text() {
        for (path, _, parameters, _) in entries() {
            for name in parameters {
                assert!(!parameter_text(name).is_empty(), "{name} of {path}");
            }
        }
    }
}
