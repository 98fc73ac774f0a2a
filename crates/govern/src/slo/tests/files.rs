//! Files: what is read, and what is told of mistakes.

use crate::slo::*;

/// A file of one SLO that is good, in parts that tests replace.
pub(super) const GOOD: &str = r#"apiVersion: openslo/v1
kind: SLO
metadata:
  name: answers
spec:
  service: shop
  indicator:
    spec:
      ratioMetric:
        good:
          metricSource:
            type: throughline
            spec:
              spans: span.status != "ERROR"
        total:
          metricSource:
            type: throughline
            spec:
              spans: span.agent == "shop"
  timeWindow:
    - duration: 28d
      isRolling: true
  budgetingMethod: Occurrences
  objectives:
    - target: 0.99
"#;

pub(super) fn read(text: &str) -> SloFiles {
    match read_openslo(&[Source { name: "a.yaml", text }]) {
        Ok(files) => files,
        Err(mistakes) => panic!("expected a good file, got\n{mistakes}"),
    }
}

fn refusal(text: &str) -> String {
    read_openslo(&[Source { name: "a.yaml", text }]).expect_err("a refusal").to_string()
}

/// The good file with something else in a place.
fn with(old: &str, new: &str) -> String {
    assert!(GOOD.contains(old), "the good file has {old:?}");
    GOOD.replacen(old, new, 1)
}

fn told(slo: &Slo) -> String {
    let objective = |objective: &Objective| {
        let Objective { name, target, budgeting, indicator, .. } = objective;
        format!("  {name}: {target} by {budgeting:?}\n    {indicator}\n")
    };
    let alert = |alert: &Alert| {
        let Alert { name, severity, threshold, long_min, short_min, after_min, targets, .. } =
            alert;
        let severity = severity.as_str();
        let targets = targets.join(", ");
        format!(
            "  {name}: {severity} over {threshold} in {long_min}/{short_min} min for {after_min} min → {targets}\n"
        )
    };
    let objectives: String = slo.objectives.iter().map(objective).collect();
    let alerts: String = slo.alerts.iter().map(alert).collect();
    let Slo { name, service, window, evaluation, min_events, runbook, .. } = slo;
    format!(
        "{name} of {service}, {window}, from {min_events} events, {evaluation:?} {runbook}\n{objectives}{alerts}"
    )
}

#[test]
fn r5_2_the_example_files_are_read() {
    let mut sources = Vec::new();
    for (name, text) in [
        ("fraud-agent.yaml", include_str!("../../../../../deploy/slo/fraud-agent.yaml")),
        ("shop-calendar.yaml", include_str!("../../../../../deploy/slo/shop-calendar.yaml")),
        ("confidence.yaml", include_str!("../../../../../deploy/slo/confidence.yaml")),
    ] {
        sources.push(Source { name, text });
    }
    let files = match read_openslo(&sources) {
        Ok(files) => files,
        Err(mistakes) => panic!("{mistakes}"),
    };
    let told: String = files.slos.iter().map(told).collect();
    insta::assert_snapshot!(told);
    assert!(files.notes.is_empty(), "{:?}", files.notes);
}

#[test]
fn what_is_written_reads_back_to_the_same() {
    let texts = [
        include_str!("../../../../../deploy/slo/fraud-agent.yaml"),
        include_str!("../../../../../deploy/slo/shop-calendar.yaml"),
        include_str!("../../../../../deploy/slo/confidence.yaml"),
        GOOD,
    ];
    for text in texts {
        let slos = read(text).slos;
        let written = write_openslo(&slos);
        let again = read(&written).slos;
        assert_eq!(slos.len(), again.len(), "{written}");
        for (slo, again) in slos.iter().zip(&again) {
            assert_eq!(slo.version, again.version, "{written}");
            assert_eq!(told(slo), told(again));
            assert_eq!(slo.description, again.description);
            assert_eq!(slo.display_name, again.display_name);
            let ids = |slo: &Slo| -> Vec<String> {
                slo.objectives.iter().map(|each| each.indicator.id().to_owned()).collect()
            };
            assert_eq!(ids(slo), ids(again), "counters are found again");
        }
    }
}

#[test]
fn words_for_people_are_no_new_version() {
    let version = |text: &str| read(text).slos[0].version.clone();
    let described = with("  service: shop", "  description: new words\n  service: shop");
    assert_eq!(version(GOOD), version(&described));
    assert_ne!(version(GOOD), version(&with("0.99", "0.98")));
    assert_ne!(version(GOOD), version(&with("\"ERROR\"", "\"OK\"")));
    assert_ne!(version(GOOD), version(&with("28d", "7d")));
}

#[test]
fn mistakes_name_their_place() {
    let mut all = Vec::new();
    all.push(refusal(&with("  service: shop", "  servise: shop")));
    all.push(refusal(&with("target: 0.99", "target: 99.9")));
    all.push(refusal(&with("target: 0.99", "targetPercent: 100")));
    all.push(refusal(&with("target: 0.99", "target: most")));
    all.push(refusal(&with("openslo/v1", "openslo/v2alpha")));
    all.push(refusal(&with("kind: SLO", "kind: SLOS")));
    all.push(refusal(&with("type: throughline", "type: Prometheus")));
    all.push(refusal(&with("Occurrences", "Occurences")));
    all.push(refusal(&with("Occurrences", "Timeslices")));
    all.push(refusal(&with("28d", "28 days")));
    all.push(refusal(&with("28d", "1M")));
    all.push(refusal(&with("      isRolling: true", "")));
    all.push(refusal(&with("name: answers", "name: it answers")));
    all.push(refusal(&with(
        "name: answers",
        "name: answers\n  annotations: {throughline.dev/min-event: 3}",
    )));
    all.push(refusal(&format!("{GOOD}---\n{GOOD}")));
    all.push(refusal("kind: SLO\nkind: SLO\n"));
    all.push(refusal("- a list\n"));
    all.push(refusal("a: [\n"));
    all.push(refusal("# nothing\n"));
    insta::assert_snapshot!(all.join("\n\n"));
}

#[test]
fn mistakes_in_windows_name_their_place() {
    let mut all = Vec::new();
    let calendar = |zone: &str, start: &str| {
        let calendar = format!(
            "    - duration: 1M\n      calendar:\n        startTime: {start}\n        timeZone: {zone}"
        );
        with("    - duration: 28d\n      isRolling: true", &calendar)
    };
    assert_eq!(read(&calendar("UTC", "2026-01-31 12:30:00")).slos.len(), 1);
    assert_eq!(read(&calendar("'-03:30'", "2026-01-31 12:30:00")).slos.len(), 1);
    all.push(refusal(&calendar("America/New_York", "2026-01-31 12:30:00")));
    all.push(refusal(&calendar("UTC", "the first")));
    insta::assert_snapshot!(all.join("\n\n"));
}

#[test]
fn mistakes_in_expressions_name_their_place() {
    let mut all = Vec::new();
    let total = "spans: span.agent == \"shop\"";
    all.push(refusal(&with(total, "spans: span.agnet == \"shop\"")));
    all.push(refusal(&with(total, "spans: 'span.agent == \"it''s\" && span.x == 1'")));
    let block =
        "spans: |\n                span.agent == \"shop\" &&\n                span.rol == \"tool\"";
    all.push(refusal(&with(total, block)));
    let folded = "spans: >- # which spans\n                span.agent ==\n                \"shop\" && size(span.x) > 1";
    all.push(refusal(&with(total, folded)));
    all.push(refusal(&with(total, "spans: \"span.agent == \\\"shop\\\" && 1 + true\"")));
    all.push(refusal(&with(total, "spans: span.duration_ms")));
    insta::assert_snapshot!(all.join("\n\n"));
}

#[test]
fn references_that_lead_nowhere_are_told() {
    let mut all = Vec::new();
    let sli = r#"---
apiVersion: openslo/v1
kind: SLI
metadata:
  name: shop-answers
spec:
  thresholdMetric:
    metricSource:
      metricSourceRef: herr
      spec:
        spans: span.agent == "shop"
        value: span.duration
"#;
    let start = GOOD.find("  indicator:").expect("an indicator");
    let end = GOOD.find("  timeWindow:").expect("a window");
    let by_name = |name: &str| {
        let (head, tail) = (&GOOD[..start], &GOOD[end..]);
        format!("{head}  indicatorRef: {name}\n{tail}{sli}")
    };
    all.push(refusal(&by_name("shop-answer")));
    let typed = by_name("shop-answers").replace("metricSourceRef: herr", "type: throughline");
    all.push(refusal(&typed));
    let number = typed.replace("value: span.duration", "value: span.duration_ms");
    all.push(refusal(&number));
    let policies = format!("{GOOD}  alertPolicies:\n    - alertPolicyRef: nobody\n");
    all.push(refusal(&policies));
    let two = format!(
        "{GOOD}  alertPolicies:\n    - kind: AlertPolicy\n      metadata: {{name: p}}\n      spec:\n        conditions:\n        - conditionRef: a\n        - conditionRef: b\n"
    );
    all.push(refusal(&two));
    insta::assert_snapshot!(all.join("\n\n"));
}

#[test]
fn references_go_across_files() {
    let text = include_str!("../../../../../deploy/slo/shop-calendar.yaml");
    let (first, rest) = text.split_once("---\n").expect("documents");
    let sources = [Source { name: "slo", text: rest }, Source { name: "sli", text: first }];
    let files = read_openslo(&sources).expect("good files");
    assert_eq!(files.slos[0].name, "shop-tools");
    assert!(files.notes.is_empty(), "{:?}", files.notes);
    let missing = read_openslo(&sources[..1]).expect_err("no SLI");
    assert!(missing.to_string().contains("these files have no SLI"), "{missing}");
}

#[test]
fn what_will_surprise_is_noted() {
    let low = with("target: 0.99", "target: 0.9");
    let notes: Vec<String> = read(&low).notes.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(notes.join("\n"));
}

proptest::proptest! {
    /// Whatever is cut out or put in: mistakes are told, nothing panics, and places are in the file.
    #[test]
    fn no_file_panics(
        from in 0..700_usize,
        len in 0..40_usize,
        put in r#"[a-z:{}\[\]|>"' \n\-0-9é]{0,12}"#,
    ) {
        let chars: Vec<char> = GOOD.chars().collect();
        let (from, to) = (from.min(chars.len()), (from + len).min(chars.len()));
        let text: String = chars[..from].iter().copied().chain(put.chars()).chain(chars[to..].iter().copied()).collect();
        if let Err(mistakes) = read_openslo(&[Source { name: "a.yaml", text: &text }]) {
            let lines = text.lines().count() + 1;
            for mistake in &mistakes.0 {
                proptest::prop_assert!((1..=lines).contains(&mistake.excerpt.line), "{}", mistake);
            }
        }
    }
}
