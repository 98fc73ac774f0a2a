//! Every operation of the API: the router and the description are made from this one table.

use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use throughline_api::{Body, BodySchema, EVENTS, JSON, TEXT, schema_of};
use throughline_store::sql_views;

use super::operation::Operation;
use super::record::{MAX_BODY_BYTES, MAX_DECISIONS};
use super::series::{SERIES_PARAMS, TIME_PARAMS};
use super::shapes::{Page, SearchedPage};
use super::{
    audit, continuity, contracts, decision_schema, decisions, gateway, governing, groups, logs,
    metrics, openapi, overview, record, records, series, shapes, signals, sql, traces,
};
use crate::filters::{DECISION_PARAMS, LOG_PARAMS, PAGING, SESSION_PARAMS, TRACE_PARAMS};
use crate::form::MAX_FORM_BYTES;
use crate::live;
use crate::sql::SqlAnswerShape;
use throughline_store::{MAX_ANSWER_POINTS, MAX_POINTS, MAX_SERIES};

/// A path that names what is not stored.
const NOT_STORED: (u16, &str) = (404, "It is not stored: not yet, or no longer.");

/// All operations.
pub(crate) fn operations() -> Vec<Operation> {
    let parts = [
        of_traces(),
        of_decisions(),
        of_records(),
        of_rollups(),
        of_sql(),
        of_audit(),
        of_contracts(),
        of_signals(),
        of_rules(),
        about_the_server(),
    ];
    parts.into_iter().flatten().collect()
}

fn of_traces() -> Vec<Operation> {
    vec![
        Operation::get("/api/v1/traces", "listTraces", get(traces::list))
            .says("traces", "Summaries of traces, newest first")
            .about("A page that stops for its limits before it is full says so in `search.searched_until`; `next` goes on from there. `search.traces_cut` counts traces that cannot be looked at whole, as they are too large or in part retired; `search.unindexed_spans` spans that were walked because the search index does not have their segment whole yet.")
            .takes(&[&TRACE_PARAMS, &PAGING])
            .answers::<SearchedPage<shapes::Summary>>(),
        Operation::get("/api/v1/traces/{trace_id}", "getTrace", get(traces::one))
            .says("traces", "A whole trace")
            .about("Spans in reading order, depth first, with messages, logs and decisions.")
            .answers::<shapes::Trace>()
            .fails(&[NOT_STORED]),
        Operation::get("/api/v1/traces/{trace_id}/tree", "getTree", get(traces::tree))
            .says("traces", "The tree of a trace as indented text")
            .about("`?` marks orphans, `=` duplicates, `@` cycles, `!` failures.")
            .answers_as(TEXT)
            .fails(&[NOT_STORED]),
        Operation::get("/api/v1/sessions", "listSessions", get(traces::sessions))
            .says("traces", "Sessions with their totals, the one whose trace started last first")
            .takes(&[&SESSION_PARAMS, &PAGING])
            .answers::<SearchedPage<groups::Session>>(),
        Operation::get("/api/v1/users", "listUsers", get(traces::users))
            .says("traces", "Users with their totals, the one whose trace started last first")
            .about("A user is what `user.id` (or `enduser.id`) of some span names.")
            .takes(&[&SESSION_PARAMS, &PAGING])
            .answers::<SearchedPage<groups::User>>(),
        Operation::get("/api/v1/live", "listen", get(live::events))
            .says("traces", "What becomes durable, as server-sent events")
            .about("`committed` with {batch_no, traces, decisions, log_count, metric_count} as soon as something is durable, `resync` with {missed} when the listener was too slow. With `kind` it takes the filters of that list, without it `agent` and `session`. A query that needs spans is refused: events carry summaries.")
            .takes(&[&["kind"], &TRACE_PARAMS, &DECISION_PARAMS])
            .answers_as(EVENTS),
    ]
}

fn of_decisions() -> Vec<Operation> {
    let one_or_many = openapi::one_or_many(decision_schema::schema(), MAX_DECISIONS);
    let forms = vec![
        (JSON, BodySchema::Given(one_or_many)),
        ("application/x-ndjson", schema_of::<String>()),
    ];
    vec![
        Operation::get("/api/v1/decisions", "listDecisions", get(decisions::list))
            .says("decisions", "Decisions, newest first, each with its place in the audit log")
            .about("A page that stops for its time before it is full, because few decisions fit, says so in `search.searched_until`; `next` goes on from there.")
            .takes(&[&DECISION_PARAMS, &PAGING])
            .answers::<SearchedPage<records::ListedDecision>>(),
        Operation::post(
            "/api/v1/decisions",
            "recordDecisions",
            post(record::record).layer(DefaultBodyLimit::max(MAX_BODY_BYTES)),
        )
        .says("decisions", "Records decisions: all of them or none, durable before the answer")
        .about(format!("A decision_id that is there already counts as a duplicate. At most {MAX_DECISIONS} decisions, as one object, a list of them, or one a line (NDJSON)."))
        .body(Body::of(forms, MAX_BODY_BYTES))
        .answers::<record::Recorded>()
        .fails(&[(503, "It cannot be made durable now; `Retry-After` says when to come back.")]),
        Operation::get("/api/v1/decisions/gaps", "listGaps", get(decisions::missing))
            .says("decisions", "Decisions that an instance numbered and that never arrived")
            .about("Those noticed last first.")
            .takes(&[&PAGING])
            .answers::<Page<records::Gap>>(),
        Operation::get("/api/v1/decisions/{decision_id}", "getDecision", get(decisions::one))
            .says("decisions", "A decision, what led to it and its place in the audit log")
            .answers::<decisions::DecisionAnswer>()
            .fails(&[NOT_STORED]),
    ]
}

fn of_records() -> Vec<Operation> {
    vec![
        Operation::get("/api/v1/logs", "listLogs", get(logs::list))
            .says("logs", "Log records, newest first")
            .about("A page that stops for its time before it is full, because few records fit, says so in `search.searched_until`; `next` goes on from there.")
            .takes(&[&LOG_PARAMS, &PAGING])
            .answers::<SearchedPage<records::Log>>(),
        Operation::get("/api/v1/metrics", "listMetrics", get(metrics::list))
            .says("metrics", "Stored metrics by name")
            .takes(&[&PAGING])
            .answers::<Page<metrics::Metric>>(),
        Operation::get("/api/v1/metrics/{name}", "getMetric", get(metrics::one))
            .says(
                "metrics",
                "The points of a metric, of the last day unless `since` says otherwise",
            )
            .about(format!("At most {MAX_POINTS} points of a series, {MAX_SERIES} series and {MAX_ANSWER_POINTS} points in all: the newest of each series, evenly. `is_cut` of a series says that there are older ones, `series_left_out` how many series are missing; a later `since` shows more of what is left."))
            .takes(&[&["since"]])
            .answers::<metrics::MetricPoints>()
            .fails(&[NOT_STORED]),
    ]
}

fn of_rollups() -> Vec<Operation> {
    let totals = |path, id, by, summary| {
        Operation::get(path, id, by)
            .says("series", summary)
            .about("A page behind the first is about the time of the first.")
            .takes(&[&TIME_PARAMS, &PAGING])
            .answers::<series::Totals>()
    };
    vec![
        Operation::get("/api/v1/series", "getSeries", get(series::query))
            .says("series", "Measures over time from rollups, by a fixed lattice of dimensions")
            .about("Dimensions are counted together as: all; agent; agent and phase; model; tool; agent, version and branch. Steps without spans or decisions have no point; a value is null where there is nothing to tell from. `coverage.whole` says whether everything stored is counted.")
            .takes(&[&SERIES_PARAMS])
            .answers::<series::SeriesAnswer>(),
        totals("/api/v1/agents", "listAgents", get(series::agents), "Agents over a time, the busiest first, with totals"),
        totals("/api/v1/models", "listModels", get(series::models), "Models over a time, the busiest first, with totals"),
        totals("/api/v1/tools", "listTools", get(series::tools), "Tools over a time, the busiest first, with totals"),
        Operation::get("/api/v1/continuity", "getContinuity", get(continuity::report))
            .says("series", "Where traces broke")
            .about("The last hour unless `since` says otherwise; six hours are kept.")
            .takes(&[&["since"]])
            .answers::<continuity::Continuity>(),
    ]
}

fn of_sql() -> Vec<Operation> {
    let names: Vec<&str> = sql_views().into_iter().map(|view| view.name).collect();
    let tables = names.join(", ");
    vec![
        Operation::post(
            "/api/v1/sql",
            "askInSql",
            post(sql::ask).layer(DefaultBodyLimit::max(sql::MAX_BODY_BYTES)),
        )
        .says("sql", "One SELECT in SQLite's SQL over what is stored")
        .about(format!("Tables: {tables}. Whole numbers beyond 2^53 are text. docs/sql.md has every table, column and limit."))
        .body(Body::of(
            vec![(JSON, BodySchema::Given(sql::body_schema()))],
            sql::MAX_BODY_BYTES,
        ))
        .answers::<SqlAnswerShape>()
        .fails(&[
            (422, "The body is JSON of another shape, or the statement needs more memory than it may have."),
            (503, "It took longer than `timeout_ms`, or others did."),
        ]),
    ]
}

fn of_audit() -> Vec<Operation> {
    const ORDER: [(u16, &str); 1] = [(422, "The body is JSON of another shape.")];
    let order = || vec![(JSON, schema_of::<audit::Order>())];
    vec![
        Operation::get("/api/v1/audit/verify", "getAuditStatus", get(audit::verify))
            .says("audit", "How the audit log stands")
            .about("Head, checkpoints, anchors, and the last verification by the server.")
            .answers::<audit::Status>(),
        Operation::get("/api/v1/audit/reads", "listReads", get(audit::reads))
            .says("audit", "Who read decisions, newest first")
            .takes(&[&PAGING])
            .answers::<Page<audit::Read>>(),
        Operation::post("/api/v1/audit/erase", "eraseDecisions", post(audit::erase))
            .says("audit", "Erases the content of decisions; their places in the chain stay")
            .body(Body::of(order(), MAX_FORM_BYTES))
            .answers::<audit::Erased>()
            .fails(&ORDER)
            .fails(&[(409, "A legal hold is in the way; `detail` names it.")]),
        Operation::get("/api/v1/audit/holds", "listHolds", get(audit::holds))
            .says("audit", "Legal holds, released ones too, the oldest first")
            .takes(&[&PAGING])
            .answers::<Page<audit::HoldShape>>(),
        Operation::post("/api/v1/audit/holds", "beginHold", post(audit::hold))
            .says("audit", "Begins a legal hold")
            .body(Body::of(order(), MAX_FORM_BYTES))
            .answers::<audit::HoldShape>()
            .fails(&ORDER),
        Operation::post(
            "/api/v1/audit/holds/{hold_id}/release",
            "releaseHold",
            post(audit::release),
        )
        .says("audit", "Ends a legal hold; ending it twice changes nothing")
        .answers::<audit::HoldShape>()
        .fails(&[(404, "No hold has this id.")]),
    ]
}

fn of_contracts() -> Vec<Operation> {
    vec![
        Operation::get("/api/v1/contracts", "listContracts", get(contracts::list))
            .says("contracts", "Contracts between services, each with its proposal, by name")
            .about("What is attained is what the last evaluation of rules said; nothing is counted for the answer. Steps are taken with `POST /api/v1/contracts/{contract}/proposals`, `…/accept`, `…/counter`, `…/reject`, `…/withdraw` and `…/restore`, which need the scope `act`: docs/governance.md.")
            .takes(&[&PAGING])
            .answers::<Page<contracts::Contract>>(),
        Operation::get("/api/v1/contracts/{contract}", "getContract", get(contracts::one))
            .says("contracts", "A contract with all its versions, the newest first")
            .about("Each with who agreed to it, when, and what was measured before.")
            .answers::<contracts::History>()
            .fails(&[NOT_STORED]),
    ]
}

fn of_signals() -> Vec<Operation> {
    vec![
        Operation::get("/api/v1/signals", "listSignals", get(signals::signals))
            .says("signals", "Signals of an agent, or of all agents together, as they are now")
            .about("Each over its own window when `window` is left out. What has too little data has no value, and says what it lacks. An answer is given again for ten seconds.")
            .takes(&[&signals::SIGNAL_PARAMS])
            .answers::<signals::Signals>(),
        Operation::get("/api/v1/detectors", "listDetectors", get(signals::detectors))
            .says("signals", "How the detectors of drift stand, by agent")
            .about("By the last evaluation of rules; empty where none is done.")
            .takes(&[&signals::DETECTOR_PARAMS, &PAGING])
            .answers::<Page<signals::Detector>>(),
    ]
}

/// How the rules of files stand.
fn of_rules() -> Vec<Operation> {
    const ROUND: &str =
        "As the last evaluation of rules gave it; nothing is counted for the answer.";
    let list = |path, id, by, summary| {
        Operation::get(path, id, by).says("rules", summary).about(ROUND).takes(&[&PAGING])
    };
    vec![
        list("/api/v1/slos", "listSlos", get(governing::slos), "Objectives of SLOs, by name")
            .answers::<Page<governing::Objective>>(),
        list("/api/v1/rollouts", "listRollouts", get(governing::rollouts), "Rollouts, by name")
            .answers::<Page<governing::Rollout>>(),
        list(
            "/api/v1/experiments",
            "listExperiments",
            get(governing::experiments),
            "Experiments, by name",
        )
        .answers::<Page<governing::Experiment>>(),
        list("/api/v1/policies", "listPolicies", get(governing::policies), "Policies, by name")
            .answers::<Page<governing::Policy>>(),
    ]
}

fn about_the_server() -> Vec<Operation> {
    vec![
        Operation::get("/api/v1/facets", "getFacets", get(overview::facets))
            .says(
                "server",
                "Values that filters may be set to, the most frequent of the recent ones first",
            )
            .answers::<overview::Facets>(),
        Operation::get("/api/v1/stats", "getStats", get(overview::stats))
            .says("server", "How much is stored")
            .answers::<overview::Stats>(),
        Operation::get("/api/v1/segments", "listSegments", get(overview::segments))
            .says("server", "The files of the store and how each stands, newest first")
            .about("Retired ones too.")
            .takes(&[&PAGING])
            .answers::<Page<overview::Segment>>(),
        Operation::get("/api/v1/gateway", "getGateway", get(gateway::standing))
            .says("server", "How the gateway stands")
            .about("Routes with the weights that hold, breakers and rate limits of targets, what keys have used.")
            .answers::<gateway::GatewayShape>(),
        Operation::get("/api/v1/problems", "listProblems", get(overview::problems))
            .says("server", "The kinds of problems that answers tell of")
            .about("The `type` of a problem is this path, `#` and its code.")
            .answers::<overview::Problems>(),
        Operation::get("/api/v1/openapi.json", "getDescription", get(openapi::document))
            .says("server", "This description")
            .answers::<openapi::Document>(),
    ]
}
