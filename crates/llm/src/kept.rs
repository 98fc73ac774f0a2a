//! What a wire form says beyond our types, kept beside a request or an answer so that it is written
//! again where it came from: marks for the cache, citations, tools that the provider runs itself.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

/// Where it is kept in `extra`. Only the form that kept it writes it again.
const KEPT: &str = "throughline.kept";

/// Kinds of parts that tell what a model thought, in the words of one form; no other form takes them.
const THOUGHTS: [&str; 3] = ["thinking", "redacted_thinking", "reasoning"];

/// What was kept.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// Unknown fields of an object, by the JSON pointer of the object.
    fields: Map<String, Value>,
    /// Tools that are no functions.
    tools: Vec<Value>,
}

impl Kept {
    /// Keeps what `object` has beside `known` fields. Its `type` stays with it, so that the fields
    /// never end up on another kind of object.
    pub(crate) fn keep(
        &mut self,
        pointer: impl FnOnce() -> String,
        object: &Value,
        known: &[&str],
    ) {
        let Some(object) = object.as_object() else { return };
        if object.keys().all(|key| key == "type" || known.contains(&key.as_str())) {
            return;
        }
        let fields: Map<String, Value> = object
            .iter()
            .filter(|(key, _)| *key == "type" || !known.contains(&key.as_str()))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        self.fields.insert(pointer(), Value::Object(fields));
    }

    /// Keeps a tool that is no function.
    pub(crate) fn keep_tool(&mut self, tool: Value) {
        self.tools.push(tool);
    }

    /// Puts what was kept into `extra`.
    pub(crate) fn store(self, form: &str, extra: &mut Map<String, Value>) {
        if self.fields.is_empty() && self.tools.is_empty() {
            return;
        }
        let kept = json!({ "form": form, "fields": self.fields, "tools": self.tools });
        extra.insert(KEPT.to_owned(), kept);
    }

    /// Takes what `form` kept out of `extra`; what another form kept is dropped.
    pub(crate) fn take(form: &str, extra: &mut Map<String, Value>) -> Self {
        match extra.remove(KEPT) {
            Some(Value::Object(mut kept)) if kept.get("form").is_some_and(|f| f == form) => Self {
                fields: match kept.remove("fields") {
                    Some(Value::Object(fields)) => fields,
                    _ => Map::new(),
                },
                tools: match kept.remove("tools") {
                    Some(Value::Array(tools)) => tools,
                    _ => Vec::new(),
                },
            },
            _ => Self::default(),
        }
    }

    /// Drops what any form kept.
    pub(crate) fn forget(extra: &mut Map<String, Value>) {
        extra.remove(KEPT);
    }

    /// What was kept of a field of the object at a pointer.
    pub(crate) fn field(&self, pointer: &str, key: &str) -> Option<Value> {
        self.fields.get(pointer)?.get(key).cloned()
    }

    /// Names of the fields that were kept, each once.
    pub(crate) fn field_names(&self) -> BTreeSet<&str> {
        let objects = self.fields.values().filter_map(Value::as_object);
        objects.flat_map(Map::keys).map(String::as_str).filter(|name| *name != "type").collect()
    }

    /// The tools that are no functions.
    pub(crate) fn tools(&mut self) -> Vec<Value> {
        std::mem::take(&mut self.tools)
    }

    /// Writes the fields back to where they were, unless something else is there by now.
    pub(crate) fn restore(&self, body: &mut Value) {
        for (pointer, fields) in &self.fields {
            let Some(Value::Object(target)) = body.pointer_mut(pointer) else { continue };
            let Some(fields) = fields.as_object() else { continue };
            if target.get("type") != fields.get("type") {
                continue;
            }
            for (key, value) in fields {
                target.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
    }
}

/// The kind of a part that is kept whole.
pub(crate) fn kind_of(part: &Value) -> Option<&str> {
    part.get("type").and_then(Value::as_str)
}

/// Whether a list is one of parts of these kinds.
pub(crate) fn is_made_of(parts: &[Value], kinds: &[&str]) -> bool {
    let is_one = |part| kind_of(part).is_some_and(|kind| kinds.contains(&kind));
    !parts.is_empty() && parts.iter().all(is_one)
}

/// Whether a part tells what a model thought in the words of a form that takes none of `own`.
pub(crate) fn is_foreign_thought(part: &Value, own: &[&str]) -> bool {
    kind_of(part).is_some_and(|kind| THOUGHTS.contains(&kind) && !own.contains(&kind))
}
