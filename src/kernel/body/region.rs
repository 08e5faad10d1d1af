//! A region's body as expressions over a template's own variables.

use std::fmt::Write as _;

use crate::ir::TensorType;
use crate::kernel::body::compose::Composer;
use crate::kernel::body::rebuild::canonical;
use crate::kernel::error::KernelError;
use crate::kernel::print::expr::{Operand, index_type};
use crate::kernel::print::types::storage_type;
use crate::kernel::print::vector::Lane;
use crate::kernel::source::Param;
use crate::kernel::spec::KernelSpec;
use crate::rewrite::RegionKind;
use crate::tile::index::delinearize;
use crate::tile::{Body, ExprId, Extent, Index, VarId};

/// One expression per output, over variables of the element.
#[derive(Clone, Debug)]
pub struct Composed {
    pub body: Body,
    /// Variables of the element that is computed, the first ones of the body.
    pub vars: Vec<VarId>,
    pub outputs: Vec<ExprId>,
    /// Coordinates of the element in each output.
    pub at: Vec<Vec<Index>>,
}

impl Composed {
    /// Where each of `outputs` stores the element.
    pub fn places(&self, outputs: &[Operand]) -> Vec<Index> {
        let addresses = outputs.iter().zip(&self.at);
        addresses
            .map(|(output, at)| output.address(at, &self.body.vars))
            .collect()
    }
}

/// Composes every output of `spec` at the coordinates that `at` gives for its dims; `extents`
/// are those of the variables that `at` is handed.
///
/// # Errors
/// If an op of the body has no generated code.
pub fn compose_at(
    spec: &KernelSpec,
    extents: &[usize],
    at: impl Fn(&Body, &[VarId], &[usize]) -> Vec<Index>,
) -> Result<Composed, KernelError> {
    let mut body = Body::new();
    let vars: Vec<VarId> = extents
        .iter()
        .map(|&extent| body.vars.fresh(Extent::from(extent)))
        .collect();
    let mut composer = Composer::new(&spec.body);
    let mut outputs = Vec::with_capacity(spec.body.outputs.len());
    let mut ats = Vec::with_capacity(spec.body.outputs.len());
    for &output in &spec.body.outputs {
        let coordinates = at(&body, &vars, &spec.body.ty(output).dims());
        outputs.push(composer.value(&mut body, output, &coordinates)?);
        ats.push(coordinates);
    }
    let (body, outputs) = canonical(&body, &vars, &outputs);
    Ok(Composed {
        body,
        vars,
        outputs,
        at: ats,
    })
}

/// Composes over row-major positions `width * vars[0] + vars[1]` of the outputs, which all
/// have the same number of elements.
///
/// # Errors
/// As [`compose_at`].
pub fn compose_flat(spec: &KernelSpec, width: usize) -> Result<(Composed, Lane), KernelError> {
    let n_elements = spec.output_types().first().map_or(0, TensorType::n_elements);
    let composed = compose_at(spec, &[n_elements / width, width], |body, vars, dims| {
        let position = Index::var(vars[0])
            .times(&Extent::from(width))
            .plus(&lane_index(vars[1], width));
        delinearize(&position, &extents(dims), &body.vars)
    })?;
    let lane = Lane {
        var: composed.vars[1],
        width,
    };
    Ok((composed, lane))
}

/// A lane of one element is always zero.
pub fn lane_index(var: VarId, width: usize) -> Index {
    if width == 1 {
        Index::zero()
    } else {
        Index::var(var)
    }
}

pub fn extents(dims: &[usize]) -> Vec<Extent> {
    dims.iter().copied().map(Extent::from).collect()
}

/// The region's inputs as operands `in0`, `in1`, ..
pub fn operands(spec: &KernelSpec) -> Vec<Operand> {
    spec.input_types()
        .iter()
        .enumerate()
        .map(|(position, ty)| Operand::whole(format!("in{position}"), ty))
        .collect()
}

/// The region's outputs as operands `out0`, `out1`, .., where they are placed.
pub fn results(spec: &KernelSpec) -> Vec<Operand> {
    spec.output_types()
        .iter()
        .enumerate()
        .map(|(position, ty)| Operand::placed(format!("out{position}"), ty, spec.placements.get(&position)))
        .collect()
}

/// Parameter declarations of a kernel over the region's tensors, and what to pass.
pub fn signature(spec: &KernelSpec) -> (Vec<String>, Vec<Param>) {
    let (inputs, outputs) = (operands(spec), results(spec));
    let declared = inputs
        .iter()
        .map(|input| format!("const {}* __restrict__ {}", storage_type(input.dtype), input.name))
        .chain(
            outputs
                .iter()
                .map(|output| format!("{}* __restrict__ {}", storage_type(output.dtype), output.name)),
        )
        .collect();
    let passed = (0..inputs.len())
        .map(Param::Input)
        .chain((0..outputs.len()).map(Param::Output))
        .collect();
    (declared, passed)
}

/// Type of index variables that reach every element of the region's tensors.
pub fn tensors_index_type(spec: &KernelSpec) -> &'static str {
    let all: Vec<Operand> = operands(spec).into_iter().chain(results(spec)).collect();
    index_type(&all)
}

/// Bytes read and written when every operand crosses memory once.
pub fn operand_bytes(spec: &KernelSpec) -> f64 {
    let types = [spec.input_types(), spec.output_types()].concat();
    #[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
    let bytes = types.iter().map(TensorType::n_bytes).sum::<usize>() as f64;
    bytes
}

/// `rtrt_<template>_<ops>_<dtype>_<tile>`: what the kernel does, in C++ letters.
pub fn kernel_name(spec: &KernelSpec, template: &str, tile: &str) -> String {
    const MAX_OPS: usize = 5;
    let ops = spec.ops();
    // Around a main loop views are how it reads and stores, not what it does.
    let has_loop = matches!(spec.kind, RegionKind::Attention | RegionKind::Window);
    let is_quiet = |op: &str| match op {
        "cast" | "expand" | "reshape" => true,
        "slice" | "transpose" => has_loop,
        _ => false,
    };
    let mut words: Vec<&str> = ops
        .iter()
        .copied()
        .filter(|op| !is_quiet(op) || ops.len() == 1)
        .collect();
    if words.is_empty() {
        words.push("copy");
    }
    let more = words.len().saturating_sub(MAX_OPS);
    words.truncate(MAX_OPS);
    let mut name = format!("rtrt_{template}_{}", words.join("_"));
    if more > 0 {
        write!(name, "_and{more}").expect("writing to a string succeeds");
    }
    let dtype = spec.output_types().first().map_or("none", |ty| ty.dtype.name());
    format!("{name}_{dtype}_{tile}")
}
