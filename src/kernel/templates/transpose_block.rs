//! `transpose_block`: what `transpose` does, where both axes are whole vectors.
//!
//! A thread reads a square of elements as vectors along the one axis and writes them as vectors
//! along the other, so that every access is wide and nothing waits for a barrier.

use serde::Serialize;

use super::transpose::{TileArray, analyse, place, turned_loads};
use super::{Template, field_names, fill, knob, variant};
use crate::kernel::body::region::{
    Composed, compose_at, kernel_name, operand_bytes, operands, results, signature,
};
use crate::kernel::device::{Device, NODE_US};
use crate::kernel::error::KernelError;
use crate::kernel::prelude::{COMMON, translation_unit};
use crate::kernel::print::expr::{Operand, Printer, index_type};
use crate::kernel::print::store::is_vector;
use crate::kernel::print::types::{value_bytes, value_type};
use crate::kernel::print::vector::{Lane, is_aligned, without};
use crate::kernel::source::{Arch, Launch, Source, Variant};
use crate::kernel::spec::KernelSpec;
use crate::tile::{Expr, ExprId, Extent, Index, VarId};

pub static TEMPLATE: Template = Template {
    name: "transpose_block",
    text: include_str!("../../../templates/transpose_block.cu.tera"),
    variants,
    render,
    fields: || field_names(&TransposeBlockContext::default()),
};

#[derive(Clone, Debug, Default, Serialize)]
struct TransposeBlockContext {
    name: String,
    params: Vec<String>,
    threads: usize,
    width: usize,
    lanes_across: usize,
    index_type: &'static str,
    across: usize,
    along: usize,
    tiles_across: usize,
    tiles_along: usize,
    arrays: Vec<TileArray>,
    load: String,
    store: String,
}

/// Two warps across and two along.
const THREADS: usize = 128;
/// Bytes of registers that a thread's squares may take.
const MAX_SQUARE_BYTES: usize = 256;

/// The region over outer, vectors and lanes across, vectors and lanes along.
struct Squares {
    sizes: [usize; 3],
    width: usize,
    composed: Composed,
    /// Where each output's vector along begins.
    addresses: Vec<Index>,
    turned: Vec<ExprId>,
}

impl Squares {
    fn of(spec: &KernelSpec, width: usize) -> Option<Squares> {
        let turned = analyse(spec)?;
        let ([outer, across, along], groups) = (turned.sizes, &turned.groups);
        if !across.is_multiple_of(width) || !along.is_multiple_of(width) {
            return None;
        }
        let dims = spec.output_types().first()?.dims();
        let position = |vars: &[VarId]| {
            let vector = |at: usize| Index::var(vars[at]).times(&Extent::from(width));
            [
                Index::var(vars[0]),
                vector(1).plus(&Index::var(vars[2])),
                vector(3).plus(&Index::var(vars[4])),
            ]
        };
        let extents = [outer, across / width, width, along / width, width];
        let composed = compose_at(spec, &extents, |body, vars, _| {
            place(groups, &dims, &position(vars), &body.vars)
        })
        .ok()?;
        let at = place(groups, &dims, &position(&composed.vars), &composed.body.vars);
        let own = Squares {
            sizes: [outer, across / width, along / width],
            width,
            addresses: addresses(spec, &at, &composed, width)?,
            turned: turned_loads(spec, &composed, composed.vars[2], composed.vars[4])?,
            composed,
        };
        own.fits(spec).then_some(own)
    }

    /// Whether squares are read in vectors and kept in registers.
    fn fits(&self, spec: &KernelSpec) -> bool {
        let inputs = operands(spec);
        let printer = Printer::new(&self.composed.body, &inputs);
        let wide = self
            .turned
            .iter()
            .all(|&load| match self.composed.body.expr(load) {
                Expr::Load { input, index, .. } => {
                    is_aligned(&printer.position(*input, index), self.across())
                }
                _ => false,
            });
        let kept: usize = (self.turned.iter())
            .map(|&load| value_bytes(self.composed.body.dtype(load)))
            .sum();
        !self.turned.is_empty() && wide && kept * self.width * self.width <= MAX_SQUARE_BYTES
    }

    fn across(&self) -> Lane {
        lane(&self.composed, 2, self.width)
    }

    fn along(&self) -> Lane {
        lane(&self.composed, 4, self.width)
    }

    /// Tiles of a block in both directions.
    fn tiles(&self, lanes_across: usize) -> [usize; 2] {
        let lanes = [lanes_across, 32 / lanes_across];
        [0, 1].map(|axis| self.sizes[axis + 1].div_ceil(2 * lanes[axis]))
    }

    fn n_blocks(&self, lanes_across: usize) -> usize {
        self.sizes[0] * self.tiles(lanes_across).iter().product::<usize>()
    }

    fn arrays(&self) -> Vec<TileArray> {
        let array = |(position, &load): (usize, &ExprId)| TileArray {
            ty: value_type(self.composed.body.dtype(load)),
            name: format!("square{position}"),
        };
        self.turned.iter().enumerate().map(array).collect()
    }

    fn printer<'a>(&'a self, all: &'a [Operand]) -> Printer<'a> {
        let mut printer = Printer::new(&self.composed.body, all);
        printer.set_depth(2);
        for (at, name) in [(0, "outer"), (1, "across"), (3, "along")] {
            printer.bind(self.composed.vars[at], name);
        }
        printer
    }

    /// Reads line `y` of every square.
    fn load_text(&self, arrays: &[TileArray], all: &[Operand]) -> Result<String, KernelError> {
        let mut printer = self.printer(all);
        printer.bind(self.along().var, "y");
        let lines = printer.lanes(self.across(), &self.turned);
        printer.line("#pragma unroll");
        printer.open("for (int x = 0; x < kWidth; ++x) {");
        for (array, line) in arrays.iter().zip(lines) {
            printer.line(&format!("{}[y][x] = {line}[x];", array.name));
        }
        printer.close();
        printer.finish()
    }

    /// Finishes and writes column `x` of every square.
    fn store_text(
        &self,
        arrays: &[TileArray],
        all: &[Operand],
        outputs: &[Operand],
    ) -> Result<String, KernelError> {
        let (mut printer, lane) = (self.printer(all), self.along());
        printer.bind(self.across().var, "x");
        let counter = printer.fresh("lane");
        for (&load, array) in self.turned.iter().zip(arrays) {
            printer.preset(load, &format!("{}[{counter}][x]", array.name));
        }
        let others = printer.shared_work(lane, &self.composed.outputs);
        let mut columns = Vec::new();
        for &root in &self.composed.outputs {
            let name = printer.fresh("column");
            let ty = value_type(self.composed.body.dtype(root));
            printer.line(&format!("{ty} {name}[kWidth];"));
            columns.push(name);
        }
        printer.line("#pragma unroll");
        printer.bind(lane.var, &counter);
        printer.open(&format!(
            "for (int {counter} = 0; {counter} < kWidth; ++{counter}) {{"
        ));
        for (load, array) in others {
            printer.preset(load, &format!("{array}[{counter}]"));
        }
        for (&root, column) in self.composed.outputs.iter().zip(&columns) {
            let value = printer.value(root);
            printer.line(&format!("{column}[{counter}] = {value};"));
        }
        printer.close();
        for ((output, column), address) in outputs.iter().zip(&columns).zip(&self.addresses) {
            let address = printer.index(address);
            printer.line(&format!(
                "rt_store<kWidth>({} + ({address}), {column});",
                output.name
            ));
        }
        printer.finish()
    }
}

fn lane(composed: &Composed, at: usize, width: usize) -> Lane {
    Lane {
        var: composed.vars[at],
        width,
    }
}

/// Where the vectors of the outputs begin, if they are vectors in memory.
fn addresses(spec: &KernelSpec, at: &[Index], composed: &Composed, width: usize) -> Option<Vec<Index>> {
    let lane = lane(composed, 4, width);
    let address = |output: &Operand| {
        let address = output.address(at, &composed.body.vars);
        is_vector(&address, lane).then(|| without(&address, lane.var))
    };
    results(spec).iter().map(address).collect()
}

fn variants(spec: &KernelSpec, arch: Arch) -> Vec<Variant> {
    let device = Device::of(arch);
    let mut found = Vec::new();
    for width in [8, 4] {
        let Some(squares) = Squares::of(spec, width) else {
            continue;
        };
        // As measured: warps read whole lines of DRAM fastest, though they write halves of them; where L2 gathers
        // what they read, they write whole ones.
        let is_in_dram = operand_bytes(spec) > device.l2_bytes;
        let wide_lanes = if is_in_dram { 8 } else { 4 };
        for lanes_across in [wide_lanes, 12 - wide_lanes] {
            let passes = if lanes_across == wide_lanes { 1.1 } else { 1.28 };
            #[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
            let us = {
                let blocks = squares.n_blocks(lanes_across) as f64;
                let covered = blocks * (THREADS * width * width) as f64;
                let wanted = (squares.sizes.iter().product::<usize>() * width * width) as f64;
                // A thread has as many bytes under way as one of `transpose` that goes around.
                let fill = device.fill(blocks, (THREADS * width / 2) as f64);
                let bytes = device.memory_us(operand_bytes(spec));
                NODE_US + 0.2 + bytes * passes * (covered / wanted.max(1.0)).sqrt() / fill
            };
            let knobs = [("width", width), ("lanes_across", lanes_across)];
            found.push(variant(TEMPLATE.name, &knobs, us));
        }
    }
    found
}

fn render(spec: &KernelSpec, variant: &Variant, _arch: Arch) -> Result<Source, KernelError> {
    let (width, lanes_across) = (
        knob(&TEMPLATE, variant, "width")?,
        knob(&TEMPLATE, variant, "lanes_across")?,
    );
    let squares = Squares::of(spec, width).ok_or_else(|| KernelError::NotAccepted {
        template: TEMPLATE.name,
        reason: "no operand is whole vectors along another axis than the result".to_owned(),
    })?;
    let (inputs, outputs) = (operands(spec), results(spec));
    let all: Vec<Operand> = inputs.iter().chain(&outputs).cloned().collect();
    let (params, passed) = signature(spec);
    let name = kernel_name(spec, TEMPLATE.name, &format!("v{width}_a{lanes_across}"));
    let arrays = squares.arrays();
    let [tiles_across, tiles_along] = squares.tiles(lanes_across);
    let text = fill(
        &TEMPLATE,
        &TransposeBlockContext {
            name: name.clone(),
            params,
            threads: THREADS,
            width,
            lanes_across,
            index_type: index_type(&all),
            across: squares.sizes[1],
            along: squares.sizes[2],
            tiles_across,
            tiles_along,
            load: squares.load_text(&arrays, &all)?,
            store: squares.store_text(&arrays, &all, &outputs)?,
            arrays,
        },
    )?;
    let blocks = squares.n_blocks(lanes_across);
    Ok(Source {
        name,
        header: String::new(),
        text: translation_unit(COMMON, &text),
        template: TEMPLATE.name,
        launch: Launch::in_a_row(blocks, THREADS, 0),
        params: passed,
        workspace_bytes: 0,
    })
}
