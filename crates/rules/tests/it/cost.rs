//! What an evaluation does not do: it allocates nothing for usual rules, and looks a path up once.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use throughline_rules::schemas::{Exchange, exchange_schema, span_schema};
use throughline_rules::{Expression, Field, Match, Record, RecordType, Schema, Scope, Type, Value};
use throughline_trace::{Attributes, Span, SpanId, TraceId};

/// The system's allocator, counting what each thread asks of it.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[expect(
    unsafe_code,
    reason = "an allocator is an unsafe trait; every call is passed on as it came"
)]
// SAFETY: both functions pass their arguments on to the system's allocator, unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // The counter may be gone while its thread ends.
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`, which is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the place came from `alloc` above, with this layout.
        unsafe { System.dealloc(place, layout) }
    }
}

/// The verdict, and how often it allocated.
fn counted(rule: &Expression, scope: &dyn Scope) -> (Match, usize) {
    let before = ALLOCATIONS.get();
    let verdict = rule.matches(scope);
    (verdict, ALLOCATIONS.get() - before)
}

fn span() -> Span {
    let mut span = Span::new(TraceId::from_u128(1), SpanId::from_u64(1), None, "chat gpt-4o");
    span.attributes = Attributes::from_iter([
        ("throughline.role", "llm_call"),
        ("gen_ai.request.model", "gpt-4o"),
        ("agent_id", "fraud"),
    ]);
    span
}

#[test]
fn usual_rules_allocate_nothing() {
    for source in [
        r#"span.role == "llm_call" && span.attributes["gen_ai.request.model"].startsWith("gpt-4")"#,
        r#"span.agent in ["fraud", "risk"] && span.duration_ms < 800.0 && span.status != "ERROR""#,
        r#"span.attributes.get("retries", 0) == 0 && !has(span.attributes.x)"#,
        r#"span.name.matches("^chat .*4o$") && span.start < timestamp("2026-01-01T00:00:00Z")"#,
        r#"size(span.attributes) > 2 && span.name.substring(5).contains("gpt")"#,
    ] {
        let rule = Expression::filter(source, &span_schema()).expect("valid");
        let span = span();
        // A pattern prepares itself at its first use.
        assert_eq!(rule.matches(&span), Match::Yes, "{source}");
        assert_eq!(counted(&rule, &span), (Match::Yes, 0), "{source}");
    }
    let contract = Expression::filter(
        r#"response.status == "ok" && size(response.items) > 0 && response.latency_ms < 800.0"#,
        &exchange_schema(None, None),
    );
    let (request, response) = (
        serde_json::json!({}),
        serde_json::json!({"status": "ok", "items": [1], "latency_ms": 12.5}),
    );
    let exchange = Exchange { request: &request, response: &response };
    assert_eq!(counted(&contract.expect("valid"), &exchange), (Match::Yes, 0));
}

#[test]
fn what_must_be_made_is_counted() {
    let rule = Expression::filter(r#"span.trace_id == """#, &span_schema()).expect("valid");
    let (verdict, allocations) = counted(&rule, &span());
    assert_eq!(verdict, Match::No);
    assert!(allocations > 0, "the text of an id is made for the rule");
}

#[test]
fn a_missing_attribute_allocates_nothing_either() {
    let rule = Expression::filter("span.attributes.retries > 3", &span_schema()).expect("valid");
    let (verdict, allocations) = counted(&rule, &span());
    assert!(matches!(verdict, Match::Error(_)));
    assert_eq!(allocations, 0);
}

/// A record that counts how often it is asked.
struct Asked(AtomicUsize);

static SHAPE: LazyLock<RecordType> = LazyLock::new(|| RecordType {
    name: "asked".into(),
    fields: vec![
        Field::new("text", Type::String, "text"),
        Field::new("map", Type::open_map(), "map"),
    ],
    is_open: false,
    is_map: false,
});

impl Record for Asked {
    fn shape(&self) -> &RecordType {
        &SHAPE
    }

    fn field(&self, index: usize) -> Value<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        match index {
            0 => Value::Str("b"),
            _ => Value::map([(Value::Str("k"), Value::Int(5))]),
        }
    }

    fn is_set(&self, _index: usize) -> bool {
        true
    }
}

impl Scope for Asked {
    fn variable(&self, index: usize) -> Option<Value<'_>> {
        (index == 0).then_some(Value::Record(self))
    }
}

#[test]
fn a_path_is_looked_up_once() {
    let shape = Type::Record(std::sync::Arc::new(SHAPE.clone()));
    let schema = Schema::new("asked", vec![Field::new("it", shape, "the record")]);
    for (source, times) in [
        (r#"it.text == "a" || it.text == "b""#, 1),
        (r#"it.map.k > 1 && it.map["k"] < 9 && it.map.k != 3"#, 1),
        (r#"it.map.k > 1 && it.text.startsWith("b")"#, 2),
        (r#"[1, 2, 3].all(x, it.map.k > x && it.map.k < 9)"#, 1),
    ] {
        let rule = Expression::filter(source, &schema).expect("valid");
        let record = Asked(AtomicUsize::new(0));
        assert_eq!(rule.matches(&record), Match::Yes, "{source}");
        assert_eq!(record.0.load(Ordering::Relaxed), times, "{source}");
    }
}
