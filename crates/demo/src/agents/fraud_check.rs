//! Checks a card authorisation: an analyst with three tools, a second analyst who looks at every
//! refusal, and a score by rules alone for the days on which no model answers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use throughline::{
    Agent, AgentError, DecisionId, Dimensions, Fallback, Json, Task, ToolError, ToolRegistry,
    decision, tool, workflow,
};

use super::{Kit, confidence_in, word_in};
use crate::stories::fraud::{AGENT, Bank, Case};

const MODEL: &str = "gpt-4o";
const SECOND_MODEL: &str = "gpt-4o-mini";
const VERSION: &str = "fraud-prompt-1.2.3";

/// Below this a person decides.
const MIN_CONFIDENCE: f64 = 0.62;

const INSTRUCTIONS: &str = "You are the card fraud analyst of Nordhavn Bank. You get one card \
authorisation at a time. Look at the card's history, the device and the sanctions lists before you \
judge. Write for a colleague: two or three sentences, what convinced you and what does not fit. \
Refusing an honest customer is also a mistake. Say with each step how sure you are that it is the \
right one, as (confidence 0.00). End with one line: 'verdict: approve, decline or \
review, confidence 0.00 to 1.00'.";

const SECOND_INSTRUCTIONS: &str = "You are a second card fraud analyst of Nordhavn Bank. A colleague \
wants to decline an authorisation. Say in one sentence whether you would too, and end with one \
line: 'agrees: yes or no, confidence 0.00 to 1.00'.";

/// What becomes of an authorisation.
#[derive(Debug, Clone, PartialEq)]
struct Verdict {
    action: String,
    reason: String,
    confidence: f64,
    /// The decision that it rests on.
    because: Option<DecisionId>,
}

#[derive(Deserialize, JsonSchema)]
struct HistoryOf {
    /// Last four digits of the card.
    card: String,
    /// How far back to look.
    days: u16,
}

#[derive(Deserialize, JsonSchema)]
struct DeviceOf {
    /// Reference of the authorisation.
    authorisation: String,
}

#[derive(Deserialize, JsonSchema)]
struct Listed {
    /// The person or company to look for.
    name: String,
}

/// Decides about one authorisation.
pub(crate) async fn check(kit: &Kit, bank: &Bank, case: &Case) -> Result<(), AgentError> {
    let whose = Dimensions::new().agent(AGENT).session(case.session.as_str()).role("risk");
    workflow("card_authorisation")
        .id(case.reference.as_str())
        .dimensions(whose)
        .run(decide(kit, bank, case))
        .await
}

async fn decide(kit: &Kit, bank: &Bank, case: &Case) -> Result<(), AgentError> {
    tracing::info!(authorisation = case.reference, amount = case.price(), "authorisation received");
    let answered = Fallback::new("risk_verdict", ask_analyst(kit, bank, case))
        .degraded("rules_only", async { Ok(by_rules(case)) })
        .input(&facts(case))
        .run()
        .await
        .map_err(|failed| failed.primary)?;
    let is_degraded = answered.is_degraded();
    let mut verdict = answered.value;
    if is_degraded {
        tracing::warn!(
            authorisation = case.reference,
            "no analyst answered, the rules decide alone"
        );
    }
    if verdict.action == "decline"
        && !is_degraded
        && !second_analyst_agrees(kit, case, &verdict).await
    {
        verdict.action = "review".to_owned();
        verdict.reason = format!("the second analyst does not agree: {}", verdict.reason);
    }
    if verdict.confidence < MIN_CONFIDENCE && verdict.action != "review" {
        verdict.reason = format!("not sure enough to {}: {}", verdict.action, verdict.reason);
        verdict.action = "review".to_owned();
    }
    decision("act")
        .action(verdict.action.as_str())
        .reason(verdict.reason.as_str())
        .confidence(verdict.confidence)
        .input(&facts(case))
        .model_version(if is_degraded { "rules-7" } else { VERSION })
        .parent_if(answered.decision.or(verdict.because))
        .record();
    tracing::info!(
        authorisation = case.reference,
        verdict = verdict.action,
        "authorisation decided"
    );
    Ok(())
}

async fn ask_analyst(kit: &Kit, bank: &Bank, case: &Case) -> Result<Verdict, AgentError> {
    let analyst = Agent::builder(AGENT, kit.model("analyst"), MODEL)
        .role("risk")
        .version(VERSION)
        .instructions(INSTRUCTIONS)
        .request(|request| request.temperature(0.2))
        .tools(tools(kit, bank)?)
        .confidence(|answer| confidence_in(&answer.text()))
        .build()?;
    let run = analyst.run(Task::new(letter(case))).await?;
    Ok(read_verdict(&run.answer, run.decisions.last().copied()))
}

fn tools(kit: &Kit, bank: &Bank) -> Result<ToolRegistry, AgentError> {
    let (history, device, lists) = (bank.clone(), bank.clone(), bank.clone());
    let history =
        tool("transaction_history_v1", "What a card was used for lately", move |of: HistoryOf| {
            let bank = history.clone();
            async move { Json(bank.history(&of.card, of.days).await) }
        })?;
    let limit = kit.tool_limit();
    let device = tool(
        "device_fingerprint_v2",
        "The device that asked, and since when we know it",
        move |of: DeviceOf| {
            let bank = device.clone();
            async move { bank.device(&of.authorisation).await.map_err(ToolError::fault) }
        },
    )?
    .with_timeout(limit);
    let lists = tool(
        "sanctions_list_v1",
        "Entries of sanctions lists that are like a name",
        move |who: Listed| {
            let bank = lists.clone();
            async move { Json(bank.sanctions(&who.name).await) }
        },
    )?;
    Ok(ToolRegistry::new().with(history)?.with(device)?.with(lists)?)
}

/// Whether a colleague on another model would decline too; when nobody answers, the first verdict
/// stands.
async fn second_analyst_agrees(kit: &Kit, case: &Case, verdict: &Verdict) -> bool {
    let asked = format!(
        "{}\n\nYour colleague would decline: {}\n\nA second pair of eyes, please.",
        letter(case),
        verdict.reason
    );
    let second = Agent::builder("second_analyst", kit.model("second analyst"), SECOND_MODEL)
        .role("risk")
        .instructions(SECOND_INSTRUCTIONS)
        .confidence(|answer| confidence_in(&answer.text()))
        .build();
    let run = match second {
        Ok(second) => second.run(Task::new(asked)).await,
        Err(error) => Err(error),
    };
    match run {
        Ok(run) => word_in(&run.answer, "agrees") != Some("no"),
        Err(error) => {
            tracing::warn!(%error, "no second analyst, the first verdict stands");
            true
        }
    }
}

fn letter(case: &Case) -> String {
    format!(
        "Authorisation {} waits.\n\nCard ending {}, {}\n{} to {}\n{}, {} at the merchant",
        case.reference,
        case.card,
        case.holder,
        case.price(),
        case.merchant,
        case.channel,
        case.local_time
    )
}

fn read_verdict(answer: &str, because: Option<DecisionId>) -> Verdict {
    let reason = answer.split("\n\nverdict:").next().unwrap_or(answer).to_owned();
    // An answer without a verdict is one for a person.
    let action = word_in(answer, "verdict").unwrap_or("review").to_owned();
    Verdict { action, reason, confidence: confidence_in(answer).unwrap_or(0.0), because }
}

/// The score that needs no model: night, distance and size.
fn by_rules(case: &Case) -> Verdict {
    let is_night = case.local_time < "06:00";
    let is_online = case.channel.starts_with("online");
    let is_large = case.amount > 1_000.0;
    let points = [is_night, is_online, is_large].iter().filter(|point| **point).count();
    let (action, confidence) = match points {
        0 => ("approve", 0.78),
        1 => ("approve", 0.66),
        2 => ("review", 0.63),
        _ => ("decline", 0.7),
    };
    let yes_no = |point: bool| if point { "yes" } else { "no" };
    let reason = format!(
        "rules alone: at night {}, online {}, over 1,000 {}",
        yes_no(is_night),
        yes_no(is_online),
        yes_no(is_large)
    );
    Verdict { action: action.to_owned(), reason, confidence, because: None }
}

/// What the decision is based on: the same authorisation has the same facts.
fn facts(case: &Case) -> impl Serialize {
    (case.card, case.merchant, case.channel, case.local_time, case.amount.round())
}
