//! Merging of classes that a rule says are equal.

use super::term_facts::{TermFacts, handle};
use super::term_graph::TermGraph;
use crate::rewrite::conditions::facts::Facts;
use crate::rewrite::error::RewriteError;
use crate::rewrite::rules::ast::Header;

/// Merges two classes for a rule.
///
/// # Errors
/// If their types differ.
pub fn unite(
    graph: &mut TermGraph,
    left: egg::Id,
    right: egg::Id,
    header: &Header,
) -> Result<bool, RewriteError> {
    let facts = TermFacts { terms: &graph.terms };
    let (left_ty, right_ty) = (facts.ty(handle(left)), facts.ty(handle(right)));
    if left_ty != right_ty {
        let name = |ty: Option<crate::ir::TensorType>| ty.map_or("no type".to_owned(), |ty| ty.to_string());
        return Err(RewriteError::TypeChanged {
            rule: header.name.text.clone(),
            left: name(left_ty),
            right: name(right_ty),
        });
    }
    Ok(graph.terms.union_trusted(left, right, header.name.text.as_str()))
}
