//! Dims of the inputs: from what the user asks for, or from the data given.

use std::collections::BTreeMap;

use crate::ir::{DType, Dim, Graph, HostTensor, MAX_TENSOR_BYTES, TensorType, ValueId};

/// Bound types of every input of one graph, in input order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bindings {
    types: Vec<TensorType>,
}

/// Why dims do not fit a graph's inputs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    #[error("the model has no input `{name}`; its inputs are {known}")]
    UnknownInput { name: String, known: String },
    #[error("input `{input}` is given two shapes: {first:?} and {second:?}")]
    Twice {
        input: String,
        first: Vec<usize>,
        second: Vec<usize>,
    },
    #[error("the model has {expected} inputs, {found} were given")]
    Count { expected: usize, found: usize },
    #[error("the model does not say which rank input `{input}` has, or it is a sequence or an optional")]
    Untyped { input: String },
    #[error("input `{input}` must be `{expected}`, of rank {}, found dims {found:?}", .expected.rank())]
    Rank {
        input: String,
        expected: TensorType,
        found: Vec<usize>,
    },
    #[error("input `{input}` must be `{expected}`: dim {axis} is {wanted}, found {found:?}")]
    Extent {
        input: String,
        expected: TensorType,
        axis: usize,
        wanted: usize,
        found: Vec<usize>,
    },
    #[error("dim `{symbol}` is {first} in input `{first_input}` and {second} in input `{second_input}`")]
    Symbol {
        symbol: String,
        first_input: String,
        first: usize,
        second_input: String,
        second: usize,
    },
    #[error("input `{input}` would be `{found}`: a tensor takes {MAX_TENSOR_BYTES} bytes at most")]
    TooLarge { input: String, found: TensorType },
    #[error("input `{input}` must be of kind `{expected}`, found `{found}`")]
    Kind {
        input: String,
        expected: DType,
        found: DType,
    },
}

impl BindError {
    /// Whether the request is right and only this program cannot do it.
    pub fn is_unsupported(&self) -> bool {
        matches!(self, BindError::Untyped { .. } | BindError::TooLarge { .. })
    }
}

/// Binds inputs to the named shapes. Symbols that no shape speaks of are 1, and an input
/// without a shape follows the symbols it shares with others.
///
/// # Errors
/// If a name is unknown, or a shape contradicts the model or another shape.
pub fn bind(graph: &Graph, shapes: &[(String, Vec<usize>)]) -> Result<Bindings, BindError> {
    let mut binder = Binder::new(graph);
    let mut given: Vec<Option<&[usize]>> = vec![None; graph.inputs.len()];
    for (name, dims) in shapes {
        let position = position_of(graph, name)?;
        if let Some(first) = given[position].replace(dims).filter(|first| first != dims) {
            return Err(BindError::Twice {
                input: name.clone(),
                first: first.to_vec(),
                second: dims.clone(),
            });
        }
    }
    for (&input, dims) in graph.inputs.iter().zip(&given) {
        if let Some(dims) = dims {
            binder.unify(input, dims)?;
        }
    }
    binder.finish(&given)
}

/// Binds inputs to the dims of actual data, one tensor per input.
///
/// # Errors
/// If there are more or fewer tensors than inputs, or one does not fit its input.
pub fn bind_inputs(graph: &Graph, inputs: &[HostTensor]) -> Result<Bindings, BindError> {
    if inputs.len() != graph.inputs.len() {
        return Err(BindError::Count {
            expected: graph.inputs.len(),
            found: inputs.len(),
        });
    }
    let mut binder = Binder::new(graph);
    for (&input, data) in graph.inputs.iter().zip(inputs) {
        // A model may leave the type of an input to its data.
        let expected = binder.ty(input).map_or(data.dtype(), |ty| ty.dtype);
        if expected != data.dtype() {
            return Err(BindError::Kind {
                input: graph.value(input).name.clone(),
                expected,
                found: data.dtype(),
            });
        }
        if graph.value(input).ty.is_some() {
            binder.unify(input, data.dims())?;
        }
    }
    Ok(Bindings {
        types: inputs.iter().map(HostTensor::ty).collect(),
    })
}

impl Bindings {
    /// Types of the inputs, in input order; every dim is a number.
    pub fn types(&self) -> &[TensorType] {
        &self.types
    }
}

fn position_of(graph: &Graph, name: &str) -> Result<usize, BindError> {
    let mut inputs = graph.inputs.iter();
    inputs
        .position(|&input| graph.value(input).name == name)
        .ok_or_else(|| {
            let known: Vec<String> = graph
                .inputs
                .iter()
                .map(|&input| format!("`{}`", graph.value(input).name))
                .collect();
            BindError::UnknownInput {
                name: name.to_owned(),
                known: known.join(", "),
            }
        })
}

/// Symbols on their way to extents.
struct Binder<'a> {
    graph: &'a Graph,
    /// Extent of each symbol, and the input that said so.
    symbols: BTreeMap<&'a str, (usize, &'a str)>,
}

impl<'a> Binder<'a> {
    fn new(graph: &'a Graph) -> Self {
        Binder {
            graph,
            symbols: BTreeMap::new(),
        }
    }

    fn ty(&self, input: ValueId) -> Result<&'a TensorType, BindError> {
        let value = self.graph.value(input);
        value.ty.as_ref().ok_or_else(|| BindError::Untyped {
            input: value.name.clone(),
        })
    }

    /// Matches the declared type of `input` with `dims`.
    fn unify(&mut self, input: ValueId, dims: &[usize]) -> Result<(), BindError> {
        let expected = self.ty(input)?;
        let name = &self.graph.value(input).name;
        if expected.rank() != dims.len() {
            return Err(BindError::Rank {
                input: name.clone(),
                expected: expected.clone(),
                found: dims.to_vec(),
            });
        }
        for (axis, (dim, &extent)) in expected.shape.0.iter().zip(dims).enumerate() {
            match dim {
                Dim::Known(wanted) if *wanted != extent => {
                    return Err(BindError::Extent {
                        input: name.clone(),
                        expected: expected.clone(),
                        axis,
                        wanted: *wanted,
                        found: dims.to_vec(),
                    });
                }
                Dim::Known(_) => {}
                Dim::Symbol(symbol) => self.define(symbol, extent, name)?,
            }
        }
        Ok(())
    }

    /// Remembers the extent of a symbol. A dim without a name is nobody else's.
    fn define(&mut self, symbol: &'a str, extent: usize, input: &'a str) -> Result<(), BindError> {
        if symbol.is_empty() {
            return Ok(());
        }
        let (first, first_input) = *self.symbols.entry(symbol).or_insert((extent, input));
        if first == extent {
            return Ok(());
        }
        Err(BindError::Symbol {
            symbol: symbol.to_owned(),
            first_input: first_input.to_owned(),
            first,
            second_input: input.to_owned(),
            second: extent,
        })
    }

    fn finish(&self, given: &[Option<&[usize]>]) -> Result<Bindings, BindError> {
        let inputs = self.graph.inputs.iter().zip(given);
        let types = inputs.map(|(&input, dims)| {
            let ty = self.ty(input)?;
            let dims = dims.map_or_else(|| self.extents(ty), <[usize]>::to_vec);
            let found = TensorType::new(ty.dtype, &dims);
            if found.is_too_large() {
                let input = self.graph.value(input).name.clone();
                return Err(BindError::TooLarge { input, found });
            }
            Ok(found)
        });
        Ok(Bindings {
            types: types.collect::<Result<_, BindError>>()?,
        })
    }

    fn extents(&self, ty: &TensorType) -> Vec<usize> {
        ty.shape.0.iter().map(|dim| self.extent(dim)).collect()
    }

    fn extent(&self, dim: &Dim) -> usize {
        match dim {
            Dim::Known(extent) => *extent,
            Dim::Symbol(symbol) => self.symbols.get(symbol.as_str()).map_or(1, |&(extent, _)| extent),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::Shape;

    #[expect(clippy::unnecessary_wraps, reason = "inputs may have no type")]
    fn ty(dtype: DType, dims: &[&str]) -> Option<TensorType> {
        let dims = dims.iter().map(|dim| match dim.parse() {
            Ok(extent) => Dim::Known(extent),
            Err(_) => Dim::Symbol((*dim).to_owned()),
        });
        Some(TensorType {
            dtype,
            shape: Shape(dims.collect()),
        })
    }

    fn graph() -> Graph {
        let mut graph = Graph::new("g");
        graph.add_input("ids", ty(DType::I64, &["batch", "length"]));
        graph.add_input("mask", ty(DType::I64, &["batch", "length"]));
        graph.add_input("image", ty(DType::F32, &["batch", "3", "", ""]));
        graph
    }

    fn dims(bindings: &Bindings) -> Vec<Vec<usize>> {
        bindings.types().iter().map(TensorType::dims).collect()
    }

    fn bound(shapes: &[(&str, &[usize])]) -> Result<Bindings, BindError> {
        let shapes: Vec<(String, Vec<usize>)> = shapes
            .iter()
            .map(|(name, dims)| ((*name).to_owned(), dims.to_vec()))
            .collect();
        bind(&graph(), &shapes)
    }

    #[test]
    fn unnamed_symbols_are_one_and_shared_ones_follow() {
        assert_eq!(
            dims(&bound(&[]).unwrap()),
            [vec![1, 1], vec![1, 1], vec![1, 3, 1, 1]]
        );
        let bindings = bound(&[("mask", &[2, 7])]).unwrap();
        assert_eq!(dims(&bindings), [vec![2, 7], vec![2, 7], vec![2, 3, 1, 1]]);
        let bindings = bound(&[("image", &[4, 3, 5, 6])]).unwrap();
        assert_eq!(dims(&bindings), [vec![4, 1], vec![4, 1], vec![4, 3, 5, 6]]);
    }

    #[test]
    fn contradictions_are_explained() {
        let message = |shapes: &[(&str, &[usize])]| bound(shapes).unwrap_err().to_string();
        assert_eq!(
            message(&[("ids", &[2, 7]), ("mask", &[3, 7])]),
            "dim `batch` is 2 in input `ids` and 3 in input `mask`"
        );
        assert_eq!(
            message(&[("image", &[2, 4, 5, 5])]),
            "input `image` must be `f32[batch,3,,]`: dim 1 is 3, found [2, 4, 5, 5]"
        );
        assert_eq!(
            message(&[("image", &[2, 4])]),
            "input `image` must be `f32[batch,3,,]`, of rank 4, found dims [2, 4]"
        );
        assert_eq!(
            message(&[("imgae", &[])]),
            "the model has no input `imgae`; its inputs are `ids`, `mask`, `image`"
        );
        assert!(message(&[("ids", &[2, 7]), ("ids", &[3, 7])]).contains("two shapes"));
    }

    #[test]
    fn data_must_be_of_the_declared_kind() {
        let mut graph = Graph::new("g");
        graph.add_input("x", ty(DType::F32, &["n"]));
        let bindings = bind_inputs(&graph, &[HostTensor::from_f32(&[4], &[0.0; 4])]).unwrap();
        assert_eq!(bindings.types()[0], TensorType::new(DType::F32, &[4]));
        let error = bind_inputs(&graph, &[HostTensor::from_i64(&[1], &[0])]).unwrap_err();
        assert_eq!(error.to_string(), "input `x` must be of kind `f32`, found `i64`");
        assert!(bind_inputs(&graph, &[]).is_err());
    }
}
