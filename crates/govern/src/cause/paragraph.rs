//! A cause in words.

use super::{Condition, Factor, PrecedingChange, RootCause};

/// Further factors that are named.
const MAX_FURTHER: usize = 2;

/// One paragraph for people. `what` names the bad cases ("slow decisions"), `usual` the good ones ("good
/// ones").
pub fn paragraph(cause: &RootCause, what: &str, usual: &str) -> String {
    let (bad, good) = (cause.bad, cause.good);
    if !cause.is_enough {
        return format!(
            "Too little to compare: {bad} {what} and {good} {usual}. No cause is named.{}",
            changes_alone(&cause.changes)
        );
    }
    let Some(first) = cause.factors.first() else {
        return format!(
            "Nothing sets {bad} {what} apart from {good} {usual}: no value of an attribute is \
             significantly more frequent among them.{}",
            changes_alone(&cause.changes)
        );
    };
    let mut text = format!(
        "{} of the {what} ran {} ({} of the {usual})",
        percent(first.bad_share),
        named(first),
        percent(first.good_share)
    );
    match cause.changes.iter().find(|found| found.factor == Some(0)) {
        Some(found) => text.push_str(&format!(", which {}.", was_changed(found))),
        None => text.push('.'),
    }
    if !first.always_with.is_empty() {
        text.push_str(&format!(
            " {} came with it every time, so the data cannot tell them apart.",
            list(&first.always_with)
        ));
    }
    text.push_str(&format!(
        " With it {what} are {:.1} times as frequent as among all; p {} after correction, from {bad} {what} \
         and {good} {usual}.",
        first.lift,
        p_value(first.p_value)
    ));
    let further: Vec<String> = cause
        .factors
        .iter()
        .skip(1)
        .take(MAX_FURTHER)
        .map(|factor| {
            let (bad, good) = (percent(factor.bad_share), percent(factor.good_share));
            format!("{} ({bad} against {good})", named(factor))
        })
        .collect();
    if !further.is_empty() {
        text.push_str(&format!(" Less telling: {}.", further.join(", ")));
    }
    if !cause.changes.iter().any(|found| found.factor == Some(0)) {
        text.push_str(&changes_alone(&cause.changes));
    }
    text
}

fn named(factor: &Factor) -> String {
    factor.conditions.iter().map(one).collect::<Vec<_>>().join(" with ")
}

fn one(condition: &Condition) -> String {
    let value = if condition.value.is_empty() { "(empty)" } else { &condition.value };
    format!("{} {value}", condition.attribute)
}

fn list(conditions: &[Condition]) -> String {
    conditions.iter().map(one).collect::<Vec<_>>().join(" and ")
}

fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent > 0.0 && percent < 1.0 { "<1 %".to_owned() } else { format!("{percent:.0} %") }
}

fn p_value(p: f64) -> String {
    if p < 1e-6 { "< 0.000001".to_owned() } else { format!("= {p:.6}") }
}

fn was_changed(found: &PrecedingChange) -> String {
    let change = &found.change;
    let instead = match change.from.as_str() {
        "" => String::new(),
        from => format!(" in place of {from}"),
    };
    format!("was deployed{instead} {}", when(found.seconds_before))
}

fn when(seconds_before: f64) -> String {
    let side = if seconds_before < 0.0 { "after" } else { "before" };
    let seconds = seconds_before.abs().round() as u64;
    match seconds {
        0 => "at the moment when it began".to_owned(),
        1..120 => format!("{seconds} s {side} it began"),
        _ => format!("{} min {side} it began", seconds.div_euclid(60)),
    }
}

fn changes_alone(changes: &[PrecedingChange]) -> String {
    let Some(found) = changes.first() else {
        return String::new();
    };
    let change = &found.change;
    let subject = match change.subject.as_str() {
        "" => String::new(),
        subject => format!(" of {subject}"),
    };
    let from = match change.from.as_str() {
        "" => String::new(),
        from => format!(" from {from}"),
    };
    let when = when(found.seconds_before);
    format!(" The nearest change: {}{subject} went{from} to {} {when}.", change.kind, change.to)
}
