//! Objectives: what is promised of an indicator.

use std::sync::Arc;

use super::SloReader;
use super::indicators::MetricSli;
use crate::slo::duration::DAY_MIN;
use crate::slo::fields::{Fields, Text, length_of, list_of, text_of};
use crate::slo::indicator::{Comparison, Indicator, Judge};
use crate::slo::model::{Budgeting, Objective};
use crate::slo::tree::{Place, Tree, Value};

/// Objectives of one SLO at most.
const MAX_OBJECTIVES: usize = 50;

/// Longest name of an objective, characters: it is a label of metrics.
const MAX_OBJECTIVE_NAME_CHARS: usize = 120;

/// Targets are kept to so many decimals, so that 99.9 % is 0.999.
const TARGET_DIGITS: f64 = 1e12;

/// Slices that an hour or a day consists of, so that they fill windows.
const MAX_SLICE_MIN: u64 = DAY_MIN;

impl SloReader<'_, '_> {
    /// The objectives; nothing is left out without a mistake being told.
    pub(super) fn objectives(
        &mut self,
        spec: &mut Fields,
        method: Option<&Text>,
        indicator: Option<&MetricSli>,
    ) -> Vec<Objective> {
        let Some(tree) = spec.need("objectives", self.report) else { return Vec::new() };
        let at = tree.at;
        let items = list_of(tree, "objectives", self.report);
        if !(1..=MAX_OBJECTIVES).contains(&items.len()) {
            let got = items.len();
            let message = format!("expected 1 to {MAX_OBJECTIVES} objectives, got {got}");
            self.report.wrong(at, message, "");
            return Vec::new();
        }
        let mut objectives: Vec<Objective> = Vec::new();
        for item in items {
            let at = item.at;
            let Some(objective) = self.objective(item, method, indicator) else { continue };
            if objectives.iter().any(|other| other.name == objective.name) {
                let name = &objective.name;
                let message = format!("expected different objectives, got `{name}` twice");
                self.report.wrong(at, message, "give each its own displayName");
            }
            objectives.push(objective);
        }
        objectives
    }

    fn objective(
        &mut self,
        item: Tree,
        method: Option<&Text>,
        indicator: Option<&MetricSli>,
    ) -> Option<Objective> {
        let mut fields = Fields::of(item, "an objective", self.report)?;
        let at = fields.at;
        let display_name = fields.words("displayName", self.report);
        let target = self.target(&mut fields);
        let threshold = self.threshold(&mut fields, indicator);
        let budgeting = self.budgeting(&mut fields, method);
        fields.finish(self.report);
        let (target, budgeting) = (target?, budgeting?);
        let indicator = match (indicator?.clone(), threshold) {
            (MetricSli::Ratio { total, judge }, _) => Indicator::new(total, judge),
            (MetricSli::Threshold { total, value }, Some((op, threshold))) => {
                Indicator::new(total, Judge::Threshold { value, op, threshold })
            }
            (MetricSli::Threshold { .. }, None) => return None,
        };
        let indicator = match indicator {
            Ok(indicator) => Arc::new(indicator),
            Err(error) => {
                self.report.wrong(at, error.to_string(), "");
                return None;
            }
        };
        let name =
            if display_name.is_empty() { percent_name(target) } else { display_name.clone() };
        let chars = name.chars().count();
        if chars > MAX_OBJECTIVE_NAME_CHARS || name.chars().any(char::is_control) {
            let message = format!(
                "expected a displayName of one line and at most {MAX_OBJECTIVE_NAME_CHARS} characters, got {chars}"
            );
            self.report.wrong(at, message, "");
            return None;
        }
        Some(Objective { name, display_name, target, budgeting, indicator })
    }

    /// `target` or `targetPercent`, as a share.
    fn target(&mut self, fields: &mut Fields) -> Option<f64> {
        let share = fields.number("target", self.report);
        let percent = fields.number("targetPercent", self.report);
        let rounded = |target: f64| (target * TARGET_DIGITS).round() / TARGET_DIGITS;
        let is_possible = |target: f64| target > 0.0 && target < 1.0;
        match (share, percent) {
            (Some((_, target)), None) if is_possible(target) => Some(target),
            (None, Some((_, percent))) if is_possible(rounded(percent / 100.0)) => {
                Some(rounded(percent / 100.0))
            }
            (Some((at, target)), None) => {
                let hint = if target > 1.0 && target < 100.0 {
                    format!("did you mean `targetPercent: {target}`?")
                } else {
                    no_budget(target >= 1.0)
                };
                let message =
                    format!("expected `target` between 0 and 1, both excluded, got `{target}`");
                self.report.wrong(at, message, hint);
                None
            }
            (None, Some((at, percent))) => {
                let message = format!(
                    "expected `targetPercent` between 0 and 100, both excluded, got `{percent}`"
                );
                self.report.wrong(at, message, no_budget(percent >= 100.0));
                None
            }
            (Some(_), Some((at, _))) => {
                let message = "expected either `target` or `targetPercent`, got both";
                self.report.wrong(at, message, "keep one of them");
                None
            }
            (None, None) => {
                // A target that is no number has been told already.
                if !fields.has_had("target") && !fields.has_had("targetPercent") {
                    fields.is_missing("`target` or `targetPercent`", self.report);
                }
                None
            }
        }
    }

    /// `op` and `value`, which a threshold needs and a ratio must not have.
    fn threshold(
        &mut self,
        fields: &mut Fields,
        indicator: Option<&MetricSli>,
    ) -> Option<(Comparison, f64)> {
        let op = fields.text("op", self.report);
        let value = fields.number("value", self.report);
        let at = |op: &Option<Text>, value: &Option<(Place, f64)>| {
            op.as_ref().map(|op| op.at).or(value.as_ref().map(|(at, _)| *at))
        };
        match indicator {
            None => None,
            Some(MetricSli::Ratio { .. }) => {
                if let Some(at) = at(&op, &value) {
                    let message = "expected `op` and `value` with a thresholdMetric only";
                    self.report.wrong(at, message, "a ratioMetric says itself what is good");
                }
                None
            }
            Some(MetricSli::Threshold { .. }) => {
                let (Some(op), Some((_, value))) = (&op, value) else {
                    fields.is_missing(
                        "`op` and `value`, since the indicator is a thresholdMetric,",
                        self.report,
                    );
                    return None;
                };
                let comparison = Comparison::from_text(&op.text);
                if comparison.is_none() {
                    let message =
                        format!("expected `op` to be lte, gte, lt or gt, got `{}`", op.text);
                    self.report.wrong(op.at, message, "the event is good when its value is so");
                }
                comparison.map(|op| (op, value))
            }
        }
    }

    fn budgeting(&mut self, fields: &mut Fields, method: Option<&Text>) -> Option<Budgeting> {
        let target = fields.number("timeSliceTarget", self.report);
        let window = self.slice(fields);
        let method = method?;
        let is_share = |share: f64| share > 0.0 && share <= 1.0;
        match method.text.as_str() {
            "Occurrences" => {
                if let Some(at) = target.map(|(at, _)| at).or(window.map(|(at, _)| at)) {
                    let message = "expected no time slices with `budgetingMethod: Occurrences`";
                    self.report.wrong(at, message, "write Timeslices or RatioTimeslices");
                }
                Some(Budgeting::Occurrences)
            }
            "Timeslices" => {
                let (Some((at, slice_target)), Some((_, slice_min))) = (target, window) else {
                    if !fields.has_had("timeSliceTarget") || !fields.has_had("timeSliceWindow") {
                        fields.is_missing("`timeSliceTarget` and `timeSliceWindow`", self.report);
                    }
                    return None;
                };
                if !is_share(slice_target) {
                    let message = format!(
                        "expected `timeSliceTarget` above 0 and at most 1, got `{slice_target}`"
                    );
                    self.report.wrong(
                        at,
                        message,
                        "it is the share of good events in a good slice",
                    );
                    return None;
                }
                Some(Budgeting::Timeslices { slice_min, slice_target })
            }
            "RatioTimeslices" => {
                if let Some((at, _)) = target {
                    let message =
                        "expected no `timeSliceTarget` with `budgetingMethod: RatioTimeslices`";
                    self.report.wrong(at, message, "each slice counts by its own share");
                }
                if window.is_none() && !fields.has_had("timeSliceWindow") {
                    fields.is_missing("`timeSliceWindow`", self.report);
                }
                Some(Budgeting::RatioTimeslices { slice_min: window?.1 })
            }
            other => {
                let known = ["Occurrences", "Timeslices", "RatioTimeslices"];
                let hint = throughline_rules::nearest(other, known)
                    .map(|name| format!("did you mean `{name}`?"))
                    .unwrap_or_default();
                let message = format!(
                    "expected `budgetingMethod` to be {}, got `{other}`",
                    known.join(" or ")
                );
                self.report.wrong(method.at, message, hint);
                None
            }
        }
    }

    /// `timeSliceWindow`: minutes, or a length of time.
    fn slice(&mut self, fields: &mut Fields) -> Option<(Place, u64)> {
        let tree = fields.take("timeSliceWindow")?;
        let minutes = match &tree.value {
            Value::Int(minutes) => u64::try_from(*minutes).ok(),
            _ => {
                let text = text_of(&tree, "timeSliceWindow", self.report)?;
                length_of(&text, "timeSliceWindow", self.report)?.minutes()
            }
        };
        // Slices begin at whole multiples of their length, and so do days.
        let fits = |minutes: &u64| {
            (1..=MAX_SLICE_MIN).contains(minutes) && DAY_MIN.is_multiple_of(*minutes)
        };
        let minutes = minutes.filter(fits);
        if minutes.is_none() {
            let got = tree.shown();
            let message =
                format!("expected `timeSliceWindow` of a length that fills a day, got {got}");
            self.report.wrong(tree.at, message, "1m, 5m, 15m, 1h are usual");
        }
        minutes.map(|minutes| (tree.at, minutes))
    }
}

/// A target as a percentage: what an objective is called when it has no name.
pub(in crate::slo) fn percent_name(target: f64) -> String {
    ((target * 100.0 * TARGET_DIGITS).round() / TARGET_DIGITS).to_string()
}

fn no_budget(is_all: bool) -> String {
    if is_all {
        "a promise that nothing ever fails leaves no error budget: write what users need".to_owned()
    } else {
        "a promise of nothing cannot be broken".to_owned()
    }
}
