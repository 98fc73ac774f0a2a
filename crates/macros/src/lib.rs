//! The attribute macros of `throughline`, which re-exports them: use them through it.
