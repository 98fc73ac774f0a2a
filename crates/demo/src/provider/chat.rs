//! A conversation's next turn, plain and streaming, whichever API it is asked through.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::BytesRejection;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{Stream, stream};
use http::header;

use super::catalog::{self, DEFAULT_TOKENS_PER_SECOND, Kind, Model};
use super::door::Door;
use super::error::ApiError;
use super::fault::{self, Fault, Occasion};
use super::reply::{Answer, Frame, Making, Tempo, letters};
use super::request::ChatRequest;
use super::{Provider, generic, json_body, with_request_id};
use crate::pace::Pace;
use crate::seed::Seed;
use crate::stories::{self, Scenario};

/// How long a failing provider takes to say so, at human pace.
const FAILURE_WAIT: Duration = Duration::from_millis(650);

/// How long a rate limiter takes to say no, at human pace.
const REFUSAL_WAIT: Duration = Duration::from_millis(40);

/// How long a request that hangs is kept open, whatever the pace: no caller waits longer.
const HANG_LIMIT: Duration = Duration::from_secs(600);

/// Share of the frames that a cut stream still sends.
const CUT_SHARE: f64 = 0.4;

/// Answers a request for the next turn.
pub(super) async fn next_turn(
    provider: Arc<Provider>,
    door: Door,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let request = match json_body(body).and_then(|body| door.read(body)) {
        Ok(request) => request,
        Err(wrong) => return door.refuse(wrong),
    };
    let scenario = stories::recognise(&request);
    let (seed, fault) = provider.number(&request, scenario);
    let request_id = format!("req_{}", letters(&mut seed.named("request id").dice(), 32));
    let asked = Asked { door, request: &request, scenario, seed, request_id: &request_id };
    let response = provider.answer(asked, fault).await;
    with_request_id(response.unwrap_or_else(|wrong| door.refuse(wrong)), &request_id)
}

/// A request with its place among all.
struct Asked<'a> {
    door: Door,
    request: &'a ChatRequest,
    scenario: Option<Scenario>,
    seed: Seed,
    request_id: &'a str,
}

impl Provider {
    /// The request's place among all: its own seed, and what befalls it.
    fn number(&self, request: &ChatRequest, scenario: Option<Scenario>) -> (Seed, Option<Fault>) {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        let seed = self.options.seed;
        let Some(Scenario { agent, run }) = scenario else {
            return (seed.named("others").nth(tally.of_others()), None);
        };
        let made = tally.of_run(agent, run, request.is_stream);
        let occasion = Occasion {
            agent,
            run,
            request: made.requests,
            streamed: made.streamed,
            is_main_model: request.model == stories::main_model(agent),
            is_stream: request.is_stream,
        };
        (seed.named(agent).nth(run).nth(made.requests), fault::scheduled(seed, occasion))
    }

    async fn answer(
        &self,
        asked: Asked<'_>,
        scheduled: Option<Fault>,
    ) -> Result<Response, ApiError> {
        let Asked { door, request, scenario, seed, request_id } = asked;
        let model =
            Model::find(&request.model).ok_or_else(|| ApiError::no_such_model(&request.model))?;
        let Kind::Chat { tokens_per_second, first_token_ms, thinks, cue } = model.kind else {
            let message = "This is not a chat model and thus not supported in the v1/chat/completions endpoint.";
            return Err(ApiError::invalid("model", message));
        };
        let per_second = self.options.tokens_per_second.unwrap_or(tokens_per_second);
        let per_second =
            if per_second.is_finite() { per_second } else { DEFAULT_TOKENS_PER_SECOND };
        let fault = scheduled.or(cue);
        self.fail_at_once(request, fault, request_id).await?;
        let reply = scenario
            .and_then(|scenario| stories::perform(self.options.seed, scenario, request))
            .or_else(|| stories::perform_steady(seed, request))
            .unwrap_or_else(|| generic::reply(request));
        let making = Making {
            seed,
            created_unix_secs: unix_secs(),
            model: model.snapshot,
            thinks,
            is_filtered: fault == Some(Fault::ContentFilter),
        };
        let answer = Answer::new(request, reply, making);
        if !request.is_stream {
            self.options.pace.wait(answer.duration(first_token_ms, per_second)).await;
            return Ok(Json(door.whole(&answer)).into_response());
        }
        let tempo = Tempo {
            opening: catalog::first_token_delay(first_token_ms, answer.usage.reasoning, per_second),
            token: Duration::from_secs_f64(1.0 / per_second.max(1.0)),
        };
        let frames = door.frames(&answer, request.include_usage, tempo);
        let ending = match fault {
            Some(Fault::CutStream { abrupt }) => Ending::Cut { abrupt },
            _ => Ending::Done { mark: door.end_mark() },
        };
        let events = events(frames, ending, self.options.pace.clone());
        let headers = [
            (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
            (header::CACHE_CONTROL, "no-cache"),
        ];
        Ok((headers, Body::from_stream(events)).into_response())
    }

    /// Plays the faults that come instead of an answer.
    async fn fail_at_once(
        &self,
        request: &ChatRequest,
        fault: Option<Fault>,
        request_id: &str,
    ) -> Result<(), ApiError> {
        let pace = &self.options.pace;
        match fault {
            Some(Fault::RateLimited { retry_after_secs }) => {
                pace.wait(REFUSAL_WAIT).await;
                Err(ApiError::rate_limited(&request.model, retry_after_secs))
            }
            Some(Fault::ServerError) => {
                pace.wait(FAILURE_WAIT).await;
                Err(ApiError::server(request_id))
            }
            Some(Fault::Overloaded) => {
                pace.wait(FAILURE_WAIT).await;
                Err(ApiError::overloaded(&request.model))
            }
            Some(Fault::Hangs) => {
                tokio::time::sleep(HANG_LIMIT).await;
                Err(ApiError::server(request_id))
            }
            Some(Fault::CutStream { .. }) if !request.is_stream => {
                Err(ApiError::server(request_id))
            }
            Some(Fault::CutStream { .. } | Fault::ContentFilter) | None => Ok(()),
        }
    }
}

/// How a stream ends.
#[derive(Debug, Clone, Copy)]
enum Ending {
    /// As it should; some APIs have a mark after the last event.
    Done { mark: Option<&'static str> },
    /// In the middle.
    Cut {
        /// With a broken connection.
        abrupt: bool,
    },
}

fn events(
    mut frames: Vec<Frame>,
    ending: Ending,
    pace: Pace,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    if let Ending::Cut { .. } = ending {
        frames.truncate(((frames.len() as f64 * CUT_SHARE) as usize).max(1));
    }
    let ending = match ending {
        Ending::Done { mark } => mark.map(|mark| Ok(Bytes::from_static(mark.as_bytes()))),
        Ending::Cut { abrupt: false } => None,
        Ending::Cut { abrupt: true } => {
            Some(Err(io::Error::new(io::ErrorKind::ConnectionReset, "the provider went away")))
        }
    };
    stream::unfold(
        (VecDeque::from(frames), ending, pace),
        async |(mut frames, mut ending, pace)| {
            let item = match frames.pop_front() {
                Some(frame) => {
                    pace.wait(frame.wait).await;
                    Ok(frame.bytes())
                }
                None => ending.take()?,
            };
            Some((item, (frames, ending, pace)))
        },
    )
}

fn unix_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
