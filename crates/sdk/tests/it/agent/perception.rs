//! R1.1: perception yields `intent` and `entities` before anything is planned.

use throughline::{ModelPerception, Perception};

use super::*;

/// What is asked for, as the bag says it.
#[throughline::tool(id = "asked_v1", needs(intent, entities))]
async fn asked(context: &throughline::ContextBag) -> Result<String, ToolError> {
    let of = |field: &str| context.get(field).unwrap_or_default();
    Ok(format!("{} of {}", of("intent").as_str().unwrap_or_default(), of("entities")))
}

#[tokio::test]
async fn r1_1_the_model_perceives_intent_and_entities() {
    let (stage, builder) = stage([
        says(r#"{"intent":"stock_query","entities":{"item":7},"confidence":0.9}"#),
        wants("", &[("c1", "seen_v1", r#"{"item":7}"#), ("c2", "asked_v1", "{}")]),
        says("There are 12."),
    ]);
    let seen = tool("seen_v1", "What the task is about", |_: Item| async {
        Perception::current().map(|perception| perception.intent.clone()).ok_or("nothing")
    });
    let tools = ToolRegistry::new().with(seen.expect("seen")).expect("new");
    let tools = tools.with(asked_tool()).expect("new");
    let how = ModelPerception::new().model("gpt-4o-mini").intents(["stock_query", "other"]);
    let agent = builder.tools(tools).perceive(how).build().expect("an agent");
    let run = stage.telemetry.scope(agent.run("Is item 7 there?")).await.expect("an answer");
    let expected = Perception::new("stock_query").entity("item", 7).confidence(0.9);
    assert_eq!(run.perception, Some(expected));
    assert_eq!(run.usage.total_tokens(), 42, "what perceiving costs counts");
    let tree = stage.recorder.tree(&["throughline.intent", "throughline.entities"]);
    insta::assert_snapshot!(tree, @r#"
    invoke_agent shop throughline.intent=stock_query
      shop.observe.intent throughline.intent=stock_query throughline.entities={"item":7}
        chat gpt-4o-mini
      shop.plan.seen
        chat gpt-4o
      shop.act.seen
        tool.registry.seen_v1
        execute_tool seen_v1
      shop.act.asked
        tool.registry.asked_v1
        execute_tool asked_v1
      shop.observe.seen
      shop.observe.asked
      shop.reflect.seen
      shop.plan.answer
        chat gpt-4o
      shop.reflect.answer
    "#);
    let told = format!("{:?}", run.messages);
    assert!(told.contains(r#"result: String("stock_query")"#), "tools know it: {told}");
    assert!(told.contains(r#"result: String("stock_query of {\"item\":7}")"#), "the bag: {told}");
    let first = stage.decisions();
    insta::assert_snapshot!(first.lines().next().expect("a decision"), @r#"agent.decision "stock_query" stage=intent-resolved decision.reason=the model says so decision.confidence=0.9 seq=1"#);
}

#[tokio::test]
async fn a_perception_that_fails_does_not_fail_the_run() {
    let (stage, builder) = stage([says("There are 12.")]);
    let builder = builder.perceive_with(|_| async { Err::<Perception, _>("no idea") });
    let run = stage.run(builder, "Is item 7 there?").await.expect("an answer");
    assert_eq!(run.perception, None);
    insta::assert_snapshot!(stage.recorder.tree(&["ai.phase", "error.type"]), @r"
    invoke_agent shop
      shop.observe.intent ai.phase=observe error.type=_OTHER ERROR(expected an intent, got none: no idea)
      shop.plan.answer ai.phase=plan
        chat gpt-4o
      shop.reflect.answer ai.phase=reflect
    ");
}

#[tokio::test]
async fn a_function_perceives_without_a_model() {
    let (stage, builder) = stage([says("There are 12.")]);
    let builder = builder.perceive_with(|messages| async move {
        let said = messages.last().map(Message::joined_text).unwrap_or_default();
        Ok::<_, &str>(Perception::new("stock_query").entity("words", said.split(' ').count()))
    });
    let run = stage.run(builder, "Is item 7 there?").await.expect("an answer");
    assert_eq!(run.perception, Some(Perception::new("stock_query").entity("words", 4)));
    assert_eq!(stage.model.asked.lock().expect("asked").len(), 1);
}
