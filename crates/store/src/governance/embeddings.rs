//! Embeddings that an endpoint was asked for: what sessions were about, by the hash of the text. The text itself is not
//! kept here; it is in the spans, redacted.

use rusqlite::{Row, TransactionBehavior, params};
use throughline_trace::TraceId;

use super::Governance;
use crate::error::ControlError;
use crate::schema::{from_nanos, to_nanos};

/// How long they are kept, nanoseconds (six hours): a window and what it is held against, and not longer than that, since
/// a text can be guessed from its embedding.
pub const EMBEDDINGS_KEPT_NANOS: u64 = 6 * 3_600_000_000_000;

/// Embeddings that are kept at most; the oldest go.
pub const MAX_EMBEDDINGS: usize = 10_000;

/// Contexts that one list answers at most, the newest.
pub const MAX_CONTEXTS: usize = 4_000;

/// Hash of a text and of the model that is asked for its embedding.
pub type TextHash = [u8; 16];

/// What an agent's session was about at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionContext {
    /// When, nanoseconds since the Unix epoch.
    pub at_unix_nano: u64,
    /// The agent.
    pub agent: String,
    /// The session; empty where none is named.
    pub session: String,
    /// Where it was said.
    pub trace_id: TraceId,
    /// Hash of the text.
    pub text: TextHash,
}

/// A context with the embedding of its text.
#[derive(Debug, Clone, PartialEq)]
pub struct EmbeddedContext {
    /// The context.
    pub context: SessionContext,
    /// The embedding.
    pub numbers: Vec<f32>,
}

impl Governance {
    /// Which of these texts have no embedding yet, in their order.
    ///
    /// # Errors
    /// [`ControlError::Storage`].
    pub fn without_embedding(&self, texts: &[TextHash]) -> Result<Vec<TextHash>, ControlError> {
        let connection = self.lock();
        let mut statement =
            connection.prepare_cached("SELECT 1 FROM embeddings WHERE text = ?1")?;
        let mut missing = Vec::new();
        for text in texts {
            if !statement.exists([text])? {
                missing.push(*text);
            }
        }
        Ok(missing)
    }

    /// Writes contexts and embeddings down, and forgets those that are older than [`EMBEDDINGS_KEPT_NANOS`] at `now`
    /// (nanoseconds since the Unix epoch), or too many. A context that is known stays as it is.
    ///
    /// # Errors
    /// [`ControlError::Storage`]; nothing is written.
    pub fn write_embeddings(
        &self,
        now: u64,
        contexts: &[SessionContext],
        embeddings: &[(TextHash, Vec<f32>)],
    ) -> Result<(), ControlError> {
        let oldest = from_nanos(now.saturating_sub(EMBEDDINGS_KEPT_NANOS));
        let mut connection = self.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for (text, numbers) in embeddings {
            let numbers: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
            transaction
                .prepare_cached("INSERT OR REPLACE INTO embeddings VALUES (?1, ?2, ?3)")?
                .execute(params![text, from_nanos(now), numbers])?;
        }
        for one in contexts {
            transaction
                .prepare_cached("INSERT OR IGNORE INTO contexts VALUES (?1, ?2, ?3, ?4, ?5)")?
                .execute(params![
                    one.trace_id.as_bytes(),
                    one.text,
                    from_nanos(one.at_unix_nano),
                    one.agent,
                    one.session
                ])?;
            // A text that is said again is in use.
            transaction
                .prepare_cached("UPDATE embeddings SET at = ?2 WHERE text = ?1")?
                .execute(params![one.text, from_nanos(now)])?;
        }
        transaction.prepare_cached("DELETE FROM contexts WHERE at < ?1")?.execute([oldest])?;
        transaction.prepare_cached("DELETE FROM embeddings WHERE at < ?1")?.execute([oldest])?;
        transaction
            .prepare_cached(
                "DELETE FROM embeddings WHERE text IN (
                    SELECT text FROM embeddings ORDER BY at DESC LIMIT -1 OFFSET ?1)",
            )?
            .execute([MAX_EMBEDDINGS as i64])?;
        transaction.commit()?;
        Ok(())
    }

    /// Contexts of an agent, or of all, from one moment up to another (nanoseconds since the Unix epoch), each with its
    /// embedding, by time; of more than [`MAX_CONTEXTS`] the newest. Those without an embedding are left out.
    ///
    /// # Errors
    /// [`ControlError::Storage`].
    pub fn embedded_contexts(
        &self,
        agent: Option<&str>,
        (from, to): (u64, u64),
    ) -> Result<Vec<EmbeddedContext>, ControlError> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached(
            "SELECT contexts.at, agent, session, trace, contexts.text, numbers
                FROM contexts JOIN embeddings ON embeddings.text = contexts.text
                WHERE contexts.at >= ?1 AND contexts.at < ?2 AND (?3 IS NULL OR agent = ?3)
                ORDER BY contexts.at DESC LIMIT ?4",
        )?;
        let read = |row: &Row<'_>| {
            let numbers: Vec<u8> = row.get(5)?;
            let trace: [u8; 16] = row.get(3)?;
            // What is written is never all zeros, which is no id.
            let trace_id = TraceId::from_bytes(trace).ok_or(rusqlite::Error::InvalidQuery)?;
            let number = |bytes: &[u8]| <[u8; 4]>::try_from(bytes).map(f32::from_le_bytes);
            Ok(EmbeddedContext {
                context: SessionContext {
                    at_unix_nano: to_nanos(row.get(0)?),
                    agent: row.get(1)?,
                    session: row.get(2)?,
                    trace_id,
                    text: row.get(4)?,
                },
                numbers: numbers.chunks_exact(4).filter_map(|bytes| number(bytes).ok()).collect(),
            })
        };
        let rows = params![from_nanos(from), from_nanos(to), agent, MAX_CONTEXTS as i64];
        let found: Result<Vec<_>, _> = statement.query_map(rows, read)?.collect();
        let mut found = found?;
        found.reverse();
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000_000_000;
    const NOW: u64 = 1_800_000_000_000_000_000;

    fn context(at_unix_nano: u64, agent: &str, trace: u128, text: u8) -> SessionContext {
        SessionContext {
            at_unix_nano,
            agent: agent.to_owned(),
            session: "s".to_owned(),
            trace_id: TraceId::from_u128(trace),
            text: [text; 16],
        }
    }

    #[test]
    fn contexts_come_back_with_their_embedding_and_go_when_they_are_old() {
        let dir = tempfile::tempdir().expect("a directory");
        let governance = Governance::open(dir.path()).expect("opened");
        let contexts =
            [context(NOW, "a", 1, 1), context(NOW + 1, "b", 2, 1), context(NOW + 2, "a", 3, 2)];
        let embeddings = [([1; 16], vec![0.5, -2.0])];
        governance.write_embeddings(NOW, &contexts, &embeddings).expect("written");
        let of = |agent| {
            let found = governance.embedded_contexts(agent, (0, u64::MAX)).expect("read");
            found.into_iter().map(|one| (one.context.trace_id, one.numbers)).collect::<Vec<_>>()
        };
        let (one, two) = (TraceId::from_u128(1), TraceId::from_u128(2));
        assert_eq!(of(Some("a")), [(one, vec![0.5, -2.0])], "text 2 has none yet");
        assert_eq!(of(None), [(one, vec![0.5, -2.0]), (two, vec![0.5, -2.0])], "by time");
        let missing = governance.without_embedding(&[[1; 16], [2; 16]]).expect("read");
        assert_eq!(missing, [[2; 16]]);
        let later = NOW + EMBEDDINGS_KEPT_NANOS + HOUR;
        let again = [context(later, "a", 4, 3)];
        governance.write_embeddings(later, &again, &[([3; 16], vec![1.0])]).expect("written");
        assert_eq!(of(None), [(TraceId::from_u128(4), vec![1.0])]);
        assert_eq!(governance.without_embedding(&[[1; 16]]).expect("read"), [[1; 16]]);
    }
}
