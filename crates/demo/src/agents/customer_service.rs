//! Answers customers: finds out what somebody wants, asks while that is unclear, and answers. Where the
//! talk stands is embedded at its beginning and at its end; who is told to hand over does so.

use std::time::Duration;

use opentelemetry::{Array, Value};
use throughline::llm::{ChatRequest, EmbeddingRequest, Message};
use throughline::{
    ChatModel as _, Dimensions, EmbeddingModel as _, Phase, Steering, Traced, TracedEmbeddings,
    decision, keys, step, workflow,
};

use super::{Failed, within};
use crate::pace::Pace;
use crate::stories::service::{AGENT, INSTRUCTIONS, Meaning, Talk, WRITE, read};

/// Quick, and good enough with words.
const MODEL: &str = "gpt-4.1-mini";

/// What the talk is embedded by.
const EMBEDDING_MODEL: &str = "text-embedding-3-small";

/// Numbers of an embedding.
const DIMENSIONS: u32 = 128;

/// How often a customer is asked before the agent goes by what it has.
const MAX_QUESTIONS: usize = 3;

/// How long a customer takes for an answer.
const TYPING: Duration = Duration::from_millis(400);

/// How sure nobody is of what stayed unclear.
const UNCLEAR_CONFIDENCE: f64 = 0.3;

/// The agent.
#[derive(Debug, Clone)]
pub(crate) struct CustomerService {
    model: Traced,
    embeddings: TracedEmbeddings,
    pace: Pace,
}

impl CustomerService {
    /// An agent over these models.
    pub(crate) fn new(model: Traced, embeddings: TracedEmbeddings, pace: Pace) -> Self {
        Self { model, embeddings, pace }
    }

    /// Answers one customer.
    ///
    /// # Errors
    /// [`Failed`], when a model cannot be asked.
    pub(crate) async fn answer(&self, talk: Talk) -> Result<(), Failed> {
        let whose = Dimensions::new().agent(AGENT).session(talk.session.as_str()).role("support");
        workflow("support_session").dimensions(whose).run(self.talk(&talk)).await
    }

    async fn talk(&self, talk: &Talk) -> Result<(), Failed> {
        if let Some(told) = Steering::current().handover() {
            let reason = told.reason();
            let to = told.take_effect();
            decision("act.handover")
                .action("hand_over")
                .reason(format!("{to} takes over: {reason}"))
                .confidence(1.0)
                .record();
            return Ok(());
        }
        let understanding = step(AGENT, Phase::Plan, "intent").start();
        let conversation = within(understanding, self.understand(talk)).await?;
        let answering = step(AGENT, Phase::Act, "answer").start();
        within(answering, self.write(conversation)).await
    }

    /// Asks until it is clear what is wanted, or often enough.
    async fn understand(&self, talk: &Talk) -> Result<Vec<Message>, Failed> {
        decision("perceive")
            .action("opened")
            .reason("a customer wrote")
            .confidence(1.0)
            .attribute(keys::CONTEXT_EMBEDDING, self.embed(talk.opening()).await?)
            .record();
        let mut conversation = vec![Message::system(INSTRUCTIONS), Message::user(talk.opening())];
        for asked in 1..=MAX_QUESTIONS {
            let answer = self.ask(&conversation).await?;
            conversation.push(Message::assistant(answer.as_str()));
            let (intent, confidence) = match read(&answer) {
                Some(Meaning::Ask(_)) if asked < MAX_QUESTIONS => {
                    self.pace.wait(TYPING).await;
                    conversation.push(Message::user(talk.says(asked)));
                    continue;
                }
                Some(Meaning::Intent(intent, confidence)) => (intent, confidence),
                _ => ("unclear".to_owned(), UNCLEAR_CONFIDENCE),
            };
            decision("intent-resolved")
                .action(intent)
                .reason(format!("understood after message {asked} of the customer"))
                .confidence(confidence)
                .input(&talk.opening())
                .model_version(MODEL)
                .record();
            break;
        }
        Ok(conversation)
    }

    async fn write(&self, mut conversation: Vec<Message>) -> Result<(), Failed> {
        conversation.push(Message::user(WRITE));
        let answer = self.ask(&conversation).await?;
        decision("act.answer")
            .action("answered")
            .reason("the customer knows what happens next")
            .confidence(1.0)
            .attribute(keys::CONTEXT_EMBEDDING, self.embed(&answer).await?)
            .record();
        Ok(())
    }

    async fn ask(&self, conversation: &[Message]) -> Result<String, Failed> {
        let request = ChatRequest { messages: conversation.to_vec(), ..ChatRequest::new(MODEL) };
        Ok(self.model.chat(request).await.map_err(Failed::of)?.text())
    }

    async fn embed(&self, text: &str) -> Result<Value, Failed> {
        let request = EmbeddingRequest::new(EMBEDDING_MODEL).text(text).dimensions(DIMENSIONS);
        let found = self.embeddings.embed(request).await.map_err(Failed::of)?;
        let vector = found.embeddings.into_iter().next().unwrap_or_default();
        Ok(Value::Array(Array::F64(vector.into_iter().map(f64::from).collect())))
    }
}
