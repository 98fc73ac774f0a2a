//! What the examples share: where the model is that they ask, and where their traces go.
