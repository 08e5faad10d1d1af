//! Numbers that differ from shape to shape: formulas of the extents, or tables.
//!
//! A file is not trusted: arithmetic is checked, divisors are positive, and formulas refer to what is before them.

use serde::{Deserialize, Serialize};

use super::super::is_default;
use super::text::Number;

/// Highest power of extents in a formula.
pub const MAX_DEGREE: u32 = 4;

/// A number of each shape that has a form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Column {
    Formula(Formula),
    /// One for each shape of the form, in their order.
    Table(Vec<i64>),
    /// The same, of numbers that are no integers, or one for all shapes.
    Reals(Vec<f64>),
}

/// `plus + min(most, scale * times * ceil(terms / over))`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Formula {
    /// A constant or an earlier column of the form.
    #[serde(default, skip_serializing_if = "is_default")]
    pub plus: Option<u32>,
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub scale: i64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub times: Powers,
    pub terms: Vec<Term>,
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub over: i64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub most: Option<i64>,
}

/// A coefficient, and what it is a multiple of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Term(pub i64, pub Powers);

/// A product of extents: the power of each of them. Of none it is 1.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Powers(pub Vec<u8>);

fn one() -> i64 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_one(value: &i64) -> bool {
    *value == 1
}

impl Powers {
    pub fn degree(&self) -> u32 {
        self.0.iter().map(|&power| u32::from(power)).sum()
    }

    /// None where the product is more than 64 bits hold.
    pub fn of(&self, extents: &[i64]) -> Option<i64> {
        let mut factors = self.0.iter().zip(extents);
        factors.try_fold(1i64, |product, (&power, extent)| {
            product.checked_mul(extent.checked_pow(u32::from(power))?)
        })
    }

    fn check(&self, n_extents: usize) -> Result<(), String> {
        if self.0.len() > n_extents || self.degree() > MAX_DEGREE {
            return Err(format!("powers {:?} of {n_extents} extents", self.0));
        }
        Ok(())
    }
}

impl Formula {
    /// The number where extents are so; `known` are the numbers before. None where 64 bits do not hold it.
    pub fn of(&self, extents: &[i64], known: &[Number]) -> Option<i64> {
        let term = |Term(scale, of): &Term| scale.checked_mul(of.of(extents)?);
        let mut terms = self.terms.iter().map(term);
        let sum = terms.try_fold(0i64, |sum, term| sum.checked_add(term?))?;
        let tiles = ceiling(sum, self.over)?;
        let own = self
            .scale
            .checked_mul(self.times.of(extents)?)?
            .checked_mul(tiles)?;
        let own = self.most.map_or(own, |most| own.min(most));
        match self.plus.map(|plus| known.get(plus as usize)) {
            None => Some(own),
            Some(Some(Number::Int(plus))) => own.checked_add(*plus),
            Some(_) => None,
        }
    }

    /// Checks what [`Formula::of`] takes for granted of number `position` of a form.
    fn check(&self, n_extents: usize, position: usize) -> Result<(), String> {
        if self.over < 1 {
            return Err(format!("it divides by {}", self.over));
        }
        if let Some(plus) = self.plus.filter(|&plus| plus as usize >= position) {
            return Err(format!("it adds number {plus}, which is not before it"));
        }
        self.times.check(n_extents)?;
        self.terms.iter().try_for_each(|term| term.1.check(n_extents))
    }
}

/// `a / b`, rounded up; `b` is positive.
fn ceiling(a: i64, b: i64) -> Option<i64> {
    a.checked_add(b - 1).map(|sum| sum.div_euclid(b))
}

impl Column {
    /// The number of a shape, which is member number `member` of the form.
    pub fn of(&self, extents: &[i64], member: usize, known: &[Number]) -> Option<Number> {
        match self {
            Column::Formula(formula) => formula.of(extents, known).map(Number::Int),
            Column::Table(values) => values.get(member).copied().map(Number::Int),
            Column::Reals(values) => {
                let member = if values.len() == 1 { 0 } else { member };
                values.get(member).copied().map(Number::Real)
            }
        }
    }

    /// Checks that it is right for a form of so many shapes, where it is number `position`.
    ///
    /// # Errors
    /// What does not hold.
    pub fn check(&self, n_extents: usize, n_members: usize, position: usize) -> Result<(), String> {
        let fits = match self {
            Column::Formula(formula) => return formula.check(n_extents, position),
            Column::Table(values) => values.len() == n_members,
            Column::Reals(values) => values.len() == n_members || values.len() == 1,
        };
        if fits {
            Ok(())
        } else {
            Err(format!("it is no table of {n_members} shapes"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn powers(powers: &[u8]) -> Powers {
        Powers(powers.to_vec())
    }

    fn formula() -> Formula {
        Formula {
            plus: Some(0),
            scale: 12,
            times: powers(&[1]),
            terms: vec![Term(3, powers(&[0, 1])), Term(1, powers(&[]))],
            over: 64,
            most: Some(500),
        }
    }

    #[test]
    fn tiles_are_counted_and_no_more_than_there_may_be() {
        let of = |extents: [i64; 2]| formula().of(&extents, &[Number::Int(7)]);
        // 3 * 100 + 1 rows are 5 tiles.
        assert_eq!(of([2, 100]), Some(7 + 12 * 2 * 5));
        assert_eq!(of([9, 100]), Some(507));
    }

    #[test]
    fn what_64_bits_do_not_hold_is_nothing() {
        let of = |formula: &Formula, extents: [i64; 2]| formula.of(&extents, &[Number::Int(i64::MAX)]);
        assert_eq!(of(&formula(), [1, 1]), None);
        let alone = Formula {
            plus: None,
            ..formula()
        };
        assert_eq!(of(&alone, [1, i64::MAX]), None);
        assert_eq!(of(&alone, [i64::MAX, 1]), None);
        assert_eq!(of(&alone, [1, 1]), Some(12));
        let of_reals = formula().of(&[1, 1], &[Number::Real(1.0)]);
        assert_eq!(of_reals, None);
        let steep = Formula {
            times: powers(&[4]),
            ..alone
        };
        assert_eq!(of(&steep, [1 << 20, 1]), None);
    }

    #[test]
    fn formulas_that_cannot_be_computed_are_refused() {
        let refused = |change: fn(&mut Formula), words: &str| {
            let mut formula = formula();
            change(&mut formula);
            let error = Column::Formula(formula).check(2, 5, 1).unwrap_err();
            assert!(error.contains(words), "{error}");
        };
        Column::Formula(formula()).check(2, 5, 1).unwrap();
        refused(|formula| formula.over = 0, "divides by 0");
        refused(|formula| formula.plus = Some(1), "not before it");
        refused(|formula| formula.times = powers(&[0, 0, 1]), "of 2 extents");
        refused(|formula| formula.terms[0].1 = powers(&[3, 2]), "powers [3, 2]");
        assert!(Column::Table(vec![1; 4]).check(2, 5, 1).is_err());
        assert!(Column::Reals(vec![0.5; 4]).check(2, 5, 1).is_err());
        Column::Reals(vec![0.5]).check(2, 5, 1).unwrap();
    }
}
