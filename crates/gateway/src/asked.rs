//! What a client asks for: the body as it came, and what must be known of it.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde_json::Value;
use throughline_llm::openai::{self, ApiError};
use throughline_llm::{ChatRequest, Role, translate};
use throughline_trace::{ErrorType, Phase};

use crate::api::Api;
use crate::caller::Caller;
use crate::fault::Fault;
use crate::provider::Provider;
use crate::splice::Object;

/// Longest name of a model, characters.
const MAX_MODEL_CHARS: usize = 256;

/// Fields that decide the way of a request: readers must not differ about them.
const DECIDING: [&str; 3] = ["model", "stream", "stream_options"];

/// A request of a client.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) api: Api,
    pub(crate) body: Bytes,
    /// The model that the client names.
    pub(crate) model: String,
    pub(crate) is_stream: bool,
    /// Whether the client asked for the usage at the end of the stream.
    wants_usage: bool,
    request: OnceLock<Option<Arc<ChatRequest>>>,
    /// The keyed hash of the body, once a decision has asked for it.
    hash: OnceLock<String>,
}

/// A request as a provider gets it.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) api: Api,
    pub(crate) body: Bytes,
    /// We ask for the usage of the stream, which the client did not.
    pub(crate) adds_usage: bool,
    /// The client shall not see the usage that we asked for.
    pub(crate) hides_usage: bool,
    /// The client's fields that the provider's form does not have.
    pub(crate) left_out: Vec<String>,
}

impl Asked {
    /// Reads what must be known of a body.
    pub(crate) fn read(api: Api, body: Bytes) -> Result<Self, ApiError> {
        match Self::understood(api, &body) {
            Some(asked) => Ok(asked),
            None => Self::looked_through(api, body),
        }
    }

    /// A request for a conversation that is understood as a whole is read only once: its reader refuses
    /// fields that are there twice.
    fn understood(api: Api, body: &Bytes) -> Option<Self> {
        let request = match api {
            Api::Chat => openai::parse_request_once(body).ok()?,
            _ => return None,
        };
        let is_named = is_name(&request.model);
        is_named.then(|| Self {
            api,
            model: request.model.clone(),
            is_stream: request.stream,
            wants_usage: request.is_stream_usage_wanted,
            request: OnceLock::from(Some(Arc::new(request))),
            hash: OnceLock::new(),
            body: body.clone(),
        })
    }

    /// A request of which only what decides its way is read.
    fn looked_through(api: Api, body: Bytes) -> Result<Self, ApiError> {
        let wrong = |param: &str, message: String| ApiError {
            message,
            kind: "invalid_request_error".to_owned(),
            param: param.to_owned(),
            ..ApiError::default()
        };
        let object = Object::read(&body)
            .map_err(|error| wrong("", format!("expected a JSON object as the body: {error}")))?;
        if let Some(field) = DECIDING.into_iter().find(|field| object.is_twice(field)) {
            return Err(wrong(
                field,
                format!("expected `{field}` once in the body, it is there twice"),
            ));
        }
        let model = object.get::<String>("model").unwrap_or_default();
        if !is_name(&model) {
            let message = format!(
                "expected the name of a model in `model`, at most {MAX_MODEL_CHARS} characters"
            );
            return Err(wrong("model", message));
        }
        let is_stream = match object.raw("stream") {
            None | Some("false" | "null") => false,
            Some("true") => true,
            Some(_) => {
                return Err(wrong("stream", "expected true or false in `stream`".to_owned()));
            }
        };
        let options = object.get::<Value>("stream_options").unwrap_or_default();
        let wants_usage = options.get("include_usage") == Some(&Value::Bool(true));
        let is_stream = is_stream && api != Api::Embeddings;
        let (request, hash) = (OnceLock::new(), OnceLock::new());
        Ok(Self { api, model, is_stream, wants_usage, request, hash, body })
    }

    /// The request as it is understood; `None` when it is not, which is for its provider to judge.
    pub(crate) fn request(&self) -> Option<Arc<ChatRequest>> {
        let request = || self.api.parse_request(&self.body).ok().map(Arc::new);
        self.request.get_or_init(request).clone()
    }

    /// The hash of the body, which `hash` makes when it is wanted first: a body may be megabytes, and
    /// several decisions name it.
    pub(crate) fn input_hash(&self, hash: impl FnOnce(&[u8]) -> String) -> &str {
        self.hash.get_or_init(|| hash(&self.body))
    }

    /// Whether the client asked for the usage at the end of the stream.
    pub(crate) fn wants_usage(&self) -> bool {
        self.wants_usage
    }

    /// The phase of the agent's loop: what the client says; else, of a call that offers tools,
    /// whether the model is to plan or to take in what a tool found.
    pub(crate) fn phase(&self, caller: &Caller) -> Option<Phase> {
        if caller.phase.is_some() {
            return caller.phase;
        }
        let request = self.request()?;
        if request.tools.is_empty() {
            return None;
        }
        let last = request.messages.last().map(|message| &message.role);
        let has_found = last == Some(&Role::Tool);
        Some(if has_found { Phase::Observe } else { Phase::Plan })
    }

    /// The request as `provider` gets it for its `model`; `with_usage`: a stream is asked for its usage.
    pub(crate) fn outgoing(
        &self,
        provider: &Provider,
        model: &str,
        with_usage: bool,
    ) -> Result<Outgoing, Fault> {
        let unfit = |message: String| Fault::new(ErrorType::InvalidRequest, message);
        let Some(api) = provider.api_for(self.api) else {
            let (name, path) = (&provider.name, self.api.path());
            return Err(unfit(format!("the provider {name} has nothing like /v1{path}")));
        };
        if api == self.api {
            return self.spliced(model, with_usage);
        }
        let request = self.api.parse_request(&self.body);
        let mut request = request.map_err(|error| unfit(error.to_string()))?;
        model.clone_into(&mut request.model);
        request.stream = self.is_stream;
        request.is_stream_usage_wanted = self.is_stream && with_usage;
        let (Some(from), Some(to)) = (self.api.form(), api.form()) else {
            return Err(unfit(format!("/v1{} cannot be said in another form", self.api.path())));
        };
        let left_out = translate(&mut request, from, to);
        let left_out = left_out.map_err(|unsayable| unfit(unsayable.to_string()))?;
        let body = Bytes::from(to.request_to_json(&request).to_string());
        let adds_usage = request.is_stream_usage_wanted && api.has_stream_options();
        Ok(Outgoing { api, body, adds_usage, hides_usage: false, left_out })
    }

    /// The body with what must change, and nothing else.
    fn spliced(&self, model: &str, with_usage: bool) -> Result<Outgoing, Fault> {
        let broken = |error: serde_json::Error| {
            Fault::new(ErrorType::InvalidRequest, format!("expected a JSON object: {error}"))
        };
        let mut body = self.body.clone();
        if model != self.model {
            let object = Object::read(&body).map_err(broken)?;
            body = Bytes::from(object.with("model", &Value::from(model).to_string()));
        }
        let adds_usage =
            with_usage && self.is_stream && !self.wants_usage && self.api.has_stream_options();
        if adds_usage {
            let object = Object::read(&body).map_err(broken)?;
            let options = match object.raw("stream_options") {
                Some(options) if options.starts_with('{') => {
                    let options = Object::read(options.as_bytes()).map_err(broken)?;
                    String::from_utf8_lossy(&options.with("include_usage", "true")).into_owned()
                }
                _ => r#"{"include_usage":true}"#.to_owned(),
            };
            body = Bytes::from(object.with("stream_options", &options));
        }
        let left_out = Vec::new();
        Ok(Outgoing { api: self.api, body, adds_usage, hides_usage: adds_usage, left_out })
    }
}

/// Whether this can be the name of a model.
fn is_name(model: &str) -> bool {
    !model.trim().is_empty() && model.chars().count() <= MAX_MODEL_CHARS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(body: &str) -> Result<Asked, ApiError> {
        Asked::read(Api::Chat, Bytes::from(body.to_owned()))
    }

    fn sent(body: &str, model: &str) -> (String, bool) {
        let outgoing = asked(body).unwrap().spliced(model, true).unwrap();
        (String::from_utf8(outgoing.body.to_vec()).unwrap(), outgoing.hides_usage)
    }

    #[test]
    fn r3_4_only_what_must_change_does() {
        let body = r#"{"model":"a", "messages":[], "strange" : {"x":1e3}}"#;
        assert_eq!(sent(body, "a"), (body.to_owned(), false));
        let renamed = r#"{"model":"b", "messages":[], "strange" : {"x":1e3}}"#;
        assert_eq!(sent(body, "b"), (renamed.to_owned(), false));
        let (with_usage, hides) = sent(r#"{"model":"a","stream":true}"#, "a");
        assert_eq!(
            with_usage,
            r#"{"stream_options":{"include_usage":true},"model":"a","stream":true}"#
        );
        assert!(hides);
        let own = r#"{"model":"a","stream":true,"stream_options":{"include_usage":true}}"#;
        assert_eq!(sent(own, "a"), (own.to_owned(), false));
        let other = r#"{"model":"a","stream":true,"stream_options":{"x":1}}"#;
        let expected =
            r#"{"model":"a","stream":true,"stream_options":{"include_usage":true,"x":1}}"#;
        assert_eq!(sent(other, "a"), (expected.to_owned(), true));
        let without = asked(other).unwrap().spliced("a", false).unwrap();
        assert_eq!((&*without.body, without.adds_usage), (other.as_bytes(), false));
    }

    #[test]
    fn a_request_that_is_understood_is_as_one_that_is_looked_through() {
        for rest in [
            "",
            r#","stream":null"#,
            r#","stream":true"#,
            r#","stream":true,"stream_options":{"include_usage":true}"#,
            r#","stream":true,"stream_options":{"include_usage":false},"more":[1]"#,
            r#","stream_options":null,"temperature":0.5"#,
        ] {
            let body = Bytes::from(format!(r#"{{"model":"m\u006f","messages":[]{rest}}}"#));
            let understood = Asked::understood(Api::Chat, &body).expect(rest);
            let looked = Asked::looked_through(Api::Chat, body).unwrap();
            let of = |one: &Asked| (one.model.clone(), one.is_stream, one.wants_usage);
            assert_eq!(of(&understood), of(&looked), "{rest}");
        }
        for field in DECIDING {
            let value = if field == "model" { r#""a""# } else { "null" };
            let twice =
                format!(r#"{{"model":"a","messages":[],"{field}":{value},"{field}":{value}}}"#);
            let told = asked(&twice).expect_err(field).message;
            assert!(told.contains("once in the body"), "{told}");
        }
    }

    /// A request that its provider takes is understood, whatever is new in it.
    #[test]
    fn what_is_new_in_a_request_hides_nothing_of_it() {
        for rest in [
            r#","temperature":0.5,"temperature":0.5"#,
            r#","tools":[{"type":"custom","custom":{"name":"sql"}}]"#,
            r#","tool_choice":{"type":"allowed_tools"}"#,
            r#","response_format":{"type":"grammar"}"#,
        ] {
            let body =
                format!(r#"{{"model":"a","messages":[{{"role":"user","content":"hi"}}]{rest}}}"#);
            let request = asked(&body).unwrap().request().expect(rest);
            assert_eq!(request.messages[0].joined_text(), "hi", "{rest}");
            assert_eq!(sent(&body, "a").0, body, "{rest}");
        }
    }

    #[test]
    fn a_body_is_hashed_once() {
        let asked = asked(r#"{"model":"a"}"#).unwrap();
        assert_eq!(asked.input_hash(|body| body.len().to_string()), "13");
        assert_eq!(asked.input_hash(|_| unreachable!()), "13");
    }

    #[test]
    fn what_cannot_be_meant_is_told() {
        let told = |body: &str| asked(body).expect_err("refused").message;
        insta::assert_snapshot!(told("[]"), @"expected a JSON object as the body: invalid type: sequence, expected a JSON object at line 1 column 0");
        insta::assert_snapshot!(told("{}"), @"expected the name of a model in `model`, at most 256 characters");
        insta::assert_snapshot!(told(r#"{"model":"a","model":"b"}"#), @"expected `model` once in the body, it is there twice");
        insta::assert_snapshot!(told(r#"{"model":"a","stream":1}"#), @"expected true or false in `stream`");
    }
}
