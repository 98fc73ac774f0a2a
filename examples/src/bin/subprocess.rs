//! A tool that is a program: it gets its arguments on the command line, and the trace in its
//! environment, so that what it records itself joins the run.

use serde_json::json;
use throughline::{Agent, SubprocessTool, Telemetry, ToolRegistry, Traced};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let telemetry = Telemetry::builder().service_name("subprocess").init()?;
    let count = SubprocessTool::new("count_v1", "Counts the letters of a text", "sh")?
        .arg("-c")
        .arg(r#"printf '%s letters, on trace %s' "${#1}" "$(echo "$TRACEPARENT" | cut -d- -f2)""#)
        .arg("sh")
        .arg_of("{text}")?
        .parameters(json!({
            "type": "object",
            "properties": {"text": {"type": "string"}},
            "required": ["text"],
        }))
        .answering_text();
    let agent =
        Agent::builder("writer", Traced::new(throughline_examples::model().await?), "gpt-4o-mini")
            .tools(ToolRegistry::new().with(count)?)
            .build()?;
    let run = agent.run("Count the letters of this sentence.").await?;
    println!("{}", run.answer);
    telemetry.close().await?;
    Ok(())
}
