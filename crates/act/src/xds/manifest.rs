//! The same weights as manifests of the Kubernetes Gateway API (`HTTPRoute`), for clusters whose
//! gateway is no Envoy of ours. Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use throughline_trace::RouteWeights;

use super::XdsConfig;

/// What the configuration of routes does not say.
#[derive(Debug, Clone)]
pub struct ManifestOptions {
    /// The `Gateway` that the routes belong to.
    pub gateway: String,
    /// The namespace of the routes; that of the context when empty.
    pub namespace: String,
    /// The port of the services.
    pub port: u16,
}

/// A list of `HTTPRoute`s, one a configured route, with the weights that hold.
pub fn manifests(
    config: &XdsConfig,
    set: &BTreeMap<String, RouteWeights>,
    options: &ManifestOptions,
) -> Value {
    let items: Vec<Value> = config
        .routes
        .iter()
        .map(|route| {
            let weights = set.get(&route.route);
            let backends: Vec<Value> = route
                .shares(weights)
                .into_iter()
                .map(|(target, weight)| {
                    let name = target.cluster.as_ref().unwrap_or(&target.name);
                    json!({ "name": name, "port": options.port, "weight": weight })
                })
                .collect();
            let mut metadata = json!({
                "name": object_name(&route.route),
                "annotations": {
                    "throughline.dev/generation":
                        weights.map_or(0, |weights| weights.generation).to_string(),
                },
            });
            if !options.namespace.is_empty() {
                metadata["namespace"] = options.namespace.clone().into();
            }
            let mut spec = json!({
                "parentRefs": [{ "name": options.gateway }],
                "rules": [{
                    "matches": [{ "path": { "type": "PathPrefix", "value": route.prefix } }],
                    "backendRefs": backends,
                }],
            });
            // The Gateway API has no name for every host: it is left out.
            let hosts: Vec<&String> = route.domains.iter().filter(|host| *host != "*").collect();
            if !hosts.is_empty() {
                spec["hostnames"] = json!(hosts);
            }
            json!({
                "apiVersion": "gateway.networking.k8s.io/v1",
                "kind": "HTTPRoute",
                "metadata": metadata,
                "spec": spec,
            })
        })
        .collect();
    json!({ "apiVersion": "v1", "kind": "List", "items": items })
}

/// A name that Kubernetes takes.
fn object_name(route: &str) -> String {
    let is_good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let lower = route.to_ascii_lowercase();
    let name: String = lower.chars().map(|c| if is_good(c) { c } else { '-' }).collect();
    name.trim_matches('-').chars().take(63).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xds::snapshot::tests::{config, set};

    #[test]
    fn a_route_is_an_http_route_with_the_weights_that_hold() {
        let options =
            ManifestOptions { gateway: "edge".to_owned(), namespace: String::new(), port: 8080 };
        let list = manifests(&config(), &set(&[("v1", 100), ("v2", 0)]), &options);
        assert_eq!(
            list["items"][0],
            json!({
                "apiVersion": "gateway.networking.k8s.io/v1",
                "kind": "HTTPRoute",
                "metadata": { "name": "chat", "annotations": { "throughline.dev/generation": "1" } },
                "spec": {
                    "parentRefs": [{ "name": "edge" }],
                    "rules": [{
                        "matches": [{ "path": { "type": "PathPrefix", "value": "/" } }],
                        "backendRefs": [
                            { "name": "v1", "port": 8080, "weight": 100 },
                            { "name": "canary", "port": 8080, "weight": 0 },
                        ],
                    }],
                },
            })
        );
        assert_eq!(object_name("Chat_v2."), "chat-v2");
    }
}
