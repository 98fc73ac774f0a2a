//! What Envoy is told: one route configuration a configured route, and the same weights as keys of
//! the runtime. Pure: the same configuration and weights give the same bytes and version, over
//! restarts too.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use serde::Deserialize;
use throughline_trace::{RouteWeights, RouteWeightsError};

use super::wire::{
    Any, ClusterWeight, Duration, Kind, Route, RouteAction, RouteConfiguration, RouteMatch,
    Runtime, Struct, UInt32Value, Value, VirtualHost, WeightedCluster,
};

/// Type of route configurations (RDS).
pub(crate) const RDS: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";

/// Type of layers of the runtime (RTDS).
pub(crate) const RTDS: &str = "type.googleapis.com/envoy.service.runtime.v3.Runtime";

/// Name of our layer of the runtime, and the first part of its keys.
pub(crate) const LAYER: &str = "throughline";

/// Hexadecimal characters of a version.
const VERSION_CHARS: usize = 16;

/// `act.xds`: routes that Envoy follows.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct XdsConfig {
    /// The routes; the port is open when there is one.
    pub routes: Vec<XdsRoute>,
}

/// One of `act.xds.routes`: a route configuration of that name.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct XdsRoute {
    /// Its name: that of the route whose weights it follows.
    pub route: String,
    /// Host names that it is for.
    #[serde(default = "any_domain")]
    pub domains: Vec<String>,
    /// What paths begin with.
    #[serde(default = "any_path")]
    pub prefix: String,
    /// Where the traffic goes, and how much until somebody sets other weights.
    pub targets: Vec<XdsTarget>,
}

/// A target of a route.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct XdsTarget {
    /// Its name in weights.
    pub name: String,
    /// Its share to begin with.
    pub weight: u32,
    /// Envoy's name of its cluster; the target's own when left out.
    #[serde(default)]
    pub cluster: Option<String>,
}

fn any_domain() -> Vec<String> {
    vec!["*".to_owned()]
}

fn any_path() -> String {
    "/".to_owned()
}

/// Everything Envoy may be told now.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Snapshot {
    by_type: BTreeMap<&'static str, Resources>,
}

/// The resources of a type by their names.
#[derive(Debug, Clone, Default, PartialEq)]
struct Resources {
    version: String,
    all: BTreeMap<String, Any>,
}

impl XdsConfig {
    /// Refuses what cannot be meant.
    ///
    /// # Errors
    /// What is wrong with the weights of a route.
    pub(crate) fn validate(&self) -> Result<(), RouteWeightsError> {
        let mut names = BTreeSet::new();
        for route in &self.routes {
            let name = &route.route;
            route.initial().validate()?;
            if !names.insert(name) {
                let (route, target) = ("act.xds.routes".to_owned(), name.clone());
                return Err(RouteWeightsError::Twice { route, target });
            }
        }
        Ok(())
    }
}

impl XdsRoute {
    /// The weights that hold until somebody sets others.
    fn initial(&self) -> RouteWeights {
        let target = |one: &XdsTarget| throughline_trace::RouteTarget {
            name: one.name.clone(),
            weight: one.weight,
        };
        let targets = self.targets.iter().map(target).collect();
        RouteWeights { route: self.route.clone(), generation: 0, targets }
    }

    /// The weight of each configured target. Weights that leave all of them without traffic, those
    /// of targets that Envoy does not have, are not followed: Envoy would refuse them.
    pub(super) fn shares(&self, set: Option<&RouteWeights>) -> Vec<(&XdsTarget, u32)> {
        let of = |weights: &RouteWeights| {
            let weight = |name: &str| {
                let found = weights.targets.iter().find(|target| target.name == name);
                found.map_or(0, |target| target.weight)
            };
            self.targets.iter().map(|target| (target, weight(&target.name))).collect::<Vec<_>>()
        };
        let set = set.map(of).filter(|shares| shares.iter().any(|(_, weight)| *weight > 0));
        set.unwrap_or_else(|| of(&self.initial()))
    }
}

impl Snapshot {
    /// What a configuration and the weights that were set give.
    pub(crate) fn of(config: &XdsConfig, set: &BTreeMap<String, RouteWeights>) -> Self {
        let (mut routes, mut runtime) = (BTreeMap::new(), BTreeMap::new());
        for route in &config.routes {
            let shares = route.shares(set.get(&route.route));
            for (target, weight) in &shares {
                let key = format!("{LAYER}.{}.{}", route.route, target.name);
                let kind = Some(Kind::Number(f64::from(*weight)));
                runtime.insert(key, Value { kind });
            }
            let message = configuration(route, &shares).encode_to_vec();
            routes.insert(route.route.clone(), any(RDS, message));
        }
        let layer = Some(Struct { fields: runtime.clone().into_iter().collect() });
        let message = Runtime { name: LAYER.to_owned(), layer }.encode_to_vec();
        // The order of a map on the wire is any, so that its version is made of what it says.
        let said = format!("{runtime:?}");
        let layers = Resources {
            version: version([said.as_bytes()]),
            all: BTreeMap::from([(LAYER.to_owned(), any(RTDS, message))]),
        };
        let routes = Resources {
            version: version(routes.values().map(|one| one.value.as_slice())),
            all: routes,
        };
        Self { by_type: BTreeMap::from([(RDS, routes), (RTDS, layers)]) }
    }

    /// The version of a type; `None` for a type that is not served.
    pub(crate) fn version(&self, type_url: &str) -> Option<&str> {
        self.by_type.get(type_url).map(|resources| resources.version.as_str())
    }

    /// The resources of a type by name, each with a version of its own: a hash of what it says.
    pub(crate) fn versioned(&self, type_url: &str) -> BTreeMap<String, (String, Any)> {
        let version = |any: &Any| blake3::hash(&any.value).to_hex().as_str()[..16].to_owned();
        let all = self.by_type.get(type_url).into_iter().flat_map(|of| &of.all);
        all.map(|(name, any)| (name.clone(), (version(any), any.clone()))).collect()
    }

    /// The resources of a type with these names; all of them for no names.
    pub(crate) fn resources(&self, type_url: &str, names: &BTreeSet<String>) -> Vec<Any> {
        let Some(resources) = self.by_type.get(type_url) else { return Vec::new() };
        let is_asked = |name: &String| names.is_empty() || names.contains(name);
        resources
            .all
            .iter()
            .filter(|(name, _)| is_asked(name))
            .map(|(_, one)| one.clone())
            .collect()
    }
}

fn configuration(route: &XdsRoute, shares: &[(&XdsTarget, u32)]) -> RouteConfiguration {
    let clusters = shares.iter().map(|(target, weight)| ClusterWeight {
        name: target.cluster.clone().unwrap_or_else(|| target.name.clone()),
        weight: Some(UInt32Value { value: *weight }),
    });
    let action = RouteAction {
        weighted_clusters: Some(WeightedCluster { clusters: clusters.collect() }),
        timeout: Some(Duration { seconds: 0 }),
    };
    let matches = Some(RouteMatch { prefix: Some(route.prefix.clone()) });
    RouteConfiguration {
        name: route.route.clone(),
        virtual_hosts: vec![VirtualHost {
            name: route.route.clone(),
            domains: route.domains.clone(),
            routes: vec![Route { matches, action: Some(action), name: route.route.clone() }],
        }],
    }
}

fn any(type_url: &str, value: Vec<u8>) -> Any {
    Any { type_url: type_url.to_owned(), value }
}

fn version<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    hasher.finalize().to_hex().chars().take(VERSION_CHARS).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn config() -> XdsConfig {
        let target = |name: &str, weight, cluster: Option<&str>| XdsTarget {
            name: name.to_owned(),
            weight,
            cluster: cluster.map(str::to_owned),
        };
        let targets = vec![target("v1", 90, None), target("v2", 10, Some("canary"))];
        let route = XdsRoute {
            route: "chat".to_owned(),
            domains: any_domain(),
            prefix: any_path(),
            targets,
        };
        XdsConfig { routes: vec![route] }
    }

    pub(crate) fn set(targets: &[(&str, u32)]) -> BTreeMap<String, RouteWeights> {
        let weights = RouteWeights::new("chat", 1, targets.iter().copied()).expect("weights");
        BTreeMap::from([("chat".to_owned(), weights)])
    }

    /// The weights of a snapshot as Envoy would read them.
    pub(crate) fn read(snapshot: &Snapshot) -> String {
        let any = snapshot.resources(RDS, &BTreeSet::new()).remove(0);
        let route = RouteConfiguration::decode(any.value.as_slice()).expect("a message");
        let action = route.virtual_hosts[0].routes[0].action.clone().expect("an action");
        let clusters = action.weighted_clusters.expect("clusters").clusters;
        let weight = |one: &ClusterWeight| one.weight.as_ref().map_or(0, |weight| weight.value);
        let shares: Vec<String> =
            clusters.iter().map(|one| format!("{}={}", one.name, weight(one))).collect();
        shares.join(" ")
    }

    #[test]
    fn weights_that_were_set_take_the_place_of_the_first_ones() {
        let begin = Snapshot::of(&config(), &BTreeMap::new());
        assert_eq!(read(&begin), "v1=90 canary=10");
        let moved = Snapshot::of(&config(), &set(&[("v1", 100), ("v2", 0)]));
        assert_eq!(read(&moved), "v1=100 canary=0");
        assert_ne!(begin.version(RDS), moved.version(RDS));
        assert_ne!(begin.version(RTDS), moved.version(RTDS));
        assert_eq!(begin.version(RTDS), Snapshot::of(&config(), &BTreeMap::new()).version(RTDS));
        let elsewhere = Snapshot::of(&config(), &set(&[("v3", 1)]));
        assert_eq!(read(&elsewhere), "v1=90 canary=10", "Envoy has no v3");
        assert!(begin.resources(RDS, &BTreeSet::from(["other".to_owned()])).is_empty());
        assert_eq!(begin.version("type.googleapis.com/other"), None);
    }
}
