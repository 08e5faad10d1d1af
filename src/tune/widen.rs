//! A region's body with every float as `f32` at least: the meaning that kernels approximate.
//!
//! The reference rounds each intermediate to its kind; a kernel only rounds what it stores.
//! Judged against the body as it is, a kernel would be blamed for rounding less.

use crate::ir::{Attr, Attrs, DType, Graph, HostTensor, Source, TensorType, ValueId};
use crate::ops::evaluate::{from_values, to_vec};

/// Ops that see the bits of a number, which are others in a wider kind.
const BITWISE: [&str; 1] = ["bit_cast"];

/// `graph` with narrow floats widened, casts among them; as it is where an op sees bits.
pub fn widened(graph: &Graph) -> Graph {
    let mut wide = graph.clone();
    if graph.nodes.iter().any(|node| BITWISE.contains(&node.op)) {
        return wide;
    }
    for number in 0..wide.values.len() {
        let id = ValueId(u32::try_from(number).expect("graphs have under 2^32 values"));
        let value = wide.value_mut(id);
        if let Some(ty) = &value.ty {
            value.ty = Some(wide_type(ty));
        }
        if let Source::Weight(data) = &value.source {
            value.source = Source::Weight(widened_tensor(data));
        }
    }
    for node in &mut wide.nodes {
        node.attrs = wide_attrs(&node.attrs);
    }
    wide
}

/// `data` as a tensor of kind `dtype`, which is its own or a wider float.
pub fn tensor_of_kind(data: &HostTensor, dtype: DType) -> HostTensor {
    if dtype == data.dtype() {
        return data.clone();
    }
    from_values(dtype, data.dims(), &to_vec::<f32>(data))
}

fn widened_tensor(data: &HostTensor) -> HostTensor {
    tensor_of_kind(data, wide_kind(data.dtype()))
}

fn wide_type(ty: &TensorType) -> TensorType {
    TensorType {
        dtype: wide_kind(ty.dtype),
        ..ty.clone()
    }
}

fn wide_attrs(attrs: &Attrs) -> Attrs {
    let widened = attrs.0.iter().map(|(name, attr)| {
        let attr = match attr {
            Attr::DType(dtype) => Attr::DType(wide_kind(*dtype)),
            other => other.clone(),
        };
        (name.clone(), attr)
    });
    Attrs(widened.collect())
}

/// Kinds whose rounding is the point, such as 8-bit floats, stay what they are.
fn wide_kind(dtype: DType) -> DType {
    if matches!(dtype, DType::F16 | DType::BF16) {
        DType::F32
    } else {
        dtype
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{NEWEST_OPSET, emit};
    use crate::reference;

    #[test]
    fn halves_are_computed_in_single() {
        let mut graph = Graph::new("half");
        let half = TensorType::new(DType::F16, &[2]);
        let x = graph.add_input("x", Some(half));
        let operands = vec![Some(x), Some(x)];
        let y = emit(&mut graph, "mul", operands, Attrs::new(), 1, NEWEST_OPSET, &[]).unwrap()[0];
        graph.add_output("y", y);
        let x = from_values(DType::F16, &[2], &[300.0f32, 1.5]);
        let outputs = reference::run(&widened(&graph), &[widened_tensor(&x)]).unwrap();
        assert_eq!(outputs[0].as_slice::<f32>(), [90_000.0, 2.25]);
    }
}
