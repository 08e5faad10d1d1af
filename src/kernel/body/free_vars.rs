//! Which variables an expression depends on.

use std::collections::BTreeSet;

use crate::tile::{Atom, Body, Expr, ExprId, Index, VarId};

/// Free variables of every expression of a body.
pub struct FreeVars {
    sets: Vec<BTreeSet<VarId>>,
}

impl FreeVars {
    pub fn of(body: &Body) -> Self {
        FreeVars::with_accumulators(body, &BTreeSet::new())
    }

    /// Where accumulators differ for every value of `accumulators`.
    pub fn with_accumulators(body: &Body, accumulators: &BTreeSet<VarId>) -> Self {
        let mut sets: Vec<BTreeSet<VarId>> = Vec::new();
        for (_, expr) in body.exprs() {
            let own = match expr {
                Expr::Acc { .. } => accumulators.clone(),
                _ => free_of(expr, &|id| &sets[id.0 as usize]),
            };
            sets.push(own);
        }
        FreeVars { sets }
    }

    pub fn get(&self, id: ExprId) -> &BTreeSet<VarId> {
        &self.sets[id.0 as usize]
    }

    /// Whether `id` depends on `var`.
    pub fn has(&self, id: ExprId, var: VarId) -> bool {
        self.get(id).contains(&var)
    }

    /// Variables of an index, those of the values in it included.
    pub fn of_index(&self, index: &Index) -> BTreeSet<VarId> {
        let mut found = BTreeSet::new();
        add_index(index, &|id| self.get(id), &mut found);
        found
    }
}

fn free_of<'a>(expr: &Expr, known: &dyn Fn(ExprId) -> &'a BTreeSet<VarId>) -> BTreeSet<VarId> {
    let mut found = BTreeSet::new();
    match expr {
        Expr::Const(_) | Expr::Acc { .. } => {}
        Expr::Load { index, .. } => {
            for one in index {
                add_index(one, known, &mut found);
            }
        }
        Expr::IndexValue(index) => add_index(index, known, &mut found),
        Expr::Map { args, .. } => {
            for &arg in args {
                found.extend(known(arg));
            }
        }
        Expr::Select {
            conds,
            then,
            otherwise,
        } => {
            for cond in conds {
                add_index(&cond.index, known, &mut found);
            }
            found.extend(known(*then));
            found.extend(known(*otherwise));
        }
        Expr::Reduce { vars, body, .. } => {
            found.extend(known(*body));
            for var in vars {
                found.remove(var);
            }
        }
    }
    found
}

fn add_index<'a>(index: &Index, known: &dyn Fn(ExprId) -> &'a BTreeSet<VarId>, into: &mut BTreeSet<VarId>) {
    let mut vars = Vec::new();
    index.variables(&mut vars);
    into.extend(vars);
    let mut values = Vec::new();
    values_in(index, &mut values);
    for value in values {
        into.extend(known(value));
    }
}

/// Every run-time value that occurs in an index.
pub fn values_in(index: &Index, into: &mut Vec<ExprId>) {
    for (atom, _) in &index.terms {
        match atom {
            Atom::Var(_) => {}
            Atom::Value(id) => into.push(*id),
            Atom::Div(inner, _) | Atom::Mod(inner, _) | Atom::Clamp(inner, _) => values_in(inner, into),
        }
    }
}
