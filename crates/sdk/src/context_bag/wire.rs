//! The stable form of a bag: JSON, `throughline.context_bag` version 1.
//!
//! `{"form": "throughline.context_bag", "version": 1, "session_id": …, "trace_id": …,
//! "fields": {name: {"value": …, "source": …, "pass_through": …, "sensitivity": …}}}`. A reader
//! ignores members that it does not know. Authorisations are never written: whoever reads a bag has
//! to be authorised anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use throughline_trace::TraceId;

use super::bag::{ContextBag, Entry, State};
use super::error::BagError;
use super::schema::{BagSchema, Sensitivity, SourceLayer};

/// What the form says that it is.
pub const CONTEXT_BAG_FORM: &str = "throughline.context_bag";

/// The version of the form.
pub const CONTEXT_BAG_VERSION: u32 = 1;

/// Fields of a bag that comes from elsewhere, at most.
pub const CONTEXT_BAG_MAX_FIELDS: usize = 64;

/// Characters of a field's name, or of a session id, that comes from elsewhere, at most.
const NAME_MAX_CHARS: usize = 256;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Wire {
    form: String,
    version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    #[serde(default)]
    fields: BTreeMap<String, WireField>,
}

#[derive(Debug, Serialize, Deserialize)]
struct WireField {
    value: Value,
    source: SourceLayer,
    #[serde(default)]
    pass_through: bool,
    /// What says nothing is handled with most care.
    #[serde(default = "most_sensitive")]
    sensitivity: Sensitivity,
}

fn most_sensitive() -> Sensitivity {
    Sensitivity::Consent
}

impl Wire {
    /// The whole of a bag.
    pub(super) fn of(bag: &ContextBag) -> Self {
        let bare = Self::bare(bag);
        let state = bag.state();
        let fields = state.fields.iter().map(|(name, entry)| {
            let field = WireField {
                value: entry.value.clone(),
                source: entry.source,
                pass_through: entry.passes_through,
                sensitivity: entry.sensitivity,
            };
            (name.to_string(), field)
        });
        Self { fields: fields.collect(), ..bare }
    }

    /// Session and trace alone.
    pub(super) fn bare(bag: &ContextBag) -> Self {
        Self {
            form: CONTEXT_BAG_FORM.to_owned(),
            version: CONTEXT_BAG_VERSION,
            session_id: bag.session_id().map(|id| id.to_string()),
            trace_id: bag.trace_id().map(|id| id.to_string()),
            fields: BTreeMap::new(),
        }
    }

    /// The bag that it stands for. Where the schema knows a field, the stricter of both counts.
    pub(super) fn read(self, schema: BagSchema, was_given: bool) -> Result<ContextBag, BagError> {
        let wrong = |reason: String| BagError::Form { reason };
        if self.form != CONTEXT_BAG_FORM {
            return Err(wrong("got another form".to_owned()));
        }
        if self.version != CONTEXT_BAG_VERSION {
            return Err(wrong(format!("got version {}", self.version)));
        }
        if self.fields.len() > CONTEXT_BAG_MAX_FIELDS {
            let got = self.fields.len();
            return Err(wrong(format!("at most {CONTEXT_BAG_MAX_FIELDS} fields, got {got}")));
        }
        let is_long = |name: &str| name.chars().nth(NAME_MAX_CHARS).is_some();
        if self.fields.keys().any(|name| is_long(name))
            || self.session_id.as_deref().is_some_and(is_long)
        {
            return Err(wrong(format!("a name has more than {NAME_MAX_CHARS} characters")));
        }
        let trace_id = match self.trace_id.map(|id| id.parse::<TraceId>()) {
            Some(Ok(id)) => Some(id),
            Some(Err(_)) => return Err(wrong("trace_id is no trace id".to_owned())),
            None => None,
        };
        let mut state =
            State { session_id: self.session_id.map(Arc::from), trace_id, ..State::default() };
        for (name, field) in self.fields {
            let mut entry = Entry {
                value: field.value,
                source: field.source,
                passes_through: field.pass_through,
                sensitivity: field.sensitivity,
                was_given,
            };
            if let Some(declared) = schema.find(&name) {
                declared.check(&name, &entry.value)?;
                entry.passes_through &= declared.passes_through;
                entry.sensitivity = entry.sensitivity.max(declared.sensitivity);
            }
            state.fields.insert(name.into(), entry);
        }
        Ok(ContextBag::of_state(schema, state))
    }
}

/// The whole bag, for a store of one's own. Carriers write what a tool may see and nothing else.
impl Serialize for ContextBag {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Wire::of(self).serialize(serializer)
    }
}

/// A bag of the standard schema, without authorisations: see [`ContextBag::conform`] for another.
impl<'de> Deserialize<'de> for ContextBag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = Wire::deserialize(deserializer)?;
        wire.read(BagSchema::standard(), false).map_err(serde::de::Error::custom)
    }
}

impl ContextBag {
    /// The bag under another schema, for one that came from elsewhere.
    ///
    /// # Errors
    /// [`BagError::Malformed`] when a field does not fit it.
    pub fn conform(&self, schema: BagSchema) -> Result<Self, BagError> {
        let conformed = self.fork().under(schema);
        for (name, entry) in &mut conformed.state().fields {
            if let Some(declared) = conformed.schema().find(name) {
                declared.check(name, &entry.value)?;
                entry.passes_through &= declared.passes_through;
                entry.sensitivity = entry.sensitivity.max(declared.sensitivity);
            }
        }
        Ok(conformed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::context_bag::Need;

    #[test]
    fn the_form_is_stable() {
        let bag = ContextBag::new();
        bag.set_session("s-1");
        bag.set(SourceLayer::Caller, "user_timezone", "Europe/Vienna").expect("set");
        let text = serde_json::to_string(&bag).expect("json");
        insta::assert_snapshot!(text, @r#"{"form":"throughline.context_bag","version":1,"session_id":"s-1","fields":{"user_timezone":{"value":"Europe/Vienna","source":"caller","pass_through":true,"sensitivity":"internal"}}}"#);
        let back: ContextBag = serde_json::from_str(&text).expect("a bag");
        assert_eq!(serde_json::to_string(&back).expect("json"), text);
        assert!(back.view_for("a_v1", &[Need::of("user_timezone")]).is_ok());
    }

    #[test]
    fn what_is_no_bag_is_explained_without_its_values() {
        for (wrong, told) in [
            (json!({"form": "x", "version": 1}), "another form"),
            (json!({"form": CONTEXT_BAG_FORM, "version": 2}), "got version 2"),
            (json!({"form": CONTEXT_BAG_FORM, "version": 1, "trace_id": "s3cret"}), "no trace id"),
            (
                json!({"form": CONTEXT_BAG_FORM, "version": 1,
                    "fields": {"user_timezone": {"value": ["s3cret"], "source": "caller"}}}),
                "expected user_timezone to fit its schema: at the top: expected string, got an array",
            ),
        ] {
            let error =
                serde_json::from_value::<ContextBag>(wrong).expect_err("no bag").to_string();
            assert!(error.contains(told) && !error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn of_two_opinions_on_a_field_the_stricter_counts() {
        let wire = json!({"form": CONTEXT_BAG_FORM, "version": 1, "fields": {
            "consent_flag":
                {"value": true, "source": "session", "pass_through": true, "sensitivity": "public"},
            "theirs": {"value": 1, "source": "agent"},
        }});
        let wire: Wire = serde_json::from_value(wire).expect("wire");
        let bag = wire.read(BagSchema::standard(), true).expect("a bag");
        bag.authorise("consent_flag", "me", "why not").expect("a field");
        let error = bag.view_for("a_v1", &[Need::of("consent_flag")]).expect_err("one hop");
        assert!(matches!(error, BagError::Withheld { .. }), "{error}");
        let error = bag.view_for("a_v1", &[Need::of("theirs")]).expect_err("one hop");
        assert!(matches!(error, BagError::Withheld { .. }), "{error}");
        assert_eq!(bag.get("theirs"), Some(json!(1)));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "\\PC{0,200}") {
            let _ = serde_json::from_str::<ContextBag>(&text);
        }

        #[test]
        fn every_bag_survives(zone in "\\PC{1,40}", intent in "\\PC{1,40}", count in any::<i64>()) {
            let bag = ContextBag::new();
            bag.set(SourceLayer::Caller, "user_timezone", zone).expect("set");
            bag.set_turn(&intent, json!({"count": count})).expect("set");
            let value = serde_json::to_value(&bag).expect("json");
            let back: ContextBag = serde_json::from_value(value.clone()).expect("a bag");
            prop_assert_eq!(serde_json::to_value(&back).expect("json"), value);
        }
    }
}
