//! `throughline import`: sends files of OTLP JSON to a running server, by the door that agents use:
//! durable, de-duplicated, with its limits and its redaction.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use reqwest::{Client, StatusCode, header};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;
use throughline_act::http_client;

use crate::args::ImportArgs;
use crate::commands::write_json;
use crate::failure::{Exit, Failure, Outcome};
use crate::show;

/// How long a line is tried again while the server asks to come back later.
const MAX_WAIT: Duration = Duration::from_secs(600);

/// How long the server may take over one line.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// Wait when the server does not say how long.
const DEFAULT_WAIT: Duration = Duration::from_secs(1);

/// What a line is.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    resource_spans: Option<IgnoredAny>,
    resource_logs: Option<IgnoredAny>,
    resource_metrics: Option<IgnoredAny>,
}

/// What the server said of a request.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Answer {
    partial_success: Option<Partial>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Partial {
    rejected_spans: Count,
    rejected_log_records: Count,
    rejected_data_points: Count,
    error_message: String,
}

/// A 64-bit number, which OTLP/JSON writes as text.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Count {
    Number(u64),
    Text(String),
}

impl Default for Count {
    fn default() -> Self {
        Self::Number(0)
    }
}

impl Count {
    /// The number; what is there instead, if it is none.
    fn get(&self) -> Result<u64, &str> {
        match self {
            Self::Number(number) => Ok(*number),
            Self::Text(text) => text.parse().map_err(|_| text.as_str()),
        }
    }
}

/// How many items the server rejected, and why; without a body it took all of them.
fn read_answer(text: &str) -> Result<(u64, String), String> {
    let answer = match text.trim() {
        "" => Answer::default(),
        text => serde_json::from_str(text).map_err(|error| error.to_string())?,
    };
    let Partial { rejected_spans, rejected_log_records, rejected_data_points, error_message } =
        answer.partial_success.unwrap_or_default();
    let mut rejected = 0_u64;
    for count in [rejected_spans, rejected_log_records, rejected_data_points] {
        let count = count.get().map_err(|text| format!("expected a number, got {text:?}"))?;
        rejected = rejected.saturating_add(count);
    }
    Ok((rejected, error_message))
}

/// Imports the files, one after the other.
pub(crate) async fn run(args: &ImportArgs) -> Outcome {
    let client = http_client(args.endpoint.starts_with("https:"), REQUEST_TIMEOUT)
        .map_err(|error| Failure::new(Exit::Failure, error))?;
    let (mut requests, mut rejected, mut too_large) = (0_u64, 0_u64, 0_u64);
    for path in &args.files {
        let file = File::open(path).map_err(|error| {
            Failure::not_found(format!("cannot read {}: {error}", path.display()))
        })?;
        for (at, line) in BufReader::new(file).lines().enumerate() {
            let line = line?;
            if line.trim().is_empty() {
                continue;
            }
            let place = Place { path, line: at + 1 };
            match send(&client, args, line, &place).await? {
                Sent::Taken { rejected: of_line } => {
                    rejected += of_line;
                    requests += 1;
                }
                Sent::TooLarge => too_large += 1,
            }
        }
    }
    let mut out = anstream::stdout().lock();
    if args.json {
        write_json(
            &mut out,
            &json!({ "requests": requests, "rejected": rejected, "too_large": too_large }),
        )?;
    } else {
        let requests = show::counted(requests, "request is", "requests are");
        writeln!(out, "{requests} on the server's disk, {} rejected", show::count(rejected))?;
    }
    outcome(rejected, too_large)
}

/// What the command ends with.
fn outcome(rejected: u64, too_large: u64) -> Outcome {
    if too_large > 0 {
        let lines = show::counted(too_large, "line is", "lines are");
        let rejected = match rejected {
            0 => String::new(),
            _ => format!(", and it rejected {}", show::counted(rejected, "item", "items")),
        };
        let message = format!("{lines} larger than the server takes, and not there{rejected}");
        return Err(Failure::new(Exit::Failure, message).hint(
            "the log names them, and all others were sent; raise `limits.max_request_bytes` of the server, or export them anew, in shorter lines",
        ));
    }
    match rejected {
        0 => Ok(()),
        _ => Err(Failure::new(
            Exit::Failure,
            format!("the server rejected {}", show::counted(rejected, "item", "items")),
        )
        .hint("the log says why; everything else was taken")),
    }
}

/// What became of a line.
enum Sent {
    /// It is on the server's disk, but for so many of its items.
    Taken { rejected: u64 },
    /// The server will never take it.
    TooLarge,
}

struct Place<'a> {
    path: &'a Path,
    line: usize,
}

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.line)
    }
}

/// Sends one request until it is taken, or refused for its size.
async fn send(
    client: &Client,
    args: &ImportArgs,
    line: String,
    place: &Place<'_>,
) -> Outcome<Sent> {
    let wrong = |got: String| {
        Failure::usage(format!(
            "{place}: expected an OTLP JSON export request with resourceSpans, resourceLogs or resourceMetrics, got {got}"
        ))
        .hint("everything before this line was taken; repeating the import does no harm to spans and decisions")
    };
    let head: Head = serde_json::from_str(&line).map_err(|error| wrong(error.to_string()))?;
    let signal = match head {
        Head { resource_spans: Some(_), .. } => "traces",
        Head { resource_logs: Some(_), .. } => "logs",
        Head { resource_metrics: Some(_), .. } => "metrics",
        _ => return Err(wrong("none of them".to_owned())),
    };
    let url = format!("{}/v1/{signal}", args.endpoint.trim_end_matches('/'));
    let begin = Instant::now();
    loop {
        let mut request =
            client.post(&url).header(header::CONTENT_TYPE, "application/json").body(line.clone());
        if let Some(key) = &args.key {
            request = request.bearer_auth(key);
        }
        let answer = request.send().await.map_err(|error| {
            Failure::new(Exit::Failure, format!("{place}: {url}: {error}"))
                .hint("start `throughline serve`, or name another server with --endpoint")
        })?;
        let status = answer.status();
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS)
            && begin.elapsed() < MAX_WAIT
        {
            let told = answer.headers().get(header::RETRY_AFTER);
            let seconds = told.and_then(|value| value.to_str().ok()?.parse().ok());
            let wait = seconds.map_or(DEFAULT_WAIT, Duration::from_secs);
            tokio::time::sleep(wait.min(MAX_WAIT.saturating_sub(begin.elapsed()))).await;
            continue;
        }
        let text = answer.text().await;
        if status == StatusCode::PAYLOAD_TOO_LARGE {
            let told = show::one_line(&text.unwrap_or_default()).to_string();
            tracing::warn!(%place, bytes = line.len(), told, "a line is too large for the server");
            return Ok(Sent::TooLarge);
        }
        if !status.is_success() {
            let text = text.unwrap_or_default();
            return Err(Failure::new(
                Exit::Failure,
                format!("{place}: {url} answered {status}: {}", show::one_line(&text)),
            ));
        }
        let (rejected, error_message) = text
            .map_err(|error| error.to_string())
            .and_then(|text| read_answer(&text))
            .map_err(|error| {
                Failure::new(
                    Exit::Failure,
                    format!("{place}: {url} answered {status}, and not what was taken: {error}"),
                )
                .hint("is the endpoint that of a Throughline server?")
            })?;
        if rejected > 0 {
            tracing::warn!(%place, rejected, error_message, "items were rejected");
        }
        return Ok(Sent::Taken { rejected });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_cannot_be_read_is_not_taken_for_success() {
        let told = |text: &str| read_answer(text).map(|(rejected, _)| rejected);
        assert_eq!(
            [told(""), told("{}"), told(r#"{"partialSuccess":null}"#)],
            [Ok(0), Ok(0), Ok(0)]
        );
        let partial = r#"{"partialSuccess":{"rejectedSpans":"2","rejectedLogRecords":3,"errorMessage":"no"}}"#;
        assert_eq!(read_answer(partial), Ok((5, "no".to_owned())));
        for odd in [
            "<html>Welcome</html>",
            r#"{"partialSuccess":"#,
            r#"{"partialSuccess":{"rejectedSpans":"some"}}"#,
            r#"{"partialSuccess":{"rejectedSpans":-1}}"#,
        ] {
            assert!(read_answer(odd).is_err(), "{odd}");
        }
    }
}
