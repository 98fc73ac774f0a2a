//! An agent's tool that is a Python program on the same trace: the child reads `TRACEPARENT` from its
//! environment with the official OpenTelemetry package, and sends its own spans to the same place.
//!
//! `cargo run --example subprocess_tool -- interop/child_tool.py` (the program's name may be set with
//! `PYTHON`); telemetry goes where `OTEL_EXPORTER_OTLP_ENDPOINT` says.

use std::error::Error;

use serde_json::json;
use throughline::llm::ToolCall;
use throughline::{
    ContextBag, Dimensions, Need, Phase, SourceLayer, SubprocessTool, Telemetry, ToolRegistry, step,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let program = std::env::args().nth(1).ok_or("expected the path of the Python program")?;
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let telemetry = Telemetry::builder().service_name("subprocess-parent").init()?;

    let count = SubprocessTool::new("count_v1", "Counts the words of a text", python)?
        .arg(program)
        .parameters(json!({
            "type": "object",
            "properties": {"text": {"type": "string"}},
            "required": ["text"],
        }))
        .with_needs([Need::of("user_timezone")]);
    let tools = ToolRegistry::new().with(count)?;

    let bag = ContextBag::new();
    bag.set(SourceLayer::Caller, "user_timezone", "Europe/Vienna")?;
    let act = {
        let _as = Dimensions::new().agent("counter").session("s-1").enter();
        step("counter", Phase::Act, "count").start()
    };
    let call = ToolCall {
        id: "call_1".to_owned(),
        name: "count_v1".to_owned(),
        arguments: json!({"text": "one two three"}).to_string(),
    };
    let answer = act.instrument(async { bag.scope(tools.execute(&call)).await }).await?;
    let trace = act.trace_id().ok_or("expected a trace")?;
    act.end();
    telemetry.shutdown()?;
    let answer = json!({"trace_id": trace.to_string(), "answer": answer});
    std::io::Write::write_all(&mut std::io::stdout(), format!("{answer}\n").as_bytes())?;
    Ok(())
}
