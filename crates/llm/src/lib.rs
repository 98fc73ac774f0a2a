//! What Throughline knows of language models: prices.

pub mod prices;
