//! What OpenSLO has no words for: our keys under `metadata.annotations`.

use super::documents::Meta;
use crate::slo::duration::DAY_MIN;
use crate::slo::fields::{Text, length_of};
use crate::slo::mistake::Report;
use crate::slo::model::{DEFAULT_MIN_EVENTS, EvaluationLoop, UsualAlerts};

/// Windows in a row that the evaluation loop waits for at most.
const MAX_EVALUATION_WINDOWS: f64 = 100.0;

/// Highest burn rate that can be meant.
const MAX_BURN_RATE: f64 = 1e6;

/// Most events that can be asked for.
const MAX_MIN_EVENTS: f64 = 1e12;

/// Receivers of the usual alerts at most.
const MAX_RECEIVERS: usize = 20;

/// What stands there.
pub(super) struct Extras {
    pub(super) runbook: String,
    pub(super) min_events: i64,
    pub(super) evaluation: EvaluationLoop,
    pub(super) usual_alerts: Option<UsualAlerts>,
    pub(super) notify: Vec<String>,
}

impl Extras {
    pub(super) fn read(meta: &Meta, report: &mut Report<'_>) -> Self {
        let usual = EvaluationLoop::default();
        let threshold = number(meta, "throughline.dev/evaluation-threshold", report)
            .filter(|(text, number)| {
                let fits = *number > 0.0 && *number <= MAX_BURN_RATE;
                is_within(fits, text, "a burn rate above 0", report)
            })
            .map(|(_, number)| number);
        let windows =
            whole(meta, "throughline.dev/evaluation-windows", MAX_EVALUATION_WINDOWS, report);
        let min_events = whole(meta, "throughline.dev/min-events", MAX_MIN_EVENTS, report);
        Self {
            runbook: meta
                .annotation("throughline.dev/runbook")
                .map_or_else(String::new, |text| text.text.trim().to_owned()),
            min_events: min_events.unwrap_or(DEFAULT_MIN_EVENTS),
            evaluation: EvaluationLoop {
                threshold: threshold.unwrap_or(usual.threshold),
                windows: windows.and_then(|count| count.try_into().ok()).unwrap_or(usual.windows),
                window_min: window(meta, report).unwrap_or(usual.window_min),
            },
            usual_alerts: usual_alerts(meta, report),
            notify: notify(meta, report),
        }
    }
}

fn is_within(fits: bool, text: &Text, what: &str, report: &mut Report<'_>) -> bool {
    if !fits {
        let got = &text.text;
        report.wrong(text.at, format!("expected {what}, got `{got}`"), "");
    }
    fits
}

fn number<'m>(meta: &'m Meta, name: &str, report: &mut Report<'_>) -> Option<(&'m Text, f64)> {
    let text = meta.annotation(name)?;
    let number = text.text.trim().parse::<f64>().ok().filter(|number| number.is_finite());
    is_within(number.is_some(), text, &format!("`{name}` to be a number"), report);
    number.map(|number| (text, number))
}

/// A whole number from 1 on.
fn whole(meta: &Meta, name: &str, most: f64, report: &mut Report<'_>) -> Option<i64> {
    let (text, number) = number(meta, name, report)?;
    let fits = (1.0..=most).contains(&number) && number.fract() == 0.0;
    let what = format!("`{name}` to be a whole number from 1 to {most}");
    is_within(fits, text, &what, report).then_some(number as i64)
}

fn window(meta: &Meta, report: &mut Report<'_>) -> Option<u64> {
    let name = "throughline.dev/evaluation-window";
    let text = meta.annotation(name)?;
    let minutes = length_of(text, name, report)?.minutes();
    let minutes = minutes.filter(|minutes| (1..=DAY_MIN).contains(minutes));
    is_within(minutes.is_some(), text, &format!("`{name}` from 1m to 1d"), report);
    minutes
}

fn usual_alerts(meta: &Meta, report: &mut Report<'_>) -> Option<UsualAlerts> {
    let name = "throughline.dev/usual-alerts";
    let text = meta.annotation(name)?;
    let choice = UsualAlerts::from_text(text.text.trim());
    is_within(choice.is_some(), text, &format!("`{name}` to be all, page, ticket or none"), report);
    choice
}

fn notify(meta: &Meta, report: &mut Report<'_>) -> Vec<String> {
    let name = "throughline.dev/notify";
    let Some(text) = meta.annotation(name) else { return Vec::new() };
    let receivers = text.text.split(',').map(|receiver| receiver.trim().to_owned());
    let receivers: Vec<String> = receivers.collect();
    let fits = receivers.len() <= MAX_RECEIVERS && receivers.iter().all(|each| !each.is_empty());
    let what = format!("`{name}` to be 1 to {MAX_RECEIVERS} receivers with commas between them");
    is_within(fits, text, &what, report);
    receivers
}
