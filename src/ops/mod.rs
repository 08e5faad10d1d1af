//! The op table: every operator is declared once, and everything else is derived from it.
//!
//! Two families share the table. **Core ops** (`snake_case`: `add`, `reshape`, `conv_nhwc`)
//! have static attributes and generated code. **ONNX forms** (`CamelCase`: `Reshape`,
//! `Slice`, `LSTM`) keep ONNX's operands and version differences, and expand into core ops
//! as soon as the operands they depend on are constants. An ONNX operator that already is
//! what a core op does (`Relu`, `Add`) is imported as the core op directly.
//!
//! # Adding an operator (ten minutes)
//! 1. Copy the `static` of its nearest relative in the file of its family.
//! 2. Prefer [`Lowering::Expand`]: a few lines over existing ops keep every fusion rule.
//! 3. List it in that file's `OPS`.
//! 4. `cargo test --test hostexec NAME`: its samples are checked against its own inference,
//!    lowering and reference. There is no test to write.
//! 5. `make bless` lists it in `docs/operators.md`; say in [`catalogue`] what restricts it.

pub mod activation;
mod arguments;
pub mod arithmetic_forms;
pub mod attention;
pub mod attention_forms;
pub mod bounded;
pub mod build;
pub mod cast;
pub mod catalogue;
pub mod compaction;
pub mod compare;
pub mod control;
pub mod conv;
pub mod conv_eval;
pub mod conv_forms;
mod conv_shape;
mod def;
pub mod deform_forms;
pub mod detection;
pub mod determinant;
pub mod einsum;
pub mod elementwise;
mod error;
pub mod evaluate;
mod expansion;
pub mod fold_forms;
pub mod grid_forms;
pub mod groups;
pub mod index;
pub mod index_forms;
pub mod infer;
pub mod lanes;
pub mod loss_forms;
pub mod matmul;
pub mod matmul_forms;
pub mod moves;
pub mod narrow;
pub mod ngrams;
pub mod normalize;
pub mod normalize_forms;
pub mod pool;
pub mod pool_forms;
pub mod product;
pub mod quantize;
pub mod quantize_products;
pub mod random;
pub mod recall_forms;
pub mod recurrent;
pub mod recurrent_cells;
pub mod reduce;
pub mod reduce_forms;
pub mod reshape_forms;
pub mod resize;
pub mod resize_taps;
pub mod roi_forms;
pub mod rotary;
pub mod sample_grid;
pub mod samples;
pub mod scatter;
pub mod scatter_forms;
pub mod sequence;
pub mod shape;
pub mod signal_forms;
pub mod sized_forms;
pub mod softmax;
pub mod top_k;
pub mod unique;
pub mod view_forms;
pub mod views;
pub mod window;

use std::collections::HashMap;
use std::sync::LazyLock;

use rustc_hash::FxHashMap;

pub use self::def::{
    AttrDef, AttrDefault, AttrKind, Datum, EvalCtx, EvalFn, InferCtx, InferFn, Lowering, OnnxOp, OpDef,
    Operands, Reach, Sample, SamplesFn, TileKind, Tolerance,
};
pub use self::error::OpError;
pub use self::expansion::{
    BoundedForm, ExpandCtx, ExpandFn, NEWEST_OPSET, OPSET, emit, emit_bounded, types_of, with_defaults,
    without_opset,
};

/// The op spelled `name`.
pub fn lookup(name: &str) -> Option<&'static OpDef> {
    TABLE.by_name.get(name).copied()
}

/// The op that imports ONNX operator `name` of `domain` at `opset`.
pub fn lookup_onnx(domain: &str, name: &str, opset: i64) -> Option<&'static OpDef> {
    TABLE
        .by_onnx
        .get(&(domain, name))?
        .iter()
        .find(|(onnx, _)| (onnx.since..=onnx.until).contains(&opset))
        .map(|(_, def)| *def)
}

/// Every op, by name.
pub fn all() -> impl Iterator<Item = &'static OpDef> {
    FAMILIES.iter().flat_map(|ops| ops.iter().copied())
}

/// The files of the table. A new family is listed here.
static FAMILIES: &[&[&OpDef]] = &[
    activation::OPS,
    arithmetic_forms::OPS,
    attention::OPS,
    attention_forms::OPS,
    cast::OPS,
    compaction::OPS,
    compare::OPS,
    control::OPS,
    conv::OPS,
    conv_forms::OPS,
    deform_forms::OPS,
    determinant::OPS,
    detection::OPS,
    einsum::OPS,
    elementwise::OPS,
    fold_forms::OPS,
    grid_forms::OPS,
    groups::OPS,
    index::OPS,
    index_forms::OPS,
    loss_forms::OPS,
    matmul::OPS,
    matmul_forms::OPS,
    ngrams::OPS,
    normalize::OPS,
    normalize_forms::OPS,
    pool::OPS,
    pool_forms::OPS,
    quantize::OPS,
    quantize_products::OPS,
    recall_forms::OPS,
    recurrent::OPS,
    reduce::OPS,
    resize::OPS,
    roi_forms::OPS,
    scatter::OPS,
    scatter_forms::OPS,
    sequence::OPS,
    reduce_forms::OPS,
    rotary::OPS,
    shape::OPS,
    signal_forms::OPS,
    softmax::OPS,
    top_k::OPS,
    unique::OPS,
    view_forms::OPS,
    views::OPS,
];

struct Table {
    by_name: FxHashMap<&'static str, &'static OpDef>,
    by_onnx: HashMap<(&'static str, &'static str), Vec<(OnnxOp, &'static OpDef)>>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut table = Table {
        by_name: FxHashMap::default(),
        by_onnx: HashMap::new(),
    };
    for def in all() {
        let earlier = table.by_name.insert(def.name, def);
        assert!(earlier.is_none(), "op `{}` is declared twice", def.name);
        for onnx in def.onnx {
            table
                .by_onnx
                .entry((onnx.domain, onnx.name))
                .or_default()
                .push((*onnx, def));
        }
    }
    table
});
