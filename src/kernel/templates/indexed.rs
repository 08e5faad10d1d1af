//! `indexed`: one thread per element evaluates the whole term. Right for every region.

use serde::Serialize;

use super::{Template, field_names, fill, knob, variant};
use crate::ir::TensorType;
use crate::kernel::body::region::{
    Composed, compose_flat, kernel_name, operand_bytes, operands, results, signature,
};
use crate::kernel::device::{Device, NODE_US};
use crate::kernel::error::KernelError;
use crate::kernel::prelude::{COMMON, translation_unit};
use crate::kernel::print::expr::{Operand, Printer, index_type};
use crate::kernel::print::store::store_one;
use crate::kernel::source::{Arch, Launch, Source, Variant};
use crate::kernel::spec::KernelSpec;
use crate::rewrite::RegionKind;
use crate::tile::{Body, Expr, ExprId, VarId};

pub static TEMPLATE: Template = Template {
    name: "indexed",
    text: include_str!("../../../templates/indexed.cu.tera"),
    variants,
    render,
    fields: || field_names(&IndexedContext::default()),
};

#[derive(Clone, Debug, Default, Serialize)]
struct IndexedContext {
    name: String,
    params: Vec<String>,
    threads: usize,
    index_type: &'static str,
    n_elements: usize,
    body: String,
}

const THREADS: usize = 128;

fn variants(spec: &KernelSpec, arch: Arch) -> Vec<Variant> {
    let Ok((composed, _)) = compose_flat(spec, 1) else {
        return Vec::new();
    };
    if !same_count(&spec.output_types()) {
        return Vec::new();
    }
    let us = predicted_us(spec, &composed, Device::of(arch));
    vec![variant(TEMPLATE.name, &[("threads", THREADS)], us)]
}

/// Whether all outputs have the same number of elements, so that one thread can own one of
/// each.
pub fn same_count(outputs: &[TensorType]) -> bool {
    outputs
        .windows(2)
        .all(|pair| pair[0].n_elements() == pair[1].n_elements())
}

#[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
fn predicted_us(spec: &KernelSpec, composed: &Composed, device: &Device) -> f64 {
    let n_elements = spec.output_types().first().map_or(0, TensorType::n_elements) as f64;
    let steps: f64 = composed
        .outputs
        .iter()
        .map(|&output| work(&composed.body, output))
        .sum();
    // Every tap of a window is placed anew, and tested against the padding.
    let per_element = match spec.kind {
        RegionKind::Window => steps * 2.5,
        RegionKind::Pointwise
        | RegionKind::Row
        | RegionKind::Reduce
        | RegionKind::Dot
        | RegionKind::Attention
        | RegionKind::Other => steps,
    };
    // A term without reuse costs about four instructions, and a load hits L1 at best.
    let rate = f64::from(device.n_sms) * device.clock_ghz * 1e3 * 32.0;
    // A turn is an addition: the loads of several turns wait together.
    let turns: f64 = composed
        .outputs
        .iter()
        .map(|&output| turns(&composed.body, output))
        .sum();
    let latency = per_element * 5e-4 + turns * 0.012;
    let at_a_time = turns.clamp(1.0, 8.0);
    let fill = device.fill(n_elements / THREADS as f64, THREADS as f64 * at_a_time);
    let moved = device.memory_us(operand_bytes(spec)) * 1.5;
    let busy = (n_elements * per_element / rate).max(moved) / fill;
    // Counting flatters loops: they load single elements, and share none with their neighbours.
    NODE_US + latency + if turns > 0.0 { 2.0 * busy } else { busy }
}

/// Uses of a term on average from which on it is counted once.
const SHARED: f64 = 64.0;

/// Scalar steps to evaluate a term, loops multiplied out. Terms count as often as they are used, but where
/// that multiplies, as over the steps of a search.
pub fn work(body: &Body, id: ExprId) -> f64 {
    let (uses, terms) = (uses(body, id), terms(body, id));
    if uses > SHARED * terms { terms } else { uses }
}

/// Steps where every term is evaluated once in each turn of the loops around it.
fn terms(body: &Body, id: ExprId) -> f64 {
    let mut turns = vec![0.0f64; id.0 as usize + 1];
    turns[id.0 as usize] = 1.0;
    let exprs: Vec<&Expr> = body.exprs().map(|(_, expr)| expr).take(turns.len()).collect();
    for (number, expr) in exprs.into_iter().enumerate().rev() {
        let inside = match expr {
            Expr::Reduce { vars, .. } => turns[number] * repeats(body, vars),
            _ => turns[number],
        };
        for operand in crate::kernel::body::rebuild::operands(expr) {
            let below = &mut turns[operand.0 as usize];
            *below = below.max(inside);
        }
    }
    turns.iter().sum()
}

/// Steps where every use of a term evaluates it.
fn uses(body: &Body, id: ExprId) -> f64 {
    let mut costs: Vec<f64> = Vec::new();
    for (_, expr) in body.exprs() {
        let below: f64 = crate::kernel::body::rebuild::operands(expr)
            .into_iter()
            .map(|operand| costs[operand.0 as usize])
            .sum();
        let repeats = match expr {
            Expr::Reduce { vars, .. } => repeats(body, vars),
            _ => 1.0,
        };
        costs.push((below + 1.0) * repeats);
    }
    costs[id.0 as usize]
}

/// Turns of the longest chain of loops below a term.
fn turns(body: &Body, id: ExprId) -> f64 {
    let mut counts: Vec<f64> = Vec::new();
    for (_, expr) in body.exprs() {
        let operands = crate::kernel::body::rebuild::operands(expr);
        let below = operands
            .into_iter()
            .map(|operand| counts[operand.0 as usize])
            .fold(0.0, f64::max);
        counts.push(match expr {
            Expr::Reduce { vars, .. } => repeats(body, vars) * below.max(1.0),
            _ => below,
        });
    }
    counts[id.0 as usize]
}

/// How often a loop over `vars` computes its term.
#[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
fn repeats(body: &Body, vars: &[VarId]) -> f64 {
    let extents = vars.iter().filter_map(|&var| body.vars.extent(var).as_known());
    extents.map(|extent| extent as f64).product()
}

fn render(spec: &KernelSpec, variant: &Variant, _arch: Arch) -> Result<Source, KernelError> {
    let threads = knob(&TEMPLATE, variant, "threads")?;
    if !same_count(&spec.output_types()) {
        return Err(KernelError::NotAccepted {
            template: TEMPLATE.name,
            reason: "outputs have different numbers of elements".to_owned(),
        });
    }
    let (composed, _) = compose_flat(spec, 1)?;
    let (inputs, outputs) = (operands(spec), results(spec));
    let all: Vec<Operand> = inputs.iter().chain(&outputs).cloned().collect();
    let mut printer = Printer::new(&composed.body, &all);
    printer.bind(composed.vars[0], "i");
    for ((output, &root), place) in outputs
        .iter()
        .zip(&composed.outputs)
        .zip(composed.places(&outputs))
    {
        let value = printer.value(root);
        store_one(&mut printer, output, &place, &value);
    }
    let n_elements = spec.output_types().first().map_or(0, TensorType::n_elements);
    let (params, passed) = signature(spec);
    let name = kernel_name(spec, TEMPLATE.name, &format!("t{threads}"));
    let text = fill(
        &TEMPLATE,
        &IndexedContext {
            name: name.clone(),
            params,
            threads,
            index_type: index_type(&all),
            n_elements,
            body: printer.finish()?,
        },
    )?;
    Ok(Source {
        name,
        header: String::new(),
        text: translation_unit(COMMON, &text),
        template: TEMPLATE.name,
        launch: one_dimensional(n_elements, threads),
        params: passed,
        workspace_bytes: 0,
    })
}

/// One thread per item, in blocks of `threads`.
pub fn one_dimensional(n_items: usize, threads: usize) -> Launch {
    Launch::in_a_row(n_items.div_ceil(threads).max(1), threads, 0)
}
