//! How to send data: endpoints, environment variables, and what to type, by language.

use axum::extract::State;
use maud::{Markup, html};

use crate::doors::Visitor;
use crate::layout::{self, Nav, copy_button};
use crate::state::{Shared, WebState};

/// `GET /setup`
pub(crate) async fn show(State(app): State<Shared>, visitor: Visitor) -> Markup {
    layout::page(&visitor, Nav::Setup, "Send data", draw(&app.web))
}

fn draw(web: &WebState) -> Markup {
    let needs_key = web.keyring.is_required();
    html! {
        div.head { h1 { "Send data" } }
        div.setup {
            p.lead-in { "Anything that speaks OpenTelemetry can send traces, logs and metrics here, in any language. "
                "Spans of the GenAI conventions, and of what other frameworks made of them, show their messages, tokens and tools." }
            (endpoints(web))
            @if needs_key { (with_key()) }
            @for (id, title, note, text, code) in recipes(web) {
                section.card.box id=(id) {
                    h2 { (title) " " small { (note) } }
                    p { (text) }
                    (code_box(&code))
                }
            }
        }
    }
}

fn endpoints(web: &WebState) -> Markup {
    let end = |label: &str, url: &str, note: &str| {
        html! { div.card.box { span.muted { (label) } b { (url) " " (copy_button("Copy the address", url)) } span.muted { (note) } } }
    };
    html! {
        div.ends {
            (end("OTLP/HTTP", &web.otlp_http_url, "protobuf and JSON, gzip and zstd"))
            (end("OTLP/gRPC", &web.otlp_grpc_url, "gzip and zstd"))
            div.card.box { span.muted { "JSON API" } b { "/api/v1" } a.link href="/api/v1/openapi.json" { "description" } }
        }
    }
}

fn with_key() -> Markup {
    html! {
        section.card.box {
            h2 { "A key for sending" }
            p { "This server asks for keys. Whoever runs it makes one, and exporters send it as a header." }
            (code_box("throughline keys create --scope ingest --name my-agent\nexport OTEL_EXPORTER_OTLP_HEADERS=\"authorization=Bearer tl_…\""))
        }
    }
}

fn code_box(code: &str) -> Markup {
    html! { div.code { pre { (code) } (copy_button("Copy", code)) } }
}

/// A span that a shell can send; `{http}` stands for the endpoint.
const FIRST_SPAN: &str = r#"TRACE=$(openssl rand -hex 16) SPAN=$(openssl rand -hex 8) NOW=$(date +%s)
curl -sS {http}/v1/traces -H 'content-type: application/json' --data-binary @- <<JSON
{ "resourceSpans": [{
  "resource": { "attributes": [{ "key": "service.name", "value": { "stringValue": "curl" } }] },
  "scopeSpans": [{ "spans": [{
    "traceId": "$TRACE", "spanId": "$SPAN", "name": "hello", "kind": 1,
    "startTimeUnixNano": "${NOW}000000000", "endTimeUnixNano": "${NOW}250000000"
  }] }]
}] }
JSON"#;

type Recipe = (&'static str, &'static str, &'static str, &'static str, String);

fn recipes(web: &WebState) -> Vec<Recipe> {
    let (http, grpc) = (&web.otlp_http_url, &web.otlp_grpc_url);
    vec![
        (
            "env",
            "Any OpenTelemetry SDK",
            "environment variables",
            "If the program has an OpenTelemetry SDK already, this is all it takes.",
            format!(
                "export OTEL_EXPORTER_OTLP_ENDPOINT={http}\nexport OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf\nexport OTEL_SERVICE_NAME=my-agent\nexport OTEL_SEMCONV_STABILITY_OPT_IN=gen_ai_latest_experimental\nexport OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=SPAN_ONLY"
            ),
        ),
        (
            "python",
            "Python",
            "with the openai package",
            "The instrumentation records model, messages, tokens and tool calls; no code changes.",
            format!(
                "pip install opentelemetry-distro opentelemetry-exporter-otlp\npip install --pre opentelemetry-instrumentation-genai-openai\nOTEL_EXPORTER_OTLP_ENDPOINT={http} \\\nOTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf \\\nOTEL_SEMCONV_STABILITY_OPT_IN=gen_ai_latest_experimental \\\nOTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=SPAN_ONLY \\\nopentelemetry-instrument python agent.py"
            ),
        ),
        (
            "javascript",
            "JavaScript",
            "Node",
            "Start the program with the SDK's automatic instrumentation.",
            format!(
                "npm install @opentelemetry/api @opentelemetry/auto-instrumentations-node\nOTEL_EXPORTER_OTLP_ENDPOINT={http} \\\nOTEL_SERVICE_NAME=my-agent \\\nnode --require @opentelemetry/auto-instrumentations-node/register agent.js"
            ),
        ),
        (
            "rust",
            "Rust",
            "the Throughline SDK",
            "Agents on the SDK have steps, retries, fallbacks and decisions on their trace without further work.",
            format!("cargo add throughline\nOTEL_EXPORTER_OTLP_ENDPOINT={grpc} OTEL_EXPORTER_OTLP_PROTOCOL=grpc cargo run"),
        ),
        (
            "decisions",
            "Decisions",
            "from any language",
            "A decision is an OTLP log event named agent.decision, written on the span that decides, with these attributes.",
            "decision_id            a UUIDv4\nparent_decision_id     the decision that led here, if any\nstage                  plan, act.tool, fallback, …\ninput_hash             equal inputs, equal hashes\nmodel_version          what decided\ndecision.action        what was chosen\ndecision.reason        why\ndecision.confidence    0 to 1"
                .to_owned(),
        ),
        (
            "try",
            "Try it",
            "with one command",
            "One span, sent by hand as OTLP/JSON. It appears under Traces at once.",
            FIRST_SPAN.replace("{http}", http),
        ),
    ]
}
