//! What may not be recorded is recorded nowhere.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use throughline::{
    Agent, AgentBuilder, ChatError, ChatModel, ChatStream, ContentCapture, Endpoint, FallbackModel,
    MaskContent, Recorder, Telemetry, TelemetryBuilder, ToolRegistry, Traced, tool,
};
use throughline_llm::{ChatRequest, ChatResponse, Part};

use super::{Item, Scripted, says, stage, wants};

/// What a run leaves behind that keeps two secrets: the user's and the model's.
async fn traces_of_a_secret(
    telemetry: impl FnOnce(TelemetryBuilder) -> TelemetryBuilder,
    model: impl FnOnce(Traced) -> Traced,
    agent: impl FnOnce(AgentBuilder) -> AgentBuilder,
) -> (String, String) {
    let recorder = Recorder::new();
    let telemetry = telemetry(Telemetry::builder().recorder(&recorder)).build().expect("telemetry");
    let mut thought = wants(
        "HUSHANSWER needs a look.",
        &[
            ("c1", "leak_v1", r#"{"item":1}"#),
            ("c2", "leak_v1", r#"{"item":0}"#),
            ("c3", "leak_v1", r#"{"item":"HUSHANSWER"}"#),
        ],
    );
    if let Ok(response) = &mut thought {
        let thoughts = Part::Reasoning("HUSHANSWER first".to_owned());
        response.choices[0].message.parts.insert(0, thoughts);
    }
    let scripted = Scripted::new([thought, says("It is HUSHANSWER. No doubt.")]);
    let leak = tool("leak_v1", "Says everything", |ask: Item| async move {
        if ask.item == 0 { Err("no HUSHTOOL left") } else { Ok("HUSHTOOL") }
    });
    let tools = ToolRegistry::new().with(leak.expect("leak")).expect("new");
    let builder = Agent::builder("shop", model(Traced::new(scripted)), "gpt-4o")
        .instructions("HUSHPROMPT")
        .tools(tools);
    let shop = agent(builder).build().expect("an agent");
    let run = telemetry.scope(shop.run("What of HUSHPROMPT?")).await.expect("an answer");
    assert_eq!(run.answer, "It is HUSHANSWER. No doubt.");
    assert!(format!("{:?}", run.messages).contains("no HUSHTOOL left"), "the model is told");
    telemetry.flush();
    let decisions = recorder.log_text(&["stage", "decision.reason"]);
    let all = format!("{:?}\n{:?}\n{:?}", recorder.spans(), recorder.logs(), recorder.metrics());
    (all, decisions)
}

const SECRETS: [&str; 3] = ["HUSHANSWER", "HUSHPROMPT", "HUSHTOOL"];

#[tokio::test]
async fn a_run_whose_content_is_off_leaves_no_word_of_it() {
    let (all, decisions) =
        traces_of_a_secret(|telemetry| telemetry.capture_content(false), |m| m, |a| a).await;
    for secret in SECRETS {
        assert!(!all.contains(secret), "{secret} in {all}");
    }
    assert!(!all.contains("ai.reasoning_trace"), "{all}");
    insta::assert_snapshot!(decisions, @r#"
    agent.decision "leak_v1+leak_v1+leak_v1" stage=plan decision.reason=the model asked for leak_v1+leak_v1+leak_v1
    agent.decision "leak_v1" stage=act decision.reason=leak_v1: the model asked for it
    agent.decision "leak_v1" stage=act decision.reason=leak_v1: the model asked for it
    agent.decision "leak_v1" stage=act decision.reason=leak_v1: the model asked for it
    agent.decision "replan" stage=reflect decision.reason=2 of 3 tools failed
    agent.decision "answer" stage=plan decision.reason=the model answered
    agent.decision "finish" stage=reflect decision.reason=the model answered
    "#);
    let (all, _) = traces_of_a_secret(|telemetry| telemetry, |m| m, |a| a).await;
    for secret in SECRETS {
        assert!(all.contains(secret), "the test would find {secret}");
    }
}

#[tokio::test]
async fn an_agent_keeps_its_content_to_itself_when_told_so() {
    let by_agent = traces_of_a_secret(|t| t, |m| m, |a| a.capture_content(false)).await;
    let by_model = traces_of_a_secret(|t| t, |m| m.capture_content(false), |a| a).await;
    for (all, _) in [by_agent, by_model] {
        for secret in SECRETS {
            assert!(!all.contains(secret), "{secret} in {all}");
        }
    }
    // Said outright, it counts also where telemetry in general is silent.
    let (all, _) =
        traces_of_a_secret(|t| t.capture_content(false), |m| m, |a| a.capture_content(true)).await;
    for secret in SECRETS {
        assert!(all.contains(secret), "{secret} in {all}");
    }
}

/// R3.1: redacted content is recorded, on spans, in events and decisions, without what it says.
#[tokio::test]
async fn r3_1_a_run_whose_content_is_masked_keeps_its_shape_and_no_word_of_it() {
    let everywhere =
        |t: TelemetryBuilder| t.redact(MaskContent).capture_content(ContentCapture::BOTH);
    let (all, decisions) = traces_of_a_secret(everywhere, |m| m, |a| a).await;
    for secret in SECRETS {
        assert!(!all.contains(secret), "{secret} in {all}");
    }
    assert!(all.contains("gen_ai.input.messages") && all.contains("gen_ai.tool.call.result"));
    insta::assert_snapshot!(decisions, @r#"
    gen_ai.client.inference.operation.details ""
    agent.decision "leak_v1+leak_v1+leak_v1" stage=plan decision.reason=[16 characters]
    agent.decision "leak_v1" stage=act decision.reason=leak_v1: [16 characters]
    agent.decision "leak_v1" stage=act decision.reason=leak_v1: [16 characters]
    agent.decision "leak_v1" stage=act decision.reason=leak_v1: [16 characters]
    agent.decision "replan" stage=reflect decision.reason=2 of 3 tools failed
    gen_ai.client.inference.operation.details ""
    agent.decision "answer" stage=plan decision.reason=[27 characters]
    agent.decision "finish" stage=reflect decision.reason=the model answered
    "#);
    let by_word = |t: TelemetryBuilder| t.redact(|text: &str| text.replace("HUSH", "[hush]"));
    let (all, _) = traces_of_a_secret(by_word, |m| m, |a| a).await;
    for secret in SECRETS {
        assert!(!all.contains(secret), "{secret} in {all}");
    }
    assert!(all.contains("[hush]ANSWER"), "{all}");
}

#[tokio::test]
async fn an_agent_does_as_its_model_says() {
    /// A model that says itself that its content is nobody's business.
    struct Discreet(Scripted);
    impl ChatModel for Discreet {
        fn endpoint(&self) -> Endpoint {
            self.0.endpoint()
        }
        fn captures_content(&self) -> Option<bool> {
            Some(false)
        }
        fn chat(&self, request: ChatRequest) -> BoxFuture<'_, Result<ChatResponse, ChatError>> {
            self.0.chat(request)
        }
        fn stream(&self, request: ChatRequest) -> BoxFuture<'_, Result<ChatStream, ChatError>> {
            self.0.stream(request)
        }
    }
    let (stage, _) = stage([]);
    for behind in [false, true] {
        let discreet = Discreet(Scripted::new([says("HUSHANSWER")]));
        let builder = if behind {
            let model = FallbackModel::new(Scripted::new([says("HUSHANSWER")]));
            Agent::builder("shop", model.then(discreet, "gpt-4o-mini"), "gpt-4o")
        } else {
            Agent::builder("shop", Arc::new(discreet), "gpt-4o")
        };
        stage.run(builder, "HUSHPROMPT").await.expect("an answer");
    }
    let all = format!("{:?}\n{:?}", stage.recorder.spans(), stage.recorder.logs());
    assert!(all.contains("invoke_agent shop"), "{all}");
    for secret in SECRETS {
        assert!(!all.contains(secret), "{secret} in {all}");
    }
}
