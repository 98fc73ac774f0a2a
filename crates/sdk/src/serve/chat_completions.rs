//! Agents for clients of OpenAI's chat completions: the model is the agent's name.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use throughline_llm::{ChatResponse, Chunk, DONE, Delta, FinishReason, Role, event_bytes, openai};
use uuid::Uuid;

use super::Service;
use super::answer::{Body, Refusal, json, on_trace};
use super::events;
use super::routes::Admitted;
use crate::agent::{AgentError, Inbound, RunEvent, Task};

pub(super) async fn answer(
    service: &Service,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let inbound = Inbound::of_http(&request, "/v1/chat/completions");
    let body = service.body(request).await?;
    let asked = openai::parse_request(&body).map_err(|error| Refusal::wrong(error.to_string()))?;
    if asked.messages.is_empty() {
        return Err(Refusal::wrong("expected at least one message, got none"));
    }
    let inbound = if asked.stream { inbound.with_events() } else { inbound };
    let task = Task::conversation(asked.messages).answering(inbound);
    let admitted = service.admit(&asked.model, task, None)?;
    let named = Named {
        id: format!("chatcmpl-{}", Uuid::new_v4().simple()),
        model: asked.model,
        created: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
    };
    if asked.stream {
        return Ok(streamed(named, admitted, asked.is_stream_usage_wanted).await);
    }
    let trace = admitted.trace;
    let response = match admitted.agent.run(admitted.task).await {
        Ok(run) => {
            let response = ChatResponse {
                id: named.id,
                created_unix_secs: named.created,
                usage: Some(run.usage),
                ..ChatResponse::of_text(named.model, run.answer)
            };
            json(StatusCode::OK, &openai::response_to_json(&response))
        }
        Err(error) => Refusal::of(&error).response(),
    };
    Ok(on_trace(response, trace.get().copied()))
}

/// What every chunk of an answer says.
struct Named {
    id: String,
    model: String,
    created: u64,
}

impl Named {
    fn chunk(&self, delta: Delta) -> Chunk {
        Chunk {
            id: self.id.clone(),
            model: self.model.clone(),
            created_unix_secs: self.created,
            deltas: vec![delta],
            ..Chunk::default()
        }
    }

    /// What a client of OpenAI hears of an event.
    fn told(&self, item: &Result<RunEvent, AgentError>, with_usage: bool) -> String {
        match item {
            Ok(RunEvent::Text(text)) => {
                let delta = Delta {
                    role: Some(Role::Assistant),
                    text: Some(text.clone()),
                    ..Delta::default()
                };
                event_bytes(&openai::chunk_to_json(&self.chunk(delta)).to_string())
            }
            Ok(RunEvent::Done(run)) => {
                let stop = Delta { finish_reason: Some(FinishReason::Stop), ..Delta::default() };
                let mut text = event_bytes(&openai::chunk_to_json(&self.chunk(stop)).to_string());
                if with_usage {
                    let mut usage = self.chunk(Delta::default());
                    usage.deltas.clear();
                    usage.usage = Some(run.usage);
                    text.push_str(&event_bytes(&openai::chunk_to_json(&usage).to_string()));
                }
                text.push_str(&event_bytes(DONE));
                text
            }
            Ok(_) => String::new(),
            // Without `[DONE]`: the answer broke off.
            Err(error) => {
                let body = Refusal::of(error).body();
                event_bytes(&serde_json::to_string(&body).unwrap_or_default())
            }
        }
    }
}

async fn streamed(named: Named, admitted: Admitted, with_usage: bool) -> Response<Body> {
    let mut run = admitted.agent.stream(admitted.task);
    let first = run.next().await;
    let (trace, place) = (admitted.trace.get().copied(), admitted.place);
    let all = stream::iter(first).chain(run).filter_map(move |item| {
        let _held = &place;
        let text = named.told(&item, with_usage);
        std::future::ready((!text.is_empty()).then(|| Bytes::from(text)))
    });
    on_trace(events::response(all), trace)
}
