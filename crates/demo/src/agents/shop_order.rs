//! Fulfils an order: stock, payment, parcel, and a letter to the customer. The payment gateway is
//! tried twice; when it stays silent the customer gets an invoice.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use throughline::{
    Agent, AgentError, Dimensions, Fallback, Json, Resilience, ToolError, ToolRegistry, decision,
    tool, workflow,
};

use super::{Kit, confidence_in};
use crate::stories::shop::{AGENT, Order, Warehouse};

const MODEL: &str = "gpt-4o-mini";

const INSTRUCTIONS: &str = "You fulfil orders for Fernwood Goods, a small shop for people who sleep \
outside. Check the stock first. If something is missing, charge nothing and offer what comes \
nearest. Otherwise take the payment, book the parcel, and write to the customer: short, warm, \
exact, and a little funny if they are. Never promise a day that the carrier does not. Say \
with each step how sure you are that it is the right one, as (confidence 0.00).";

#[derive(Deserialize, JsonSchema)]
struct Articles {
    /// Article numbers.
    articles: Vec<String>,
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Charge {
    /// Order number.
    order: String,
    /// The total, in euros.
    amount_eur: f64,
}

#[derive(Deserialize, JsonSchema)]
struct Parcel {
    /// Order number.
    order: String,
    /// standard, express or freight.
    method: String,
}

/// Takes one order from the letter to the answer.
pub(crate) async fn fulfil(
    kit: &Kit,
    warehouse: &Warehouse,
    order: &Order,
) -> Result<(), AgentError> {
    let whose = Dimensions::new().agent(AGENT).session(order.session.as_str()).role("sales");
    workflow("order_fulfilment")
        .id(order.reference.as_str())
        .dimensions(whose)
        .run(take(kit, warehouse, order))
        .await
}

async fn take(kit: &Kit, warehouse: &Warehouse, order: &Order) -> Result<(), AgentError> {
    tracing::info!(order = order.reference, customer = order.customer, "order received");
    let clerk = Agent::builder(AGENT, kit.model("clerk"), MODEL)
        .role("sales")
        .instructions(INSTRUCTIONS)
        .tools(tools(kit, warehouse)?)
        .confidence(|answer| confidence_in(&answer.text()))
        .build()?;
    let letter = format!("Order {} from {}:\n\n{}", order.reference, order.customer, order.letter);
    match clerk.run(letter).await {
        Ok(run) => {
            let outcome = run.outcome;
            tracing::info!(order = order.reference, turns = run.turns, %outcome, "order answered");
            Ok(())
        }
        Err(error) => {
            tracing::error!(order = order.reference, %error, "order parked for a person");
            Err(error)
        }
    }
}

fn tools(kit: &Kit, warehouse: &Warehouse) -> Result<ToolRegistry, AgentError> {
    let (stock, parcels) = (warehouse.clone(), warehouse.clone());
    let stock =
        tool("inventory_check_v2", "What there is of some articles", move |of: Articles| {
            let warehouse = stock.clone();
            async move { Json(warehouse.stock(&of.articles).await) }
        })?;
    let (gateway, two_tries) = (warehouse.clone(), kit.two_tries());
    let payment =
        tool("payment_charge_v3", "Charges the customer's card", move |charge: Charge| {
            let (warehouse, two_tries) = (gateway.clone(), two_tries.clone());
            async move { pay(&warehouse, &two_tries, &charge).await }
        })?;
    let parcels = tool("shipping_book_v1", "Books a parcel", move |parcel: Parcel| {
        let warehouse = parcels.clone();
        async move { Json(warehouse.ship(&parcel.order, &parcel.method).await) }
    })?;
    Ok(ToolRegistry::new().with(stock)?.with(payment)?.with(parcels)?)
}

/// Takes the money by card, or else by invoice.
async fn pay(
    warehouse: &Warehouse,
    two_tries: &Resilience,
    charge: &Charge,
) -> Result<Value, ToolError> {
    let by_card = two_tries.run("charge", |_| warehouse.charge(&charge.order, charge.amount_eur));
    let by_invoice = async {
        tracing::warn!(order = charge.order, "the gateway is silent, an invoice goes out");
        Ok(warehouse.invoice(&charge.order, charge.amount_eur).await)
    };
    let paid = Fallback::new("payment", by_card)
        .degraded("invoice", by_invoice)
        .input(charge)
        .run()
        .await
        .map_err(ToolError::fault)?;
    let (action, reason, confidence) = if paid.is_degraded() {
        ("invoice", "the card gateway stayed silent, and this customer has always paid", 0.71)
    } else {
        ("charge_card", "the card was charged", 0.99)
    };
    decision("act.payment")
        .action(action)
        .reason(reason)
        .confidence(confidence)
        .input(charge)
        .parent_if(paid.decision)
        .record();
    Ok(paid.value)
}
