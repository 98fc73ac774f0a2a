//! The bag itself: a handle that scopes fork, and the views that tools are given of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use opentelemetry::trace::TraceContextExt as _;
use opentelemetry::{Context, ContextGuard};
use serde_json::Value;
use throughline_trace::{DecisionId, TraceId};

use super::error::BagError;
use super::schema::{BagSchema, Need, Sensitivity, SourceLayer};
use crate::decision::decision;
use crate::dimensions::Dimensions;
use crate::instrument::InContext;

/// What the layers above a tool know, of which a tool is told what it declared that it needs.
///
/// A bag is a handle: clones share their fields. [`enter`](Self::enter), [`scope`](Self::scope) and
/// [`onto`](Self::onto) put a fork of it onto the context, so what is set within a scope is seen
/// there and below, never above or beside it.
#[derive(Clone)]
pub struct ContextBag {
    schema: BagSchema,
    state: Arc<Mutex<State>>,
}

/// What a bag holds.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    pub(super) session_id: Option<Arc<str>>,
    pub(super) trace_id: Option<TraceId>,
    pub(super) fields: BTreeMap<Arc<str>, Entry>,
    pub(super) authorised: BTreeSet<Arc<str>>,
    /// The tool whose view this is, or nobody's in particular for one that came from elsewhere.
    pub(super) view_of: Option<Arc<str>>,
}

/// A field that is set.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) value: Value,
    pub(super) source: SourceLayer,
    pub(super) passes_through: bool,
    pub(super) sensitivity: Sensitivity,
    /// Whether it was given to this hop, by a view or over the wire, rather than set here.
    pub(super) was_given: bool,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.sensitivity {
            Sensitivity::Public | Sensitivity::Internal => fmt::Debug::fmt(&self.value, f),
            Sensitivity::Personal | Sensitivity::Consent => f.write_str("(withheld)"),
        }
    }
}

/// How a context carries a bag.
struct BagHandle(ContextBag);

impl ContextBag {
    /// An empty bag of the [standard schema](BagSchema::standard).
    pub fn new() -> Self {
        Self::with_schema(BagSchema::standard())
    }

    /// An empty bag of this schema.
    pub fn with_schema(schema: BagSchema) -> Self {
        Self::of_state(schema, State::default())
    }

    pub(super) fn of_state(schema: BagSchema, state: State) -> Self {
        Self { schema, state: Arc::new(Mutex::new(state)) }
    }

    /// The bag of the current context: within a tool, the view that the tool was given. An empty one
    /// that belongs to nobody where there is none.
    pub fn current() -> Self {
        Context::map_current(Self::of).unwrap_or_default()
    }

    /// The bag that a context carries.
    pub fn of(cx: &Context) -> Option<Self> {
        cx.get::<BagHandle>().map(|handle| handle.0.clone())
    }

    /// A bag with the same fields that goes its own way from here.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self::of_state(self.schema.clone(), self.state().clone())
    }

    /// `cx` with a fork of this bag.
    pub fn onto(&self, cx: &Context) -> Context {
        cx.with_value(BagHandle(self.fork()))
    }

    /// Makes a fork of this bag current on this thread until the guard is dropped. Never hold the
    /// guard across an `.await`: use [`scope`](Self::scope) there.
    pub fn enter(&self) -> ContextGuard {
        self.onto(&Context::current()).attach()
    }

    /// The future (or stream) with a fork of this bag current, wherever it is polled.
    pub fn scope<F>(&self, inner: F) -> InContext<F> {
        InContext::new(self.onto(&Context::current()), inner)
    }

    /// The fields that the bag may have.
    pub fn schema(&self) -> &BagSchema {
        &self.schema
    }

    /// Sets a field. What is set in a scope is seen by all that share the scope's bag.
    ///
    /// # Errors
    /// [`BagError::Unknown`], [`BagError::WrongSource`] or [`BagError::Malformed`]; the bag is
    /// unchanged then.
    pub fn set(
        &self,
        from: SourceLayer,
        field: &str,
        value: impl Into<Value>,
    ) -> Result<(), BagError> {
        let declared = self.schema.get(field)?;
        if declared.source != from {
            return Err(BagError::WrongSource {
                field: field.to_owned(),
                declared: declared.source,
                got: from,
            });
        }
        let value = value.into();
        declared.check(field, &value)?;
        let entry = Entry {
            value,
            source: declared.source,
            passes_through: declared.passes_through,
            sensitivity: declared.sensitivity,
            was_given: false,
        };
        self.state().fields.insert(field.into(), entry);
        Ok(())
    }

    /// Sets `intent` and `entities`, as the model's turn has them.
    ///
    /// # Errors
    /// [`BagError::Malformed`] when the intent is empty or the entities are neither an object nor a
    /// list; the bag is unchanged then.
    pub fn set_turn(&self, intent: &str, entities: Value) -> Result<(), BagError> {
        self.schema.get("entities")?.check("entities", &entities)?;
        self.set(SourceLayer::LlmTurn, "intent", intent)?;
        self.set(SourceLayer::LlmTurn, "entities", entities)
    }

    /// Takes a field out; whether it was there.
    pub fn unset(&self, field: &str) -> bool {
        self.state().fields.remove(field).is_some()
    }

    /// Lets tools that declare it have a field classed [`Sensitivity::Consent`], in this scope and
    /// below, from now on. Recorded as a decision; neither it nor any span has the field's value.
    ///
    /// # Errors
    /// [`BagError::Unknown`] when there is no such field.
    pub fn authorise(&self, field: &str, by: &str, reason: &str) -> Result<DecisionId, BagError> {
        if !self.state().fields.contains_key(field) {
            self.schema.get(field)?;
        }
        self.state().authorised.insert(field.into());
        let said = format!("{by}: {reason}");
        Ok(decision("authorise").action(format!("give {field} to tools")).reason(said).record())
    }

    /// Takes an authorisation back, for tools that start from now on; whether there was one.
    pub fn revoke(&self, field: &str) -> bool {
        self.state().authorised.remove(field)
    }

    /// Says whose session it is; that of the [`Dimensions`] where it is not said.
    pub fn set_session(&self, id: impl Into<Arc<str>>) {
        self.state().session_id = Some(id.into());
    }

    /// The session.
    pub fn session_id(&self) -> Option<Arc<str>> {
        let own = self.state().session_id.clone();
        own.or_else(|| Dimensions::current().session_id().map(Arc::from))
    }

    /// The trace: the one that the bag came with, or else the current one.
    pub fn trace_id(&self) -> Option<TraceId> {
        let own = self.state().trace_id;
        own.or_else(|| {
            let id = Context::map_current(|cx| cx.span().span_context().trace_id());
            TraceId::from_bytes(id.to_bytes())
        })
    }

    /// A field's value.
    pub fn get(&self, field: &str) -> Option<Value> {
        self.state().fields.get(field).map(|entry| entry.value.clone())
    }

    /// The names of the fields that are set, in order.
    pub fn fields(&self) -> Vec<String> {
        self.state().fields.keys().map(ToString::to_string).collect()
    }

    /// What a tool with these needs is given: session, trace, and those of the fields. The view goes
    /// its own way; fields that do not pass through stay in it.
    ///
    /// # Errors
    /// [`BagError`], when a field that the tool does not start without is missing, malformed,
    /// withheld or not authorised; the message never has its value.
    pub fn view_for(&self, tool: &str, needs: &[Need]) -> Result<Self, BagError> {
        let mut view = State {
            session_id: self.session_id(),
            trace_id: self.trace_id(),
            view_of: Some(tool.into()),
            ..State::default()
        };
        let state = self.state();
        // The tool's own view again: what it was given stays given.
        let is_own = state.view_of.as_deref() == Some(tool);
        for need in needs {
            match self.give(&state, tool, need.field(), is_own) {
                Ok((field, entry)) => {
                    view.fields.insert(field, Entry { was_given: true, ..entry });
                }
                Err(BagError::Malformed { field, reason }) => {
                    return Err(BagError::Malformed { field, reason });
                }
                Err(_) if need.is_optional() => {}
                Err(error) => return Err(error),
            }
        }
        drop(state);
        Ok(Self::of_state(self.schema.clone(), view))
    }

    fn give(
        &self,
        state: &State,
        tool: &str,
        field: &str,
        is_own: bool,
    ) -> Result<(Arc<str>, Entry), BagError> {
        let named = || (field.to_owned(), tool.to_owned());
        let Some((name, entry)) = state.fields.get_key_value(field) else {
            let (field, tool) = named();
            return Err(BagError::Missing { field, tool });
        };
        if let Some(declared) = self.schema.find(field) {
            declared.check(field, &entry.value)?;
        }
        if !is_own && entry.was_given && !entry.passes_through {
            let (field, tool) = named();
            return Err(BagError::Withheld { field, tool });
        }
        let is_free = entry.sensitivity != Sensitivity::Consent || is_own;
        if !is_free && !state.authorised.contains(field) {
            let (field, tool) = named();
            return Err(BagError::NotAuthorised { field, tool });
        }
        Ok((Arc::clone(name), entry.clone()))
    }

    /// A bag that came with a request for this tool, as the tool's own view.
    #[cfg(feature = "server")]
    pub(crate) fn given_to(self, tool: &str) -> Self {
        self.state().view_of = Some(tool.into());
        self
    }

    pub(super) fn under(self, schema: BagSchema) -> Self {
        Self { schema, ..self }
    }

    /// Whether this is what a tool was given, rather than a bag with everything.
    pub(super) fn is_view(&self) -> bool {
        self.state().view_of.is_some()
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for ContextBag {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ContextBag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("ContextBag")
            .field("session_id", &state.session_id)
            .field("view_of", &state.view_of)
            .field("fields", &state.fields)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn filled() -> ContextBag {
        let bag = ContextBag::new();
        bag.set(SourceLayer::Caller, "user_timezone", "Europe/Vienna").expect("set");
        bag.set(SourceLayer::Session, "consent_flag", "s3cret").expect("set");
        bag.set_turn("order", json!({"item": "p3rsonal"})).expect("set");
        bag
    }

    #[test]
    fn r2_3_a_tool_is_given_what_it_declared_and_nothing_else() {
        let _session = Dimensions::new().session("s-1").enter();
        let view = filled().view_for("a_v1", &[Need::of("intent")]).expect("a view");
        assert_eq!(view.fields(), ["intent"]);
        assert_eq!(view.session_id().as_deref(), Some("s-1"));
        assert_eq!(filled().view_for("a_v1", &[]).expect("a view").fields(), [""; 0]);
    }

    #[test]
    fn r2_3_consent_is_given_only_after_authorisation() {
        let bag = filled();
        let needs = [Need::of("consent_flag")];
        let error = bag.view_for("a_v1", &needs).expect_err("not authorised");
        assert_eq!(
            error.to_string(),
            "expected consent_flag to be authorised before a_v1 is given it; call ContextBag::authorise"
        );
        let without = bag.view_for("a_v1", &[Need::of("consent_flag").optional()]);
        assert_eq!(without.expect("optional").fields(), [""; 0]);
        bag.authorise("consent_flag", "the user", "said so").expect("a field");
        let view = bag.view_for("a_v1", &needs).expect("a view");
        assert_eq!(view.get("consent_flag"), Some(json!("s3cret")));
        assert!(view.view_for("b_v1", &needs).is_err(), "the next hop asks anew");
        assert!(bag.revoke("consent_flag"));
        assert!(bag.view_for("a_v1", &needs).is_err());
        assert!(bag.authorise("no_such_field", "me", "why not").is_err());
    }

    #[test]
    fn r2_3_only_what_passes_through_goes_on_to_the_next_hop() {
        let needs = [Need::of("user_timezone"), Need::of("intent")];
        let view = filled().view_for("a_v1", &needs).expect("a view");
        assert!(view.view_for("b_v1", &needs[..1]).is_ok());
        let error = view.view_for("b_v1", &needs).expect_err("one hop");
        assert!(matches!(error, BagError::Withheld { .. }), "{error}");
        assert!(view.view_for("a_v1", &needs).is_ok(), "a tool's own view is whole");
        view.set_turn("book", json!([])).expect("set anew");
        assert!(view.view_for("b_v1", &needs).is_ok());
    }

    #[test]
    fn r2_3_only_the_declared_layer_writes_a_field() {
        let bag = ContextBag::new();
        let error = bag.set(SourceLayer::LlmTurn, "consent_flag", true).expect_err("the model");
        assert_eq!(
            error.to_string(),
            "expected consent_flag from the session layer, got it from llm_turn"
        );
        assert!(bag.set(SourceLayer::Caller, "user_timezon", "x").is_err());
        assert!(bag.set_turn("", json!({})).is_err());
        assert!(bag.set_turn("order", json!("s3cret")).is_err());
        assert_eq!(bag.fields(), [""; 0]);
    }

    #[test]
    fn no_error_and_no_debug_text_has_a_secret() {
        let bag = filled();
        let errors = [
            bag.view_for("a_v1", &[Need::of("consent_flag")]).expect_err("not authorised"),
            bag.set(SourceLayer::Session, "consent_flag", json!(["s3cret"])).expect_err("a list"),
            bag.set_turn("x", json!("p3rsonal")).expect_err("a text"),
        ];
        let text =
            format!("{bag:?} {errors:?} {}", errors.each_ref().map(ToString::to_string).join(" "));
        assert!(!text.contains("s3cret") && !text.contains("p3rsonal"), "{text}");
    }

    #[test]
    fn a_scope_does_not_leak_upward() {
        let outer = filled();
        let _in = outer.enter();
        {
            let _inner = ContextBag::current().enter();
            ContextBag::current().set_turn("cancel", json!({})).expect("set");
            ContextBag::current().authorise("consent_flag", "me", "here").expect("a field");
            assert_eq!(ContextBag::current().get("intent"), Some(json!("cancel")));
        }
        assert_eq!(ContextBag::current().get("intent"), Some(json!("order")));
        assert!(ContextBag::current().view_for("a_v1", &[Need::of("consent_flag")]).is_err());
    }
}
