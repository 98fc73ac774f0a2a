//! One client on one incremental stream, as a state machine (xDS, delta): what it subscribed to, what it has, and
//! what is to be sent so that it has what holds now. Subscriptions are by resource, each with a version of its own.

use std::collections::{BTreeMap, BTreeSet};

use super::follower::{MAX_TYPES, Protocol, Told};
use super::snapshot::Snapshot;
use super::wire::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Resource};

/// The name that stands for all resources of a type.
const WILDCARD: &str = "*";

/// What is known of one type.
#[derive(Debug, Clone, Default)]
struct Watched {
    is_wildcard: bool,
    names: BTreeSet<String>,
    /// What the client has, or was told that it is not there (an empty version), by name.
    has: BTreeMap<String, String>,
    nonce: String,
    sent: String,
}

impl Watched {
    fn is_wanted(&self, name: &str) -> bool {
        self.is_wildcard || self.names.contains(name)
    }
}

/// The state of one stream.
#[derive(Debug, Default)]
pub(crate) struct DeltaFollower {
    types: BTreeMap<String, Watched>,
    nonces: u64,
}

impl Protocol for DeltaFollower {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;

    fn about(request: &DeltaDiscoveryRequest) -> (Option<&Node>, &str) {
        (request.node.as_ref(), &request.type_url)
    }

    fn hear(
        &mut self,
        request: DeltaDiscoveryRequest,
        snapshot: &Snapshot,
    ) -> (Told, Option<DeltaDiscoveryResponse>) {
        let type_url = request.type_url;
        let is_new = !self.types.contains_key(&type_url);
        if is_new && self.types.len() >= MAX_TYPES {
            return (Told::Stale, None);
        }
        let watched = self.types.entry(type_url.clone()).or_default();
        if is_new {
            // Whoever names nothing with the first request means everything, and tells what it has from before.
            watched.is_wildcard = request.resource_names_subscribe.is_empty();
            watched.has = request.initial_resource_versions.into_iter().collect();
        }
        let told = match (request.response_nonce, request.error_detail) {
            (nonce, _) if is_new || nonce.is_empty() => Told::Subscribed,
            (nonce, _) if nonce != watched.nonce => Told::Stale,
            (_, Some(error)) => Told::Refused(watched.sent.clone(), error.message),
            (_, None) => Told::Took(watched.sent.clone()),
        };
        // Subscriptions count whatever the nonce says.
        for name in request.resource_names_subscribe {
            if name == WILDCARD {
                watched.is_wildcard = true;
                continue;
            }
            if !is_new {
                // Whoever asks again has lost it.
                watched.has.remove(&name);
            }
            watched.names.insert(name);
        }
        for name in request.resource_names_unsubscribe {
            if name == WILDCARD {
                watched.is_wildcard = false;
            }
            watched.names.remove(&name);
        }
        let kept: Vec<String> =
            watched.has.keys().filter(|name| !watched.is_wanted(name)).cloned().collect();
        kept.iter().for_each(|name| drop(watched.has.remove(name)));
        (told, self.send(&type_url, snapshot, is_new))
    }

    fn change(&mut self, snapshot: &Snapshot) -> Vec<DeltaDiscoveryResponse> {
        let types: Vec<String> = self.types.keys().cloned().collect();
        types.iter().filter_map(|type_url| self.send(type_url, snapshot, false)).collect()
    }
}

impl DeltaFollower {
    /// What the client lacks; also nothing, to whoever subscribed just now and waits for an answer.
    fn send(
        &mut self,
        type_url: &str,
        snapshot: &Snapshot,
        is_first: bool,
    ) -> Option<DeltaDiscoveryResponse> {
        let version = snapshot.version(type_url)?.to_owned();
        let watched = self.types.get_mut(type_url)?;
        let all = snapshot.versioned(type_url);
        let mut resources = Vec::new();
        for (name, (version, resource)) in &all {
            if watched.is_wanted(name) && watched.has.get(name) != Some(version) {
                let (name, version) = (name.clone(), version.clone());
                watched.has.insert(name.clone(), version.clone());
                resources.push(Resource { name, version, resource: Some(resource.clone()) });
            }
        }
        let asked = watched.names.iter().chain(watched.has.keys());
        let is_gone = |name: &&String| {
            !all.contains_key(*name) && watched.has.get(*name).is_none_or(|has| !has.is_empty())
        };
        let removed: BTreeSet<String> = asked.filter(is_gone).cloned().collect();
        for name in &removed {
            watched.has.insert(name.clone(), String::new());
        }
        if resources.is_empty() && removed.is_empty() && !is_first {
            return None;
        }
        self.nonces += 1;
        watched.nonce = self.nonces.to_string();
        watched.sent.clone_from(&version);
        Some(DeltaDiscoveryResponse {
            system_version_info: version,
            resources,
            type_url: type_url.to_owned(),
            nonce: watched.nonce.clone(),
            removed_resources: removed.into_iter().collect(),
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

    fn subscribe(type_url: &str, names: &[&str]) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest {
            type_url: type_url.to_owned(),
            resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
            ..DeltaDiscoveryRequest::default()
        }
    }

    #[test]
    fn only_what_changed_is_sent_and_what_is_not_there_is_told() {
        let first = Snapshot::of(&config(), &BTreeMap::new());
        let mut follower = DeltaFollower::default();
        let name = first.versioned(RDS).keys().next().expect("a route").clone();
        let (told, answer) = follower.hear(subscribe(RDS, &[&name, "other"]), &first);
        let answer = answer.expect("routes");
        assert_eq!((told, answer.resources.len()), (Told::Subscribed, 1));
        assert_eq!(answer.removed_resources, ["other"]);
        let ack =
            DeltaDiscoveryRequest { response_nonce: answer.nonce.clone(), ..subscribe(RDS, &[]) };
        let took = Told::Took(answer.system_version_info.clone());
        assert_eq!(follower.hear(ack.clone(), &first), (took, None));
        assert!(follower.change(&first).is_empty(), "nothing changed");
        let second = Snapshot::of(&config(), &set(&[("v1", 100), ("v2", 0)]));
        let sent = follower.change(&second).remove(0);
        assert_eq!((sent.resources.len(), sent.removed_resources.len()), (1, 0));
        assert_ne!(sent.resources[0].version, answer.resources[0].version);
        let refusal = DeltaDiscoveryRequest {
            response_nonce: sent.nonce.clone(),
            error_detail: Some(RpcStatus { code: 3, message: "no such cluster".to_owned() }),
            ..subscribe(RDS, &[])
        };
        let refused = Told::Refused(sent.system_version_info, "no such cluster".to_owned());
        assert_eq!(follower.hear(refusal, &second), (refused, None), "it would be refused again");
        assert_eq!(follower.hear(ack, &second), (Told::Stale, None));
        // Whoever asks again gets it again; whoever wants it no more is not told of it.
        assert!(follower.hear(subscribe(RDS, &[&name]), &second).1.is_some());
        let leave =
            DeltaDiscoveryRequest { resource_names_unsubscribe: vec![name], ..subscribe(RDS, &[]) };
        assert_eq!(follower.hear(leave, &second).1, None);
        assert!(follower.change(&first).is_empty());
        assert_eq!(follower.hear(subscribe("type.googleapis.com/other", &[]), &first).1, None);
    }

    #[test]
    fn whoever_comes_back_is_told_only_what_it_lacks() {
        let first = Snapshot::of(&config(), &BTreeMap::new());
        let versions = |of: &Snapshot| {
            let all = of.versioned(RDS).into_iter();
            all.map(|(name, (version, _))| (name, version)).collect()
        };
        let back = |has: &Snapshot| DeltaDiscoveryRequest {
            initial_resource_versions: versions(has),
            ..subscribe(RDS, &[])
        };
        let answer = DeltaFollower::default().hear(back(&first), &first).1.expect("an answer");
        assert!(answer.resources.is_empty(), "it has everything");
        let second = Snapshot::of(&config(), &set(&[("v2", 1)]));
        let answer = DeltaFollower::default().hear(back(&first), &second).1.expect("an answer");
        assert_eq!(answer.resources.len(), 1);
    }

    proptest! {
        /// Whatever a client asks for, and whenever the weights change, what it was sent adds up to what holds.
        #[test]
        fn what_was_sent_adds_up_to_what_holds(
            steps in prop::collection::vec((0..4_u8, any::<bool>(), 0..3_u8), 0..40),
        ) {
            let snapshots = [
                Snapshot::of(&config(), &BTreeMap::new()),
                Snapshot::of(&config(), &set(&[("v1", 1)])),
                Snapshot::of(&config(), &set(&[("v2", 1)])),
            ];
            let mut follower = DeltaFollower::default();
            let (mut now, mut nonces) = (&snapshots[0], BTreeSet::new());
            let mut has: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
            for (step, is_runtime, which) in steps {
                let type_url = if is_runtime { RTDS } else { RDS };
                let answers: Vec<DeltaDiscoveryResponse> = match step {
                    0 => follower.hear(subscribe(type_url, &[]), now).1.into_iter().collect(),
                    1 => follower.hear(subscribe(type_url, &["*", "none"]), now).1.into_iter().collect(),
                    2 => {
                        let odd = DeltaDiscoveryRequest {
                            response_nonce: "never".to_owned(), ..subscribe(type_url, &["*"])
                        };
                        follower.hear(odd, now).1.into_iter().collect()
                    }
                    _ => {
                        now = &snapshots[usize::from(which)];
                        follower.change(now)
                    }
                };
                for answer in answers {
                    prop_assert!(nonces.insert(answer.nonce), "a nonce is of one answer");
                    let of_type = has.entry(answer.type_url).or_default();
                    for one in answer.resources {
                        of_type.insert(one.name, one.version);
                    }
                    answer.removed_resources.iter().for_each(|name| drop(of_type.remove(name)));
                }
                for (type_url, of_type) in &has {
                    let holds = now.versioned(type_url);
                    let holds: BTreeMap<String, String> =
                        holds.into_iter().map(|(name, (version, _))| (name, version)).collect();
                    prop_assert_eq!(of_type, &holds);
                }
            }
        }
    }
}
