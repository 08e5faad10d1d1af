//! A composed expression taken apart: the product's factors, the sums beside it, and what is left over accumulators.

use std::collections::BTreeMap;

use super::{Contraction, K, M, N, RowSums, Sizes, StoredSums};
use crate::ir::DType;
use crate::kernel::body::free_vars::FreeVars;
use crate::kernel::body::rebuild::{Rebuild, Stage, known_product, operands};
use crate::kernel::gemm::exact::{is_exact, uncast};
use crate::tile::index::delinearize;
use crate::tile::{Body, Expr, ExprId, Extent, Index, ReduceOp, VarId};

/// The term of the one reduction below `root`, a sum.
pub fn only_sum(body: &Body, root: ExprId) -> Option<ExprId> {
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

pub fn factors(body: &Body, term: ExprId) -> Option<(ExprId, ExprId)> {
    match body.expr(term) {
        Expr::Map { op: "mul", args, .. } => Some((args[0], args[1])),
        _ => None,
    }
}

/// Number of terms of the product: parts of sums that are read are fewer.
pub fn reduced_extent(body: &Body) -> Option<usize> {
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
pub fn taken_apart(body: &Body, sizes: Sizes, roots: &[ExprId], places: &[Index]) -> Option<Contraction> {
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

impl RowSums {
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
}
