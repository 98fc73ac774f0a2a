//! An answer piece by piece: the segments of the stream hang below the call, and the time to the
//! first token stands on it.

use std::io::Write as _;

use futures_util::TryStreamExt as _;
use throughline::llm::ChatRequest;
use throughline::{ChatModel as _, Telemetry, Traced};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let telemetry = Telemetry::builder().service_name("streaming").init()?;
    let model = Traced::new(throughline_examples::model().await?);
    let question = ChatRequest::new("gpt-4o-mini").user("Tell me of the sea.");
    let mut answer = model.stream(question).await?;
    let mut out = std::io::stdout();
    while let Some(chunk) = answer.try_next().await? {
        write!(out, "{}", chunk.text())?;
        out.flush()?;
    }
    writeln!(out)?;
    drop(answer);
    telemetry.close().await?;
    Ok(())
}
