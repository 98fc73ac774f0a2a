//! What the operations of the HTTP API have in common, whichever room answers them: how an operation is described
//! ([`Operation`]), how the names in its path are read ([`InPath`]) and how a list goes on ([`cursor`]).
//!
//! Nothing here answers a request: what is the same stands here once, and what differs stays with who answers.
//!
//! ```
//! use throughline_api::Operation;
//!
//! let operation: Operation<&str, ()> = Operation::get("/things/{id}", "getThing", ())
//!     .says("things", "One thing")
//!     .answers::<String>()
//!     .fails(&[(404, "There is none.")]);
//! assert_eq!(operation.path_parameters().collect::<Vec<_>>(), ["id"]);
//! ```

pub mod cursor;
mod named;
mod operation;

pub use named::{InPath, Refuses};
pub use operation::{Body, BodySchema, EVENTS, JSON, Operation, SchemaOf, TEXT, schema_of};
