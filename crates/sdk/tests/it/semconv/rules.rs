//! The checker of spans: what is wrong with them, a line each.

use std::collections::HashSet;

use opentelemetry::trace::Status;
use opentelemetry::{KeyValue, Value};
use opentelemetry_sdk::trace::SpanData;
use throughline::SpanKind;

use super::table::{ATTRIBUTES, NAMESPACES, OPERATIONS, Operation};

/// The keys that the SDK has of its own, as its list states them.
const KEYS: &str = include_str!("../../../../trace/src/keys.rs");

/// What is wrong with these spans; `own` are the attributes that the scenario's user sets.
pub(crate) fn problems(spans: &[SpanData], own: &[&str]) -> Vec<String> {
    spans.iter().flat_map(|span| Checked { span, own }.problems()).collect()
}

struct Checked<'a> {
    span: &'a SpanData,
    own: &'a [&'a str],
}

impl Checked<'_> {
    fn problems(&self) -> Vec<String> {
        let mut found = Vec::new();
        self.attributes(&self.span.attributes, &mut found);
        for event in self.span.events.iter() {
            self.attributes(&event.attributes, &mut found);
        }
        for link in self.span.links.iter() {
            self.attributes(&link.attributes, &mut found);
        }
        self.status(&mut found);
        self.usage(&mut found);
        self.messages(&mut found);
        // A call of MCP's may name the operation that it carries out, and is named by its method.
        let operation = self.text("gen_ai.operation.name");
        match operation.filter(|_| self.value("mcp.method.name").is_none()) {
            Some(name) => match OPERATIONS.iter().find(|operation| operation.name == name) {
                Some(operation) => self.operation(operation, &mut found),
                None => found.push(format!("no rule for the operation {name}")),
            },
            None => self.protocol(&mut found),
        }
        found.into_iter().map(|problem| format!("{}: {problem}", self.span.name)).collect()
    }

    fn value(&self, key: &str) -> Option<&Value> {
        let entry = self.span.attributes.iter().find(|entry| entry.key.as_str() == key)?;
        Some(&entry.value)
    }

    fn text(&self, key: &str) -> Option<String> {
        self.value(key).map(ToString::to_string)
    }

    fn number(&self, key: &str) -> Option<i64> {
        match self.value(key) {
            Some(Value::I64(number)) => Some(*number),
            _ => None,
        }
    }

    fn is_named_in_keys(key: &str) -> bool {
        KEYS.contains(&format!("= \"{key}\";"))
    }

    /// Each key is known and there once, and its value is of the type and among the values it may be.
    fn attributes(&self, attributes: &[KeyValue], found: &mut Vec<String>) {
        let mut seen = HashSet::new();
        for entry in attributes {
            let key = entry.key.as_str();
            if !seen.insert(key) {
                found.push(format!("{key} is there twice"));
            }
            let Some((_, kind, values)) = ATTRIBUTES.iter().find(|(name, ..)| *name == key) else {
                let is_theirs = NAMESPACES.iter().any(|space| key.starts_with(space));
                if is_theirs || !(Self::is_named_in_keys(key) || self.own.contains(&key)) {
                    found.push(format!("nobody knows {key}"));
                }
                continue;
            };
            if !kind.fits(&entry.value) {
                found.push(format!("{key} is no {kind:?}: {:?}", entry.value));
            }
            if !values.is_empty() && !values.contains(&&*entry.value.to_string()) {
                found.push(format!("{key} cannot be {}", entry.value));
            }
        }
    }

    /// A failure says its kind, and nothing but a failure does; a success leaves the status unset.
    fn status(&self, found: &mut Vec<String>) {
        let kind = self.text("error.type");
        match (&self.span.status, &kind) {
            (Status::Error { .. }, None) => found.push("failed without error.type".to_owned()),
            (Status::Ok | Status::Unset, Some(kind)) => {
                found.push(format!("error.type {kind} without a failure"));
            }
            _ => {}
        }
        if self.span.status == Status::Ok {
            found.push("a success sets the status".to_owned());
        }
        if matches!(self.text("outcome").as_deref(), Some("ok" | "retry_succeeded"))
            && kind.is_some()
        {
            found.push("outcome and error.type disagree".to_owned());
        }
    }

    /// Details are parts of the totals.
    fn usage(&self, found: &mut Vec<String>) {
        for entry in &self.span.attributes {
            let key = entry.key.as_str();
            let Some(name) = key.strip_prefix("gen_ai.usage.") else { continue };
            let Some((_, side)) = name.split_once('.') else { continue };
            let (part, total) = (self.number(key), self.number(&format!("gen_ai.usage.{side}")));
            if part > total {
                found.push(format!("{key} is {part:?} of {total:?}"));
            }
        }
    }

    /// Messages have a role and parts with a type, and answers a reason to end.
    fn messages(&self, found: &mut Vec<String>) {
        for key in ["gen_ai.input.messages", "gen_ai.output.messages"] {
            let Some(text) = self.text(key) else { continue };
            let messages: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap_or_default();
            for message in &messages {
                let parts = message["parts"].as_array();
                let typed = |parts: &Vec<serde_json::Value>| {
                    parts.iter().all(|part| part["type"].is_string())
                };
                if !message["role"].is_string() || !parts.is_some_and(typed) {
                    found.push(format!("{key} has no role or parts: {message}"));
                }
                if key == "gen_ai.output.messages" && !message["finish_reason"].is_string() {
                    found.push(format!("{key} has no finish_reason: {message}"));
                }
            }
        }
    }

    fn operation(&self, operation: &Operation, found: &mut Vec<String>) {
        self.required(operation.required, found);
        self.kind(operation.kinds, found);
        let mut name = operation.name.to_owned();
        if let Some(key) = operation.named_by {
            name = format!("{name} {}", self.text(key).unwrap_or_default());
        }
        self.name(&name, found);
    }

    fn protocol(&self, found: &mut Vec<String>) {
        if let Some(method) = self.text("mcp.method.name") {
            self.kind(&[SpanKind::Client, SpanKind::Server], found);
            self.required(&["network.transport"], found);
            let target = self.text("gen_ai.tool.name");
            if method == "tools/call" {
                self.required(&["gen_ai.tool.name"], found);
            }
            let target = target.map(|target| format!(" {target}")).unwrap_or_default();
            self.name(&format!("{method}{target}"), found);
        } else if self.value("rpc.system.name").is_some() || self.value("rpc.method").is_some() {
            self.kind(&[SpanKind::Client, SpanKind::Server], found);
            self.required(&["rpc.system.name", "rpc.method"], found);
            self.name(&self.text("rpc.method").unwrap_or_default(), found);
        } else if let Some(method) = self.text("http.request.method") {
            self.http(&method, found);
        } else if self.value("http.response.status_code").is_some() {
            // A piece of a model call or of a run may repeat the status; no other span.
            if self.value("throughline.role").is_none() {
                found.push("an HTTP status without a request".to_owned());
            }
        }
    }

    fn http(&self, method: &str, found: &mut Vec<String>) {
        self.kind(&[SpanKind::Client, SpanKind::Server], found);
        let mut template = self.text("url.template");
        if self.span.span_kind == SpanKind::Server {
            self.required(&["url.path", "url.scheme"], found);
            template = self.text("http.route");
        } else {
            self.required(&["server.address", "server.port", "url.full"], found);
        }
        if method == "_OTHER" {
            self.required(&["http.request.method_original"], found);
        }
        let method = if method == "_OTHER" { "HTTP" } else { method };
        match template {
            Some(template) => self.name(&format!("{method} {template}"), found),
            None => self.name(method, found),
        }
    }

    fn required(&self, keys: &[&str], found: &mut Vec<String>) {
        for key in keys {
            if self.value(key).is_none() {
                found.push(format!("{key} is missing"));
            }
        }
    }

    fn kind(&self, kinds: &[SpanKind], found: &mut Vec<String>) {
        if !kinds.contains(&self.span.span_kind) {
            found.push(format!("the kind cannot be {:?}", self.span.span_kind));
        }
    }

    fn name(&self, name: &str, found: &mut Vec<String>) {
        if self.span.name != name {
            found.push(format!("the name should be {name}"));
        }
    }
}
