//! A Slack incoming webhook: text, and blocks for those who show them.

use http::header::CONTENT_TYPE;
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};

use super::Message;
use crate::performed::told;

/// Characters of a section that Slack takes at most.
const MAX_SECTION_CHARS: usize = 2_900;

pub(super) fn request(client: &Client, url: &str, message: &Message<'_>) -> RequestBuilder {
    let body = body(message).to_string();
    client.post(url).header(CONTENT_TYPE, "application/json").body(body)
}

fn body(message: &Message<'_>) -> Value {
    let word = if message.is_resolved() { "resolved" } else { "firing" };
    let severity = message.finding.map_or("", |finding| finding.severity.as_str());
    let title = escaped(&format!("[{word}] {} {severity}", message.title()));
    let summary: String = escaped(message.summary()).chars().take(MAX_SECTION_CHARS).collect();
    let subject = escaped(&message.action.subject.to_string());
    let reason = escaped(&message.action.reason);
    let mut about = format!("{subject} · {reason} · <{}|look>", message.link);
    if let Some(finding) = message.finding.filter(|finding| !finding.runbook.is_empty()) {
        // A `|` would end the address.
        let runbook = escaped(&finding.runbook).replace('|', "%7C");
        about.push_str(&format!(" · <{runbook}|runbook>"));
    }
    if message.finding.is_none() {
        about.push_str(&format!(" · {}", escaped(&told(&message.action.operation))));
    }
    json!({
        "text": format!("{}: {summary}", title.trim()),
        "blocks": [
            { "type": "section", "text": { "type": "mrkdwn", "text": format!("*{}*\n{summary}", title.trim()) } },
            { "type": "context", "elements": [{ "type": "mrkdwn", "text": about }] },
        ],
    })
}

/// The three characters that Slack's markup needs escaped.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use throughline_trace::{Finding, FindingState};

    use super::*;
    use crate::notify::tests::{action, finding, message};

    #[test]
    fn the_message_says_what_and_where_and_no_markup_of_others() {
        let finding = finding(FindingState::Resolved);
        let action = action(&finding);
        let body = body(&message(&action, &finding));
        insta::assert_snapshot!(body["text"].as_str().expect("text"), @"[resolved] latency critical: p95 is 2.8 s, 7 times its baseline &lt;b&gt;");
        insta::assert_snapshot!(body["blocks"][1]["elements"][0]["text"].as_str().expect("text"), @"agent=fraud,model.id=gpt-4o · somebody should look · <https://tl.example/traces/4bf92f3577b34da6a3ce929d0e0e4736|look> · <https://runbooks.example/latency|runbook>");
    }

    #[test]
    fn a_runbook_is_an_address_and_no_markup() {
        let runbook = "https://r.example/?a=1&b=2|pay> <!channel".to_owned();
        let finding = Finding { runbook, ..finding(FindingState::Firing) };
        let body = body(&message(&action(&finding), &finding));
        let about = body["blocks"][1]["elements"][0]["text"].as_str().expect("text").to_owned();
        let link = about.rsplit(" · ").next().unwrap_or_default();
        insta::assert_snapshot!(link, @"<https://r.example/?a=1&amp;b=2%7Cpay&gt; &lt;!channel|runbook>");
    }
}
