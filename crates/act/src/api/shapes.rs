//! The JSON forms of answers. Moments are text: they do not fit the numbers of JavaScript.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};
use throughline_store::{AckRecord, ActionRecord, IssuedDirective, Pause};
use throughline_trace::{
    DecisionId, DirectiveTarget, Finding, FindingSeverity, FindingState, Operation, RouteWeights,
    Subject, TraceId,
};

use super::forms::{
    DecisionIdText, DirectiveActionJson, FindingStateText, Labels, Moment, Numbers, OperationJson,
    SeverityText, TargetJson, TraceIdText, UnixNanos,
};
use crate::incident::{Entry, Incident, Part};
use crate::moments::rfc3339;
use crate::performed::told;
use crate::recorder::trace_id;
use crate::standing::{Freeze, Hold};
use crate::takeover::Takeover;
use crate::xds::NodeStanding;

/// A page of a list.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "{T}OfGovernance")]
pub(super) struct Page<T> {
    pub(super) items: Vec<T>,
    /// `cursor` of the next page; null on the last.
    pub(super) next: Option<String>,
}

/// An action and what became of it.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Action")]
pub(super) struct ActionShape {
    id: String,
    /// The rule that asked; empty when a person did.
    rule: String,
    rule_version: String,
    /// The finding that led to it; empty for none.
    finding: String,
    #[schemars(with = "Labels")]
    subject: Subject,
    #[schemars(with = "Moment")]
    at: String,
    #[schemars(with = "OperationJson")]
    operation: Operation,
    /// The operation on one line.
    told: String,
    reason: String,
    #[schemars(with = "Vec<TraceIdText>")]
    evidence: Vec<TraceId>,
    is_dry_run: bool,
    /// `asked`, `done`, `failed`, `refused` or `dry_run`.
    pub(super) state: &'static str,
    /// One sentence about that.
    pub(super) detail: String,
    /// The decision that records it.
    #[schemars(with = "Option<DecisionIdText>")]
    decision_id: Option<DecisionId>,
    /// The trace of that decision.
    #[schemars(with = "Option<TraceIdText>")]
    trace_id: Option<TraceId>,
    #[schemars(with = "Option<Moment>")]
    finished: Option<String>,
}

/// An action and what became of it, as all answers have it.
pub(super) fn action(record: &ActionRecord) -> ActionShape {
    let action = record.action.clone();
    ActionShape {
        told: told(&action.operation),
        at: rfc3339(action.at_unix_nano),
        state: record.state.as_str(),
        detail: record.detail.clone(),
        decision_id: record.decision_id,
        trace_id: record.decision_id.map(|_| trace_id(&action.id)),
        finished: record.finished_unix_nano.map(rfc3339),
        id: action.id,
        rule: action.rule,
        rule_version: action.rule_version,
        finding: action.finding,
        subject: action.subject,
        operation: action.operation,
        reason: action.reason,
        evidence: action.evidence,
        is_dry_run: action.is_dry_run,
    }
}

/// What a rule saw in a window of time.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Finding")]
pub(super) struct FindingShape {
    id: String,
    rule: String,
    rule_version: String,
    kind: String,
    #[schemars(with = "Labels")]
    subject: Subject,
    #[schemars(with = "SeverityText")]
    severity: FindingSeverity,
    #[schemars(with = "FindingStateText")]
    state: FindingState,
    /// When it was first seen.
    #[schemars(with = "Moment")]
    since: String,
    /// When it was last evaluated.
    #[schemars(with = "Moment")]
    at: String,
    /// The telemetry that it was seen in: from.
    #[schemars(with = "Moment")]
    from: String,
    /// The telemetry that it was seen in: up to.
    #[schemars(with = "Moment")]
    to: String,
    summary: String,
    #[schemars(with = "Numbers")]
    values: BTreeMap<String, f64>,
    confidence: Option<f64>,
    #[schemars(with = "Vec<TraceIdText>")]
    evidence: Vec<TraceId>,
    runbook: String,
}

/// A finding as all answers have it.
pub(super) fn finding(of: &Finding) -> FindingShape {
    let Finding { id, rule, rule_version, kind, subject, summary, values, .. } = of.clone();
    FindingShape {
        id,
        rule,
        rule_version,
        kind,
        subject,
        severity: of.severity,
        state: of.state,
        since: rfc3339(of.since_unix_nano),
        at: rfc3339(of.at_unix_nano),
        from: rfc3339(of.from_unix_nano),
        to: rfc3339(of.to_unix_nano),
        summary,
        values,
        confidence: of.confidence,
        evidence: of.evidence.clone(),
        runbook: of.runbook.clone(),
    }
}

/// Whether automatic actions are stopped.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Pause")]
pub(super) struct PauseShape {
    is_paused: bool,
    /// Since when it is so; null when nobody ever said.
    #[schemars(with = "Option<Moment>")]
    at: Option<String>,
    person: String,
    reason: String,
}

/// The pause switch.
pub(super) fn pause(of: &Pause) -> PauseShape {
    PauseShape {
        is_paused: of.is_on,
        at: (of.at_unix_nano > 0).then(|| rfc3339(of.at_unix_nano)),
        person: of.person.clone(),
        reason: of.reason.clone(),
    }
}

/// A case that a rule wants a person to decide.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Takeover")]
pub(super) struct TakeoverShape {
    id: String,
    /// Who shall take over; empty for anybody.
    to: String,
    #[schemars(with = "Labels")]
    subject: Subject,
    reason: String,
    /// The rule that asked; empty when a person did.
    rule: String,
    #[schemars(with = "Vec<TraceIdText>")]
    evidence: Vec<TraceId>,
    #[schemars(with = "Moment")]
    asked: String,
    /// `waiting`, `approved` or `rejected`.
    state: &'static str,
    /// Who decided; empty while nobody did.
    decided_by: String,
    #[schemars(with = "Option<Moment>")]
    decided: Option<String>,
    note: String,
    /// What an approval led to: the order to the agents that are meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) action: Option<ActionShape>,
}

/// A case as all answers have it.
pub(super) fn takeover(case: &Takeover) -> TakeoverShape {
    let Takeover { id, to, subject, reason, rule, evidence, decided_by, note, .. } = case.clone();
    TakeoverShape {
        id,
        to,
        subject,
        reason,
        rule,
        evidence,
        asked: rfc3339(case.asked_unix_nano),
        state: case.state.as_str(),
        decided_by,
        decided: case.decided_unix_nano.map(rfc3339),
        note,
        action: None,
    }
}

/// Findings that belong together, and what people do about them.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Incident")]
pub(super) struct IncidentShape {
    id: String,
    title: String,
    #[schemars(with = "Labels")]
    subject: Subject,
    #[schemars(with = "SeverityText")]
    severity: FindingSeverity,
    /// `open`, `acknowledged` or `resolved`.
    state: &'static str,
    /// Nobody is told of it before.
    #[schemars(with = "Option<Moment>")]
    silenced_until: Option<String>,
    /// Who looks after it; empty for nobody.
    assignee: String,
    findings: Vec<PartShape>,
    /// Findings beyond those that are kept.
    further_findings: u64,
    #[schemars(with = "Vec<TraceIdText>")]
    traces: Vec<TraceId>,
    #[schemars(with = "Moment")]
    opened: String,
    #[schemars(with = "Moment")]
    changed: String,
    /// The oldest first.
    timeline: Vec<EntryShape>,
}

/// A finding of an incident.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "IncidentFinding")]
struct PartShape {
    id: String,
    rule: String,
    kind: String,
    #[schemars(with = "FindingStateText")]
    state: FindingState,
    summary: String,
}

/// Something that happened to an incident.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "IncidentEntry")]
struct EntryShape {
    #[schemars(with = "Moment")]
    at: String,
    /// Who; empty for a rule.
    by: String,
    what: String,
}

/// An incident as all answers have it.
pub(super) fn incident(of: &Incident) -> IncidentShape {
    let part = |part: &Part| {
        let Part { id, rule, kind, state, summary } = part.clone();
        PartShape { id, rule, kind, state, summary }
    };
    let entry = |entry: &Entry| {
        let Entry { at_unix_nano, by, what } = entry.clone();
        EntryShape { at: rfc3339(at_unix_nano), by, what }
    };
    IncidentShape {
        id: of.id.clone(),
        title: of.title.clone(),
        subject: of.subject.clone(),
        severity: of.severity,
        state: of.state.as_str(),
        silenced_until: of.silenced_until_unix_nano.map(rfc3339),
        assignee: of.assignee.clone(),
        findings: of.findings.iter().map(part).collect(),
        further_findings: of.further_findings,
        traces: of.traces.clone(),
        opened: rfc3339(of.opened_unix_nano),
        changed: rfc3339(of.changed_unix_nano),
        timeline: of.timeline.iter().map(entry).collect(),
    }
}

/// A person's word about a route or a rollout.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "RouteHold")]
pub(super) struct HoldShape {
    /// `route:NAME` or `rollout:NAME`.
    what: String,
    person: String,
    reason: String,
    /// Null when somebody lifts it.
    #[schemars(with = "Option<Moment>")]
    until: Option<String>,
    is_lifted: bool,
}

/// A hold as all answers have it.
pub(super) fn hold(of: &Hold) -> HoldShape {
    let Hold { what, person, reason, until_unix_nano, is_lifted } = of.clone();
    HoldShape { what, person, reason, until: until_unix_nano.map(rfc3339), is_lifted }
}

/// No new strategies, versions or experiments for a subject.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Freeze")]
pub(super) struct FreezeShape {
    #[schemars(with = "Labels")]
    subject: Subject,
    #[schemars(with = "Moment")]
    until: String,
    /// The rule that asked; empty when a person did.
    rule: String,
    reason: String,
    /// Who lifted it before its time; empty for nobody.
    lifted_by: String,
}

/// A freeze as all answers have it.
pub(super) fn freeze(of: &Freeze) -> FreezeShape {
    let Freeze { subject, until_unix_nano, rule, reason, lifted_by } = of.clone();
    FreezeShape { subject, until: rfc3339(until_unix_nano), rule, reason, lifted_by }
}

/// How Envoy follows.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Xds")]
pub(super) struct XdsShape {
    pub(super) nodes: Vec<NodeShape>,
    /// The weights that were set, by route.
    pub(super) weights: Vec<WeightsShape>,
}

/// How one Envoy stands with one type of resource.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "XdsNode")]
pub(super) struct NodeShape {
    node: String,
    /// `RouteConfiguration`, `Cluster`, `ClusterLoadAssignment`, `Listener` or `Runtime`.
    r#type: String,
    /// The version that it took last.
    took: String,
    /// Why it refused what came after that; empty when it did not.
    refused: String,
    #[schemars(with = "Moment")]
    at: String,
    /// Streams that it has open.
    streams: u32,
}

/// How one Envoy stands.
pub(super) fn node((node, type_url): (String, String), of: &NodeStanding) -> NodeShape {
    NodeShape {
        node,
        r#type: type_url.rsplit('.').next().unwrap_or_default().to_owned(),
        took: of.took.clone(),
        refused: of.refused.clone(),
        at: rfc3339(of.at_unix_nano),
        streams: of.streams,
    }
}

/// How the traffic of a route is divided.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "RouteWeights")]
pub(super) struct WeightsShape {
    route: String,
    /// Grows with each change.
    generation: u64,
    targets: Vec<RouteTargetShape>,
}

/// A target of a route.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "RouteTarget")]
struct RouteTargetShape {
    name: String,
    weight: u32,
}

/// The weights of a route.
pub(super) fn weights(of: &RouteWeights) -> WeightsShape {
    let targets = of.targets.iter();
    let targets =
        targets.map(|one| RouteTargetShape { name: one.name.clone(), weight: one.weight });
    WeightsShape { route: of.route.clone(), generation: of.generation, targets: targets.collect() }
}

/// A directive that was given, with the answers.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "GivenDirective")]
pub(super) struct DirectiveShape {
    id: String,
    version: u32,
    #[schemars(with = "UnixNanos")]
    issued_at_ns: String,
    #[schemars(with = "UnixNanos")]
    expires_at_ns: String,
    #[schemars(with = "TargetJson")]
    target: DirectiveTarget,
    #[schemars(with = "DirectiveActionJson")]
    action: Value,
    reason: String,
    rule: String,
    #[schemars(with = "Vec<TraceIdText>")]
    evidence: Vec<TraceId>,
    /// Its place among all that were given.
    place: u64,
    acks: Vec<AckShape>,
    /// Fields of a later version.
    #[serde(flatten)]
    other: Map<String, Value>,
}

/// What a process answered.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "DirectiveAck")]
struct AckShape {
    instance_id: String,
    /// `applied`, `refused`, `expired` or `unsupported`.
    status: Value,
    /// The decision that records it there.
    #[schemars(with = "Option<DecisionIdText>")]
    decision_id: Option<DecisionId>,
    reason: String,
    #[schemars(with = "Moment")]
    at: String,
}

/// A directive as the list has it.
pub(super) fn directive((issued, acks): (IssuedDirective, Vec<AckRecord>)) -> DirectiveShape {
    let of = issued.directive;
    let ack = |record: AckRecord| AckShape {
        instance_id: record.ack.instance_id,
        status: serde_json::to_value(record.ack.status).unwrap_or_default(),
        decision_id: record.ack.decision_id,
        reason: record.ack.reason,
        at: rfc3339(record.at_unix_nano),
    };
    DirectiveShape {
        id: of.id,
        version: of.version,
        issued_at_ns: of.issued_at_ns.to_string(),
        expires_at_ns: of.expires_at_ns.to_string(),
        target: of.target,
        action: of.action.to_json(),
        reason: of.reason,
        rule: of.rule,
        evidence: of.evidence,
        place: issued.place,
        acks: acks.into_iter().map(ack).collect(),
        other: of.other,
    }
}
