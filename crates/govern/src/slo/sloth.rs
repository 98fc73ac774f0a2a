//! SLOs of [Sloth](https://sloth.dev) brought over: the same promises and alerts, if the queries are
//! conditions over spans.

use std::sync::Arc;

use throughline_rules::Type;

use super::duration::DAY_MIN;
use super::fields::{Fields, Text, list_of};
use super::indicator::{Indicator, Judge};
use super::mistake::{Mistakes, Report, Source};
use super::model::{
    Alert, Budgeting, DEFAULT_MIN_EVENTS, EvaluationLoop, Objective, Slo, UsualAlerts,
};
use super::openslo::{SloFiles, expression, percent_name, version_of};
use super::tree::{Place, Tree};
use super::window::BudgetWindow;

/// The version of Sloth's form that is read.
const SLOTH_VERSION: &str = "prometheus/v1";

/// The window of Sloth's budgets.
const SLOTH_WINDOW_MIN: u64 = 30 * DAY_MIN;

/// What a query in PromQL has and a condition over spans has not.
const PROMQL_MARKS: [&str; 6] = ["{{", "rate(", "increase(", "sum(", "count(", "_over_time("];

/// Reads a file of Sloth (`version: prometheus/v1`). `error_query` and `total_query` must be conditions
/// over `span`: what counts there is a bad event, and an event. Sloth's alerts are the usual ones; its
/// labels and annotations, which are for Alertmanager, are noted and left.
///
/// # Errors
/// [`Mistakes`]: all that is wrong, queries in PromQL among it.
pub fn import_sloth(source: Source<'_>) -> Result<SloFiles, Mistakes> {
    let sources = [source];
    let mut report = Report::of(&sources);
    let mut slos = Vec::new();
    match Tree::documents(0, source.text) {
        Ok(trees) if trees.is_empty() => {
            report.wrong(Place::default(), "expected a file of Sloth, got an empty file", "");
        }
        Ok(trees) => trees.into_iter().for_each(|tree| file(tree, &mut slos, &mut report)),
        Err((at, words)) => report.wrong(at, words, ""),
    }
    let notes = report.finish()?;
    Ok(SloFiles { slos, notes })
}

fn file(tree: Tree, slos: &mut Vec<Slo>, report: &mut Report<'_>) {
    let Some(mut fields) = Fields::of(tree, "a file of Sloth", report) else { return };
    let Some(version) = fields.need_text("version", report) else { return };
    if version.text != SLOTH_VERSION {
        let message = format!("expected `version: {SLOTH_VERSION}`, got `{}`", version.text);
        report.wrong(
            version.at,
            message,
            "files of Kubernetes (kind: PrometheusServiceLevel) hold the same under spec",
        );
        return;
    }
    let service = fields.need_text("service", report);
    is_left(&mut fields, "labels", report);
    is_left(&mut fields, "slo_plugins", report);
    let items = fields.need("slos", report).map(|tree| list_of(tree, "slos", report));
    fields.finish(report);
    let Some(service) = service else { return };
    for item in items.unwrap_or_default() {
        let at = item.at;
        let Some(slo) = slo(item, &service, report) else { continue };
        if slos.iter().any(|other| other.name == slo.name) {
            let message =
                format!("expected each SLO to have a name of its own, got `{}` twice", slo.name);
            report.wrong(at, message, "");
        }
        slos.push(slo);
    }
}

/// What has no counterpart here is said, not passed over.
fn is_left(fields: &mut Fields, name: &'static str, report: &mut Report<'_>) {
    if let Some(tree) = fields.take(name) {
        report.note(
            tree.at,
            format!("`{name}` is not brought over"),
            "it is for Prometheus and Alertmanager",
        );
    }
}

fn slo(item: Tree, service: &Text, report: &mut Report<'_>) -> Option<Slo> {
    let before = report.count();
    let mut fields = Fields::of(item, "an SLO", report)?;
    let name = fields.need_text("name", report);
    let description = fields.words("description", report);
    let objective = fields.number("objective", report);
    if objective.is_none() && !fields.has_had("objective") {
        fields.is_missing("`objective`", report);
    }
    is_left(&mut fields, "labels", report);
    is_left(&mut fields, "plugins", report);
    let indicator = fields.need_fields("sli", report).and_then(|sli| indicator(sli, report));
    let usual_alerts = fields.fields("alerting", report).map(|fields| alerting(fields, report));
    fields.finish(report);
    let (at, percent) = objective?;
    let target = (percent * 1e10).round() / 1e12;
    if !(target > 0.0 && target < 1.0) {
        let message =
            format!("expected `objective` between 0 and 100, both excluded, got `{percent}`");
        report.wrong(at, message, "it is a percentage");
    }
    if report.count() > before {
        return None;
    }
    let window = BudgetWindow::Rolling { minutes: SLOTH_WINDOW_MIN };
    let usual_alerts = usual_alerts.unwrap_or(UsualAlerts::All);
    let mut slo = Slo {
        // Sloth's names are unique within a service only.
        name: format!("{}-{}", service.text.trim(), name?.text.trim()),
        display_name: String::new(),
        description,
        service: service.text.trim().to_owned(),
        alerts: Alert::usual_for(usual_alerts, &window, &[]),
        window,
        objectives: vec![Objective {
            name: percent_name(target),
            display_name: String::new(),
            target,
            budgeting: Budgeting::Occurrences,
            indicator: Arc::new(indicator?),
        }],
        usual_alerts,
        evaluation: EvaluationLoop::default(),
        min_events: DEFAULT_MIN_EVENTS,
        runbook: String::new(),
        version: String::new(),
    };
    slo.version = version_of(&slo);
    Some(slo)
}

fn indicator(mut fields: Fields, report: &mut Report<'_>) -> Option<Indicator> {
    let events = fields.fields("events", report);
    for name in ["raw", "plugin"] {
        if let Some(tree) = fields.take(name) {
            let message = format!("expected `events` with conditions over spans, got `{name}`");
            report.wrong(
                tree.at,
                message,
                "write error_query and total_query as docs/slo.md tells",
            );
        }
    }
    if events.is_none() && !fields.has_had("raw") && !fields.has_had("plugin") {
        fields.is_missing("`events`", report);
    }
    fields.finish(report);
    let mut events = events?;
    let bad = events.need_text("error_query", report);
    let total = events.need_text("total_query", report);
    events.finish(report);
    let bad = bad.and_then(|text| query(&text, report));
    let total = total.and_then(|text| query(&text, report));
    let at = events_place(&bad, &total);
    match Indicator::new(total?.1, Judge::Bad(bad?.1)) {
        Ok(indicator) => Some(indicator),
        Err(error) => {
            report.wrong(at, error.to_string(), "");
            None
        }
    }
}

type Query = (Place, throughline_rules::Expression);

fn events_place(bad: &Option<Query>, total: &Option<Query>) -> Place {
    bad.as_ref().or(total.as_ref()).map(|(at, _)| *at).unwrap_or_default()
}

fn query(text: &Text, report: &mut Report<'_>) -> Option<Query> {
    if PROMQL_MARKS.iter().any(|mark| text.text.contains(mark)) && !text.text.contains("span.") {
        report.wrong(
            text.at,
            "expected a condition over span in CEL, got what looks like PromQL",
            "say which spans count, such as span.agent == \"fraud\" && span.status == \"ERROR\"; the window is ours to add",
        );
        return None;
    }
    expression(text, &Type::Bool, report).map(|expression| (text.at, expression))
}

/// Which of the usual alerts are left on.
fn alerting(mut fields: Fields, report: &mut Report<'_>) -> UsualAlerts {
    for name in ["name", "labels", "annotations"] {
        is_left(&mut fields, name, report);
    }
    let mut is_on = |name: &'static str| {
        let Some(mut alert) = fields.fields(name, report) else { return true };
        let is_disabled = alert.flag("disable", report).unwrap_or(false);
        for name in ["for", "labels", "annotations"] {
            is_left(&mut alert, name, report);
        }
        alert.finish(report);
        !is_disabled
    };
    let (page, ticket) = (is_on("page_alert"), is_on("ticket_alert"));
    fields.finish(report);
    match (page, ticket) {
        (true, true) => UsualAlerts::All,
        (true, false) => UsualAlerts::Page,
        (false, true) => UsualAlerts::Ticket,
        (false, false) => UsualAlerts::None,
    }
}
