//! What rewriting hands to the kernel layer: a graph cut into regions.

use std::collections::BTreeMap;
use std::fmt;

use crate::ir::{BoundedAxis, CountLimit, Graph, HostTensor, Placement, TensorType};

/// Names a tensor in device memory; prints as `t7`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TensorId(pub u32);

/// A tensor that exists in device memory while the engine runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    pub ty: TensorType,
    /// Name of the ONNX value, for people.
    pub name: String,
    pub source: TensorSource,
}

#[derive(Clone, Debug, PartialEq)]
pub enum TensorSource {
    /// Input number `i` of the model.
    Input(usize),
    /// Constant data, folded on the host.
    Weight(HostTensor),
    /// Written by one region, or by several that each write a box of it.
    Regions,
}

/// The nodes that become one kernel.
///
/// The body keeps the nodes as a graph of core ops, so its meaning is the meaning of that
/// graph: the reference interpreter runs it as it is, and the kernel layer derives its tile
/// expression from it. `inputs[i]` is the tensor behind `body.inputs[i]`, `outputs[i]` the
/// tensor that `body.outputs[i]` becomes, or becomes a box of where `placements` says so. Scalar
/// constants live inside the body as weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Region {
    pub body: Graph,
    pub inputs: Vec<TensorId>,
    pub outputs: Vec<TensorId>,
    /// Where outputs lie in their tensors, by number; the others are their tensors.
    pub placements: BTreeMap<usize, Placement>,
    /// Which `kernel` declaration of the rule files accepted the region.
    pub kind: RegionKind,
    /// Rules that took part, in order of application, each once.
    pub rules: Vec<RuleUse>,
    /// Analytic lower bound of the time, in microseconds.
    pub bound_us: f64,
    pub explanation: Explanation,
}

/// Why a region is what it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Explanation {
    /// Launches that a kernel for each op would take more. Ops that only relabel take none.
    pub saved_launches: usize,
    /// Bytes that a kernel for each op would read and write more.
    pub saved_bytes: u64,
    /// The nearest of the other candidates for the same tensor, by rising loss.
    pub rejected: Vec<Rejected>,
}

/// A candidate that was not chosen, by how it differs from the one that was.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rejected {
    /// ONNX nodes that it leaves to another kernel.
    pub without: Vec<String>,
    /// ONNX nodes that it computes too.
    pub with: Vec<String>,
    /// Rules that give it another form of the same nodes.
    pub rules: Vec<String>,
    /// By how much the whole plan is slower with it, by analytic bounds.
    pub lost_us: f64,
}

/// Shape of a region, by what its main loop is. `match` on this has no `_` arm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RegionKind {
    /// No reduction: maps, views and index selections.
    Pointwise,
    /// Reductions over the trailing axes and pointwise work on the same rows.
    Row,
    /// One reduction over any axes, with pointwise work before and after.
    Reduce,
    /// One matrix product with views before and pointwise work after.
    Dot,
    /// One convolution or pooling with views before and pointwise work after.
    Window,
    /// Two matrix products with a row normalisation between them.
    Attention,
    /// One op that only the indexed kernel computes.
    Other,
}

impl RegionKind {
    /// As rule files spell it.
    pub fn name(self) -> &'static str {
        match self {
            RegionKind::Pointwise => "pointwise",
            RegionKind::Row => "row",
            RegionKind::Reduce => "reduce",
            RegionKind::Dot => "dot",
            RegionKind::Window => "window",
            RegionKind::Attention => "attention",
            RegionKind::Other => "other",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        use RegionKind::{Attention, Dot, Other, Pointwise, Reduce, Row, Window};
        let all = [Pointwise, Row, Reduce, Dot, Window, Attention, Other];
        all.into_iter().find(|kind| kind.name() == name)
    }
}

/// A rule and where it is written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleUse {
    pub name: String,
    /// File below `rules/` and line, as `vertical/epilogue.rules:4`.
    pub place: String,
}

impl fmt::Display for RuleUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.place)
    }
}

/// A graph cut into regions, in an order in which they can run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FusedGraph {
    pub tensors: Vec<Tensor>,
    pub regions: Vec<Region>,
    /// Names and tensors of the model's inputs and outputs, in the model's order.
    pub inputs: Vec<(String, TensorId)>,
    pub outputs: Vec<(String, TensorId)>,
    /// Axes of outputs whose extent data decides; counts are behind the outputs of the model.
    pub bounds: Vec<BoundedAxis>,
    /// Of counts.
    pub limits: Vec<CountLimit>,
}

impl FusedGraph {
    pub fn tensor(&self, id: TensorId) -> &Tensor {
        &self.tensors[id.0 as usize]
    }
}
