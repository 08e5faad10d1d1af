//! Which layer is computed in which kind of numbers.

use std::collections::BTreeMap;
use std::fmt;

/// What the operands of a layer are stored as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The `f32` of the model, kept.
    Fp32,
    /// The float that the whole model is stored in: `f16`, `bf16` or `f32`.
    Float,
    /// Weights alone as `i8`, activations as floats.
    Int8Weights,
    /// Weights of matrix products alone as `i4`, with a scale for each group of so many terms.
    Int4Weights {
        group: u16,
    },
    Int8,
    Fp8,
}

impl Kind {
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Fp32 => "fp32",
            Kind::Float => "float",
            Kind::Int8Weights => "int8-weights",
            Kind::Int4Weights { .. } => "int4-weights",
            Kind::Int8 => "int8",
            Kind::Fp8 => "fp8",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Kinds by the name of the layer; layers that are not named are [`Kind::Float`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub kinds: BTreeMap<String, Kind>,
}

impl Plan {
    pub fn kind(&self, layer: &str) -> Kind {
        self.kinds.get(layer).copied().unwrap_or(Kind::Float)
    }

    /// This plan with one layer in another kind.
    pub fn with(&self, layer: &str, kind: Kind) -> Self {
        let mut plan = self.clone();
        plan.kinds.insert(layer.to_owned(), kind);
        plan
    }
}
