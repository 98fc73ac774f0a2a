//! `audit=required` (requirement R4.4): what was decided is not done when its record is not durable,
//! and the trace tells why.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use schemars::JsonSchema;
use serde::Deserialize;
use throughline::llm::ChatRequest;
use throughline::{
    Agent, AgentError, Audit, AuditError, ChatError, ChatModel as _, DegradedSwitch, Directive,
    ErrorType, Fallback, Fault as _, Json, Outcome, Recorder, RouteTo, Router, Steering,
    SteeringError, Telemetry, ToolRegistry, Traced, decision, keys, tool,
};

use crate::agent::{Scripted, says, wants};
use crate::provider::{Cue, Puppet, quick};
use crate::spool::removed::put_file_in_place;

const SHOWN: [&str; 2] = [keys::OUTCOME, keys::ERROR_TYPE];

struct Spooled {
    recorder: Recorder,
    telemetry: Telemetry,
    directory: PathBuf,
    _parent: tempfile::TempDir,
}

/// Telemetry with a spool of this size.
fn spooled(max_bytes: u64, audit: Audit) -> Spooled {
    let parent = tempfile::tempdir().expect("a directory");
    let directory = parent.path().join("spool");
    let recorder = Recorder::new();
    let telemetry = Telemetry::builder()
        .environment(false)
        .recorder(&recorder)
        .decision_spool(&directory)
        .decision_spool_max_bytes(max_bytes)
        .audit(audit)
        .build()
        .expect("telemetry");
    Spooled { recorder, telemetry, directory, _parent: parent }
}

/// A spool that has no room for a single decision.
fn full(audit: Audit) -> Spooled {
    spooled(1, audit)
}

#[derive(Deserialize, JsonSchema)]
struct Item {
    item: u32,
}

/// What must not be done.
async fn never<T>() -> T {
    panic!("it was done")
}

/// A registry of one tool that counts how often it ran, and when it does leaves no place for a
/// directory.
fn counted(removes: Option<PathBuf>) -> (ToolRegistry, Arc<AtomicUsize>) {
    let ran = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&ran);
    let stock = tool("stock_v1", "How many there are", move |ask: Item| {
        counter.fetch_add(1, Ordering::SeqCst);
        decision("inside").action("count").record();
        if let Some(directory) = &removes {
            put_file_in_place(directory);
        }
        async move { Json(ask.item) }
    });
    (ToolRegistry::new().with(stock.expect("stock")).expect("new"), ran)
}

fn agent(tools: ToolRegistry) -> Agent {
    let calls = [("c1", "stock_v1", r#"{"item":7}"#), ("c2", "stock_v1", r#"{"item":7}"#)];
    let model = Scripted::new([wants("", &calls), says("There are 12.")]);
    let builder = Agent::builder("shop", Traced::new(model), "gpt-4o").parallel_tools(1);
    builder.tools(tools).build().expect("an agent")
}

#[tokio::test]
async fn r4_4_audit_required_runs_no_tool_when_the_spool_is_full() {
    let stage = full(Audit::Required);
    let (tools, ran) = counted(None);
    let error = stage.telemetry.scope(agent(tools).run("How many?")).await.expect_err("refused");
    let action = "stock_v1+stock_v1".to_owned();
    assert_eq!(error, AgentError::Audit { action, error: AuditError::SpoolFull });
    assert_eq!(
        (error.error_type(), error.outcome()),
        (ErrorType::PolicyRejected, Outcome::PolicyRejected)
    );
    assert_eq!(ran.load(Ordering::SeqCst), 0, "no tool ran");
    insta::assert_snapshot!(stage.recorder.tree(&SHOWN), @r"
    invoke_agent shop outcome=policy_rejected error.type=POLICY_REJECTED ERROR(stock_v1+stock_v1 was not started: expected room in the decision spool, got none; is the server down for long?)
      shop.plan.task error.type=POLICY_REJECTED ERROR(stock_v1+stock_v1 was not started: expected room in the decision spool, got none; is the server down for long?)
        chat gpt-4o outcome=ok
    ");
}

#[tokio::test]
async fn r4_4_audit_required_runs_no_tool_when_the_spool_is_gone() {
    let stage = spooled(1_000_000, Audit::Required);
    let (tools, ran) = counted(Some(stage.directory.clone()));
    let error = stage.telemetry.scope(agent(tools).run("How many?")).await.expect_err("refused");
    assert!(
        matches!(&error, AgentError::Audit { action, error: AuditError::Spool(_) } if action == "stock_v1"),
        "{error:?}"
    );
    assert_eq!(ran.load(Ordering::SeqCst), 1, "the second call was not made");
    insta::assert_snapshot!(stage.recorder.tree(&SHOWN), @r"
    invoke_agent shop outcome=policy_rejected error.type=POLICY_REJECTED ERROR(stock_v1 was not started: expected the decision on the disk of the spool: its directory cannot be made again: entity already exists)
      shop.plan.stock
        chat gpt-4o outcome=ok
      shop.act.stock
        tool.registry.stock_v1
        execute_tool stock_v1 outcome=ok
      shop.act.stock outcome=policy_rejected error.type=POLICY_REJECTED ERROR(stock_v1 was not started: expected the decision on the disk of the spool: its directory cannot be made again: entity already exists)
    ");
}

#[tokio::test]
async fn r4_4_without_audit_required_a_full_spool_stops_nobody() {
    let stage = full(Audit::BestEffort);
    let (tools, ran) = counted(None);
    let run = stage.telemetry.scope(agent(tools).run("How many?")).await.expect("an answer");
    assert_eq!((run.answer.as_str(), ran.load(Ordering::SeqCst)), ("There are 12.", 2));
}

#[tokio::test]
async fn r4_4_a_decision_inside_a_tool_nests_below_the_call() {
    let stage = spooled(1_000_000, Audit::Required);
    let (tools, _) = counted(None);
    let run = stage.telemetry.scope(agent(tools).run("How many?")).await.expect("an answer");
    assert_eq!(run.outcome, Outcome::Ok);
    stage.telemetry.flush();
    let logs = stage.recorder.logs();
    let text = |at: usize, key: &str| {
        let found = logs[at].attributes_iter().find(|(name, _)| name.as_str() == key);
        found.map(|(_, value)| format!("{value:?}"))
    };
    let of = |stage: &str| -> Vec<usize> {
        let is = |at: &usize| {
            text(*at, "stage").is_some_and(|value| value.contains(&format!("{stage:?}")))
        };
        (0..logs.len()).filter(is).collect()
    };
    let (acts, inside) = (of("act"), of("inside"));
    assert_eq!((acts.len(), inside.len()), (2, 2));
    for (act, inside) in acts.into_iter().zip(inside) {
        assert!(text(act, "decision_id").is_some());
        assert_eq!(text(inside, "parent_decision_id"), text(act, "decision_id"));
    }
}

#[tokio::test]
async fn r4_4_audit_required_takes_no_degraded_branch() {
    let stage = full(Audit::Required);
    let down = || async { Err::<u32, _>(ChatError::new(ErrorType::Connection, "down")) };
    let fallback = Fallback::new("stock", down()).degraded("cached_stock", never());
    let error = stage.telemetry.scope(fallback.run()).await.expect_err("refused");
    assert!(error.is_refused());
    assert_eq!(
        (error.error_type(), error.outcome(), error.primary.error_type),
        (ErrorType::PolicyRejected, Outcome::PolicyRejected, ErrorType::Connection)
    );
    // An order to degrade that leaves no record is not followed.
    let switch = DegradedSwitch::new();
    switch.force("the provider bills twice");
    let forced = Fallback::new("stock", async { Ok::<u32, ChatError>(17) })
        .degraded("cached_stock", async { Ok(16) })
        .forced_by(&switch);
    assert_eq!(stage.telemetry.scope(forced.run()).await.expect("an answer").value, 17);
    let shown = [keys::FALLBACK_DECISION, keys::FALLBACK_BRANCH, keys::OUTCOME, keys::ERROR_TYPE];
    insta::assert_snapshot!(format!("{error}\n{}", stage.recorder.tree(&shown)), @r"
    down; the next branch was not started: expected room in the decision spool, got none; is the server down for long?
    fallback stock fallback.decision=skipped fallback.branch=primary outcome=policy_rejected error.type=POLICY_REJECTED ERROR(the next branch was not started: expected room in the decision spool, got none; is the server down for long?)
      attempt stock fallback.branch=primary outcome=error error.type=CONNECTION ERROR(down)
    fallback stock fallback.decision=skipped fallback.branch=primary outcome=ok
      attempt stock fallback.branch=primary outcome=ok
    ");
}

#[tokio::test]
async fn r4_4_audit_required_asks_no_model_that_a_router_chose() {
    let stage = full(Audit::Required);
    // It panics when it is asked: it has no script.
    let model = Traced::new(Puppet::new(Vec::<Vec<Cue>>::new())).policy(quick());
    let router = Router::builder("chat").target(RouteTo::new("large", model)).build().expect("one");
    let request = ChatRequest::new("any").user("hi");
    let error = stage.telemetry.scope(router.chat(request)).await.expect_err("refused");
    assert_eq!(error.error_type, ErrorType::PolicyRejected);
    assert_eq!(error.outcome(), Outcome::PolicyRejected);
    assert!(error.message.starts_with("large was not asked: expected room"), "{error}");
}

#[tokio::test]
async fn r4_4_an_action_in_the_scope_of_its_record_is_not_done_without() {
    let stage = full(Audit::Required);
    let paid = decision("act").action("pay").scope_audited(never::<()>());
    assert_eq!(stage.telemetry.scope(paid).await, Err(AuditError::SpoolFull));
    let stage = spooled(1_000_000, Audit::Required);
    let paid = decision("act")
        .action("pay")
        .scope_audited(async { throughline::current_decision().is_some() });
    assert_eq!(stage.telemetry.scope(paid).await, Ok(true));
}

#[test]
fn r4_4_after_the_shutdown_a_record_that_must_be_durable_is_refused_at_once() {
    let spooled = spooled(1 << 20, Audit::Required);
    let without = Telemetry::builder()
        .environment(false)
        .recorder(&Recorder::new())
        .audit(Audit::Required)
        .build()
        .expect("telemetry");
    for telemetry in [spooled.telemetry, without] {
        telemetry.shutdown().expect("nothing is lost");
        let _in = telemetry.enter();
        let recorded = decision("pay").action("refund").record_required_blocking();
        assert_eq!(recorded.err(), Some(AuditError::Stopped));
    }
}

/// A directive that holds for a minute.
fn told(id: &str, action: &str) -> Directive {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64;
    Directive::new(id, now, now + 60_000_000_000, action.parse().expect("an action"))
}

/// Telemetry whose decisions must be durable, with this server.
fn required(server: SocketAddr) -> Telemetry {
    let builder = Telemetry::builder().environment(false).endpoint(format!("http://{server}"));
    builder.audit(Audit::Required).build().expect("telemetry")
}

#[test]
fn r4_4_a_directive_that_waits_for_its_record_holds_up_nobody_else() {
    // A server that takes connections and never answers.
    let server = TcpListener::bind("127.0.0.1:0").expect("a port");
    let telemetry = required(server.local_addr().expect("an address"));
    let _in = telemetry.enter();
    let steering = Steering::current();
    let here = throughline::task::Origin::here();
    let waits = steering.clone();
    let waiting = std::thread::spawn(move || here.run(|| waits.apply(told("d-1", "stop"))));
    let connection = server.accept().expect("the export of the decision");
    steering.clear();
    assert!(!waiting.is_finished(), "others need not wait until the record is durable");
    // Nor does asynchronous code block its thread.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let applied = steering.apply_audited(told("d-2", "stop"));
        let at_once = tokio::time::timeout(Duration::from_millis(10), applied);
        at_once.await.expect_err("it waits");
        assert!(!waiting.is_finished(), "the thread was free meanwhile");
    });
    drop((connection, server));
    let refused = waiting.join().expect("joined").expect_err("not durable");
    assert!(matches!(refused, SteeringError::Audit(_)), "{refused:?}");
    assert!(steering.directives().is_empty());
}

#[tokio::test]
async fn r4_4_a_directive_that_was_outrun_while_its_record_was_made_does_not_hold() {
    let server = crate::chain::serve(axum::Router::new().fallback(|| async { "" })).await;
    let telemetry = required(server);
    telemetry
        .scope(async {
            let steering = Steering::current();
            let newer = told("d-2", "route_weights: chat generation=2 a=1");
            let older = told("d-1", "route_weights: chat generation=1 a=1");
            let both = async {
                let (newer, older) = (steering.apply_audited(newer), steering.apply_audited(older));
                // The first is looked at first, each time.
                futures_util::future::join(newer, older).await
            };
            let outdated = SteeringError::Outdated { holding: 2, got: 1 };
            assert_eq!(both.await, (Ok(()), Err(outdated)));
            assert_eq!(steering.directives().len(), 1);
        })
        .await;
    // Two decisions to obey, and one that says that the second was not kept.
    assert_eq!(telemetry.counts().decisions.ended, 3);
}
