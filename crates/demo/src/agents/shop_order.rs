//! Fulfils an order: stock, payment, parcel, and a letter to the customer. The payment gateway is
//! tried twice; when it stays silent the customer gets an invoice.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use throughline::{
    Agent, Dimensions, ErrorType, Fallback, ResilientError, ToolError, ToolRegistry, decision, tool,
};

use super::{Failure, Kit, workflow};
use crate::Unavailable;
use crate::stories::shop::{AGENT, Order, Warehouse};

const MODEL: &str = "gpt-4o-mini";

const INSTRUCTIONS: &str = "You fulfil orders for Fernwood Goods, a small shop for people who sleep \
outside. Check the stock first. If something is missing, charge nothing and offer what comes \
nearest. Otherwise take the payment, book the parcel, and write to the customer: short, warm, \
exact, and a little funny if they are. Never promise a day that the carrier does not.";

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
pub(crate) async fn fulfil(kit: &Kit, warehouse: &Warehouse, order: &Order) -> Result<(), Failure> {
    let whose = Dimensions::new()
        .agent(AGENT)
        .session(order.session.as_str())
        .workflow(order.reference.as_str())
        .role("sales");
    workflow("order_fulfilment", whose, take(kit, warehouse, order)).await
}

async fn take(kit: &Kit, warehouse: &Warehouse, order: &Order) -> Result<(), Failure> {
    tracing::info!(order = order.reference, customer = order.customer, "order received");
    let clerk = Agent::builder(AGENT, kit.model("clerk"), MODEL)
        .role("sales")
        .instructions(INSTRUCTIONS)
        .tools(tools(kit, warehouse)?)
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
            Err(error.into())
        }
    }
}

fn tools(kit: &Kit, warehouse: &Warehouse) -> Result<ToolRegistry, Failure> {
    let (stock, parcels) = (warehouse.clone(), warehouse.clone());
    let stock =
        tool("inventory_check", 2, "What there is of some articles", move |of: Articles| {
            let warehouse = stock.clone();
            async move { Ok::<_, ToolError>(warehouse.stock(&of.articles).await) }
        })?;
    let (gateway, two_tries) = (warehouse.clone(), kit.two_tries());
    let payment =
        tool("payment_charge", 3, "Charges the customer's card", move |charge: Charge| {
            let (warehouse, two_tries) = (gateway.clone(), two_tries.clone());
            async move {
                let by_card = two_tries.run_with(
                    "charge",
                    |_: &Unavailable| ErrorType::Server,
                    |_| warehouse.charge(&charge.order, charge.amount_eur),
                );
                let paid = Fallback::new("payment", by_card)
                    .degraded("invoice", async {
                        tracing::warn!(
                            order = charge.order,
                            "the gateway is silent, an invoice goes out"
                        );
                        Ok(warehouse.invoice(&charge.order, charge.amount_eur).await)
                    })
                    .input(&charge)
                    .run_with(kind_of)
                    .await
                    .map_err(|failed| {
                        ToolError::kind(kind_of(&failed.primary), failed.to_string())
                    })?;
                decision("act.payment")
                    .action(if paid.is_degraded() { "invoice" } else { "charge_card" })
                    .reason(if paid.is_degraded() {
                        "the card gateway did not answer twice, and a known customer may pay later"
                    } else {
                        "the card was charged"
                    })
                    .confidence(if paid.is_degraded() { 0.71 } else { 0.99 })
                    .input(&charge)
                    .parent_if(paid.decision)
                    .record();
                Ok::<_, ToolError>(paid.value)
            }
        })?;
    let parcels = tool("shipping_book", 1, "Books a parcel", move |parcel: Parcel| {
        let warehouse = parcels.clone();
        async move { Ok::<_, ToolError>(warehouse.ship(&parcel.order, &parcel.method).await) }
    })?;
    Ok(ToolRegistry::new().with(stock)?.with(payment)?.with(parcels)?)
}

fn kind_of(error: &ResilientError<Unavailable>) -> ErrorType {
    match error {
        ResilientError::Timeout { .. } => ErrorType::Timeout,
        ResilientError::CircuitOpen { .. } => ErrorType::CircuitOpen,
        ResilientError::Operation(_) => ErrorType::Server,
    }
}
