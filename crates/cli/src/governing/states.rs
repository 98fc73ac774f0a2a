//! What rules remember, from and for `govern.db`.

use std::collections::HashMap;

use serde::Serialize;
use serde::de::DeserializeOwned;
use throughline_store::{Governance, RuleState};

use super::RoundError;

/// The states of the rules whose names begin so, by the rest of their names. One that cannot be read is
/// told, and its rule begins anew.
pub(super) async fn load<T: DeserializeOwned>(
    governance: &Governance,
    prefix: &'static str,
) -> Result<HashMap<String, T>, RoundError> {
    let governance = governance.clone();
    let states = tokio::task::spawn_blocking(move || governance.states()).await??;
    let of_prefix = states.into_iter().filter_map(|state| {
        let name = state.rule.strip_prefix(prefix)?.to_owned();
        match serde_json::from_str(&state.body) {
            Ok(state) => Some((name, state)),
            Err(error) => {
                tracing::warn!(rule = state.rule, %error, "what a rule remembers cannot be read; it begins anew");
                None
            }
        }
    });
    Ok(of_prefix.collect())
}

/// The row of a state.
pub(super) fn row(prefix: &str, name: &str, version: &str, state: &impl Serialize) -> RuleState {
    RuleState {
        rule: format!("{prefix}{name}"),
        version: version.to_owned(),
        body: serde_json::to_string(state).unwrap_or_default(),
    }
}
