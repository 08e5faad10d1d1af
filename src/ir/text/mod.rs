//! The text form of graphs: one syntax for tests, dumps and documentation.
//!
//! ```text
//! ; a comment
//! graph gemm_relu(x: f32[batch,256], w: f32[256,512]) {
//!   b = f32[512]{0.5 ..}                        ; a weight: its values, one repeated, or hex
//!   y: f32[2,512] = matmul(x, w) from "MatMul_3"
//!   z, index = top_k[axis=1, k=3, largest=true](add(y, b), _)
//!   return z as "scores", index
//! }
//! ```
//!
//! A name that is no identifier is quoted. `y%7` and `%7` say that a value is number 7 of the
//! graph; a value without a number takes the next one. `_` is an absent operand, `: ?` an unknown
//! type, `from` lists ONNX nodes and `by` rules. A body has its captures after its inputs:
//! `graph body(i: i64[], x) captures (x = "outer") { .. }`.
//!
//! `parse(print(g)) == g` for every graph that [`super::verify`] accepts. Start reading at
//! [`print()`] and [`parse`].

mod cursor;
mod data;
mod error;
mod lex;
mod literal;
mod parse;
mod print;
mod suggest;

pub use error::TextError;
pub use parse::parse;
pub use print::{print, print_brief};

/// Words that are no names of values unless quoted.
const KEYWORDS: [&str; 11] = [
    "graph", "captures", "return", "from", "by", "as", "inf", "nan", "true", "false", "_",
];

/// Whether a name can be written without quotes.
fn is_identifier(name: &str) -> bool {
    let mut characters = name.chars();
    characters.next().is_some_and(lex::starts_word)
        && characters.all(lex::continues_word)
        && !KEYWORDS.contains(&name)
        && super::DType::from_name(name).is_none()
}
