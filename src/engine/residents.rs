//! What the arena holds at every launch, and the proof that nothing in it is overwritten too early.
//!
//! Steps are the launches in order, and one more after the last, in which outputs are read.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use super::{Arg, Binding, Launch, Memory, Place, Program};
use crate::ir::types::checked_bytes;

/// A tensor in the arena.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resident {
    /// Name and type, as the model or the compiler calls it.
    pub tensor: Binding,
    pub offset: usize,
    /// Steps, first and last included, during which its bytes are in use.
    pub first: usize,
    pub last: usize,
}

impl Resident {
    /// Bytes in the arena.
    ///
    /// # Panics
    /// If the tensor is larger than memory, which `check` excludes.
    pub fn n_bytes(&self) -> usize {
        self.checked_len().expect("check() has seen the size")
    }

    fn checked_len(&self) -> Option<usize> {
        checked_bytes(self.tensor.dtype, &self.tensor.dims)
    }

    /// Whether it is in use at a step.
    pub fn is_alive(&self, step: usize) -> bool {
        (self.first..=self.last).contains(&step)
    }
}

impl Program {
    /// Bytes in use at each step; none where the file does not say, being of an older version.
    pub fn live_bytes(&self) -> Option<Vec<usize>> {
        let tensors = self.tensors.as_ref()?;
        let mut begin = vec![0; self.launches.len() + 2];
        let mut end = begin.clone();
        for tensor in tensors {
            begin[tensor.first] += tensor.n_bytes();
            end[tensor.last + 1] += tensor.n_bytes();
        }
        let mut live = 0;
        let steps = begin.iter().zip(&end).take(self.launches.len() + 1);
        let bytes = steps.map(|(begins, ends)| {
            live = live + begins - ends;
            live
        });
        Some(bytes.collect())
    }
}

/// Checks that tensors in use at one step do not overlap, that launches touch nothing of the arena but
/// them, that inputs stay and outputs are there at the end, and that the stated least arena is right.
///
/// # Errors
/// What does not hold.
pub fn check(program: &Program) -> Result<(), String> {
    let Some(tensors) = &program.tensors else {
        return Ok(());
    };
    let n_launches = program.launches.len();
    for tensor in tensors {
        check_one(tensor, n_launches, program.arena_bytes)
            .map_err(|reason| format!("tensor `{}`: {reason}", tensor.tensor.name))?;
    }
    let peak = sweep(program, tensors)?;
    if peak != program.arena_lower_bound_bytes {
        return Err(format!(
            "{peak} bytes are alive at once, not {}",
            program.arena_lower_bound_bytes
        ));
    }
    let spans = |lives: fn(&Resident, usize) -> bool| -> HashSet<(usize, usize)> {
        let living = tensors.iter().filter(|tensor| lives(tensor, n_launches));
        living.map(|tensor| (tensor.offset, tensor.n_bytes())).collect()
    };
    let always = spans(|tensor, end| tensor.first == 0 && tensor.last == end);
    let at_the_end = spans(|tensor, end| tensor.last == end);
    let is_in = |place: &Place, spans: &HashSet<(usize, usize)>| {
        place.memory != Memory::Arena || place.len == 0 || spans.contains(&(place.offset, place.len))
    };
    if !program.inputs.iter().all(|place| is_in(place, &always)) {
        return Err("an input is not kept".to_owned());
    }
    if !program.outputs.iter().all(|place| is_in(place, &at_the_end)) {
        return Err("an output is not kept".to_owned());
    }
    Ok(())
}

fn check_one(tensor: &Resident, n_launches: usize, arena_bytes: usize) -> Result<(), String> {
    let end = tensor
        .checked_len()
        .and_then(|len| tensor.offset.checked_add(len));
    if end.is_none_or(|end| end > arena_bytes) {
        return Err("it is not within the arena".to_owned());
    }
    if tensor.first > tensor.last || tensor.last > n_launches {
        return Err(format!("it is alive from {} to {}", tensor.first, tensor.last));
    }
    Ok(())
}

/// Goes through the steps and gives the most bytes that are alive at one of them.
fn sweep(program: &Program, tensors: &[Resident]) -> Result<usize, String> {
    let n_steps = program.launches.len() + 1;
    let mut begin: Vec<Vec<&Resident>> = vec![Vec::new(); n_steps];
    let mut end: Vec<Vec<&Resident>> = vec![Vec::new(); n_steps];
    for tensor in tensors.iter().filter(|tensor| tensor.n_bytes() > 0) {
        begin[tensor.first].push(tensor);
        end[tensor.last].push(tensor);
    }
    // Where tensors alive at a step begin and end.
    let mut alive: BTreeMap<usize, usize> = BTreeMap::new();
    let (mut live, mut peak) = (0, 0);
    for step in 0..n_steps {
        for tensor in &begin[step] {
            let stop = tensor.offset + tensor.n_bytes();
            let below = alive.range(..stop).next_back();
            if below.is_some_and(|(_, &end)| end > tensor.offset) {
                return Err(format!("tensor `{}` overlaps another", tensor.tensor.name));
            }
            alive.insert(tensor.offset, stop);
            live += tensor.n_bytes();
        }
        peak = peak.max(live);
        if let Some(launch) = program.launches.get(step) {
            check_launch(launch, &alive).map_err(|reason| format!("launch {step}: {reason}"))?;
        }
        for tensor in &end[step] {
            alive.remove(&tensor.offset);
            live -= tensor.n_bytes();
        }
    }
    Ok(peak)
}

fn check_launch(launch: &Launch, alive: &BTreeMap<usize, usize>) -> Result<(), String> {
    let places = launch.args.iter().filter_map(|arg| match arg {
        Arg::Reads(place) | Arg::Writes(place) => Some(place),
        Arg::TensorMap(map) => Some(&map.place),
        Arg::I32(_) => None,
    });
    let mut places = places.filter(|place| place.memory == Memory::Arena && place.len > 0);
    let is_dead = |place: &&Place| {
        let tensor = alive.range(..=place.offset).next_back();
        tensor.is_none_or(|(_, &end)| place.offset + place.len > end)
    };
    match places.find(is_dead) {
        None => Ok(()),
        Some(place) => Err(format!(
            "{} bytes at {} of the arena are of no tensor",
            place.len, place.offset
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::example;
    use super::super::validate::validate;
    use super::*;

    fn refuses(words: &str, change: impl FnOnce(&mut Program)) {
        let mut engine = example(&["sm_87"]);
        change(&mut engine.header.programs[0]);
        let error = validate(&engine).expect_err(words).to_string();
        assert!(error.contains(words), "{error}");
    }

    fn tensor(program: &mut Program, number: usize) -> &mut Resident {
        &mut program.tensors.as_mut().unwrap()[number]
    }

    #[test]
    fn live_bytes_are_told_for_every_step() {
        let engine = example(&["sm_87"]);
        assert_eq!(engine.header.programs[0].live_bytes().unwrap(), [32, 32]);
    }

    #[test]
    fn tensors_do_not_overlap_while_they_are_alive() {
        refuses("`y` overlaps", |program| tensor(program, 1).offset = 0);
        refuses("`y` overlaps", |program| tensor(program, 1).offset = 8);
        refuses("not within the arena", |program| tensor(program, 1).offset = 512);
        refuses("not within the arena", |program| {
            tensor(program, 1).tensor.dims = vec![usize::MAX, 2];
        });
    }

    #[test]
    fn launches_touch_what_is_alive() {
        refuses("launch 0: 16 bytes at 256", |program| {
            tensor(program, 1).first = 1;
        });
        refuses("alive from 1 to 0", |program| {
            tensor(program, 1).first = 1;
            tensor(program, 1).last = 0;
        });
        refuses("alive from 0 to 9", |program| tensor(program, 1).last = 9);
    }

    #[test]
    fn inputs_and_outputs_stay() {
        refuses("an input is not kept", |program| tensor(program, 0).last = 0);
        refuses("an output is not kept", |program| tensor(program, 1).last = 0);
        refuses("32 bytes are alive", |program| {
            program.arena_lower_bound_bytes = 16;
        });
    }
}
