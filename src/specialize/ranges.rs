//! Every binding of a model's dims within a range.

use std::collections::BTreeMap;

use super::bindings::{BindError, Bindings, bind};
use crate::ir::{Dim, Graph};

/// Dims of inputs by name.
pub type Shapes = Vec<(String, Vec<usize>)>;

/// The least, the usual and the largest shapes of the inputs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShapeRange {
    pub min: Shapes,
    pub opt: Shapes,
    pub max: Shapes,
}

/// Why a range has no bindings that can be listed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(
        "axis {axis} of input `{input}` has the range {min} to {max}, usually {opt}: they must rise in this order"
    )]
    Order {
        input: String,
        axis: usize,
        min: usize,
        opt: usize,
        max: usize,
    },
    #[error("symbol `{symbol}` has two ranges: {first:?} and {second:?}")]
    Symbol {
        symbol: String,
        first: [usize; 3],
        second: [usize; 3],
    },
    #[error("the range holds {count} shapes; an engine holds at most {most}")]
    TooMany { count: usize, most: usize },
}

/// Axes that vary together: the same symbol, or one axis without a name.
struct Free {
    /// Least, usual and largest extent.
    range: [usize; 3],
    /// Positions of inputs, and axes.
    axes: Vec<(usize, usize)>,
}

/// Shapes of all inputs for every choice of extents within `range`, the usual one first and then
/// by rising extents.
///
/// # Errors
/// If the range does not fit the model, or holds more than `most` choices.
pub fn every_shape(graph: &Graph, range: &ShapeRange, most: usize) -> Result<Vec<Shapes>, RangeError> {
    let ends = [
        bind(graph, &range.min)?,
        bind(graph, &range.opt)?,
        bind(graph, &range.max)?,
    ];
    let free = free_axes(graph, &ends)?;
    let count = free
        .iter()
        .map(|own| own.range[2] - own.range[0] + 1)
        .try_fold(1, usize::checked_mul)
        .unwrap_or(usize::MAX);
    if count > most {
        return Err(RangeError::TooMany { count, most });
    }
    let usual: Vec<usize> = free.iter().map(|own| own.range[1]).collect();
    let mut choices = vec![usual.clone()];
    let mut extents: Vec<usize> = free.iter().map(|own| own.range[0]).collect();
    loop {
        if extents != usual {
            choices.push(extents.clone());
        }
        let Some(next) = (0..free.len()).rev().find(|&n| extents[n] < free[n].range[2]) else {
            break;
        };
        extents[next] += 1;
        for later in next + 1..free.len() {
            extents[later] = free[later].range[0];
        }
    }
    let shapes = choices
        .iter()
        .map(|extents| with_extents(graph, &ends[1], &free, extents));
    Ok(shapes.collect())
}

fn free_axes(graph: &Graph, ends: &[Bindings; 3]) -> Result<Vec<Free>, RangeError> {
    let mut free: Vec<Free> = Vec::new();
    let mut named: BTreeMap<&str, usize> = BTreeMap::new();
    for (position, &input) in graph.inputs.iter().enumerate() {
        let value = graph.value(input);
        let dims = value.ty.as_ref().map_or(&[][..], |ty| &ty.shape.0);
        for (axis, dim) in dims.iter().enumerate() {
            let Dim::Symbol(symbol) = dim else { continue };
            let range @ [min, opt, max] = [0, 1, 2].map(|end| ends[end].types()[position].dims()[axis]);
            if !(min <= opt && opt <= max) {
                let input = value.name.clone();
                return Err(RangeError::Order {
                    input,
                    axis,
                    min,
                    opt,
                    max,
                });
            }
            match named.get(symbol.as_str()) {
                Some(&known) if free[known].range != range => {
                    return Err(RangeError::Symbol {
                        symbol: symbol.clone(),
                        first: free[known].range,
                        second: range,
                    });
                }
                Some(&known) => free[known].axes.push((position, axis)),
                None => {
                    if !symbol.is_empty() {
                        named.insert(symbol, free.len());
                    }
                    free.push(Free {
                        range,
                        axes: vec![(position, axis)],
                    });
                }
            }
        }
    }
    Ok(free)
}

fn with_extents(graph: &Graph, usual: &Bindings, free: &[Free], extents: &[usize]) -> Shapes {
    let mut dims: Vec<Vec<usize>> = usual.types().iter().map(crate::ir::TensorType::dims).collect();
    for (own, &extent) in free.iter().zip(extents) {
        for &(position, axis) in &own.axes {
            dims[position][axis] = extent;
        }
    }
    let names = graph.inputs.iter().map(|&input| graph.value(input).name.clone());
    names.zip(dims).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{DType, Shape, TensorType};

    fn graph() -> Graph {
        let symbol = |name: &str| Dim::Symbol(name.to_owned());
        let mut graph = Graph::new("g");
        for name in ["ids", "mask"] {
            let shape = Shape([symbol("batch"), symbol("length")].into_iter().collect());
            graph.add_input(
                name,
                Some(TensorType {
                    dtype: DType::I64,
                    shape,
                }),
            );
        }
        graph
    }

    fn shapes(dims: &[usize]) -> Shapes {
        vec![("ids".to_owned(), dims.to_vec())]
    }

    fn range(min: &[usize], opt: &[usize], max: &[usize]) -> ShapeRange {
        ShapeRange {
            min: shapes(min),
            opt: shapes(opt),
            max: shapes(max),
        }
    }

    #[test]
    fn shared_symbols_vary_together_and_the_usual_shape_is_first() {
        let all = every_shape(&graph(), &range(&[1, 7], &[2, 8], &[2, 9]), 6).unwrap();
        let ids: Vec<&[usize]> = all.iter().map(|shapes| shapes[0].1.as_slice()).collect();
        assert_eq!(ids, [[2, 8], [1, 7], [1, 8], [1, 9], [2, 7], [2, 9]]);
        assert!(all.iter().all(|shapes| shapes[0].1 == shapes[1].1));
        let one = every_shape(&graph(), &range(&[4, 4], &[4, 4], &[4, 4]), 1).unwrap();
        assert_eq!(one.len(), 1);
    }

    #[test]
    fn ranges_that_cannot_be_listed_are_refused() {
        let error = |range: &ShapeRange| every_shape(&graph(), range, 6).unwrap_err().to_string();
        assert!(error(&range(&[1, 1], &[1, 1], &[2, 4])).contains("8 shapes"));
        assert!(error(&range(&[1, 1], &[3, 1], &[2, 4])).contains("usually 3"));
        assert!(error(&range(&[1, 1, 1], &[1, 1], &[1, 1])).contains("rank 2"));
        let mut two = range(&[1, 1], &[1, 1], &[2, 1]);
        two.max.push(("mask".to_owned(), vec![3, 1]));
        assert!(error(&two).contains("batch"), "{}", error(&two));
    }
}
