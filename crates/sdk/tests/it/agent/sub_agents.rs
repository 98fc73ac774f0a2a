//! Agents as tools of others: one trace, one session, nested budgets and decisions.

use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use throughline::{Budget, InMemory, Memory as _, MemoryWindow, OtlpProtocol};

use super::*;
use crate::receiver;

#[tokio::test]
async fn a_sub_agent_is_on_the_same_trace_with_its_own_name() {
    let (stage, builder) = stage([
        wants("", &[("c1", "researcher_v1", r#"{"task":"Count item 7"}"#)]),
        says("There are 12."),
    ]);
    let inner = Scripted::new([says("12")]);
    let researcher = Agent::builder("researcher", Traced::new(inner), "gpt-4o-mini").build();
    let researcher = researcher.expect("an agent").as_tool("researcher_v1", "Finds things out");
    let tools = ToolRegistry::new().with(researcher.expect("a tool")).expect("new");
    let agent = builder.tools(tools).build().expect("an agent");
    let task = Task::new("Is item 7 there?").session("s-1");
    stage.telemetry.scope(agent.run(task)).await.expect("an answer");
    let tree = stage.recorder.tree(&["agent_id", "session_id", "ai.agent.name"]);
    insta::assert_snapshot!(tree, @r"
    invoke_agent shop agent_id=shop session_id=s-1 ai.agent.name=shop
      shop.plan.researcher agent_id=shop session_id=s-1 ai.agent.name=shop
        chat gpt-4o agent_id=shop session_id=s-1
      shop.act.researcher agent_id=shop session_id=s-1 ai.agent.name=shop
        tool.registry.researcher_v1 agent_id=shop session_id=s-1
        execute_tool researcher_v1 agent_id=shop session_id=s-1
          invoke_agent researcher agent_id=researcher session_id=s-1 ai.agent.name=researcher
            researcher.plan.answer agent_id=researcher session_id=s-1 ai.agent.name=researcher
              chat gpt-4o-mini agent_id=researcher session_id=s-1
            researcher.reflect.answer agent_id=researcher session_id=s-1 ai.agent.name=researcher
      shop.observe.researcher agent_id=shop session_id=s-1 ai.agent.name=shop
      shop.reflect.researcher agent_id=shop session_id=s-1 ai.agent.name=shop
      shop.plan.answer agent_id=shop session_id=s-1 ai.agent.name=shop
        chat gpt-4o agent_id=shop session_id=s-1
      shop.reflect.answer agent_id=shop session_id=s-1 ai.agent.name=shop
    ");

    let logs = stage.recorder.logs();
    let value = |at: usize, key: &str| {
        let found = logs[at].attributes_iter().find(|(name, _)| name.as_str() == key);
        found.map(|(_, value)| format!("{value:?}"))
    };
    // plan, act, then the sub-agent's plan below that.
    assert_eq!(value(2, "agent_id"), value(3, "agent_id"));
    assert_ne!(value(1, "agent_id"), value(2, "agent_id"));
    assert_eq!(value(2, "parent_decision_id"), value(1, "decision_id"));
}

#[tokio::test]
async fn a_sub_agent_spends_the_budget_of_its_caller() {
    let (stage, builder) =
        stage([wants("", &[("c1", "researcher_v1", r#"{"task":"Count item 7"}"#)]), says("12")]);
    let call = || wants("again", &[("c", "stock_v1", r#"{"item":7}"#)]);
    let inner = Scripted::new([call(), call(), call(), call()]);
    let researcher = Agent::builder("researcher", inner, "gpt-4o-mini").tools(tools()).build();
    let researcher = researcher.expect("an agent").as_tool("researcher_v1", "Finds things out");
    let tools = ToolRegistry::new().with(researcher.expect("a tool")).expect("new");
    let agent = builder.tools(tools).budget(Budget::none().tool_calls(3)).build();
    let run = stage.telemetry.scope(agent.expect("an agent").run("Is item 7 there?")).await;
    let told = format!("{:?}", run.expect("an answer").messages);
    assert!(told.contains("expected shop to need at most 3 of its tool calls, got 4"), "{told}");
}

/// The numbers of calls of the runs of an agent, as an exporter sends them: runs, and their sum.
fn calls_of(received: &receiver::Received, metric: &str, agent: &str) -> Vec<(u64, f64)> {
    let metrics = received.kept_metrics();
    let points = metrics.iter().filter(|kept| kept.name == metric).flat_map(|kept| {
        let Some(Data::Histogram(histogram)) = &kept.data else { panic!("no histogram") };
        histogram.data_points.clone()
    });
    let is_its = |point: &opentelemetry_proto::tonic::metrics::v1::HistogramDataPoint| {
        point.attributes.iter().any(|entry| {
            entry.key == "gen_ai.agent.name" && format!("{:?}", entry.value).contains(agent)
        })
    };
    points.filter(is_its).map(|point| (point.count, point.sum.unwrap_or_default())).collect()
}

/// The calls of a run are its own: those of a sub-agent are the sub-agent's, and a run that fails has
/// made its calls, too.
#[tokio::test]
async fn a_run_counts_its_own_calls_of_model_and_tools() {
    let (address, received) = receiver::start();
    let telemetry = Telemetry::builder()
        .environment(false)
        .service_name("shop")
        .endpoint(format!("http://{address}"))
        .protocol(OtlpProtocol::HttpProtobuf)
        .build()
        .expect("telemetry");
    let stock = |id: &'static str| (id, "stock_v1", r#"{"item":7}"#);
    let inner = Scripted::new([
        wants("", &[stock("a1"), stock("a2"), stock("a3")]),
        wants("", &[stock("a4")]),
        says("12"),
    ]);
    let outer = Scripted::new([
        wants("", &[("c1", "researcher_v1", r#"{"task":"Count item 7"}"#)]),
        Err(ChatError::new(throughline::ErrorType::Auth, "the key is refused")),
    ]);
    let work = async {
        let researcher = Agent::builder("researcher", inner, "gpt-4o-mini").tools(tools()).build();
        let researcher = researcher.expect("an agent").as_tool("researcher_v1", "Finds things out");
        let tools = ToolRegistry::new().with(researcher.expect("a tool")).expect("new");
        let boss = Agent::builder("boss", outer, "gpt-4o").tools(tools).build().expect("an agent");
        boss.run("Is item 7 there?").await.expect_err("refused in the second turn");
    };
    telemetry.scope(work).await;
    telemetry.shutdown().expect("nothing is lost");
    let inferences = "gen_ai.invoke_agent.inference_calls";
    let tool_calls = "gen_ai.invoke_agent.tool_calls";
    assert_eq!(calls_of(&received, inferences, "researcher"), [(1, 3.0)]);
    assert_eq!(calls_of(&received, tool_calls, "researcher"), [(1, 4.0)]);
    assert_eq!(calls_of(&received, inferences, "boss"), [(1, 2.0)]);
    assert_eq!(calls_of(&received, tool_calls, "boss"), [(1, 1.0)]);
}

#[tokio::test]
async fn a_sub_agent_that_shares_a_memory_does_not_mix_what_it_is_told_with_its_caller_s_session() {
    let memory = InMemory::new(10, 100);
    let (stage, builder) = stage([
        wants("", &[("c1", "researcher_v1", r#"{"task":"Count item 7"}"#)]),
        says("There are 12."),
        says("You are welcome."),
    ]);
    let inner = Scripted::new([says("12")]);
    let researcher = Agent::builder("researcher", inner, "gpt-4o-mini");
    let researcher = researcher.memory(memory.clone(), MemoryWindow::default()).build();
    let researcher = researcher.expect("an agent").as_tool("researcher_v1", "Finds things out");
    let tools = ToolRegistry::new().with(researcher.expect("a tool")).expect("new");
    let builder = builder.tools(tools).memory(memory.clone(), MemoryWindow::default());
    let agent = builder.build().expect("an agent");
    agent.run(Task::new("Is item 7 there?").session("s-1")).await.expect("an answer");
    let run = agent.run(Task::new("Thank you").session("s-1")).await.expect("an answer");
    let said: Vec<String> =
        run.messages.iter().map(Message::joined_text).filter(|text| !text.is_empty()).collect();
    assert_eq!(said, ["Is item 7 there?", "There are 12.", "Thank you", "You are welcome."]);
    drop(stage);
    let own = memory.load("s-1/researcher").await.expect("messages");
    assert_eq!(own, [Message::user("Count item 7"), Message::assistant("12")]);
}
