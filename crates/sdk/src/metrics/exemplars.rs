//! Exemplars: the span in which a measurement was made (OpenTelemetry metrics data model,
//! "Exemplars"). The metric pipeline of the OpenTelemetry SDK keeps none, so ours are kept beside it,
//! by series, and laid onto the data points where an export leaves over HTTP.
//!
//! Kept is the latest measurement of each bucket of a histogram, and the latest of a counter, within
//! a sampled span, since the last export.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry::metrics::{Counter, Histogram};
use opentelemetry::trace::{SpanId, TraceContextExt as _, TraceId};
use opentelemetry::{Context, KeyValue, Value};

/// Series that exemplars are kept of between two exports, at most: about 2.5 MB if all are
/// histograms. A series that comes when it is reached has none until the next export.
const MAX_SERIES: usize = 4_096;

/// One measurement and the span that it was made in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Exemplar {
    pub(crate) value: Measured,
    pub(crate) time_unix_nano: u64,
    pub(crate) trace_id: TraceId,
    pub(crate) span_id: SpanId,
}

/// A value, as its instrument takes it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Measured {
    Whole(u64),
    Real(f64),
}

/// The exemplars of one series, one place for each bucket.
type Places = Box<[Option<Exemplar>]>;

/// The exemplars since the last export.
#[derive(Debug, Clone, Default)]
pub(crate) struct Exemplars {
    series: Arc<Mutex<HashMap<SeriesId, Places>>>,
}

/// What an export takes along.
pub(crate) type Taken = HashMap<SeriesId, Places>;

impl Exemplars {
    /// Keeps a measurement that is made within a sampled span.
    fn offer(&self, name: &str, bounds: &[f64], value: Measured, labels: &[KeyValue]) {
        let within = Context::map_current(|cx| {
            let span = cx.span();
            let span = span.span_context();
            span.is_sampled().then(|| (span.trace_id(), span.span_id()))
        });
        let Some((trace_id, span_id)) = within else { return };
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time_unix_nano = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        let mut id = SeriesId::new(name);
        for label in labels {
            id.add(label.key.as_str(), Label::of(&label.value));
        }
        let real = match value {
            Measured::Whole(value) => value as f64,
            Measured::Real(value) => value,
        };
        let bucket = bounds.partition_point(|bound| *bound < real);
        let mut series = self.series();
        let is_full = series.len() >= MAX_SERIES;
        let places = match series.entry(id) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(_) if is_full => return,
            Entry::Vacant(new) => new.insert(vec![None; bounds.len() + 1].into()),
        };
        // A series has one name, and that one set of bounds.
        if let Some(place) = places.get_mut(bucket) {
            *place = Some(Exemplar { value, time_unix_nano, trace_id, span_id });
        }
    }

    /// All that are kept; none are then.
    pub(crate) fn take(&self) -> Taken {
        std::mem::take(&mut self.series())
    }

    /// Keeps those of an export that failed, where there is nothing newer.
    pub(crate) fn put_back(&self, taken: Taken) {
        let mut series = self.series();
        for (id, old) in taken {
            match series.entry(id) {
                Entry::Vacant(free) => {
                    free.insert(old);
                }
                Entry::Occupied(mut newer) => {
                    for (place, old) in newer.get_mut().iter_mut().zip(old) {
                        *place = place.or(old);
                    }
                }
            }
        }
    }

    fn series(&self) -> MutexGuard<'_, HashMap<SeriesId, Places>> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A metric's name and a set of labels, in whatever order: a hash of 64 bits, so that a measurement
/// of a known series allocates nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SeriesId(u64);

/// A label's value, as instrument and wire both have it.
#[derive(Debug, Clone, Copy, Hash)]
pub(crate) enum Label<'a> {
    Text(&'a str),
    Truth(bool),
    Whole(i64),
    Real(u64),
    /// A list: none of our labels is one.
    Other,
}

impl SeriesId {
    pub(crate) fn new(name: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        Self(hasher.finish())
    }

    pub(crate) fn add(&mut self, key: &str, value: Label<'_>) {
        let mut hasher = DefaultHasher::new();
        (key, value).hash(&mut hasher);
        self.0 = self.0.wrapping_add(hasher.finish());
    }
}

impl<'a> Label<'a> {
    fn of(value: &'a Value) -> Self {
        match value {
            Value::String(text) => Self::Text(text.as_str()),
            Value::Bool(truth) => Self::Truth(*truth),
            Value::I64(number) => Self::Whole(*number),
            Value::F64(number) => Self::Real(number.to_bits()),
            _ => Self::Other,
        }
    }
}

/// An instrument whose measurements have exemplars.
#[derive(Debug)]
pub(super) struct Exemplified<I> {
    inner: I,
    name: &'static str,
    /// Upper bounds of the buckets, in the instrument's unit; a counter has none.
    bounds: &'static [f64],
    /// `None` when no export takes them along.
    exemplars: Option<Exemplars>,
}

impl<I> Exemplified<I> {
    pub(super) fn new(
        inner: I,
        name: &'static str,
        bounds: &'static [f64],
        exemplars: Option<&Exemplars>,
    ) -> Self {
        Self { inner, name, bounds, exemplars: exemplars.cloned() }
    }

    fn offer(&self, value: Measured, labels: &[KeyValue]) {
        if let Some(exemplars) = &self.exemplars {
            exemplars.offer(self.name, self.bounds, value, labels);
        }
    }
}

impl Exemplified<Counter<u64>> {
    pub(super) fn add(&self, value: u64, labels: &[KeyValue]) {
        self.inner.add(value, labels);
        if value > 0 {
            self.offer(Measured::Whole(value), labels);
        }
    }
}

impl Exemplified<Histogram<u64>> {
    pub(super) fn record(&self, value: u64, labels: &[KeyValue]) {
        self.inner.record(value, labels);
        self.offer(Measured::Whole(value), labels);
    }
}

impl Exemplified<Histogram<f64>> {
    pub(super) fn record(&self, value: f64, labels: &[KeyValue]) {
        self.record_times(1, value, labels, false);
    }

    /// Records the value so many times. Where the instrument `can_bind`, its series is looked up
    /// once for all of them: that is what a measurement costs.
    pub(super) fn record_times(&self, times: u32, value: f64, labels: &[KeyValue], can_bind: bool) {
        if can_bind && times > 1 {
            let bound = self.inner.bind(labels);
            (0..times).for_each(|_| bound.record(value));
        } else {
            (0..times).for_each(|_| self.inner.record(value, labels));
        }
        if times > 0 {
            self.offer(Measured::Real(value), labels);
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanContext, TraceFlags, TraceState};

    use super::*;

    const BOUNDS: &[f64] = &[1.0, 2.0];

    fn within(trace: u128, flags: TraceFlags, work: impl FnOnce()) {
        let (trace, span) = (TraceId::from(trace), SpanId::from(1));
        let span = SpanContext::new(trace, span, flags, false, TraceState::default());
        let _in = Context::new().with_remote_span_context(span).attach();
        work();
    }

    fn offer(exemplars: &Exemplars, trace: u128, value: f64, label: &'static str) {
        within(trace, TraceFlags::SAMPLED, || {
            exemplars.offer("m", BOUNDS, Measured::Real(value), &[KeyValue::new("l", label)]);
        });
    }

    /// `TRACE=VALUE` of each bucket of one series.
    fn shown(taken: &Taken) -> Vec<String> {
        let mut series: Vec<String> = taken
            .values()
            .map(|places| {
                let shown = places.iter().map(|place| match place {
                    Some(Exemplar { value: Measured::Real(value), trace_id, .. }) => {
                        format!("{}={value}", u128::from_be_bytes(trace_id.to_bytes()))
                    }
                    _ => "-".to_owned(),
                });
                shown.collect::<Vec<_>>().join(" ")
            })
            .collect();
        series.sort();
        series
    }

    #[test]
    fn the_latest_of_each_bucket_is_kept_and_taken_once() {
        let exemplars = Exemplars::default();
        for (trace, value) in [(1, 0.5), (2, 1.0), (3, 1.5), (4, 9.0)] {
            offer(&exemplars, trace, value, "a");
        }
        offer(&exemplars, 5, 0.1, "b");
        assert_eq!(shown(&exemplars.take()), ["2=1 3=1.5 4=9", "5=0.1 - -"]);
        assert!(exemplars.take().is_empty());
    }

    #[test]
    fn what_is_in_no_sampled_span_has_none() {
        let exemplars = Exemplars::default();
        let offer = || exemplars.offer("m", BOUNDS, Measured::Whole(1), &[]);
        offer();
        within(1, TraceFlags::NOT_SAMPLED, offer);
        assert!(exemplars.take().is_empty());
    }

    #[test]
    fn those_of_a_failed_export_come_back_where_nothing_is_newer() {
        let exemplars = Exemplars::default();
        offer(&exemplars, 1, 0.5, "a");
        offer(&exemplars, 2, 1.5, "a");
        offer(&exemplars, 3, 0.5, "b");
        let taken = exemplars.take();
        offer(&exemplars, 4, 0.7, "a");
        exemplars.put_back(taken);
        assert_eq!(shown(&exemplars.take()), ["3=0.5 - -", "4=0.7 2=1.5 -"]);
    }

    #[test]
    fn no_more_series_are_kept_than_the_limit() {
        let exemplars = Exemplars::default();
        for n in 0..MAX_SERIES + 5 {
            within(1, TraceFlags::SAMPLED, || {
                let label = KeyValue::new("l", i64::try_from(n).expect("small"));
                exemplars.offer("m", BOUNDS, Measured::Whole(1), &[label]);
            });
        }
        assert_eq!(exemplars.take().len(), MAX_SERIES);
    }

    #[test]
    fn the_order_of_labels_makes_no_other_series() {
        let id = |labels: &[(&str, &str)]| {
            let mut id = SeriesId::new("m");
            labels.iter().for_each(|(key, value)| id.add(key, Label::Text(value)));
            id
        };
        assert_eq!(id(&[("a", "1"), ("b", "2")]), id(&[("b", "2"), ("a", "1")]));
        assert_ne!(id(&[("a", "1"), ("b", "2")]), id(&[("a", "2"), ("b", "1")]));
        assert_ne!(id(&[("a", "1")]), SeriesId::new("m"));
    }
}
