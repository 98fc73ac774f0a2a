//! Where the parts of a `Rollout` document stand, so that what is wrong with one is told where it is.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_saphyr::{Location, Spanned};

#[derive(Deserialize)]
struct Document {
    spec: Spec,
}

#[derive(Deserialize)]
struct Spec {
    agent: Option<Spanned<IgnoredAny>>,
    route: Option<Spanned<IgnoredAny>>,
    stable: Option<Spanned<IgnoredAny>>,
    candidate: Option<Spanned<IgnoredAny>>,
    steps: Option<Spanned<Vec<Step>>>,
    #[serde(default)]
    analysis: BTreeMap<String, Spanned<IgnoredAny>>,
}

#[derive(Deserialize)]
struct Step {
    weight: Spanned<IgnoredAny>,
}

/// The places of a document's parts by name, as [`super::SpecMistake::part`] names them: `agent`,
/// `steps[0].weight`, `analysis.alpha`. Nothing of a document that is no rollout.
pub(crate) fn places(document: &str) -> BTreeMap<String, Location> {
    let Ok(Document { spec }) = serde_saphyr::from_str(document) else { return BTreeMap::new() };
    let mut found = BTreeMap::new();
    for (name, part) in [
        ("agent", spec.agent),
        ("route", spec.route),
        ("stable", spec.stable),
        ("candidate", spec.candidate),
    ] {
        found.extend(part.map(|part| (name.to_owned(), part.referenced)));
    }
    if let Some(steps) = spec.steps {
        found.insert("steps".to_owned(), steps.referenced);
        for (at, step) in steps.value.iter().enumerate() {
            found.insert(format!("steps[{at}].weight"), step.weight.referenced);
        }
    }
    for (name, part) in spec.analysis {
        found.insert(format!("analysis.{name}"), part.referenced);
    }
    found
}
