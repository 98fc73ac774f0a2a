//! Directives: what the server tells a running agent (requirements R5.2, R5.6 and R5.10). The
//! protocol is in `docs/directives.md`, the schema in `docs/directive.schema.json`.

mod action;
mod retry_strategy;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

pub use self::action::{ActionError, DirectiveAction};
pub use self::retry_strategy::{
    MAX_RETRY_ATTEMPTS, MAX_RETRY_PAUSE_MS, RetryJitter, RetryStrategy, RetryStrategyError,
};
use crate::{Subject, TraceId};

/// Version of the protocol that this code speaks.
pub const DIRECTIVE_VERSION: u32 = 1;

/// Bytes of a directive's JSON at most.
pub const DIRECTIVE_MAX_BYTES: usize = 64 * 1024;

/// Characters of a directive's id at most.
pub const DIRECTIVE_ID_MAX_CHARS: usize = 256;

/// Why JSON is no directive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct DirectiveError {
    /// The id, where it could be read: whoever sent it can be told.
    pub id: Option<String>,
    /// What was expected and what came.
    pub problem: String,
}

/// Whom a directive is for: all that is said must hold. One that says nothing is for everybody who
/// hears it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DirectiveTarget {
    /// The agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
    /// `service.name` of the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// `service.instance.id` of the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    /// The session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// The workflow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflow_id: Option<String>,
}

/// Reads objects only. What `serde` makes of a struct also takes a list, and one of nulls would be for
/// everybody.
impl<'de> Deserialize<'de> for DirectiveTarget {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let mut fields = Map::<String, Value>::deserialize(deserializer)?;
        let mut text = |name: &str| match fields.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(D::Error::custom(format!("expected {name} to be a text"))),
        };
        Ok(Self {
            agent_id: text("agent_id")?,
            service: text("service")?,
            instance_id: text("instance_id")?,
            session_id: text("session_id")?,
            workflow_id: text("workflow_id")?,
        })
    }
}

impl DirectiveTarget {
    /// Whom a subject names by `agent`, `service`, `instance`, `session` and `workflow`; `None` where it
    /// names nobody, which would mean everybody.
    pub fn of_subject(subject: &Subject) -> Option<Self> {
        let label = |name: &str| subject.get(name).map(str::to_owned);
        let target = Self {
            agent_id: label("agent"),
            service: label("service"),
            instance_id: label("instance"),
            session_id: label("session"),
            workflow_id: label("workflow"),
        };
        (target != Self::default()).then_some(target)
    }

    /// Whether a process is meant.
    pub fn is_process(&self, service: &str, instance_id: &str) -> bool {
        is_meant(&self.service, Some(service)) && is_meant(&self.instance_id, Some(instance_id))
    }

    /// Whether work with these dimensions is meant. Work that does not say whose it is, is not meant
    /// by a directive that does.
    pub fn is_work(
        &self,
        agent_id: Option<&str>,
        session_id: Option<&str>,
        workflow_id: Option<&str>,
    ) -> bool {
        is_meant(&self.agent_id, agent_id)
            && is_meant(&self.session_id, session_id)
            && is_meant(&self.workflow_id, workflow_id)
    }
}

fn is_meant(wanted: &Option<String>, is: Option<&str>) -> bool {
    wanted.as_deref().is_none_or(|wanted| is == Some(wanted))
}

/// One directive. The same id means the same directive, however often it comes.
#[derive(Debug, Clone, PartialEq)]
pub struct Directive {
    /// Unique: made of rule, version, subject and window, so that a server that restarts does not
    /// repeat itself.
    pub id: String,
    /// When it was given, nanoseconds since the Unix epoch.
    pub issued_at_ns: u64,
    /// When it no longer holds, nanoseconds since the Unix epoch. There is none without an end: an
    /// agent that loses its server goes back to its own ways.
    pub expires_at_ns: u64,
    /// Whom it is for.
    pub target: DirectiveTarget,
    /// What to do.
    pub action: DirectiveAction,
    /// Why, for people.
    pub reason: String,
    /// Traces that justify it.
    pub evidence: Vec<TraceId>,
    /// The rule that spoke; empty when a person did.
    pub rule: String,
    /// Version of the protocol.
    pub version: u32,
    /// Fields of a later version, kept.
    pub other: Map<String, Value>,
}

impl Directive {
    /// A directive for everybody, without evidence.
    pub fn new(
        id: impl Into<String>,
        issued_at_ns: u64,
        expires_at_ns: u64,
        action: DirectiveAction,
    ) -> Self {
        Self {
            id: id.into(),
            issued_at_ns,
            expires_at_ns,
            target: DirectiveTarget::default(),
            action,
            reason: String::new(),
            evidence: Vec::new(),
            rule: String::new(),
            version: DIRECTIVE_VERSION,
            other: Map::new(),
        }
    }

    /// Whether it no longer holds.
    pub fn is_expired(&self, now_ns: u64) -> bool {
        now_ns >= self.expires_at_ns
    }

    /// Reads a directive from JSON. Fields and actions of later versions are kept.
    ///
    /// # Errors
    /// [`DirectiveError`], with the id if that much could be read.
    pub fn from_json(json: &str) -> Result<Self, DirectiveError> {
        let of = |id: Option<&str>, problem: String| DirectiveError {
            id: id.map(str::to_owned),
            problem,
        };
        if json.len() > DIRECTIVE_MAX_BYTES {
            let got = json.len();
            return Err(of(
                None,
                format!("expected at most {DIRECTIVE_MAX_BYTES} bytes, got {got}"),
            ));
        }
        let value: Value = serde_json::from_str(json)
            .map_err(|error| of(None, format!("expected JSON: {error}")))?;
        let id = value.get("id").and_then(Value::as_str).map(str::to_owned);
        Self::read(value).map_err(|problem| of(id.as_deref(), problem))
    }

    fn read(json: Value) -> Result<Self, String> {
        let Value::Object(mut fields) = json else {
            return Err("expected an object".to_owned());
        };
        let id = match fields.remove("id") {
            Some(Value::String(id))
                if (1..=DIRECTIVE_ID_MAX_CHARS).contains(&id.chars().count()) =>
            {
                id
            }
            _ => return Err(format!("expected an id of 1 to {DIRECTIVE_ID_MAX_CHARS} characters")),
        };
        let mut nanos = |name: &str| {
            fields.remove(name).as_ref().and_then(nanos_of).ok_or_else(|| {
                format!("expected {name} to be nanoseconds since 1970, as text or number")
            })
        };
        let (issued_at_ns, expires_at_ns) = (nanos("issued_at_ns")?, nanos("expires_at_ns")?);
        let action = fields.remove("action").ok_or("expected an action")?;
        let action = DirectiveAction::from_json(action).map_err(|error| error.to_string())?;
        fn part<T: serde::de::DeserializeOwned + Default>(
            fields: &mut Map<String, Value>,
            name: &str,
        ) -> Result<T, String> {
            match fields.remove(name) {
                None | Some(Value::Null) => Ok(T::default()),
                Some(value) => serde_json::from_value(value)
                    .map_err(|error| format!("expected a {name} that can be read: {error}")),
            }
        }
        Ok(Self {
            id,
            issued_at_ns,
            expires_at_ns,
            target: part(&mut fields, "target")?,
            action,
            reason: part(&mut fields, "reason")?,
            evidence: part(&mut fields, "evidence")?,
            rule: part(&mut fields, "rule")?,
            version: part::<Option<u32>>(&mut fields, "version")?.unwrap_or(DIRECTIVE_VERSION),
            other: fields,
        })
    }

    /// The JSON of the directive. Times are text: JavaScript's numbers do not hold them.
    pub fn to_json(&self) -> Value {
        let mut all = self.other.clone();
        let mut put = |name: &str, value: Value| all.insert(name.to_owned(), value);
        put("id", self.id.clone().into());
        put("version", self.version.into());
        put("issued_at_ns", self.issued_at_ns.to_string().into());
        put("expires_at_ns", self.expires_at_ns.to_string().into());
        put("target", serde_json::to_value(&self.target).unwrap_or_default());
        put("action", self.action.to_json());
        put("reason", self.reason.clone().into());
        put("rule", self.rule.clone().into());
        let evidence: Vec<Value> = self.evidence.iter().map(|id| id.to_string().into()).collect();
        put("evidence", evidence.into());
        Value::Object(all)
    }
}

/// Nanoseconds as text or number.
fn nanos_of(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

impl Serialize for Directive {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_json().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Directive {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        Self::read(Value::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// What became of a directive in one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DirectiveStatus {
    /// It holds.
    Applied,
    /// It cannot be obeyed: wrong, or wrongly signed.
    Refused,
    /// It came too late.
    Expired,
    /// Its action is of a later version.
    Unsupported,
}

/// The answer to a directive: the body of `POST /api/v1/directives/{id}/ack`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectiveAck {
    /// `service.instance.id` of the process that answers.
    pub instance_id: String,
    /// What became of it.
    pub status: DirectiveStatus,
    /// The decision that records it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision_id: Option<crate::DecisionId>,
    /// Why it was not applied.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const JSON: &str = r#"{"action":{"retry_strategy":"exponential_backoff(max_attempts=3)","type":"retry_strategy"},"evidence":["4bf92f3577b34da6a3ce929d0e0e4736"],"expires_at_ns":"1764144000000000000","id":"contract-7/1/shop/2026-11-26T08:00","issued_at_ns":"1764143700000000000","mood":"good","reason":"the warehouse broke its contract","rule":"warehouse-latency","target":{"agent_id":"shop"},"version":1}"#;

    #[test]
    fn a_target_is_an_object_and_never_everybody_by_mistake() {
        let read = |json: &str| serde_json::from_str::<DirectiveTarget>(json);
        assert_eq!(read("{}").expect("everybody"), DirectiveTarget::default());
        let shop = DirectiveTarget { service: Some("shop".to_owned()), ..Default::default() };
        assert_eq!(read(r#"{"service":"shop","agent_id":null,"later":[1]}"#).expect("shop"), shop);
        for wrong in ["[null, null]", "[]", r#"{"service":7}"#, r#""shop""#] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn r5_10_a_directive_survives_json_with_what_it_does_not_know() {
        let directive = Directive::from_json(JSON).expect("a directive");
        assert_eq!(
            directive.action.to_string(),
            "retry_strategy: exponential_backoff(max_attempts=3)"
        );
        assert_eq!(directive.expires_at_ns, 1_764_144_000_000_000_000);
        assert_eq!(directive.other["mood"], "good");
        assert_eq!(serde_json::to_string(&directive).expect("json"), JSON);
        assert!(!directive.is_expired(1_764_143_999_999_999_999));
        assert!(directive.is_expired(1_764_144_000_000_000_000));
        let numbers = JSON.replace("\"1764144000000000000\"", "1764144000000000000");
        assert_eq!(Directive::from_json(&numbers), Ok(directive));
    }

    #[test]
    fn what_cannot_be_obeyed_still_says_whose_it_is() {
        let error = Directive::from_json(&JSON.replace("max_attempts=3", "max_attempts=0"));
        let error = error.expect_err("no attempts");
        assert_eq!(error.id.as_deref(), Some("contract-7/1/shop/2026-11-26T08:00"));
        assert!(error.problem.contains("1 to 100"), "{error}");
        assert_eq!(Directive::from_json("[]").expect_err("a list").id, None);
    }

    #[test]
    fn a_target_is_met_when_all_that_it_says_holds() {
        let target = DirectiveTarget {
            agent_id: Some("shop".to_owned()),
            session_id: Some("s-1".to_owned()),
            ..Default::default()
        };
        assert!(target.is_work(Some("shop"), Some("s-1"), None));
        assert!(!target.is_work(Some("shop"), None, None));
        assert!(!target.is_work(Some("other"), Some("s-1"), None));
        assert!(target.is_process("any", "any"));
        let target = DirectiveTarget { service: Some("a".to_owned()), ..Default::default() };
        assert!(target.is_process("a", "x") && !target.is_process("b", "x"));
    }

    proptest! {
        #[test]
        fn no_json_panics(text in r#"[{"a-z:0-9,}\[\] ]{0,60}"#) {
            let _ = Directive::from_json(&text);
        }
    }
}
