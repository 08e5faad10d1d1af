//! Which kernels the regions of a model get: none may do a region's main loop once per element.

use std::collections::BTreeMap;

use rtrt_codegen::kernel::{self, Arch, KernelOptions, KernelSpec};
use rtrt_codegen::ops::{self, Lowering, TileKind};
use rtrt_codegen::rewrite::FusedGraph;

/// The template for anything, which evaluates whole expressions element by element.
const GENERAL: &str = "indexed";

fn has_main_loop(spec: &KernelSpec) -> bool {
    spec.body
        .nodes
        .iter()
        .any(|node| match ops::lookup(node.op).map(|def| &def.lower) {
            Some(Lowering::Tile(kind, _)) => match kind {
                TileKind::Map | TileKind::View | TileKind::Index | TileKind::Other => false,
                TileKind::Reduce | TileKind::Dot | TileKind::Window => true,
            },
            Some(Lowering::Loop) => true,
            Some(Lowering::Map(_) | Lowering::Expand(_) | Lowering::Bounded(_) | Lowering::Host(_))
            | None => false,
        })
}

/// One line per distinct problem of a model.
struct Row {
    /// Launches of it.
    n: f64,
    us: f64,
    line: String,
    is_slow: bool,
}

fn row(spec: &KernelSpec, arch: Arch) -> Row {
    let variants = kernel::variants(spec, arch);
    let best = variants.first();
    let template = best.map_or("none", |best| best.template.as_str());
    let us = best.map_or(f64::INFINITY, |best| best.predicted_us);
    let knobs = best.map(|best| format!("{:?}", best.knobs)).unwrap_or_default();
    let types = |types: Vec<rtrt_codegen::ir::TensorType>| {
        types
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    };
    Row {
        n: 0.0,
        us,
        line: format!(
            "{template} {knobs} {} ({}) -> {}",
            spec.ops().join(" "),
            types(spec.input_types()),
            types(spec.output_types()),
        ),
        is_slow: has_main_loop(spec) && (template == GENERAL || best.is_none()),
    }
}

/// Prints the predicted sum, and the regions whose best kernel is the general one though they
/// have a main loop; `RTRT_SHOW_KERNELS=1` prints all of them, the most costly first.
pub fn check(fused: &FusedGraph, arch: Arch, title: &str) -> Result<(), String> {
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    for number in 0..fused.regions.len() {
        let spec = kernel::spec(fused, number, &KernelOptions::default());
        rows.entry(spec.key()).or_insert_with(|| row(&spec, arch)).n += 1.0;
    }
    let mut rows: Vec<Row> = rows.into_values().collect();
    rows.sort_by(|a, b| (b.us * b.n).total_cmp(&(a.us * a.n)));
    let total: f64 = rows.iter().map(|row| row.us * row.n).sum();
    println!("{title}: {} kernels, {:.0} us predicted", rows.len(), total);
    if std::env::var_os("RTRT_SHOW_KERNELS").is_some() {
        for row in &rows {
            println!("  {:3} x {:9.2} us  {}", row.n, row.us, row.line);
        }
    }
    let slow: Vec<String> = rows
        .iter()
        .filter(|row| row.is_slow)
        .map(|row| format!("{} x {:.1} us {}", row.n, row.us, row.line))
        .collect();
    if slow.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{title}: only the general kernel for\n  {}",
        slow.join("\n  ")
    ))
}
