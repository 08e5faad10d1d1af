//! Element kinds and value types of ONNX.

use super::proto::{DimensionProto, DimensionValue, TypeProto, TypeValue};
use crate::ir::{DType, Dim, Shape, TensorType};

/// The kind ONNX numbers `code`, or a description of a kind that is not supported.
pub fn dtype(code: i32) -> Result<DType, String> {
    Ok(match code {
        1 => DType::F32,
        2 => DType::U8,
        3 => DType::I8,
        4 => DType::U16,
        5 => DType::I16,
        6 => DType::I32,
        7 => DType::I64,
        9 => DType::Bool,
        10 => DType::F16,
        11 => DType::F64,
        12 => DType::U32,
        13 => DType::U64,
        16 => DType::BF16,
        17 => DType::F8E4M3,
        18 => DType::F8E4M3Fnuz,
        19 => DType::F8E5M2,
        20 => DType::F8E5M2Fnuz,
        21 => DType::U4,
        22 => DType::I4,
        23 => DType::F4E2M1,
        24 => DType::F8E8M0,
        25 => DType::U2,
        26 => DType::I2,
        8 => return Err("elements are strings".to_owned()),
        14 | 15 => return Err("elements are complex numbers".to_owned()),
        27 | 28 => return Err("elements are six-bit floats".to_owned()),
        _ => return Err(format!("unknown element type {code}")),
    })
}

/// What a value may hold, as far as a graph's inputs and outputs care.
#[derive(Clone, Debug, PartialEq)]
pub enum ValueType {
    /// The type where the rank is known.
    Tensor(Option<TensorType>),
    /// A sequence or an optional: only the reference executes those.
    Compound(&'static str),
    Unsupported(String),
}

/// The type of a value called `name`. Dims without a name become symbols made of it.
pub fn value_type(name: &str, ty: Option<&TypeProto>) -> ValueType {
    match ty.and_then(|ty| ty.value.as_ref()) {
        None => ValueType::Tensor(None),
        Some(TypeValue::Tensor(tensor)) => match (tensor.elem_type, &tensor.shape) {
            (0, _) => ValueType::Tensor(None),
            (code, shape) => match dtype(code) {
                Err(what) => ValueType::Unsupported(what),
                Ok(dtype) => ValueType::Tensor(shape.as_ref().map(|shape| {
                    TensorType {
                        dtype,
                        shape: Shape(
                            shape
                                .dim
                                .iter()
                                .enumerate()
                                .map(|(axis, dim)| extent(name, axis, dim))
                                .collect(),
                        ),
                    }
                })),
            },
        },
        Some(TypeValue::Sequence(_)) => ValueType::Compound("a sequence"),
        Some(TypeValue::Optional(_)) => ValueType::Compound("an optional"),
        Some(TypeValue::Map(_)) => ValueType::Unsupported("it is a map".to_owned()),
        Some(TypeValue::SparseTensor(_)) => ValueType::Unsupported("it is a sparse tensor".to_owned()),
    }
}

/// Element kind of a tensor, or of what a sequence or an optional holds.
pub fn element_dtype(ty: &TypeProto) -> Option<Result<DType, String>> {
    match ty.value.as_ref()? {
        TypeValue::Tensor(tensor) => Some(dtype(tensor.elem_type)),
        TypeValue::Sequence(inner) | TypeValue::Optional(inner) => element_dtype(inner.elem_type.as_ref()?),
        TypeValue::Map(_) | TypeValue::SparseTensor(_) => None,
    }
}

fn extent(name: &str, axis: usize, dim: &DimensionProto) -> Dim {
    let unnamed = || Dim::Symbol(format!("{name}_dim{axis}"));
    match &dim.value {
        // Exporters write -1 for a dim they do not know.
        Some(DimensionValue::Value(extent)) => {
            usize::try_from(*extent).map_or_else(|_| unnamed(), Dim::Known)
        }
        Some(DimensionValue::Param(symbol)) if !symbol.is_empty() => Dim::Symbol(symbol.clone()),
        Some(DimensionValue::Param(_)) | None => unnamed(),
    }
}
