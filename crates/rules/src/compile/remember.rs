//! Paths that an expression needs more than once are looked up once: `span.attributes["x"]` walks a
//! list, and derived fields such as `span.role` look several attributes up.

use std::collections::HashMap;

use crate::limits::MAX_REMEMBERED;
use crate::node::{Node, Op};

/// Puts the longest repeated paths of a tree behind slots.
pub(crate) fn remember(root: &mut Node) {
    let mut counts = HashMap::new();
    count(root, &mut counts);
    let mut slots = HashMap::new();
    wrap(root, &counts, &mut slots);
}

/// A bare variable is as cheap as a slot, so only selections count.
fn path(node: &Node) -> Option<String> {
    match node.op {
        Op::Field { .. } | Op::Key { .. } => node.path(),
        _ => None,
    }
}

fn count(node: &mut Node, counts: &mut HashMap<String, u32>) {
    if let Some(path) = path(node) {
        *counts.entry(path).or_default() += 1;
        return;
    }
    for child in node.children_mut() {
        count(child, counts);
    }
}

fn wrap(node: &mut Node, counts: &HashMap<String, u32>, slots: &mut HashMap<String, usize>) {
    let Some(path) = path(node) else {
        for child in node.children_mut() {
            wrap(child, counts, slots);
        }
        return;
    };
    if counts.get(&path).is_none_or(|count| *count < 2) {
        return;
    }
    let next = slots.len();
    if next >= MAX_REMEMBERED && !slots.contains_key(&path) {
        return;
    }
    let slot = *slots.entry(path).or_insert(next);
    let inner = Box::new(node.clone());
    node.op = Op::Remembered { slot, inner };
}
