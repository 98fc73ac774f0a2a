//! [OpenSLO v1](https://github.com/OpenSLO/OpenSLO) files: read strictly, several documents in a file,
//! several files at once, references across all of them.

mod alerts;
mod documents;
mod extras;
mod indicators;
mod objectives;
mod write;

use std::collections::BTreeMap;

use self::documents::{Documents, Kind, Meta};
use self::extras::Extras;
use super::duration::Unit;
use super::fields::Fields;
use super::mistake::{Mistake, Mistakes, Report, Source};
use super::model::{Alert, Objective, Slo, UsualAlerts};
use super::tree::Place;
use super::window::{BudgetWindow, Calendar};

pub(super) use self::indicators::expression;
pub(super) use self::objectives::percent_name;
pub(super) use self::write::version_of;
pub use self::write::write_openslo;

/// Longest description, characters, as OpenSLO says.
const MAX_DESCRIPTION_CHARS: usize = 1_050;

/// Window of a budget when the file has none.
const DEFAULT_WINDOW_MIN: u64 = 28 * super::duration::DAY_MIN;

/// Longest window of a budget, minutes: counters are not kept longer than a year and a day.
const MAX_WINDOW_MIN: u64 = 366 * super::duration::DAY_MIN;

/// Shortest window of a budget, minutes.
const MIN_WINDOW_MIN: u64 = super::duration::HOUR_MIN;

/// Bytes of one file at most.
pub const MAX_SLO_FILE_BYTES: usize = 1 << 20;

/// SLOs that are kept at once at most.
pub const MAX_SLOS: usize = 10_000;

/// What files say.
#[derive(Debug, Clone, Default)]
pub struct SloFiles {
    /// The SLOs, in the order of files and lines.
    pub slos: Vec<Slo>,
    /// What is allowed and will surprise: an alert that can never fire, a document that nobody uses.
    pub notes: Vec<Mistake>,
}

/// Reads OpenSLO files that belong together.
///
/// # Errors
/// [`Mistakes`]: all that is wrong, each with file, line, column and what to do.
pub fn read_openslo(sources: &[Source<'_>]) -> Result<SloFiles, Mistakes> {
    let mut report = Report::of(sources);
    let mut documents = Documents::read(sources, &mut report);
    let mut slos = Vec::new();
    let mut names = BTreeMap::new();
    for document in documents.take(Kind::Slo) {
        let (meta, at) = (document.meta, document.at);
        if names.insert(meta.name.text.clone(), at).is_some() {
            let name = &meta.name.text;
            report.wrong(
                meta.name.at,
                format!("expected each SLO to have a name of its own, got `{name}` twice"),
                "findings and counters are told apart by it",
            );
        }
        let mut reader = SloReader { documents: &mut documents, report: &mut report };
        slos.extend(reader.slo(meta, document.spec));
    }
    documents.check_rest(&mut report);
    if slos.len() > MAX_SLOS {
        let got = slos.len();
        report.wrong(Place::default(), format!("expected at most {MAX_SLOS} SLOs, got {got}"), "");
    }
    let notes = report.finish()?;
    Ok(SloFiles { slos, notes })
}

/// What reading one SLO needs.
struct SloReader<'r, 's> {
    documents: &'r mut Documents,
    report: &'r mut Report<'s>,
}

impl SloReader<'_, '_> {
    fn slo(&mut self, meta: Meta, mut spec: Fields) -> Option<Slo> {
        let before = self.report.count();
        let description = description(&mut spec, self.report);
        let service = spec.need_text("service", self.report);
        if let Some(service) = &service {
            self.documents.is_used(Kind::Service, &service.text);
        }
        let indicator = self.indicator(&mut spec);
        let window = self.window(&mut spec);
        let method = spec.need_text("budgetingMethod", self.report);
        let objectives = self.objectives(&mut spec, method.as_ref(), indicator.as_ref());
        let policies = spec.take("alertPolicies");
        spec.finish(self.report);
        let extras = Extras::read(&meta, self.report);
        let usual_alerts =
            extras.usual_alerts.unwrap_or(UsualAlerts::default_for(policies.is_some()));
        let mut alerts = policies.map(|list| self.alerts(list)).unwrap_or_default();
        if let Some(window) = &window {
            alerts.splice(0..0, Alert::usual_for(usual_alerts, window, &extras.notify));
        }
        if self.report.count() > before {
            return None;
        }
        let mut slo = Slo {
            name: meta.name.text,
            display_name: meta.display_name,
            description,
            service: service?.text.trim().to_owned(),
            window: window?,
            objectives,
            alerts,
            usual_alerts,
            evaluation: extras.evaluation,
            min_events: extras.min_events,
            runbook: extras.runbook,
            version: String::new(),
        };
        slo.version = write::version_of(&slo);
        self.surprises(meta.name.at, &slo);
        Some(slo)
    }

    /// What will surprise.
    fn surprises(&mut self, at: Place, slo: &Slo) {
        let slack = |objective: &Objective| {
            let highest = objective.highest_burn_rate();
            let silent =
                slo.alerts.iter().filter(|alert| !alert.op.holds(highest, alert.threshold));
            let names: Vec<String> =
                silent.map(|alert| format!("{} (over {})", alert.name, alert.threshold)).collect();
            (!names.is_empty()).then_some((objective.name.clone(), highest, names.join(", ")))
        };
        for (objective, highest, names) in slo.objectives.iter().filter_map(slack) {
            let name = &slo.name;
            self.report.note(
                at,
                format!(
                    "the objective `{objective}` of `{name}` burns at {highest:.3} at most, so that these \
                     alerts never fire: {names}"
                ),
                "write alertPolicies with thresholds below that",
            );
        }
    }

    /// The time that the budget is for.
    fn window(&mut self, spec: &mut Fields) -> Option<BudgetWindow> {
        let Some(tree) = spec.take("timeWindow") else {
            return Some(BudgetWindow::Rolling { minutes: DEFAULT_WINDOW_MIN });
        };
        let at = tree.at;
        let mut items = super::fields::list_of(tree, "timeWindow", self.report).into_iter();
        let (Some(item), None) = (items.next(), items.next()) else {
            self.report.wrong(
                at,
                "expected exactly one item in `timeWindow`",
                "a budget has one window; write a second SLO for another",
            );
            return None;
        };
        let mut fields = Fields::of(item, "`timeWindow`", self.report)?;
        let length = fields.need_text("duration", self.report);
        let length = length.and_then(|text| {
            let read = super::fields::length_of(&text, "duration", self.report)?;
            Some((text.at, read))
        });
        let is_rolling = fields.flag("isRolling", self.report);
        let calendar = fields.fields("calendar", self.report);
        let window = match (calendar, is_rolling) {
            (Some(calendar), Some(true)) => {
                self.report.wrong(
                    calendar.at,
                    "expected either `calendar` or `isRolling: true`, got both",
                    "a rolling window has no start",
                );
                None
            }
            (Some(calendar), _) => self.calendar(calendar, length),
            (None, Some(true)) => self.rolling(length),
            (None, _) => {
                fields.is_missing("`isRolling: true` or `calendar`", self.report);
                None
            }
        };
        fields.finish(self.report);
        let window = window?;
        let minutes = window.shortest_minutes();
        if !(MIN_WINDOW_MIN..=MAX_WINDOW_MIN).contains(&minutes) {
            let at = length.map_or(at, |(at, _)| at);
            self.report.wrong(
                at,
                "expected a time window from one hour to one year",
                "28d is usual: it holds as many weekends wherever it begins",
            );
            return None;
        }
        Some(window)
    }

    fn rolling(&mut self, length: Option<(Place, super::Length)>) -> Option<BudgetWindow> {
        let (at, length) = length?;
        let Some(minutes) = length.minutes() else {
            self.report.wrong(
                at,
                format!("expected a rolling window in m, h, d or w, got `{length}`"),
                "months differ in length: write 30d, or a calendar-aligned window",
            );
            return None;
        };
        Some(BudgetWindow::Rolling { minutes })
    }

    fn calendar(
        &mut self,
        mut fields: Fields,
        length: Option<(Place, super::Length)>,
    ) -> Option<BudgetWindow> {
        let start = fields.need_text("startTime", self.report);
        let zone = fields.need_text("timeZone", self.report);
        fields.finish(self.report);
        let (start, zone, (at, length)) = (start?, zone?, length?);
        let begin = Calendar::start_of(&start.text);
        if begin.is_none() {
            self.report.wrong(
                start.at,
                format!("expected `startTime` as 2026-01-31 00:00:00, got `{}`", start.text),
                "date and time of day, without a time zone",
            );
        }
        let offset = Calendar::offset_of(zone.text.trim());
        if offset.is_none() {
            self.report.wrong(
                zone.at,
                format!(
                    "expected `timeZone` as UTC or an offset such as +01:00, got `{}`",
                    zone.text
                ),
                "names of zones are not supported: rules know no table of summer times",
            );
        }
        if length.count == 0 || matches!(length.unit, Unit::Minute) {
            self.report.wrong(
                at,
                format!("expected a window of the calendar, got `{length}`"),
                "1d, 1w, 1M, 1Q and 1Y are usual",
            );
            return None;
        }
        Some(BudgetWindow::Calendar(Calendar { length, start: begin?, offset_min: offset? }))
    }
}

/// A description, which OpenSLO keeps short.
fn description(spec: &mut Fields, report: &mut Report<'_>) -> String {
    let Some(text) = spec.text("description", report) else { return String::new() };
    let chars = text.text.chars().count();
    if chars > MAX_DESCRIPTION_CHARS {
        report.wrong(
            text.at,
            format!(
                "expected `description` of at most {MAX_DESCRIPTION_CHARS} characters, got {chars}"
            ),
            "",
        );
    }
    text.text.trim().to_owned()
}
