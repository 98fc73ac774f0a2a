//! The details of a span: what was said, what a tool got and gave, attributes, events, decisions.

use maud::{Markup, html};
use serde_json::Value as Json;
use throughline_trace::{
    Attributes, Event, LogRecord, Span, SpanId, SpanRole, TraceNode, Usage, Value, keys,
};

use super::chat::{Chat, value_box};
use super::redacted::Redacted;
use super::waterfall::{View, role_class, role_label};
use super::{decisions, json_text};
use crate::failure::Failure;
use crate::format;
use crate::icons::icon;
use crate::layout::{copy_button, copy_near};

/// Attributes that hold what went in, in the words of our own tools and of other conventions.
const INPUT_KEYS: [&str; 6] = [
    keys::GEN_AI_TOOL_CALL_ARGUMENTS,
    "input.value",
    "traceloop.entity.input",
    "ai.toolCall.args",
    "ai.prompt",
    "mlflow.spanInputs",
];
/// Attributes that hold what came out.
const OUTPUT_KEYS: [&str; 7] = [
    keys::GEN_AI_TOOL_CALL_RESULT,
    "output.value",
    "traceloop.entity.output",
    "ai.toolCall.result",
    "ai.response.text",
    "ai.response.object",
    "mlflow.spanOutputs",
];
/// Attributes with a filter field from this many on.
const FILTERED_FROM: usize = 12;

/// A span with what surrounds it.
pub(crate) struct SpanView<'a> {
    view: &'a View<'a>,
    at: usize,
    node: &'a TraceNode,
    chat: Chat,
    logs: Vec<&'a LogRecord>,
}

impl<'a> SpanView<'a> {
    /// The span with this id.
    pub(crate) fn find(view: &'a View<'a>, span_id: SpanId) -> Result<Self, Failure> {
        let (at, node) =
            view.find(span_id).ok_or_else(|| Failure::not_found("span", &span_id.to_string()))?;
        let logs: Vec<&LogRecord> =
            view.trace.logs.iter().filter(|log| log.span_id == Some(span_id)).collect();
        let chat = Chat::of_span(&node.span, &logs);
        Ok(Self { view, at, node, chat, logs })
    }

    fn span(&self) -> &'a Span {
        &self.node.span
    }

    /// The panel.
    pub(crate) fn draw(&self) -> Markup {
        let sections = self.sections();
        self.redacted().mark(html! {
            div.pin data-span=(self.span().span_id) {
                div.p-head {
                    div.p-title {
                        i class={ "k c-" (role_class(self.span().role())) } {}
                        h2 { @if self.span().name.trim().is_empty() { "(no name)" } @else { (self.span().name) } }
                        button.btn.bare.square type="button" data-close aria-label="Close details" title="Close (Esc)" { (icon("close")) }
                    }
                    nav.p-nav aria-label="Sections" {
                        @for (id, title, count, _) in &sections {
                            a href={ "#p-" (id) } { (title) @if let Some(count) = count { " " small { (count) } } }
                        }
                    }
                }
                @for (id, title, _, body) in &sections {
                    section id={ "p-" (id) } aria-label=(title) { (body) }
                }
                div.p-end {}
            }
        })
    }

    fn redacted(&self) -> Redacted {
        Redacted::of(self.span(), self.logs.iter().copied())
    }

    /// Id, title, count and content of the sections that have any, most wanted first.
    fn sections(&self) -> Vec<(&'static str, &'static str, Option<usize>, Markup)> {
        let span = self.span();
        let mut sections = vec![("summary", "Summary", None, self.summary())];
        let decisions = self.view.decisions_of(span.span_id);
        if self.chat.len() > 0 {
            let body = html! { h3 { "Messages" } (self.chat.draw()) };
            sections.push(("messages", "Messages", Some(self.chat.len()), body));
        }
        if let Some(body) = in_and_out(&span.attributes) {
            let title = if span.role() == SpanRole::Tool { "Tool" } else { "Data" };
            sections.push(("data", title, None, body));
        }
        if !decisions.is_empty() {
            let body = html! { h3 { "Decisions" } @for decision in decisions { (decisions::card(decision)) } };
            sections.push(("decisions", "Decisions", Some(decisions.len()), body));
        }
        if !span.events.is_empty() {
            sections.push(("events", "Events", Some(span.events.len()), self.events()));
        }
        if !self.logs.is_empty() {
            sections.push(("logs", "Logs", Some(self.logs.len()), self.log_lines()));
        }
        if !span.links.is_empty() {
            sections.push(("links", "Links", Some(span.links.len()), links(span)));
        }
        if !span.attributes.is_empty() {
            let body = attribute_table("Attributes", "attrs", &span.attributes);
            sections.push(("attributes", "Attributes", Some(span.attributes.len()), body));
        }
        sections.push(("resource", "Resource", None, resource(span)));
        sections
    }

    fn summary(&self) -> Markup {
        let span = self.span();
        let offset = span.start_unix_nano.saturating_sub(self.view.start_ns);
        let fact = |label: &str, value: Markup| html! { div { dt { (label) } dd { (value) } } };
        html! {
            (self.flags())
            @if span.is_error() { (error_box(span)) }
            dl.kv {
                (fact("Role", html! { (role_label(span.role())) }))
                (fact("Duration", html! { (format::duration(span.duration_nano())) }))
                (fact("Began", html! { span title=(format::absolute(span.start_unix_nano)) { "+" (format::duration(offset)) } }))
                @if let Some(agent) = span.agent() { (fact("Agent", html! { (agent) })) }
                @if let Some(model) = span.model() { (fact("Model", html! { (model) })) }
                @if let Some(tool) = span.tool() { (fact("Tool", html! { (tool) })) }
                @if let Some(phase) = span.phase() { (fact("Phase", html! { (phase) })) }
                @if let Some(outcome) = span.attributes.str(keys::OUTCOME) { (fact("Outcome", html! { (outcome) })) }
                @if let Some(secs) = span.attributes.f64(keys::GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK) {
                    (fact("First token", html! { (format::duration((secs.clamp(0.0, 1e9) * 1e9) as u64)) }))
                }
                @if let Some(reasons) = span.attributes.get(keys::GEN_AI_RESPONSE_FINISH_REASONS) {
                    (fact("Ended by", html! { (list_text(reasons)) }))
                }
                @if let Some(cost) = span.attributes.f64(keys::COST_USD) { (fact("Cost", html! { (format::cost(cost)) })) }
                (fact("Service", html! { (span.service()) }))
                (fact("Kind", html! { (span.kind.as_str()) }))
                (fact("Status", html! { (span.status.code.as_str()) }))
            }
            @if let Some(usage) = Usage::from_attributes(&span.attributes) {
                (tokens(usage, span.attributes.bool(keys::USAGE_ESTIMATED).unwrap_or(false)))
            }
            @if let Some(reason) = span.attributes.str(keys::AI_REASONING_TRACE) {
                p.soft { (reason) }
            }
        }
    }

    /// What is out of the ordinary about the span.
    fn flags(&self) -> Markup {
        let Self { node, .. } = self;
        html! {
            @if let (true, Some(parent)) = (node.is_orphan, node.span.parent_span_id) {
                p.flag { "Its parent " code { (parent) } " has not arrived." }
            }
            @if let Some(odd) = super::continuity::odd_clock(self.view.tree.nodes(), node) {
                p.flag { "It " (odd) ". Its times are as they were sent." }
            }
            @if node.is_duplicate { p.flag { "Another span of this trace has the same id." } }
            @if node.is_cycle { p.flag { "Its chain of parents leads back to itself; the circle is cut here." } }
            @if node.span.attributes.get(keys::MENDED).is_some() {
                p.flag { "Something about it could not be taken as it came and was mended; see the attribute " code { (keys::MENDED) } "." }
            }
            (self.redacted().flag())
            @if self.view.is_degraded(self.at) { p.flag.plum { "Part of the degraded branch: it ran because the primary failed." } }
            @if self.view.is_lost_attempt(self.at) { p.flag { "This attempt was given up and another one followed." } }
        }
    }

    fn events(&self) -> Markup {
        html! {
            h3 { "Events" }
            ol.steps {
                @for event in &self.span().events {
                    @let offset = event.time_unix_nano.saturating_sub(self.span().start_unix_nano);
                    li {
                        span.at title=(format::absolute(event.time_unix_nano)) { "+" (format::duration(offset)) }
                        div { (draw_event(event)) }
                    }
                }
            }
            (dropped(self.span().dropped_events_count, "event"))
        }
    }

    fn log_lines(&self) -> Markup {
        html! {
            h3 { "Logs" }
            ol.lines {
                @for log in &self.logs {
                    @let offset = log.time_unix_nano.saturating_sub(self.view.start_ns);
                    li {
                        span.muted title=(format::absolute(log.time_unix_nano)) { "+" (format::duration(offset)) }
                        (super::logs::severity(log))
                        span.mono { (super::logs::line(log)) }
                    }
                }
            }
        }
    }
}

fn draw_event(event: &Event) -> Markup {
    let is_exception = event.name == "exception";
    let rest: Vec<(&str, &Value)> = event
        .attributes
        .iter()
        .filter(|(key, _)| {
            !is_exception
                || ![keys::EXCEPTION_TYPE, keys::EXCEPTION_MESSAGE, keys::EXCEPTION_STACKTRACE]
                    .contains(key)
        })
        .collect();
    html! {
        @if is_exception {
            div.errbox {
                b { (event.attributes.str(keys::EXCEPTION_TYPE).unwrap_or("exception")) }
                p { (event.attributes.str(keys::EXCEPTION_MESSAGE).unwrap_or_default()) }
            }
            @if let Some(stack) = event.attributes.str(keys::EXCEPTION_STACKTRACE) { pre.stack tabindex="0" { (stack) } }
        } @else { b { (event.name) } }
        @if !rest.is_empty() { table.attrs { tbody { @for (key, value) in rest { (attribute_row(key, value)) } } } }
        (dropped(event.dropped_attributes_count, "attribute"))
    }
}

fn error_box(span: &Span) -> Markup {
    let message = span.attributes.str(keys::ERROR_MESSAGE);
    let status = Some(span.status.message.as_str()).filter(|text| !text.is_empty());
    html! {
        div.errbox {
            b { (span.error_type().or(status).unwrap_or("ERROR")) }
            @if let Some(text) = message.or(status) { p { (text) } }
            @if let Some(code) = span.attributes.get(keys::ERROR_CODE) { p.muted { "code " (code.to_text()) } }
        }
        @if let Some(stack) = span.attributes.str(keys::ERROR_STACK) { pre.stack tabindex="0" { (stack) } }
    }
}

fn tokens(usage: Usage, is_estimated: bool) -> Markup {
    let total = usage.total_tokens().max(1) as f64;
    let cached = usage.cache_read_tokens.min(usage.input_tokens);
    let thought = usage.reasoning_tokens.min(usage.output_tokens);
    let parts = [
        ("cache", "from cache", cached),
        ("in", "in", usage.input_tokens - cached),
        ("think", "reasoning", thought),
        ("out", "out", usage.output_tokens - thought),
    ];
    let mut x = 0.0;
    let bars: Vec<(&str, f64, f64)> = parts
        .iter()
        .map(|(class, _, tokens)| {
            let width = *tokens as f64 / total * 100.0;
            x += width;
            (*class, x - width, width)
        })
        .collect();
    html! {
        div.tokens {
            svg role="img" aria-label="Tokens" {
                @for (class, x, width) in bars {
                    rect class=(class) x=(format!("{x:.2}%")) width=(format!("{width:.2}%")) height="8" {}
                }
            }
            ul {
                li { i.c-in {} (format::count(usage.input_tokens)) " in" @if cached > 0 { ", of them " (format::count(cached)) " from cache" } }
                @if usage.cache_write_tokens > 0 { li { i.c-cache {} (format::count(usage.cache_write_tokens)) " written to cache" } }
                li { i.c-out {} (format::count(usage.output_tokens)) " out" @if thought > 0 { ", of them " (format::count(thought)) " reasoning" } }
                @if is_estimated { li { span.badge title="Counted here, not reported by the provider" { "estimated" } } }
            }
        }
    }
}

fn in_and_out(attributes: &Attributes) -> Option<Markup> {
    let find =
        |keys: &[&'static str]| keys.iter().find_map(|key| Some((*key, attributes.get(key)?)));
    let (input, output) = (find(&INPUT_KEYS), find(&OUTPUT_KEYS));
    if input.is_none() && output.is_none() {
        return None;
    }
    let is_tool = attributes.get(keys::GEN_AI_TOOL_NAME).is_some();
    let side = |title: &str, found: Option<(&str, &Value)>| {
        found.map(|(_, value)| {
            let json = value.to_structured_json();
            html! {
                h3 { (title) }
                div.json-box data-text=(json_text::plain(&json)) { (value_box(&json)) (copy_near("Copy")) }
            }
        })
    };
    let titles = if is_tool { ("Arguments", "Result") } else { ("Input", "Output") };
    Some(html! {
        @if let Some(input) = side(titles.0, input) { (input) }
        @if let Some(output) = side(titles.1, output) { (output) }
    })
}

/// A table of attributes, with a filter field when it is long.
fn attribute_table(title: &str, id: &str, attributes: &Attributes) -> Markup {
    html! {
        h3 {
            (title)
            @if attributes.len() >= FILTERED_FROM {
                input.field type="search" placeholder="Filter" aria-label={ "Filter " (title) } data-narrows=(id) autocomplete="off";
            }
        }
        table.attrs { tbody id=(id) { @for (key, value) in attributes.iter() { (attribute_row(key, value)) } } }
    }
}

/// One attribute; structured values are laid out as JSON.
pub(crate) fn attribute_row(key: &str, value: &Value) -> Markup {
    let json = value.to_structured_json();
    let plain = json_text::plain(&json);
    html! {
        tr data-text=(plain) {
            td { (key) }
            td {
                @match &json {
                    Json::Array(_) | Json::Object(_) => (value_box(&json)),
                    Json::String(text) => (super::chat::prose(text)),
                    _ => { (plain) },
                }
            }
            td { (copy_near("Copy the value")) }
        }
    }
}

fn list_text(value: &Value) -> String {
    match value {
        Value::Array(items) => items.iter().map(Value::to_text).collect::<Vec<_>>().join(", "),
        other => other.to_text(),
    }
}

fn links(span: &Span) -> Markup {
    html! {
        h3 { "Links" }
        ul.steps {
            @for link in &span.links {
                li {
                    span.at { @if link.trace_id == span.trace_id { "this trace" } @else { "trace" } }
                    div {
                        a.link.mono href={ "/traces/" (link.trace_id) "?span=" (link.span_id) } { (link.span_id) }
                        @if link.trace_id != span.trace_id { span.muted.mono { " in " (link.trace_id) } }
                        @if !link.attributes.is_empty() {
                            table.attrs { tbody { @for (key, value) in link.attributes.iter() { (attribute_row(key, value)) } } }
                        }
                    }
                }
            }
        }
        (dropped(span.dropped_links_count, "link"))
    }
}

fn resource(span: &Span) -> Markup {
    let id = |label: &str, text: String| {
        html! { dt { (label) } dd.pointer { code { (text) } (copy_button(&format!("Copy the {label}"), &text)) } }
    };
    html! {
        (attribute_table("Resource", "resource", &span.resource.attributes))
        h3 { "Identity" }
        dl.pairs {
            (id("span id", span.span_id.to_string()))
            (id("trace id", span.trace_id.to_string()))
            @if let Some(parent) = span.parent_span_id { (id("parent", parent.to_string())) }
            dt { "started" } dd { (format::absolute(span.start_unix_nano)) }
            @if !span.scope.name.is_empty() { dt { "scope" } dd { (span.scope.name) " " (span.scope.version) } }
            @if !span.trace_state.is_empty() { dt { "tracestate" } dd { code { (span.trace_state) } } }
        }
        (dropped(span.dropped_attributes_count, "attribute"))
    }
}

fn dropped(count: u32, what: &str) -> Markup {
    html! {
        @if count > 0 { p.muted { "The sender dropped " (count) " more " (what) @if count > 1 { "s" } "." } }
    }
}
