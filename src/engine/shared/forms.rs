//! A text for each shape of a range: shapes whose texts differ in numbers alone have one form.

use serde::{Deserialize, Serialize};

use super::column::Column;
use super::text::{Number, Piece, joined};

/// Most bytes of one text. Programs take some kilobytes for each launch.
const MAX_TEXT_BYTES: usize = 4 << 20;
/// Most bytes of a number that is written.
const NUMBER_BYTES: usize = 24;

/// Texts of all shapes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forms {
    /// What forms are made of, each once.
    pub pieces: Vec<Piece>,
    pub forms: Vec<Form>,
    /// The form of each shape.
    pub of_shape: Vec<u32>,
}

/// Texts that are the same but for their numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Form {
    /// Indices into [`Forms::pieces`].
    pub pieces: Vec<u32>,
    /// Which number is where in them: the constants are numbered first, then the columns.
    pub leaves: Vec<u32>,
    /// The same for all shapes.
    pub constants: Vec<i64>,
    pub columns: Vec<Column>,
}

impl Form {
    fn check(&self, pieces: &[Piece], n_extents: usize, n_members: usize) -> Result<(), String> {
        let (mut n_bytes, mut n_leaves) = (0usize, 0usize);
        for &number in &self.pieces {
            let piece = pieces.get(number as usize).filter(|piece| !piece.is_empty());
            let piece = piece.ok_or_else(|| format!("piece {number} is not there"))?;
            let own: usize = piece.iter().map(String::len).sum();
            n_leaves = n_leaves.saturating_add(piece.len() - 1);
            n_bytes = n_bytes.saturating_add(own + (piece.len() - 1) * NUMBER_BYTES);
            // At once: the rest may be long.
            if n_bytes > MAX_TEXT_BYTES {
                return Err(format!("its text takes more than {MAX_TEXT_BYTES} bytes"));
            }
        }
        if n_leaves != self.leaves.len() {
            return Err(format!("{} numbers for {n_leaves} places", self.leaves.len()));
        }
        let n_numbers = self.constants.len() + self.columns.len();
        if let Some(leaf) = self.leaves.iter().find(|&&leaf| leaf as usize >= n_numbers) {
            return Err(format!("number {leaf} of {n_numbers}"));
        }
        for (position, column) in (self.constants.len()..).zip(&self.columns) {
            column
                .check(n_extents, n_members, position)
                .map_err(|reason| format!("number {position}: {reason}"))?;
        }
        Ok(())
    }

    /// All numbers of a shape, member number `member` of the form.
    fn numbers(&self, extents: &[i64], member: usize) -> Result<Vec<Number>, String> {
        let mut numbers: Vec<Number> = self.constants.iter().copied().map(Number::Int).collect();
        for column in &self.columns {
            let number = column.of(extents, member, &numbers);
            let position = numbers.len();
            numbers.push(number.ok_or_else(|| format!("number {position} cannot be computed"))?);
        }
        Ok(numbers)
    }
}

impl Forms {
    /// Checks that the texts of so many shapes can be made.
    ///
    /// # Errors
    /// What does not hold.
    pub fn check(&self, n_extents: usize, n_shapes: usize) -> Result<(), String> {
        if self.of_shape.len() != n_shapes {
            return Err(format!("forms of {} shapes, not {n_shapes}", self.of_shape.len()));
        }
        let mut n_members = vec![0usize; self.forms.len()];
        for &form in &self.of_shape {
            let own = n_members.get_mut(form as usize);
            *own.ok_or_else(|| format!("form {form} is not there"))? += 1;
        }
        for (number, (form, n_members)) in self.forms.iter().zip(n_members).enumerate() {
            form.check(&self.pieces, n_extents, n_members)
                .map_err(|reason| format!("form {number}: {reason}"))?;
        }
        Ok(())
    }

    /// The text of a shape, which has these extents; `check` has been passed.
    ///
    /// # Errors
    /// If a formula has no number there that 64 bits hold.
    pub fn text(&self, shape: usize, extents: &[i64]) -> Result<String, String> {
        let (before, from) = self.of_shape.split_at_checked(shape).ok_or("it is not there")?;
        let own = *from.first().ok_or("it is not there")?;
        let member = before.iter().filter(|&&form| form == own).count();
        let form = self.forms.get(own as usize).ok_or("its form is not there")?;
        let numbers = form.numbers(extents, member)?;
        let pieces = form
            .pieces
            .iter()
            .filter_map(|&piece| self.pieces.get(piece as usize));
        let leaves = form.leaves.iter().filter_map(|&leaf| numbers.get(leaf as usize));
        Ok(joined(pieces, leaves.copied()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::column::{Formula, Powers, Term};
    use super::super::text::cut;
    use super::*;

    /// `[n, 3]` for one extent `n`, but `[]` where it is 2.
    fn forms() -> Forms {
        let (pair, _) = cut("[5,3]");
        let (empty, _) = cut("[]");
        let column = Formula {
            plus: None,
            scale: 1,
            times: Powers::default(),
            terms: vec![Term(1, Powers(vec![1]))],
            over: 1,
            most: None,
        };
        let form = |piece: u32, leaves: &[u32]| Form {
            pieces: vec![piece],
            leaves: leaves.to_vec(),
            constants: vec![3],
            columns: vec![Column::Formula(column.clone()), Column::Table(vec![7; 2])],
        };
        let mut own = Forms {
            pieces: [pair, empty].concat(),
            forms: vec![form(0, &[1, 0]), form(1, &[])],
            of_shape: vec![0, 1, 0],
        };
        own.forms[1].columns.clear();
        own
    }

    #[test]
    fn numbers_are_put_where_they_belong() {
        let forms = forms();
        forms.check(1, 3).unwrap();
        let texts: Vec<String> = (0..3i64)
            .map(|shape| forms.text(usize::try_from(shape).unwrap(), &[shape + 1]).unwrap())
            .collect();
        assert_eq!(texts, ["[1,3]", "[]", "[3,3]"]);
        assert!(forms.text(3, &[4]).is_err());
    }

    #[test]
    fn forms_that_do_not_fit_are_refused() {
        let refused = |change: fn(&mut Forms), words: &str| {
            let mut forms = forms();
            change(&mut forms);
            let error = forms.check(1, 3).unwrap_err();
            assert!(error.contains(words), "{error}");
        };
        refused(|forms| forms.of_shape[0] = 2, "form 2 is not there");
        refused(|forms| forms.of_shape.clear(), "forms of 0 shapes");
        refused(|forms| forms.forms[0].pieces[0] = 2, "piece 2 is not there");
        refused(|forms| forms.pieces[1].clear(), "piece 1 is not there");
        refused(|forms| forms.forms[0].pieces.push(0), "2 numbers for 4 places");
        refused(|forms| forms.forms[0].leaves[0] = 3, "number 3 of 3");
        refused(|forms| forms.of_shape[2] = 1, "no table of 1 shapes");
        refused(|forms| forms.forms[1].pieces = vec![1; MAX_TEXT_BYTES], "bytes");
    }
}
