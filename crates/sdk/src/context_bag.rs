//! What a tool is told of its caller: [`ContextBag`] (requirement R2.3).
//!
//! A bag holds what the layers above a tool know: who the user is, where, what the model took the
//! request for. A tool sees none of it but `session_id`, `trace_id` and the fields that it declared
//! ([`Tool::needs`](crate::Tool::needs)); a field that is classed [`Sensitivity::Consent`] not even
//! then, unless somebody [authorised](ContextBag::authorise) it.
//!
//! ```
//! use throughline::{ContextBag, Need, SourceLayer};
//!
//! let bag = ContextBag::new();
//! bag.set(SourceLayer::Caller, "user_timezone", "Europe/Vienna")?;
//! bag.set(SourceLayer::Session, "consent_flag", true)?;
//!
//! let needs = [Need::of("user_timezone"), Need::of("consent_flag")];
//! assert!(bag.view_for("book_v1", &needs).is_err(), "nobody authorised the consent");
//! bag.authorise("consent_flag", "the user", "ticked the box at checkout")?;
//! let view = bag.view_for("book_v1", &needs)?;
//! assert_eq!(view.get("user_timezone"), Some("Europe/Vienna".into()));
//! assert_eq!(view.get("intent"), None, "it was not asked for");
//! # Ok::<(), throughline::BagError>(())
//! ```

mod bag;
mod carry;
mod error;
mod schema;
mod wire;

pub use bag::ContextBag;
pub use carry::{CONTEXT_BAG_ENV, CONTEXT_BAG_HEADER, CONTEXT_BAG_MAX_BYTES, CONTEXT_BAG_META_KEY};
pub use error::BagError;
pub use schema::{BagField, BagSchema, Need, Sensitivity, SourceLayer};
pub use wire::{CONTEXT_BAG_FORM, CONTEXT_BAG_MAX_FIELDS, CONTEXT_BAG_VERSION};
