//! Index arithmetic in a normal form.
//!
//! An [`Index`] is a sum of `coefficient * atom` plus a constant. Atoms are loop variables,
//! quotients, remainders, and values read from a tensor. Index arithmetic never enters the
//! e-graph; equal indices have equal normal forms, so comparing them is `==`.
//!
//! Coefficients and divisors are [`Extent`]s: constants, or monomials over run-time
//! arguments, so that a dynamic dim needs no other representation.

use crate::ir::common_divisor;
use smallvec::SmallVec;

use super::ids::{ExprId, VarId};

/// A size: `scale * product of run-time arguments`.
///
/// An argument is a dim that is only known when the engine runs; its number is the kernel's
/// dim-argument slot. A dim that is itself a sum is an argument of its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Extent {
    pub scale: i64,
    pub args: SmallVec<[u16; 2]>,
}

impl Extent {
    pub fn known(value: i64) -> Self {
        Extent {
            scale: value,
            args: SmallVec::new(),
        }
    }

    /// A run-time argument.
    pub fn arg(slot: u16) -> Self {
        Extent {
            scale: 1,
            args: SmallVec::from_slice(&[slot]),
        }
    }

    /// The size, where it is a constant.
    pub fn as_known(&self) -> Option<i64> {
        self.args.is_empty().then_some(self.scale)
    }

    #[must_use]
    pub fn times(&self, other: &Extent) -> Extent {
        let mut args: SmallVec<[u16; 2]> = self.args.iter().chain(&other.args).copied().collect();
        args.sort_unstable();
        let scale = self.scale * other.scale;
        if scale == 0 {
            args.clear();
        }
        Extent { scale, args }
    }

    /// `self / divisor` where that is a monomial again.
    fn divided_by(&self, divisor: &Extent) -> Option<Extent> {
        if divisor.scale == 0 || self.scale % divisor.scale != 0 {
            return None;
        }
        let mut args = self.args.clone();
        for slot in &divisor.args {
            let position = args.iter().position(|own| own == slot)?;
            args.remove(position);
        }
        Some(Extent {
            scale: self.scale / divisor.scale,
            args,
        })
    }
}

impl From<usize> for Extent {
    fn from(value: usize) -> Self {
        Extent::known(i64::try_from(value).expect("extents fit in i64"))
    }
}

/// A term that cannot be split further.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Atom {
    Var(VarId),
    /// Quotient rounded towards minus infinity; the divisor is positive.
    Div(Box<Index>, Extent),
    /// Remainder in `0..divisor`.
    Mod(Box<Index>, Extent),
    /// An integer expression read at run time, such as a gather's index.
    Value(ExprId),
    /// A clamp of an index into `0..extent`, as edge padding and nearest resizing need.
    Clamp(Box<Index>, Extent),
}

/// `constant + sum of coefficient * atom`, atoms sorted and distinct, no zero coefficients.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Index {
    pub terms: Vec<(Atom, Extent)>,
    pub constant: i64,
}

/// Extents of the loop variables, which bound every index made of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Vars {
    pub extents: Vec<Extent>,
}

impl Vars {
    pub fn fresh(&mut self, extent: Extent) -> VarId {
        let id = VarId(u16::try_from(self.extents.len()).expect("bodies have under 65536 variables"));
        self.extents.push(extent);
        id
    }

    pub fn extent(&self, var: VarId) -> &Extent {
        &self.extents[usize::from(var.0)]
    }
}

impl Index {
    pub fn zero() -> Self {
        Index::default()
    }

    pub fn known(value: i64) -> Self {
        Index {
            terms: Vec::new(),
            constant: value,
        }
    }

    pub fn var(var: VarId) -> Self {
        Index::atom(Atom::Var(var))
    }

    pub fn atom(atom: Atom) -> Self {
        Index {
            terms: vec![(atom, Extent::known(1))],
            constant: 0,
        }
    }

    /// The value, where the index is a constant.
    pub fn as_known(&self) -> Option<i64> {
        self.terms.is_empty().then_some(self.constant)
    }

    #[must_use]
    pub fn plus(&self, other: &Index) -> Index {
        let mut sum = self.clone();
        sum.constant += other.constant;
        for (atom, coefficient) in &other.terms {
            sum.add_term(atom.clone(), coefficient.clone());
        }
        sum
    }

    #[must_use]
    pub fn plus_known(&self, value: i64) -> Index {
        let mut sum = self.clone();
        sum.constant += value;
        sum
    }

    #[must_use]
    pub fn minus(&self, other: &Index) -> Index {
        self.plus(&other.times(&Extent::known(-1)))
    }

    /// `self * factor`. A constant part times a run-time factor becomes a term over `Value`-free
    /// atoms only when the factor is known; callers multiply indices, not constants, by arguments.
    ///
    /// # Panics
    /// If a non-zero constant part meets a run-time factor.
    #[must_use]
    pub fn times(&self, factor: &Extent) -> Index {
        if factor.scale == 0 {
            return Index::zero();
        }
        let constant = if let Some(scale) = factor.as_known() {
            self.constant * scale
        } else {
            assert_eq!(
                self.constant, 0,
                "a constant offset times a run-time extent needs an argument of its own"
            );
            0
        };
        let terms = self
            .terms
            .iter()
            .map(|(atom, coefficient)| (atom.clone(), coefficient.times(factor)))
            .collect();
        Index { terms, constant }
    }

    /// `floor(self / divisor)`, simplified with the variables' extents.
    #[must_use]
    pub fn div(&self, divisor: &Extent, vars: &Vars) -> Index {
        let (quotient, rest) = self.split_by(divisor);
        if rest.is_within(divisor, vars) {
            return quotient;
        }
        // Nested quotients of constants merge: floor(floor(x / a) / b) = floor(x / (a * b)).
        if let (0, [(Atom::Div(inner, first), one)]) = (rest.constant, rest.terms.as_slice())
            && one.as_known() == Some(1)
        {
            return quotient.plus(&inner.div(&first.times(divisor), vars));
        }
        let (rest, reduced) = rest.without_common_factor(divisor, vars);
        quotient.plus(&Index::atom(Atom::Div(Box::new(rest), reduced)))
    }

    /// `self mod divisor`, in `0..divisor`.
    #[must_use]
    pub fn modulo(&self, divisor: &Extent, vars: &Vars) -> Index {
        let (_, rest) = self.split_by(divisor);
        if rest.is_within(divisor, vars) {
            return rest;
        }
        // x mod (g*d) where every term of x but a small one is divisible by g:
        // (g*y + r) mod (g*d) = g*(y mod d) + r for 0 <= r < g.
        if let Some(simpler) = rest.factored_modulo(divisor, vars) {
            return simpler;
        }
        Index::atom(Atom::Mod(Box::new(rest), divisor.clone()))
    }

    /// `self` limited to `0..extent`.
    #[must_use]
    pub fn clamped(&self, extent: &Extent, vars: &Vars) -> Index {
        if self.is_within(extent, vars) {
            return self.clone();
        }
        Index::atom(Atom::Clamp(Box::new(self.clone()), extent.clone()))
    }

    /// Inclusive bounds, where all extents involved are constants.
    pub fn range(&self, vars: &Vars) -> Option<(i64, i64)> {
        let (mut low, mut high) = (self.constant, self.constant);
        for (atom, coefficient) in &self.terms {
            let scale = coefficient.as_known()?;
            let (least, most) = atom.range(vars)?;
            let (a, b) = (scale.checked_mul(least)?, scale.checked_mul(most)?);
            low = low.checked_add(a.min(b))?;
            high = high.checked_add(a.max(b))?;
        }
        Some((low, high))
    }

    /// Whether `0 <= self < extent` holds for every value of the variables.
    pub fn is_within(&self, extent: &Extent, vars: &Vars) -> bool {
        if let (Some((low, high)), Some(size)) = (self.range(vars), extent.as_known()) {
            return low >= 0 && high < size;
        }
        // A lone variable is below its own extent, whatever that is at run time.
        matches!(self.terms.as_slice(), [(Atom::Var(var), one)]
            if self.constant == 0 && one.as_known() == Some(1) && vars.extent(*var) == extent)
    }

    /// This index with every variable replaced. `with` is asked once per occurrence.
    #[must_use]
    pub fn substituted(&self, vars: &Vars, with: &dyn Fn(VarId) -> Index) -> Index {
        let mut result = Index::known(self.constant);
        for (atom, coefficient) in &self.terms {
            let replaced = match atom {
                Atom::Var(var) => with(*var),
                Atom::Div(inner, divisor) => inner.substituted(vars, with).div(divisor, vars),
                Atom::Mod(inner, divisor) => inner.substituted(vars, with).modulo(divisor, vars),
                Atom::Clamp(inner, extent) => inner.substituted(vars, with).clamped(extent, vars),
                Atom::Value(_) => Index::atom(atom.clone()),
            };
            result = result.plus(&replaced.times(coefficient));
        }
        result
    }

    /// Every variable that occurs, also inside quotients and remainders (not inside values).
    pub fn variables(&self, into: &mut Vec<VarId>) {
        for (atom, _) in &self.terms {
            match atom {
                Atom::Var(var) => into.push(*var),
                Atom::Div(inner, _) | Atom::Mod(inner, _) | Atom::Clamp(inner, _) => inner.variables(into),
                Atom::Value(_) => {}
            }
        }
    }

    /// The constant coefficient of `var` where the index is `coefficient * var + rest` and
    /// `rest` does not depend on `var`. `None` where `var` sits inside another atom.
    pub fn stride_of(&self, var: VarId) -> Option<Extent> {
        let mut stride = Extent::known(0);
        for (atom, coefficient) in &self.terms {
            match atom {
                Atom::Var(own) if *own == var => stride = coefficient.clone(),
                Atom::Var(_) => {}
                Atom::Value(_) => return None,
                Atom::Div(inner, _) | Atom::Mod(inner, _) | Atom::Clamp(inner, _) => {
                    let mut inside = Vec::new();
                    inner.variables(&mut inside);
                    if inside.contains(&var) {
                        return None;
                    }
                }
            }
        }
        Some(stride)
    }

    /// Quotients and remainders of one index put together again:
    /// `k*d*(x / d) + k*(x mod d) = k*x`, wherever both occur.
    #[must_use]
    pub fn recombined(&self, vars: &Vars) -> Index {
        let mut whole = self.clone();
        while let Some(next) = whole.recombined_once(vars) {
            whole = next;
        }
        whole
    }

    fn recombined_once(&self, vars: &Vars) -> Option<Index> {
        self.terms.iter().find_map(|(atom, factor)| {
            let Atom::Mod(inner, divisor) = atom else {
                return None;
            };
            let quotient = inner.div(divisor, vars).times(&factor.times(divisor));
            let found = quotient.constant == 0
                && !quotient.terms.is_empty()
                && quotient.terms.iter().all(|term| self.terms.contains(term));
            found.then(|| {
                let remainder = Index::atom(atom.clone()).times(factor);
                self.minus(&quotient).minus(&remainder).plus(&inner.times(factor))
            })
        })
    }

    fn add_term(&mut self, atom: Atom, coefficient: Extent) {
        match self.terms.binary_search_by(|(own, _)| own.cmp(&atom)) {
            Ok(position) => {
                let own = &mut self.terms[position].1;
                assert!(
                    own.args == coefficient.args || own.scale == 0 || coefficient.scale == 0,
                    "terms over one atom carry the same run-time arguments"
                );
                own.scale += coefficient.scale;
                if own.scale == 0 {
                    self.terms.remove(position);
                }
            }
            Err(position) if coefficient.scale != 0 => self.terms.insert(position, (atom, coefficient)),
            Err(_) => {}
        }
    }

    /// `self = divisor * quotient + rest`, taking what divides evenly, term by term.
    fn split_by(&self, divisor: &Extent) -> (Index, Index) {
        let (mut quotient, mut rest) = (Index::zero(), Index::zero());
        if let Some(size) = divisor.as_known() {
            quotient.constant = self.constant.div_euclid(size);
            rest.constant = self.constant.rem_euclid(size);
        } else {
            rest.constant = self.constant;
        }
        for (atom, coefficient) in &self.terms {
            if let Some(part) = coefficient.divided_by(divisor) {
                quotient.add_term(atom.clone(), part);
            } else {
                rest.add_term(atom.clone(), coefficient.clone());
            }
        }
        (quotient, rest)
    }

    /// `floor((g*x + r) / (g*d)) = floor(x / d)` for `0 <= r < g`.
    fn without_common_factor(&self, divisor: &Extent, vars: &Vars) -> (Index, Extent) {
        for factor in self.candidate_factors(divisor) {
            let (multiple, small) = self.split_by(&factor);
            if small.is_within(&factor, vars)
                && let Some(reduced) = divisor.divided_by(&factor)
            {
                return (multiple, reduced);
            }
        }
        (self.clone(), divisor.clone())
    }

    fn factored_modulo(&self, divisor: &Extent, vars: &Vars) -> Option<Index> {
        for factor in self.candidate_factors(divisor) {
            let (multiple, small) = self.split_by(&factor);
            if small.is_within(&factor, vars)
                && let Some(reduced) = divisor.divided_by(&factor)
            {
                let wrapped = if multiple.is_within(&reduced, vars) {
                    multiple
                } else {
                    let (_, rest) = multiple.split_by(&reduced);
                    if rest.is_within(&reduced, vars) {
                        rest
                    } else {
                        Index::atom(Atom::Mod(Box::new(rest), reduced))
                    }
                };
                return Some(wrapped.times(&factor).plus(&small));
            }
        }
        None
    }

    /// Constant factors above one that some coefficient shares with the divisor, largest first.
    fn candidate_factors(&self, divisor: &Extent) -> Vec<Extent> {
        let Some(size) = divisor.as_known() else {
            return Vec::new();
        };
        let mut factors: Vec<i64> = self
            .terms
            .iter()
            .filter_map(|(_, coefficient)| coefficient.as_known())
            .map(|scale| common_divisor(scale.unsigned_abs(), size.unsigned_abs()))
            .filter_map(|factor| i64::try_from(factor).ok())
            .filter(|&factor| factor > 1)
            .collect();
        factors.sort_unstable_by(|a, b| b.cmp(a));
        factors.dedup();
        factors.into_iter().map(Extent::known).collect()
    }
}

impl Atom {
    fn range(&self, vars: &Vars) -> Option<(i64, i64)> {
        match self {
            Atom::Var(var) => Some((0, (vars.extent(*var).as_known()? - 1).max(0))),
            Atom::Div(inner, divisor) => {
                let (low, high) = inner.range(vars)?;
                let size = divisor.as_known()?;
                Some((low.div_euclid(size), high.div_euclid(size)))
            }
            Atom::Mod(_, divisor) | Atom::Clamp(_, divisor) => Some((0, (divisor.as_known()? - 1).max(0))),
            Atom::Value(_) => None,
        }
    }
}

/// Row-major position of `coordinates` in a tensor of extents `dims`.
pub fn linearize(coordinates: &[Index], dims: &[Extent]) -> Index {
    let mut position = Index::zero();
    for (coordinate, extent) in coordinates.iter().zip(dims) {
        position = position.times(extent).plus(coordinate);
    }
    position
}

/// Coordinates in a tensor of extents `dims` of the element at row-major `position`.
pub fn delinearize(position: &Index, dims: &[Extent], vars: &Vars) -> Vec<Index> {
    let mut coordinates = vec![Index::zero(); dims.len()];
    let mut rest = position.recombined(vars);
    for axis in (1..dims.len()).rev() {
        // An empty tensor has no elements, so any coordinates do.
        if dims[axis].scale == 0 {
            continue;
        }
        coordinates[axis] = rest.modulo(&dims[axis], vars);
        rest = rest.div(&dims[axis], vars);
    }
    if let Some(first) = coordinates.first_mut() {
        *first = rest;
    }
    coordinates
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(dims: &[i64]) -> Vec<Extent> {
        dims.iter().copied().map(Extent::known).collect()
    }

    #[test]
    fn reshaping_back_and_forth_is_the_identity() {
        let mut vars = Vars::default();
        let coordinates: Vec<Index> = [2, 128, 12, 64]
            .map(|n| Index::var(vars.fresh(Extent::known(n))))
            .to_vec();
        let flat = linearize(&coordinates, &sizes(&[2, 128, 12, 64]));
        let merged = delinearize(&flat, &sizes(&[256, 768]), &vars);
        assert_eq!(
            merged[0],
            coordinates[0].times(&Extent::known(128)).plus(&coordinates[1])
        );
        assert_eq!(
            merged[1],
            coordinates[2].times(&Extent::known(64)).plus(&coordinates[3])
        );
        let again = delinearize(
            &linearize(&merged, &sizes(&[256, 768])),
            &sizes(&[2, 128, 12, 64]),
            &vars,
        );
        assert_eq!(again, coordinates);
    }

    #[test]
    fn a_split_axis_keeps_quotient_and_remainder() {
        let mut vars = Vars::default();
        let column = Index::var(vars.fresh(Extent::known(768)));
        let parts = delinearize(&column, &sizes(&[12, 64]), &vars);
        assert_eq!(linearize(&parts, &sizes(&[12, 64])).range(&vars), Some((0, 767)));
        assert_eq!(linearize(&parts, &sizes(&[12, 64])).recombined(&vars), column);
        assert_eq!(parts[0].range(&vars), Some((0, 11)));
        assert_eq!(parts[1].range(&vars), Some((0, 63)));
    }

    #[test]
    fn a_flat_position_survives_any_reshape() {
        let mut vars = Vars::default();
        let position = Index::var(vars.fresh(Extent::known(2 * 3 * 4 * 5)));
        let coordinates = delinearize(&position, &sizes(&[2, 3, 4, 5]), &vars);
        let flat = linearize(&coordinates, &sizes(&[2, 3, 4, 5]));
        assert_eq!(flat.recombined(&vars), position);
        let other = delinearize(&flat, &sizes(&[6, 20]), &vars);
        assert_eq!(linearize(&other, &sizes(&[6, 20])).recombined(&vars), position);
    }

    #[test]
    fn run_time_extents_cancel_too() {
        let mut vars = Vars::default();
        let length = Extent::arg(0);
        let row = Index::var(vars.fresh(Extent::arg(1)));
        let column = Index::var(vars.fresh(length.clone()));
        let flat = linearize(&[row.clone(), column.clone()], &[Extent::arg(1), length.clone()]);
        assert_eq!(flat.div(&length, &vars), row);
        assert_eq!(flat.modulo(&length, &vars), column);
    }
}
