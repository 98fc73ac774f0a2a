//! SLIs: metrics that are expressions over spans.

use throughline_rules::schemas::span_schema;
use throughline_rules::{Expression, Type};

use super::SloReader;
use super::documents::{Documents, Kind, Meta};
use crate::slo::fields::{Fields, Text};
use crate::slo::indicator::Judge;
use crate::slo::mistake::Report;
use crate::slo::tree::Place;

/// The only type of source whose metrics are counted here.
const SOURCE_TYPE: &str = "throughline";

/// An SLI as the file has it; a threshold is said by the objective.
#[derive(Debug, Clone)]
pub(super) enum MetricSli {
    /// `ratioMetric`
    Ratio { total: Expression, judge: Judge },
    /// `thresholdMetric`
    Threshold { total: Expression, value: Expression },
}

/// A metric: which spans, and what of them.
struct Metric {
    spans: Expression,
    value: Option<Expression>,
}

/// Which numbers a metric may have.
#[derive(Clone, Copy, PartialEq)]
enum Wants {
    Spans,
    SpansAndValue,
}

impl SloReader<'_, '_> {
    /// The SLO's indicator, inline or by name.
    pub(super) fn indicator(&mut self, spec: &mut Fields) -> Option<MetricSli> {
        let inline = spec.fields("indicator", self.report);
        let name = spec.text("indicatorRef", self.report);
        match (inline, name) {
            (Some(inline), None) => self.inline_indicator(inline),
            (None, Some(name)) => self.documents.indicator(&name, self.report),
            (None, None) => {
                spec.is_missing("`indicator` or `indicatorRef`", self.report);
                None
            }
            (Some(_), Some(name)) => {
                let message = "expected either `indicator` or `indicatorRef`, got both";
                self.report.wrong(name.at, message, "keep one of them");
                None
            }
        }
    }

    fn inline_indicator(&mut self, mut fields: Fields) -> Option<MetricSli> {
        is_kind(&mut fields, Kind::Sli, self.report);
        if fields.has("metadata") {
            Meta::read(&mut fields, self.report);
        }
        let spec = fields.need_fields("spec", self.report);
        fields.finish(self.report);
        read(spec?, self.documents, self.report)
    }
}

/// An inline object may repeat what it is.
pub(super) fn is_kind(fields: &mut Fields, kind: Kind, report: &mut Report<'_>) {
    drop(fields.take("apiVersion"));
    if let Some(word) = fields.text("kind", report)
        && word.text != kind.as_str()
    {
        let (kind, got) = (kind.as_str(), &word.text);
        report.wrong(word.at, format!("expected `kind: {kind}` here, got `{got}`"), "");
    }
}

/// Reads the `spec` of an SLI.
pub(super) fn read(
    mut spec: Fields,
    documents: &mut Documents,
    report: &mut Report<'_>,
) -> Option<MetricSli> {
    super::description(&mut spec, report);
    let ratio = spec.fields("ratioMetric", report);
    let threshold = spec.fields("thresholdMetric", report);
    let read = match (ratio, threshold) {
        (Some(ratio), None) => self::ratio(ratio, documents, report),
        (None, Some(threshold)) => {
            let metric = metric(threshold, Wants::SpansAndValue, documents, report);
            metric.and_then(|metric| {
                Some(MetricSli::Threshold { total: metric.spans, value: metric.value? })
            })
        }
        (Some(_), Some(threshold)) => {
            let message = "expected either `ratioMetric` or `thresholdMetric`, got both";
            report.wrong(threshold.at, message, "keep one of them");
            None
        }
        (None, None) => {
            spec.is_missing("`ratioMetric` or `thresholdMetric`", report);
            None
        }
    };
    spec.finish(report);
    read
}

fn ratio(
    mut fields: Fields,
    documents: &mut Documents,
    report: &mut Report<'_>,
) -> Option<MetricSli> {
    // Events are counted one by one, so that it makes no difference.
    let _ = fields.flag("counter", report);
    let mut part = |name: &'static str, wants, report: &mut Report<'_>| {
        let fields = fields.fields(name, report)?;
        let at = fields.at;
        Some((at, metric(fields, wants, documents, report)))
    };
    let good = part("good", Wants::Spans, report);
    let bad = part("bad", Wants::Spans, report);
    let total = part("total", Wants::Spans, report);
    let raw = part("raw", Wants::SpansAndValue, report);
    let raw_type = fields.text("rawType", report);
    let at = fields.at;
    fields.finish(report);
    let judged = |total: Metric, judge| Some(MetricSli::Ratio { total: total.spans, judge });
    match (good, bad, total, raw) {
        (Some((_, good)), None, Some((_, total)), None) => {
            let (good, total) = (good?, total?);
            judged(total, Judge::Good(good.spans))
        }
        (None, Some((_, bad)), Some((_, total)), None) => {
            let (bad, total) = (bad?, total?);
            judged(total, Judge::Bad(bad.spans))
        }
        (None, None, None, Some((at, raw))) => {
            let is_failure = raw_kind(raw_type.as_ref(), at, report);
            let raw = raw?;
            let value = raw.value.clone()?;
            judged(raw, Judge::Raw { value, is_failure: is_failure? })
        }
        _ => {
            report.wrong(
                at,
                "expected `good` and `total`, or `bad` and `total`, or `raw` alone in `ratioMetric`",
                "the event counts when `total` matches, and is good when `good` does too",
            );
            None
        }
    }
}

fn raw_kind(word: Option<&Text>, at: Place, report: &mut Report<'_>) -> Option<bool> {
    match word.map(|word| (word, word.text.as_str())) {
        Some((_, "success")) => Some(false),
        Some((_, "failure")) => Some(true),
        Some((word, got)) => {
            let message = format!("expected `rawType` to be success or failure, got `{got}`");
            report.wrong(word.at, message, "");
            None
        }
        None => {
            report.wrong(
                at,
                "expected `rawType` beside `raw`, got none",
                "success or failure: which share the value is",
            );
            None
        }
    }
}

/// `metricSource` with its expressions.
fn metric(
    mut fields: Fields,
    wants: Wants,
    documents: &mut Documents,
    report: &mut Report<'_>,
) -> Option<Metric> {
    let source = fields.need_fields("metricSource", report);
    fields.finish(report);
    let mut source = source?;
    let named = source.text("metricSourceRef", report);
    let ty = source.text("type", report);
    let spec = source.need_fields("spec", report);
    let of_source = match &named {
        Some(named) => documents.source_type(named, report),
        None => None,
    };
    let ty = match (ty, of_source, &named) {
        (Some(ty), ..) | (None, Some(ty), _) => Some(ty),
        (None, None, Some(_)) => None,
        (None, None, None) => {
            source.is_missing("`type: throughline`", report);
            None
        }
    };
    source.finish(report);
    let ty = ty?;
    if !ty.text.eq_ignore_ascii_case(SOURCE_TYPE) {
        report.wrong(
            ty.at,
            format!("expected a metric source of type `{SOURCE_TYPE}`, got `{}`", ty.text),
            "what is counted here are spans: spec: {spans: 'span.agent == \"fraud\"'}",
        );
        return None;
    }
    let mut spec = spec?;
    let spans = spec.need_text("spans", report);
    let value = match wants {
        Wants::SpansAndValue => spec.need_text("value", report),
        Wants::Spans => None,
    };
    spec.finish(report);
    let spans = spans.and_then(|text| expression(&text, &Type::Bool, report));
    let value = match value {
        Some(text) => Some(number(&text, report)?),
        None => None,
    };
    if wants == Wants::SpansAndValue && value.is_none() {
        return None;
    }
    Some(Metric { spans: spans?, value })
}

/// Compiles an expression over `span`.
pub(in crate::slo) fn expression(
    text: &Text,
    ty: &Type,
    report: &mut Report<'_>,
) -> Option<Expression> {
    match Expression::compile(&text.text, &span_schema(), ty) {
        Ok(expression) => Some(expression),
        Err(mistakes) => {
            report.wrong_expression(text.at, &text.text, &mistakes);
            None
        }
    }
}

/// Compiles an expression over `span` that gives a number.
fn number(text: &Text, report: &mut Report<'_>) -> Option<Expression> {
    let expression = expression(text, &Type::Dyn, report)?;
    let ty = expression.result_type();
    if matches!(ty, Type::Int | Type::Uint | Type::Double | Type::Dyn) {
        return Some(expression);
    }
    let hint = match ty {
        Type::Duration => "span.duration_ms is the duration as a number of milliseconds",
        _ => {
            "numbers of a span are duration_ms, input_tokens, output_tokens, cost_usd and attributes"
        }
    };
    report.wrong(text.at, format!("expected `value` to give a number, got {ty}"), hint);
    None
}
