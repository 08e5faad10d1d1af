//! The texts of the shapes of a range, taken one at a time, as forms whose numbers are columns.
//!
//! Most numbers of a form are the same in all texts, or the same as another number of the text: what is kept is each
//! different column once, so that as many shapes as a range may have need little memory.

use std::collections::HashMap;

use super::formulas::Solver;
use crate::engine::shared::column::Column;
use crate::engine::shared::forms::{Form, Forms};
use crate::engine::shared::text::{Number, Piece, cut};

/// Texts so far.
#[derive(Default)]
pub struct Texts {
    pieces: Vec<Piece>,
    numbers: HashMap<Piece, u32>,
    forms: Vec<Growing>,
    by_pieces: HashMap<Vec<u32>, u32>,
    of_shape: Vec<u32>,
}

impl Texts {
    /// Adds the text of the next shape.
    pub fn add(&mut self, text: &str) {
        let (pieces, numbers) = cut(text);
        let pieces: Vec<u32> = pieces.into_iter().map(|piece| self.piece(piece)).collect();
        let next = index(self.forms.len());
        let form = *self.by_pieces.entry(pieces).or_insert(next);
        if form == next {
            self.forms.push(Growing::default());
        }
        self.forms[form as usize].add(self.of_shape.len(), &numbers);
        self.of_shape.push(form);
    }

    fn piece(&mut self, piece: Piece) -> u32 {
        let next = index(self.pieces.len());
        *self.numbers.entry(piece).or_insert_with_key(|piece| {
            self.pieces.push(piece.clone());
            next
        })
    }

    /// The forms of all texts, where `extents` are those of each shape.
    pub fn finish(self, extents: &[Vec<i64>]) -> Forms {
        let mut pieces = vec![Vec::new(); self.forms.len()];
        #[expect(clippy::iter_over_hash_type, reason = "each goes to its own place")]
        for (own, form) in self.by_pieces {
            pieces[form as usize] = own;
        }
        let forms = self.forms.into_iter().zip(pieces);
        Forms {
            forms: forms.map(|(form, pieces)| form.finish(pieces, extents)).collect(),
            pieces: self.pieces,
            of_shape: self.of_shape,
        }
    }
}

fn index(number: usize) -> u32 {
    u32::try_from(number).expect("a range has no so many shapes")
}

/// Shapes of one form so far.
#[derive(Default)]
struct Growing {
    shapes: Vec<usize>,
    /// For each place of a number its column.
    leaves: Vec<u32>,
    columns: Vec<Values>,
}

/// The numbers of one column.
#[derive(Clone)]
enum Values {
    Same(Number),
    Different(Vec<Number>),
}

impl Values {
    /// Adds the number of one more shape, before which there were `n_shapes`.
    fn push(&mut self, number: Number, n_shapes: usize) {
        match self {
            Values::Different(all) => all.push(number),
            Values::Same(own) if key(*own) == key(number) => {}
            Values::Same(own) => {
                let mut all = vec![*own; n_shapes];
                all.push(number);
                *self = Values::Different(all);
            }
        }
    }

    /// All but the last of `n_shapes` numbers, and another one.
    fn branched(&self, number: Number, n_shapes: usize) -> Values {
        let mut own = match self {
            Values::Same(own) => Values::Same(*own),
            Values::Different(all) => match all[..n_shapes - 1].split_first() {
                Some((first, rest)) if rest.iter().all(|other| key(*other) == key(*first)) => {
                    Values::Same(*first)
                }
                _ => Values::Different(all[..n_shapes - 1].to_vec()),
            },
        };
        own.push(number, n_shapes - 1);
        own
    }
}

/// Numbers that are written alike have the same.
fn key(number: Number) -> (bool, u64) {
    match number {
        Number::Int(int) => (true, int.cast_unsigned()),
        Number::Real(real) => (false, real.to_bits()),
    }
}

impl Growing {
    fn add(&mut self, shape: usize, numbers: &[Number]) {
        self.shapes.push(shape);
        let n_shapes = self.shapes.len();
        if n_shapes == 1 {
            let mut known = HashMap::new();
            for &number in numbers {
                let column = *known.entry(key(number)).or_insert_with(|| {
                    self.columns.push(Values::Same(number));
                    index(self.columns.len() - 1)
                });
                self.leaves.push(column);
            }
            return;
        }
        // The first place of a column decides how it goes on; places with other numbers leave it.
        let mut own: Vec<Option<Number>> = vec![None; self.columns.len()];
        let mut left: HashMap<(u32, (bool, u64)), u32> = HashMap::new();
        for (leaf, &number) in self.leaves.iter_mut().zip(numbers) {
            let column = *leaf as usize;
            match own[column] {
                None => {
                    own[column] = Some(number);
                    self.columns[column].push(number, n_shapes - 1);
                }
                Some(first) if key(first) == key(number) => {}
                Some(_) => {
                    *leaf = *left.entry((*leaf, key(number))).or_insert_with(|| {
                        self.columns.push(self.columns[column].branched(number, n_shapes));
                        index(self.columns.len() - 1)
                    });
                }
            }
        }
    }

    fn finish(self, pieces: Vec<u32>, extents: &[Vec<i64>]) -> Form {
        let extents: Vec<&[i64]> = self
            .shapes
            .iter()
            .map(|&shape| extents[shape].as_slice())
            .collect();
        let mut solver = Solver::new(extents);
        // Where each column is once it is solved: constants first.
        let mut places: Vec<u32> = vec![0; self.columns.len()];
        let (mut integers, mut reals) = (Vec::new(), Vec::new());
        for (number, values) in self.columns.into_iter().enumerate() {
            match values {
                Values::Same(Number::Int(int)) => places[number] = solver.constant(int),
                Values::Same(real @ Number::Real(_)) => reals.push((number, vec![real])),
                Values::Different(all) => match all.iter().copied().map(int_of).collect() {
                    Some(all) => integers.push((number, all)),
                    None => reals.push((number, all)),
                },
            }
        }
        solver.solve(integers, |number, place| places[number] = place);
        for (number, all) in reals {
            let all = all.into_iter().map(|number| match number {
                Number::Int(_) => unreachable!("a place has integers or others"),
                Number::Real(real) => real,
            });
            places[number] = solver.add(Column::Reals(all.collect()));
        }
        let (constants, columns) = solver.finish();
        Form {
            pieces,
            leaves: self.leaves.iter().map(|&leaf| places[leaf as usize]).collect(),
            constants,
            columns,
        }
    }
}

fn int_of(number: Number) -> Option<i64> {
    match number {
        Number::Int(int) => Some(int),
        Number::Real(_) => None,
    }
}
