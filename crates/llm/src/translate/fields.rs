//! What is left of a request when everything that the other form can say has been said in its words:
//! refused where leaving it out would make another answer of it, else left out and named.

use serde_json::Value;

use super::Work;
use crate::openai::WireError;

/// A field that cannot be left out where `matters` says so.
struct Needed {
    name: &'static str,
    matters: fn(&Value) -> bool,
    advice: &'static str,
}

/// In any way at all.
const IS_SAID: fn(&Value) -> bool = |value| !says_nothing(value);

/// Fields of OpenAI's forms that Anthropic's cannot do without.
const OF_OPENAI: [Needed; 12] = [
    Needed {
        name: "n",
        matters: |value| value.as_u64() != Some(1),
        advice: "it gives one answer to a request; ask once for each, or a model of OpenAI's form",
    },
    Needed {
        name: "logprobs",
        matters: IS_SAID,
        advice: "it tells no probabilities; leave the field out, or ask a model of OpenAI's form",
    },
    Needed {
        name: "top_logprobs",
        matters: IS_SAID,
        advice: "it tells no probabilities; leave the field out, or ask a model of OpenAI's form",
    },
    Needed {
        name: "include",
        matters: |value| contains(value, |one| one == "message.output_text.logprobs"),
        advice: "it tells no probabilities; leave them out, or ask a model of OpenAI's form",
    },
    Needed {
        name: "modalities",
        matters: |value| contains(value, |one| one != "text"),
        advice: "it answers in text only; ask for `text`",
    },
    Needed { name: "audio", matters: IS_SAID, advice: "it answers in text only; leave it out" },
    Needed {
        name: "functions",
        matters: IS_SAID,
        advice: "say `tools` instead, which replaced it",
    },
    Needed {
        name: "web_search_options",
        matters: IS_SAID,
        advice: "offer the model a tool that searches",
    },
    Needed {
        name: "previous_response_id",
        matters: IS_SAID,
        advice: "nothing is remembered there; send the whole conversation in `input`",
    },
    Needed {
        name: "conversation",
        matters: IS_SAID,
        advice: "nothing is remembered there; send the whole conversation in `input`",
    },
    Needed {
        name: "prompt",
        matters: IS_SAID,
        advice: "prompts that OpenAI keeps are not there; send the text of the prompt",
    },
    Needed {
        name: "background",
        matters: IS_SAID,
        advice: "it answers at once; leave the field out, and ask for a stream if it takes long",
    },
];

/// Fields of Anthropic's form that OpenAI's cannot do without.
const OF_ANTHROPIC: [Needed; 1] = [Needed {
    name: "inference_geo",
    matters: |value| IS_SAID(value) && value != "global",
    advice: "it lets nobody choose where a model runs; route to a provider that runs there",
}];

/// Settings that are what holds when nothing is said: nobody misses them.
const USUAL: [(&str, &str); 12] = [
    ("n", "1"),
    ("modalities", r#"["text"]"#),
    ("parallel_tool_calls", "true"),
    ("include", r#"["reasoning.encrypted_content"]"#),
    ("service_tier", r#""auto""#),
    ("service_tier", r#""default""#),
    ("truncation", r#""disabled""#),
    ("tool_choice", r#""auto""#),
    ("function_call", r#""auto""#),
    ("function_call", r#""none""#),
    ("inference_geo", r#""global""#),
    ("text", r#"{"verbosity":"medium"}"#),
];

/// Refuses or leaves out what is left.
pub(super) fn settle(work: &mut Work<'_>) -> Result<(), WireError> {
    let needed: &[Needed] = if work.is_to_anthropic() { &OF_OPENAI } else { &OF_ANTHROPIC };
    for (name, value) in std::mem::take(&mut work.said) {
        let of_this = needed.iter().find(|one| one.name == name);
        if says_nothing(&value) {
            continue;
        }
        if let Some(one) = of_this.filter(|one| (one.matters)(&value)) {
            return Err(work.refuse(name, one.advice));
        }
        let text = value.to_string();
        if !USUAL.contains(&(name.as_str(), text.as_str())) && name != "stream_options" {
            work.leave_out(name);
        }
    }
    Ok(())
}

/// Whether a value is as good as none.
fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(is_true) => !is_true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(all) => all.is_empty(),
        Value::Object(all) => all.is_empty(),
    }
}

fn contains(list: &Value, is_it: impl Fn(&Value) -> bool) -> bool {
    list.as_array().is_some_and(|all| all.iter().any(is_it))
}
