//! Predicted times of kernels, and of the layers that they are of.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{PipelineError, Settings, lower, regions};
use crate::ir::{Graph, Node};
use crate::kernel::{self, Arch};
use crate::precision::Layer;

/// Predicted time of each layer: of the kernel of its product, and of kernels without a product that
/// make or read what it reads, shared with other layers there.
pub(super) fn times(
    graph: &Graph,
    layers: &[Layer],
    arch: Arch,
    settings: &Settings,
) -> Result<BTreeMap<String, f64>, PipelineError> {
    let names: BTreeSet<&str> = layers.iter().map(|layer| layer.name.as_str()).collect();
    let mut times: BTreeMap<String, f64> = BTreeMap::new();
    for (body, us) in kernel_times(graph, arch, settings)? {
        let own = layers_of(&body, &names);
        for name in &own {
            *times.entry((*name).to_owned()).or_default() += us / own.len() as f64;
        }
    }
    Ok(times)
}

/// The body of every kernel and its predicted time in microseconds.
pub(super) fn kernel_times(
    graph: &Graph,
    arch: Arch,
    settings: &Settings,
) -> Result<Vec<(Graph, f64)>, PipelineError> {
    let core = lower(graph, settings)?;
    let fused = regions(&core, arch, settings)?;
    let options = settings.kernel_options();
    let us = |number: usize| {
        let spec = kernel::spec(&fused, number, &options);
        let variants = kernel::variants(&spec, arch);
        let best = variants.first().map(|variant| variant.predicted_us);
        best.unwrap_or(fused.regions[number].bound_us)
    };
    let times: Vec<f64> = (0..fused.regions.len()).map(us).collect();
    Ok(fused
        .regions
        .into_iter()
        .map(|region| region.body)
        .zip(times)
        .collect())
}

/// The layers whose products a body computes, or those that its nodes come from where it has none.
fn layers_of<'a>(body: &'a Graph, names: &BTreeSet<&str>) -> BTreeSet<&'a str> {
    // What a rule makes comes from the last leaf of its pattern first: from a layer's own weight.
    let is_product = |node: &&Node| matches!(node.op, "matmul" | "conv" | "conv_nhwc" | "conv_transpose");
    let products = body.nodes.iter().filter(is_product);
    let own = |node: &'a Node| {
        node.origin
            .iter()
            .map(String::as_str)
            .find(|name| names.contains(name))
    };
    let found: BTreeSet<&str> = products.filter_map(own).collect();
    if !found.is_empty() {
        return found;
    }
    let origins = body.nodes.iter().flat_map(|node| &node.origin);
    origins
        .map(String::as_str)
        .filter(|name| names.contains(name))
        .collect()
}
