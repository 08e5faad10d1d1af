//! Regions around one sum of products, as a matrix product.
//!
//! Whatever the op (a product of matrices, a convolution in any layout), its expression is
//! one reduction of `a * b`. Output axes that only `a` depends on are rows (`m`), those that
//! only `b` depends on columns (`n`), those that both depend on the batch; the reduced
//! variables are one flat `k`. Padding stays what it is in the expression: a selection around
//! a load. Reshapes and transposes after the product are pushed forward, so that an element's
//! place in the output is an index of (batch, m, n). Sums over the same `k` that no column
//! changes are statistics of rows, which some templates take from `a` as they read it; where the kernel
//! before stored them in parts, they are read. A result may be such parts itself: sums over strips of columns.

use std::collections::{BTreeMap, HashMap};

use crate::ir::{Attr, DType, Graph, Node, ValueId};
use crate::kernel::body::compose::Composer;
use crate::kernel::body::free_vars::FreeVars;
use crate::kernel::body::rebuild::{Rebuild, Stage, known_product, operands};
use crate::kernel::body::region::{extents, results};
use crate::kernel::gemm::operand::is_exact;
use crate::kernel::spec::KernelSpec;
use crate::ops::groups::DEQUANTIZE_GROUPS;
use crate::ops::{self, Lowering, TileKind};
use crate::tile::index::{delinearize, linearize};
use crate::tile::{Atom, Body, Expr, ExprId, Extent, Index, ReduceOp, VarId};

/// Fewest channels per group, on either side, for which a group fills a tile.
const MIN_GROUP: usize = 16;

/// Extents of a product's variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    pub batch: usize,
    pub m: usize,
    pub n: usize,
    pub k: usize,
}

/// One sum of products with everything around it.
#[derive(Clone, Debug)]
pub struct Contraction {
    pub body: Body,
    pub sizes: Sizes,
    /// Over `BATCH`, `M` and `K`.
    pub a: ExprId,
    /// Over `BATCH`, `N` and `K`.
    pub b: ExprId,
    /// Kind the products are taken in.
    pub product: DType,
    /// Kind of the sum, and which accumulator of the outputs it is: 0 where there is no other.
    pub sum: DType,
    pub sum_slot: u8,
    /// Sums over `k` beside the product.
    pub row_sums: RowSums,
    /// Over `BATCH`, `M`, `N` and the accumulators.
    pub outputs: Vec<ExprId>,
    /// Row-major position in each output, over `BATCH`, `M` and `N`.
    pub places: Vec<Index>,
    /// Which of the region's results the outputs are.
    pub numbers: Vec<usize>,
    /// The other results: one number per row.
    pub row_outputs: Vec<RowOutput>,
    /// And sums of each row over strips of columns.
    pub strips: Option<Strips>,
}

/// Sums over `k`, in `f32`, of functions of the elements of `a`, or in place of those, sums that are read in parts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowSums {
    /// Each function, over the load of one element of `a`.
    pub terms: Vec<ExprId>,
    pub element: Option<ExprId>,
    /// In place of that, where parts of the sums lie.
    pub stored: Option<StoredSums>,
    /// Which accumulators of the outputs are which sums.
    pub slots: Vec<(u8, usize)>,
}

/// Sums of rows of which an input holds parts: `parts` of each row one after the other, and in each of them all sums.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSums {
    pub input: usize,
    pub parts: usize,
    /// Which number of a part each sum is made of.
    pub places: Vec<usize>,
}

/// A result of sums over strips of neighbouring columns, in `f32`: all sums of a strip lie together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strips {
    /// Which of the region's results it is.
    pub number: usize,
    /// What each sum is of, over `M`, `N` and the accumulators.
    pub terms: Vec<ExprId>,
    pub columns: usize,
}

/// A result with one number per row, over `M` and the accumulators of sums beside the product.
#[derive(Clone, Debug)]
pub struct RowOutput {
    /// Which of the region's results it is.
    pub number: usize,
    pub value: ExprId,
    pub place: Index,
}

impl RowSums {
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of a sum over all parts that an input has of row `M`, which is one of the sums from now on.
    fn add_stored(&mut self, body: &Body, stage: &Stage) -> Option<usize> {
        let parts = stage.n_terms?;
        let Expr::Load { input, index, dtype } = body.expr(stage.term) else {
            return None;
        };
        let part = delinearize(&Index::var(K), &[Extent::from(parts)], &body.vars);
        let [row, own, place] = &index[..] else {
            return None;
        };
        let place = place.as_known().and_then(|place| usize::try_from(place).ok())?;
        let fits =
            stage.op == ReduceOp::Sum && *dtype == DType::F32 && *row == Index::var(M) && *own == part[0];
        let input = usize::try_from(*input).ok()?;
        let stored = self.stored.get_or_insert_with(|| StoredSums {
            input,
            parts,
            places: Vec::new(),
        });
        stored.places.push(place);
        let is_same = (stored.input, stored.parts) == (input, parts);
        (fits && is_same).then(|| stored.places.len() - 1)
    }

    pub fn len(&self) -> usize {
        self.slots.iter().map(|(_, number)| number + 1).max().unwrap_or(0)
    }
}

pub const BATCH: VarId = VarId(0);
pub const M: VarId = VarId(1);
pub const N: VarId = VarId(2);
pub const K: VarId = VarId(3);

/// Which operand of the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    A,
    B,
}

impl Contraction {
    pub fn operand(&self, side: Side) -> ExprId {
        match side {
            Side::A => self.a,
            Side::B => self.b,
        }
    }

    /// Extent of an operand's own variable, and the variable.
    pub fn rows(&self, side: Side) -> (usize, VarId) {
        match side {
            Side::A => (self.sizes.m, M),
            Side::B => (self.sizes.n, N),
        }
    }

    /// `a` as a load times a number for each `k`, the same for all rows: both of them.
    pub fn scaled_rows(&self) -> Option<(ExprId, ExprId)> {
        let free = FreeVars::of(&self.body);
        let (left, right) = factors(&self.body, self.a)?;
        let is_load = |id: ExprId| matches!(self.body.expr(uncast(&self.body, id)), Expr::Load { .. });
        let is_scale = |id: ExprId| !free.has(id, M) && !free.has(id, BATCH);
        let fits =
            |(rows, scale): &(ExprId, ExprId)| is_load(*rows) && free.has(*rows, M) && is_scale(*scale);
        [(left, right), (right, left)].into_iter().find(fits)
    }

    /// The largest terms of the outputs that only sums beside the product change: they are
    /// computed once for all columns of a row that a thread finishes.
    pub fn row_terms(&self) -> impl Iterator<Item = ExprId> {
        let slots: Vec<u8> = self.row_sums.slots.iter().map(|(slot, _)| *slot).collect();
        let free = FreeVars::of(&self.body);
        // Of every expression: whether it is such a term, or has none but constants below.
        let mut kinds: Vec<(bool, bool)> = Vec::new();
        let mut largest = Vec::new();
        for (id, expr) in self.body.exprs() {
            let below: Vec<ExprId> = operands(expr);
            let are_rows = |own: &[ExprId]| {
                own.iter()
                    .all(|own| kinds[own.0 as usize].0 || kinds[own.0 as usize].1)
            };
            let kind = match expr {
                Expr::Const(_) => (false, true),
                Expr::Acc { slot, .. } => (slots.contains(slot), false),
                Expr::Map { .. } if are_rows(&below) && !free.has(id, N) => {
                    let any = below.iter().any(|own| kinds[own.0 as usize].0);
                    (any, !any)
                }
                _ => (false, false),
            };
            if !kind.0 {
                largest.extend(below.into_iter().filter(|own| kinds[own.0 as usize].0));
            }
            kinds.push(kind);
        }
        largest.sort_unstable();
        largest.dedup();
        largest.into_iter()
    }

    /// Results with one number per row go to `row_outputs`.
    fn set_row_outputs_apart(&mut self, is_per_row: impl Fn(usize) -> bool) {
        let parts = self
            .numbers
            .drain(..)
            .zip(self.outputs.drain(..).zip(self.places.drain(..)));
        let (rows, products): (Vec<_>, Vec<_>) = parts.partition(|(number, _)| is_per_row(*number));
        self.numbers = products.iter().map(|(number, _)| *number).collect();
        (self.outputs, self.places) = products.into_iter().map(|(_, part)| part).unzip();
        let row_output = |(number, (value, place))| RowOutput { number, value, place };
        self.row_outputs = rows.into_iter().map(row_output).collect();
    }

    /// The contraction of `spec`, if it is one without sums of rows.
    pub fn of(spec: &KernelSpec) -> Option<Contraction> {
        Contraction::with_row_sums(spec).filter(|own| own.row_sums.is_empty() && own.strips.is_none())
    }

    /// The contraction of `spec`, if it is one.
    pub fn with_row_sums(spec: &KernelSpec) -> Option<Contraction> {
        let graph = &spec.body;
        let node = anchor(graph)?;
        let axes = classified(graph, node)?;
        let turned = axes.is_row_contiguous(spec, node.results[0])?;
        let axes = if turned { axes.swapped() } else { axes };
        axes.contraction(spec, node.results[0])
    }
}

/// The one main loop of a body of maps, views and reductions.
fn anchor(graph: &Graph) -> Option<&Node> {
    let mut found = None;
    for node in &graph.nodes {
        match ops::lookup(node.op)?.lower {
            Lowering::Map(_) | Lowering::Tile(TileKind::View | TileKind::Reduce, _) => {}
            Lowering::Tile(TileKind::Index, _) if node.op == DEQUANTIZE_GROUPS.name => {}
            Lowering::Tile(TileKind::Index, _) if summed_in_strips(graph, node.results[0]).is_some() => {}
            Lowering::Tile(TileKind::Dot | TileKind::Window, _) => {
                if found.replace(node).is_some() {
                    return None;
                }
            }
            Lowering::Tile(TileKind::Map | TileKind::Index | TileKind::Other, _)
            | Lowering::Loop
            | Lowering::Expand(_)
            | Lowering::Bounded(_)
            | Lowering::Host(_) => return None,
        }
    }
    found
}

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
struct Axes {
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

fn classified(graph: &Graph, node: &Node) -> Option<Axes> {
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

/// The term of the one reduction below `root`, a sum.
fn only_sum(body: &Body, root: ExprId) -> Option<ExprId> {
    let mut found = None;
    let mut open = vec![root];
    let mut seen = vec![false; body.exprs().count()];
    while let Some(id) = open.pop() {
        if std::mem::replace(&mut seen[id.0 as usize], true) {
            continue;
        }
        match body.expr(id) {
            Expr::Reduce {
                op: ReduceOp::Sum,
                body: term,
                ..
            } => {
                if found.replace(*term).is_some() {
                    return None;
                }
            }
            Expr::Reduce { .. } => return None,
            expr => open.extend(operands(expr)),
        }
    }
    found
}

fn factors(body: &Body, term: ExprId) -> Option<(ExprId, ExprId)> {
    match body.expr(term) {
        Expr::Map { op: "mul", args, .. } => Some((args[0], args[1])),
        _ => None,
    }
}

impl Axes {
    fn swapped(self) -> Axes {
        Axes {
            m: self.n,
            n: self.m,
            ..self
        }
    }

    /// Whether neighbours in the first output differ in a row's number.
    fn is_row_contiguous(&self, spec: &KernelSpec, product: ValueId) -> Option<bool> {
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

    fn contraction(&self, spec: &KernelSpec, product: ValueId) -> Option<Contraction> {
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

/// What is summed over neighbouring columns, where `output` is such sums, side by side where they are several:
/// each by row, strip and column.
fn summed_in_strips(graph: &Graph, output: ValueId) -> Option<Vec<ValueId>> {
    let (_, node) = graph.producer(output)?;
    if node.op == "concat" && node.attrs.int("axis") == Some(2) {
        let operands = node.operands.iter().flatten();
        return operands.map(|&operand| summed_in_strip(graph, operand)).collect();
    }
    Some(vec![summed_in_strip(graph, output)?])
}

fn summed_in_strip(graph: &Graph, sums: ValueId) -> Option<ValueId> {
    let (_, node) = graph.producer(sums)?;
    let is_sum = node.op == "reduce_sum" && node.attrs.ints("axes") == Some(&[2]);
    let summed = node.operands.first().copied().flatten()?;
    let fits = is_sum && graph.ty(summed).rank() == 3 && graph.ty(summed).dtype == DType::F32;
    fits.then_some(summed)
}

/// Columns of a strip, where elements at `at` are rows of strips as wide as `dims` says.
fn strip_columns(at: &[Index], dims: &[usize], body: &Body) -> Option<usize> {
    let columns = Extent::from(dims[2]);
    let column = Index::var(N);
    let wanted = [
        Index::var(M),
        column.div(&columns, &body.vars),
        column.modulo(&columns, &body.vars),
    ];
    (at == wanted).then_some(dims[2])
}

/// Number of terms of the product: parts of sums that are read are fewer.
fn reduced_extent(body: &Body) -> Option<usize> {
    let sizes = body.exprs().filter_map(|(_, expr)| match expr {
        Expr::Reduce { vars, .. } => {
            let extents: Vec<Extent> = vars.iter().map(|&var| body.vars.extent(var).clone()).collect();
            Some(known_product(&extents))
        }
        _ => None,
    });
    sizes.collect::<Option<Vec<usize>>>()?.into_iter().max()
}

/// `roots` with every sum as an accumulator, and the factors of the one that is the product.
/// Nothing is taken for granted about the views around it: a second sum that differs between
/// columns, or factors that depend on more than their own variables, are not a matrix product.
fn taken_apart(body: &Body, sizes: Sizes, roots: &[ExprId], places: &[Index]) -> Option<Contraction> {
    let mut into = Body::new();
    let own: BTreeMap<VarId, Index> = [sizes.batch, sizes.m, sizes.n]
        .into_iter()
        .map(|extent| {
            let var = into.vars.fresh(Extent::from(extent));
            (var, Index::var(var))
        })
        .collect();
    let k = into.vars.fresh(Extent::from(sizes.k));
    let mut rebuild = Rebuild::new(body, into, own).taking_apart(Index::var(k));
    let outputs = roots.iter().map(|&root| rebuild.expr(root)).collect();
    let places = places.iter().map(|place| rebuild.index(place)).collect();
    let apart = rebuild.apart.take().filter(|apart| !apart.conflict)?;
    let body = rebuild.into;
    let free = FreeVars::of(&body);
    let slot = match apart.stages.as_slice() {
        [_] => 0,
        stages => only(stages, |stage| free.has(stage.term, N))?,
    };
    let stage = &apart.stages[slot];
    let (left, right) = factors(&body, stage.term)?;
    let turned = free.has(left, N) || free.has(right, M);
    let (a, b) = if turned { (right, left) } else { (left, right) };
    let row_sums = row_sums(&body, a, &apart.stages, slot)?;
    let is_product =
        stage.op == ReduceOp::Sum && stage.n_terms == Some(sizes.k) && !free.has(a, N) && !free.has(b, M);
    is_product.then(|| Contraction {
        product: body.dtype(stage.term),
        sum: stage.dtype,
        sum_slot: u8::try_from(slot).expect("regions have under 256 reductions"),
        row_sums,
        body,
        sizes,
        a,
        b,
        numbers: Vec::new(),
        outputs,
        places,
        row_outputs: Vec::new(),
        strips: None,
    })
}

/// The one position that `test` holds at.
fn only<T>(list: &[T], test: impl Fn(&T) -> bool) -> Option<usize> {
    let mut found = (0..list.len()).filter(|&position| test(&list[position]));
    found.next().filter(|_| found.next().is_none())
}

/// The stages but for the product's, as sums of functions of the elements of `a`, which then has
/// to be a load, or all as sums that are read.
fn row_sums(body: &Body, a: ExprId, stages: &[Stage], product: usize) -> Option<RowSums> {
    let mut sums = RowSums::default();
    let n_terms = stages[product].n_terms;
    for (slot, stage) in stages.iter().enumerate().filter(|(slot, _)| *slot != product) {
        if stage.n_terms != n_terms {
            let number = sums.add_stored(body, stage)?;
            sums.slots.push((u8::try_from(slot).ok()?, number));
            continue;
        }
        sums.element = Some(only_load(body, a)?);
        let fits = stage.op == ReduceOp::Sum
            && is_exact(stage.dtype, DType::F32)
            && only_load(body, stage.term) == sums.element
            && is_zero_at_zero(body, stage.term);
        let term = fits.then(|| uncast(body, stage.term))?;
        let known = sums.terms.iter().position(|&own| own == term);
        let number = known.unwrap_or_else(|| {
            sums.terms.push(term);
            sums.terms.len() - 1
        });
        sums.slots.push((u8::try_from(slot).ok()?, number));
    }
    (sums.terms.is_empty() || sums.stored.is_none()).then_some(sums)
}

/// `root` without casts that change no value.
fn uncast(body: &Body, root: ExprId) -> ExprId {
    match body.expr(root) {
        Expr::Map { op: "cast", args, .. } if is_exact(body.dtype(args[0]), body.dtype(root)) => {
            uncast(body, args[0])
        }
        _ => root,
    }
}

/// The one load that `root` is a function of.
fn only_load(body: &Body, root: ExprId) -> Option<ExprId> {
    match body.expr(root) {
        Expr::Load { .. } => Some(root),
        Expr::Map { args, .. } => {
            let mut loads = args.iter().filter_map(|&arg| match body.expr(arg) {
                Expr::Const(_) => None,
                _ => Some(only_load(body, arg)),
            });
            let first = loads.next()??;
            loads.all(|load| load == Some(first)).then_some(first)
        }
        Expr::Const(_)
        | Expr::IndexValue(_)
        | Expr::Select { .. }
        | Expr::Reduce { .. }
        | Expr::Acc { .. } => None,
    }
}

/// Whether a function of a load is zero where that is: tiles are filled up with zeros.
fn is_zero_at_zero(body: &Body, root: ExprId) -> bool {
    match body.expr(root) {
        Expr::Load { .. } => true,
        Expr::Map { op: "mul", args, .. } => args.iter().any(|&arg| is_zero_at_zero(body, arg)),
        Expr::Map {
            op: "cast" | "abs" | "neg" | "relu",
            args,
            ..
        } => is_zero_at_zero(body, args[0]),
        Expr::Map { .. }
        | Expr::Const(_)
        | Expr::IndexValue(_)
        | Expr::Select { .. }
        | Expr::Reduce { .. }
        | Expr::Acc { .. } => false,
    }
}

fn place(spec: &KernelSpec, output: usize, at: &[Index], body: &Body) -> Index {
    results(spec)[output].address(at, &body.vars)
}

/// Coordinates of every value that has one element per element of `product`, where `product`
/// has coordinates `at`.
fn pushed_forward(
    graph: &Graph,
    product: ValueId,
    at: &[Index],
    body: &Body,
) -> Option<HashMap<ValueId, Vec<Index>>> {
    let mut known = HashMap::from([(product, at.to_vec())]);
    for node in &graph.nodes {
        let is_of_strips = summed_in_strips(graph, node.results[0]).is_some();
        if node.results.contains(&product) || is_of_strips {
            continue;
        }
        let mut from = node
            .operands
            .iter()
            .flatten()
            .filter(|value| known.contains_key(value));
        let Some(&source) = from.next() else {
            continue;
        };
        let result = node.results[0];
        if graph.ty(result).n_elements() != graph.ty(source).n_elements() {
            return None;
        }
        let moved = forward(graph, node, source, &known[&source], body)?;
        known.insert(result, moved);
    }
    Some(known)
}

/// Coordinates of the result of `node` for the element of `source` at `at`.
fn forward(graph: &Graph, node: &Node, source: ValueId, at: &[Index], body: &Body) -> Option<Vec<Index>> {
    let dims = extents(&graph.ty(node.results[0]).dims());
    match (node.op, &ops::lookup(node.op)?.lower) {
        ("reshape", _) => {
            let position = linearize(at, &extents(&graph.ty(source).dims()));
            Some(delinearize(&position, &dims, &body.vars))
        }
        ("transpose", _) => {
            let Some(Attr::Ints(perm)) = node.attrs.get("perm") else {
                return None;
            };
            perm.iter()
                .map(|&axis| at.get(usize::try_from(axis).ok()?).cloned())
                .collect()
        }
        (_, Lowering::Map(_)) => {
            let mut moved = vec![Index::zero(); dims.len().checked_sub(at.len())?];
            moved.extend_from_slice(at);
            Some(moved)
        }
        _ => None,
    }
}

/// Variables of the term of `place` that neighbours in memory differ in.
pub fn innermost(place: &Index) -> Option<Vec<VarId>> {
    let (atom, _) = place
        .terms
        .iter()
        .filter(|(_, step)| step.as_known().is_some())
        .min_by_key(|(_, step)| step.scale.unsigned_abs())?;
    let mut vars = Vec::new();
    match atom {
        Atom::Var(var) => vars.push(*var),
        Atom::Div(inner, _) | Atom::Mod(inner, _) | Atom::Clamp(inner, _) => inner.variables(&mut vars),
        Atom::Value(_) => {}
    }
    Some(vars)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::ir::{Attrs, TensorType};
    use crate::kernel::spec::KernelOptions;
    use crate::ops::NEWEST_OPSET;
    use crate::rewrite::RegionKind;

    struct Build(Graph);

    impl Build {
        fn input(&mut self, dims: &[usize]) -> ValueId {
            self.0.add_input("", Some(TensorType::new(DType::F16, dims)))
        }

        fn op(&mut self, op: &'static str, operands: &[ValueId], attrs: Attrs) -> ValueId {
            let operands = operands.iter().copied().map(Some).collect();
            ops::emit(&mut self.0, op, operands, attrs, 1, NEWEST_OPSET, &[]).unwrap()[0]
        }

        fn contraction(mut self, kind: RegionKind, output: ValueId) -> Option<Contraction> {
            self.0.add_output("y", output);
            Contraction::of(&KernelSpec {
                kind,
                body: self.0,
                options: KernelOptions::default(),
                placements: BTreeMap::new(),
                weights: BTreeSet::new(),
            })
        }
    }

    fn ints(name: &str, values: &[i64]) -> Attrs {
        Attrs::new().with(name, Attr::Ints(values.to_vec()))
    }

    #[test]
    fn axes_are_rows_columns_or_batches_by_what_depends_on_them() {
        let sizes = |a: &[usize], b: &[usize]| {
            let mut build = Build(Graph::new("region"));
            let (a, b) = (build.input(a), build.input(b));
            let y = build.op("matmul", &[a, b], Attrs::new());
            let Sizes { batch, m, n, k } = build.contraction(RegionKind::Dot, y).unwrap().sizes;
            [batch, m, n, k]
        };
        assert_eq!(sizes(&[5, 7], &[7, 3]), [1, 5, 3, 7]);
        assert_eq!(sizes(&[2, 4, 5, 7], &[2, 4, 7, 3]), [8, 5, 3, 7]);
        assert_eq!(sizes(&[2, 4, 5, 7], &[7, 3]), [1, 40, 3, 7]);
        assert_eq!(sizes(&[5, 7], &[6, 7, 3]), [1, 5, 18, 7]);
    }

    #[test]
    fn operands_change_places_where_the_output_is_contiguous_along_rows() {
        let mut build = Build(Graph::new("region"));
        let (a, b) = (build.input(&[5, 7]), build.input(&[7, 3]));
        let y = build.op("matmul", &[a, b], Attrs::new());
        let y = build.op("transpose", &[y], ints("perm", &[1, 0]));
        let turned = build.contraction(RegionKind::Dot, y).unwrap();
        assert_eq!((turned.sizes.m, turned.sizes.n), (3, 5));
        assert_eq!(turned.places[0].stride_of(N), Some(Extent::known(1)));
    }

    #[test]
    fn split_heads_are_a_place_to_store_to() {
        let mut build = Build(Graph::new("region"));
        let (a, b) = (build.input(&[2, 16, 64]), build.input(&[64, 64]));
        let y = build.op("matmul", &[a, b], Attrs::new());
        let y = build.op("reshape", &[y], ints("shape", &[2, 16, 4, 16]));
        let y = build.op("transpose", &[y], ints("perm", &[0, 2, 1, 3]));
        let found = build.contraction(RegionKind::Dot, y).unwrap();
        assert_eq!(
            found.sizes,
            Sizes {
                batch: 1,
                m: 32,
                n: 64,
                k: 64
            }
        );
        // Both factors are plain loads: the views left nothing behind in them.
        assert!(matches!(found.body.expr(found.a), Expr::Load { .. }));
        assert!(matches!(found.body.expr(found.b), Expr::Load { .. }));
    }

    #[test]
    fn a_convolution_in_groups_is_a_batch_of_products() {
        let conv = |group: i64, filter: &[usize]| {
            let mut build = Build(Graph::new("region"));
            let (x, w) = (build.input(&[2, 6, 5, 64]), build.input(filter));
            let attrs = ints("strides", &[1, 1])
                .with("pads", Attr::Ints(vec![1; 4]))
                .with("dilations", Attr::Ints(vec![1, 1]))
                .with("group", Attr::Int(group));
            let y = build.op("conv_nhwc", &[x, w], attrs);
            build.contraction(RegionKind::Window, y)
        };
        let dense = conv(1, &[48, 3, 3, 64]).unwrap().sizes;
        assert_eq!(
            dense,
            Sizes {
                batch: 1,
                m: 60,
                n: 48,
                k: 576
            }
        );
        let grouped = conv(2, &[48, 3, 3, 32]).unwrap().sizes;
        assert_eq!(
            grouped,
            Sizes {
                batch: 2,
                m: 60,
                n: 24,
                k: 288
            }
        );
        assert!(
            conv(64, &[64, 3, 3, 1]).is_none(),
            "depthwise is no matrix product"
        );
    }
}
