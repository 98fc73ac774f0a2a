//! Links that do not follow: whether the record was changed, stands elsewhere than it was made for,
//! or only comes behind one that was changed.

use crate::audit::chain::Hash;
use crate::audit::findings::{MAX_PROBLEMS, ProblemKind, Verification};
use crate::audit::trust::{Secret, Trust};
use crate::audit::verify::Link;

/// Suspects that are held against each other; the effort grows with the third power.
const MAX_SUSPECTS: usize = 64;

/// Records whose link does not follow from their fields and the link before them: as many as a
/// report names, the rest are counted.
#[derive(Debug, Default)]
pub(crate) struct Suspects {
    list: Vec<Suspect>,
    further: u64,
}

#[derive(Debug)]
struct Suspect {
    link: Link,
    previous: Hash,
    computed: Hash,
}

impl Suspects {
    pub(crate) fn add(&mut self, link: Link, previous: Hash, computed: Hash) {
        if self.list.len() >= MAX_PROBLEMS {
            self.further += 1;
            return;
        }
        self.list.push(Suspect { link, previous, computed });
    }

    /// Says of each what is wrong with it, if anything is.
    pub(crate) fn judge(self, trust: &Trust, report: &mut Verification) {
        report.further_problems += self.further;
        let few = &self.list[..self.list.len().min(MAX_SUSPECTS)];
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
        for (at, suspect) in self.list.iter().enumerate() {
            let link = &suspect.link;
            let made_as = match trust.secret(link.key, link.number) {
                Secret::Held(secret) if at < MAX_SUSPECTS => {
                    made_as(link, &secret, &previous, &numbers)
                }
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
