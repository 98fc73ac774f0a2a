//! Foreign names to one normal form: the GenAI conventions' newest names, our dimensions beside them.
//!
//! Each dialect is one file: what it calls things (a table), and the code for what a table cannot
//! say. What came is never changed or taken away: the normal form is *added* under keys that were
//! not there, so a span that speaks the newest conventions already gains next to nothing, and one
//! without any known key is looked at once. The dialect is found for each span by its keys: one
//! process may have several instrumentations.
//!
//! Roles decide what counts in totals. A span whose dialect says that it wraps model calls (an
//! agent run, a chain, the outer span of an SDK) is never named an inference here, even if it bears
//! their summed usage; two instrumentations that tell the same call are the business of
//! [`CallLedger`](throughline_trace::CallLedger), which sees the whole trace.

mod derived;
mod draft;
mod events;
mod genai;
mod indexed;
mod langchain;
mod langsmith;
mod logfire;
mod messages;
mod mlflow;
mod openinference;
mod traceloop;
mod vercel_ai;

use throughline_trace::{Attributes, Span, SpanRole, Value, keys};

pub(crate) use derived::decisions;
pub(crate) use draft::Added;
use draft::Draft;
pub(crate) use langchain::{fallbacks, is_fallback};

/// Which dialects a span speaks: a set of bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Spoken(u16);

impl Spoken {
    const NONE: Self = Self(0);
    const OPENINFERENCE: Self = Self(1);
    const TRACELOOP: Self = Self(1 << 1);
    const VERCEL_AI: Self = Self(1 << 2);
    const LOGFIRE: Self = Self(1 << 3);
    const LANGSMITH: Self = Self(1 << 4);
    const MLFLOW: Self = Self(1 << 5);
    /// The GenAI conventions, with something to add: a dimension, or an older name.
    const GENAI: Self = Self(1 << 6);
    /// The GenAI conventions with content in events.
    const EVENTS: Self = Self(1 << 7);
    /// The GenAI conventions with counts under older names.
    const COUNTS: Self = Self(1 << 9);
    /// Our own SDK, whose spans are in normal form.
    const OURS: Self = Self(1 << 8);

    fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// What one key tells.
    fn by_key(key: &str) -> Self {
        match key.as_bytes().first() {
            Some(b'g') => match key.strip_prefix("gen_ai.") {
                Some(rest) => genai::spoken_by(rest),
                None => Self::NONE,
            },
            Some(b'o') if key == openinference::KIND => Self::OPENINFERENCE,
            Some(b'l') => match key {
                _ if key.starts_with("langsmith.") => Self::LANGSMITH,
                _ if key.starts_with("logfire.") => Self::LOGFIRE,
                _ if traceloop::OLD_KEYS.contains(&key) => Self::TRACELOOP,
                _ if openinference::is_message_or_count(key) => Self::OPENINFERENCE,
                _ => Self::NONE,
            },
            Some(b't') if key.starts_with("traceloop.") => Self::TRACELOOP,
            Some(b't') if key == keys::ROLE => Self::OURS,
            Some(b'a') if key == vercel_ai::OPERATION => Self::VERCEL_AI,
            Some(b'p') if key.starts_with("pydantic_ai.") => Self::LOGFIRE,
            Some(b'm') if key.starts_with("mlflow.") => Self::MLFLOW,
            _ => Self::NONE,
        }
    }

    fn of(span: &Span) -> Self {
        let mut spoken = Self::NONE;
        for (key, _) in &span.attributes.0 {
            spoken.0 |= Self::by_key(key).0;
        }
        if span.events.iter().any(|event| event.name.starts_with("gen_ai.")) {
            spoken.0 |= Self::EVENTS.0;
        }
        spoken
    }
}

/// What a span is to be.
#[derive(Debug)]
pub(crate) enum Reading {
    /// Taken as it came.
    Plain,
    /// Taken with this beside it.
    Added(Added),
    /// Left out: a notice that a span has begun, which comes again whole when it ends.
    Pending,
}

/// Reads `span` in the dialects that it speaks. Pure; nothing of the span is changed.
pub(crate) fn read(span: &Span) -> Reading {
    let spoken = Spoken::of(span);
    if spoken == Spoken::NONE || spoken.has(Spoken::OURS) {
        return Reading::Plain;
    }
    if spoken.has(Spoken::LOGFIRE) && logfire::is_pending(&span.attributes) {
        return Reading::Pending;
    }
    let mut draft = Draft::new(span);
    // Who knows most comes first: a later dialect adds only what is not there.
    for (dialect, add) in DIALECTS {
        if spoken.has(*dialect) {
            add(&mut draft);
        }
    }
    dimensions(&mut draft);
    match draft.finish() {
        added if added.is_empty() => Reading::Plain,
        added => Reading::Added(added),
    }
}

/// What each dialect adds.
type Add = fn(&mut Draft<'_>);

const DIALECTS: &[(Spoken, Add)] = &[
    (Spoken::VERCEL_AI, vercel_ai::add),
    (Spoken::LANGSMITH, langsmith::add),
    (Spoken::OPENINFERENCE, openinference::add),
    (Spoken::MLFLOW, mlflow::add),
    (Spoken::TRACELOOP, traceloop::add),
    (Spoken::LOGFIRE, logfire::add),
    (Spoken::EVENTS, events::add),
    (Spoken::COUNTS, genai::add_counts),
    (Spoken::GENAI, genai::add),
];

/// Our dimensions, from what the conventions call them once the dialects have had their say.
fn dimensions(draft: &mut Draft<'_>) {
    draft.copy_any(&[keys::AI_AGENT_NAME, keys::GEN_AI_AGENT_NAME], keys::AGENT_ID);
    draft.copy_any(&["session.id", keys::GEN_AI_CONVERSATION_ID], keys::SESSION_ID);
    let phase = match draft.str(keys::GEN_AI_OPERATION_NAME) {
        Some("plan") => "plan",
        Some("execute_tool" | "retrieval") => "act",
        // A model that asks for a tool has chosen the next action. What another answer was for (a
        // plan in words, a critique, the result), nothing on the span says.
        _ if is_model_call(draft) && asks_for_tools(draft) => "plan",
        _ => return,
    };
    draft.put(keys::AI_PHASE, phase);
}

/// Whether the span is a call of a model that answers, by its role or else by its operation.
fn is_model_call(draft: &Draft<'_>) -> bool {
    let role = draft.str(keys::ROLE).and_then(SpanRole::from_text);
    let operation = || draft.str(keys::GEN_AI_OPERATION_NAME).and_then(SpanRole::from_operation);
    role.or_else(operation) == Some(SpanRole::LlmCall)
}

/// Why an answer ended that asks for tools, by the names of conventions and providers.
const TOOL_FINISHES: &[&str] = &["tool_call", "tool_calls", "tool_use", "function_call"];

fn asks_for_tools(draft: &Draft<'_>) -> bool {
    match draft.get(keys::GEN_AI_RESPONSE_FINISH_REASONS) {
        Some(Value::Array(reasons)) => reasons.iter().filter_map(Value::as_str).any(says_tools),
        Some(Value::String(reasons)) => says_tools(reasons),
        _ => false,
    }
}

/// Whether a reason, or one of a list that is spelled as a text (`["tool_calls"]`), is one of these.
fn says_tools(reasons: &str) -> bool {
    let is_between = |c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-'));
    let mut words = reasons.split(is_between).filter(|word| !word.is_empty());
    // The AI SDK writes hyphens.
    words.any(|word| TOOL_FINISHES.contains(&word.to_ascii_lowercase().replace('-', "_").as_str()))
}

/// Providers by the names that instrumentations have for them, and by those of the conventions.
const PROVIDERS: &[(&str, &str)] = &[
    ("anthropic", "anthropic"),
    ("aws", "aws.bedrock"),
    ("az.ai.inference", "azure.ai.inference"),
    ("az.ai.openai", "azure.ai.openai"),
    ("azure", "azure.ai.openai"),
    ("azure_openai", "azure.ai.openai"),
    ("bedrock", "aws.bedrock"),
    ("cohere", "cohere"),
    ("deepseek", "deepseek"),
    ("gemini", "gcp.gemini"),
    ("google", "gcp.gemini"),
    ("google_genai", "gcp.gemini"),
    ("google_vertexai", "gcp.vertex_ai"),
    ("groq", "groq"),
    ("mistral", "mistral_ai"),
    ("mistralai", "mistral_ai"),
    ("moonshot", "moonshot_ai"),
    ("openai", "openai"),
    ("perplexity", "perplexity"),
    ("vertex_ai", "gcp.vertex_ai"),
    ("vertexai", "gcp.vertex_ai"),
    ("watsonx", "ibm.watsonx.ai"),
    ("xai", "x_ai"),
];

/// Names that stand where a provider should, of frameworks that call one.
const NO_PROVIDERS: &[&str] = &["langchain", "langgraph", "llamaindex", "llama_index", "crewai"];

/// The conventions' name of the provider that `name` means; unknown ones keep theirs in lowercase.
fn provider(name: &str) -> Option<String> {
    let name = name.trim().to_lowercase();
    if name.is_empty() || NO_PROVIDERS.contains(&name.as_str()) {
        return None;
    }
    let known = |name: &str| PROVIDERS.iter().find(|(theirs, _)| *theirs == name).map(|p| p.1);
    // The AI SDK adds what it calls: `openai.chat`, `google.generative-ai`.
    let first = name.split('.').next().unwrap_or(&name);
    let found = known(&name).or_else(|| known(first).filter(|_| !is_convention(&name)));
    Some(found.map_or(name, str::to_owned))
}

/// Whether a name with dots in it is one of the conventions' own.
fn is_convention(name: &str) -> bool {
    PROVIDERS.iter().any(|(_, ours)| *ours == name) || name.starts_with("gcp.")
}

/// The text of a value that may be JSON of a text (`"CHAT_MODEL"` with its quotes).
fn unquoted(text: &str) -> &str {
    text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text)
}

/// The JSON that the text under `key` spells.
fn json(attributes: &Attributes, key: &str) -> Option<serde_json::Value> {
    match attributes.get(key)? {
        Value::String(text) => serde_json::from_str(text).ok(),
        Value::Empty => None,
        other => Some(other.to_json()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn providers_have_one_name() {
        for (theirs, ours) in [
            ("OpenAI", Some("openai")),
            ("openai.chat", Some("openai")),
            ("azure.ai.openai", Some("azure.ai.openai")),
            ("gcp.vertex_ai", Some("gcp.vertex_ai")),
            ("google.generative-ai", Some("gcp.gemini")),
            ("Langchain", None),
            ("my.own", Some("my.own")),
        ] {
            assert_eq!(provider(theirs).as_deref(), ours, "{theirs}");
        }
    }

    #[test]
    fn an_answer_that_asks_for_a_tool_is_a_plan_however_that_is_written() {
        use throughline_trace::{SpanId, TraceId};
        for (reasons, phase) in [
            (Value::Array(vec!["tool-calls".into()]), Some("plan")),
            (Value::Array(vec!["stop".into(), "tool_calls".into()]), Some("plan")),
            ("[\"tool_calls\"]".into(), Some("plan")),
            ("['tool_calls']".into(), Some("plan")),
            ("tool_use".into(), Some("plan")),
            ("FUNCTION_CALL".into(), Some("plan")),
            ("[\"stop\"]".into(), None),
            ("no_tool_calls".into(), None),
            (Value::Empty, None),
        ] {
            for operation in ["chat", "acompletion"] {
                let id = (TraceId::from_u128(1), SpanId::from_u64(1));
                let mut span = Span::new(id.0, id.1, None, "call");
                span.attributes.set(keys::GEN_AI_OPERATION_NAME, operation);
                span.attributes.set(keys::GEN_AI_RESPONSE_FINISH_REASONS, reasons.clone());
                if let Reading::Added(added) = read(&span) {
                    added.write(&mut span.attributes);
                }
                assert_eq!(span.attributes.str(keys::AI_PHASE), phase, "{reasons:?}");
            }
        }
    }

    #[test]
    fn a_span_of_our_sdk_or_without_known_keys_is_taken_as_it_came() {
        use throughline_trace::{SpanId, TraceId};
        let mut span = Span::new(TraceId::from_u128(1), SpanId::from_u64(1), None, "GET /");
        span.attributes.set("http.request.method", "GET");
        assert!(matches!(read(&span), Reading::Plain));
        span.attributes.set(keys::GEN_AI_SYSTEM, "openai");
        assert!(matches!(read(&span), Reading::Added(_)));
        span.attributes.set(keys::ROLE, "llm_call");
        assert!(matches!(read(&span), Reading::Plain));
    }
}
