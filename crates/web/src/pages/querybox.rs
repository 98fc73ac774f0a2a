//! The box for queries of traces: the language in short, and what is wrong with a query.

use maud::{Markup, html};
use throughline_store::SearchError;

use crate::icons::icon;
use crate::params::Params;

/// What the help shows: an example, and what it means.
const EXAMPLES: [(&str, &str); 12] = [
    ("refund", "a name, a message or an error holds the word"),
    ("\"card declined\"", "the same for a phrase"),
    ("agent:fraud model:gpt-4o*", "both hold; * stands for any end"),
    ("error:true OR fallback:degraded", "one of them holds"),
    ("-tool:web_search", "does not hold"),
    ("agent:(fraud OR triage)", "one of several values"),
    ("tokens>5k cost>=0.05", "also spans, errors, retries, llm_calls, tool_calls"),
    ("duration:2s..1m", "from 2 seconds to a minute"),
    ("since:24h start<2026-01-31", "when it started"),
    ("user.id:42", "some span has the attribute"),
    ("http.response.status_code>=500", "attributes compare as numbers"),
    ("span:\"execute_tool*\"", "some span has the name"),
];

/// The query box with its help; both work without a script.
pub(crate) fn draw(params: &Params) -> Markup {
    html! {
        div.querybox {
            label.find {
                (icon("search"))
                span.vh { "Query" }
                input.field.mono type="search" name="q" data-find autocomplete="off" autocapitalize="off" spellcheck="false"
                    placeholder="Find: error:true tokens>5k \"free text\"" value=[params.text("q")]
                    aria-describedby="query-mistake";
                kbd { "/" }
            }
            details.queryhelp {
                summary.btn aria-label="How to write a query" title="How to write a query" { "?" }
                div {
                    p { "Conditions one after the other must all hold. " code { "OR" } ", " code { "-" } " and parentheses join and turn them." }
                    dl {
                        @for (example, meaning) in EXAMPLES {
                            dt { a href={ "/traces" (crate::params::query_string([("q", example)])) } { code { (example) } } }
                            dd { (meaning) }
                        }
                    }
                    p.muted { "Fields: agent, session, user, model, service, tool, name, outcome, status, error, error.type, fallback, span, trace; "
                        "tokens, input_tokens, output_tokens, cost, duration, spans, errors, llm_calls, tool_calls, retries, decisions, logs; "
                        "start, since, until. Any other name is an attribute of a span." }
                }
            }
        }
    }
}

/// What is wrong with a query, below the box.
pub(crate) fn mistake(mistake: &SearchError, query: &str) -> Markup {
    html! {
        div.querymistake #query-mistake role="alert" {
            pre { (mistake.pointed(query)) }
            p { "Expected " (mistake.expected) ", got " (mistake.got) "." }
            @if let Some(hint) = &mistake.hint { p.muted { "Hint: " (hint) "." } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_of_the_help_can_be_read() {
        for (example, _) in EXAMPLES {
            throughline_store::SearchQuery::parse(example, 1).unwrap();
        }
    }

    #[test]
    fn a_mistake_shows_where_it_is() {
        let query = "agent:a modle:gpt <b>";
        let error = throughline_store::SearchQuery::parse(query, 1).unwrap_err();
        insta::assert_snapshot!(mistake(&error, query).into_string());
    }
}
