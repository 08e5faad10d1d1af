//! Output axes by which operand depends on them, and the product over them.

use super::apart::{factors, only_sum, reduced_extent, taken_apart};
use super::places::{innermost, place, pushed_forward};
use super::strips::{strip_columns, summed_in_strips};
use super::{BATCH, Contraction, M, N, Sizes, Strips};
use crate::ir::{Attr, Graph, Node, ValueId};
use crate::kernel::body::compose::Composer;
use crate::kernel::body::free_vars::FreeVars;
use crate::kernel::body::region::extents;
use crate::kernel::spec::KernelSpec;
use crate::tile::index::delinearize;
use crate::tile::{Body, Extent, Index, VarId};

/// Fewest channels per group, on either side, for which a group fills a tile.
const MIN_GROUP: usize = 16;

/// Part of the product's output coordinates: an axis, or a factor of the channel axis where
/// the channels are in groups.
#[derive(Clone, Copy, Debug)]
struct Part {
    axis: usize,
    /// Whether it is what a channel is within its group.
    inner: bool,
    extent: usize,
}

/// Output coordinates by what depends on them.
#[derive(Clone, Debug)]
pub struct Axes {
    /// Dims of the product's value.
    dims: Vec<usize>,
    batch: Vec<Part>,
    m: Vec<Part>,
    n: Vec<Part>,
}

/// The axes of the product's value, the channel axis in two parts where there are groups.
fn parts(graph: &Graph, node: &Node) -> Option<Vec<Part>> {
    let dims = graph.ty(node.results[0]).dims();
    let mut parts: Vec<Part> = dims
        .iter()
        .enumerate()
        .map(|(axis, &extent)| Part {
            axis,
            inner: true,
            extent,
        })
        .collect();
    if let Some(&Attr::Int(group)) = node.attrs.get("group")
        && group > 1
    {
        let group = usize::try_from(group).ok()?;
        let axis = if node.op == "conv_nhwc" { dims.len() - 1 } else { 1 };
        let filter = graph.ty(node.operands[1]?).dims();
        let depth = filter[1..].iter().product::<usize>();
        let per_group = dims[axis] / group;
        if per_group < MIN_GROUP || depth < MIN_GROUP {
            return None;
        }
        parts[axis].extent = per_group;
        let outer = Part {
            axis,
            inner: false,
            extent: group,
        };
        parts.insert(axis, outer);
    }
    Some(parts)
}

/// Index of each axis, from one index per part.
fn coordinates(dims: &[usize], parts: &[(Part, Index)]) -> Vec<Index> {
    let mut at = vec![Index::zero(); dims.len()];
    for (part, index) in parts {
        at[part.axis] = at[part.axis].times(&Extent::from(part.extent)).plus(index);
    }
    at
}

pub fn classified(graph: &Graph, node: &Node) -> Option<Axes> {
    let dims = graph.ty(node.results[0]).dims();
    let parts: Vec<Part> = parts(graph, node)?;
    let mut body = Body::new();
    let named: Vec<(Part, Option<VarId>)> = parts
        .iter()
        .map(|&part| {
            (
                part,
                (part.extent != 1).then(|| body.vars.fresh(Extent::from(part.extent))),
            )
        })
        .collect();
    let indexed: Vec<(Part, Index)> = named
        .iter()
        .map(|&(part, var)| (part, var.map_or_else(Index::zero, Index::var)))
        .collect();
    let mut composer = Composer::new(graph);
    let root = composer
        .value(&mut body, node.results[0], &coordinates(&dims, &indexed))
        .ok()?;
    let (left, right) = factors(&body, only_sum(&body, root)?)?;
    let free = FreeVars::of(&body);
    let mut axes = Axes {
        dims,
        batch: Vec::new(),
        m: Vec::new(),
        n: Vec::new(),
    };
    for (part, var) in named {
        let Some(var) = var else {
            continue;
        };
        match (free.has(left, var), free.has(right, var)) {
            (true, true) => axes.batch.push(part),
            (false, true) => axes.n.push(part),
            (true | false, false) => axes.m.push(part),
        }
    }
    Some(axes)
}

impl Axes {
    pub fn swapped(self) -> Axes {
        Axes {
            m: self.n,
            n: self.m,
            ..self
        }
    }

    /// Whether neighbours in the first output differ in a row's number.
    pub fn is_row_contiguous(&self, spec: &KernelSpec, product: ValueId) -> Option<bool> {
        let mut body = Body::new();
        let mut indexed = Vec::new();
        let mut rows = Vec::new();
        for (is_row, parts) in [(false, &self.batch), (true, &self.m), (false, &self.n)] {
            for &part in parts {
                let var = body.vars.fresh(Extent::from(part.extent));
                indexed.push((part, Index::var(var)));
                rows.extend(is_row.then_some(var));
            }
        }
        // Parts of one axis are put together in the order of the axis.
        indexed.sort_by_key(|(part, _)| (part.axis, part.inner));
        let at = coordinates(&self.dims, &indexed);
        let forward = pushed_forward(&spec.body, product, &at, &body)?;
        let mut outputs = spec.body.outputs.iter().enumerate();
        let (number, at) = outputs.find_map(|(number, output)| Some((number, forward.get(output)?)))?;
        let place = place(spec, number, at, &body);
        Some(innermost(&place).is_some_and(|vars| vars.iter().any(|var| rows.contains(var))))
    }

    pub fn contraction(&self, spec: &KernelSpec, product: ValueId) -> Option<Contraction> {
        let size = |parts: &[Part]| parts.iter().map(|part| part.extent).product::<usize>();
        let mut body = Body::new();
        let (batch, m, n) = (size(&self.batch), size(&self.m), size(&self.n));
        for extent in [batch, m, n] {
            body.vars.fresh(Extent::from(extent));
        }
        let at = self.flat_coordinates(&body);
        let forward = pushed_forward(&spec.body, product, &at, &body)?;
        let mut composer = Composer::new(&spec.body);
        let mut roots = Vec::new();
        let mut places = Vec::new();
        let mut numbers = Vec::new();
        let mut strips = None;
        for (number, output) in spec.body.outputs.iter().enumerate() {
            if let Some(summed) = summed_in_strips(&spec.body, *output) {
                let known = strips.replace((number, summed));
                if known.is_some() {
                    return None;
                }
                continue;
            }
            let at = match forward.get(output) {
                Some(at) => at.clone(),
                None => row_coordinates(&spec.body.ty(*output).dims(), m * batch, &body)?,
            };
            roots.push(composer.value(&mut body, *output, &at).ok()?);
            places.push(place(spec, number, &at, &body));
            numbers.push(number);
        }
        let mut columns = 0;
        for &term in strips.iter().flat_map(|(_, summed)| summed) {
            let at = forward.get(&term)?;
            columns = strip_columns(at, &spec.body.ty(term).dims(), &body)?;
            roots.push(composer.value(&mut body, term, at).ok()?);
        }
        let k = reduced_extent(&body)?;
        let mut found = taken_apart(&body, Sizes { batch, m, n, k }, &roots, &places)?;
        let terms = found.outputs.split_off(numbers.len());
        found.numbers = numbers;
        found.strips = strips.map(|(number, _)| Strips {
            number,
            terms,
            columns,
        });
        let is_per_row = |number: usize| !forward.contains_key(&spec.body.outputs[number]);
        found.set_row_outputs_apart(is_per_row);
        Some(found)
    }

    /// Coordinates of the product's value over the variables `BATCH`, `M` and `N`.
    fn flat_coordinates(&self, body: &Body) -> Vec<Index> {
        let mut indexed = Vec::new();
        for (var, parts) in [(BATCH, &self.batch), (M, &self.m), (N, &self.n)] {
            let dims: Vec<usize> = parts.iter().map(|part| part.extent).collect();
            let places = delinearize(&Index::var(var), &extents(&dims), &body.vars);
            indexed.extend(parts.iter().copied().zip(places));
        }
        indexed.sort_by_key(|(part, _)| (part.axis, part.inner));
        coordinates(&self.dims, &indexed)
    }
}

/// Coordinates of the number of row `M` in a result of `dims` that has one per row.
fn row_coordinates(dims: &[usize], n_rows: usize, body: &Body) -> Option<Vec<Index>> {
    let is_per_row = dims.last() == Some(&1) && dims.iter().product::<usize>() == n_rows;
    is_per_row.then(|| delinearize(&Index::var(M), &extents(dims), &body.vars))
}
