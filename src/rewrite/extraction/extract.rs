//! From chosen kernels to regions: bodies, tensors, constants and provenance.

use std::collections::{BTreeMap, BTreeSet};

use super::cones::Candidate;
use super::cost::DeviceRates;
use super::explain::{Choice, Names, explained};
use super::fold::Folder;
use super::net::{Net, NetExpr, NetSource};
use super::regions::{Explanation, FusedGraph, Region, RegionKind, RuleUse, Tensor, TensorId, TensorSource};
use crate::ir::{Attr, Attrs, Graph, HostTensor, Operand, ValueId};
use crate::rewrite::error::RewriteError;

/// Builds the fused graph of the chosen candidates, which are in an order they can run in.
///
/// # Errors
/// If a constant cannot be evaluated.
pub fn extract(
    net: &Net,
    chosen: &[Choice<'_>],
    folder: &mut Folder<'_>,
    names: &Names<'_>,
    device: &DeviceRates,
) -> Result<FusedGraph, RewriteError> {
    let mut builder = FusedBuilder {
        net,
        folder,
        names,
        fused: FusedGraph::default(),
        tensors: BTreeMap::new(),
    };
    builder.add_inputs();
    for choice in chosen {
        builder.add_region(choice.candidate, explained(net, choice, names, device))?;
    }
    builder.add_outputs()?;
    Ok(builder.fused)
}

struct FusedBuilder<'a, 'f> {
    net: &'a Net,
    folder: &'a mut Folder<'f>,
    names: &'a Names<'a>,
    fused: FusedGraph,
    /// Device tensors, inputs and constants that exist by now, by their number in the net.
    tensors: BTreeMap<usize, TensorId>,
}

impl FusedBuilder<'_, '_> {
    fn add_tensor(&mut self, tensor: Tensor) -> TensorId {
        let id = TensorId(u32::try_from(self.fused.tensors.len()).expect("graphs have under 2^32 tensors"));
        self.fused.tensors.push(tensor);
        id
    }

    /// Every input of the model has a tensor, read or not.
    fn add_inputs(&mut self) {
        let graph = self.names.graph;
        for (position, &input) in graph.inputs.iter().enumerate() {
            let name = graph.value(input).name.clone();
            let id = self.add_tensor(Tensor {
                ty: graph.ty(input).clone(),
                name: name.clone(),
                source: TensorSource::Input(position),
            });
            self.fused.inputs.push((name, id));
        }
        for (place, tensor) in self.net.tensors.iter().enumerate() {
            if let NetSource::Input(position) = tensor.source {
                self.tensors.insert(place, self.fused.inputs[position].1);
            }
        }
    }

    /// The tensor of a value that is read from memory.
    fn memory(&mut self, place: usize) -> Result<TensorId, RewriteError> {
        if let Some(&id) = self.tensors.get(&place) {
            return Ok(id);
        }
        let data = self.folder.value(place)?;
        let id = self.add_tensor(Tensor {
            ty: data.ty(),
            name: self.name_of(place),
            source: TensorSource::Weight(data),
        });
        self.tensors.insert(place, id);
        Ok(id)
    }

    /// A name for people: that of the imported value, or of the node it comes from.
    fn name_of(&self, place: usize) -> String {
        let tensor = &self.net.tensors[place];
        let node = tensor
            .exprs
            .iter()
            .find_map(|&expr| self.net.exprs[expr].nodes.last());
        let graph = self.names.graph;
        let own = node.and_then(|&node| {
            let node = &graph.nodes[node];
            let value = node.results.first().map(|&value| &graph.value(value).name);
            value
                .filter(|name| !name.is_empty())
                .or_else(|| node.origin.last())
        });
        own.map_or_else(|| format!("v{place}"), Clone::clone)
    }

    fn add_region(&mut self, candidate: &Candidate, explanation: Explanation) -> Result<(), RewriteError> {
        let mut body = BodyBuilder::new(&self.net.tensors[candidate.root].ty.to_string());
        for (&place, &expr) in &candidate.inlined {
            let expr = &self.net.exprs[expr];
            let operands = self.body_operands(&mut body, expr)?;
            body.add(
                self.net,
                expr,
                place,
                operands,
                self.names.origin_of(expr),
                self.names.rules_of(expr),
            );
        }
        let mut outputs = Vec::new();
        for &output in &candidate.outputs {
            if self.net.tensors[output].consumers == 0 {
                continue;
            }
            body.graph.add_output("", body.values[&output]);
            let id = self.add_tensor(Tensor {
                ty: self.net.tensors[output].ty.clone(),
                name: self.name_of(output),
                source: TensorSource::Regions,
            });
            self.tensors.insert(output, id);
            outputs.push(id);
        }
        self.fused.regions.push(Region {
            inputs: body.inputs,
            outputs,
            placements: BTreeMap::new(),
            kind: candidate.kind,
            rules: self.rules(candidate),
            bound_us: candidate.bound_us,
            explanation,
            body: body.graph,
        });
        Ok(())
    }

    fn body_operands(
        &mut self,
        body: &mut BodyBuilder,
        expr: &NetExpr,
    ) -> Result<Vec<Operand>, RewriteError> {
        expr.operands
            .iter()
            .map(|operand| {
                let Some(operand) = operand else { return Ok(None) };
                let place = operand.tensor;
                if let Some(&value) = body.values.get(&place) {
                    return Ok(Some(value));
                }
                let tensor = &self.net.tensors[place];
                if matches!(tensor.source, NetSource::Const(_)) && tensor.n_elements == 1 {
                    let data = self.folder.value(place)?;
                    return Ok(Some(body.add_scalar(place, data)));
                }
                let id = self.memory(place)?;
                Ok(Some(body.add_input(self.fused.tensor(id), place, id)))
            })
            .collect()
    }

    /// Rules of the whole region: of its nodes, then those that fused them.
    fn rules(&self, candidate: &Candidate) -> Vec<RuleUse> {
        let mut uses: Vec<RuleUse> = Vec::new();
        let mut add = |rule: RuleUse| {
            if !uses.contains(&rule) {
                uses.push(rule);
            }
        };
        for &expr in candidate.inlined.values() {
            for name in self.names.rules_of(&self.net.exprs[expr]) {
                let known = self.names.rules.iter().find(|rule| rule.name == name);
                let place = || self.names.places.get(&name).cloned().unwrap_or_default();
                add(known.cloned().unwrap_or_else(|| RuleUse {
                    place: place(),
                    name: name.clone(),
                }));
            }
        }
        for &expr in candidate.inlined.values() {
            for operand in self.net.exprs[expr].uses() {
                if candidate.inlined.contains_key(&operand.tensor) {
                    operand
                        .rules
                        .iter()
                        .for_each(|&rule| add(self.names.rules[rule].clone()));
                }
            }
        }
        uses
    }

    /// Every output gets a tensor that a region writes and no other output has: inputs,
    /// constants and repeated outputs are copied.
    fn add_outputs(&mut self) -> Result<(), RewriteError> {
        let mut given: BTreeSet<TensorId> = BTreeSet::new();
        for (position, &place) in self.net.outputs.iter().enumerate() {
            let id = self.memory(place)?;
            let is_own = matches!(self.fused.tensor(id).source, TensorSource::Regions);
            let id = if is_own && given.insert(id) {
                id
            } else {
                self.copy(id)
            };
            let name = self.names.graph.output_names[position].clone();
            self.fused.outputs.push((name, id));
        }
        self.fused.bounds.clone_from(&self.names.graph.bounds);
        self.fused.limits.clone_from(&self.names.graph.limits);
        Ok(())
    }

    /// A region that copies a tensor: a reshape to the same dims.
    fn copy(&mut self, from: TensorId) -> TensorId {
        let source = self.fused.tensor(from).clone();
        let mut body = BodyBuilder::new("copy");
        let input = body.add_input(&source, 0, from);
        let dims = source.ty.dims().into_iter();
        let dims = dims
            .map(|extent| i64::try_from(extent).expect("extents fit in i64"))
            .collect();
        let node = body.graph.add_node(
            "reshape",
            vec![Some(input)],
            Attrs::new().with("shape", Attr::Ints(dims)),
            &[("", Some(source.ty.clone()))],
            Vec::new(),
        );
        let result = body.graph.node(node).results[0];
        body.graph.add_output("", result);
        let id = self.add_tensor(Tensor {
            source: TensorSource::Regions,
            ..source
        });
        self.fused.regions.push(Region {
            body: body.graph,
            inputs: vec![from],
            outputs: vec![id],
            placements: BTreeMap::new(),
            kind: RegionKind::Pointwise,
            rules: Vec::new(),
            bound_us: 0.0,
            explanation: Explanation::default(),
        });
        id
    }
}

/// The body of a region under construction.
struct BodyBuilder {
    graph: Graph,
    /// Values of the body by their number in the net.
    values: BTreeMap<usize, ValueId>,
    inputs: Vec<TensorId>,
}

impl BodyBuilder {
    fn new(name: &str) -> Self {
        BodyBuilder {
            graph: Graph::new(name),
            values: BTreeMap::new(),
            inputs: Vec::new(),
        }
    }

    fn add_input(&mut self, tensor: &Tensor, place: usize, id: TensorId) -> ValueId {
        if let Some(position) = self.inputs.iter().position(|&own| own == id) {
            return self.graph.inputs[position];
        }
        let value = self.graph.add_input(&tensor.name, Some(tensor.ty.clone()));
        self.inputs.push(id);
        self.values.insert(place, value);
        value
    }

    fn add_scalar(&mut self, place: usize, data: HostTensor) -> ValueId {
        let value = self.graph.add_weight("", data);
        self.values.insert(place, value);
        value
    }

    fn add(
        &mut self,
        net: &Net,
        expr: &NetExpr,
        place: usize,
        operands: Vec<Operand>,
        origin: Vec<String>,
        rules: Vec<String>,
    ) {
        let results: Vec<(&str, Option<_>)> = expr
            .results
            .iter()
            .map(|&result| ("", Some(net.tensors[result].ty.clone())))
            .collect();
        let node = self
            .graph
            .add_node(expr.op, operands, expr.attrs.clone(), &results, origin);
        self.graph.nodes[node.0 as usize].rules = rules;
        let made = self.graph.node(node).results.clone();
        for (&result, value) in expr.results.iter().zip(made) {
            self.values.insert(result, value);
        }
        debug_assert!(
            self.values.contains_key(&place),
            "an expression computes its tensor"
        );
    }
}
