//! Where in a structured value we are: the names that led here, and how far the paths of rules have
//! come.

use crate::path::{Child, Step};
use crate::rules::{RuleSet, numbers};
use crate::sources;

/// Longest row of names that rules by name are tried against as a whole, bytes. Beyond it only the
/// last name counts, with a dot for all before it: each level would cost its whole depth otherwise.
const MAX_DOTTED_BYTES: usize = 1024;

/// What is to be done with a value because of where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is looked at like any other.
    Look,
    /// It goes as a whole, by this rule.
    Whole(usize),
    /// Texts and numbers go by this rule, also those in a list; an object is looked at.
    Scalars(usize),
}

/// The way from an attribute down into its value.
#[derive(Debug)]
pub(crate) struct Trail {
    /// The rules that apply to the attribute.
    pub(crate) rules: u64,
    /// JSON within texts of JSON that we are in.
    pub(crate) embedded: usize,
    /// Names that led here, with dots between them, as far as [`MAX_DOTTED_BYTES`] go.
    dotted: String,
    /// Bytes of the attribute's own name in `dotted`, and names of the normal form that were made of it.
    own_bytes: usize,
    normal: u64,
    /// The depth from which on names had no room in `dotted`.
    cut_at: Option<usize>,
    /// Steps that were reached, of all levels: (rule, number of the step that is next).
    reached: Vec<(usize, usize)>,
    /// Of each level: where its part of `dotted` ends for its parent, and its part of `reached`
    /// begins.
    levels: Vec<(usize, usize)>,
}

impl Trail {
    /// The beginning of the way, at an attribute of an item that has these names of the normal form.
    pub(crate) fn new(set: &RuleSet, rules: u64, field: &str, normal: u64) -> Self {
        let is_named = rules & set.keyed != 0;
        Self {
            rules,
            embedded: 0,
            dotted: if is_named { field.to_owned() } else { String::new() },
            own_bytes: field.len(),
            normal: if is_named { sources::copied_from(normal, field) } else { 0 },
            cut_at: None,
            reached: numbers(rules & set.paths).map(|rule| (rule, 0)).collect(),
            levels: Vec::new(),
        }
    }

    /// Goes down to the member of this name.
    pub(crate) fn enter_key(&mut self, set: &RuleSet, key: &str) -> Verdict {
        let parent_dotted = self.dotted.len();
        if self.rules & set.keyed != 0 {
            if self.cut_at.is_none() && parent_dotted + 1 + key.len() > MAX_DOTTED_BYTES {
                self.cut_at = Some(self.levels.len());
            }
            if self.cut_at.is_none() {
                self.dotted.push('.');
                self.dotted.push_str(key);
            }
        }
        let by_path = self.enter(set, parent_dotted, Child::Key(key));
        if let Some(rule) = by_path.or_else(|| self.by_key(set, key)) {
            return Verdict::Whole(rule);
        }
        set.by_secret_name(self.rules, key).map_or(Verdict::Look, Verdict::Scalars)
    }

    fn by_key(&self, set: &RuleSet, key: &str) -> Option<usize> {
        if self.rules & set.keyed == 0 {
            return None;
        }
        match self.cut_at {
            Some(_) => set.by_key(self.rules, &format!(".{key}"), key),
            None => set.by_key(self.rules, &self.dotted, key).or_else(|| {
                let rest = self.dotted.get(self.own_bytes..).unwrap_or_default();
                set.by_normal(self.rules, self.normal, rest)
            }),
        }
    }

    /// Goes down to the element of this number.
    pub(crate) fn enter_index(&mut self, set: &RuleSet, index: usize) -> Verdict {
        let parent_dotted = self.dotted.len();
        self.enter(set, parent_dotted, Child::Index(index)).map_or(Verdict::Look, Verdict::Whole)
    }

    /// How many levels down it is.
    pub(crate) fn depth(&self) -> usize {
        self.levels.len()
    }

    /// Goes back up.
    pub(crate) fn leave(&mut self) {
        if let Some((dotted, reached)) = self.levels.pop() {
            self.dotted.truncate(dotted);
            self.reached.truncate(reached);
            if self.cut_at == Some(self.levels.len()) {
                self.cut_at = None;
            }
        }
    }

    /// Carries the paths one level down, and answers the first rule whose path ends there.
    fn enter(&mut self, set: &RuleSet, dotted: usize, child: Child<'_>) -> Option<usize> {
        let from = self.levels.last().map_or(0, |(_, reached)| *reached);
        let to = self.reached.len();
        self.levels.push((dotted, to));
        let mut ended: Option<usize> = None;
        for at in from..to {
            let (rule, mut step) = self.reached[at];
            let steps = &set.rules[rule].steps;
            if steps.get(step) == Some(&Step::Deep) {
                self.reach(to, (rule, step));
                step += 1;
            }
            if steps.get(step).is_some_and(|step| step.takes(child)) {
                if step + 1 == steps.len() {
                    ended = Some(ended.map_or(rule, |earlier| earlier.min(rule)));
                } else {
                    self.reach(to, (rule, step + 1));
                }
            }
        }
        ended
    }

    /// Notes a step of the current level, once.
    fn reach(&mut self, level: usize, state: (usize, usize)) {
        if !self.reached[level..].contains(&state) {
            self.reached.push(state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Action, Builtin, Detector, Glob, RedactionConfig, RuleConfig, Secrets};

    #[test]
    fn names_are_joined_up_to_a_limit_and_again_after_it() {
        let mut rule = RuleConfig::builtin(Builtin::Email, Action::Mask);
        let globs = ["top.*.a.b", "*.pin"].map(|text| Glob::try_from(text.to_owned()));
        rule.detector = Detector::Keys(globs.into_iter().map(Result::unwrap).collect());
        let config =
            RedactionConfig { secrets: Secrets::Off, rules: vec![rule], ..Default::default() };
        let set = RuleSet::compile(&config, [0; 32]).unwrap();
        let mut trail = Trail::new(&set, set.all, "top", 0);
        assert_eq!(trail.enter_key(&set, "x"), Verdict::Look);
        for _ in 0..MAX_DOTTED_BYTES {
            assert_eq!(trail.enter_key(&set, "a"), Verdict::Look);
            assert!(trail.dotted.len() <= MAX_DOTTED_BYTES, "{}", trail.dotted.len());
        }
        assert_eq!(trail.enter_key(&set, "b"), Verdict::Look);
        trail.leave();
        assert_eq!(trail.enter_key(&set, "pin"), Verdict::Whole(0));
        trail.leave();
        while trail.depth() > 2 {
            trail.leave();
        }
        assert_eq!(trail.enter_key(&set, "b"), Verdict::Whole(0));
    }
}
