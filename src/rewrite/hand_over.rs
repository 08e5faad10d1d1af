//! Sums of rows, handed over by the product that stores the rows.
//!
//! A product of normalised rows needs sums over each row (`rules/statistics.rules`), which it would take in every tile
//! of its columns as it reads them. Where the rows are what another product stores, that one has them in registers: it
//! stores sums over strips of columns beside them, and whoever needs a row's sum adds up its strips. This is done once
//! regions are cut: it takes no launch away and adds none, and which kernels there are does not depend on it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::extraction::cost::DeviceRates;
use super::extraction::regions::{FusedGraph, Region, RegionKind, Tensor, TensorId, TensorSource};
use crate::ir::{Attr, Attrs, DType, Graph, Node, Source, ValueId};
use crate::ops::evaluate::from_values;
use crate::ops::{Lowering, NEWEST_OPSET, TileKind, emit, lookup};

/// Columns of a strip: as few as a warp has of a row in any kernel that may store them.
const STRIP: usize = 16;
/// Rows that kernels for vectors multiply, which store no strips.
const FEW_ROWS: usize = 8;

/// A sum over the elements of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sum {
    Plain,
    Squares,
}

/// Has products store strips of the rows whose statistics other products take.
pub fn hand_over(fused: &mut FusedGraph, device: &DeviceRates) {
    for (rows, readers) in readers(fused) {
        let Some(writer) = writer(fused, rows, device) else {
            continue;
        };
        let statistics = readers.iter().flat_map(|&region| statistics(fused, region, rows));
        let needed: BTreeSet<Sum> = statistics.flat_map(|node| sums_of(node.op)).copied().collect();
        let sums: Vec<Sum> = needed.into_iter().collect();
        let stored = store_strips(fused, &writer, &sums);
        for region in readers {
            read_strips(fused, region, rows, (stored, &sums));
        }
    }
}

/// The sums that a statistic is made of; none of other ops.
fn sums_of(op: &str) -> &'static [Sum] {
    match op {
        "reduce_mean" => &[Sum::Plain],
        "inverse_deviation" => &[Sum::Plain, Sum::Squares],
        "inverse_rms" => &[Sum::Squares],
        _ => &[],
    }
}

/// The products that take statistics of the rows of a tensor.
fn readers(fused: &FusedGraph) -> BTreeMap<TensorId, Vec<usize>> {
    let mut found: BTreeMap<TensorId, Vec<usize>> = BTreeMap::new();
    for (number, region) in fused.regions.iter().enumerate() {
        let is_product = region.kind == RegionKind::Dot;
        for &rows in region.inputs.iter().filter(|_| is_product) {
            if statistics(fused, number, rows).next().is_some() {
                found.entry(rows).or_default().push(number);
            }
        }
    }
    found
}

/// Nodes of a region that are statistics of whole rows of the tensor `rows`.
fn statistics(fused: &FusedGraph, region: usize, rows: TensorId) -> impl Iterator<Item = &Node> {
    let Region { body, inputs, .. } = &fused.regions[region];
    let input = inputs.iter().position(|&own| own == rows);
    let input = input.map(|position| body.inputs[position]);
    body.nodes
        .iter()
        .filter(move |node| input.is_some() && row_operand(body, node) == input)
}

/// The input whose rows `node` takes a statistic of.
fn row_operand(body: &Graph, node: &Node) -> Option<ValueId> {
    let mut value = node.operands.first().copied().flatten()?;
    let last = i64::try_from(body.ty(value).rank()).ok()? - 1;
    let is_of_rows = !sums_of(node.op).is_empty() && node.attrs.ints("axes") == Some(&[last]);
    let columns = body.ty(value).dims().last().copied();
    while let Some((_, view)) = body.producer(value) {
        value = view
            .operands
            .first()
            .copied()
            .flatten()
            .filter(|_| view.op == "reshape")?;
    }
    let is_input = matches!(body.value(value).source, Source::Input(_));
    let fits = is_of_rows && is_input && body.ty(value).dims().last().copied() == columns;
    fits.then_some(value)
}

/// A product that can store strips of what it stores.
struct Writer {
    region: usize,
    /// The rows in its body.
    rows: ValueId,
    /// Their name, for people.
    name: String,
}

/// The product that writes the whole of `rows`, if one does that can sum strips of it.
fn writer(fused: &FusedGraph, rows: TensorId, device: &DeviceRates) -> Option<Writer> {
    let mut regions = fused.regions.iter().enumerate();
    let (region, own) = regions.find(|(_, region)| region.outputs.contains(&rows))?;
    let number = own.outputs.iter().position(|&output| output == rows)?;
    let value = own.body.outputs[number];
    let is_whole = own.kind == RegionKind::Dot && !own.placements.contains_key(&number);
    (is_whole && is_summable(&own.body, value, device)).then(|| Writer {
        region,
        rows: value,
        name: fused.tensor(rows).name.clone(),
    })
}

/// Whether `rows` are the rows of a product of two matrices of halves that tensor cores multiply, in whole strips, with
/// nothing but elementwise work behind it: kernels that sum strips are then sure to be offered.
fn is_summable(body: &Graph, rows: ValueId, device: &DeviceRates) -> bool {
    let is_loop = |node: &&Node| {
        let lower = lookup(node.op).map(|def| &def.lower);
        matches!(lower, Some(Lowering::Tile(TileKind::Dot | TileKind::Window, _)))
    };
    let mut loops = body.nodes.iter().filter(is_loop);
    let (Some(product), None) = (loops.next(), loops.next()) else {
        return false;
    };
    let is_half = |dtype: DType| dtype == DType::F16 || dtype == DType::BF16 && device.sm >= 80;
    let is_matrix = |operand: &Option<ValueId>| {
        operand.is_some_and(|value| body.ty(value).rank() == 2 && is_half(body.ty(value).dtype))
    };
    let result = product.results[0];
    let n_elements = body.ty(result).n_elements();
    let columns = body.ty(result).dims().last().copied().unwrap_or(0);
    let kept = keeps_columns(body, result, columns, n_elements);
    let is_in_rows = |output: &ValueId| kept.contains(output) || body.ty(*output).dims().last() == Some(&1);
    product.op == "matmul"
        && product.operands.iter().all(is_matrix)
        && columns > 0
        && columns.is_multiple_of(STRIP)
        && n_elements / columns > FEW_ROWS
        && is_half(body.ty(rows).dtype)
        && kept.contains(&rows)
        && body.outputs.iter().all(is_in_rows)
}

/// Values that have an element for each one of `product`, in the same order and in rows of as many `columns`.
fn keeps_columns(body: &Graph, product: ValueId, columns: usize, n_elements: usize) -> BTreeSet<ValueId> {
    let mut found = BTreeSet::from([product]);
    for node in &body.nodes {
        let is_behind = node
            .operands
            .iter()
            .flatten()
            .any(|operand| found.contains(operand));
        let ty = body.ty(node.results[0]);
        let is_map = lookup(node.op).is_some_and(|def| matches!(def.lower, Lowering::Map(_)));
        let is_kept = ty.n_elements() == n_elements && ty.dims().last() == Some(&columns);
        if is_behind && is_kept && (is_map || node.op == "reshape") {
            found.insert(node.results[0]);
        }
    }
    found
}

/// Adds a result to the region of `writer`: for each row and strip its `sums`, side by side.
fn store_strips(fused: &mut FusedGraph, writer: &Writer, sums: &[Sum]) -> TensorId {
    let region = &mut fused.regions[writer.region];
    let body = &mut region.body;
    let dims = body.ty(writer.rows).dims();
    let (columns, n_elements) = (dims[dims.len() - 1], body.ty(writer.rows).n_elements());
    let to = Attrs::new().with("to", Attr::DType(DType::F32));
    let wide = one_of(body, "cast", &[writer.rows], to);
    let strips = reshaped(body, wide, &[n_elements / columns, columns / STRIP, STRIP]);
    let mut found = Vec::new();
    for sum in sums {
        let terms = match sum {
            Sum::Plain => strips,
            Sum::Squares => one_of(body, "mul", &[strips, strips], Attrs::new()),
        };
        found.push(one_of(body, "reduce_sum", &[terms], over(2)));
    }
    let stored = match found[..] {
        [only] => only,
        _ => one_of(body, "concat", &found, Attrs::new().with("axis", Attr::Int(2))),
    };
    body.add_output("", stored);
    let id = TensorId(u32::try_from(fused.tensors.len()).expect("graphs have under 2^32 tensors"));
    region.outputs.push(id);
    fused.tensors.push(Tensor {
        ty: body.ty(stored).clone(),
        name: format!("{}.sums", writer.name),
        source: TensorSource::Regions,
    });
    id
}

/// Has a region take statistics of `rows` from the sums that are stored of them.
fn read_strips(fused: &mut FusedGraph, region: usize, rows: TensorId, (stored, sums): (TensorId, &[Sum])) {
    let own: Vec<Node> = statistics(fused, region, rows).cloned().collect();
    let body = &fused.regions[region].body;
    let mut copy = Copying::of_inputs(body);
    let tensor = fused.tensor(stored);
    let strips = copy.target.add_input(&tensor.name, Some(tensor.ty.clone()));
    copy.copy_weights();
    let is_needed = |sum: &Sum| own.iter().any(|node| sums_of(node.op).contains(sum));
    let mut totals = BTreeMap::new();
    for (place, &sum) in sums.iter().enumerate().filter(|(_, sum)| is_needed(sum)) {
        totals.insert(sum, total(&mut copy.target, strips, place));
    }
    for node in &body.nodes {
        if own.iter().any(|own| own.results == node.results) {
            let made = statistic(&mut copy.target, body, node, &totals);
            copy.known.insert(node.results[0], made);
        } else {
            copy.copy_node(node);
        }
    }
    let target = copy.with_outputs();
    let region = &mut fused.regions[region];
    region.body = target;
    region.inputs.push(stored);
}

/// A body, copied node by node.
struct Copying<'a> {
    body: &'a Graph,
    target: Graph,
    known: HashMap<ValueId, ValueId>,
}

impl Copying<'_> {
    fn of_inputs(body: &Graph) -> Copying<'_> {
        let mut target = Graph::new(&body.name);
        let mut known = HashMap::new();
        for &input in &body.inputs {
            let value = body.value(input);
            known.insert(input, target.add_input(&value.name, value.ty.clone()));
        }
        Copying { body, target, known }
    }

    fn copy_weights(&mut self) {
        for (number, value) in self.body.values.iter().enumerate() {
            if let Source::Weight(data) = &value.source {
                let id = ValueId(u32::try_from(number).expect("graphs have under 2^32 values"));
                let copy = self.target.add_weight(&value.name, data.clone());
                self.known.insert(id, copy);
            }
        }
    }

    fn copy_node(&mut self, node: &Node) {
        let operands = node
            .operands
            .iter()
            .map(|operand| operand.map(|value| self.known[&value]));
        let copy = self.target.copy_node(self.body, node, operands.collect());
        let results = self.target.node(copy).results.clone();
        self.known.extend(node.results.iter().copied().zip(results));
    }

    fn with_outputs(mut self) -> Graph {
        for (output, name) in self.body.outputs.iter().zip(&self.body.output_names) {
            self.target.add_output(name, self.known[output]);
        }
        self.target
    }
}

/// The sums at `place` of all strips of a row, added up.
fn total(graph: &mut Graph, strips: ValueId, place: usize) -> ValueId {
    let dims = graph.ty(strips).dims();
    let ints = |values: [usize; 3]| {
        let values = values.map(|value| i64::try_from(value).expect("dims are far below 2^63"));
        Attr::Ints(values.to_vec())
    };
    let own = if dims[2] == 1 {
        strips
    } else {
        let attrs = Attrs::new()
            .with("starts", ints([0, 0, place]))
            .with("ends", ints([dims[0], dims[1], place + 1]))
            .with("steps", ints([1, 1, 1]));
        one_of(graph, "slice", &[strips], attrs)
    };
    one_of(graph, "reduce_sum", &[own], over(1))
}

/// The statistic `node` of `body`, from sums of rows; as the op computes it in one pass.
fn statistic(target: &mut Graph, body: &Graph, node: &Node, totals: &BTreeMap<Sum, ValueId>) -> ValueId {
    let operand = node.operands[0].expect("statistics have an operand");
    let columns = body.ty(operand).dims().last().copied().unwrap_or(1);
    #[expect(clippy::cast_precision_loss, reason = "rows are far shorter than 2^53")]
    let share = scalar(target, 1.0 / columns as f64);
    let mean_of = |target: &mut Graph, sum: Sum| one_of(target, "mul", &[totals[&sum], share], Attrs::new());
    let value = match sums_of(node.op) {
        [Sum::Plain] => mean_of(target, Sum::Plain),
        sums => {
            let mut square = mean_of(target, Sum::Squares);
            if sums.contains(&Sum::Plain) {
                let mean = mean_of(target, Sum::Plain);
                let own = one_of(target, "mul", &[mean, mean], Attrs::new());
                let difference = one_of(target, "sub", &[square, own], Attrs::new());
                // What it falls below zero by is rounding, whose size is no worse than zero; and kernels are compared
                // on drawn sums, of half of which it is far below.
                square = one_of(target, "abs", &[difference], Attrs::new());
            }
            let epsilon = node.attrs.float("epsilon").unwrap_or_default();
            let epsilon = scalar(target, epsilon);
            let sum = one_of(target, "add", &[square, epsilon], Attrs::new());
            one_of(target, "rsqrt", &[sum], Attrs::new())
        }
    };
    let ty = body.ty(node.results[0]);
    let shaped = reshaped(target, value, &ty.dims());
    if ty.dtype == DType::F32 {
        return shaped;
    }
    one_of(
        target,
        "cast",
        &[shaped],
        Attrs::new().with("to", Attr::DType(ty.dtype)),
    )
}

fn scalar(graph: &mut Graph, value: f64) -> ValueId {
    graph.add_weight("", from_values(DType::F32, &[], &[value]))
}

fn over(axis: i64) -> Attrs {
    Attrs::new().with("axes", Attr::Ints(vec![axis]))
}

fn reshaped(graph: &mut Graph, value: ValueId, dims: &[usize]) -> ValueId {
    let dims = dims
        .iter()
        .map(|&dim| i64::try_from(dim).expect("dims are far below 2^63"));
    one_of(
        graph,
        "reshape",
        &[value],
        Attrs::new().with("shape", Attr::Ints(dims.collect())),
    )
}

fn one_of(graph: &mut Graph, op: &'static str, operands: &[ValueId], attrs: Attrs) -> ValueId {
    let operands = operands.iter().copied().map(Some).collect();
    let made = emit(graph, op, operands, attrs, 1, NEWEST_OPSET, &[]);
    made.expect("types of elementwise work and sums fit")[0]
}
