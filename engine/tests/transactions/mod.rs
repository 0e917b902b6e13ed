//! The model check of transactions: what may happen, what the rules say, and how the engine is held against them.

pub mod driver;
pub mod oracle;
