//! Money that the keys of the gateway have spent, over restarts.

use rusqlite::{Row, TransactionBehavior, params};
use throughline_trace::KeySpending;

use super::Governance;
use crate::error::ControlError;

impl Governance {
    /// What keys have spent, as it was written last.
    ///
    /// # Errors
    /// [`ControlError::Storage`].
    pub fn spending(&self) -> Result<Vec<KeySpending>, ControlError> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached("SELECT key, period, usd FROM spending")?;
        let read = |row: &Row<'_>| {
            Ok(KeySpending { key: row.get(0)?, period: row.get(1)?, usd: row.get(2)? })
        };
        let spending = statement.query_map([], read)?.collect::<Result<_, _>>()?;
        Ok(spending)
    }

    /// Puts what keys have spent in place of what was written before, which is of periods that are over
    /// or is counted in it.
    ///
    /// # Errors
    /// [`ControlError::Storage`]; what was written before stays then.
    pub fn write_spending(&self, spending: &[KeySpending]) -> Result<(), ControlError> {
        let mut connection = self.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute("DELETE FROM spending", [])?;
        for one in spending {
            transaction
                .prepare_cached("INSERT INTO spending(period, key, usd) VALUES (?1, ?2, ?3)")?
                .execute(params![one.period, one.key, one.usd])?;
        }
        transaction.commit()?;
        Ok(())
    }
}
