//! `transpose`: pointwise regions that read along another axis than they write.
//!
//! The output's axes are put in three groups: *along*, the innermost ones, which neighbouring
//! threads write; *across*, which neighbouring threads read; and *outer*, the rest. Operands
//! that are contiguous across pass through shared memory, the others are read as they come.

use serde::Serialize;

use super::{Template, field_names, fill, knob, variant};
use crate::kernel::body::rebuild::operands as operands_of;
use crate::kernel::body::region::{
    Composed, compose_at, extents, kernel_name, operand_bytes, operands, results, signature,
};
use crate::kernel::device::{Device, NODE_US};
use crate::kernel::error::KernelError;
use crate::kernel::prelude::{COMMON, translation_unit};
use crate::kernel::print::expr::{Operand, Printer, index_type};
use crate::kernel::print::store::store_one;
use crate::kernel::print::types::{value_bytes, value_type};
use crate::kernel::source::{Arch, Launch, Source, Variant};
use crate::kernel::spec::KernelSpec;
use crate::tile::index::delinearize;
use crate::tile::{Expr, ExprId, Extent, Index, VarId, Vars};

pub static TEMPLATE: Template = Template {
    name: "transpose",
    text: include_str!("../../../templates/transpose.cu.tera"),
    variants,
    render,
    fields: || field_names(&TransposeContext::default()),
};

#[derive(Clone, Debug, Default, Serialize)]
struct TransposeContext {
    name: String,
    params: Vec<String>,
    threads: usize,
    tile: usize,
    index_type: &'static str,
    across: usize,
    along: usize,
    tiles_across: usize,
    tiles_along: usize,
    arrays: Vec<TileArray>,
    load: String,
    store: String,
}

/// A tile of an operand, by what it is kept in.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct TileArray {
    pub(super) ty: &'static str,
    pub(super) name: String,
}

/// The output's axes: outer, across, along.
pub(super) type Groups = [Vec<usize>; 3];

/// Least extent of both axes for which a tile is worth its barrier.
const MIN_EXTENT: usize = 8;

/// The groups of the output's axes, and the region over one variable for each: outer,
/// across, along.
pub(super) struct Turned {
    pub(super) groups: Groups,
    pub(super) sizes: [usize; 3],
    composed: Composed,
    /// Coordinates of the output.
    at: Vec<Index>,
    /// Loads that are contiguous across.
    loads: Vec<ExprId>,
}

/// The grouping that turns most, if any operand is read along another axis than written.
pub(super) fn analyse(spec: &KernelSpec) -> Option<Turned> {
    let outputs = spec.output_types();
    let dims = outputs.first()?.dims();
    if outputs.iter().any(|ty| ty.dims() != dims) {
        return None;
    }
    let rank = dims.len();
    let mut best: Option<Turned> = None;
    for along in 1..rank {
        for end in 1..=along {
            for begin in 0..end {
                let Some(found) = group(spec, &dims, begin, end, along) else {
                    continue;
                };
                let score =
                    |turned: &Turned| turned.sizes[1].min(64) * turned.sizes[2].min(64) * turned.loads.len();
                if best.as_ref().is_none_or(|best| score(best) < score(&found)) {
                    best = Some(found);
                }
            }
        }
    }
    best
}

/// Axes `begin..end` across, axes from `along` on along.
fn group(spec: &KernelSpec, dims: &[usize], begin: usize, end: usize, along: usize) -> Option<Turned> {
    let across_axes: Vec<usize> = (begin..end).collect();
    let along_axes: Vec<usize> = (along..dims.len()).collect();
    let outer_axes: Vec<usize> = (0..along).filter(|axis| !across_axes.contains(axis)).collect();
    let groups = [outer_axes, across_axes, along_axes];
    let sizes = [0, 1, 2].map(|group: usize| groups[group].iter().map(|&axis| dims[axis]).product::<usize>());
    if sizes[1] < MIN_EXTENT || sizes[2] < MIN_EXTENT {
        return None;
    }
    let place = |vars: &Vars, own: &[VarId]| {
        let own = [own[0], own[1], own[2]].map(Index::var);
        place(&groups, dims, &own, vars)
    };
    let composed = compose_at(spec, &sizes, |body, vars, _| place(&body.vars, vars)).ok()?;
    let loads = turned_loads(spec, &composed, composed.vars[1], composed.vars[2])?;
    let at = place(&composed.body.vars, &composed.vars);
    (!loads.is_empty()).then_some(Turned {
        groups,
        sizes,
        composed,
        at,
        loads,
    })
}

/// Coordinates of the output at a position in each group.
pub(super) fn place(groups: &Groups, dims: &[usize], positions: &[Index; 3], vars: &Vars) -> Vec<Index> {
    let mut at = vec![Index::zero(); dims.len()];
    for (axes, position) in groups.iter().zip(positions) {
        let own_dims: Vec<usize> = axes.iter().map(|&axis| dims[axis]).collect();
        let places = delinearize(position, &extents(&own_dims), vars);
        for (&axis, index) in axes.iter().zip(places) {
            at[axis] = index;
        }
    }
    at
}

/// Loads outside every branch that are contiguous across but not along; `None` if the region
/// has reductions.
pub(super) fn turned_loads(
    spec: &KernelSpec,
    composed: &Composed,
    across: VarId,
    along: VarId,
) -> Option<Vec<ExprId>> {
    let inputs = operands(spec);
    let printer = Printer::new(&composed.body, &inputs);
    let mut found = Vec::new();
    let mut queue = composed.outputs.clone();
    let mut seen: Vec<bool> = vec![false; composed.body.exprs().count()];
    while let Some(id) = queue.pop() {
        if std::mem::replace(&mut seen[id.0 as usize], true) {
            continue;
        }
        let expr = composed.body.expr(id);
        match expr {
            Expr::Reduce { .. } | Expr::Acc { .. } => return None,
            // What only some elements read cannot be read for all.
            Expr::Select { .. } => continue,
            Expr::Load { input, index, .. } => {
                let position = printer.position(*input, index);
                let step = position.stride_of(along);
                let turned = position.stride_of(across) == Some(Extent::known(1))
                    && step.is_some_and(|step| step != Extent::known(0) && step != Extent::known(1));
                if turned {
                    found.push(id);
                }
            }
            Expr::Const(_) | Expr::Map { .. } | Expr::IndexValue(_) => {}
        }
        queue.extend(operands_of(expr));
    }
    found.sort_unstable();
    Some(found)
}

fn variants(spec: &KernelSpec, arch: Arch) -> Vec<Variant> {
    let Some(turned) = analyse(spec) else {
        return Vec::new();
    };
    let device = Device::of(arch);
    let scratch: usize = turned
        .loads
        .iter()
        .map(|&load| value_bytes(turned.composed.body.dtype(load)))
        .sum();
    let mut found = Vec::new();
    // Where tiles are plenty, threads that read sixteen elements each keep most bytes under way.
    for (tile, threads) in [(64, 256), (32, 256), (64, 512), (16, 128)] {
        if scratch * tile * (tile + 1) > 40 << 10 {
            continue;
        }
        let blocks = n_tiles(&turned, tile);
        #[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
        let (fill, waste) = {
            let [outer, across, along] = turned.sizes;
            let covered = (outer * across.next_multiple_of(tile) * along.next_multiple_of(tile)) as f64;
            let wanted = (outer * across * along).max(1) as f64;
            (device.fill(blocks as f64, threads as f64), covered / wanted)
        };
        let us = NODE_US + 0.3 + device.memory_us(operand_bytes(spec)) * 1.2 * waste.sqrt() / fill;
        found.push(variant(
            TEMPLATE.name,
            &[("tile", tile), ("threads", threads)],
            us,
        ));
    }
    found
}

fn n_tiles(turned: &Turned, tile: usize) -> usize {
    let [outer, across, along] = turned.sizes;
    outer * across.div_ceil(tile) * along.div_ceil(tile)
}

fn render(spec: &KernelSpec, variant: &Variant, _arch: Arch) -> Result<Source, KernelError> {
    let (tile, threads) = (
        knob(&TEMPLATE, variant, "tile")?,
        knob(&TEMPLATE, variant, "threads")?,
    );
    let turned = analyse(spec).ok_or_else(|| KernelError::NotAccepted {
        template: TEMPLATE.name,
        reason: "no operand is contiguous along another axis than the result".to_owned(),
    })?;
    let (inputs, outputs) = (operands(spec), results(spec));
    let all: Vec<Operand> = inputs.iter().chain(&outputs).cloned().collect();
    let (params, passed) = signature(spec);
    let name = kernel_name(spec, TEMPLATE.name, &format!("{tile}x{tile}_t{threads}"));
    let arrays: Vec<TileArray> = turned
        .loads
        .iter()
        .enumerate()
        .map(|(position, &load)| TileArray {
            ty: value_type(turned.composed.body.dtype(load)),
            name: format!("tile{position}"),
        })
        .collect();
    let text = fill(
        &TEMPLATE,
        &TransposeContext {
            name: name.clone(),
            params,
            threads,
            tile,
            index_type: index_type(&all),
            across: turned.sizes[1],
            along: turned.sizes[2],
            tiles_across: turned.sizes[1].div_ceil(tile),
            tiles_along: turned.sizes[2].div_ceil(tile),
            load: load_text(&turned, &arrays, &all)?,
            store: store_text(&turned, &arrays, &all, &outputs)?,
            arrays,
        },
    )?;
    Ok(Source {
        name,
        header: String::new(),
        text: translation_unit(COMMON, &text),
        template: TEMPLATE.name,
        launch: Launch::in_a_row(n_tiles(&turned, tile), threads, 0),
        params: passed,
        workspace_bytes: 0,
    })
}

fn printer<'a>(turned: &'a Turned, all: &'a [Operand]) -> Printer<'a> {
    let mut printer = Printer::new(&turned.composed.body, all);
    printer.set_depth(3);
    for (&var, name) in turned.composed.vars.iter().zip(["outer", "across", "along"]) {
        printer.bind(var, name);
    }
    printer
}

fn load_text(turned: &Turned, arrays: &[TileArray], all: &[Operand]) -> Result<String, KernelError> {
    let mut printer = printer(turned, all);
    for (&load, array) in turned.loads.iter().zip(arrays) {
        let value = printer.value(load);
        printer.line(&format!("{}[y][x] = {value};", array.name));
    }
    printer.finish()
}

fn store_text(
    turned: &Turned,
    arrays: &[TileArray],
    all: &[Operand],
    outputs: &[Operand],
) -> Result<String, KernelError> {
    let mut printer = printer(turned, all);
    for (&load, array) in turned.loads.iter().zip(arrays) {
        printer.preset(load, &format!("{}[x][y]", array.name));
    }
    for (output, &root) in outputs.iter().zip(&turned.composed.outputs) {
        let value = printer.value(root);
        let address = output.address(&turned.at, &turned.composed.body.vars);
        store_one(&mut printer, output, &address, &value);
    }
    printer.finish()
}
