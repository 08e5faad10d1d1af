//! `best_boxes`: the boxes of each class that overlap no better one, by rounds of a block.
//!
//! A round finds the best box that is left, and looks at all others once: those that overlap it are dropped,
//! and the best of the rest is known for the next round.

use serde::Serialize;

use super::{Template, field_names, fill, knob, variant};
use crate::ir::{Node, ValueId};
use crate::kernel::body::region::{kernel_name, operands, results, signature, tensors_index_type};
use crate::kernel::device::{Device, NODE_US};
use crate::kernel::error::KernelError;
use crate::kernel::prelude::{BOXES, COMMON, translation_unit};
use crate::kernel::print::expr::{Operand, Printer};
use crate::kernel::print::types::{float_literal, literal};
use crate::kernel::source::{Arch, Launch, Source, Variant};
use crate::kernel::spec::KernelSpec;
use crate::ops::detection::BEST_BOXES;
use crate::ops::evaluate::to_vec;
use crate::tile::{Body, Extent, Index, Scalar};

pub static TEMPLATE: Template = Template {
    name: "best_boxes",
    text: include_str!("../../../templates/best_boxes.cu.tera"),
    variants,
    render,
    fields: || field_names(&BestBoxesContext::default()),
};

#[derive(Clone, Debug, Default, Serialize)]
struct BestBoxesContext {
    name: String,
    params: Vec<String>,
    index_type: &'static str,
    threads: usize,
    boxes: usize,
    most: usize,
    words: usize,
    classes: usize,
    score: String,
    lowest: Option<String>,
    overlap: String,
    chosen_box: String,
    own_box: String,
    kept_place: String,
    empty_place: String,
}

/// Words of bits that a thread has in registers.
const MOST_WORDS: usize = 4;

/// Rounds that a prediction reckons with: few scenes show more objects of a class.
const USUAL_ROUNDS: usize = 100;

/// The one node of `spec`, and extents of its result: images, classes, boxes at most.
fn accepted(spec: &KernelSpec) -> Option<(&Node, [usize; 3])> {
    let [node] = spec.body.nodes.as_slice() else {
        return None;
    };
    let dims = spec.body.ty(node.results[0]).dims();
    let dims = <[usize; 3]>::try_from(dims).ok()?;
    (node.op == BEST_BOXES.name).then_some((node, dims))
}

fn operand(node: &Node, n: usize) -> ValueId {
    node.operands[n].expect("infer() checked that operands are present")
}

fn n_boxes(spec: &KernelSpec, node: &Node) -> usize {
    spec.body.ty(operand(node, 0)).dims()[1]
}

fn words(n_boxes: usize, threads: usize) -> usize {
    n_boxes.div_ceil(threads).div_ceil(32).max(1)
}

fn variants(spec: &KernelSpec, arch: Arch) -> Vec<Variant> {
    let Some((node, [images, classes, most])) = accepted(spec) else {
        return Vec::new();
    };
    let (device, n_boxes) = (Device::of(arch), n_boxes(spec, node));
    let offered = [512, 256, 128].into_iter();
    let fitting = offered.filter(|&threads| words(n_boxes, threads) <= MOST_WORDS);
    let mut found: Vec<Variant> = fitting
        .map(|threads| {
            let waves = (images * classes).div_ceil(device.n_sms as usize);
            let us = predicted_us(n_boxes.div_ceil(threads), threads / 32, most, waves);
            variant(TEMPLATE.name, &[("threads", threads)], us)
        })
        .collect();
    found.sort_by(|a, b| a.predicted_us.total_cmp(&b.predicted_us));
    found
}

/// A round is two barriers, a fold of all warps, and a look at the boxes of a thread, of which most were dropped. Up to
/// sixteen warps wait beside each other for what they read.
#[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
fn predicted_us(own: usize, warps: usize, most: usize, waves: usize) -> f64 {
    let round = 0.25 + 0.012 * warps as f64 + 0.03 * own as f64 * (warps as f64 / 16.0).max(1.0);
    NODE_US + waves as f64 * most.min(USUAL_ROUNDS) as f64 * round
}

fn render(spec: &KernelSpec, variant: &Variant, _arch: Arch) -> Result<Source, KernelError> {
    let threads = knob(&TEMPLATE, variant, "threads")?;
    let (node, [images, classes, most]) = accepted(spec).ok_or_else(|| KernelError::NotAccepted {
        template: TEMPLATE.name,
        reason: "it is not one `best_boxes` alone".to_owned(),
    })?;
    let n_boxes = n_boxes(spec, node);
    let float = |name: &str| node.attrs.float(name).map(|value| float_literal(value, false));
    let corners = |index: &str| {
        let make = if node.attrs.int("centred") == Some(1) {
            "rt_box_of_centre"
        } else {
            "rt_box_of_corners"
        };
        let corner = |n: usize| {
            element(
                spec,
                operand(node, 0),
                &format!("(image * kBoxes + {index}) * 4 + {n}"),
            )
        };
        format!(
            "{make}({}, {}, {}, {})",
            corner(0),
            corner(1),
            corner(2),
            corner(3)
        )
    };
    let (params, passed) = signature(spec);
    let name = kernel_name(spec, TEMPLATE.name, &format!("t{threads}"));
    let text = fill(
        &TEMPLATE,
        &BestBoxesContext {
            name: name.clone(),
            params,
            index_type: tensors_index_type(spec),
            threads,
            boxes: n_boxes,
            most,
            words: words(n_boxes, threads),
            classes,
            score: element(
                spec,
                operand(node, 1),
                &format!("(image * {classes} + label) * kBoxes + box"),
            ),
            lowest: float("lowest"),
            overlap: float("overlap").unwrap_or_else(|| "0.0f".to_owned()),
            chosen_box: corners("chosen"),
            own_box: corners("box"),
            kept_place: place(spec, [images, classes, most], "kept"),
            empty_place: place(spec, [images, classes, most], "slot"),
        },
    )?;
    let sections = [COMMON, &[BOXES]].concat();
    Ok(Source {
        name,
        header: String::new(),
        text: translation_unit(&sections, &text),
        template: TEMPLATE.name,
        launch: Launch::in_a_row((images * classes).max(1), threads, 0),
        params: passed,
        workspace_bytes: 0,
    })
}

/// The element of an operand at a position, as a float.
fn element(spec: &KernelSpec, value: ValueId, position: &str) -> String {
    if let Some(data) = spec.body.weight(value) {
        // Only single elements are part of a body.
        return literal(Scalar::float(crate::ir::DType::F32, to_vec::<f64>(data)[0]));
    }
    let input = spec.body.inputs.iter().position(|&input| input == value);
    let input = input.expect("a region's operands are inputs or constants");
    format!("float(rt_get({}[{position}]))", operands(spec)[input].name)
}

/// Where the box of round `slot` is stored.
fn place(spec: &KernelSpec, extents: [usize; 3], slot: &str) -> String {
    let mut body = Body::new();
    let vars = extents.map(|extent| body.vars.fresh(Extent::from(extent)));
    let outputs: Vec<Operand> = results(spec);
    let address = outputs[0].address(&vars.map(Index::var), &body.vars);
    let mut printer = Printer::new(&body, &outputs);
    for (var, name) in vars.into_iter().zip(["image", "label", slot]) {
        printer.bind(var, name);
    }
    format!("{}[{}]", outputs[0].name, printer.index(&address))
}
