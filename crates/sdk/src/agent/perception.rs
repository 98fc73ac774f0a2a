//! Perception (requirement R1.1): what a task is about, before anything is planned.

use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use opentelemetry::Context;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use throughline_llm::{ChatRequest, ChatResponse, Message, ResponseFormat};
use throughline_trace::ErrorType;

use super::Definition;

/// What the model is told when the builder does not say.
const INSTRUCTIONS: &str = "You classify requests. Answer with one JSON object and nothing else: \
`intent` (a short snake_case name of what the user wants), `entities` (an object of the things that \
the request names, with their values) and `confidence` (0 to 1).";

/// What a task is about: what whoever asks wants, and the things that are named.
///
/// ```
/// use throughline::Perception;
///
/// let perception = Perception::new("refund").entity("order", 17).confidence(0.9);
/// assert_eq!(perception.entities["order"], 17);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Perception {
    /// What is wanted (`refund`).
    pub intent: String,
    /// What is named, with its value.
    #[serde(default)]
    pub entities: Map<String, Value>,
    /// How sure this is, 0 to 1.
    #[serde(default)]
    pub confidence: Option<f64>,
}

/// How a context carries it.
struct PerceptionHandle(Arc<Perception>);

impl Perception {
    /// An intent without entities.
    pub fn new(intent: impl Into<String>) -> Self {
        Self { intent: intent.into(), entities: Map::new(), confidence: None }
    }

    /// Adds something that is named.
    #[must_use]
    pub fn entity(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.entities.insert(name.into(), value.into());
        self
    }

    /// Says how sure this is, 0 to 1.
    #[must_use]
    pub fn confidence(mut self, confidence: f64) -> Self {
        self.confidence = Some(confidence);
        self
    }

    /// What the run that goes on here is about: for tools, policies and plugins.
    pub fn current() -> Option<Arc<Self>> {
        Context::map_current(|cx| cx.get::<PerceptionHandle>().map(|handle| Arc::clone(&handle.0)))
    }

    /// `cx` with this perception.
    pub(super) fn onto(self: &Arc<Self>, cx: &Context) -> Context {
        cx.with_value(PerceptionHandle(Arc::clone(self)))
    }
}

/// Perceives by asking the agent's model for a JSON object of a schema.
///
/// ```
/// use throughline::ModelPerception;
///
/// let how = ModelPerception::new()
///     .model("gpt-4o-mini")
///     .intents(["refund", "order_status", "other"])
///     .entities(serde_json::json!({ "order": { "type": "integer" } }));
/// # drop(how);
/// ```
#[derive(Debug, Clone, Default)]
pub struct ModelPerception {
    model: Option<String>,
    instructions: Option<String>,
    intents: Vec<String>,
    entities: Option<Value>,
}

impl ModelPerception {
    /// Any intent, any entities, asked of the agent's own model.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks a (cheaper) model of the same provider.
    #[must_use]
    pub fn model(mut self, name: impl Into<String>) -> Self {
        self.model = Some(name.into());
        self
    }

    /// Says it in other words than ours. They must ask for the JSON object.
    #[must_use]
    pub fn instructions(mut self, text: impl Into<String>) -> Self {
        self.instructions = Some(text.into());
        self
    }

    /// The intents that there are; any other is no perception.
    #[must_use]
    pub fn intents(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.intents = names.into_iter().map(Into::into).collect();
        self
    }

    /// JSON Schema of the entities: the `properties` of an object.
    #[must_use]
    pub fn entities(mut self, properties: Value) -> Self {
        self.entities = Some(properties);
        self
    }

    fn schema(&self) -> Value {
        let mut intent = json!({ "type": "string", "minLength": 1 });
        if !self.intents.is_empty() {
            intent["enum"] = json!(self.intents);
        }
        let mut entities = json!({ "type": "object" });
        if let Some(properties) = &self.entities {
            entities["properties"] = properties.clone();
        }
        json!({
            "type": "object",
            "properties": {
                "intent": intent,
                "entities": entities,
                "confidence": { "type": ["number", "null"], "minimum": 0, "maximum": 1 },
            },
            "required": ["intent"],
        })
    }

    /// The request of these messages.
    pub(super) fn request(&self, definition: &Definition, messages: &[Message]) -> ChatRequest {
        let model = self.model.as_deref().unwrap_or(&definition.request.model);
        let instructions = self.instructions.as_deref().unwrap_or(INSTRUCTIONS);
        let schema = self.schema();
        ChatRequest::new(model)
            .system(instructions)
            .messages(messages.iter().cloned())
            .response_format(ResponseFormat::JsonSchema {
                name: "perception".to_owned(),
                schema,
                is_strict: false,
            })
    }

    /// What the model perceived.
    pub(super) fn read(&self, response: &ChatResponse) -> Result<Perception, Unperceived> {
        let wrong = |reason: String| Unperceived {
            error_type: ErrorType::InvalidResponse,
            message: format!("expected a JSON object with an intent, got something else: {reason}"),
        };
        let text = response.text();
        // Some models put a fence around it whatever they are told.
        let object = match (text.find('{'), text.rfind('}')) {
            (Some(from), Some(to)) if from < to => &text[from..=to],
            _ => return Err(wrong("no object".to_owned())),
        };
        let value: Value =
            serde_json::from_str(object).map_err(|error| wrong(error.to_string()))?;
        let schema = self.schema();
        let validator = jsonschema::validator_for(&schema).map_err(|error| Unperceived {
            error_type: ErrorType::InvalidRequest,
            message: format!("expected `entities` to be properties of a JSON Schema: {error}"),
        })?;
        if let Some(error) = validator.iter_errors(&value).next() {
            return Err(wrong(format!("{error} at {:?}", error.instance_path().to_string())));
        }
        serde_json::from_value(value).map_err(|error| wrong(error.to_string()))
    }
}

/// Why nothing was perceived.
pub(super) struct Unperceived {
    pub(super) error_type: ErrorType,
    pub(super) message: String,
}

/// A function of a conversation.
type PerceiveFn =
    Arc<dyn Fn(Vec<Message>) -> BoxFuture<'static, Result<Perception, String>> + Send + Sync>;

/// How an agent perceives.
#[derive(Clone)]
pub(crate) enum Perceiver {
    Function(PerceiveFn),
    Model(ModelPerception),
}

impl Perceiver {
    pub(super) fn function<F, Fut, E>(function: F) -> Self
    where
        F: Fn(Vec<Message>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Perception, E>> + Send + 'static,
        E: Display,
    {
        Self::Function(Arc::new(move |messages| {
            let perceived = function(messages);
            Box::pin(async move { perceived.await.map_err(|error| format!("{error:#}")) })
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Perception, String> {
        ModelPerception::new()
            .intents(["refund", "other"])
            .entities(json!({ "order": { "type": "integer" } }))
            .read(&ChatResponse::of_text("m", text))
            .map_err(|error| error.message)
    }

    #[test]
    fn what_the_model_says_must_fit_the_schema() {
        let said =
            "```json\n{\"intent\":\"refund\",\"entities\":{\"order\":17},\"confidence\":0.8}\n```";
        let expected = Perception::new("refund").entity("order", 17).confidence(0.8);
        assert_eq!(read(said), Ok(expected));
        for wrong in [
            "I do not know",
            "{",
            "}{",
            r#"{"intent":"dance"}"#,
            r#"{"intent":"refund","entities":{"order":"x"}}"#,
            r#"{"intent":"refund","confidence":7}"#,
        ] {
            let error = read(wrong).expect_err(wrong);
            assert!(error.starts_with("expected a JSON object with an intent"), "{error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_answer_of_a_model_panics(text in r#"[{}\[\]:,"a-z0-9ü ]{0,60}"#) {
            let _ = read(&text);
            let _ = read(&format!("{{\"intent\":\"refund\",\"entities\":{text}}}"));
        }
    }
}
