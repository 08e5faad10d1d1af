//! Formulas for numbers that are known for every shape.
//!
//! A formula is taken where it gives each of the numbers exactly, so it is never wrong for a shape of the form, and
//! where it says less than a table of them would. What is looked for is what launches are made of: products of extents
//! (sizes, strides), tiles of products (`ceil`), up to a most (the device's multiprocessors), polynomials, and any of
//! these beyond a number that is known already (an offset behind another tensor).

use crate::engine::shared::column::{Column, Formula, MAX_DEGREE, Powers, Term};
use crate::ir::common_divisor;

/// Highest degree of the products that are looked for.
const DEGREE: u32 = 3;
/// Most numbers whose sum with a formula is looked for.
const MAX_SUMMANDS: usize = 512;
/// Modulus of the linear systems, a prime; coefficients of less than half of it are found.
const PRIME: i128 = (1 << 61) - 1;

/// Finds the columns of one form.
pub struct Solver<'a> {
    extents: Vec<&'a [i64]>,
    /// Products of extents, by rising degree; the first one is 1. With their value in each shape.
    products: Vec<(Powers, Vec<i64>)>,
    constants: Vec<i64>,
    /// With those of the integers that a sum may have.
    columns: Vec<(Column, Option<Vec<i64>>)>,
}

impl<'a> Solver<'a> {
    pub fn new(extents: Vec<&'a [i64]>) -> Self {
        let n_extents = extents.first().map_or(0, |first| first.len());
        let valued = |powers: Powers| {
            let values = extents.iter().map(|extents| powers.of(extents));
            Some((values.collect::<Option<Vec<i64>>>()?, powers))
        };
        let products = products(n_extents).into_iter().filter_map(valued);
        Solver {
            products: products.map(|(values, powers)| (powers, values)).collect(),
            extents,
            constants: Vec::new(),
            columns: Vec::new(),
        }
    }

    /// Adds a constant, which must come before any column, and gives its number.
    pub fn constant(&mut self, value: i64) -> u32 {
        assert!(self.columns.is_empty(), "constants are numbered first");
        self.constants.push(value);
        number(self.constants.len() - 1)
    }

    /// Adds a column, and gives its number.
    pub fn add(&mut self, column: Column) -> u32 {
        self.push(column, None)
    }

    fn push(&mut self, column: Column, values: Option<Vec<i64>>) -> u32 {
        self.columns.push((column, values));
        number(self.constants.len() + self.columns.len() - 1)
    }

    /// Adds all of `columns`, and tells the number of each: formulas that stand alone first, then those that add to
    /// others, then tables.
    pub fn solve(&mut self, columns: Vec<(usize, Vec<i64>)>, mut tell: impl FnMut(usize, u32)) {
        let mut rest = Vec::new();
        for (own, values) in columns {
            match self.alone(&values) {
                Some(formula) => tell(own, self.push(Column::Formula(formula), Some(values))),
                None => rest.push((own, values)),
            }
        }
        // Offsets build on smaller ones.
        rest.sort_by_key(|(_, values)| values.iter().map(|&value| i128::from(value)).sum::<i128>());
        for (own, values) in rest {
            let column = match self.sum(&values) {
                Some(formula) => Column::Formula(formula),
                None => Column::Table(values.clone()),
            };
            tell(own, self.push(column, Some(values)));
        }
    }

    pub fn finish(self) -> (Vec<i64>, Vec<Column>) {
        let columns = self.columns.into_iter().map(|(column, _)| column);
        (self.constants, columns.collect())
    }

    /// A formula that adds to nothing.
    fn alone(&self, values: &[i64]) -> Option<Formula> {
        let right = |formula: &Formula| self.gives(formula, values);
        let capped = || {
            let most = *values.iter().max()?;
            let n_most = values.iter().filter(|&&value| value == most).count();
            (n_most > 1).then(|| self.tiles(values, Some(most))).flatten()
        };
        self.uncapped(values).or_else(|| capped().filter(right))
    }

    /// A formula that adds to nothing, and has no most.
    fn uncapped(&self, values: &[i64]) -> Option<Formula> {
        let right = |formula: &Formula| self.gives(formula, values);
        let tiles = self.tiles(values, None).filter(right);
        tiles.or_else(|| self.polynomial(values).filter(right))
    }

    /// A formula that adds to a number before.
    fn sum(&self, values: &[i64]) -> Option<Formula> {
        let known: Vec<(u32, &Vec<i64>)> = (self.constants.len()..)
            .map(number)
            .zip(&self.columns)
            .filter_map(|(at, (_, own))| Some((at, own.as_ref()?)))
            .collect();
        let known = &known[known.len().saturating_sub(MAX_SUMMANDS)..];
        known.iter().rev().find_map(|&(at, own)| {
            let rest: Vec<i64> = values
                .iter()
                .zip(own)
                .map(|(a, b)| a.checked_sub(*b))
                .collect::<Option<_>>()?;
            Some(Formula {
                plus: Some(at),
                ..self.uncapped(&rest)?
            })
        })
    }

    /// Whether a formula that adds to nothing gives these numbers.
    fn gives(&self, formula: &Formula, values: &[i64]) -> bool {
        let mut pairs = self.extents.iter().zip(values);
        pairs.all(|(extents, &value)| formula.of(extents, &[]) == Some(value))
    }

    /// `scale * times * ceil(of * a / b)`, no more than `most`.
    fn tiles(&self, values: &[i64], most: Option<i64>) -> Option<Formula> {
        let below: Vec<usize> = (0..values.len()).filter(|&at| Some(values[at]) != most).collect();
        self.products.iter().find_map(|(times, factors)| {
            let divided = |&at: &usize| {
                let factor = factors[at];
                (factor > 0 && values[at] % factor == 0).then(|| values[at] / factor)
            };
            let quotients: Vec<i64> = below.iter().map(divided).collect::<Option<_>>()?;
            let scale = quotients
                .iter()
                .fold(0, |scale, &own| common_divisor(scale, own))
                .abs();
            let mut scales = vec![scale, 1];
            scales.dedup();
            let scales = scales.into_iter().filter(|&scale| scale > 0);
            scales.into_iter().find_map(|scale| {
                self.products.iter().find_map(|(of, rows)| {
                    let mut bounds = Between::default();
                    for (&at, &quotient) in below.iter().zip(&quotients) {
                        bounds.tighten(quotient / scale, rows[at])?;
                    }
                    // Where it is cut, there must be as many tiles at least.
                    for at in (0..values.len()).filter(|&at| Some(values[at]) == most) {
                        let least =
                            values[at].checked_sub(1)? / scale.checked_mul(factors[at]).filter(|&f| f > 0)?;
                        bounds.above(least, rows[at])?;
                    }
                    let (a, b) = bounds.simplest()?;
                    Some(Formula {
                        plus: None,
                        scale,
                        times: times.clone(),
                        terms: vec![Term(a, of.clone())],
                        over: b,
                        most,
                    })
                })
            })
        })
    }

    /// A polynomial with fewer coefficients than there are numbers.
    fn polynomial(&self, values: &[i64]) -> Option<Formula> {
        let coefficients = self.solved(values)?;
        let terms = coefficients.into_iter().zip(&self.products);
        let terms: Vec<Term> = terms
            .filter(|(coefficient, _)| *coefficient != 0)
            .map(|(coefficient, (powers, _))| Term(coefficient, powers.clone()))
            .collect();
        (terms.len() < values.len()).then(|| Formula {
            plus: None,
            scale: 1,
            times: Powers::default(),
            terms,
            over: 1,
            most: None,
        })
    }

    /// Coefficients of the products, of which the first that will do are taken: rows of the system are added until
    /// they decide.
    fn solved(&self, values: &[i64]) -> Option<Vec<i64>> {
        let n_unknowns = self.products.len();
        let mut rows: Vec<(usize, Vec<i128>)> = Vec::new();
        for at in spread(values.len()) {
            let mut row: Vec<i128> = self.products.iter().map(|(_, own)| i128::from(own[at])).collect();
            row.push(i128::from(values[at]));
            for entry in &mut row {
                *entry = entry.rem_euclid(PRIME);
            }
            for (pivot, known) in &rows {
                subtract(&mut row, known, *pivot);
            }
            let Some(pivot) = row.iter().position(|&entry| entry != 0) else {
                continue;
            };
            if pivot == n_unknowns {
                return None;
            }
            let inverse = inverse(row[pivot]);
            for entry in &mut row {
                *entry = *entry * inverse % PRIME;
            }
            for (_, known) in &mut rows {
                subtract(known, &row, pivot);
            }
            rows.push((pivot, row));
            if rows.len() == n_unknowns {
                break;
            }
        }
        let mut coefficients = vec![0; n_unknowns];
        for (pivot, row) in rows {
            let value = row[n_unknowns];
            let signed = if value > PRIME / 2 { value - PRIME } else { value };
            coefficients[pivot] = i64::try_from(signed).ok()?;
        }
        Some(coefficients)
    }
}

fn number(position: usize) -> u32 {
    u32::try_from(position).expect("a form has no so many numbers")
}

/// Products of up to `DEGREE` of so many extents, by rising degree, and by rising powers of the last extent.
fn products(n_extents: usize) -> Vec<Powers> {
    let mut all = vec![Powers(vec![0; n_extents])];
    let mut first = 0;
    for _ in 0..DEGREE.min(MAX_DEGREE) {
        let last = all.len();
        for own in first..last {
            for extent in 0..n_extents {
                let mut powers = all[own].clone();
                powers.0[extent] += 1;
                if !all[last..].contains(&powers) {
                    all.push(powers);
                }
            }
        }
        first = last;
    }
    all
}

/// Positions of `n` shapes in an order in which neighbours come late.
fn spread(n: usize) -> impl Iterator<Item = usize> {
    // A step that has no divisor in common with `n` passes each of them once.
    let golden = (n * 618 / 1000).max(1);
    let step = (golden..=golden + n)
        .find(|&step| common_divisor(step, n) == 1)
        .unwrap_or(1);
    (0..n).map(move |at| at * step % n)
}

/// Takes as much of `other`, whose entry at `pivot` is 1, from `row` that its entry there is 0.
fn subtract(row: &mut [i128], other: &[i128], pivot: usize) {
    let factor = row[pivot];
    if factor != 0 {
        for (entry, other) in row.iter_mut().zip(other) {
            *entry = (*entry - factor * other).rem_euclid(PRIME);
        }
    }
}

/// What gives 1 with `value`, by Fermat.
fn inverse(value: i128) -> i128 {
    let (mut result, mut base, mut exponent) = (1, value, PRIME - 2);
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = result * base % PRIME;
        }
        base = base * base % PRIME;
        exponent >>= 1;
    }
    result
}

/// Ratios above the one fraction, and up to the other one; none yet where it is `None`.
#[derive(Default)]
struct Between {
    above: Option<(i64, i64)>,
    most: Option<(i64, i64)>,
}

impl Between {
    /// Keeps the ratios of which `rows` are `tiles`, rounded up; none where no ratio is left.
    fn tighten(&mut self, tiles: i64, rows: i64) -> Option<()> {
        self.above(tiles.checked_sub(1)?, rows)?;
        if self.most.is_none_or(|most| is_less((tiles, rows), most)) {
            self.most = Some((tiles, rows));
        }
        self.is_possible()
    }

    /// Keeps the ratios of which `rows` are more than `tiles`.
    fn above(&mut self, tiles: i64, rows: i64) -> Option<()> {
        if rows < 1 || tiles < 0 {
            return None;
        }
        if self.above.is_none_or(|above| is_less(above, (tiles, rows))) {
            self.above = Some((tiles, rows));
        }
        self.is_possible()
    }

    fn is_possible(&self) -> Option<()> {
        match (self.above, self.most) {
            (Some(above), Some(most)) => is_less(above, most).then_some(()),
            _ => Some(()),
        }
    }

    /// The ratio of the smallest numbers, by the tree of Stern and Brocot: the first fraction on the way to the
    /// interval that is in it. Each turn takes as many steps at once as go the same way.
    fn simplest(&self) -> Option<(i64, i64)> {
        let (above, most) = (self.above?, self.most?);
        let (mut low, mut high) = ((0i64, 1i64), (1i64, 0i64));
        loop {
            let middle = added(low, high, 1)?;
            if !is_less(above, middle) {
                // Too small: the most steps after which it still is.
                let steps =
                    most_steps(|steps| added(low, high, steps).is_some_and(|own| !is_less(above, own)));
                low = added(low, high, steps)?;
            } else if is_less(most, middle) {
                let steps = most_steps(|steps| added(high, low, steps).is_some_and(|own| is_less(most, own)));
                high = added(high, low, steps)?;
            } else {
                return Some(middle);
            }
        }
    }
}

/// `from`, with `step` added `steps` times, part by part.
fn added(from: (i64, i64), step: (i64, i64), steps: i64) -> Option<(i64, i64)> {
    Some((
        from.0.checked_add(step.0.checked_mul(steps)?)?,
        from.1.checked_add(step.1.checked_mul(steps)?)?,
    ))
}

/// The most steps, of which one will do.
fn most_steps(will_do: impl Fn(i64) -> bool) -> i64 {
    let mut steps = 1;
    while steps < 1 << 60 && will_do(steps * 2) {
        steps *= 2;
    }
    let mut more = steps;
    while more > 1 {
        more /= 2;
        if will_do(steps + more) {
            steps += more;
        }
    }
    steps
}

/// Whether a fraction is less than another one; denominators are not negative.
fn is_less(a: (i64, i64), b: (i64, i64)) -> bool {
    i128::from(a.0) * i128::from(b.1) < i128::from(b.0) * i128::from(a.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::shared::text::Number;

    fn extents() -> Vec<Vec<i64>> {
        let all = (1..=8).flat_map(|batch| (1..=40).map(move |length| vec![batch, length]));
        all.collect()
    }

    /// How the values of a function of batch and length are found.
    fn found(of: impl Fn(i64, i64) -> i64) -> Column {
        columns(&[&of]).remove(0)
    }

    fn columns(all: &[&dyn Fn(i64, i64) -> i64]) -> Vec<Column> {
        let extents = extents();
        let mut solver = Solver::new(extents.iter().map(Vec::as_slice).collect());
        let values = |of: &&dyn Fn(i64, i64) -> i64| extents.iter().map(|own| of(own[0], own[1])).collect();
        let wanted: Vec<(usize, Vec<i64>)> = all.iter().map(values).enumerate().collect();
        let mut places = vec![0; all.len()];
        solver.solve(wanted.clone(), |own, place| places[own] = place as usize);
        let (_, columns) = solver.finish();
        for (own, values) in wanted {
            for (member, (extents, value)) in extents.iter().zip(values).enumerate() {
                let mut known = Vec::new();
                for column in &columns {
                    known.push(column.of(extents, member, &known).unwrap());
                }
                assert_eq!(known[places[own]], Number::Int(value), "{own} at {extents:?}");
            }
        }
        places.iter().map(|&place| columns[place].clone()).collect()
    }

    fn formula(column: Column) -> Formula {
        match column {
            Column::Formula(formula) => formula,
            other => panic!("no formula was found: {other:?}"),
        }
    }

    #[test]
    fn products_tiles_and_polynomials_are_found() {
        formula(found(|batch, length| 1536 * batch * length));
        formula(found(|batch, length| batch * 12 * ((length * 3 + 7) / 8)));
        formula(found(|batch, length| {
            7 * batch * length * length + 5 * batch + 11 * length - 4
        }));
        formula(found(|_, length| length - 1));
        let tiles = formula(found(|batch, length| 24 * ((batch * length + 31) / 32)));
        assert_eq!((tiles.scale, tiles.over), (24, 32));
        let aligned = formula(found(|batch, length| (batch * length * 6 + 63) / 64 * 64));
        assert_eq!((aligned.scale, aligned.terms[0].0, aligned.over), (64, 3, 32));
        let per_head = formula(found(|batch, length| batch * 12 * ((length + 15) / 16)));
        assert_eq!(per_head.times, Powers(vec![1, 0]));
    }

    #[test]
    fn a_most_is_found() {
        let grid = formula(found(|batch, length| (3 * ((batch * length + 15) / 16)).min(33)));
        assert_eq!(grid.most, Some(33));
    }

    #[test]
    fn offsets_are_found_behind_others() {
        let aligned = |bytes: i64| (bytes + 63) / 64 * 64;
        let first = move |batch: i64, length: i64| aligned(batch * length * 4);
        let second = move |batch: i64, length: i64| first(batch, length) + aligned(length * 10);
        let both = columns(&[&second, &first]);
        assert!(formula(both[0].clone()).plus.is_some());
    }

    #[test]
    fn what_has_no_formula_is_a_table() {
        let odd = found(|batch, length| (batch * 7919 + length * length * 104_729) % 1009);
        assert!(matches!(odd, Column::Table(_)));
        // Nor is there one where numbers do not fit.
        let huge = found(|batch, length| i64::MAX - batch * length % 7);
        assert!(matches!(huge, Column::Table(_)));
    }

    #[test]
    fn the_simplest_ratio_is_found() {
        let of = |pairs: &[(i64, i64)]| {
            let mut bounds = Between::default();
            for &(tiles, rows) in pairs {
                bounds.tighten(tiles, rows)?;
            }
            bounds.simplest()
        };
        assert_eq!(of(&[(1, 1), (1, 64), (2, 65), (2, 128), (3, 129)]), Some((1, 64)));
        assert_eq!(
            of(&[(1, 1_000_000_007), (2, 1_000_000_008)]),
            Some((1, 1_000_000_007))
        );
        assert_eq!(of(&[(3, 2)]), Some((3, 2)));
        assert_eq!(of(&[(1, 64), (1, 65), (3, 66)]), None);
    }
}
