//! What two services agree on, or one of them proposes: the `spec` of a contract's document, as JSON.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use throughline_rules::Expression;
use throughline_rules::schemas::call_schema;

use super::{ContractFile, DEFAULT_MIN_CALLS, DEFAULT_OBJECTIVE, measured_over, of_consumer};
use crate::files::{API_VERSION, check_name, read_rules};
use crate::policy::MAX_POLICY_FILE_BYTES;
use crate::rego::Beside;
use crate::slo::{Indicator, Judge, Source};

/// Over how much of what is stored an answer is measured where a proposal does not say, seconds: a week.
pub const DEFAULT_MEASURED_OVER_S: u64 = 7 * 24 * 3_600;

/// Over how much it can be measured, seconds: from an hour to four weeks.
pub const MEASURED_OVER_S: (u64, u64) = (3_600, 28 * 24 * 3_600);

/// Members of `spec` that are about a proposal, and no terms.
const OF_PROPOSALS: [&str; 2] = ["status", "measured_over"];

/// Members of `spec` that say in Rego what is expected.
const OF_REGO: [&str; 4] = ["rego", "rego_file", "query", "rego_limits"];

/// Terms that can be meant: they were read as a rule file is. Members are those of `spec`
/// (docs/governance.md).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Terms(Map<String, Value>);

/// A document with a contract, or the proposal of one.
#[derive(Debug, Clone, PartialEq)]
pub struct ContractDocument {
    /// Name of the contract.
    pub name: String,
    /// What it says.
    pub terms: Terms,
    /// Whether it is only proposed.
    pub is_proposed: bool,
    /// Over how much of what is stored the answer is measured, seconds; `None` where it does not say.
    pub measured_over_s: Option<u64>,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    spec: Map<String, Value>,
}

#[derive(Default, Deserialize)]
struct Named {
    #[serde(default)]
    name: String,
}

impl Terms {
    /// Reads terms as a rule file of this name would be read.
    ///
    /// # Errors
    /// A text for people: all that is wrong, with what was expected.
    pub fn read(name: &str, spec: &Value) -> Result<Self, String> {
        check_name(name)?;
        let Value::Object(spec) = spec else {
            return Err(format!(
                "expected terms as an object with consumer, provider, when and expect, got {}",
                kind_of(spec)
            ));
        };
        if let Some(odd) = OF_PROPOSALS.iter().find(|odd| spec.contains_key(**odd)) {
            return Err(format!(
                "expected terms, got {odd:?} among them, which is about a proposal"
            ));
        }
        if let Some(odd) = OF_REGO.iter().find(|odd| spec.contains_key(**odd)) {
            return Err(format!(
                "expected terms in CEL (`expect`), got {odd:?}: contracts in Rego are held by files, and not negotiated"
            ));
        }
        let terms = Self(spec.clone());
        let text = terms.document(name);
        let spec = serde_json::to_string(&terms.0).unwrap_or_default();
        let file: ContractFile = serde_saphyr::from_str(&spec).map_err(|error| {
            let told = error.without_snippet().to_string();
            // A place in JSON that nobody has written tells nobody anything.
            told.split(" at line ").next().unwrap_or(&told).to_owned()
        })?;
        let beside = Beside { file: "terms", texts: &BTreeMap::new() };
        file.load(name, &text, beside).map_err(|wrong| {
            let told = wrong.0.iter().map(|problem| match problem.hint.is_empty() {
                true => problem.message.clone(),
                false => format!("{} ({})", problem.message, problem.hint),
            });
            told.collect::<Vec<_>>().join("; ")
        })?;
        // What is done while it is broken is read with all else.
        let source = Source { name: "terms", text: &text };
        read_rules(&[source]).map_err(|wrong| {
            let without_place =
                |told: &String| told.splitn(4, ':').nth(3).unwrap_or(told).trim().to_owned();
            wrong.0.iter().map(without_place).collect::<Vec<_>>().join("; ")
        })?;
        Ok(terms)
    }

    /// The terms of a document that was read already.
    pub(crate) fn of_document(text: &str) -> Result<Self, String> {
        let document: Document =
            serde_saphyr::from_str(text).map_err(|error| error.without_snippet().to_string())?;
        let mut spec = document.spec;
        OF_PROPOSALS.iter().for_each(|member| {
            spec.remove(*member);
        });
        Ok(Self(spec))
    }

    /// A rule file with these terms; JSON, which YAML contains.
    pub fn document(&self, name: &str) -> String {
        let document = json!({
            "apiVersion": API_VERSION,
            "kind": "Contract",
            "metadata": {"name": name},
            "spec": self.0,
        });
        serde_json::to_string_pretty(&document).unwrap_or_default()
    }

    /// The members of `spec`.
    pub fn as_json(&self) -> Value {
        Value::Object(self.0.clone())
    }

    fn text(&self, member: &str) -> &str {
        self.0.get(member).and_then(Value::as_str).unwrap_or_default()
    }

    /// The agent or service that calls.
    pub fn consumer(&self) -> &str {
        self.text("consumer")
    }

    /// Who is called, and promises.
    pub fn provider(&self) -> &str {
        self.text("provider")
    }

    /// Which calls are meant, a condition in CEL.
    pub fn when(&self) -> &str {
        self.text("when")
    }

    /// What is expected of them, a condition in CEL; what is asked of a policy in Rego, where that says it.
    pub fn expect(&self) -> &str {
        match self.text("expect") {
            "" => self.text("query"),
            expect => expect,
        }
    }

    /// The share of calls that shall be as expected, between 0 and 1.
    pub fn objective(&self) -> f64 {
        self.0.get("objective").and_then(Value::as_f64).unwrap_or(DEFAULT_OBJECTIVE)
    }

    /// Calls without which nothing is said.
    pub fn min_events(&self) -> u64 {
        let told = self.0.get("min_events").and_then(Value::as_u64);
        told.unwrap_or(DEFAULT_MIN_CALLS as u64)
    }

    /// These terms with another objective.
    pub fn with_objective(&self, objective: f64) -> Self {
        self.with("objective", objective.into())
    }

    /// These terms with another expectation.
    pub fn with_expect(&self, expect: &str) -> Self {
        self.with("expect", expect.into())
    }

    pub(super) fn with(&self, member: &str, value: Value) -> Self {
        let mut terms = self.0.clone();
        terms.insert(member.to_owned(), value);
        Self(terms)
    }

    /// What is counted when calls that are as some condition says are the good ones.
    pub(super) fn indicator(&self, expect: &str) -> Result<Arc<Indicator>, String> {
        let schema = call_schema();
        let told = |error: &dyn std::fmt::Display| error.to_string();
        let guard = Expression::filter(&of_consumer(self.consumer(), self.when()), &schema)
            .map_err(|error| told(&error))?;
        let expect = Expression::filter(expect, &schema).map_err(|error| told(&error))?;
        Indicator::new(guard, Judge::Good(expect)).map(Arc::new).map_err(|error| told(&error))
    }
}

/// Reads the one document of a file that holds a contract, or the proposal of one.
///
/// # Errors
/// A text for people.
pub fn read_contract(text: &str) -> Result<ContractDocument, String> {
    #[derive(Deserialize)]
    struct Header {
        #[serde(default, rename = "apiVersion")]
        api_version: String,
        #[serde(default)]
        kind: String,
        #[serde(default)]
        metadata: Named,
        #[serde(default)]
        spec: Map<String, Value>,
    }
    if text.len() > MAX_POLICY_FILE_BYTES {
        let got = text.len();
        return Err(format!("expected at most {MAX_POLICY_FILE_BYTES} bytes, got {got}"));
    }
    let header: Header = serde_saphyr::from_str(text)
        .map_err(|error| format!("expected one YAML document: {}", error.without_snippet()))?;
    if (header.api_version.as_str(), header.kind.as_str()) != (API_VERSION, "Contract") {
        return Err(format!(
            "expected `apiVersion: {API_VERSION}` and `kind: Contract`, got {:?} and {:?}",
            header.api_version, header.kind
        ));
    }
    let is_proposed = match header.spec.get("status").map(|status| status.as_str()) {
        None | Some(Some("agreed")) => false,
        Some(Some("proposed")) => true,
        Some(_) => return Err("expected a `status` of agreed or proposed".to_owned()),
    };
    let over = match header.spec.get("measured_over") {
        None => None,
        Some(told) => Some(measured_over(told.as_str().unwrap_or_default())?),
    };
    let (name, mut spec) = (header.metadata.name, header.spec);
    OF_PROPOSALS.iter().for_each(|member| {
        spec.remove(*member);
    });
    let terms = Terms::read(&name, &Value::Object(spec))?;
    Ok(ContractDocument { name, terms, is_proposed, measured_over_s: over })
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
