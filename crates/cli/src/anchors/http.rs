//! An HTTP endpoint: a service that takes checkpoints in (POST), or an object store (PUT).

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::Method;
use throughline_act::{cause, http_client};
use throughline_store::Checkpoint;

use crate::config::HttpMethod;

/// Longest wait for an answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// What an address may have for the chain number.
const NUMBER: &str = "{number}";

/// Sends checkpoints one by one, oldest first; the first that is not taken ends it. Sending one
/// twice must do no harm: that is what a lost answer leads to.
pub(super) async fn write(
    url: &str,
    method: HttpMethod,
    headers: &BTreeMap<String, String>,
    checkpoints: &[Checkpoint],
) -> Result<(), String> {
    let client = http_client(url.starts_with("https:"), REQUEST_TIMEOUT)?;
    let method = match method {
        HttpMethod::Post => Method::POST,
        HttpMethod::Put => Method::PUT,
    };
    // One object that is written over and over needs the newest only.
    let is_one_object = method == Method::PUT && !url.contains(NUMBER);
    let first = if is_one_object { checkpoints.len().saturating_sub(1) } else { 0 };
    for checkpoint in &checkpoints[first..] {
        let url = url.replace(NUMBER, &checkpoint.number.to_string());
        let mut request = client
            .request(method.clone(), &url)
            .header("content-type", "application/json")
            .body(checkpoint.to_line());
        for (name, value) in headers {
            request = request.header(name, value);
        }
        // The query of a presigned address is a secret.
        let shown = url.split('?').next().unwrap_or_default();
        let answer = request.send().await.map_err(|error| format!("{shown}: {}", cause(error)))?;
        if !answer.status().is_success() {
            return Err(format!("{shown} answered {}", answer.status()));
        }
    }
    Ok(())
}
