//! Embeddings of what agents are asked, made by a configured endpoint in the background (`act.embeddings`): what sessions
//! are about is known although no agent records it (requirement R5.7). Only stored text is sent, which is redacted, and
//! nothing that is received waits for it.

use std::collections::BTreeMap;
use std::time::Duration;

use throughline_act::Embeddings;
use throughline_llm::{Part, Role, genai};
use throughline_store::{Governance, Reader, SessionContext, TextHash};
use throughline_trace::{Span, SpanRole, TraceId, keys};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::embedding_queue::Queue;
use super::minute_traces::{WholeTraces, in_turn, of_minute};
use super::{LAG_NANOS, MINUTE_NANOS, RoundError, now_unix_nano};

/// Minutes that are made up for when it begins, or could not read: an hour and what it is held against, whenever in the hour that is.
const MAX_CATCH_UP_MIN: u64 = 180;

/// How many minutes after it began a trace is looked at: one that is under way lacks calls.
const TRACE_LAG_MIN: u64 = 1;

/// Characters of a text that are sent: most models of embeddings take about 8,000 tokens.
const MAX_TEXT_CHARS: usize = 8_000;

/// Who asks.
pub(super) struct Embedder {
    queue: Queue,
    reader: Reader,
    governance: Governance,
    /// The next minute, since the Unix epoch.
    next_min: u64,
}

/// A text, where it was said.
struct Said {
    context: SessionContext,
    text: String,
}

impl Embedder {
    /// One that begins with the last hours.
    pub(super) fn new(embeddings: Embeddings, reader: Reader, governance: Governance) -> Self {
        let next_min = (now_unix_nano() / MINUTE_NANOS).saturating_sub(MAX_CATCH_UP_MIN);
        Self { queue: Queue::new(embeddings, governance.clone()), reader, governance, next_min }
    }

    /// Looks at every minute that is over, until it is closed.
    pub(super) async fn run(mut self, every: Duration, closing: CancellationToken) {
        let mut clock = interval(every);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = closing.cancelled() => return,
                _ = clock.tick() => {}
            }
            let passed = tokio::select! {
                () = closing.cancelled() => return,
                passed = self.pass() => passed,
            };
            if let Err(error) = passed {
                tracing::warn!(%error, "what agents were asked could not be read; it will be tried again");
            }
        }
    }

    async fn pass(&mut self) -> Result<(), RoundError> {
        let over = now_unix_nano().saturating_sub(LAG_NANOS) / MINUTE_NANOS;
        let over = over.saturating_sub(TRACE_LAG_MIN);
        self.next_min = resumed(self.next_min, over);
        while self.next_min < over {
            let said = said(&self.reader, self.queue.model(), self.next_min).await?;
            self.note(said).await?;
            self.next_min += 1;
        }
        self.embed().await
    }

    /// Notes what was said, and which of it has no embedding yet.
    async fn note(&mut self, said: Vec<Said>) -> Result<(), RoundError> {
        if said.is_empty() {
            return Ok(());
        }
        let mut texts = BTreeMap::new();
        let mut contexts = Vec::with_capacity(said.len());
        for Said { context, text } in said {
            texts.entry(context.text).or_insert(text);
            contexts.push(context);
        }
        let governance = self.governance.clone();
        let hashes: Vec<TextHash> = texts.keys().copied().collect();
        let write = move || {
            governance.write_embeddings(now_unix_nano(), &contexts, &[])?;
            governance.without_embedding(&hashes)
        };
        let missing = tokio::task::spawn_blocking(write).await??;
        self.queue.add(missing, texts);
        Ok(())
    }

    /// Asks for what waits. What there is no answer for goes on waiting.
    async fn embed(&mut self) -> Result<(), RoundError> {
        while !self.queue.is_empty() && self.queue.ask().await? {
            if now_unix_nano().saturating_sub(LAG_NANOS) / MINUTE_NANOS
                > self.next_min + TRACE_LAG_MIN
            {
                // Minutes were over meanwhile: what they said is noted before it goes on.
                return Ok(());
            }
        }
        Ok(())
    }
}

/// The minute with which a pass goes on. What could not be read for so long that nobody asks for it is passed over.
fn resumed(next_min: u64, over: u64) -> u64 {
    next_min.max(over.saturating_sub(MAX_CATCH_UP_MIN))
}

/// What was said in the traces that began in a minute: each agent's first and last text of a trace.
async fn said(reader: &Reader, model: &str, minute: u64) -> Result<Vec<Said>, RoundError> {
    let mut of_agents = of_minute(reader, minute).await?;
    for of_agent in of_agents.values_mut() {
        of_agent.retain(|one| one.llm_calls > 0);
    }
    of_agents.retain(|_, of_agent| !of_agent.is_empty());
    let mut whole = WholeTraces::of(of_agents.len());
    let mut found = Vec::new();
    for (agent, of_agent) in in_turn(&of_agents, minute) {
        for summary in of_agent.iter().take(whole.take(of_agent.len())) {
            let Some(trace) = reader.trace(summary.trace_id).await? else { continue };
            found.extend(of_trace(summary.trace_id, agent, &trace.spans, model));
        }
    }
    Ok(found)
}

fn of_trace(trace_id: TraceId, agent: &str, spans: &[Span], model: &str) -> Vec<Said> {
    let calls = spans.iter().filter(|span| span.role() == SpanRole::LlmCall);
    let mut calls: Vec<&Span> = calls.collect();
    calls.sort_by_key(|span| span.start_unix_nano);
    let mut said: Vec<Said> = Vec::new();
    for span in calls {
        let Some(text) = asked(span) else { continue };
        let hash = hash(model, &text);
        let agent = span.attributes.agent().unwrap_or(agent);
        let is_known = |one: &Said| one.context.agent == agent && one.context.text == hash;
        if said.iter().any(is_known) {
            continue;
        }
        let context = SessionContext {
            at_unix_nano: span.start_unix_nano,
            agent: agent.to_owned(),
            session: span.session().unwrap_or_default().to_owned(),
            trace_id,
            text: hash,
        };
        // Beside the first of an agent only its last is kept.
        let own: Vec<usize> =
            (0..said.len()).filter(|at| said[*at].context.agent == agent).collect();
        if let [_, last] = own[..] {
            said[last] = Said { context, text };
        } else {
            said.push(Said { context, text });
        }
    }
    said
}

/// What a model was asked last by the user of a call; `None` where its messages were not recorded.
fn asked(span: &Span) -> Option<String> {
    let messages = span.attributes.get(keys::GEN_AI_INPUT_MESSAGES)?.to_structured_json();
    let (messages, _) = genai::parse_messages(&messages);
    let of_user = messages.iter().rev().filter(|one| one.message.role == Role::User);
    let text = |parts: &[Part]| -> String {
        let texts = parts.iter().filter_map(|part| match part {
            Part::Text(text) => Some(text.as_str()),
            _ => None,
        });
        texts.collect::<Vec<_>>().join("\n").chars().take(MAX_TEXT_CHARS).collect()
    };
    of_user.map(|one| text(&one.message.parts)).find(|text| !text.trim().is_empty())
}

fn hash(model: &str, text: &str) -> TextHash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(model.as_bytes()).update(&[0]).update(text.as_bytes());
    let mut short = TextHash::default();
    short.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    short
}

#[cfg(test)]
mod tests {
    use throughline_trace::SpanId;

    use super::*;

    fn call(at: u64, text: &str) -> Span {
        let mut span = Span::new(TraceId::from_u128(1), SpanId::from_u64(at), None, "chat");
        (span.start_unix_nano, span.end_unix_nano) = (at, at + 1);
        span.attributes.set("gen_ai.operation.name", "chat");
        span.attributes.set("session_id", "s1");
        let messages = serde_json::json!([
            {"role": "system", "parts": [{"type": "text", "content": "be kind"}]},
            {"role": "user", "parts": [{"type": "text", "content": text}]},
            {"role": "assistant", "parts": [{"type": "text", "content": "well"}]},
        ]);
        span.attributes.set(keys::GEN_AI_INPUT_MESSAGES, messages.to_string());
        span
    }

    #[test]
    fn of_a_trace_the_first_and_the_last_question_are_taken() {
        let spans = [call(30, "third"), call(10, "first"), call(20, "second"), call(40, "first")];
        let said = of_trace(TraceId::from_u128(1), "shop", &spans, "m");
        let told: Vec<(&str, u64, &str)> = said
            .iter()
            .map(|one| (one.text.as_str(), one.context.at_unix_nano, one.context.session.as_str()))
            .collect();
        assert_eq!(told, [("first", 10, "s1"), ("third", 30, "s1")]);
        assert_ne!(hash("m", "first"), hash("n", "first"), "of another model it is another one");
    }

    #[test]
    fn what_could_not_be_read_for_long_is_passed_over() {
        assert_eq!(resumed(1_000, 1_002), 1_000);
        assert_eq!(resumed(1_000, 1_000 + MAX_CATCH_UP_MIN), 1_000);
        assert_eq!(resumed(1_000, 9_000), 9_000 - MAX_CATCH_UP_MIN);
        assert_eq!(resumed(1_000, 7), 1_000);
    }
}
