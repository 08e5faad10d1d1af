//! What programs say of their launches to people, in the file once where several programs say the same.
//!
//! Programs for shapes of one model are much alike: their launches compute the same nodes, made by the same rules.
//! In memory every launch says all of it; in files of several programs launches refer to a table.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::{Header, Program};

/// Where a launch is from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Told {
    pub nodes: Vec<String>,
    pub rules: Vec<String>,
}

/// A table that grows with the programs that refer to it.
#[derive(Clone, Debug, Default)]
pub struct Telling {
    table: Vec<Told>,
    numbers: HashMap<Told, usize>,
}

impl Telling {
    /// Has the launches of a program refer to the table.
    pub fn fold(&mut self, program: &mut Program) {
        for launch in &mut program.launches {
            let told = Told {
                nodes: std::mem::take(&mut launch.nodes),
                rules: std::mem::take(&mut launch.rules),
            };
            let number = *self.numbers.entry(told).or_insert_with_key(|told| {
                self.table.push(told.clone());
                self.table.len() - 1
            });
            launch.told = Some(number);
        }
    }

    pub fn into_table(self) -> Vec<Told> {
        self.table
    }
}

/// The header as files have it.
pub(super) fn folded(header: &Header) -> Cow<'_, Header> {
    if header.programs.len() < 2 {
        return Cow::Borrowed(header);
    }
    let mut header = header.clone();
    let mut telling = Telling::default();
    for program in &mut header.programs {
        telling.fold(program);
    }
    header.told = telling.into_table();
    Cow::Owned(header)
}

/// The header as it is in memory.
///
/// # Errors
/// If a launch refers to what is not there.
pub(super) fn unfolded(mut header: Header) -> Result<Header, String> {
    let table = std::mem::take(&mut header.told);
    for program in &mut header.programs {
        unfold(program, &table)?;
    }
    Ok(header)
}

/// Has the launches of a program say what `table` says of them.
///
/// # Errors
/// If a launch refers to what is not there.
pub(super) fn unfold(program: &mut Program, table: &[Told]) -> Result<(), String> {
    for launch in &mut program.launches {
        let Some(number) = launch.told.take() else {
            continue;
        };
        let told = table
            .get(number)
            .ok_or_else(|| format!("a launch refers to text {number} of {}", table.len()))?;
        launch.nodes.clone_from(&told.nodes);
        launch.rules.clone_from(&told.rules);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::example;
    use super::*;

    #[test]
    fn equal_texts_are_stored_once() {
        let header = example(&["sm_80", "sm_87", "sm_90a"]).header;
        let file = folded(&header);
        assert_eq!(file.told.len(), 1);
        let launches = || file.programs.iter().flat_map(|program| &program.launches);
        assert!(launches().all(|launch| launch.nodes.is_empty() && launch.told == Some(0)));
        assert_eq!(unfolded(file.into_owned()), Ok(header));
    }

    #[test]
    fn one_program_says_it_itself() {
        let header = example(&["sm_80"]).header;
        assert_eq!(folded(&header).into_owned(), header);
        assert_eq!(unfolded(header.clone()), Ok(header));
    }

    #[test]
    fn texts_that_are_not_there_are_refused() {
        let mut header = example(&["sm_80"]).header;
        header.programs[0].launches[0].told = Some(0);
        assert_eq!(unfolded(header), Err("a launch refers to text 0 of 0".to_owned()));
    }
}
