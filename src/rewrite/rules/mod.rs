//! Rules as text: their syntax, checks, and sets of them.

pub mod ast;
pub mod check;
pub mod error;
pub mod lexer;
pub mod parser;
pub mod set;
pub mod structure;
pub mod terms;
