//! The kinds of problems that answers tell of (RFC 9457), in one table: what `type` and `title` of a
//! problem say, and what `/api/v1/problems` lists.

use axum::http::StatusCode;

/// One kind of problem.
#[derive(Debug)]
pub(crate) struct ProblemKind {
    /// Its name for programs, the last part of its `type`.
    pub(crate) code: &'static str,
    /// The status that it comes with.
    pub(crate) status: StatusCode,
    /// Its name for people, the same at each occurrence.
    pub(crate) title: &'static str,
    /// When it is answered, and what to do.
    pub(crate) about: &'static str,
}

/// Where the kinds are listed; the `type` of a problem is this, `#` and its code.
pub(crate) const PROBLEMS_PATH: &str = "/api/v1/problems";

/// All of them, by status.
pub(crate) const PROBLEM_KINDS: [ProblemKind; 26] = [
    ProblemKind {
        code: "bad_parameter",
        status: StatusCode::BAD_REQUEST,
        title: "A parameter cannot be read",
        about: "A parameter of the query or of the path is not known, is given twice, is empty or has another form than described. `detail` names it.",
    },
    ProblemKind {
        code: "bad_query",
        status: StatusCode::BAD_REQUEST,
        title: "The search query cannot be read",
        about: "`problems[0]` has the column, what was expected and what came; docs/search.md has the language.",
    },
    ProblemKind {
        code: "bad_request",
        status: StatusCode::BAD_REQUEST,
        title: "The body cannot be read or carried out",
        about: "The body is no JSON, or an erasure or a hold has no condition or no reason.",
    },
    ProblemKind {
        code: "bad_decision",
        status: StatusCode::BAD_REQUEST,
        title: "A decision cannot be read",
        about: "Nothing was stored. `problems` has index, field and message of each mistake; docs/decisions.md has the fields.",
    },
    ProblemKind {
        code: "unfit",
        status: StatusCode::BAD_REQUEST,
        title: "The decisions do not fit the store",
        about: "Nothing was stored, and a repetition would fare no better: send them in another form.",
    },
    ProblemKind {
        code: "bad_sql",
        status: StatusCode::BAD_REQUEST,
        title: "The statement cannot be read",
        about: "`problems[0]` has offset, line and column where they are known; docs/sql.md has the tables and functions.",
    },
    ProblemKind {
        code: "sql_not_allowed",
        status: StatusCode::BAD_REQUEST,
        title: "The statement does more than read",
        about: "One SELECT is taken, over the tables of docs/sql.md.",
    },
    ProblemKind {
        code: "unauthorized",
        status: StatusCode::UNAUTHORIZED,
        title: "A key is needed",
        about: "Send `Authorization: Bearer tl_…` with a live key, or sign in at /login.",
    },
    ProblemKind {
        code: "forbidden",
        status: StatusCode::FORBIDDEN,
        title: "The key does not allow this",
        about: "The key lacks the scope that the operation names. `throughline keys create` makes one that has it.",
    },
    ProblemKind {
        code: "cross_site",
        status: StatusCode::FORBIDDEN,
        title: "The request comes from another site",
        about: "A browser asked for a change from a page that is not ours. Programs send a key instead.",
    },
    ProblemKind {
        code: "not_found",
        status: StatusCode::NOT_FOUND,
        title: "Nothing is there",
        about: "The path is none of ours, or what it names is not stored: not yet, or no longer.",
    },
    ProblemKind {
        code: "method_not_allowed",
        status: StatusCode::METHOD_NOT_ALLOWED,
        title: "The path does not take this method",
        about: "The header `Allow` has the methods that it takes.",
    },
    ProblemKind {
        code: "not_acceptable",
        status: StatusCode::NOT_ACCEPTABLE,
        title: "The answer has no form that is asked for",
        about: "The header `Accept` leaves out the one media type that the operation answers with.",
    },
    ProblemKind {
        code: "held",
        status: StatusCode::CONFLICT,
        title: "A legal hold is in the way",
        about: "`detail` names the hold. Release it first, or choose fewer decisions.",
    },
    ProblemKind {
        code: "conflict",
        status: StatusCode::CONFLICT,
        title: "It does not fit how things stand",
        about: "Somebody decided otherwise before, or an incident is not in the state that the change needs. `detail` says which.",
    },
    ProblemKind {
        code: "too_large",
        status: StatusCode::PAYLOAD_TOO_LARGE,
        title: "The body is too large",
        about: "`detail` has the limit. Send less at a time.",
    },
    ProblemKind {
        code: "unsupported_media_type",
        status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
        title: "The body has a type that is not taken",
        about: "Set the header `Content-Type` to one that the operation names.",
    },
    ProblemKind {
        code: "wrong_host",
        status: StatusCode::MISDIRECTED_REQUEST,
        title: "The request is addressed to another host",
        about: "Add the name to the allowed hosts, or switch access control on.",
    },
    ProblemKind {
        code: "bad_body",
        status: StatusCode::UNPROCESSABLE_ENTITY,
        title: "The body is JSON of another shape",
        about: "`detail` names the first difference from what the operation describes.",
    },
    ProblemKind {
        code: "sql_too_large",
        status: StatusCode::UNPROCESSABLE_ENTITY,
        title: "The statement needs too much memory",
        about: "Sort or group fewer rows, or narrow the time.",
    },
    ProblemKind {
        code: "storage",
        status: StatusCode::INTERNAL_SERVER_ERROR,
        title: "The store could not answer",
        about: "A fault of the server or its disk. Its log says more.",
    },
    ProblemKind {
        code: "metrics",
        status: StatusCode::INTERNAL_SERVER_ERROR,
        title: "The server's metrics cannot be written",
        about: "A fault of the server. Its log says more.",
    },
    ProblemKind {
        code: "answer",
        status: StatusCode::INTERNAL_SERVER_ERROR,
        title: "The answer cannot be written",
        about: "A fault of the server. Its log says more.",
    },
    ProblemKind {
        code: "busy",
        status: StatusCode::SERVICE_UNAVAILABLE,
        title: "The store takes nothing right now",
        about: "Nothing was stored. Send it again after `Retry-After`.",
    },
    ProblemKind {
        code: "query_timeout",
        status: StatusCode::SERVICE_UNAVAILABLE,
        title: "The question took too long",
        about: "Narrow it by time, agent or session.",
    },
    ProblemKind {
        code: "shutting_down",
        status: StatusCode::SERVICE_UNAVAILABLE,
        title: "The server is shutting down",
        about: "Ask again in a moment.",
    },
];

/// The kind with this code.
pub(crate) fn kind(code: &str) -> Option<&'static ProblemKind> {
    PROBLEM_KINDS.iter().find(|kind| kind.code == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_is_there_once() {
        let mut codes: Vec<&str> = PROBLEM_KINDS.iter().map(|kind| kind.code).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), PROBLEM_KINDS.len());
        assert!(PROBLEM_KINDS.is_sorted_by_key(|kind| kind.status.as_u16()));
    }
}
