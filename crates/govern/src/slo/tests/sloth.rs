//! Files of Sloth.

use crate::slo::*;

const SLOTH: &str = r##"version: "prometheus/v1"
service: shop
labels:
  owner: shop-team
slos:
  - name: tools
    objective: 99.9
    description: Tools that work.
    sli:
      events:
        error_query: span.status == "ERROR"
        total_query: span.role == "tool" && span.agent == "shop"
    alerting:
      name: ShopTools
      page_alert:
        disable: true
      ticket_alert:
        labels:
          slack_channel: "#shop"
"##;

fn import(text: &str) -> Result<SloFiles, String> {
    import_sloth(Source { name: "s.yml", text }).map_err(|mistakes| mistakes.to_string())
}

#[test]
fn r5_2_a_file_of_sloth_becomes_a_file_of_openslo() {
    let files = import(SLOTH).expect("a good file");
    let notes: Vec<String> = files
        .notes
        .iter()
        .map(|note| format!("{}: {}", note.excerpt.line, note.excerpt.message))
        .collect();
    assert_eq!(
        notes,
        [
            "4: `labels` is not brought over",
            "14: `name` is not brought over",
            "19: `labels` is not brought over"
        ]
    );
    let written = write_openslo(&files.slos);
    insta::assert_snapshot!(written);
    let again = super::files::read(&written).slos;
    assert_eq!(again[0].version, files.slos[0].version);
    assert_eq!(again[0].alerts, files.slos[0].alerts, "both windows of its alerts are kept");
    assert_eq!(again[0].usual_alerts, UsualAlerts::Ticket);
}

#[test]
fn what_cannot_be_brought_over_is_refused() {
    let promql = SLOTH.replace("span.status == \"ERROR\"", "sum(rate(errors[{{.window}}]))");
    let raw = SLOTH.replace("      events:\n        error_query: span.status == \"ERROR\"\n        total_query: span.role == \"tool\" && span.agent == \"shop\"\n", "      raw:\n        error_ratio_query: x\n");
    let all = [
        promql,
        raw,
        SLOTH.replace("99.9", "100"),
        SLOTH.replace("prometheus/v1", "sloth.slok.dev/v1"),
        SLOTH.replace("total_query", "totl_query"),
    ];
    let told: Vec<String> = all.iter().map(|text| import(text).expect_err("refused")).collect();
    insta::assert_snapshot!(told.join("\n\n"));
}
