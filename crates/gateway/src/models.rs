//! `GET /v1/models`: what the routes name, and what the providers tell of themselves.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderMap, Method};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::api::Api;
use crate::client::{headers_for, read, send};
use crate::provider::Provider;
use crate::state::{Inner, Serving};

/// What a provider gets to tell its models.
const LIST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a list is believed.
const LIST_TTL: Duration = Duration::from_secs(60);
/// Largest list that is read, bytes.
const MAX_LIST_BYTES: usize = 4 << 20;

/// The models of all providers, as they told last.
#[derive(Debug, Default)]
pub(crate) struct ModelLists(Mutex<Option<Known>>);

#[derive(Debug, Clone)]
struct Known {
    at: Instant,
    /// Of which configuration.
    of: Arc<Serving>,
    models: Arc<Vec<Value>>,
}

/// All models, as OpenAI's form tells them. A provider that does not answer is left out.
pub(crate) async fn all(inner: &Inner) -> Arc<Vec<Value>> {
    let serving = inner.serving();
    let known = inner.models.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some(known) = known
        && known.at.elapsed() < LIST_TTL
        && Arc::ptr_eq(&known.of, &serving)
    {
        return known.models;
    }
    let plan = &serving.plan;
    let mut models: Vec<Value> = plan
        .routed_models()
        .map(|id| json!({"id": id, "object": "model", "created": 0, "owned_by": "throughline"}))
        .collect();
    let lists = plan.providers.iter().map(|provider| list_of(&serving, provider));
    for list in join_all(lists).await {
        models.extend(list);
    }
    let mut seen = HashSet::new();
    models.retain(|model| model["id"].as_str().is_some_and(|id| seen.insert(id.to_owned())));
    let models = Arc::new(models);
    let known = Known { at: Instant::now(), of: serving, models: Arc::clone(&models) };
    *inner.models.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
    models
}

async fn list_of(serving: &Serving, provider: &Provider) -> Vec<Value> {
    let Some(http) = serving.clients.get(Duration::ZERO, &provider.way) else { return Vec::new() };
    let Ok(uri) = provider.models_address() else { return Vec::new() };
    let headers = headers_for(provider, &HeaderMap::new(), false);
    let listed = timeout(LIST_TIMEOUT, async {
        let who = format!("the list of {}", provider.name);
        let answer = send(http, &who, Api::Chat, Method::GET, uri, headers, Bytes::new()).await?;
        let status = answer.status();
        read(answer.into_body(), MAX_LIST_BYTES, &who, status).await
    });
    let body = match listed.await {
        Ok(Ok(body)) => body,
        Ok(Err(fault)) => {
            tracing::debug!(provider = provider.name, error = fault.message, "no list of models");
            return Vec::new();
        }
        Err(_) => return Vec::new(),
    };
    let json: Value = serde_json::from_slice(&body).unwrap_or_default();
    let Some(models) = json.get("data").and_then(Value::as_array) else { return Vec::new() };
    models.iter().filter_map(|model| as_openai(model, provider)).collect()
}

/// A model as OpenAI's form tells it, whatever form it came in.
fn as_openai(model: &Value, provider: &Provider) -> Option<Value> {
    let mut model = model.clone();
    let fields = model.as_object_mut()?;
    fields.get("id")?.as_str()?;
    fields.entry("object").or_insert(json!("model"));
    fields.entry("created").or_insert(json!(0));
    fields.entry("owned_by").or_insert(json!(provider.name));
    Some(model)
}
