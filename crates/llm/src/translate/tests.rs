//! Requests of one form on their way to a provider of another.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::translate;
use crate::WireForm;
use crate::samples::arbitrary_json;

/// What a body becomes, and the names of what is left out; or why it is refused.
fn sent(from: WireForm, to: WireForm, body: &Value) -> Result<(Value, Vec<String>), String> {
    let mut request = from.parse_request(body.to_string().as_bytes()).expect("a request");
    let left_out = translate(&mut request, from, to).map_err(|error| error.to_string())?;
    Ok((to.request_to_json(&request), left_out))
}

fn with(base: Value, more: &Value) -> Value {
    let mut all = base;
    for (key, value) in more.as_object().expect("fields") {
        all[key] = value.clone();
    }
    all
}

fn chat(more: &Value) -> Value {
    with(
        json!({"model": "claude-sonnet-4-5", "messages": [{"role": "user", "content": "hi"}]}),
        more,
    )
}

fn responses(more: &Value) -> Value {
    with(json!({"model": "claude-sonnet-4-5", "input": "hi"}), more)
}

fn messages(more: &Value) -> Value {
    let base = json!({"model": "gpt-5", "max_tokens": 9000,
        "messages": [{"role": "user", "content": "hi"}]});
    with(base, more)
}

/// What a request of OpenAI's chat completions says beyond its messages, as Anthropic gets it.
fn from_chat(more: &Value) -> Result<(Value, Vec<String>), String> {
    let (mut body, left_out) = sent(WireForm::ChatCompletions, WireForm::Messages, &chat(more))?;
    for usual in ["model", "messages"] {
        body.as_object_mut().expect("a body").remove(usual);
    }
    Ok((body, left_out))
}

fn from_responses(more: &Value) -> Result<(Value, Vec<String>), String> {
    sent(WireForm::Responses, WireForm::Messages, &responses(more))
}

fn from_messages(more: &Value) -> Result<(Value, Vec<String>), String> {
    sent(WireForm::Messages, WireForm::ChatCompletions, &messages(more))
}

fn tools() -> Value {
    json!([{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}},
        {"type": "function", "function": {"name": "buy", "parameters": {"type": "object"}}}])
}

/// Every field that OpenAI documents: none of them reaches Anthropic in OpenAI's words.
#[test]
fn r3_4_nothing_of_openais_own_reaches_anthropic() {
    let (body, left_out) = from_chat(&json!({
        "frequency_penalty": 0.5, "presence_penalty": 0, "logit_bias": {"1": 2}, "logprobs": false,
        "top_logprobs": null, "n": 1, "seed": 7, "store": true, "metadata": {"a": "b"},
        "parallel_tool_calls": true, "prediction": {"type": "content", "content": "x"},
        "service_tier": "auto", "verbosity": "low", "prompt_cache_key": "k", "modalities": ["text"],
        "user": "u-1", "stop": "END", "max_completion_tokens": 77, "temperature": 1.5, "top_k": 5,
        "stream": true, "stream_options": {"include_usage": true}, "strange": {"x": 1},
        "response_format": {"type": "json_object"},
    }))
    .unwrap();
    let expected = json!({"max_tokens": 77, "stop_sequences": ["END"], "temperature": 1.0, "top_k": 5,
        "metadata": {"user_id": "u-1"}, "stream": true});
    assert_eq!(body, expected);
    insta::assert_snapshot!(left_out.join(" "), @"seed response_format frequency_penalty logit_bias metadata prediction prompt_cache_key store strange verbosity");
}

#[test]
fn r3_4_nothing_of_anthropics_own_reaches_openai() {
    let (body, left_out) = from_messages(&json!({
        "top_k": 5, "metadata": {"user_id": "u-1"}, "context_management": {"edits": [1]},
        "container": "c", "mcp_servers": [{"name": "x"}], "service_tier": "auto", "betas": ["b"],
        "thinking": {"type": "enabled", "budget_tokens": 5000}, "stop_sequences": ["END"],
        "tools": [{"name": "look", "input_schema": {"type": "object"}, "cache_control": {"type": "ephemeral"}},
            {"type": "web_search_20250305", "name": "web_search"}],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": true}, "inference_geo": "global",
    }))
    .unwrap();
    let expected = json!({"model": "gpt-5", "max_completion_tokens": 9000, "stop": ["END"], "user": "u-1",
        "messages": [{"role": "user", "content": "hi"}], "tool_choice": "required",
        "tools": [{"type": "function", "function": {"name": "look", "description": "",
            "parameters": {"type": "object"}}}],
        "parallel_tool_calls": false, "reasoning_effort": "medium"});
    assert_eq!(body, expected);
    insta::assert_snapshot!(left_out.join(" "), @"tools.web_search_20250305 cache_control betas container context_management mcp_servers top_k");
}

/// What would make another answer of it is refused, with what to do.
#[test]
fn what_cannot_be_done_without_is_refused() {
    let mut told = Vec::new();
    for more in [
        json!({"n": 2}),
        json!({"logprobs": true}),
        json!({"modalities": ["text", "audio"], "audio": {"voice": "x"}}),
        json!({"functions": [{"name": "f"}]}),
        json!({"web_search_options": {"x": 1}}),
    ] {
        told.push(from_chat(&more).expect_err("refused"));
    }
    for more in [
        json!({"previous_response_id": "resp_1"}),
        json!({"conversation": "conv_1"}),
        json!({"prompt": {"id": "p"}}),
        json!({"background": true}),
        json!({"include": ["message.output_text.logprobs"]}),
        json!({"tools": [{"type": "web_search"}], "tool_choice": {"type": "web_search"}}),
        json!({"tools": [{"type": "web_search"}], "tool_choice": "required"}),
        json!({"input": [{"type": "item_reference", "id": "msg_1"}]}),
        json!({"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]}),
    ] {
        told.push(from_responses(&more).expect_err("refused"));
    }
    told.push(from_messages(&json!({"inference_geo": "us"})).expect_err("refused"));
    let thought = json!({"input": [{"role": "user", "content": "hi"}, {"type": "item_reference", "id": "rs_1"}]});
    assert_eq!(from_responses(&thought).unwrap().1, Vec::<String>::new());
    insta::assert_snapshot!(told.join("\n"), @r"
    `n` cannot be passed on to a provider that speaks Anthropic's form: it gives one answer to a request; ask once for each, or a model of OpenAI's form
    `logprobs` cannot be passed on to a provider that speaks Anthropic's form: it tells no probabilities; leave the field out, or ask a model of OpenAI's form
    `audio` cannot be passed on to a provider that speaks Anthropic's form: it answers in text only; leave it out
    `functions` cannot be passed on to a provider that speaks Anthropic's form: say `tools` instead, which replaced it
    `web_search_options` cannot be passed on to a provider that speaks Anthropic's form: offer the model a tool that searches
    `previous_response_id` cannot be passed on to a provider that speaks Anthropic's form: nothing is remembered there; send the whole conversation in `input`
    `conversation` cannot be passed on to a provider that speaks Anthropic's form: nothing is remembered there; send the whole conversation in `input`
    `prompt` cannot be passed on to a provider that speaks Anthropic's form: prompts that OpenAI keeps are not there; send the text of the prompt
    `background` cannot be passed on to a provider that speaks Anthropic's form: it answers at once; leave the field out, and ask for a stream if it takes long
    `include` cannot be passed on to a provider that speaks Anthropic's form: it tells no probabilities; leave them out, or ask a model of OpenAI's form
    `tool_choice` cannot be passed on to a provider that speaks Anthropic's form: say auto, none, required, or the name of a function
    `tool_choice` cannot be passed on to a provider that speaks Anthropic's form: it asks for a tool that the other provider does not run
    `item_reference` cannot be passed on to a provider that speaks Anthropic's form: nothing is remembered there; say `store: false`, so that items are sent whole
    `type: image` cannot be passed on to a provider that speaks Anthropic's form: a file that was uploaded to one provider is not at another; send its content as base64
    `inference_geo` cannot be passed on to a provider that speaks OpenAI's form: it lets nobody choose where a model runs; route to a provider that runs there
    ");
}

#[test]
fn one_tool_at_a_time_is_said_in_both_forms() {
    let off = |more: &Value| {
        let more = with(json!({"tools": tools(), "parallel_tool_calls": false}), more);
        from_chat(&more).unwrap().0["tool_choice"].clone()
    };
    let of = |kind: &str| json!({"type": kind, "disable_parallel_tool_use": true});
    assert_eq!(off(&json!({})), of("auto"));
    assert_eq!(off(&json!({"tool_choice": "required"})), of("any"));
    assert_eq!(off(&json!({"tool_choice": "none"})), json!({"type": "none"}));
    let named = json!({"tool_choice": {"type": "function", "function": {"name": "look"}}});
    assert_eq!(off(&named), with(of("tool"), &json!({"name": "look"})));
    // Without tools there is nothing to say.
    assert_eq!(
        from_chat(&json!({"parallel_tool_calls": false})).unwrap().0["tool_choice"],
        Value::Null
    );
}

#[test]
fn who_asks_is_said_where_the_other_form_takes_it() {
    for (user, is_said) in [("u-1", true), ("a@b.example", false), ("+47 555 12345", false)] {
        let (body, left_out) = from_chat(&json!({ "user": user })).unwrap();
        assert_eq!(body["metadata"]["user_id"] == user, is_said, "{user}");
        assert_eq!(left_out.is_empty(), is_said, "{user}");
    }
    let long = "x".repeat(65);
    let (body, left_out) = from_messages(&json!({"metadata": {"user_id": long}})).unwrap();
    assert_eq!((&body["user"], left_out), (&Value::Null, vec!["metadata.user_id".to_owned()]));
}

#[test]
fn effort_is_said_as_the_model_takes_it() {
    let of = |model: &str, more: &Value| {
        let more = with(json!({"model": model, "reasoning_effort": "medium"}), more);
        let (body, left_out) = from_chat(&more).unwrap();
        (body["thinking"].clone(), body["output_config"].clone(), left_out.join(" "))
    };
    let budget = |tokens: u64| json!({"type": "enabled", "budget_tokens": tokens});
    let nothing = (Value::Null, Value::Null, "reasoning_effort".to_owned());
    let (sonnet, opus) = ("claude-sonnet-4-5", "claude-opus-4-6");
    assert_eq!(of(sonnet, &json!({})).0, budget(16_000));
    assert_eq!(of(sonnet, &json!({"max_tokens": 4096})).0, budget(2_048));
    assert_eq!(of(sonnet, &json!({"max_tokens": 1024})), nothing);
    assert_eq!(of("claude-3-haiku-20240307", &json!({})), nothing);
    let forced = json!({"tools": tools(), "tool_choice": "required"});
    assert_eq!(of(sonnet, &forced), nothing);
    // Anthropic would want to see the thought that led to the call.
    let called = json!({"messages": [{"role": "user", "content": "hi"},
        {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "c", "content": "x"}]});
    assert_eq!(of(sonnet, &called), nothing);
    let adaptive = (json!({"type": "adaptive"}), json!({"effort": "medium"}), String::new());
    assert_eq!(of(opus, &called), adaptive);
    assert_eq!(of(opus, &forced), (Value::Null, json!({"effort": "medium"}), String::new()));
    let sampled = from_chat(&json!({"model": "claude-opus-4-7", "temperature": 0.5, "top_p": 0.5}));
    assert_eq!(sampled.unwrap().1, ["temperature", "top_p"]);
    let own = json!({"thinking": {"type": "enabled", "budget_tokens": 2048}});
    assert_eq!(from_chat(&own).unwrap().0["thinking"], budget(2_048));
    let (body, _) =
        from_responses(&json!({"reasoning": {"effort": "low", "summary": "auto"}})).unwrap();
    assert_eq!(body["thinking"], budget(6_400));
    // The other way: only models that think take an effort.
    let thinks = json!({"model": "gpt-4o", "thinking": {"type": "enabled", "budget_tokens": 2048}});
    assert_eq!(from_messages(&thinks).unwrap().1, ["thinking"]);
    let named = json!({"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}});
    assert_eq!(from_messages(&named).unwrap().0["reasoning_effort"], "high");
}

#[test]
fn tools_that_may_be_used_are_the_ones_offered() {
    let choice = json!({"type": "allowed_tools", "mode": "required",
        "tools": [{"type": "function", "name": "buy"}]});
    let offered = json!([{"type": "function", "name": "look", "parameters": {"type": "object"}},
        {"type": "function", "name": "buy", "parameters": {"type": "object"}}]);
    let (body, _) = from_responses(&json!({"tools": offered, "tool_choice": choice})).unwrap();
    assert_eq!(body["tools"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        (&body["tools"][0]["name"], &body["tool_choice"]),
        (&json!("buy"), &json!({"type": "any"}))
    );
}

#[test]
fn what_a_model_quotes_from_is_text_elsewhere() {
    let content = json!([
        {"type": "document", "title": "Rules", "source": {"type": "text", "media_type": "text/plain", "data": "be kind"}},
        {"type": "search_result", "title": "Faq", "source": "https://x", "content": [{"type": "text", "text": "42"}]},
        {"type": "text", "text": "so?"}]);
    let more = json!({"messages": [{"role": "user", "content": content},
        {"role": "assistant", "content": [{"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
            {"type": "web_search_tool_result", "tool_use_id": "s", "content": []}, {"type": "text", "text": "yes"}]},
        {"role": "user", "content": "go on"}]});
    let (body, left_out) = from_messages(&more).unwrap();
    let texts: Vec<&Value> = body["messages"][0]["content"]
        .as_array()
        .unwrap()
        .iter()
        .map(|part| &part["text"])
        .collect();
    assert_eq!(texts, ["Rules\nbe kind", "Faq\nhttps://x\n42", "so?"]);
    assert_eq!(body["messages"][1], json!({"role": "assistant", "content": "yes"}));
    assert_eq!(left_out, ["messages.server_tool_use", "messages.web_search_tool_result"]);
    let file = json!([{"type": "document", "source": {"type": "url", "url": "https://x/y.pdf"}}]);
    let refused = from_messages(&json!({"messages": [{"role": "user", "content": file}]}));
    insta::assert_snapshot!(refused.unwrap_err(), @"`type: document` cannot be passed on to a provider that speaks OpenAI's form: it fetches no documents; send the document's content as base64");
}

#[test]
fn the_same_form_is_left_as_it_is() {
    for form in WireForm::ALL {
        let body =
            json!({"model": "m", "messages": [], "input": [], "max_tokens": 1, "strange": 1});
        let (body, left_out) = sent(form, form, &body).unwrap();
        assert_eq!((&body["strange"], left_out.len()), (&json!(1), 0));
    }
}

/// A PDF is the same document in every form.
#[test]
fn documents_are_told_in_every_form() {
    let source = json!({"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="});
    let of_anthropic = json!({"type": "document", "source": source});
    let url = "data:application/pdf;base64,JVBERg==";
    let of_chat = json!({"type": "file", "file": {"filename": "document.pdf", "file_data": url}});
    let of_responses = json!({"type": "input_file", "filename": "document.pdf", "file_data": url});
    let said = |content: &Value| json!({"messages": [{"role": "user", "content": [content]}]});
    let content = |body: &Value| body["messages"][0]["content"][0].clone();
    assert_eq!(content(&from_messages(&said(&of_anthropic)).unwrap().0), of_chat);
    let (body, _) =
        sent(WireForm::ChatCompletions, WireForm::Messages, &chat(&said(&of_chat))).unwrap();
    assert_eq!(content(&body), of_anthropic);
    let input = json!({"input": [{"role": "user", "content": [of_responses]}]});
    assert_eq!(content(&from_responses(&input).unwrap().0), of_anthropic);
    let (body, _) =
        sent(WireForm::Messages, WireForm::Responses, &messages(&said(&of_anthropic))).unwrap();
    assert_eq!(body["input"][0]["content"][0], of_responses);
    // Anthropic takes no text in base64: it is told as a text.
    let text =
        json!({"type": "file", "file": {"file_data": "data:text/plain;charset=utf-8;base64,aGk="}});
    let (body, _) =
        sent(WireForm::ChatCompletions, WireForm::Messages, &chat(&said(&text))).unwrap();
    let expected = json!({"type": "text", "media_type": "text/plain", "data": "hi"});
    assert_eq!(content(&body)["source"], expected);
}

/// What a tool shows is seen by the model, not read as base64.
#[test]
fn images_that_tools_show_are_images() {
    let image = json!({"type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}});
    let call = |id: &str| json!({"type": "tool_use", "id": id, "name": "look", "input": {}});
    let more = json!({"tools": [{"name": "look", "input_schema": {}}], "messages": [
        {"role": "user", "content": "look"},
        {"role": "assistant", "content": [call("a"), call("b")]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "a cat"}, image]},
            {"type": "tool_result", "tool_use_id": "b", "content": [image]},
            {"type": "text", "text": "which?"}]}]});
    let (body, _) = from_messages(&more).unwrap();
    let url = json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}});
    let text = |text: &str| json!({"type": "text", "text": text});
    let expected = json!([
        {"role": "tool", "tool_call_id": "a", "content": "a cat"},
        {"role": "tool", "tool_call_id": "b", "content": "What it showed follows."},
        {"role": "user", "content": [text("What the call a showed:"), url, text("What the call b showed:"), url]},
        {"role": "user", "content": "which?"}]);
    let told = body["messages"].as_array().expect("messages");
    assert_eq!(Value::from(told[2..].to_vec()), expected);
    let (body, _) = sent(WireForm::Messages, WireForm::Responses, &messages(&more)).unwrap();
    let shown = json!([{"type": "input_text", "text": "a cat"},
        {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}]);
    let output = |body: &Value| -> Vec<Value> {
        let items = body["input"].as_array().expect("items");
        items.iter().map(|item| item["output"].clone()).filter(|one| !one.is_null()).collect()
    };
    assert_eq!(output(&body)[0], shown);
    let input = json!({"input": [
        {"type": "function_call", "call_id": "a", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "a", "output": shown}]});
    let (body, _) = from_responses(&input).unwrap();
    assert_eq!(body["messages"][1]["content"][0]["content"], json!([text("a cat"), image]));
    // A tool's own list of things with a `type` is text, also when it has images in it.
    let own = json!([{"type": "image", "id": 1}]);
    let input = json!({"input": [{"type": "function_call_output", "call_id": "a", "output": own}]});
    let (body, _) = from_responses(&input).unwrap();
    assert_eq!(body["messages"][0]["content"][0]["content"], json!(own.to_string()));
}

/// Anthropic wants the schema of an object, also of a tool that takes nothing.
#[test]
fn a_tool_without_parameters_has_a_schema() {
    for function in [json!({"name": "now"}), json!({"name": "now", "parameters": {}})] {
        let tools = json!({"tools": [{"type": "function", "function": function}]});
        let (body, _) = from_chat(&tools).unwrap();
        assert_eq!(body["tools"][0]["input_schema"], json!({"type": "object", "properties": {}}));
    }
    let loose = json!({"tools": [{"type": "function", "name": "f", "parameters": {"properties": {"x": {}}}}]});
    let (body, _) = from_responses(&loose).unwrap();
    assert_eq!(body["tools"][0]["input_schema"]["type"], "object");
}

proptest! {
    #[test]
    fn no_json_makes_it_panic(json in arbitrary_json()) {
        let body = json!({"model": "claude-sonnet-4-5", "tools": [json], "tool_choice": json,
            "messages": [json, {"role": "user", "content": [json]}, {"role": "tool", "content": [json]}],
            "input": [json, {"type": "function_call_output", "output": [json]}], "thinking": json,
            "reasoning": json, "reasoning_effort": "low", "metadata": json, "user": json,
            "include": json, "text": {"format": json}, "output_config": json, "modalities": json});
        for (from, to) in WireForm::ALL.into_iter().flat_map(|from| WireForm::ALL.map(|to| (from, to))) {
            let Ok(mut request) = from.parse_request(body.to_string().as_bytes()) else { continue };
            let _ = translate(&mut request, from, to);
            let _ = to.request_to_json(&request);
        }
    }
}
