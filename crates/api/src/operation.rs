//! One operation of the API: what answers it, and what its description says.

use http::Method;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

/// Media type of most answers.
pub const JSON: &str = "application/json";
/// Media type of server-sent events.
pub const EVENTS: &str = "text/event-stream";
/// Media type of text.
pub const TEXT: &str = "text/plain";

/// Puts the schema of a type into the description and answers a reference to it.
pub type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// Where the schema of a body comes from.
#[derive(Debug)]
pub enum BodySchema {
    /// A type.
    Of(SchemaOf),
    /// A published document.
    Given(Value),
}

/// What an operation takes as a body.
#[derive(Debug)]
pub struct Body {
    /// Media type and schema of each form.
    pub forms: Vec<(&'static str, BodySchema)>,
    /// Most bytes.
    pub max_bytes: usize,
    /// Whether there must be one; without, it is as good as `{}`.
    pub is_required: bool,
}

impl Body {
    /// One that must be there, in one of these forms.
    pub fn of(forms: Vec<(&'static str, BodySchema)>, max_bytes: usize) -> Self {
        Self { forms, max_bytes, is_required: true }
    }

    /// One that must be there, of a type, as JSON.
    pub fn json<T: JsonSchema>(max_bytes: usize) -> Self {
        Self::of(vec![(JSON, schema_of::<T>())], max_bytes)
    }

    /// The same, which may be left out.
    #[must_use]
    pub fn optional(self) -> Self {
        Self { is_required: false, ..self }
    }

    /// What OpenAPI 3.1 says of it (`requestBody`). Schemas of types go into `schemas`, and are referred to.
    pub fn described(&self, schemas: &mut SchemaGenerator) -> Value {
        let forms = self.forms.iter().map(|(media, schema)| {
            let schema = match schema {
                BodySchema::Of(schema) => schema(schemas).to_value(),
                BodySchema::Given(schema) => schema.clone(),
            };
            ((*media).to_owned(), json!({ "schema": schema }))
        });
        json!({
            "required": self.is_required,
            "description": format!("At most {} bytes.", self.max_bytes),
            "content": forms.collect::<Map<_, _>>(),
        })
    }
}

/// One operation. `P` is how its router writes query parameters, `R` what answers it.
#[derive(Debug)]
pub struct Operation<P, R> {
    /// The pattern of its path, as axum writes it.
    pub path: &'static str,
    /// Its method.
    pub method: Method,
    /// Its name for generated clients.
    pub id: &'static str,
    /// The part of the API that it belongs to.
    pub tag: &'static str,
    /// What it does, in a line.
    pub summary: &'static str,
    /// What else is to be known.
    pub about: String,
    /// The query parameters that it takes; others are refused.
    pub query: Vec<P>,
    /// Its body, if it takes one.
    pub body: Option<Body>,
    /// Status of the answer.
    pub status: u16,
    /// Media type of the answer.
    pub media: &'static str,
    /// Its schema, where it is JSON.
    pub answer: Option<SchemaOf>,
    /// Statuses beside those that every operation may have, with their occasion.
    pub failures: Vec<(u16, &'static str)>,
    /// What answers it.
    pub by: R,
}

impl<P, R> Operation<P, R> {
    /// A read at a path.
    pub fn get(path: &'static str, id: &'static str, by: R) -> Self {
        Self::new(Method::GET, path, id, by)
    }

    /// A change at a path.
    pub fn post(path: &'static str, id: &'static str, by: R) -> Self {
        Self::new(Method::POST, path, id, by)
    }

    fn new(method: Method, path: &'static str, id: &'static str, by: R) -> Self {
        Self {
            path,
            method,
            id,
            tag: "",
            summary: "",
            about: String::new(),
            query: Vec::new(),
            body: None,
            status: 200,
            media: JSON,
            answer: None,
            failures: Vec::new(),
            by,
        }
    }

    /// The part of the API, and what the operation does, in a line.
    #[must_use]
    pub fn says(mut self, tag: &'static str, summary: &'static str) -> Self {
        (self.tag, self.summary) = (tag, summary);
        self
    }

    /// What else is to be known.
    #[must_use]
    pub fn about(mut self, about: impl Into<String>) -> Self {
        self.about = about.into();
        self
    }

    /// The query parameters that it takes; others are refused.
    #[must_use]
    pub fn takes(mut self, parameters: &[P]) -> Self
    where
        P: Clone,
    {
        self.query.extend_from_slice(parameters);
        self
    }

    /// The body that it takes.
    #[must_use]
    pub fn body(mut self, body: Body) -> Self {
        self.body = Some(body);
        self
    }

    /// It answers this type as JSON.
    #[must_use]
    pub fn answers<T: JsonSchema>(mut self) -> Self {
        self.answer = Some(|generator| generator.subschema_for::<T>());
        self
    }

    /// It answers this type, and 201: something is there that was not.
    #[must_use]
    pub fn creates<T: JsonSchema>(mut self) -> Self {
        self.status = 201;
        self.answers::<T>()
    }

    /// It answers another media type than JSON.
    #[must_use]
    pub fn answers_as(mut self, media: &'static str) -> Self {
        self.media = media;
        self
    }

    /// Its own failures, with their occasion.
    #[must_use]
    pub fn fails(mut self, failures: &[(u16, &'static str)]) -> Self {
        self.failures.extend_from_slice(failures);
        self
    }

    /// The names of the parameters in its path.
    pub fn path_parameters(&self) -> impl Iterator<Item = &'static str> + use<P, R> {
        self.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
    }
}

/// The schema of a type, for a body.
pub fn schema_of<T: JsonSchema>() -> BodySchema {
    BodySchema::Of(|generator| generator.subschema_for::<T>())
}
