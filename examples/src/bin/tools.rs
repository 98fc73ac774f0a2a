//! An agent with a tool: a function becomes one by an attribute, its documentation becomes the
//! schema that the model reads, and the run is one trace of plan, act, observe and reflect.

use std::sync::Arc;

use throughline::{Agent, Telemetry, ToolRegistry, Traced};

struct Warehouse {
    boxes: u32,
}

/// How many of an item are left.
#[throughline::tool(id = "stock_v1")]
async fn stock(
    /// The item's number.
    item: u32,
    #[state] warehouse: &Warehouse,
) -> Result<u32, String> {
    warehouse.boxes.checked_sub(item).ok_or_else(|| format!("there is no item {item}"))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let telemetry = Telemetry::builder().service_name("tools").init()?;
    let warehouse = Arc::new(Warehouse { boxes: 40 });
    let model = Traced::new(throughline_examples::model().await?);
    let agent = Agent::builder("shop", model, "gpt-4o-mini")
        .instructions("You answer questions about our stock.")
        .tools(ToolRegistry::new().with(stock_tool(warehouse))?)
        .build()?;
    let run = agent.run("Is there enough of item 12 for three people?").await?;
    println!("{}", run.answer);
    telemetry.close().await?;
    Ok(())
}
