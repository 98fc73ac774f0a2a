//! Lists that travel as attributes with a number in their key: `gen_ai.prompt.0.role`,
//! `llm.input_messages.1.message.tool_calls.0.tool_call.id`.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};
use throughline_trace::Attributes;

/// Deepest nesting that is read; the dialects need seven. Further dots stay in the last name.
const MAX_DEPTH: usize = 12;

/// The list that the attributes whose keys begin with `prefix` (`gen_ai.prompt.`) spell, its
/// elements in the order of their numbers; numbers that are left out leave no hole. `None` when
/// there are none.
pub(super) fn list(attributes: &Attributes, prefix: &str) -> Option<Vec<Json>> {
    let mut root = Node::default();
    let mut is_any = false;
    for (key, value) in attributes.iter() {
        if let Some(path) = key.strip_prefix(prefix)
            && path.as_bytes().first().is_some_and(u8::is_ascii_digit)
        {
            root.set(path.splitn(MAX_DEPTH, '.'), value.to_json());
            is_any = true;
        }
    }
    match root.into_json() {
        Json::Array(items) if is_any => Some(items),
        _ => None,
    }
}

/// A value, or names and numbers with what is under them. Numbers are kept as such: one that is
/// large must not make a long list.
#[derive(Default)]
struct Node {
    leaf: Option<Json>,
    inner: BTreeMap<Part, Node>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Index(u32),
    Name(String),
}

impl Node {
    fn set<'a>(&mut self, path: impl Iterator<Item = &'a str>, value: Json) {
        let mut node = self;
        for part in path {
            let part = part.parse().map_or_else(|_| Part::Name(part.to_owned()), Part::Index);
            node = node.inner.entry(part).or_default();
        }
        node.leaf.get_or_insert(value);
    }

    fn into_json(self) -> Json {
        if self.inner.is_empty() {
            return self.leaf.unwrap_or_default();
        }
        if self.inner.keys().all(|part| matches!(part, Part::Index(_))) {
            return self.inner.into_values().map(Self::into_json).collect();
        }
        let entry = |(part, node): (Part, Self)| {
            let name = match part {
                Part::Name(name) => name,
                Part::Index(number) => number.to_string(),
            };
            (name, node.into_json())
        };
        Json::Object(self.inner.into_iter().map(entry).collect::<Map<_, _>>())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_order_the_list_and_names_nest() {
        let attributes: Attributes = [
            ("p.10.role", "user"),
            ("p.2.role", "system"),
            ("p.4000000000.role", "assistant"),
            ("p.4000000000.calls.0.call.name", "find"),
            ("p.role", "no element"),
            ("other.0.role", "not ours"),
        ]
        .into_iter()
        .collect();
        assert_eq!(
            list(&attributes, "p."),
            Some(vec![
                json!({"role": "system"}),
                json!({"role": "user"}),
                json!({"role": "assistant", "calls": [{"call": {"name": "find"}}]}),
            ])
        );
        assert_eq!(list(&attributes, "q."), None);
    }

    #[test]
    fn a_key_of_many_dots_nests_no_deeper_than_the_bound() {
        let key = format!("p.0{}", ".a".repeat(8_000));
        let attributes: Attributes = [(key, "deep")].into_iter().collect();
        let mut json = &list(&attributes, "p.").unwrap()[0];
        let mut depth = 0;
        while let Some((_, inner)) = json.as_object().and_then(|map| map.iter().next()) {
            json = inner;
            depth += 1;
        }
        assert_eq!((depth, json), (MAX_DEPTH - 1, &Json::from("deep")));
    }
}
