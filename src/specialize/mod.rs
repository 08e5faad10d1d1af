//! Turns a graph of ONNX forms with symbolic dims into a static graph of core ops.
//!
//! [`bind`] gives every input its dims. [`specialize`] then walks the nodes in order into a new
//! graph: forms are expanded as soon as the types of their operands are known, what depends
//! on constants alone is evaluated by the reference and becomes a weight, control flow with
//! constant conditions disappears, and dead nodes are dropped at the end. The result holds no
//! symbol, no ONNX form and no untyped value. Start reading at [`specialize`].

pub mod bindings;
mod bounded;
mod control;
mod element;
mod error;
mod fold;
mod pack;
pub mod precision;
mod ranges;
mod repeated;
mod scope;
pub mod stages;
mod strips;
mod tidy;
mod unroll;
mod walk;

pub use bindings::{BindError, Bindings, bind, bind_inputs};
pub use bounded::counted;
pub use error::{Problem, SpecializeError};
pub use pack::pack_weights;
pub use precision::{Island, Reason, Wide, lower_except, lower_precision};
pub use ranges::{RangeError, ShapeRange, Shapes, every_shape};
pub use stages::{StagesError, run_in_stages};
pub use strips::in_strips;

use crate::ir::{Graph, TensorType};
use crate::reference::Constants;
use bounded::Bounds;
use walk::Walk;

/// Specialises `graph` for one set of input dims.
///
/// # Errors
/// If the bindings are not this graph's, or some nodes cannot be lowered; these are all
/// reported together.
pub fn specialize(graph: &Graph, bindings: &Bindings) -> Result<Graph, SpecializeError> {
    walked(graph, bindings, None, None)
}

/// As [`specialize`], where constants that `known` has seen are not folded again.
///
/// # Errors
/// As [`specialize`].
pub fn specialize_again(
    graph: &Graph,
    bindings: &Bindings,
    known: &Constants,
) -> Result<Graph, SpecializeError> {
    walked(graph, bindings, None, Some(known))
}

/// As [`specialize`], where extents that data decides become as large as they can be: counts behind the outputs
/// tell how much of these is there, see [`Graph::bounds`]. `stated` are limits of tensors by their names, for
/// what nothing else limits; data beyond them is an error, see [`Graph::limits`].
///
/// # Errors
/// As [`specialize`], and where what follows from such a result depends on how much of it is there.
pub fn specialize_bounded(
    graph: &Graph,
    bindings: &Bindings,
    stated: &[(String, usize)],
) -> Result<Graph, SpecializeError> {
    walked(graph, bindings, Some(Bounds::new(stated)), None)
}

fn walked(
    graph: &Graph,
    bindings: &Bindings,
    bounds: Option<Bounds>,
    folded: Option<&Constants>,
) -> Result<Graph, SpecializeError> {
    if bindings.types().len() != graph.inputs.len() {
        return Err(SpecializeError::Bind(BindError::Count {
            expected: graph.inputs.len(),
            found: bindings.types().len(),
        }));
    }
    let mut walk = Walk::new(&graph.name);
    walk.bounds = bounds;
    walk.folded = folded;
    let inputs = add_inputs(&mut walk.target, graph, bindings.types());
    let named = inputs.into_iter().zip(&graph.inputs);
    let inputs = named.map(|(known, &input)| walk.limited(known, &graph.value(input).name));
    let inputs = inputs.collect();
    let outputs = walk.inline(graph, inputs, None);
    walk.finish(graph, &outputs)
}

fn add_inputs(target: &mut Graph, graph: &Graph, types: &[TensorType]) -> Vec<scope::Known> {
    graph
        .inputs
        .iter()
        .zip(types)
        .map(|(&input, ty)| {
            scope::Known::Tensor(target.add_input(&graph.value(input).name, Some(ty.clone())))
        })
        .collect()
}

#[cfg(test)]
mod tests;
