//! What is read of `sampling:`, and what is refused.

use std::path::Path;

use super::*;
use crate::config::FileConfig;

fn resolved(yaml: &str) -> Outcome<Sampling> {
    FileConfig::parse(Path::new("x.yaml"), yaml)?.sampling.resolve()
}

fn refusal(yaml: &str) -> String {
    resolved(yaml).expect_err("a refusal").to_text()
}

#[test]
fn without_a_word_everything_is_kept() {
    let sampling = resolved("data_dir: x\n").expect("good");
    assert!(!sampling.is_active());
    assert_eq!(sampling, Sampling::default());
    // Kinds that are kept take nothing away by themselves.
    assert!(
        !resolved("sampling: { keep: { rare: { fewer_than: 9 } } }\n").expect("good").is_active()
    );
}

#[test]
fn all_of_it_is_read() {
    let sampling = resolved(
        "sampling:
  rate: 0.1
  keep: { errors: true, fallbacks: false, slow: { over: 30s, quantile: 0.99 },
          rare: { fewer_than: 20, by: shape }, confidence_below: 0.62, decided: false }
  rules:
  - { name: payments, when: 'trace.agent == \"payments\"', keep: true }
  - { name: health, when: trace.name == \"health\", rate: 0 }
  wait: 5m
  max_wait: 2h
",
    )
    .map_err(|failure| failure.to_text())
    .expect("good");
    let always = Always {
        errors: true,
        fallbacks: false,
        slow_over: Some(Duration::from_secs(30)),
        slow_quantile: Some(0.99),
        rare: Some(Rare { fewer_than: 20, by: Kind::Shape }),
        confidence_below: Some(0.62),
        decided: false,
        slo: true,
        held: true,
    };
    assert_eq!(sampling.always, always);
    assert_eq!(sampling.rest.weight(), 10.0);
    let rules: Vec<_> =
        sampling.rules.iter().map(|rule| (rule.name.as_str(), rule.rate.weight())).collect();
    assert_eq!(rules, [("payments", 1.0), ("health", 0.0)]);
    assert_eq!((sampling.wait.as_secs(), sampling.max_wait.as_secs()), (300, 7_200));
    assert!(sampling.is_active());
}

#[test]
fn the_example_of_the_guide_is_good() {
    let guide = include_str!("../../../../../docs/sampling.md");
    let examples: Vec<&str> = guide.split("```yaml\n").skip(1).collect();
    assert!(!examples.is_empty());
    for example in examples {
        let yaml = example.split("```").next().expect("an end");
        assert!(resolved(yaml).map_err(|failure| failure.to_text()).expect("good").is_active());
    }
}

#[test]
fn what_cannot_be_meant_is_refused_with_its_place() {
    insta::assert_snapshot!(refusal("sampling: { rate: 10 }\n"), @r"
    error(2): expected `sampling.rate` of 0, or of 0.000001 to 1, got 10
    hint: it is the share of traces that is kept: 0.1 keeps one in ten
    ");
    insta::assert_snapshot!(refusal("sampling: { keep: { eror: true } }\n"), @r"
    error(2): x.yaml:1:21: unknown key `eror`
    hint: did you mean `errors`?
    ");
    insta::assert_snapshot!(
        refusal("sampling:\n  rules:\n  - name: a\n    when: trace.agnt == \"x\"\n    keep: true\n"),
        @r#"
    error(2): x.yaml:4:11: expected a rule over `trace`:
    1:7: expected a field of trace, got agnt
    1 | trace.agnt == "x"
      |       ^^^^
      = hint: did you mean agent?
    hint: leave the key out to get its default
    "#
    );
    insta::assert_snapshot!(
        refusal("sampling: { rules: [{ name: a, when: 'true' }] }\n"), @r"
    error(2): expected `keep: true` or a `rate` in the rule `a` of `sampling.rules`
    hint: `rate: 0` keeps none of them, errors and other kinds of `keep` excepted
    "
    );
    insta::assert_snapshot!(
        refusal("sampling: { rules: [{ name: a, when: 'true', keep: true }, { name: a, when: 'true', rate: 0 }] }\n"),
        @r"
    error(2): expected different names of `sampling.rules`, got `a` twice
    hint: what a rule keeps and takes is counted by its name
    "
    );
    insta::assert_snapshot!(refusal("sampling: { wait: 10 }\n"), @r#"
    error(2): x.yaml:1:19: expected a time such as 500ms, 30s, 10m or 24h, got "10"
    hint: leave the key out to get its default
    "#);
    insta::assert_snapshot!(refusal("sampling: { wait: 2h, max_wait: 1h }\n"), @r"
    error(2): expected `sampling.max_wait` of at least `wait` (7200 s), got 3600 s
    hint: a segment waits for each of its traces to be quiet for `wait`
    ");
    insta::assert_snapshot!(refusal("sampling: { keep: { slow: { quantile: 99 } } }\n"), @r"
    error(2): expected `sampling.keep.slow.quantile` between 0 and 1, got 99
    hint: leave it out to switch it off
    ");
}
