//! Says how soon a patient should be seen. A smaller model stands in for the main one, the printed
//! protocol for the guideline service, and a nurse for both whenever the answer is not sure enough.

use schemars::JsonSchema;
use serde::Deserialize;
use throughline::llm::ToolCall;
use throughline::{
    Agent, AgentError, DecisionId, Dimensions, Fallback, FallbackModel, Fault as _, Json, Phase,
    ToolError, ToolRegistry, decision, step, tool, workflow,
};

use super::{Kit, confidence_in, word_in};
use crate::stories::triage::{AGENT, Clinic, Intake};

const MODEL: &str = "o4-mini";
const SMALLER_MODEL: &str = "gpt-4o-mini";
const ESCALATION: &str = "escalate_to_human_v1";

/// Below this a clinician decides.
const MIN_CONFIDENCE: f64 = 0.62;

const INSTRUCTIONS: &str = "You are the intake assistant of Willow Street Clinic. You do not \
diagnose; you say how soon somebody should be seen, and by whom. Record the symptoms, look up the \
guideline, then answer the patient: calm, plain, what to do now and what to watch for. Err towards \
sooner. Say with each step how sure you are that it is the right one, as (confidence 0.00). End with one line: 'level: emergency, same-day, next-day, this-week or self-care, \
confidence 0.00 to 1.00'.";

#[derive(Deserialize, JsonSchema)]
struct Symptoms {
    /// One symptom each, in plain words.
    symptoms: Vec<String>,
    /// Since when.
    since: String,
}

#[derive(Deserialize, JsonSchema)]
struct Topic {
    /// What to look up.
    topic: String,
}

#[derive(Deserialize, JsonSchema)]
struct Escalation {
    /// Number of the intake.
    intake: String,
    /// Why a person is needed.
    why: String,
}

/// Assesses one intake.
pub(crate) async fn assess(kit: &Kit, clinic: &Clinic, intake: &Intake) -> Result<(), AgentError> {
    let whose = Dimensions::new().agent(AGENT).session(intake.session.as_str()).role("clinical");
    workflow("patient_intake")
        .id(intake.reference.as_str())
        .dimensions(whose)
        .run(triage(kit, clinic, intake))
        .await
}

async fn triage(kit: &Kit, clinic: &Clinic, intake: &Intake) -> Result<(), AgentError> {
    tracing::info!(intake = intake.reference, "intake opened");
    let model = FallbackModel::new(kit.model("main")).then(kit.model("smaller"), SMALLER_MODEL);
    let assistant = Agent::builder(AGENT, model, MODEL)
        .role("clinical")
        .instructions(INSTRUCTIONS)
        .tools(tools(kit, clinic)?)
        .confidence(|answer| confidence_in(&answer.text()))
        .build()?;
    let said =
        format!("Intake {}, patient {}:\n\n{}", intake.reference, intake.patient, intake.complaint);
    let run = match assistant.run(said).await {
        Ok(run) => run,
        Err(error) => {
            tracing::error!(intake = intake.reference, %error, "no assessment, a nurse takes over");
            escalate(clinic, intake, "no model gave an assessment", None).await?;
            return Err(error);
        }
    };
    let level = word_in(&run.answer, "level").unwrap_or("unknown");
    let confidence = confidence_in(&run.answer);
    let decision = decision("act")
        .action(level)
        .reason(run.answer.lines().next().unwrap_or_default())
        .confidence_if(confidence)
        .input(&intake.complaint)
        .parent_if(run.decisions.last().copied())
        .record();
    let assessment = Some(Assessment { decision, confidence });
    tracing::info!(intake = intake.reference, level, confidence, "intake assessed");
    if confidence.is_none_or(|sure| sure < MIN_CONFIDENCE) {
        tracing::warn!(intake = intake.reference, confidence, "not sure enough, a nurse decides");
        escalate(clinic, intake, "the assessment is not sure enough", assessment).await?;
    } else if level == "emergency" {
        escalate(clinic, intake, "an emergency is told to a person as well", assessment).await?;
    }
    Ok(())
}

/// What was decided about an intake.
#[derive(Debug, Clone, Copy)]
struct Assessment {
    decision: DecisionId,
    confidence: Option<f64>,
}

fn tools(kit: &Kit, clinic: &Clinic) -> Result<ToolRegistry, AgentError> {
    let (records, guidelines) = (clinic.clone(), clinic.clone());
    let two_tries = kit.two_tries();
    let record =
        tool("symptom_intake_v1", "Writes symptoms into the record", move |said: Symptoms| {
            let clinic = records.clone();
            async move { Json(clinic.record(&said.symptoms, &said.since).await) }
        })?;
    let guideline = tool("guideline_lookup_v3", "What the guideline says", move |about: Topic| {
        let (clinic, two_tries) = (guidelines.clone(), two_tries.clone());
        async move {
            let printed = async {
                tracing::warn!(
                    topic = about.topic,
                    "no guideline service, the printed protocol answers"
                );
                Ok(clinic.printed_protocol(&about.topic).await)
            };
            let online = two_tries.run("lookup", |_| clinic.guideline(&about.topic));
            Fallback::new("guideline", online)
                .degraded("printed_protocol", printed)
                .input(&about.topic)
                .run()
                .await
                .map(|answered| answered.value)
                .map_err(ToolError::fault)
        }
    })?;
    Ok(ToolRegistry::new().with(record)?.with(guideline)?)
}

/// Calls the nurse on duty, as a step of its own.
async fn escalate(
    clinic: &Clinic,
    intake: &Intake,
    why: &str,
    assessment: Option<Assessment>,
) -> Result<(), AgentError> {
    let step = step(AGENT, Phase::Act, "escalate_to_human").tool(ESCALATION).reason(why).start();
    decision("act.escalation")
        .action("escalate_to_human")
        .reason(why)
        .confidence_if(assessment.and_then(|known| known.confidence))
        .input(&intake.complaint)
        .parent_if(assessment.map(|known| known.decision))
        .on(&step)
        .record();
    let arguments = serde_json::json!({"intake": intake.reference, "why": why}).to_string();
    let call = ToolCall { name: ESCALATION.to_owned(), arguments, ..ToolCall::default() };
    let paged = step.instrument(async { Ok::<_, AgentError>(staff(clinic)?.execute(&call).await) });
    if let Err(error) = paged.await? {
        step.fail(error.error_type(), error.to_string());
        tracing::error!(intake = intake.reference, %error, "the nurse could not be paged");
    }
    Ok(())
}

/// The tools that only the clinic's own code may use, not the model.
fn staff(clinic: &Clinic) -> Result<ToolRegistry, AgentError> {
    let pager = clinic.clone();
    let page = tool(ESCALATION, "Calls the nurse on duty", move |why: Escalation| {
        let clinic = pager.clone();
        async move { Json(clinic.page_nurse(&why.intake, &why.why).await) }
    })?;
    Ok(ToolRegistry::new().with(page)?)
}
