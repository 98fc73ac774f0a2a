//! The propagators for OpenTelemetry: what the functions of this module do, as a drop-in for any
//! set-up. They carry all baggage, as others do.

use std::sync::LazyLock;

use opentelemetry::propagation::text_map_propagator::FieldIter;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::{Context, global};

use super::{Parent, b3, baggage, parent_of, trace_texts};

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
const BAGGAGE: &str = "baggage";

/// The variable that names the propagators.
const PROPAGATORS_VARIABLE: &str = "OTEL_PROPAGATORS";

/// What the specification takes when the variable says nothing.
const DEFAULT_NAMES: &str = "tracecontext,baggage";

static TRACE_FIELDS: LazyLock<[String; 2]> =
    LazyLock::new(|| [TRACEPARENT.to_owned(), TRACESTATE.to_owned()]);
static BAGGAGE_FIELDS: LazyLock<[String; 1]> = LazyLock::new(|| [BAGGAGE.to_owned()]);
static SINGLE_FIELDS: LazyLock<[String; 1]> = LazyLock::new(|| [b3::SINGLE.to_owned()]);
static MULTI_FIELDS: LazyLock<[String; 4]> =
    LazyLock::new(|| [b3::TRACE_ID, b3::SPAN_ID, b3::SAMPLED, b3::FLAGS].map(str::to_owned));

/// W3C Trace Context, Level 2: `traceparent` and `tracestate`. When several `traceparent`s come, or
/// a malformed one, the context stays as it is, so that a server's trace starts anew.
///
/// ```
/// opentelemetry::global::set_text_map_propagator(throughline::propagation::TraceContext::new());
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct TraceContext;

impl TraceContext {
    /// The propagator.
    pub fn new() -> Self {
        Self
    }
}

impl TextMapPropagator for TraceContext {
    fn inject_context(&self, cx: &Context, injector: &mut dyn Injector) {
        let (parent, state) = trace_texts(cx);
        set(injector, TRACEPARENT, parent);
        set(injector, TRACESTATE, state);
    }

    fn extract_with_context(&self, cx: &Context, extractor: &dyn Extractor) -> Context {
        match parent_of(cx, &all(extractor, TRACEPARENT), &all(extractor, TRACESTATE)) {
            Parent::Remote(cx) => cx,
            Parent::Absent | Parent::Malformed => cx.clone(),
        }
    }

    fn fields(&self) -> FieldIter<'_> {
        FieldIter::new(&*TRACE_FIELDS)
    }
}

/// W3C Baggage, all of it. [`Dimensions`](crate::Dimensions) that it names are those of the context.
#[derive(Debug, Clone, Copy, Default)]
pub struct Baggage;

impl Baggage {
    /// The propagator.
    pub fn new() -> Self {
        Self
    }
}

impl TextMapPropagator for Baggage {
    fn inject_context(&self, cx: &Context, injector: &mut dyn Injector) {
        set(injector, BAGGAGE, baggage::text(cx, |_| true));
    }

    fn extract_with_context(&self, cx: &Context, extractor: &dyn Extractor) -> Context {
        baggage::onto(cx, baggage::parse(&all(extractor, BAGGAGE), |_| true))
    }

    fn fields(&self) -> FieldIter<'_> {
        FieldIter::new(&*BAGGAGE_FIELDS)
    }
}

/// B3, the form of Zipkin. Both forms are read, and the debug mark goes on; a caller that leaves
/// the sampling to us has its trace kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct B3 {
    is_single: bool,
}

impl B3 {
    /// Writes the one header, `b3`.
    pub fn single() -> Self {
        Self { is_single: true }
    }

    /// Writes the several headers, `X-B3-TraceId` and so on.
    pub fn multi() -> Self {
        Self { is_single: false }
    }
}

impl TextMapPropagator for B3 {
    fn inject_context(&self, cx: &Context, injector: &mut dyn Injector) {
        if self.is_single {
            set(injector, b3::SINGLE, b3::single(cx));
        } else {
            for (name, text) in b3::multi(cx) {
                set(injector, name, text);
            }
        }
    }

    fn extract_with_context(&self, cx: &Context, extractor: &dyn Extractor) -> Context {
        b3::extract(cx, |name| extractor.get(name)).unwrap_or_else(|| cx.clone())
    }

    fn fields(&self) -> FieldIter<'_> {
        if self.is_single {
            FieldIter::new(&*SINGLE_FIELDS)
        } else {
            FieldIter::new(&*MULTI_FIELDS)
        }
    }
}

/// Several propagators as one, chosen by name as `OTEL_PROPAGATORS` does: `tracecontext`,
/// `baggage`, `b3`, `b3multi`, or `none`. Where two find a trace, the later one counts.
///
/// ```
/// use throughline::propagation::Propagator;
///
/// let (propagator, unknown) = Propagator::from_names("tracecontext,baggage,b3,xray");
/// assert_eq!(unknown, ["xray"]);
/// opentelemetry::global::set_text_map_propagator(propagator);
/// ```
#[derive(Debug, Clone)]
pub struct Propagator {
    parts: Vec<Part>,
    fields: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    TraceContext,
    Baggage,
    B3(B3),
}

impl Part {
    fn propagator(&self) -> &dyn TextMapPropagator {
        match self {
            Self::TraceContext => &TraceContext,
            Self::Baggage => &Baggage,
            Self::B3(b3) => b3,
        }
    }
}

impl Propagator {
    /// W3C Trace Context and Baggage.
    pub fn new() -> Self {
        Self::from_names(DEFAULT_NAMES).0
    }

    /// The propagators of these names, joined by commas, and the names that nobody knows. A name
    /// that comes twice counts once.
    pub fn from_names(names: &str) -> (Self, Vec<String>) {
        let mut parts = Vec::new();
        let mut unknown = Vec::new();
        for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let part = match name.to_ascii_lowercase().as_str() {
                "tracecontext" => Part::TraceContext,
                "baggage" => Part::Baggage,
                "b3" => Part::B3(B3::single()),
                "b3multi" => Part::B3(B3::multi()),
                "none" => continue,
                _ => {
                    unknown.push(name.to_owned());
                    continue;
                }
            };
            if !parts.contains(&part) {
                parts.push(part);
            }
        }
        let fields = parts.iter().flat_map(|part| part.propagator().fields());
        let fields = fields.map(str::to_owned).collect();
        (Self { parts, fields }, unknown)
    }

    /// The propagators that `OTEL_PROPAGATORS` names; W3C Trace Context and Baggage when it is
    /// unset or empty. Names that nobody knows are told in a warning.
    pub fn from_env() -> Self {
        let names = std::env::var(PROPAGATORS_VARIABLE).unwrap_or_default();
        let names = if names.trim().is_empty() { DEFAULT_NAMES } else { &names };
        let (propagator, unknown) = Self::from_names(names);
        if !unknown.is_empty() {
            tracing::warn!(
                target: "throughline",
                "expected {PROPAGATORS_VARIABLE} to name tracecontext, baggage, b3, b3multi or \
                 none, got {:?}; these propagate nothing",
                unknown.join(",")
            );
        }
        propagator
    }

    /// Makes these the propagators of the process, unless the host has set its own.
    pub(crate) fn install(self) {
        if global::get_text_map_propagator(|present| present.fields().next().is_none()) {
            global::set_text_map_propagator(self);
        }
    }
}

impl Default for Propagator {
    fn default() -> Self {
        Self::new()
    }
}

impl TextMapPropagator for Propagator {
    fn inject_context(&self, cx: &Context, injector: &mut dyn Injector) {
        for part in &self.parts {
            part.propagator().inject_context(cx, injector);
        }
    }

    fn extract_with_context(&self, cx: &Context, extractor: &dyn Extractor) -> Context {
        self.parts
            .iter()
            .fold(cx.clone(), |cx, part| part.propagator().extract_with_context(&cx, extractor))
    }

    fn fields(&self) -> FieldIter<'_> {
        FieldIter::new(&self.fields)
    }
}

fn set(injector: &mut dyn Injector, name: &str, text: String) {
    if !text.is_empty() {
        injector.set(name, text);
    }
}

fn all<'a>(extractor: &'a dyn Extractor, name: &str) -> Vec<&'a [u8]> {
    let values = extractor.get_all(name).unwrap_or_default();
    values.into_iter().map(str::as_bytes).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use opentelemetry::KeyValue;
    use opentelemetry::baggage::BaggageExt as _;
    use opentelemetry::trace::TraceContextExt as _;

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn names_choose_propagators() {
        let fields = |names: &str| {
            let (propagator, unknown) = Propagator::from_names(names);
            let fields: Vec<String> = propagator.fields().map(str::to_owned).collect();
            format!("{} | {}", fields.join(" "), unknown.join(" "))
        };
        for (names, expected) in [
            ("tracecontext, BAGGAGE,,baggage", "traceparent tracestate baggage | "),
            ("b3", "b3 | "),
            ("b3multi,jaeger", "x-b3-traceid x-b3-spanid x-b3-sampled x-b3-flags | jaeger"),
            ("none", " | "),
        ] {
            assert_eq!(fields(names), expected, "{names}");
        }
    }

    #[test]
    fn a_map_carries_all_of_it() {
        let all = Propagator::from_names("tracecontext,baggage,b3,b3multi").0;
        let mut sent: HashMap<String, String> = HashMap::new();
        sent.insert("traceparent".to_owned(), PARENT.to_owned());
        sent.insert("tracestate".to_owned(), "foo@@bar=1".to_owned());
        sent.insert("baggage".to_owned(), "user=anyone;p=1,session_id=s".to_owned());
        let cx = all.extract_with_context(&Context::new(), &sent);
        assert_eq!(crate::Dimensions::of(&cx).session_id(), Some("s"));
        let mut out: HashMap<String, String> = HashMap::new();
        all.inject_context(&cx, &mut out);
        let mut lines: Vec<String> = out.iter().map(|(k, v)| format!("{k}: {v}")).collect();
        lines.sort();
        insta::assert_snapshot!(lines.join("\n"), @r"
        b3: 4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1
        baggage: session_id=s,user=anyone;p=1
        traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
        tracestate: foo@@bar=1
        x-b3-sampled: 1
        x-b3-spanid: 00f067aa0ba902b7
        x-b3-traceid: 4bf92f3577b34da6a3ce929d0e0e4736
        ");
    }

    #[test]
    fn what_cannot_be_read_leaves_the_context() {
        let mut sent: HashMap<String, String> = HashMap::new();
        sent.insert("traceparent".to_owned(), "00-bad".to_owned());
        let cx = Context::new().with_baggage([KeyValue::new("k", "v")]);
        let read = Propagator::new().extract_with_context(&cx, &sent);
        assert!(!read.span().span_context().is_valid());
        assert_eq!(read.baggage().len(), 1);
    }
}
