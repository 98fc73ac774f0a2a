//! The SDK as its users see it, in one binary.

mod decisions;
mod export;
mod logs;
mod spans;
mod tools;
