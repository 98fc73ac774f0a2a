//! Each agent from end to end under a fixed seed: its trace and its decisions as text.

use throughline::{Recorder, Telemetry};
use throughline_demo::provider::{ProviderOptions, serve};
use throughline_demo::stories::fraud::Case;
use throughline_demo::{Pace, Performer, Seed, Setting, Weather};
use tokio::net::TcpListener;

const SEED: Seed = Seed::new(42);

/// What a run left behind.
struct Played {
    succeeded: bool,
    tree: String,
    decisions: String,
}

/// Plays the first run of `agent` that meets `weather`.
async fn play(agent: &str, weather: Weather) -> Played {
    let run = weather.first_run(SEED, agent).expect("the deck holds every card");
    play_run(agent, run).await
}

async fn play_run(agent: &str, run: u64) -> Played {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let provider = listener.local_addr().expect("it is bound");
    let pace = Pace::new(0.0);
    let options = ProviderOptions { pace: pace.clone(), ..ProviderOptions::new(SEED) };
    let serving = tokio::spawn(serve(listener, options, std::future::pending()));
    let setting = Setting { provider, seed: SEED, pace };
    let performers = Performer::all(&setting).expect("the client is good");
    let performer = performers.into_iter().find(|performer| performer.agent() == agent);
    let performer = performer.expect("the agent is one of the four");
    let recorder = Recorder::new();
    let telemetry = Telemetry::builder().recorder(&recorder).build().expect("it records");
    let succeeded = telemetry.scope(performer.run(run)).await;
    telemetry.flush();
    serving.abort();
    let attributes = ["fallback.result", "retry_count", "outcome"];
    let decisions: Vec<String> = recorder
        .log_text(&["stage", "decision.confidence"])
        .lines()
        .filter(|line| line.contains(" stage="))
        .map(|line| line.replace("agent.decision ", ""))
        .collect();
    Played {
        succeeded,
        tree: shortened(&recorder.tree(&attributes)),
        decisions: decisions.join("\n"),
    }
}

/// The tree without what every run has and no test is about.
fn shortened(tree: &str) -> String {
    let kept = tree.lines().filter(|line| {
        let name = line.trim_start();
        !name.starts_with("tool.registry.") && !name.contains(".observe.")
    });
    let cut = kept.map(|line| line.chars().take(110).collect::<String>());
    cut.collect::<Vec<_>>().join("\n").replace(" retry_count=0", "")
}

#[tokio::test]
async fn fraud_check_has_a_refusal_looked_at_twice() {
    let is_refused = |run: &u64| {
        Weather::of(SEED, "fraud_check", *run) == Weather::Calm
            && Case::of(SEED, *run).merchant.contains("Lumière")
    };
    let refused = (0..200).find(is_refused).expect("somebody tries it on a calm day");
    let played = play_run("fraud_check", refused).await;
    assert!(played.succeeded);
    insta::assert_snapshot!(played.tree, @r"
    invoke_workflow card_authorisation outcome=ok
      fallback risk_verdict fallback.result=success outcome=ok
        attempt risk_verdict outcome=ok
          invoke_agent fraud_check outcome=ok
            fraud_check.plan.transaction_history
              chat gpt-4o outcome=ok
            fraud_check.act.transaction_history
              execute_tool transaction_history_v1 outcome=ok
            fraud_check.act.device_fingerprint
              execute_tool device_fingerprint_v2 outcome=ok
            fraud_check.reflect.transaction_history
            fraud_check.plan.sanctions_list
              chat gpt-4o outcome=ok
            fraud_check.act.sanctions_list
              execute_tool sanctions_list_v1 outcome=ok
            fraud_check.reflect.sanctions_list
            fraud_check.plan.answer
              chat gpt-4o outcome=ok
            fraud_check.reflect.answer
      invoke_agent second_analyst outcome=ok
        second_analyst.plan.answer
          chat gpt-4o-mini outcome=ok
        second_analyst.reflect.answer
    ");
    insta::assert_snapshot!(played.decisions, @r#"
    "transaction_history_v1+device_fingerprint_v2" stage=plan decision.confidence=0.77
    "transaction_history_v1" stage=act decision.confidence=0.77
    "device_fingerprint_v2" stage=act decision.confidence=0.77
    "continue" stage=reflect decision.confidence=0.77
    "sanctions_list_v1" stage=plan decision.confidence=0.93
    "sanctions_list_v1" stage=act decision.confidence=0.93
    "continue" stage=reflect decision.confidence=0.93
    "answer" stage=plan decision.confidence=0.91
    "finish" stage=reflect decision.confidence=0.91
    "answer" stage=plan decision.confidence=0.91
    "finish" stage=reflect decision.confidence=0.91
    "decline" stage=act decision.confidence=0.91
    "#);
}

#[tokio::test]
async fn fraud_check_decides_by_rules_when_no_model_answers() {
    let played = play("fraud_check", Weather::ProviderDown).await;
    assert!(played.succeeded);
    insta::assert_snapshot!(played.tree, @r"
    invoke_workflow card_authorisation outcome=fallback_degraded
      fallback risk_verdict fallback.result=success outcome=fallback_degraded
        attempt risk_verdict outcome=error ERROR(expected the model to answer in turn 1: gpt-4o at 127.0.0.1 answe
          invoke_agent fraud_check outcome=error ERROR(expected the model to answer in turn 1: gpt-4o at 127.0.0.1
            fraud_check.plan.task ERROR(gpt-4o at 127.0.0.1 answered 500 Internal Server Error: The server had an 
              chat gpt-4o retry_count=2 outcome=error ERROR(gpt-4o at 127.0.0.1 answered 500 Internal Server Error
                attempt gpt-4o
                attempt gpt-4o retry_count=1
                attempt gpt-4o retry_count=2 ERROR(gpt-4o at 127.0.0.1 answered 500 Internal Server Error: The ser
        attempt risk_verdict outcome=ok
    ");
    insta::assert_snapshot!(played.decisions, @r#"
    "rules_only" stage=fallback
    "review" stage=act decision.confidence=0.63
    "#);
}

#[tokio::test]
async fn shop_order_tries_the_payment_twice_and_sends_an_invoice() {
    let played = play("shop_order", Weather::ToolDown).await;
    assert!(played.succeeded);
    insta::assert_snapshot!(played.tree, @r"
    invoke_workflow order_fulfilment outcome=fallback_degraded
      invoke_agent shop_order outcome=fallback_degraded
        shop_order.plan.inventory_check
          chat gpt-4o-mini outcome=ok
        shop_order.act.inventory_check
          execute_tool inventory_check_v2 outcome=ok
        shop_order.reflect.inventory_check
        shop_order.plan.payment_charge
          chat gpt-4o-mini outcome=ok
        shop_order.act.payment_charge
          execute_tool payment_charge_v3 outcome=ok
            fallback payment fallback.result=success outcome=fallback_degraded
              attempt payment retry_count=1 outcome=timeout ERROR(TIMEOUT)
                attempt charge
                attempt charge retry_count=1 ERROR(TIMEOUT)
              attempt payment outcome=ok
        shop_order.reflect.payment_charge
        shop_order.plan.shipping_book
          chat gpt-4o-mini outcome=ok
        shop_order.act.shipping_book
          execute_tool shipping_book_v1 outcome=ok
        shop_order.reflect.shipping_book
        shop_order.plan.answer
          chat gpt-4o-mini outcome=ok
        shop_order.reflect.answer
    ");
    insta::assert_snapshot!(played.decisions, @r#"
    "inventory_check_v2" stage=plan decision.confidence=0.96
    "inventory_check_v2" stage=act decision.confidence=0.96
    "continue" stage=reflect decision.confidence=0.96
    "payment_charge_v3" stage=plan decision.confidence=0.88
    "payment_charge_v3" stage=act decision.confidence=0.88
    "invoice" stage=fallback
    "invoice" stage=act.payment decision.confidence=0.71
    "continue" stage=reflect decision.confidence=0.88
    "shipping_book_v1" stage=plan decision.confidence=0.86
    "shipping_book_v1" stage=act decision.confidence=0.86
    "continue" stage=reflect decision.confidence=0.86
    "answer" stage=plan
    "finish" stage=reflect
    "#);
}

#[tokio::test]
async fn shop_order_is_parked_when_the_provider_is_down() {
    let played = play("shop_order", Weather::ProviderDown).await;
    assert!(!played.succeeded);
    insta::assert_snapshot!(played.tree, @r"
    invoke_workflow order_fulfilment outcome=error ERROR(expected the model to answer in turn 1: gpt-4o-mini at 12
      invoke_agent shop_order outcome=error ERROR(expected the model to answer in turn 1: gpt-4o-mini at 127.0.0.1
        shop_order.plan.task ERROR(gpt-4o-mini at 127.0.0.1 answered 500 Internal Server Error: The server had an 
          chat gpt-4o-mini retry_count=2 outcome=error ERROR(gpt-4o-mini at 127.0.0.1 answered 500 Internal Server
            attempt gpt-4o-mini
            attempt gpt-4o-mini retry_count=1
            attempt gpt-4o-mini retry_count=2 ERROR(gpt-4o-mini at 127.0.0.1 answered 500 Internal Server Error: T
    ");
}

#[tokio::test]
async fn web_researcher_reads_a_mirror_and_is_judged_by_another_model() {
    let played = play("web_researcher", Weather::ToolDown).await;
    assert!(played.succeeded);
    insta::assert_snapshot!(played.tree, @r"
    invoke_workflow research_brief outcome=ok
      fallback research fallback.result=success outcome=ok
        attempt research outcome=ok
          invoke_agent web_researcher outcome=ok
            web_researcher.plan.web_search
              chat gpt-4.1 outcome=ok
                http.stream.init
                http.stream.segment
            web_researcher.act.web_search
              execute_tool web_search_v2 outcome=ok
            web_researcher.reflect.web_search
            web_researcher.plan.fetch_page
              chat gpt-4.1 outcome=ok
                http.stream.init
                http.stream.segment
            web_researcher.act.fetch_page ERROR(https://www.cell.com/joule/fulltext/S2542-4351(23)00351-3 did not 
              execute_tool fetch_page_v1 outcome=error ERROR(https://www.cell.com/joule/fulltext/S2542-4351(23)003
            web_researcher.reflect.fetch_page
            web_researcher.plan.fetch_page
              chat gpt-4.1 outcome=ok
                http.stream.init
                http.stream.segment
            web_researcher.act.fetch_page
              execute_tool fetch_page_v1 outcome=ok
            web_researcher.reflect.fetch_page
            web_researcher.plan.coverage_check
              chat gpt-4.1 outcome=ok
                http.stream.init
                http.stream.segment
            web_researcher.act.coverage_check
              execute_tool coverage_check_v1 outcome=ok
                chat o4-mini outcome=ok
            web_researcher.reflect.coverage_check
            web_researcher.plan.answer
              chat gpt-4.1 outcome=ok
                http.stream.init
                http.stream.segment
            web_researcher.reflect.answer
    ");
    insta::assert_snapshot!(played.decisions, @r#"
    "web_search_v2" stage=plan decision.confidence=0.8
    "web_search_v2" stage=act decision.confidence=0.8
    "continue" stage=reflect decision.confidence=0.8
    "fetch_page_v1" stage=plan decision.confidence=0.9
    "fetch_page_v1" stage=act decision.confidence=0.9
    "replan" stage=reflect decision.confidence=0.9
    "fetch_page_v1" stage=plan decision.confidence=0.73
    "fetch_page_v1" stage=act decision.confidence=0.73
    "continue" stage=reflect decision.confidence=0.73
    "coverage_check_v1" stage=plan decision.confidence=0.9
    "coverage_check_v1" stage=act decision.confidence=0.9
    "answer" stage=reflect.coverage decision.confidence=0.79
    "continue" stage=reflect decision.confidence=0.9
    "answer" stage=plan
    "finish" stage=reflect
    "#);
}

#[tokio::test]
async fn web_researcher_starts_over_without_streaming_when_a_stream_breaks() {
    let played = play("web_researcher", Weather::StreamCut).await;
    assert!(played.succeeded);
    insta::assert_snapshot!(played.tree, @r"
    invoke_workflow research_brief outcome=fallback_degraded
      fallback research fallback.result=success outcome=fallback_degraded
        attempt research outcome=error ERROR(expected the model to answer in turn 4: the stream of gpt-4.1 at 127.
          invoke_agent web_researcher outcome=error ERROR(expected the model to answer in turn 4: the stream of gp
            web_researcher.plan.web_search
              chat gpt-4.1 outcome=ok
                http.stream.init
                http.stream.segment
            web_researcher.act.web_search
              execute_tool web_search_v2 outcome=ok
            web_researcher.reflect.web_search
            web_researcher.plan.fetch_page
              chat gpt-4.1 outcome=ok
                http.stream.init
                http.stream.segment
            web_researcher.act.fetch_page
              execute_tool fetch_page_v1 outcome=ok
            web_researcher.reflect.fetch_page
            web_researcher.plan.coverage_check
              chat gpt-4.1 outcome=ok
                http.stream.init
                http.stream.segment
            web_researcher.act.coverage_check
              execute_tool coverage_check_v1 outcome=ok
                chat o4-mini outcome=ok
            web_researcher.reflect.coverage_check
            web_researcher.plan.task ERROR(the stream of gpt-4.1 at 127.0.0.1 broke off before its end mark)
              chat gpt-4.1 outcome=error ERROR(the stream of gpt-4.1 at 127.0.0.1 broke off before i
                attempt gpt-4.1 ERROR(the stream of gpt-4.1 at 127.0.0.1 broke off before its end ma
                http.stream.init
                http.stream.segment ERROR(the stream of gpt-4.1 at 127.0.0.1 broke off before its end mark)
        attempt research outcome=ok
          invoke_agent web_researcher outcome=ok
            web_researcher.plan.web_search
              chat gpt-4.1 outcome=ok
            web_researcher.act.web_search
              execute_tool web_search_v2 outcome=ok
            web_researcher.reflect.web_search
            web_researcher.plan.fetch_page
              chat gpt-4.1 outcome=ok
            web_researcher.act.fetch_page
              execute_tool fetch_page_v1 outcome=ok
            web_researcher.reflect.fetch_page
            web_researcher.plan.coverage_check
              chat gpt-4.1 outcome=ok
            web_researcher.act.coverage_check
              execute_tool coverage_check_v1 outcome=ok
                chat o4-mini outcome=ok
            web_researcher.reflect.coverage_check
            web_researcher.plan.answer
              chat gpt-4.1 outcome=ok
            web_researcher.reflect.answer
    ");
}

#[tokio::test]
async fn medical_triage_goes_on_with_a_smaller_model_and_leaves_the_main_one_alone() {
    let played = play("medical_triage", Weather::ModelDown).await;
    assert!(played.succeeded);
    insta::assert_snapshot!(played.tree, @r"
    invoke_workflow patient_intake outcome=fallback_degraded
      invoke_agent medical_triage outcome=fallback_degraded
        medical_triage.plan.symptom_intake
          fallback chat fallback.result=success outcome=fallback_degraded
            attempt chat outcome=error ERROR(o4-mini at 127.0.0.1 answered 503 Service Unavailable: The model o4-m
              chat o4-mini retry_count=2 outcome=error ERROR(o4-mini at 127.0.0.1 answered 503 Service Unavailable
                attempt o4-mini
                attempt o4-mini retry_count=1
                attempt o4-mini retry_count=2 ERROR(o4-mini at 127.0.0.1 answered 503 Service Unavailable: The mod
            attempt chat outcome=ok
              chat gpt-4o-mini outcome=ok
        medical_triage.act.symptom_intake
          execute_tool symptom_intake_v1 outcome=ok
        medical_triage.reflect.symptom_intake
        medical_triage.plan.guideline_lookup
          fallback chat fallback.result=success outcome=fallback_degraded
            attempt chat outcome=error ERROR(o4-mini at 127.0.0.1 answered 503 Service Unavailable: The model o4-m
              chat o4-mini outcome=error ERROR(o4-mini at 127.0.0.1 answered 503 Service Unavailable
                attempt o4-mini ERROR(o4-mini at 127.0.0.1 answered 503 Service Unavailable: The mod
            attempt chat outcome=ok
              chat gpt-4o-mini outcome=ok
        medical_triage.act.guideline_lookup
          execute_tool guideline_lookup_v3 outcome=ok
            fallback guideline fallback.result=success outcome=ok
              attempt guideline outcome=ok
        medical_triage.reflect.guideline_lookup
        medical_triage.plan.answer
          fallback chat fallback.result=success outcome=fallback_degraded
            attempt chat outcome=circuit_open ERROR(o4-mini at 127.0.0.1 was not asked: its circuit is open after 
              chat o4-mini outcome=circuit_open ERROR(o4-mini at 127.0.0.1 was not asked: its circui
            attempt chat outcome=ok
              chat gpt-4o-mini outcome=ok
        medical_triage.reflect.answer
    ");
    insta::assert_snapshot!(played.decisions, @r#"
    "gpt-4o-mini" stage=fallback
    "symptom_intake_v1" stage=plan decision.confidence=0.81
    "symptom_intake_v1" stage=act decision.confidence=0.81
    "continue" stage=reflect decision.confidence=0.81
    "open" stage=breaker
    "gpt-4o-mini" stage=fallback
    "guideline_lookup_v3" stage=plan decision.confidence=0.86
    "guideline_lookup_v3" stage=act decision.confidence=0.86
    "continue" stage=reflect decision.confidence=0.86
    "refuse" stage=breaker
    "gpt-4o-mini" stage=fallback
    "answer" stage=plan decision.confidence=0.82
    "finish" stage=reflect decision.confidence=0.82
    "self-care" stage=act decision.confidence=0.82
    "#);
}

#[tokio::test]
async fn medical_triage_calls_a_person_when_it_is_not_sure() {
    let played = play("medical_triage", Weather::ToolDown).await;
    assert!(played.succeeded);
    insta::assert_snapshot!(played.tree, @r"
    invoke_workflow patient_intake outcome=fallback_degraded
      invoke_agent medical_triage outcome=fallback_degraded
        medical_triage.plan.symptom_intake
          fallback chat fallback.result=success outcome=ok
            attempt chat outcome=ok
              chat o4-mini outcome=ok
        medical_triage.act.symptom_intake
          execute_tool symptom_intake_v1 outcome=ok
        medical_triage.reflect.symptom_intake
        medical_triage.plan.guideline_lookup
          fallback chat fallback.result=success outcome=ok
            attempt chat outcome=ok
              chat o4-mini outcome=ok
        medical_triage.act.guideline_lookup
          execute_tool guideline_lookup_v3 outcome=ok
            fallback guideline fallback.result=success outcome=fallback_degraded
              attempt guideline retry_count=1 outcome=error ERROR(guidelines.example answered 503 Service Unavaila
                attempt lookup
                attempt lookup retry_count=1 ERROR(guidelines.example answered 503 Service Unavailable: upstream c
              attempt guideline outcome=ok
        medical_triage.reflect.guideline_lookup
        medical_triage.plan.answer
          fallback chat fallback.result=success outcome=ok
            attempt chat outcome=ok
              chat o4-mini outcome=ok
        medical_triage.reflect.answer
      medical_triage.act.escalate_to_human
        execute_tool escalate_to_human_v1 outcome=ok
    ");
    insta::assert_snapshot!(played.decisions, @r#"
    "symptom_intake_v1" stage=plan decision.confidence=0.96
    "symptom_intake_v1" stage=act decision.confidence=0.96
    "continue" stage=reflect decision.confidence=0.96
    "guideline_lookup_v3" stage=plan decision.confidence=0.84
    "guideline_lookup_v3" stage=act decision.confidence=0.84
    "printed_protocol" stage=fallback
    "continue" stage=reflect decision.confidence=0.84
    "answer" stage=plan decision.confidence=0.37
    "finish" stage=reflect decision.confidence=0.37
    "same-day" stage=act decision.confidence=0.37
    "escalate_to_human" stage=act.escalation decision.confidence=0.37
    "#);
}

#[tokio::test]
async fn a_run_is_the_same_story_every_time() {
    for agent in ["shop_order", "medical_triage"] {
        let (one, other) = (play_run(agent, 3).await, play_run(agent, 3).await);
        assert_eq!((one.tree, one.decisions), (other.tree, other.decisions));
    }
}
