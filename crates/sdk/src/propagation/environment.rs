//! The trace in the environment of a subprocess: `TRACEPARENT`, `TRACESTATE`, `BAGGAGE` (OpenTelemetry,
//! environment variables as carriers).

use std::collections::BTreeMap;

use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector};

use super::{Incoming, baggage, is_allowed, trace_texts};

/// The variables that carry a trace. Remove them from the copy of the environment before those of
/// [`inject_env`] are set: a child would go on with the trace that this process was started in.
pub const ENV_NAMES: [&str; 3] = ["TRACEPARENT", "TRACESTATE", "BAGGAGE"];

/// The variables to set in the environment of a subprocess, so that it goes on with the trace of
/// `cx`: set them on the child's copy, never on this process.
///
/// ```
/// use throughline::propagation::{ENV_NAMES, inject_env};
///
/// let mut child = std::process::Command::new("python");
/// for name in ENV_NAMES {
///     child.env_remove(name);
/// }
/// child.envs(inject_env(&opentelemetry::Context::current()));
/// ```
pub fn inject_env(cx: &Context) -> Vec<(String, String)> {
    let (parent, state) = trace_texts(cx);
    let texts = [parent, state, baggage::text(cx, is_allowed)];
    let named = ENV_NAMES.into_iter().map(str::to_owned).zip(texts);
    // A variable cannot hold a zero byte, and no text of ours does.
    named.filter(|(_, text)| !text.is_empty()).collect()
}

/// The current context with the trace that these variables name, by the rules of
/// [`extract`](super::extract). Of a name that comes twice, the last counts.
pub fn extract_env(vars: impl IntoIterator<Item = (String, String)>) -> Context {
    let carrier = EnvCarrier::from_vars(vars);
    let all = |name| carrier.value(name).map(str::as_bytes).into_iter().collect();
    let [parent, state, baggage] = ENV_NAMES;
    let incoming = Incoming { parents: all(parent), states: all(state), baggage: all(baggage) };
    incoming.onto(&Context::current())
}

/// [`extract_env`] of this process: what it was started in. Call it once at the start.
pub fn extract_process_env() -> Context {
    // Not `vars`: it panics when any variable is no Unicode.
    extract_env(ENV_NAMES.into_iter().filter_map(|name| {
        let value = std::env::var(name).ok()?;
        Some((name.to_owned(), value))
    }))
}

/// Environment variables as a carrier for any propagator. Its names are those of the environment:
/// uppercase, with `_` for every character that is neither letter nor digit, and before a digit
/// that begins one (`x-b3-traceid` is `X_B3_TRACEID`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EnvCarrier(BTreeMap<String, String>);

impl EnvCarrier {
    /// An empty carrier.
    pub fn new() -> Self {
        Self::default()
    }

    /// A carrier of these variables.
    pub fn from_vars(vars: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(vars.into_iter().collect())
    }

    /// The variables, to be set on the copy of an environment.
    pub fn into_vars(self) -> impl Iterator<Item = (String, String)> {
        self.0.into_iter()
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

impl Injector for EnvCarrier {
    fn set(&mut self, key: &str, value: String) {
        self.0.insert(normalised(key), value);
    }
}

impl Extractor for EnvCarrier {
    fn get(&self, key: &str) -> Option<&str> {
        self.value(&normalised(key))
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }
}

fn normalised(key: &str) -> String {
    let mut name = String::with_capacity(key.len() + 1);
    if key.chars().next().is_none_or(|first| first.is_ascii_digit()) {
        name.push('_');
    }
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    name.extend(key.chars().map(plain));
    name
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dimensions::Dimensions;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03";

    fn vars(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn r2_2_a_trace_survives_the_environment() {
        let sent = vars(&[
            ("TRACEPARENT", GOOD),
            ("TRACESTATE", "foo@@bar=1,a=2"),
            ("BAGGAGE", "session_id=s%201"),
        ]);
        let cx = extract_env(sent.clone());
        assert_eq!(Dimensions::of(&cx), Dimensions::new().session("s 1"));
        assert_eq!(inject_env(&cx), sent);
        assert_eq!(inject_env(&Context::new()), []);
    }

    #[test]
    fn names_are_those_of_the_environment() {
        for (key, name) in
            [("", "_"), ("x-b3-traceid", "X_B3_TRACEID"), ("1a", "_1A"), ("ü.b", "__B")]
        {
            assert_eq!(normalised(key), name);
        }
        let mut carrier = EnvCarrier::new();
        carrier.set("my-key", "v".to_owned());
        assert_eq!(carrier.get("my-key"), Some("v"));
        assert_eq!(carrier.keys(), ["MY_KEY"]);
        assert_eq!(carrier.into_vars().collect::<Vec<_>>(), vars(&[("MY_KEY", "v")]));
    }

    proptest! {
        #[test]
        fn any_variables_are_read_without_a_panic(value in "\\PC{0,80}", key in "\\PC{0,20}") {
            let _ = extract_env(ENV_NAMES.map(|name| (name.to_owned(), value.clone())));
            let name = normalised(&key);
            prop_assert_eq!(normalised(&name), name, "normal names stay");
        }
    }
}
