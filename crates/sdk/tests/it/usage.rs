//! What a call asked for and what it used, as span and metrics tell it (requirement R3.1): buckets that
//! overlap nowhere, so that no token is billed twice.

use serde_json::json;
use throughline::llm::prices::PriceTable;
use throughline::{ChatModel as _, ChatRequest, Recorder, Telemetry, Traced};

use crate::provider::{Provider, Step};

/// Of a million tokens in, 200,000 came out of a cache and 300,000 were sound; of a million out, 100,000
/// were thoughts and 400,000 sound.
const SPOKEN: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","model":"house-voice",
    "choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"hello"}}],
    "usage":{"prompt_tokens":1000000,"completion_tokens":1000000,"total_tokens":2000000,
        "prompt_tokens_details":{"cached_tokens":200000,"audio_tokens":300000},
        "completion_tokens_details":{"reasoning_tokens":100000,"audio_tokens":400000}}}"#;

/// Dollars for a million tokens.
const PRICES: &str = r#"{"version":"house-1","models":[{"name":"house-voice","input":1,"cached_input":0.5,
    "output":2,"audio_input":10,"audio_output":20}]}"#;

async fn asked(request: ChatRequest) -> Recorder {
    let recorder = Recorder::new();
    let telemetry = Telemetry::builder()
        .environment(false)
        .latest_gen_ai_names(true)
        .prices(PriceTable::builtin().with(PriceTable::from_json(PRICES).expect("prices")))
        .recorder(&recorder)
        .build()
        .expect("telemetry");
    let provider = Provider::start([Step::Raw("application/json", SPOKEN)]).await;
    let model = Traced::new(provider.client.clone());
    telemetry.scope(async { model.chat(request).await.expect("an answer") }).await;
    telemetry.flush();
    recorder
}

#[tokio::test]
async fn r3_1_sound_thoughts_and_what_was_cached_are_told_apart_and_billed_once() {
    let recorder = asked(ChatRequest::new("house-voice").user("hi")).await;
    let keys = [
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.cache_read.input_tokens",
        "gen_ai.usage.audio.input_tokens",
        "gen_ai.usage.output_tokens",
        "gen_ai.usage.reasoning.output_tokens",
        "gen_ai.usage.audio.output_tokens",
    ];
    let tokens = recorder.tree(&keys).replace("gen_ai.usage.", "");
    assert_eq!(
        tokens,
        "chat house-voice input_tokens=1000000 cache_read.input_tokens=200000 \
         audio.input_tokens=300000 output_tokens=1000000 reasoning.output_tokens=100000 \
         audio.output_tokens=400000\n"
    );
    // In: 500,000 at 1, 200,000 at 0.5, 300,000 at 10. Out: 600,000 at 2, 400,000 at 20.
    let cost = recorder.tree(&["throughline.cost_usd"]);
    assert_eq!(cost, "chat house-voice throughline.cost_usd=12.8\n");
    let metrics = recorder.metrics();
    let of = |name: &str, modality: &str| {
        let label = format!("gen_ai.token.modality={modality}");
        let line = metrics.iter().find(|line| line.starts_with(name) && line.contains(&label));
        line.and_then(|line| line.rsplit_once(' ')).map(|(_, value)| value.to_owned())
    };
    let (input, output) = (
        "gen_ai.client.inference.usage.input_tokens",
        "gen_ai.client.inference.usage.output_tokens",
    );
    assert_eq!(of(input, "audio").as_deref(), Some("300000"), "{metrics:#?}");
    assert_eq!(of(input, "text").as_deref(), Some("700000"), "{metrics:#?}");
    assert_eq!(of(output, "audio").as_deref(), Some("400000"), "{metrics:#?}");
    assert_eq!(of(output, "text").as_deref(), Some("600000"), "{metrics:#?}");
}

#[tokio::test]
async fn r3_1_how_an_answer_was_asked_for_is_on_the_span() {
    let mut request = ChatRequest::new("house-voice").user("hi");
    (request.temperature, request.top_p, request.seed) = (Some(0.5), Some(0.25), Some(7));
    let more = json!({"top_k": 40, "frequency_penalty": 0.5, "presence_penalty": -1, "n": 2,
        "modalities": ["text", "audio"]});
    request.extra.extend(more.as_object().expect("an object").clone());
    let keys = [
        "gen_ai.request.temperature",
        "gen_ai.request.top_p",
        "gen_ai.request.top_k",
        "gen_ai.request.seed",
        "gen_ai.request.frequency_penalty",
        "gen_ai.request.presence_penalty",
        "gen_ai.request.choice.count",
        "gen_ai.output.type",
    ];
    assert_eq!(
        asked(request).await.tree(&keys).replace("gen_ai.", ""),
        "chat house-voice request.temperature=0.5 request.top_p=0.25 request.top_k=40 request.seed=7 \
         request.frequency_penalty=0.5 request.presence_penalty=-1 request.choice.count=2 \
         output.type=speech\n"
    );
    let mut one = ChatRequest::new("house-voice").user("hi");
    one.extra.insert("n".to_owned(), 1.into());
    let count = asked(one).await.tree(&["gen_ai.request.choice.count"]);
    assert_eq!(count, "chat house-voice\n", "one answer is what everybody asks for");
}
