//! Attributes of ONNX nodes to attributes of ops.

use super::proto::{AttributeProto, AttributeType};
use super::types;
use crate::ir::{Attr, DType};
use crate::ops::{AttrKind, OpError};

/// Kind of an attribute; files that predate the field say it by what is filled in.
///
/// # Errors
/// If the number is none of ONNX's.
pub fn kind_of(attribute: &AttributeProto) -> Result<AttributeType, OpError> {
    let kind = AttributeType::try_from(attribute.r#type).map_err(|_| {
        OpError::unsupported(format!(
            "attribute `{}` of unknown kind {}",
            attribute.name, attribute.r#type
        ))
    })?;
    if kind != AttributeType::Undefined {
        return Ok(kind);
    }
    let filled = [
        (attribute.f.is_some(), AttributeType::Float),
        (attribute.i.is_some(), AttributeType::Int),
        (attribute.s.is_some(), AttributeType::String),
        (attribute.t.is_some(), AttributeType::Tensor),
        (attribute.g.is_some(), AttributeType::Graph),
        (!attribute.floats.is_empty(), AttributeType::Floats),
        (!attribute.ints.is_empty(), AttributeType::Ints),
        (!attribute.strings.is_empty(), AttributeType::Strings),
    ];
    filled
        .into_iter()
        .find(|(is_filled, _)| *is_filled)
        .map(|(_, kind)| kind)
        .ok_or_else(|| {
            OpError::invalid(format!(
                "attribute `{}` has neither kind nor value",
                attribute.name
            ))
        })
}

/// An attribute that needs neither other files nor other graphs, as the op declares it.
///
/// # Errors
/// If the attribute is of another kind than `wanted`.
pub fn plain(attribute: &AttributeProto, wanted: AttrKind) -> Result<Attr, OpError> {
    let found = kind_of(attribute)?;
    Ok(match (wanted, found) {
        (AttrKind::Int, AttributeType::Int) => Attr::Int(attribute.i.unwrap_or(0)),
        (AttrKind::Float, AttributeType::Float) => Attr::Float(attribute.f.unwrap_or(0.0).into()),
        (AttrKind::Str, AttributeType::String) => {
            Attr::Str(text(attribute, attribute.s.as_deref().unwrap_or(b""))?)
        }
        (AttrKind::Ints, AttributeType::Ints) => Attr::Ints(attribute.ints.clone()),
        (AttrKind::Floats, AttributeType::Floats) => {
            Attr::Floats(attribute.floats.iter().map(|&value| value.into()).collect())
        }
        (AttrKind::Strs, AttributeType::Strings) => Attr::Strs(
            attribute
                .strings
                .iter()
                .map(|bytes| text(attribute, bytes))
                .collect::<Result<_, _>>()?,
        ),
        (AttrKind::DType, AttributeType::Int | AttributeType::TypeProto) => Attr::DType(dtype(attribute)?),
        (
            AttrKind::Int
            | AttrKind::Float
            | AttrKind::Str
            | AttrKind::Ints
            | AttrKind::Floats
            | AttrKind::Strs
            | AttrKind::DType
            | AttrKind::Tensor
            | AttrKind::Graph,
            _,
        ) => {
            return Err(OpError::invalid(format!(
                "attribute `{}` is of kind {found:?}, expected {wanted:?}",
                attribute.name
            )));
        }
    })
}

fn dtype(attribute: &AttributeProto) -> Result<DType, OpError> {
    let refuse = |what: String| OpError::unsupported(format!("attribute `{}`: {what}", attribute.name));
    if let Some(ty) = &attribute.tp {
        match types::element_dtype(ty) {
            Some(dtype) => dtype.map_err(refuse),
            None => Err(refuse("no element type".to_owned())),
        }
    } else {
        let code = attribute.i.unwrap_or(0);
        i32::try_from(code)
            .map_err(|_| format!("unknown element type {code}"))
            .and_then(types::dtype)
            .map_err(refuse)
    }
}

fn text(attribute: &AttributeProto, bytes: &[u8]) -> Result<String, OpError> {
    String::from_utf8(bytes.to_vec())
        .map_err(|_| OpError::invalid(format!("attribute `{}` is not UTF-8 text", attribute.name)))
}
