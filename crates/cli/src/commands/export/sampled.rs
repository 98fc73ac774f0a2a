//! `throughline export --sampled`: the rules of `sampling` over what leaves.

use std::sync::Arc;

use throughline_store::{BASELINE_DAYS, ExportSampler, Observer, Reader, TraceFilter};
use throughline_trace::{Dimension, Measure, SeriesQuery, Span, Value, keys};

use crate::commands::{PAGE_ROWS, of_query};
use crate::config::FileConfig;
use crate::failure::{Failure, Outcome};
use crate::governing::{RuleFiles, now_unix_nano, rule_observer};
use crate::settings::Settings;

/// Seconds of a day.
const DAY_SECONDS: u64 = 86_400;

/// Nanoseconds in a second.
const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Who judges, with what it has to know of others beforehand.
pub(super) async fn sampler(
    reader: &Reader,
    settings: &Settings,
    filter: &TraceFilter,
) -> Outcome<ExportSampler> {
    let config = settings.config_file.as_deref().map(FileConfig::read).transpose()?;
    let config = config.unwrap_or_default();
    let sampling = config.sampling.resolve()?;
    if !sampling.is_active() {
        return Err(Failure::usage(
            "expected `sampling` in the configuration file to leave something out, got none that does",
        )
        .hint("docs/sampling.md says how it is set; without --sampled everything is exported"));
    }
    let observer = Observer::default();
    let rules = RuleFiles::new(config.governance.rules.clone()).read()?;
    observer.set(Arc::new(rule_observer(&rules, Vec::new())));
    let mut sampler = ExportSampler::new(sampling).observing(&observer);
    if sampler.wants_counts() {
        let mut cursor: Option<String> = None;
        loop {
            let page =
                reader.traces(filter, cursor.as_deref(), PAGE_ROWS).await.map_err(of_query)?;
            page.items.iter().for_each(|summary| sampler.count(summary));
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
    }
    if sampler.wants_durations() {
        let until = filter.start_before_unix_nano.unwrap_or_else(now_unix_nano) / NANOS_PER_SECOND;
        let from = until.saturating_sub(BASELINE_DAYS * DAY_SECONDS);
        let query = SeriesQuery {
            step_seconds: DAY_SECONDS,
            ..SeriesQuery::new(vec![Measure::Count], from, until.max(from + 1))
        };
        let sums = reader.rollup_sums(&query.by(Dimension::Agent)).await.map_err(of_query)?;
        sampler.learn(&sums);
    }
    Ok(sampler)
}

/// Says of each span how many traces its own stands for, where that is more than itself.
pub(super) fn weigh(spans: &mut [Span], weight: f64) {
    if weight > 1.0 {
        spans
            .iter_mut()
            .for_each(|span| span.attributes.set(keys::SAMPLING_WEIGHT, Value::Double(weight)));
    }
}
