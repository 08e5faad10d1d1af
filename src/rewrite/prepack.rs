//! Weights in the kind and order in which kernels read them best.
//!
//! Constants are folded in the kind that a product computes in, so that those of a quantised layer
//! are wide. Where they hold nothing that 8 bits do not, they are stored so, and the bodies of the
//! regions that read them convert them. Beside an operand that is 8 bits wide in memory, a matrix is
//! stored with its terms innermost, as matrix instructions for bytes want it; so is one of any kind whose rows
//! are no whole number of copies long while its columns are, and one beside so few rows that reading it is all the
//! time there is: a warp then reads whole columns, and no block has to share its sums. Weights that are whole multiples
//! of four bits, group by group, are two in a byte, with their scales beside them ([`super::groups`]). What a region
//! computes stays the same to the bit.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::extraction::regions::{FusedGraph, Region, Tensor, TensorId, TensorSource};
use super::groups::{self, Packed};
use crate::ir::{Attr, Attrs, DType, Graph, HostTensor, Node, Source, TensorType, ValueId};
use crate::ops::evaluate::{from_values, tensor_holds_bytes, to_vec};
use crate::ops::groups::DEQUANTIZE_GROUPS;
use crate::ops::{Lowering, TileKind, lookup};
use crate::reference::Constants;

/// Bytes that kernels copy at a time, from addresses that are multiples of them.
const COPY_BYTES: usize = 16;
/// Rows beside which a matrix is read once, by a kernel for vectors (`gemv`).
const FEW_ROWS: usize = 8;

/// For matrices, by their names and dims, whether they are stored with their terms innermost: in an engine for several
/// shapes, all of which may read the same bytes.
pub type WeightOrders = BTreeMap<(String, Vec<usize>), bool>;

/// How the products of `fused` read their weights.
pub fn weight_orders(fused: &FusedGraph) -> WeightOrders {
    let mut orders = WeightOrders::new();
    for region in &fused.regions {
        let body = &region.body;
        let product = body.nodes.iter().find(|node| is_product(node));
        let Some(matrix) = product.and_then(|product| product.operands.get(1).copied()?) else {
            continue;
        };
        let input = converted_input(body, matrix, true);
        let number = input.and_then(|input| body.inputs.iter().position(|&own| own == input));
        let Some(tensor) = number.map(|number| fused.tensor(region.inputs[number])) else {
            continue;
        };
        if matches!(tensor.source, TensorSource::Weight(_)) {
            let dims = body.ty(matrix).dims();
            orders
                .entry((tensor.name.clone(), dims))
                .or_insert_with(|| is_turned(body, matrix));
        }
    }
    orders
}

/// Whether a transpose is between a value and the input that it is made of.
fn is_turned(body: &Graph, value: ValueId) -> bool {
    body.producer(value).is_some_and(|(_, node)| {
        let before = node.operands.first().copied().flatten();
        node.op == "transpose" || before.is_some_and(|before| is_turned(body, before))
    })
}

/// Stores weights of products in 8 bits where that loses nothing, and in the order that copies can read; where there
/// are two, in that of `orders`, if it knows the weight.
pub fn prepack(fused: &mut FusedGraph, orders: &WeightOrders, constants: &Constants) {
    for (tensor, readers) in weights_of_products(fused, orders) {
        let packing = readers[0].1.packing;
        if readers.iter().any(|(_, read)| read.packing != packing) {
            continue;
        }
        let TensorSource::Weight(data) = &fused.tensor(tensor).source else {
            continue;
        };
        let Packing::Kind { kind, is_turned } = packing else {
            if let Some(packed) = groups::packed(data) {
                pack_groups(fused, tensor, &readers, packed);
            }
            continue;
        };
        let Some(packed) = packed(data, kind, is_turned, constants) else {
            continue;
        };
        for (region, read) in &readers {
            let body = converting(&fused.regions[*region].body, read.input, &packed.ty(), is_turned);
            fused.regions[*region].body = body;
        }
        store(fused, tensor, packed);
    }
}

/// Stores a weight in four bits, and gives every region that reads it the scales too.
fn pack_groups(fused: &mut FusedGraph, tensor: TensorId, readers: &[(usize, Read)], packed: Packed) {
    let scales = TensorId(u32::try_from(fused.tensors.len()).expect("graphs have under 2^32 tensors"));
    for (region, read) in readers {
        let region = &mut fused.regions[*region];
        region.body = unpacking(&region.body, read.input, &packed);
        region.inputs.push(scales);
    }
    let name = &fused.tensor(tensor).name;
    let scale_name = if name.is_empty() {
        String::new()
    } else {
        format!("{name}.scales")
    };
    fused.tensors.push(Tensor {
        ty: packed.scales.ty(),
        name: scale_name,
        source: TensorSource::Weight(packed.scales),
    });
    store(fused, tensor, packed.bytes);
}

fn store(fused: &mut FusedGraph, tensor: TensorId, data: HostTensor) {
    let tensor = &mut fused.tensors[tensor.0 as usize];
    tensor.ty = data.ty();
    tensor.source = TensorSource::Weight(data);
}

/// A weight that a product reads and nothing else of its region.
struct Read {
    /// The weight in the region's body.
    input: ValueId,
    packing: Packing,
}

/// How a weight is to be stored.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Packing {
    /// In a kind that holds all elements.
    Kind {
        kind: DType,
        /// Whether it is a matrix whose last two axes change places.
        is_turned: bool,
    },
    /// In four bits, with a scale per group of terms.
    Groups,
}

/// The weights that products alone read, with the regions of those.
fn weights_of_products(fused: &FusedGraph, orders: &WeightOrders) -> BTreeMap<TensorId, Vec<(usize, Read)>> {
    let mut found: BTreeMap<TensorId, Vec<(usize, Read)>> = BTreeMap::new();
    let mut others: HashSet<TensorId> = fused.outputs.iter().map(|(_, id)| *id).collect();
    for (number, region) in fused.regions.iter().enumerate() {
        let weight = weight_of_product(fused, region, orders);
        let own = weight.as_ref().map(|(tensor, _)| *tensor);
        others.extend(region.inputs.iter().filter(|&&input| Some(input) != own));
        if let Some((tensor, read)) = weight {
            found.entry(tensor).or_default().push((number, read));
        }
    }
    found.retain(|tensor, _| !others.contains(tensor));
    found
}

fn weight_of_product(fused: &FusedGraph, region: &Region, orders: &WeightOrders) -> Option<(TensorId, Read)> {
    let body = &region.body;
    let product = body.nodes.iter().find(|node| is_product(node))?;
    let operand = |position: usize| product.operands.get(position).copied()?;
    let input = converted_input(body, operand(1)?, false)?;
    let number = body.inputs.iter().position(|&own| own == input)?;
    let tensor = region.inputs[number];
    let readers = body.nodes.iter().flat_map(|node| &node.operands);
    let is_own =
        readers.filter(|&&operand| operand == Some(input)).count() == 1 && !body.outputs.contains(&input);
    let TensorSource::Weight(data) = &fused.tensor(tensor).source else {
        return None;
    };
    let is_matrix = product.op == "matmul" && body.ty(input).rank() >= 2;
    let beside = converted_input(body, operand(0)?, true).map(|x| body.ty(x).dtype);
    let is_read_by_columns = |kind: DType| {
        is_matrix && {
            let dims = data.dims();
            let known = orders.get(&(fused.tensor(tensor).name.clone(), dims.to_vec()));
            let pays = || {
                known
                    .copied()
                    .unwrap_or_else(|| is_beside_few_rows(body, product, input))
            };
            is_whole(dims[dims.len() - 2], kind) && (!is_whole(dims[dims.len() - 1], kind) || pays())
        }
    };
    let packing = match beside {
        Some(kind @ (DType::I8 | DType::F8E4M3)) => Packing::Kind {
            kind,
            is_turned: is_matrix,
        },
        _ if is_wide_float(data.dtype()) && tensor_holds_bytes(data) => Packing::Kind {
            kind: DType::I8,
            is_turned: is_read_by_columns(DType::I8),
        },
        _ if is_matrix && groups::may_be_packed(data) => Packing::Groups,
        _ if is_read_by_columns(data.dtype()) => Packing::Kind {
            kind: data.dtype(),
            is_turned: true,
        },
        _ => return None,
    };
    is_own.then_some((tensor, Read { input, packing }))
}

/// Whether so many elements are a whole number of copies: rows or columns of that length then all begin where one can.
fn is_whole(length: usize, kind: DType) -> bool {
    (length * kind.size_bytes()).is_multiple_of(COPY_BYTES)
}

/// Whether `product` multiplies each matrix of `weight` with few rows.
fn is_beside_few_rows(body: &Graph, product: &Node, weight: ValueId) -> bool {
    let dims = body.ty(weight).dims();
    let [batch @ .., _, columns] = dims.as_slice() else {
        return false;
    };
    let per_row = batch.iter().product::<usize>() * columns;
    let results = body.ty(product.results[0]).dims().iter().product::<usize>();
    (1..=FEW_ROWS * per_row).contains(&results)
}

fn is_wide_float(dtype: DType) -> bool {
    dtype.is_float() && dtype.size_bytes() > 1
}

/// A product that instructions read with terms innermost on both sides.
fn is_product(node: &Node) -> bool {
    let is_loop = lookup(node.op)
        .is_some_and(|def| matches!(def.lower, Lowering::Tile(TileKind::Dot | TileKind::Window, _)));
    is_loop && matches!(node.op, "matmul" | "conv_nhwc")
}

/// The input that `value` is, converted at most, and under other dims or axes where `views`.
fn converted_input(body: &Graph, value: ValueId, views: bool) -> Option<ValueId> {
    let mut value = value;
    while let Some((_, node)) = body.producer(value) {
        let passes = node.op == "cast" || (views && matches!(node.op, "reshape" | "transpose"));
        if !passes {
            return None;
        }
        value = node.operands.first().copied().flatten()?;
    }
    matches!(body.value(value).source, Source::Input(_)).then_some(value)
}

/// The same values in `kind`, where it holds them all, and turned if that is asked for.
fn packed(data: &HostTensor, kind: DType, is_turned: bool, constants: &Constants) -> Option<HostTensor> {
    let attrs = Attrs::new()
        .with("to", Attr::DType(kind))
        .with("turned", Attr::Int(i64::from(is_turned)));
    let computed = || {
        let narrow = in_kind(data, kind).ok_or(())?;
        Ok::<_, ()>(vec![if is_turned { turned(&narrow) } else { narrow }])
    };
    let results = constants.results("packed", &attrs, &[Some(data)], computed);
    results.ok()?.into_iter().next()
}

/// The same values in `kind`, where it holds them all.
fn in_kind(data: &HostTensor, kind: DType) -> Option<HostTensor> {
    let values: Vec<f64> = to_vec(data);
    let narrow = from_values(kind, data.dims(), &values);
    (to_vec::<f64>(&narrow) == values).then_some(narrow)
}

/// The last two axes exchanged.
fn turned(data: &HostTensor) -> HostTensor {
    let mut dims = data.dims().to_vec();
    let rank = dims.len();
    let (rows, columns) = (dims[rank - 2], dims[rank - 1]);
    dims.swap(rank - 2, rank - 1);
    let values: Vec<f64> = to_vec(data);
    let mut turned = Vec::with_capacity(values.len());
    for matrix in values.chunks_exact((rows * columns).max(1)) {
        for column in 0..columns {
            turned.extend((0..rows).map(|row| matrix[row * columns + column]));
        }
    }
    from_values(data.dtype(), &dims, &turned)
}

/// `body` with its weight `input` of type `stored`, turned back where it was turned, and converted.
fn converting(body: &Graph, input: ValueId, stored: &TensorType, is_turned: bool) -> Graph {
    with_input(body, input, stored, |target, mut own| {
        let wide = body.ty(input);
        if is_turned {
            let ty = TensorType::new(stored.dtype, &wide.dims());
            own = turned_back(target, own, ty);
        }
        if wide.dtype != stored.dtype {
            let to = Attrs::new().with("to", Attr::DType(wide.dtype));
            own = one_of(target, "cast", &[own], to, wide.clone());
        }
        own
    })
}

/// `body` with its weight `input` in four bits, and the scales as a further input.
fn unpacking(body: &Graph, input: ValueId, packed: &Packed) -> Graph {
    with_input(body, input, &packed.bytes.ty(), |target, own| {
        let scales = target.add_input("scales", Some(packed.scales.ty()));
        let wide = body.ty(input);
        let to = Attrs::new().with("to", Attr::DType(wide.dtype));
        let mut dims = wide.dims();
        let rank = dims.len();
        dims.swap(rank - 2, rank - 1);
        let columns = TensorType::new(wide.dtype, &dims);
        let own = one_of(target, DEQUANTIZE_GROUPS.name, &[own, scales], to, columns);
        turned_back(target, own, wide.clone())
    })
}

/// `own` with its last two axes exchanged, which has type `ty` then.
fn turned_back(target: &mut Graph, own: ValueId, ty: TensorType) -> ValueId {
    let rank = ty.rank();
    let mut perm: Vec<i64> = (0..i64::try_from(rank).expect("tensors have few axes")).collect();
    perm.swap(rank - 2, rank - 1);
    let perm = Attrs::new().with("perm", Attr::Ints(perm));
    one_of(target, "transpose", &[own], perm, ty)
}

/// `body` with its input of type `stored`, whose readers read what `read_as` makes of it.
fn with_input(
    body: &Graph,
    changed: ValueId,
    stored: &TensorType,
    read_as: impl FnOnce(&mut Graph, ValueId) -> ValueId,
) -> Graph {
    let mut target = Graph::new(&body.name);
    let mut known: HashMap<ValueId, ValueId> = HashMap::new();
    for &input in &body.inputs {
        let value = body.value(input);
        let ty = if input == changed {
            Some(stored.clone())
        } else {
            value.ty.clone()
        };
        known.insert(input, target.add_input(&value.name, ty));
    }
    let own = read_as(&mut target, known[&changed]);
    known.insert(changed, own);
    for (number, value) in body.values.iter().enumerate() {
        if let Source::Weight(data) = &value.source {
            let id = ValueId(u32::try_from(number).expect("graphs have under 2^32 values"));
            known.insert(id, target.add_weight(&value.name, data.clone()));
        }
    }
    for node in &body.nodes {
        let operands = node
            .operands
            .iter()
            .map(|operand| operand.map(|value| known[&value]))
            .collect();
        let copy = target.copy_node(body, node, operands);
        let results = target.node(copy).results.clone();
        known.extend(node.results.iter().copied().zip(results));
    }
    for (&output, name) in body.outputs.iter().zip(&body.output_names) {
        target.add_output(name, known[&output]);
    }
    target
}

fn one_of(
    graph: &mut Graph,
    op: &'static str,
    operands: &[ValueId],
    attrs: Attrs,
    ty: TensorType,
) -> ValueId {
    let operands = operands.iter().copied().map(Some).collect();
    let node = graph.add_node(op, operands, attrs, &[("", Some(ty))], Vec::new());
    graph.node(node).results[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference;
    use crate::rewrite::{DeviceRates, RuleSet, fuse, run_fused};

    fn fused(text: &str) -> (Graph, FusedGraph) {
        let graph = crate::ir::text::parse(text, &|name| lookup(name).map(|def| def.name)).unwrap();
        let bindings = crate::specialize::bind(&graph, &[]).unwrap();
        let core = crate::specialize::specialize(&graph, &bindings).unwrap();
        let fused = fuse(&core, RuleSet::builtin(), DeviceRates::for_sm(90)).unwrap();
        (core, fused)
    }

    fn weights(fused: &FusedGraph) -> Vec<TensorType> {
        let weights = fused
            .tensors
            .iter()
            .filter(|tensor| matches!(tensor.source, TensorSource::Weight(_)));
        weights.map(|tensor| tensor.ty.clone()).collect()
    }

    #[test]
    fn whole_numbers_beside_bytes_are_bytes() {
        let (core, fused) = fused(
            "graph g(x: i8[2,3]) {
               w = i32[3,2]{1, -128, 127, 4, 5, 6}
               return matmul(cast[to=i32](x), w) as \"y\"
             }",
        );
        assert_eq!(weights(&fused), [TensorType::new(DType::I8, &[2, 3])]);
        let x = from_values(DType::I8, &[2, 3], &[1.0, 2.0, 3.0, -4.0, 5.0, 100.0]);
        let wanted = reference::run(&core, std::slice::from_ref(&x)).unwrap();
        assert_eq!(run_fused(&fused, &[x]).unwrap(), wanted);
    }

    #[test]
    fn bytes_are_seen_through_views() {
        let (core, fused) = fused(
            "graph g(x: i8[1,2,3]) {
               w = i32[3,2]{1, -128, 127, 4, 5, 6}
               return matmul(reshape[shape=[2, 3]](cast[to=i32](x)), w) as \"y\"
             }",
        );
        assert_eq!(weights(&fused), [TensorType::new(DType::I8, &[2, 3])]);
        let x = from_values(DType::I8, &[1, 2, 3], &[1.0, 2.0, 3.0, -4.0, 5.0, 100.0]);
        let wanted = reference::run(&core, std::slice::from_ref(&x)).unwrap();
        assert_eq!(run_fused(&fused, &[x]).unwrap(), wanted);
    }

    #[test]
    fn weights_of_several_products_are_bytes() {
        let (core, fused) = fused(
            "graph g(x: i8[2,3], z: i8[4,3]) {
               w = i32[3,2]{1, -128, 127, 4, 5, 6}
               return matmul(cast[to=i32](x), w) as \"y\", matmul(cast[to=i32](z), w) as \"u\"
             }",
        );
        assert_eq!(weights(&fused), [TensorType::new(DType::I8, &[2, 3])]);
        let x = from_values(DType::I8, &[2, 3], &[1.0, 2.0, 3.0, -4.0, 5.0, 100.0]);
        let z = from_values(DType::I8, &[4, 3], &[7.0; 12]);
        let wanted = reference::run(&core, &[x.clone(), z.clone()]).unwrap();
        assert_eq!(run_fused(&fused, &[x, z]).unwrap(), wanted);
    }

    #[test]
    fn weights_alone_are_bytes() {
        for (rows, stored) in [(2, [16, 32]), (9, [32, 16])] {
            let numbers: Vec<String> = (0..512).map(|n| (n % 256 - 128).to_string()).collect();
            let scales: Vec<String> = (1..=16).map(|n| format!("0.{n:02}")).collect();
            let (core, fused) = fused(&format!(
                "graph g(x: f32[{rows},32]) {{
                   w = f32[32,16]{{{}}}
                   s = f32[16]{{{}}}
                   return mul(matmul(x, w), s) as \"y\"
                 }}",
                numbers.join(", "),
                scales.join(", ")
            ));
            assert!(weights(&fused).contains(&TensorType::new(DType::I8, &stored)));
            let values: Vec<f64> = (0..rows * 32).map(|n| f64::from(n) * 0.25 - 3.0).collect();
            let x = from_values(DType::F32, &[usize::try_from(rows).unwrap(), 32], &values);
            let wanted = reference::run(&core, std::slice::from_ref(&x)).unwrap();
            assert_eq!(run_fused(&fused, &[x]).unwrap(), wanted);
        }
    }

    #[test]
    fn shapes_may_read_the_weights_of_another_one() {
        let graph = |rows: usize| {
            format!(
                "graph g(x: f32[{rows},32]) {{
                   w = f32[32,16]{{{}}}
                   return matmul(relu(x), w) as \"y\"
                 }}",
                (0..512).map(|n| format!("{n}.5")).collect::<Vec<_>>().join(", ")
            )
        };
        let [(_, few), (core, _)] = [fused(&graph(2)), fused(&graph(64))];
        assert_eq!(weights(&few), [TensorType::new(DType::F32, &[16, 32])]);
        let orders = weight_orders(&few);
        assert_eq!(orders.values().collect::<Vec<_>>(), [&true]);
        let mut rules = RuleSet::builtin().clone();
        rules.weight_orders = orders;
        let many = fuse(&core, &rules, DeviceRates::for_sm(90)).unwrap();
        assert_eq!(weights(&many), weights(&few));
        let values: Vec<f64> = (0..64 * 32).map(|n| f64::from(n % 9) - 4.0).collect();
        let x = from_values(DType::F32, &[64, 32], &values);
        let wanted = reference::run(&core, std::slice::from_ref(&x)).unwrap();
        assert_eq!(run_fused(&many, &[x]).unwrap(), wanted);
    }

    #[test]
    fn a_matrix_with_odd_rows_is_turned() {
        let (core, fused) = fused(
            "graph g(x: f32[1,2,4]) {
               w = f32[4,3]{0.5, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
               return matmul(relu(x), w) as \"y\"
             }",
        );
        assert_eq!(weights(&fused), [TensorType::new(DType::F32, &[3, 4])]);
        let x = from_values(
            DType::F32,
            &[1, 2, 4],
            &[1.0f32, 2.0, 3.0, -4.0, 5.0, 7.0, 0.5, 0.0],
        );
        let wanted = reference::run(&core, std::slice::from_ref(&x)).unwrap();
        assert_eq!(run_fused(&fused, &[x]).unwrap(), wanted);
    }

    #[test]
    fn what_bytes_do_not_hold_stays() {
        let (_, fused) = fused(
            "graph g(x: i8[2,3]) {
               w = i32[3,2]{1, -128, 128, 4, 5, 6}
               return matmul(cast[to=i32](x), w) as \"y\"
             }",
        );
        assert_eq!(weights(&fused), [TensorType::new(DType::I32, &[3, 2])]);
    }
}
