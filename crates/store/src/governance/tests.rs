//! What is committed once, what is asked once, and what outlives a restart.

//! What governance remembers: once, over restarts, and in the order of versions.

use throughline_trace::{FindingSeverity, KeySpending, Operation, Subject, finding_id};

use super::*;

const NOW: u64 = 1_800_000_000_000_000_000;

fn open() -> (tempfile::TempDir, Governance) {
    let dir = tempfile::tempdir().unwrap();
    let governance = Governance::open(dir.path()).unwrap();
    (dir, governance)
}

fn finding(state: FindingState, at: u64) -> Finding {
    let subject = Subject::of("agent", "fraud");
    Finding {
        id: finding_id("latency", "1", &subject, NOW),
        rule: "latency".to_owned(),
        rule_version: "1".to_owned(),
        kind: "drift.latency".to_owned(),
        subject,
        severity: FindingSeverity::Critical,
        state,
        since_unix_nano: NOW,
        at_unix_nano: at,
        from_unix_nano: NOW,
        to_unix_nano: at,
        summary: "p95 is 2.8 s, 7 times its baseline".to_owned(),
        values: [("p95_s".to_owned(), 2.8)].into(),
        confidence: Some(0.97),
        evidence: Vec::new(),
        runbook: String::new(),
    }
}

fn action(window: u64, cool_down_s: u64) -> Action {
    let subject = Subject::of("rollout", "fraud");
    Action {
        id: format!("roll-back/{}", finding_id("latency", "1", &subject, window)),
        finding: String::new(),
        rule: "latency".to_owned(),
        rule_version: "1".to_owned(),
        subject,
        at_unix_nano: window,
        operation: Operation::RollBack { rollout: "fraud".to_owned() },
        reason: "p95 is 7 times its baseline".to_owned(),
        evidence: Vec::new(),
        cool_down_s,
        is_dry_run: false,
    }
}

#[test]
fn a_finding_is_one_however_often_it_is_seen() {
    let (_dir, governance) = open();
    for (state, at) in [(FindingState::Firing, 1), (FindingState::Firing, 2)] {
        let findings = vec![finding(state, NOW + at)];
        governance.commit(&Evaluation { findings, ..Evaluation::default() }).unwrap();
    }
    let firing = FindingFilter { is_firing: true, ..FindingFilter::default() };
    let found = governance.findings(&firing).unwrap();
    assert_eq!(found, vec![finding(FindingState::Firing, NOW + 2)]);
    let findings = vec![finding(FindingState::Resolved, NOW + 3)];
    governance.commit(&Evaluation { findings, ..Evaluation::default() }).unwrap();
    assert!(governance.findings(&firing).unwrap().is_empty());
    assert_eq!(governance.findings(&FindingFilter::default()).unwrap().len(), 1);
}

#[test]
fn an_action_is_asked_for_once_also_after_a_restart_and_not_within_its_cool_down() {
    let (dir, governance) = open();
    let minute = 60_000_000_000;
    let ask = |governance: &Governance, action: Action| {
        let actions = vec![action];
        governance.commit(&Evaluation { actions, ..Evaluation::default() }).unwrap().len()
    };
    assert_eq!(ask(&governance, action(NOW, 300)), 1);
    assert_eq!(ask(&governance, action(NOW, 300)), 0);
    drop(governance);
    let governance = Governance::open(dir.path()).unwrap();
    assert_eq!(ask(&governance, action(NOW, 300)), 0);
    assert_eq!(ask(&governance, action(NOW + minute, 300)), 0, "it cools down");
    assert_eq!(ask(&governance, action(NOW + 6 * minute, 300)), 1);
    governance.finish(&action(NOW, 300), ActionState::Done, "weights sent", None).unwrap();
    let open = governance.actions(Some(ActionState::Asked), 0).unwrap();
    assert_eq!(open.len(), 1, "{open:?}");
    let done = governance.actions(Some(ActionState::Done), 0).unwrap();
    assert_eq!(done[0].detail, "weights sent");
    assert_eq!(done[0].action, action(NOW, 300));
}

#[test]
fn what_became_of_an_action_is_noted_also_within_the_cool_down() {
    let (_dir, governance) = open();
    let actions = vec![action(NOW, 300)];
    governance.commit(&Evaluation { actions, ..Evaluation::default() }).unwrap();
    let unknown = action(NOW + 60_000_000_000, 300);
    governance.finish(&unknown, ActionState::Failed, "no such rollout", None).unwrap();
    let noted = governance.action(&unknown.id).unwrap().unwrap();
    assert_eq!((noted.state, noted.detail.as_str()), (ActionState::Failed, "no such rollout"));
}

#[test]
fn what_was_not_done_does_not_cool_down() {
    use ActionState::{Asked, Done, DryRun, Failed, Refused};
    for (state, asked) in [(Asked, 0), (Done, 0), (Failed, 1), (Refused, 1), (DryRun, 1)] {
        let (_dir, governance) = open();
        governance.finish(&action(NOW, 300), state, "", None).unwrap();
        let actions = vec![action(NOW + 60_000_000_000, 300)];
        let fresh = governance.commit(&Evaluation { actions, ..Evaluation::default() }).unwrap();
        assert_eq!(fresh.len(), asked, "{state:?}");
    }
}

#[test]
fn what_is_over_is_forgotten_and_what_still_matters_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let day = crate::layout::NANOS_PER_DAY;
    let now = now_unix_nano();
    let old = now - 500 * day;
    let named = |name: &str, state, at| Finding {
        id: name.to_owned(),
        since_unix_nano: at,
        ..finding(state, at)
    };
    let asked = |name: &str, finding: &str, at| Action {
        id: name.to_owned(),
        finding: finding.to_owned(),
        at_unix_nano: at,
        ..action(at, 0)
    };
    let long_cool_down = Action { cool_down_s: 600 * 86_400, ..asked("cools", "", old) };
    {
        let governance = Governance::open(dir.path()).unwrap();
        let findings = vec![
            named("over", FindingState::Resolved, old),
            named("holds", FindingState::Firing, old),
            named("lately", FindingState::Resolved, now),
            named("told", FindingState::Resolved, old),
        ];
        for finding in &findings {
            write_finding(&governance.lock(), finding).unwrap();
        }
        let actions = [
            asked("done", "over", old),
            asked("of-what-holds", "holds", old),
            asked("waits", "told", old),
            asked("young", "", now),
            long_cool_down,
        ];
        for action in &actions {
            insert(&governance.lock(), action).unwrap();
            if action.id != "waits" {
                governance.finish(action, ActionState::Done, "", None).unwrap();
            }
        }
        let sql = "UPDATE actions SET finished = at WHERE finished IS NOT NULL";
        governance.lock().execute(sql, []).unwrap();
        assert_eq!(governance.forget_before(old).unwrap(), (0, 0), "nothing is older");
        governance.commit(&Evaluation::default()).unwrap();
    }
    let governance = Governance::open(dir.path()).unwrap();
    let mut findings: Vec<_> = governance
        .findings(&FindingFilter::default())
        .unwrap()
        .into_iter()
        .map(|of| of.id)
        .collect();
    findings.sort();
    assert_eq!(findings, ["holds", "lately", "told"]);
    let mut actions: Vec<_> =
        governance.actions(None, 0).unwrap().into_iter().map(|of| of.action.id).collect();
    actions.sort();
    assert_eq!(actions, ["cools", "of-what-holds", "waits", "young"]);
}

#[test]
fn a_pause_holds_over_a_restart() {
    let (dir, governance) = open();
    assert!(!governance.pause().unwrap().is_on);
    governance.set_pause(true, "ada", "a release").unwrap();
    drop(governance);
    let governance = Governance::open(dir.path()).unwrap();
    let pause = governance.pause().unwrap();
    assert!(pause.is_on && pause.person == "ada" && pause.reason == "a release");
    governance.set_pause(false, "ada", "").unwrap();
    assert!(!governance.pause().unwrap().is_on);
}

#[test]
fn a_document_keeps_its_versions_and_the_quicker_one_wins() {
    let (_dir, governance) = open();
    let write = |known, body| governance.write_document("rollout", "fraud", known, "", body);
    assert_eq!(write(0, "{}").unwrap(), Some(1));
    assert_eq!(write(0, "{}").unwrap(), None);
    assert_eq!(write(1, r#"{"weight":5}"#).unwrap(), Some(2));
    let newest = governance.document("rollout", "fraud").unwrap().unwrap();
    assert_eq!((newest.version, newest.body.as_str()), (2, r#"{"weight":5}"#));
    assert_eq!(governance.document_history("rollout", "fraud").unwrap().len(), 2);
    assert_eq!(governance.documents("rollout").unwrap(), vec![newest]);
}

#[test]
fn actions_of_a_kind_are_found_behind_any_number_of_others() {
    let (_dir, governance) = open();
    let told = |window: u64| Action {
        operation: Operation::Notify { receiver: "oncall".to_owned() },
        ..action(window, 0)
    };
    governance.finish(&told(NOW), ActionState::Done, "told", None).unwrap();
    let mut actions: Vec<Action> = (1..=MAX_GOVERNANCE_LIST as u64)
        .map(|after| action(NOW + after * 1_000_000_000, 0))
        .collect();
    actions.push(told(NOW + 1_000_000_000_000_000));
    governance.commit(&Evaluation { actions, ..Evaluation::default() }).unwrap();
    let found = governance.actions_of("notify", 0).unwrap();
    let states: Vec<ActionState> = found.iter().map(|one| one.state).collect();
    assert_eq!(states, [ActionState::Asked, ActionState::Done]);
    assert_eq!(governance.actions_of("notify", 1).unwrap(), found[..1]);
    assert!(governance.actions_of("workflow", 0).unwrap().is_empty());
}

#[test]
fn what_keys_have_spent_is_kept_and_put_in_place_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    let spent = |key: &str, period: &str, usd| KeySpending {
        key: key.to_owned(),
        period: period.to_owned(),
        usd,
    };
    let before =
        [spent("a", "2026-11", 2.5), spent("a", "2026-11-26", 1.5), spent("b", "2026-11", 1.0)];
    let governance = Governance::open(dir.path()).unwrap();
    assert_eq!(governance.spending().unwrap(), []);
    governance.write_spending(&before).unwrap();
    let after = [spent("a", "2026-11", 3.0), spent("a", "2026-11-27", 0.5)];
    governance.write_spending(&after).unwrap();
    assert_eq!(Governance::open(dir.path()).unwrap().spending().unwrap(), after);
}
