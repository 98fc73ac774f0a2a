//! R2.2: A –HTTP→ B –gRPC→ C –HTTP→ D is one trace, sampled flag and tracestate intact.

use throughline::{AgentTool, ToolRegistry};

use super::*;
use crate::agent::wants;

/// An agent that asks the next one, and one that answers by itself at the end.
fn link(name: &str, next: Option<AgentTool>) -> Agent {
    let script = match &next {
        None => vec![says("9.50")],
        Some(_) => {
            vec![wants("", &[("c1", "next_v1", r#"{"task":"What is it?"}"#)]), says("It is 9.50.")]
        }
    };
    let builder = Agent::builder(name, Traced::new(Scripted::new(script)), "gpt-4o");
    match next {
        None => builder.build(),
        Some(next) => builder.tools(ToolRegistry::new().with(next).expect("a new tool")).build(),
    }
    .expect("an agent")
}

#[tokio::test]
async fn r2_2_a_chain_over_http_and_grpc_is_one_trace() {
    let stage = stage();
    let url = |server: &AgentServer| format!("http://{}", server.address());
    let tool = |remote: Result<RemoteAgent, _>| {
        let remote: RemoteAgent = remote.expect("a remote agent");
        Some(remote.as_tool("next_v1", "Knows more").expect("a tool"))
    };
    let d = stage.serve(serve_agent(link("d", None))).await;
    let c = stage.serve(serve_agent(link("c", tool(RemoteAgent::http(&url(&d), "d"))))).await;
    let b = stage.serve(serve_agent(link("b", tool(RemoteAgent::grpc(&url(&c), "c"))))).await;
    let a = stage.serve(serve_agent(link("a", tool(RemoteAgent::http(&url(&b), "b"))))).await;
    stage.recorder.clear();

    let response = client()
        .post(format!("{}/v1/agents/a/run", url(&a)))
        .header("traceparent", TRACEPARENT)
        .header("tracestate", "vendor=t61,other=x")
        .json(&json!({ "task": "What does item 7 cost?", "session_id": "s-1" }))
        .send()
        .await
        .expect("an answer");
    let reply: Value = response.json().await.expect("JSON");
    assert_eq!(reply["answer"], "It is 9.50.");
    let spans = stage.recorder.spans();
    for span in &spans {
        let context = &span.span_context;
        assert_eq!(context.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(context.trace_state().header(), "vendor=t61,other=x", "{}", span.name);
        assert!(context.is_sampled(), "{}", span.name);
        let session = span.attributes.iter().find(|entry| entry.key.as_str() == "session_id");
        assert_eq!(session.map(|entry| entry.value.to_string()).as_deref(), Some("s-1"));
    }
    let tree = stage.recorder.tree(&["agent_id"]);
    let shown: Vec<&str> = tree
        .lines()
        .filter(|line| line.contains("invoke_agent") || line.contains("execute_tool"))
        .collect();
    insta::assert_snapshot!(shown.join("\n"), @r"
    ? invoke_agent a agent_id=a
        execute_tool next_v1 agent_id=a
          invoke_agent b agent_id=a
            invoke_agent b agent_id=b
                execute_tool next_v1 agent_id=b
                  invoke_agent c agent_id=b
                    invoke_agent c agent_id=c
                        execute_tool next_v1 agent_id=c
                          invoke_agent d agent_id=c
                            invoke_agent d agent_id=d
    ");

    // Each agent's first decision is below that of the agent that asked it.
    let logs = stage.recorder.logs();
    let value = |at: usize, key: &str| {
        let found = logs[at].attributes_iter().find(|(name, _)| name.as_str() == key);
        found.map(|(_, value)| format!("{value:?}"))
    };
    for (plan, act) in [(2, 1), (4, 3), (6, 5)] {
        assert_eq!(value(plan, "parent_decision_id"), value(act, "decision_id"));
    }
}
