//! Every operation: the router and the description are made from this one table.

use axum::routing::{MethodRouter, get, post};
use schemars::JsonSchema;
use throughline_api::{Body, EVENTS};

use super::parameters::Parameter;
use super::shapes::{
    ActionShape, DirectiveShape, FindingShape, FreezeShape, HoldShape, IncidentShape, Page,
    PauseShape, TakeoverShape, XdsShape,
};
use super::{MAX_BODY_BYTES, acts, alerts, cases, contracts, listen, parameters, words};
use crate::actor::Actor;

const SHAPE: (u16, &str) = (422, "The body is JSON of another shape.");
const NOT_STORED: (u16, &str) = (404, "It is not stored: not yet, or no longer.");
const CONFLICT: (u16, &str) = (409, "It does not fit how things stand; `detail` says how they do.");

/// One of them.
pub(super) type Operation = throughline_api::Operation<Parameter, MethodRouter<Actor>>;

/// A body of this type, as JSON.
fn json<T: JsonSchema>() -> Body {
    Body::json::<T>(MAX_BODY_BYTES)
}

/// All operations.
pub(super) fn operations() -> Vec<Operation> {
    let parts =
        [of_directives(), of_actions(), of_cases(), of_contracts(), of_words(), of_alerts()];
    parts.into_iter().flatten().collect()
}

fn of_directives() -> Vec<Operation> {
    vec![
        Operation::get("/api/v1/directives", "listenToDirectives", get(listen::listen))
            .says("directives", "What running agents shall do, as server-sent events")
            .about(
                "`Last-Event-ID` has the place to go on from. docs/directives.md has the protocol.",
            )
            .takes(&parameters::of_listeners())
            .answers_as(EVENTS),
        Operation::post("/api/v1/directives", "giveDirective", post(listen::give))
            .says("directives", "Tells running agents to do something")
            .body(json::<listen::Given>())
            .creates::<ActionShape>()
            .fails(&[SHAPE]),
        Operation::get("/api/v1/directives/list", "listDirectives", get(listen::list))
            .says("directives", "Directives that were given, with the answers, the newest first")
            .takes(&parameters::paging())
            .answers::<Page<DirectiveShape>>(),
        Operation::post(
            "/api/v1/directives/{id}/ack",
            "answerDirective",
            post(listen::acknowledge),
        )
        .says("directives", "What became of a directive in one process")
        .body(json::<listen::AckGiven>())
        .answers::<listen::Acknowledged>()
        .fails(&[SHAPE, NOT_STORED]),
    ]
}

fn of_actions() -> Vec<Operation> {
    vec![
        Operation::get("/api/v1/actions", "listActions", get(acts::list))
            .says("actions", "What was asked for and what became of it, the newest first")
            .takes(&parameters::of_actions())
            .takes(&parameters::paging())
            .answers::<Page<ActionShape>>(),
        Operation::post("/api/v1/actions", "askForAction", post(acts::run))
            .says("actions", "Has something done, by the word of a person")
            .about("Rollouts are started, advanced and rolled back with it, agents frozen, cases handed over. The same `id` is the same action, however often it is asked for.")
            .body(json::<acts::Ordered>())
            .creates::<ActionShape>()
            .fails(&[SHAPE, (404, "There is no such finding.")]),
        Operation::get("/api/v1/actions/pause", "getPause", get(acts::pause_state))
            .says("actions", "Whether automatic actions are stopped")
            .answers::<PauseShape>(),
        Operation::post("/api/v1/actions/pause", "pauseActions", post(acts::pause))
            .says("actions", "Stops every automatic action, over restarts too")
            .body(json::<acts::Why>().optional())
            .answers::<PauseShape>()
            .fails(&[SHAPE]),
        Operation::post("/api/v1/actions/resume", "resumeActions", post(acts::resume))
            .says("actions", "Lets automatic actions go on")
            .body(json::<acts::Why>().optional())
            .answers::<PauseShape>()
            .fails(&[SHAPE]),
        Operation::get("/api/v1/findings", "listFindings", get(acts::findings))
            .says("actions", "What rules saw, the newest first")
            .takes(&parameters::of_findings())
            .takes(&parameters::paging())
            .answers::<Page<FindingShape>>(),
    ]
}

fn of_cases() -> Vec<Operation> {
    vec![
        Operation::get("/api/v1/takeovers", "listTakeovers", get(cases::takeovers))
            .says("cases", "Cases that wait for a person, or did, the one that changed last first")
            .about("One that changes while the list is read page by page is the first of it from then on.")
            .takes(&parameters::paging())
            .answers::<Page<TakeoverShape>>(),
        Operation::post("/api/v1/takeovers/{id}/approve", "approveTakeover", post(cases::approve))
            .says("cases", "A person takes over; the agents that are meant are told")
            .body(json::<cases::Decided>().optional())
            .answers::<TakeoverShape>()
            .fails(&[SHAPE, NOT_STORED, CONFLICT]),
        Operation::post("/api/v1/takeovers/{id}/reject", "rejectTakeover", post(cases::reject))
            .says("cases", "The agent goes on")
            .body(json::<cases::Decided>().optional())
            .answers::<TakeoverShape>()
            .fails(&[SHAPE, NOT_STORED, CONFLICT]),
        Operation::get("/api/v1/incidents", "listIncidents", get(cases::incidents))
            .says("cases", "Incidents, the one that changed last first")
            .about("One that changes while the list is read page by page is the first of it from then on.")
            .takes(&parameters::paging())
            .answers::<Page<IncidentShape>>(),
        Operation::get("/api/v1/incidents/{id}", "getIncident", get(cases::incident))
            .says("cases", "An incident with its timeline")
            .answers::<IncidentShape>()
            .fails(&[NOT_STORED]),
        Operation::post("/api/v1/incidents/{id}/{change}", "changeIncident", post(cases::change))
            .says("cases", "What a person does about an incident")
            .about("`silence` needs `until` or `for_s`, `assign` takes `to`, `note` needs `text`; the others take nothing.")
            .body(json::<cases::Asked>().optional())
            .answers::<IncidentShape>()
            .fails(&[SHAPE, NOT_STORED, CONFLICT]),
    ]
}

fn of_contracts() -> Vec<Operation> {
    vec![
        Operation::post(
            "/api/v1/contracts/{contract}/proposals",
            "proposeContract",
            post(contracts::propose),
        )
        .says("contracts", "The consumer proposes terms; the answer is measured")
        .body(json::<contracts::Proposed>())
        .creates::<ActionShape>()
        .fails(&[(422, "The terms cannot be meant; `detail` has the line and column."), CONFLICT]),
        Operation::post(
            "/api/v1/contracts/{contract}/{step}",
            "stepContract",
            post(contracts::step),
        )
        .says("contracts", "A step in the negotiation of a contract")
        .about("`accept`, `counter` and `reject` take the `offer` that is meant, `counter` needs `terms`, `restore` needs `version`.")
        .body(json::<contracts::Asked>().optional())
        .creates::<ActionShape>()
        .fails(&[SHAPE, NOT_STORED, CONFLICT]),
    ]
}

fn of_words() -> Vec<Operation> {
    vec![
        Operation::get("/api/v1/holds", "listRouteHolds", get(words::holds))
            .says("holds", "Routes and rollouts that people hold, or held, the one that changed last first")
            .about("One that changes while the list is read page by page is the first of it from then on.")
            .takes(&parameters::paging())
            .answers::<Page<HoldShape>>(),
        Operation::post("/api/v1/holds", "holdRoute", post(words::hold))
            .says("holds", "No rule changes the route or rollout until the hold is lifted")
            .body(json::<words::Held>())
            .creates::<HoldShape>()
            .fails(&[SHAPE, CONFLICT]),
        Operation::post("/api/v1/holds/{what}/lift", "liftHold", post(words::lift_hold))
            .says("holds", "Rules may change it again")
            .answers::<HoldShape>()
            .fails(&[NOT_STORED]),
        Operation::get("/api/v1/freezes", "listFreezes", get(words::freezes))
            .says("holds", "Freezes, the one that changed last first")
            .about("One that changes while the list is read page by page is the first of it from then on.")
            .takes(&parameters::paging())
            .answers::<Page<FreezeShape>>(),
        Operation::post("/api/v1/freezes/{subject}/lift", "liftFreeze", post(words::lift_freeze))
            .says("holds", "Ends a freeze before its time; no rule puts it back before that")
            .answers::<FreezeShape>()
            .fails(&[NOT_STORED]),
        Operation::get("/api/v1/xds", "getXds", get(words::xds))
            .says("holds", "Which Envoy took which version of the weights, or why it refused, and the weights")
            .answers::<XdsShape>(),
    ]
}

fn of_alerts() -> Vec<Operation> {
    vec![
        Operation::post(
            "/api/v1/alerts/alertmanager",
            "tellAlertmanager",
            post(alerts::alertmanager),
        )
        .says("alerts", "A webhook of Alertmanager, version 4: alerts become findings")
        .body(json::<alerts::WebhookGiven>())
        .answers::<alerts::Taken>()
        .fails(&[SHAPE]),
        Operation::post("/api/v1/alerts/grafana", "tellGrafana", post(alerts::grafana))
            .says("alerts", "A webhook of Grafana's unified alerting: alerts become findings")
            .body(json::<alerts::WebhookGiven>())
            .answers::<alerts::Taken>()
            .fails(&[SHAPE]),
    ]
}
