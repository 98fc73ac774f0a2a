//! Notes who read decisions. Whoever reads does not wait for it.

use throughline_store::DecisionRead;

use crate::doors::Visitor;
use crate::params::Params;
use crate::state::App;

/// By which door a read came.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Via {
    Api,
    Page,
}

/// Notes that `rows` decisions were answered to this question.
pub(crate) fn note(app: &App, visitor: &Visitor, via: Via, question: String, rows: usize) {
    app.web.reads.note(DecisionRead {
        who: who(visitor),
        via: match via {
            Via::Api => "api",
            Via::Page => "page",
        },
        query: question,
        rows: rows as u64,
    });
}

/// The same for a question without parameters that matter.
pub(crate) fn note_path(app: &App, visitor: &Visitor, via: Via, path: &str, rows: usize) {
    note(app, visitor, via, Params::default().question(path), rows);
}

/// Who asks: id and name of the key, or `local` when none is needed.
pub(crate) fn who(visitor: &Visitor) -> String {
    match &visitor.key {
        Some(key) => format!("key {} ({})", key.id, key.name),
        None => "local".to_owned(),
    }
}
