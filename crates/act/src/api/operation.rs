//! One operation: what answers it, and what its description says.

use axum::http::Method;
use axum::routing::MethodRouter;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::Value;

use super::shapes::Page;
use crate::actor::Actor;

/// Puts the schema of a type into the description and answers a reference to it.
pub(super) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// A query parameter: its name, what it means, its schema, and whether it must be there.
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) schema: Value,
    pub(super) is_required: bool,
}

/// One operation.
pub(super) struct Operation {
    pub(super) path: &'static str,
    pub(super) method: Method,
    /// Its name for generated clients.
    pub(super) id: &'static str,
    /// The part of the API that it belongs to.
    pub(super) tag: &'static str,
    /// What it does, in a line.
    pub(super) summary: &'static str,
    /// What else is to be known.
    pub(super) about: &'static str,
    pub(super) query: Vec<Parameter>,
    /// Its body, and whether there must be one.
    pub(super) body: Option<(SchemaOf, bool)>,
    /// Status and media type of the answer, and its schema where it is JSON.
    pub(super) answer: (u16, &'static str, Option<SchemaOf>),
    /// Statuses beside those that every operation may have, with their occasion.
    pub(super) failures: Vec<(u16, &'static str)>,
    pub(super) by: MethodRouter<Actor>,
}

impl Operation {
    /// A read at a path.
    pub(super) fn get(path: &'static str, id: &'static str, by: MethodRouter<Actor>) -> Self {
        Self::new(Method::GET, path, id, by)
    }

    /// A change at a path.
    pub(super) fn post(path: &'static str, id: &'static str, by: MethodRouter<Actor>) -> Self {
        Self::new(Method::POST, path, id, by)
    }

    fn new(method: Method, path: &'static str, id: &'static str, by: MethodRouter<Actor>) -> Self {
        Self {
            path,
            method,
            id,
            tag: "",
            summary: "",
            about: "",
            query: Vec::new(),
            body: None,
            answer: (200, "application/json", None),
            failures: Vec::new(),
            by,
        }
    }

    /// The part of the API, and what the operation does, in a line.
    pub(super) fn says(mut self, tag: &'static str, summary: &'static str) -> Self {
        (self.tag, self.summary) = (tag, summary);
        self
    }

    /// What else is to be known.
    pub(super) fn about(mut self, about: &'static str) -> Self {
        self.about = about;
        self
    }

    /// The query parameters that it takes; others are refused.
    pub(super) fn takes(mut self, parameters: Vec<Parameter>) -> Self {
        self.query.extend(parameters);
        self
    }

    /// The body that it takes.
    pub(super) fn body<T: JsonSchema>(mut self) -> Self {
        self.body = Some((|generator| generator.subschema_for::<T>(), true));
        self
    }

    /// The body that it takes if there is one; without, it is as good as `{}`.
    pub(super) fn may_have<T: JsonSchema>(mut self) -> Self {
        self.body = Some((|generator| generator.subschema_for::<T>(), false));
        self
    }

    /// It answers this type.
    pub(super) fn answers<T: JsonSchema>(mut self) -> Self {
        self.answer.2 = Some(|generator| generator.subschema_for::<T>());
        self
    }

    /// It answers this type, and 201: something is there that was not.
    pub(super) fn creates<T: JsonSchema>(mut self) -> Self {
        self.answer.0 = 201;
        self.answers::<T>()
    }

    /// It answers pages of this type.
    pub(super) fn lists<T: JsonSchema>(self) -> Self {
        self.takes(super::parameters::paging()).answers::<Page<T>>()
    }

    /// It answers server-sent events.
    pub(super) fn streams(mut self) -> Self {
        self.answer.1 = "text/event-stream";
        self
    }

    /// Its own failures, with their occasion.
    pub(super) fn fails(mut self, failures: &[(u16, &'static str)]) -> Self {
        self.failures.extend_from_slice(failures);
        self
    }

    /// The names of the parameters in its path.
    pub(super) fn path_parameters(&self) -> impl Iterator<Item = &'static str> {
        self.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
    }
}
