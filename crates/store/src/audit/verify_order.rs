//! Links that do not follow: whether the record was changed, stands elsewhere than it was made for,
//! or only comes behind one that was changed.

use std::collections::HashMap;

use crate::audit::chain::Hash;
use crate::audit::findings::{ProblemKind, Verification};
use crate::audit::verify::{KnownKey, Link};

/// Suspects that are held against each other; the effort grows with the third power.
const MAX_SUSPECTS: usize = 64;

/// Records whose link does not follow from their fields and the link before them.
#[derive(Debug, Default)]
pub(crate) struct Suspects(Vec<Suspect>);

#[derive(Debug)]
struct Suspect {
    link: Link,
    previous: Hash,
    computed: Hash,
}

impl Suspects {
    pub(crate) fn add(&mut self, link: Link, previous: Hash, computed: Hash) {
        self.0.push(Suspect { link, previous, computed });
    }

    /// Says of each what is wrong with it, if anything is.
    pub(crate) fn judge(self, keys: &HashMap<i64, KnownKey>, report: &mut Verification) {
        let few = &self.0[..self.0.len().min(MAX_SUSPECTS)];
        let mut previous: Vec<Hash> =
            few.iter().flat_map(|one| [one.previous, one.link.link, one.computed]).collect();
        previous.sort_unstable();
        previous.dedup();
        let mut numbers: Vec<u64> = few
            .iter()
            .flat_map(|one| [one.link.number - 1, one.link.number, one.link.number + 1])
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        for (at, suspect) in self.0.iter().enumerate() {
            let link = &suspect.link;
            let secret = keys.get(&link.key).and_then(|key| key.link);
            let made_as = match secret {
                Some(secret) if at < MAX_SUSPECTS => made_as(link, &secret, &previous, &numbers),
                _ => None,
            };
            let (kind, what) = match made_as {
                // It is as it was made; the one before it is told by itself.
                Some(number) if number == link.number => continue,
                Some(number) => (
                    ProblemKind::Reordered,
                    format!("the record that stands here was made as record {number}"),
                ),
                None => (
                    ProblemKind::Changed,
                    "its link does not follow from the record before it and its own number, time of arrival, kind, decision id and commitment: one of these or the link was changed, or made with another key".to_owned(),
                ),
            };
            report.add(kind, Some(link.number), link.decision(), what);
        }
    }
}

/// The number for which a record's link would be right.
fn made_as(link: &Link, secret: &Hash, previous: &[Hash], numbers: &[u64]) -> Option<u64> {
    let fits = |number: u64| {
        previous.iter().any(|previous| {
            let mut input = link.input(*previous);
            input.number = number;
            input.link(secret) == link.link
        })
    };
    if fits(link.number) {
        return Some(link.number);
    }
    numbers.iter().copied().find(|number| fits(*number))
}
