//! One operation of the API: what answers it, and what its description says.

use std::sync::Arc;

use axum::http::Method;
use axum::middleware::from_fn_with_state;
use axum::routing::MethodRouter;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::Value;

use super::contract::{self, Contract};
use crate::state::Shared;

/// Media type of most answers.
pub(crate) const JSON: &str = "application/json";
/// Media type of server-sent events.
pub(crate) const EVENTS: &str = "text/event-stream";
/// Media type of text.
pub(crate) const TEXT: &str = "text/plain";

/// Puts the schema of a type into the document and answers a reference to it.
type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// What an operation takes as a body.
pub(crate) struct Body {
    /// Media type and schema of each form.
    pub(crate) forms: Vec<(&'static str, BodySchema)>,
    /// Most bytes.
    pub(crate) max_bytes: usize,
}

/// Where the schema of a body comes from.
pub(crate) enum BodySchema {
    /// A type.
    Of(SchemaOf),
    /// A published document.
    Given(Value),
}

/// One operation.
pub(crate) struct Operation {
    pub(crate) path: &'static str,
    pub(crate) method: Method,
    /// Its name for generated clients.
    pub(crate) id: &'static str,
    /// The part of the API that it belongs to.
    pub(crate) tag: &'static str,
    /// What it does, in a line.
    pub(crate) summary: &'static str,
    /// What else is to be known.
    pub(crate) about: String,
    /// Lists of query parameters.
    query: Vec<&'static [&'static str]>,
    /// Media type of the answer.
    pub(crate) media: &'static str,
    /// Its schema, where it is JSON.
    pub(crate) answer: Option<SchemaOf>,
    pub(crate) body: Option<Body>,
    /// Statuses beside those that every operation may have, with their occasion.
    pub(crate) failures: Vec<(u16, &'static str)>,
    answered_by: MethodRouter<Shared>,
}

impl Operation {
    /// A read at a path.
    pub(crate) fn get(path: &'static str, id: &'static str, by: MethodRouter<Shared>) -> Self {
        Self::new(Method::GET, path, id, by)
    }

    /// A change at a path.
    pub(crate) fn post(path: &'static str, id: &'static str, by: MethodRouter<Shared>) -> Self {
        Self::new(Method::POST, path, id, by)
    }

    fn new(
        method: Method,
        path: &'static str,
        id: &'static str,
        answered_by: MethodRouter<Shared>,
    ) -> Self {
        Self {
            path,
            method,
            id,
            tag: "",
            summary: "",
            about: String::new(),
            query: Vec::new(),
            media: JSON,
            answer: None,
            body: None,
            failures: Vec::new(),
            answered_by,
        }
    }

    /// The part of the API, and what the operation does, in a line.
    pub(crate) fn says(mut self, tag: &'static str, summary: &'static str) -> Self {
        (self.tag, self.summary) = (tag, summary);
        self
    }

    /// What else is to be known.
    pub(crate) fn about(mut self, about: impl Into<String>) -> Self {
        self.about = about.into();
        self
    }

    /// The query parameters that it takes; others are refused.
    pub(crate) fn takes(mut self, lists: &[&'static [&'static str]]) -> Self {
        self.query.extend_from_slice(lists);
        self
    }

    /// It answers this type as JSON.
    pub(crate) fn answers<T: JsonSchema>(mut self) -> Self {
        self.answer = Some(|generator| generator.subschema_for::<T>());
        self
    }

    /// It answers another media type than JSON.
    pub(crate) fn answers_as(mut self, media: &'static str) -> Self {
        self.media = media;
        self
    }

    /// The body that it takes.
    pub(crate) fn body(mut self, forms: Vec<(&'static str, BodySchema)>, max_bytes: usize) -> Self {
        self.body = Some(Body { forms, max_bytes });
        self
    }

    /// Its own failures, with their occasion.
    pub(crate) fn fails(mut self, failures: &[(u16, &'static str)]) -> Self {
        self.failures.extend_from_slice(failures);
        self
    }

    /// The names of its query parameters, each once.
    pub(crate) fn parameters(&self) -> Vec<&'static str> {
        let mut names = Vec::new();
        for name in self.query.iter().flat_map(|list| list.iter()) {
            if !names.contains(name) {
                names.push(*name);
            }
        }
        names
    }

    /// The names of the parameters in its path.
    pub(crate) fn path_parameters(&self) -> impl Iterator<Item = &'static str> {
        self.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
    }

    /// Whether its answers have versions, so that what did not change is not sent again.
    pub(crate) fn has_version(&self) -> bool {
        self.method == Method::GET && self.media != EVENTS
    }

    /// What answers it, held to its description.
    pub(crate) fn route(self) -> MethodRouter<Shared> {
        let contract = Arc::new(Contract::of(&self));
        self.answered_by.route_layer(from_fn_with_state(contract, contract::keep))
    }
}

/// The schema of a type, for a body.
pub(crate) fn schema_of<T: JsonSchema>() -> BodySchema {
    BodySchema::Of(|generator| generator.subschema_for::<T>())
}
