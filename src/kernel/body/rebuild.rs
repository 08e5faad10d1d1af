//! Copies of expressions with variables replaced, and the canonical naming of reductions.
//!
//! Each read of a reduced tensor at other coordinates makes reductions over fresh variables.
//! [`canonical`] renames bound variables by how deep they nest, so that reductions which
//! compute the same become one expression.

use std::collections::{BTreeMap, HashMap};

use crate::ir::DType;
use crate::kernel::body::free_vars::values_in;
use crate::tile::index::delinearize;
use crate::tile::{Atom, Body, Cond, Expr, ExprId, Extent, Index, ReduceOp, VarId};

/// Copies expressions of one body into another, replacing variables by indices over the
/// variables of the new body.
pub struct Rebuild<'a> {
    from: &'a Body,
    pub into: Body,
    pub vars: BTreeMap<VarId, Index>,
    done: HashMap<ExprId, ExprId>,
    /// Bound variables of the new body by nesting height, position and extent; `None` keeps
    /// the names that `vars` gives.
    bound: Option<BTreeMap<(usize, usize, Extent), VarId>>,
    heights: HashMap<ExprId, usize>,
    /// A variable of the new body whose values conditions need not tell apart where they hold
    /// for whole blocks of them.
    pub lane: Option<VarId>,
    /// Set to take reductions apart; see [`Rebuild::taking_apart`].
    pub apart: Option<Apart>,
}

/// Reductions turned into accumulators, each after those its terms read.
#[derive(Clone, Debug)]
pub struct Apart {
    /// Row-major position in the reduced range.
    position: Index,
    pub stages: Vec<Stage>,
    /// A variable that two reductions place differently makes the result meaningless.
    pub conflict: bool,
}

/// A reduction whose terms are expressions at a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    pub op: ReduceOp,
    /// Kind of the result.
    pub dtype: DType,
    pub term: ExprId,
    /// Size of the reduced range, where it is known.
    pub n_terms: Option<usize>,
}

impl<'a> Rebuild<'a> {
    /// `into` holds the variables that `vars` speaks of.
    pub fn new(from: &'a Body, into: Body, vars: BTreeMap<VarId, Index>) -> Self {
        Rebuild {
            from,
            into,
            vars,
            done: HashMap::new(),
            bound: None,
            heights: HashMap::new(),
            lane: None,
            apart: None,
        }
    }

    /// Replaces every reduction by an accumulator, and its variables by what they are at
    /// `position` of the reduced range. No reduction may depend on another's variables.
    #[must_use]
    pub fn taking_apart(mut self, position: Index) -> Self {
        self.apart = Some(Apart {
            position,
            stages: Vec::new(),
            conflict: false,
        });
        self
    }

    fn take_apart(&mut self, op: ReduceOp, vars: &[VarId], body: ExprId, dtype: DType) -> Option<Expr> {
        let position = self.apart.as_ref()?.position.clone();
        let extents: Vec<Extent> = vars
            .iter()
            .map(|&var| self.from.vars.extent(var).clone())
            .collect();
        let places = delinearize(&position, &extents, &self.into.vars);
        for (&var, place) in vars.iter().zip(places) {
            let known = self.vars.insert(var, place.clone());
            let apart = self.apart.as_mut()?;
            apart.conflict |= known.is_some_and(|known| known != place);
        }
        let stage = Stage {
            op,
            dtype,
            term: self.expr(body),
            n_terms: known_product(&extents),
        };
        let stages = &mut self.apart.as_mut()?.stages;
        let slot = stages.iter().position(|own| *own == stage).unwrap_or_else(|| {
            stages.push(stage);
            stages.len() - 1
        });
        let slot = u8::try_from(slot).expect("regions have under 256 reductions");
        Some(Expr::Acc { slot, dtype })
    }

    /// The copy of `id`.
    pub fn expr(&mut self, id: ExprId) -> ExprId {
        if let Some(&done) = self.done.get(&id) {
            return done;
        }
        let copy = self.copy(id);
        self.done.insert(id, copy);
        copy
    }

    fn copy(&mut self, id: ExprId) -> ExprId {
        let expr = match self.from.expr(id).clone() {
            same @ (Expr::Const(_) | Expr::Acc { .. }) => same,
            Expr::Load { input, index, dtype } => Expr::Load {
                input,
                index: index.iter().map(|one| self.index(one)).collect(),
                dtype,
            },
            Expr::Map {
                op,
                attrs,
                args,
                dtype,
            } => Expr::Map {
                op,
                attrs: self.into.intern_attrs(self.from.attrs(attrs)),
                args: args.into_iter().map(|arg| self.expr(arg)).collect(),
                dtype,
            },
            Expr::IndexValue(index) => Expr::IndexValue(self.index(&index)),
            Expr::Select {
                conds,
                then,
                otherwise,
            } => {
                let conds = conds
                    .iter()
                    .map(|cond| {
                        let index = self.index(&cond.index);
                        self.coarse(Cond {
                            index,
                            extent: cond.extent.clone(),
                        })
                    })
                    .collect();
                let (then, otherwise) = (self.expr(then), self.expr(otherwise));
                return self.into.select(conds, then, otherwise);
            }
            Expr::Reduce {
                op,
                vars,
                body,
                dtype,
            } => {
                if let Some(accumulator) = self.take_apart(op, &vars, body, dtype) {
                    return self.into.add(accumulator);
                }
                let vars = self.bind(id, &vars);
                Expr::Reduce {
                    op,
                    vars,
                    body: self.expr(body),
                    dtype,
                }
            }
        };
        self.into.add(expr)
    }

    /// The copy of `index`, in normal form again.
    pub fn index(&mut self, index: &Index) -> Index {
        let mut result = Index::known(index.constant);
        for (atom, coefficient) in &index.terms {
            let replaced = match atom {
                Atom::Var(var) => self.var(*var),
                Atom::Div(inner, divisor) => self.index(inner).div(divisor, &self.into.vars),
                Atom::Mod(inner, divisor) => self.index(inner).modulo(divisor, &self.into.vars),
                Atom::Clamp(inner, extent) => self.index(inner).clamped(extent, &self.into.vars),
                Atom::Value(id) => Index::atom(Atom::Value(self.expr(*id))),
            };
            result = result.plus(&replaced.times(coefficient));
        }
        result
    }

    /// `0 <= lane + w * x < w * n` says the same as `0 <= w * x < w * n` for lanes in `0..w`.
    fn coarse(&self, cond: Cond) -> Cond {
        let lane = self
            .lane
            .and_then(|lane| Some((lane, self.into.vars.extent(lane).as_known()?)));
        let Some((lane, width)) = lane.filter(|(_, width)| *width > 0) else {
            // Nothing is computed where a lane has no width.
            return cond;
        };
        let mut rest = cond.index.clone();
        rest.terms.retain(|(atom, _)| *atom != Atom::Var(lane));
        let whole = cond.index.stride_of(lane) == Some(Extent::known(1))
            && cond.extent.scale % width == 0
            && rest.constant % width == 0
            && rest
                .terms
                .iter()
                .all(|(_, coefficient)| coefficient.scale % width == 0);
        if whole { Cond { index: rest, ..cond } } else { cond }
    }

    fn var(&mut self, var: VarId) -> Index {
        if let Some(index) = self.vars.get(&var) {
            return index.clone();
        }
        let fresh = Index::var(self.into.vars.fresh(self.from.vars.extent(var).clone()));
        self.vars.insert(var, fresh.clone());
        fresh
    }

    /// Variables of the new body for those that reduction `id` binds.
    fn bind(&mut self, id: ExprId, vars: &[VarId]) -> Vec<VarId> {
        let height = self.height(id);
        let mut bound = Vec::with_capacity(vars.len());
        for (position, &var) in vars.iter().enumerate() {
            let extent = self.from.vars.extent(var).clone();
            let known = match (&mut self.bound, self.vars.get(&var)) {
                (Some(table), _) => *table
                    .entry((height, position, extent.clone()))
                    .or_insert_with(|| self.into.vars.fresh(extent)),
                (None, Some(index)) => {
                    lone_var(index).expect("variables that reductions bind are renamed, never computed")
                }
                (None, None) => self.into.vars.fresh(extent),
            };
            self.vars.insert(var, Index::var(known));
            bound.push(known);
        }
        bound
    }

    /// How many reductions nest in `id`, itself included.
    fn height(&mut self, id: ExprId) -> usize {
        if let Some(&known) = self.heights.get(&id) {
            return known;
        }
        let expr = self.from.expr(id);
        let below = operands(expr)
            .into_iter()
            .map(|operand| self.height(operand))
            .max()
            .unwrap_or(0);
        let height = below + usize::from(matches!(expr, Expr::Reduce { .. }));
        self.heights.insert(id, height);
        height
    }
}

/// The product of extents that are all known.
pub fn known_product(extents: &[Extent]) -> Option<usize> {
    let known = |extent: &Extent| usize::try_from(extent.as_known()?).ok();
    extents.iter().map(known).product()
}

/// The variable an index consists of, if it is one alone.
pub fn lone_var(index: &Index) -> Option<VarId> {
    match index.terms.as_slice() {
        [(Atom::Var(var), one)] if index.constant == 0 && one.as_known() == Some(1) => Some(*var),
        _ => None,
    }
}

/// Every expression that `expr` is made of directly, those inside its indices included.
pub fn operands(expr: &Expr) -> Vec<ExprId> {
    let mut found = Vec::new();
    match expr {
        Expr::Const(_) | Expr::Acc { .. } => {}
        Expr::Load { index, .. } => {
            for one in index {
                values_in(one, &mut found);
            }
        }
        Expr::IndexValue(index) => values_in(index, &mut found),
        Expr::Map { args, .. } => found.extend(args),
        Expr::Select {
            conds,
            then,
            otherwise,
        } => {
            for cond in conds {
                values_in(&cond.index, &mut found);
            }
            found.extend([*then, *otherwise]);
        }
        Expr::Reduce { body, .. } => found.push(*body),
    }
    found
}

/// `body` with reductions renamed so that equal ones are one expression, and unused
/// expressions dropped. Variables in `kept` keep their numbers if they are the first ones, and
/// conditions forget the last of them where they hold for all its values alike.
pub fn canonical(body: &Body, kept: &[VarId], roots: &[ExprId]) -> (Body, Vec<ExprId>) {
    let mut into = Body::new();
    let mut lane = None;
    let vars = kept
        .iter()
        .map(|&var| {
            let copy = into.vars.fresh(body.vars.extent(var).clone());
            lane = Some(copy);
            (var, Index::var(copy))
        })
        .collect();
    let mut rebuild = Rebuild::new(body, into, vars);
    rebuild.lane = lane;
    rebuild.bound = Some(BTreeMap::new());
    let roots = roots.iter().map(|&root| rebuild.expr(root)).collect();
    (rebuild.into, roots)
}
