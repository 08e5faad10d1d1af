//! What an engine takes and gives for one binding of the model's dims.

use serde::{Deserialize, Serialize};

use crate::ir::{DType, TensorType};

/// Inputs and outputs with all dims bound. Names are those of the model, in its order, in every
/// profile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    pub inputs: Vec<Binding>,
    pub outputs: Vec<Binding>,
    /// Numbers that say how much of outputs is there: one `i64` each. Their places in programs are behind those
    /// of the outputs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub counts: Vec<Binding>,
    /// Axes of outputs whose extent data decides: that of the output is the most it can be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bounds: Vec<Bound>,
    /// Of counts: what data must not exceed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<Limit>,
}

/// A number that data must not exceed, or outputs are wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Index into [`Profile::counts`].
    pub count: usize,
    pub most: i64,
}

/// An axis of an output along which only the first elements are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bound {
    /// Index into [`Profile::outputs`].
    pub output: usize,
    pub axis: usize,
    /// Index into [`Profile::counts`].
    pub count: usize,
}

impl Profile {
    /// Whether it takes inputs of these types.
    pub fn takes(&self, inputs: &[TensorType]) -> bool {
        let mut pairs = self.inputs.iter().zip(inputs);
        self.inputs.len() == inputs.len() && pairs.all(|(binding, ty)| binding.ty() == *ty)
    }

    /// Output number `output` as people read its type: with `<=` where data decides an extent.
    pub fn shown_output(&self, output: usize) -> String {
        let binding = &self.outputs[output];
        let extents = binding.dims.iter().enumerate().map(|(axis, extent)| {
            let is_bounded = |bound: &Bound| bound.output == output && bound.axis == axis;
            let at_most = if self.bounds.iter().any(is_bounded) {
                "<="
            } else {
                ""
            };
            format!("{at_most}{extent}")
        });
        format!("{}[{}]", binding.dtype, extents.collect::<Vec<_>>().join(","))
    }

    /// The first limit that these counts exceed.
    pub fn exceeded(&self, counts: &[i64]) -> Option<Limit> {
        let exceeded = |limit: &&Limit| counts[limit.count] > limit.most;
        self.limits.iter().find(exceeded).copied()
    }

    /// Dims of output number `output` where these are the counts.
    ///
    /// # Errors
    /// If a count is not within the extent that it is of: the axis and that count.
    pub fn true_dims(&self, output: usize, counts: &[i64]) -> Result<Vec<usize>, (usize, i64)> {
        let mut dims = self.outputs[output].dims.clone();
        for bound in self.bounds.iter().filter(|bound| bound.output == output) {
            let (extent, count) = (&mut dims[bound.axis], counts[bound.count]);
            *extent = usize::try_from(count)
                .ok()
                .filter(|count| count <= extent)
                .ok_or((bound.axis, count))?;
        }
        Ok(dims)
    }
}

/// A named input or output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    pub name: String,
    #[serde(with = "dtype_name")]
    pub dtype: DType,
    pub dims: Vec<usize>,
}

impl Binding {
    pub fn ty(&self) -> TensorType {
        TensorType::new(self.dtype, &self.dims)
    }
}

/// Element kinds are written by name.
mod dtype_name {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::ir::DType;

    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde's `with` passes a reference"
    )]
    pub fn serialize<S: Serializer>(dtype: &DType, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(dtype.name())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DType, D::Error> {
        let name = String::deserialize(deserializer)?;
        DType::from_name(&name).ok_or_else(|| D::Error::custom(format!("no element kind is named `{name}`")))
    }
}
