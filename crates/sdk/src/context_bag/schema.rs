//! The fields of a bag: where each comes from, how far it goes, how sensitive it is, what it looks
//! like; and what a tool needs of them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::BagError;
use crate::json_schema::{JsonSchema, Quote};

/// The layer that a field comes from. No other may write it: what a model said is never taken for
/// what the user agreed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceLayer {
    /// Whoever called the agent: a user interface, another service.
    Caller,
    /// What is known of the session: settings, consent, history.
    Session,
    /// What the model made of the request: intent, entities.
    LlmTurn,
    /// The agent's own code.
    Agent,
    /// The deployment: region, tenant.
    System,
}

impl SourceLayer {
    /// The layer as the wire form and messages spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Session => "session",
            Self::LlmTurn => "llm_turn",
            Self::Agent => "agent",
            Self::System => "system",
        }
    }
}

impl fmt::Display for SourceLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How sensitive a field is, least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sensitivity {
    /// Anybody may know it.
    Public,
    /// The organisation may know it.
    Internal,
    /// It tells something about a person.
    Personal,
    /// It is given only after explicit authorisation ([`ContextBag::authorise`](super::ContextBag::authorise)).
    Consent,
}

/// A field of a [`BagSchema`].
#[derive(Debug, Clone)]
pub struct BagField {
    name: Arc<str>,
    shape: Value,
    source: SourceLayer,
    passes_through: bool,
    sensitivity: Sensitivity,
}

impl BagField {
    /// A field: any value, from the caller, for one hop, internal.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self {
            name: name.into(),
            shape: json!({}),
            source: SourceLayer::Caller,
            passes_through: false,
            sensitivity: Sensitivity::Internal,
        }
    }

    /// The JSON Schema of its value.
    #[must_use]
    pub fn shape(mut self, schema: Value) -> Self {
        self.shape = schema;
        self
    }

    /// The layer that writes it.
    #[must_use]
    pub fn source(mut self, source: SourceLayer) -> Self {
        self.source = source;
        self
    }

    /// Lets it go on from the tool that it was given to, to further hops that declare it.
    #[must_use]
    pub fn passing_through(mut self) -> Self {
        self.passes_through = true;
        self
    }

    /// How sensitive it is.
    #[must_use]
    pub fn sensitivity(mut self, sensitivity: Sensitivity) -> Self {
        self.sensitivity = sensitivity;
        self
    }
}

/// A field, ready to judge values.
#[derive(Debug)]
pub(super) struct Declared {
    pub(super) source: SourceLayer,
    pub(super) passes_through: bool,
    pub(super) sensitivity: Sensitivity,
    schema: JsonSchema,
}

impl Declared {
    pub(super) fn check(&self, field: &str, value: &Value) -> Result<(), BagError> {
        self.schema
            .check(value, Quote::Types)
            .map_err(|reason| BagError::Malformed { field: field.to_owned(), reason })
    }
}

/// The fields that a bag may have. Clones are cheap.
///
/// ```
/// use serde_json::json;
/// use throughline::{BagField, BagSchema, ContextBag, Sensitivity, SourceLayer};
///
/// let schema = BagSchema::standard().with(
///     BagField::new("tenant")
///         .shape(json!({"type": "string", "minLength": 1}))
///         .source(SourceLayer::System)
///         .sensitivity(Sensitivity::Internal)
///         .passing_through(),
/// )?;
/// let bag = ContextBag::with_schema(schema);
/// assert!(bag.set(SourceLayer::System, "tenant", "").is_err(), "too short");
/// bag.set(SourceLayer::System, "tenant", "graz")?;
/// # Ok::<(), throughline::BagError>(())
/// ```
#[derive(Debug, Clone)]
pub struct BagSchema {
    fields: Arc<BTreeMap<Arc<str>, Arc<Declared>>>,
}

impl BagSchema {
    /// Without a field.
    pub fn empty() -> Self {
        Self { fields: Arc::default() }
    }

    /// The fields that every agent has: `intent` and `entities` (what the model made of the request),
    /// `user_timezone` (passes through), and `consent_flag` (asks for authorisation).
    pub fn standard() -> Self {
        static STANDARD: LazyLock<BagSchema> = LazyLock::new(|| {
            let fields = [
                BagField::new("intent")
                    .shape(json!({"type": "string", "minLength": 1}))
                    .source(SourceLayer::LlmTurn),
                BagField::new("entities")
                    .shape(json!({"type": ["object", "array"]}))
                    .source(SourceLayer::LlmTurn)
                    .sensitivity(Sensitivity::Personal),
                BagField::new("user_timezone")
                    .shape(json!({"type": "string", "minLength": 1}))
                    .sensitivity(Sensitivity::Internal)
                    .passing_through(),
                BagField::new("consent_flag")
                    .shape(json!({"type": ["boolean", "string"]}))
                    .source(SourceLayer::Session)
                    .sensitivity(Sensitivity::Consent),
            ];
            // The schemas are ours and compile, which a test holds.
            fields
                .into_iter()
                .fold(BagSchema::empty(), |all, field| all.clone().with(field).unwrap_or(all))
        });
        STANDARD.clone()
    }

    /// With one more field, in place of one of that name.
    ///
    /// # Errors
    /// [`BagError::Schema`] when the shape is no JSON Schema.
    pub fn with(mut self, field: BagField) -> Result<Self, BagError> {
        let schema = JsonSchema::compile(&field.shape)
            .map_err(|reason| BagError::Schema { field: field.name.to_string(), reason })?;
        let declared = Declared {
            source: field.source,
            passes_through: field.passes_through,
            sensitivity: field.sensitivity,
            schema,
        };
        Arc::make_mut(&mut self.fields).insert(field.name, Arc::new(declared));
        Ok(self)
    }

    /// The names of the fields, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.keys().map(|name| &**name)
    }

    pub(super) fn find(&self, field: &str) -> Option<&Arc<Declared>> {
        self.fields.get(field)
    }

    pub(super) fn get(&self, field: &str) -> Result<&Arc<Declared>, BagError> {
        self.find(field).ok_or_else(|| BagError::Unknown {
            field: field.to_owned(),
            known: self.names().map(str::to_owned).collect(),
        })
    }
}

impl Default for BagSchema {
    /// [`BagSchema::standard`].
    fn default() -> Self {
        Self::standard()
    }
}

/// A field that a tool declares that it needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Need {
    field: Cow<'static, str>,
    #[serde(default)]
    optional: bool,
}

impl Need {
    /// The tool does not start without it.
    pub const fn of(field: &'static str) -> Self {
        Self { field: Cow::Borrowed(field), optional: false }
    }

    /// [`of`](Self::of), a field whose name is known only now.
    pub fn named(field: impl Into<String>) -> Self {
        Self { field: Cow::Owned(field.into()), optional: false }
    }

    /// The tool is given it where it is there and may be given, and starts without it otherwise.
    #[must_use]
    pub const fn optional(mut self) -> Self {
        self.optional = true;
        self
    }

    /// The field.
    pub fn field(&self) -> &str {
        &self.field
    }

    /// Whether the tool starts without it.
    pub fn is_optional(&self) -> bool {
        self.optional
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standard_schema_has_its_four_fields() {
        let names: Vec<String> = BagSchema::standard().names().map(str::to_owned).collect();
        assert_eq!(names, ["consent_flag", "entities", "intent", "user_timezone"]);
    }

    #[test]
    fn the_schema_of_a_field_is_checked_when_it_is_declared() {
        let error = BagSchema::empty().with(BagField::new("x").shape(json!({"type": 1})));
        assert!(matches!(error, Err(BagError::Schema { .. })));
    }
}
