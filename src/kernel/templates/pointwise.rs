//! `pointwise`: regions without reductions, several neighbouring elements per thread.

use serde::Serialize;

use super::indexed::{one_dimensional, same_count, work};
use super::{Template, field_names, fill, knob, variant};
use crate::ir::TensorType;
use crate::kernel::body::free_vars::values_in;
use crate::kernel::body::region::{Composed, compose_flat, kernel_name, operands, results, signature};
use crate::kernel::device::{Device, NODE_US};
use crate::kernel::error::KernelError;
use crate::kernel::prelude::{COMMON, translation_unit};
use crate::kernel::print::expr::{Operand, Printer, index_type};
use crate::kernel::print::store::{is_vector, store_one};
use crate::kernel::print::vector::{Lane, without};
use crate::kernel::source::{Arch, Source, Variant};
use crate::kernel::spec::KernelSpec;
use crate::tile::{Expr, Extent, Index};

pub static TEMPLATE: Template = Template {
    name: "pointwise",
    text: include_str!("../../../templates/pointwise.cu.tera"),
    variants,
    render,
    fields: || field_names(&PointwiseContext::default()),
};

#[derive(Clone, Debug, Default, Serialize)]
struct PointwiseContext {
    name: String,
    params: Vec<String>,
    threads: usize,
    width: usize,
    unroll: usize,
    index_type: &'static str,
    n_vectors: usize,
    body: String,
}

fn variants(spec: &KernelSpec, arch: Arch) -> Vec<Variant> {
    let outputs = spec.output_types();
    if outputs.is_empty() || !same_count(&outputs) {
        return Vec::new();
    }
    let n_elements = outputs[0].n_elements();
    let mut found = Vec::new();
    for width in widths(spec, n_elements) {
        let Ok((composed, lane)) = compose_flat(spec, width) else {
            return Vec::new();
        };
        if has_reduction(&composed) {
            return Vec::new();
        }
        if !stores_vectors(spec, &composed, lane) {
            continue;
        }
        for (threads, unroll) in [(256, 1), (128, 1), (128, 2), (256, 4)] {
            if n_elements / width < threads * unroll * 2 && (threads, unroll) != (128, 1) {
                continue;
            }
            let us = predicted_us(spec, &composed, lane, (threads, unroll), Device::of(arch));
            found.push(variant(
                TEMPLATE.name,
                &[("width", width), ("threads", threads), ("unroll", unroll)],
                us,
            ));
        }
    }
    found
}

/// Elements per thread that divide the whole: up to 16 bytes of the narrowest operand, not
/// over 32 bytes of the widest output.
fn widths(spec: &KernelSpec, n_elements: usize) -> Vec<usize> {
    let types = [spec.input_types(), spec.output_types()].concat();
    let sizes = || types.iter().map(|ty| ty.dtype.size_bytes());
    let (least, most) = (sizes().min().unwrap_or(4), sizes().max().unwrap_or(4));
    let largest = (16 / least).min(32 / most).max(1);
    let vectors = spec.placed_vector(n_elements);
    [16, 8, 4, 2, 1]
        .into_iter()
        .filter(|&width| width <= largest && vectors.is_multiple_of(width))
        .take(3)
        .collect()
}

/// Whether the elements of a thread lie side by side in every output.
fn stores_vectors(spec: &KernelSpec, composed: &Composed, lane: Lane) -> bool {
    lane.width == 1
        || composed
            .places(&results(spec))
            .iter()
            .all(|place| is_vector(place, lane))
}

fn has_reduction(composed: &Composed) -> bool {
    composed
        .body
        .exprs()
        .any(|(_, expr)| matches!(expr, Expr::Reduce { .. } | Expr::Acc { .. }))
}

#[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
fn predicted_us(
    spec: &KernelSpec,
    composed: &Composed,
    lane: Lane,
    (threads, unroll): (usize, usize),
    device: &Device,
) -> f64 {
    let n_threads = spec.output_types().first().map_or(0, TensorType::n_elements) as f64 / lane.width as f64;
    let per_element: f64 = composed
        .outputs
        .iter()
        .map(|&output| work(&composed.body, output))
        .sum();
    let accesses = memory_instructions(spec, composed, lane);
    // Loads that lanes cannot do together cost an instruction and a partly used sector each.
    let issue = n_threads * (accesses * 8.0 + per_element * 2.0 * lane.width as f64)
        / (f64::from(device.n_sms) * device.clock_ghz * 1e3 * 64.0);
    let bytes = read_bytes(spec, composed, lane) + written_bytes(spec);
    let fill = device.fill(
        (n_threads / (threads * unroll) as f64).ceil(),
        (threads * unroll) as f64,
    );
    NODE_US + 0.3 * (unroll as f64 - 1.0) + (device.memory_us(bytes) / fill).max(issue)
}

/// Bytes that cross memory for the operands: those that neighbouring threads do not read side
/// by side cost a sector per element, or part of one where the steps are unknown.
#[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
fn read_bytes(spec: &KernelSpec, composed: &Composed, lane: Lane) -> f64 {
    let inputs = operands(spec);
    let printer = Printer::new(&composed.body, &inputs);
    let next = |index: &Index, extent: usize| {
        if lane.width > 1 {
            index.stride_of(lane.var)
        } else {
            index.stride_of(composed.vars[0])
        }
        .filter(|_| extent > 1)
    };
    let types = spec.input_types();
    let n_results = spec.output_types().first().map_or(0, TensorType::n_elements);
    let mut bytes: Vec<usize> = types.iter().map(TensorType::n_bytes).collect();
    let mut factors = vec![1.0f64; inputs.len()];
    for (_, expr) in composed.body.exprs() {
        let Expr::Load { input, index, .. } = expr else {
            continue;
        };
        let mut looked_up = Vec::new();
        for one in index {
            values_in(one, &mut looked_up);
        }
        if !looked_up.is_empty() {
            // Of a table only what is looked up.
            let most = n_results * types[*input as usize].dtype.size_bytes();
            let own = &mut bytes[*input as usize];
            *own = most.min(*own);
        }
        let operand = &inputs[*input as usize];
        let n_elements = types[*input as usize].n_elements();
        let stride = next(&printer.position(*input, index), n_elements).and_then(|stride| stride.as_known());
        let sector = 32.0 / operand.dtype.size_bytes() as f64;
        let factor: f64 = match stride {
            Some(0 | 1) => 1.0,
            Some(_) => sector.min(8.0),
            None if lane.width == 1 => 1.5,
            None => 2.0,
        };
        let own = &mut factors[*input as usize];
        *own = own.max(factor);
    }
    bytes
        .into_iter()
        .zip(factors)
        .map(|(bytes, factor)| bytes as f64 * factor)
        .sum()
}

#[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
fn written_bytes(spec: &KernelSpec) -> f64 {
    spec.output_types().iter().map(TensorType::n_bytes).sum::<usize>() as f64
}

/// Loads and stores of one thread.
#[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
fn memory_instructions(spec: &KernelSpec, composed: &Composed, lane: Lane) -> f64 {
    let inputs = operands(spec);
    let printer = Printer::new(&composed.body, &inputs);
    let loads: f64 = composed
        .body
        .exprs()
        .map(|(_, expr)| {
            let Expr::Load { input, index, .. } = expr else {
                return 0.0;
            };
            let position = printer.position(*input, index);
            match position.stride_of(lane.var) {
                Some(stride) if stride == Extent::known(0) || stride == Extent::known(1) => 1.0,
                _ => lane.width as f64,
            }
        })
        .sum();
    loads + spec.output_types().len() as f64
}

fn render(spec: &KernelSpec, variant: &Variant, _arch: Arch) -> Result<Source, KernelError> {
    let (width, threads, unroll) = (
        knob(&TEMPLATE, variant, "width")?,
        knob(&TEMPLATE, variant, "threads")?,
        knob(&TEMPLATE, variant, "unroll")?,
    );
    let (composed, lane) = compose_flat(spec, width)?;
    let n_elements = spec.output_types().first().map_or(0, TensorType::n_elements);
    if has_reduction(&composed) || !n_elements.is_multiple_of(width) || !stores_vectors(spec, &composed, lane)
    {
        return Err(KernelError::NotAccepted {
            template: TEMPLATE.name,
            reason: format!("{n_elements} elements in vectors of {width}, without reductions"),
        });
    }
    let (inputs, outputs) = (operands(spec), results(spec));
    let all: Vec<Operand> = inputs.iter().chain(&outputs).cloned().collect();
    let body = body_text(&composed, lane, &all, &outputs, if unroll > 1 { 2 } else { 1 })?;
    let (params, passed) = signature(spec);
    let name = kernel_name(spec, TEMPLATE.name, &format!("v{width}_t{threads}_u{unroll}"));
    let n_vectors = n_elements / width;
    let text = fill(
        &TEMPLATE,
        &PointwiseContext {
            name: name.clone(),
            params,
            threads,
            width,
            unroll,
            index_type: index_type(&all),
            n_vectors,
            body,
        },
    )?;
    let mut launch = one_dimensional(n_vectors, threads * unroll);
    launch.block[0] = u32::try_from(threads).expect("blocks are small");
    Ok(Source {
        name,
        header: String::new(),
        text: translation_unit(COMMON, &text),
        template: TEMPLATE.name,
        launch,
        params: passed,
        workspace_bytes: 0,
    })
}

/// Loads, arithmetic and stores of one thread.
fn body_text(
    composed: &Composed,
    lane: Lane,
    all: &[Operand],
    outputs: &[Operand],
    depth: usize,
) -> Result<String, KernelError> {
    let mut printer = Printer::new(&composed.body, all);
    printer.set_depth(depth);
    printer.bind(composed.vars[0], "i");
    let places = composed.places(outputs);
    if lane.width == 1 {
        for ((output, &root), place) in outputs.iter().zip(&composed.outputs).zip(places) {
            let value = printer.value(root);
            store_one(&mut printer, output, &place, &value);
        }
        return printer.finish();
    }
    let values = printer.lanes(lane, &composed.outputs);
    for ((output, value), place) in outputs.iter().zip(values).zip(places) {
        let position = printer.index(&without(&place, lane.var));
        printer.line(&format!(
            "rt_store<{}>({} + {position}, {value});",
            lane.width, output.name
        ));
    }
    printer.finish()
}
