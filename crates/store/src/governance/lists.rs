//! Lists of findings and actions. A page begins behind an item that is named by its id: what is added
//! meanwhile comes before the first page, so that no item is repeated or passed over. Behind an item that
//! was forgotten there is nothing: only the oldest are.

use rusqlite::params;
use throughline_trace::Finding;

use super::{ActionRecord, ActionState, FindingFilter, Governance, json, limit, read_action};
use crate::error::ControlError;
use crate::schema::from_nanos;

impl Governance {
    /// Findings, the newest first.
    ///
    /// # Errors
    /// [`ControlError::Storage`].
    pub fn findings(&self, filter: &FindingFilter) -> Result<Vec<Finding>, ControlError> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached(
            "SELECT body FROM findings WHERE (NOT ?1 OR firing = 1) AND (?2 IS NULL OR rule = ?2)
                AND since >= ?3 AND (?5 IS NULL
                    OR (since, finding) < (SELECT since, finding FROM findings WHERE id = ?5))
                ORDER BY since DESC, finding DESC LIMIT ?4",
        )?;
        let since = from_nanos(filter.since_unix_nano.unwrap_or(0));
        let rows = statement.query_map(
            params![filter.is_firing, filter.rule, since, limit(filter.limit), filter.after],
            |row| json(row, 0),
        )?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Actions of one kind of operation (`notify`), the newest first, whatever became of them; at most
    /// so many, 0 stands for [`MAX_GOVERNANCE_LIST`](super::MAX_GOVERNANCE_LIST).
    ///
    /// # Errors
    /// [`ControlError::Storage`].
    pub fn actions_of(
        &self,
        kind: &str,
        at_most: usize,
    ) -> Result<Vec<ActionRecord>, ControlError> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached(
            "SELECT body, state, detail, decision_id, finished FROM actions
                WHERE kind = ?1 ORDER BY at DESC, action DESC LIMIT ?2",
        )?;
        let rows = statement.query_map(params![kind, limit(at_most)], read_action)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Actions, the newest first; only in one state if that is said.
    ///
    /// # Errors
    /// [`ControlError::Storage`].
    pub fn actions(
        &self,
        state: Option<ActionState>,
        at_most: usize,
    ) -> Result<Vec<ActionRecord>, ControlError> {
        self.actions_behind(state, None, at_most)
    }

    /// The same, behind the action with this id if one is given.
    ///
    /// # Errors
    /// [`ControlError::Storage`].
    pub fn actions_behind(
        &self,
        state: Option<ActionState>,
        after: Option<&str>,
        at_most: usize,
    ) -> Result<Vec<ActionRecord>, ControlError> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached(
            "SELECT body, state, detail, decision_id, finished FROM actions
                WHERE (?1 IS NULL OR state = ?1) AND (?3 IS NULL
                    OR (at, action) < (SELECT at, action FROM actions WHERE id = ?3))
                ORDER BY at DESC, action DESC LIMIT ?2",
        )?;
        let state = state.map(ActionState::as_str);
        let rows = statement.query_map(params![state, limit(at_most), after], read_action)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use throughline_trace::{Action, DecisionId, Directive, DirectiveAction, Operation, Subject};

    use super::*;
    use crate::governance::Evaluation;

    const NOW: u64 = 1_764_143_700_000_000_000;

    fn action(number: u64, at: u64) -> Action {
        let subject = Subject::of("number", number.to_string());
        let of = Action::of_person(("ada", "a test"), subject, Operation::Investigate, NOW + at);
        Action { id: format!("a-{number}"), ..of }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        /// Moments are often equal; pages of any size hold all that was there at first, once, whatever is
        /// added behind the reader's back.
        #[test]
        fn pages_hold_every_action_once(
            moments in proptest::collection::vec(0_u64..4, 1..12), size in 1_usize..5,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let governance = Governance::open(dir.path()).unwrap();
            let actions = moments.iter().enumerate().map(|(number, at)| action(number as u64, *at));
            let actions: Vec<Action> = actions.collect();
            governance.commit(&Evaluation { actions, ..Evaluation::default() }).unwrap();
            let all = governance.actions(None, 0).unwrap();
            prop_assert_eq!(all.len(), moments.len());
            let (mut seen, mut added) = (Vec::<ActionRecord>::new(), 100);
            loop {
                let after = seen.last().map(|last| last.action.id.clone());
                let page = governance.actions_behind(None, after.as_deref(), size).unwrap();
                if page.is_empty() {
                    break;
                }
                seen.extend(page);
                added += 1;
                let newer = vec![action(added, 10)];
                governance.commit(&Evaluation { actions: newer, ..Evaluation::default() }).unwrap();
            }
            prop_assert_eq!(seen, all);
        }
    }

    #[test]
    fn documents_and_directives_go_on_behind_what_was_last() {
        let dir = tempfile::tempdir().unwrap();
        let governance = Governance::open(dir.path()).unwrap();
        for name in ["a", "b", "c"] {
            governance.write_document("hold", name, 0, "", "{}").unwrap();
            let directive = Directive::new(name, NOW, u64::MAX >> 1, DirectiveAction::Stop);
            governance.issue_directive(&directive).unwrap();
        }
        // The one that changed last is the first.
        governance.write_document("hold", "a", 1, "", "{}").unwrap();
        let all = governance.documents("hold").unwrap();
        let names =
            |of: &[crate::Document]| of.iter().map(|one| one.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&all)[0], "a");
        let key = Some((all[0].at_unix_nano, "a"));
        assert_eq!(governance.documents_behind("hold", key, 0).unwrap(), all[1..]);
        assert_eq!(governance.documents_behind("hold", key, 1).unwrap(), all[1..2]);
        let given = governance.directives(0).unwrap();
        let place = given[0].0.place;
        assert_eq!(governance.directives_before(place, 1).unwrap()[0].0, given[1].0);
        assert!(
            governance
                .actions_behind(None, Some(&DecisionId::random().to_string()), 0)
                .unwrap()
                .is_empty()
        );
    }
}
