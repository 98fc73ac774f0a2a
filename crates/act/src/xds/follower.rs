//! One Envoy on one stream, as a state machine (xDS, state of the world): what it subscribed to, what
//! it was sent, what it took and what it refused.

use std::collections::{BTreeMap, BTreeSet};

use super::snapshot::Snapshot;
use super::wire::{DiscoveryRequest, DiscoveryResponse, Node};

/// Types that one stream may ask for; what is beyond is not answered.
pub(crate) const MAX_TYPES: usize = 16;

/// A way to follow: the state of one stream, without IO.
pub(crate) trait Protocol: Default + Send + 'static {
    /// What the client sends.
    type Request: prost::Message + Default + Send + 'static;
    /// What it is sent.
    type Response: prost::Message + Default + Send + 'static;

    /// Who asks, where it says so, and the type that it asks for.
    fn about(request: &Self::Request) -> (Option<&Node>, &str);

    /// Takes a request in; what it means, and what is to be answered at once.
    fn hear(
        &mut self,
        request: Self::Request,
        snapshot: &Snapshot,
    ) -> (Told, Option<Self::Response>);

    /// What is to be sent because the snapshot changed.
    fn change(&mut self, snapshot: &Snapshot) -> Vec<Self::Response>;
}

/// What a request means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    /// It subscribes, or changes what it subscribes to.
    Subscribed,
    /// It took this version.
    Took(String),
    /// It refused this version, for this reason.
    Refused(String, String),
    /// It answers something older than what was sent last.
    Stale,
}

/// What is known of one type.
#[derive(Debug, Clone, Default)]
struct Watched {
    names: BTreeSet<String>,
    nonce: String,
    sent: Option<String>,
}

/// The state of one stream.
#[derive(Debug, Default)]
pub(crate) struct Follower {
    types: BTreeMap<String, Watched>,
    nonces: u64,
}

impl Protocol for Follower {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;

    fn about(request: &DiscoveryRequest) -> (Option<&Node>, &str) {
        (request.node.as_ref(), &request.type_url)
    }

    fn hear(
        &mut self,
        request: DiscoveryRequest,
        snapshot: &Snapshot,
    ) -> (Told, Option<DiscoveryResponse>) {
        let names: BTreeSet<String> = request.resource_names.into_iter().collect();
        let type_url = request.type_url;
        let is_new = !self.types.contains_key(&type_url);
        if is_new && self.types.len() >= MAX_TYPES {
            return (Told::Stale, None);
        }
        let watched = self.types.entry(type_url.clone()).or_default();
        // A nonce of an earlier stream says nothing here: the first request subscribes.
        if !is_new && !request.response_nonce.is_empty() && request.response_nonce != watched.nonce
        {
            return (Told::Stale, None);
        }
        let is_answer = !is_new && !request.response_nonce.is_empty();
        let told = match (is_answer, request.error_detail) {
            (false, _) => Told::Subscribed,
            (true, Some(error)) => {
                Told::Refused(watched.sent.clone().unwrap_or_default(), error.message)
            }
            (true, None) => Told::Took(request.version_info),
        };
        let is_other = watched.names != names;
        watched.names = names;
        // What was refused is not sent again until it changes: it would be refused again.
        let is_wanted = is_new || is_other || told == Told::Subscribed;
        let answer = is_wanted.then(|| self.send(&type_url, snapshot)).flatten();
        (told, answer)
    }

    fn change(&mut self, snapshot: &Snapshot) -> Vec<DiscoveryResponse> {
        let changed: Vec<String> = self
            .types
            .iter()
            .filter(|(type_url, watched)| snapshot.version(type_url) != watched.sent.as_deref())
            .map(|(type_url, _)| type_url.clone())
            .collect();
        changed.iter().filter_map(|type_url| self.send(type_url, snapshot)).collect()
    }
}

impl Follower {
    fn send(&mut self, type_url: &str, snapshot: &Snapshot) -> Option<DiscoveryResponse> {
        let version = snapshot.version(type_url)?.to_owned();
        let watched = self.types.get_mut(type_url)?;
        self.nonces += 1;
        watched.nonce = self.nonces.to_string();
        watched.sent = Some(version.clone());
        Some(DiscoveryResponse {
            version_info: version,
            resources: snapshot.resources(type_url, &watched.names),
            type_url: type_url.to_owned(),
            nonce: watched.nonce.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::xds::snapshot::tests::{config, set};
    use crate::xds::snapshot::{RDS, RTDS};
    use crate::xds::wire::RpcStatus;

    fn request(type_url: &str, version: &str, nonce: &str) -> DiscoveryRequest {
        DiscoveryRequest {
            version_info: version.to_owned(),
            type_url: type_url.to_owned(),
            response_nonce: nonce.to_owned(),
            ..DiscoveryRequest::default()
        }
    }

    #[test]
    fn what_was_refused_is_not_sent_again_until_it_changes() {
        let first = Snapshot::of(&config(), &BTreeMap::new());
        let mut follower = Follower::default();
        let (told, answer) = follower.hear(request(RDS, "", ""), &first);
        assert_eq!(told, Told::Subscribed);
        let answer = answer.expect("routes");
        assert_eq!((answer.nonce.as_str(), answer.resources.len()), ("1", 1));
        let taken = request(RDS, &answer.version_info, "1");
        assert_eq!(follower.hear(taken, &first), (Told::Took(answer.version_info), None));
        assert!(follower.change(&first).is_empty(), "nothing changed");
        let second = Snapshot::of(&config(), &set(&[("v1", 100), ("v2", 0)]));
        let sent = follower.change(&second).remove(0);
        assert_eq!(follower.hear(request(RDS, "x", "1"), &second), (Told::Stale, None));
        let refusal = DiscoveryRequest {
            error_detail: Some(RpcStatus { code: 3, message: "no such cluster".to_owned() }),
            ..request(RDS, "old", &sent.nonce)
        };
        let told = Told::Refused(sent.version_info, "no such cluster".to_owned());
        assert_eq!(follower.hear(refusal, &second), (told, None));
        assert!(follower.change(&second).is_empty());
        assert_eq!(follower.change(&first).len(), 1);
        let (_, none) = follower.hear(request("type.googleapis.com/other", "", ""), &first);
        assert_eq!(none, None, "not served");
    }

    proptest! {
        #[test]
        fn whatever_is_asked_the_newest_is_sent_once(
            steps in prop::collection::vec((0..4_u8, any::<bool>(), 0..3_u8), 0..40),
        ) {
            let snapshots = [
                Snapshot::of(&config(), &BTreeMap::new()),
                Snapshot::of(&config(), &set(&[("v1", 1)])),
                Snapshot::of(&config(), &set(&[("v2", 1)])),
            ];
            let mut follower = Follower::default();
            let mut nonces = BTreeSet::new();
            let mut sent: BTreeMap<String, DiscoveryResponse> = BTreeMap::new();
            let mut now = &snapshots[0];
            for (step, is_runtime, which) in steps {
                let type_url = if is_runtime { RTDS } else { RDS };
                let answers = match step {
                    0 => follower.hear(request(type_url, "", ""), now).1.into_iter().collect(),
                    1 => {
                        let last = sent.get(type_url).cloned().unwrap_or_default();
                        let taken = request(type_url, &last.version_info, &last.nonce);
                        follower.hear(taken, now).1.into_iter().collect()
                    }
                    2 => follower.hear(request(type_url, "", "never"), now).1.into_iter().collect(),
                    _ => {
                        now = &snapshots[usize::from(which)];
                        follower.change(now)
                    }
                };
                for answer in answers {
                    prop_assert_eq!(Some(answer.version_info.as_str()), now.version(&answer.type_url));
                    prop_assert!(nonces.insert(answer.nonce.clone()), "a nonce is of one answer");
                    sent.insert(answer.type_url.clone(), answer);
                }
                for (type_url, last) in &sent {
                    prop_assert_eq!(Some(last.version_info.as_str()), now.version(type_url));
                }
            }
        }
    }
}
