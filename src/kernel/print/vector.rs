//! Printing one expression for several neighbouring elements.
//!
//! A *lane* variable counts the elements. What does not depend on it is computed once; loads
//! whose address grows by one with it become one wide access; the rest is a short unrolled
//! loop. A load under a condition that all lanes share keeps that condition around its wide
//! access, so that concatenated operands are read only where they are meant.

use std::collections::{BTreeMap, HashSet};

use crate::ir::DType;
use crate::kernel::body::free_vars::values_in;
use crate::kernel::body::rebuild::operands;
use crate::kernel::print::expr::Printer;
use crate::kernel::print::types::value_type;
use crate::ops::groups::PER_BYTE;
use crate::tile::{Atom, Cond, Expr, ExprId, Extent, Index, VarId};

/// The variable that tells neighbouring elements apart, and how many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lane {
    pub var: VarId,
    pub width: usize,
}

/// Conditions of the `Select`s above a load, and whether its branch is the `then` one.
type Path = Vec<(Vec<Cond>, bool)>;

/// How loads are reached from the roots.
#[derive(Default)]
struct Reaches {
    /// Every way a load is reached; `None` once a condition differs between lanes.
    loads: BTreeMap<ExprId, Option<Vec<Path>>>,
    /// What was looked at, and how it was reached: a search uses each of its steps several times.
    seen: HashSet<(ExprId, Option<Path>)>,
}

impl Printer<'_> {
    /// Appends statements that evaluate `roots` for all lanes; answers with the name of an
    /// array of `lane.width` values for each root.
    pub fn lanes(&mut self, lane: Lane, roots: &[ExprId]) -> Vec<String> {
        let loads = self.shared_work(lane, roots);
        let outputs: Vec<String> = roots
            .iter()
            .map(|&root| {
                let name = self.fresh("y");
                let ty = value_type(self.body.dtype(root));
                self.line(&format!("{ty} {name}[{}];", lane.width));
                name
            })
            .collect();
        self.line("#pragma unroll");
        let counter = self.fresh("lane");
        self.bind(lane.var, &counter);
        self.open(&format!(
            "for (int {counter} = 0; {counter} < {}; ++{counter}) {{",
            lane.width
        ));
        for (load, array) in loads {
            self.preset(load, &format!("{array}[{counter}]"));
        }
        for (&root, output) in roots.iter().zip(&outputs) {
            let value = self.value(root);
            self.line(&format!("{output}[{counter}] = {value};"));
        }
        self.close();
        outputs
    }

    /// Computes what the lanes share, and reads what they can read together: answers with the
    /// array that each wide load went to.
    pub fn shared_work(&mut self, lane: Lane, roots: &[ExprId]) -> Vec<(ExprId, String)> {
        let mut reaches = Reaches::default();
        for &root in roots {
            self.reach(lane, root, Some(&Path::new()), &mut reaches);
        }
        reaches
            .loads
            .into_iter()
            .filter_map(|(load, paths)| Some((load, self.wide_load(lane, load, &paths?))))
            .collect()
    }

    /// Loads below `roots` that lanes read together, whatever conditions say.
    pub fn wide_loads(&mut self, lane: Lane, roots: &[ExprId]) -> Vec<ExprId> {
        let mut reaches = Reaches::default();
        for &root in roots {
            self.reach(lane, root, Some(&Path::new()), &mut reaches);
        }
        let is_sure = |paths: &Option<Vec<Path>>| paths.iter().flatten().any(Vec::is_empty);
        let sure = reaches.loads.into_iter().filter(|(_, paths)| is_sure(paths));
        sure.map(|(load, _)| load)
            .filter(|&load| !self.is_packed(lane, load))
            .collect()
    }

    /// Finds the wide loads below `id`. `path` is `None` below a condition that lanes do not
    /// share.
    fn reach(&mut self, lane: Lane, id: ExprId, path: Option<&Path>, found: &mut Reaches) {
        if self.known(id).is_some() || !found.seen.insert((id, path.cloned())) {
            return;
        }
        if !self.free.has(id, lane.var) {
            if path.is_some_and(Vec::is_empty) {
                self.value(id);
            }
            return;
        }
        let body = self.body;
        match body.expr(id) {
            Expr::Load { input, index, .. } if self.is_wide(lane, *input, index) => {
                note(id, path, found);
            }
            // Two lanes share a byte of packed numbers.
            Expr::Map {
                op: "nibble", args, ..
            } if self.is_packed(lane, args[0]) => {
                note(args[0], path, found);
            }
            Expr::Select {
                conds,
                then,
                otherwise,
            } => {
                let mut values = Vec::new();
                for cond in conds {
                    values_in(&cond.index, &mut values);
                }
                for &value in &values {
                    self.reach(lane, value, path, found);
                }
                let shared = values.is_empty()
                    && conds
                        .iter()
                        .all(|cond| !self.free.of_index(&cond.index).contains(&lane.var));
                for (branch, taken) in [(*then, true), (*otherwise, false)] {
                    let below = path.filter(|_| shared).map(|path| {
                        let mut below = path.clone();
                        below.push((conds.clone(), taken));
                        below
                    });
                    self.reach(lane, branch, below.as_ref(), found);
                }
            }
            // Inside a reduction the address also depends on its variables.
            Expr::Reduce { .. } => {}
            expr => {
                for operand in operands(expr) {
                    self.reach(lane, operand, path, found);
                }
            }
        }
    }

    /// Whether lanes read neighbouring elements from an aligned address.
    fn is_wide(&self, lane: Lane, input: u32, index: &[Index]) -> bool {
        let position = self.position(input, index);
        position.stride_of(lane.var) == Some(Extent::known(1)) && is_aligned(&position, lane)
    }

    /// Whether `load` reads neighbouring bytes from an aligned address, each for two lanes.
    fn is_packed(&self, lane: Lane, load: ExprId) -> bool {
        let Expr::Load { input, index, .. } = self.body.expr(load) else {
            return false;
        };
        packed_position(&self.position(*input, index), lane).is_some()
    }

    fn wide_load(&mut self, lane: Lane, load: ExprId, paths: &[Path]) -> String {
        let Expr::Load { input, index, dtype } = self.body.expr(load) else {
            unreachable!("only loads are collected");
        };
        let position = self.position(*input, index);
        let Some(first) = packed_position(&position, lane) else {
            let first = without(&position, lane.var);
            return self.read_array((*input, *dtype), lane.width, &first, paths);
        };
        let bytes = self.read_array((*input, *dtype), lane.width / PER_BYTE, &first, paths);
        let (array, ty) = (self.fresh("v"), value_type(*dtype));
        self.line(&format!("{ty} {array}[{}];", lane.width));
        self.line("#pragma unroll");
        self.line(&format!(
            "for (int i = 0; i < {}; ++i) {array}[i] = {bytes}[i / {PER_BYTE}];",
            lane.width
        ));
        array
    }

    /// Reads `width` elements of an input from position `first` on, where one of `paths` is taken.
    fn read_array(
        &mut self,
        (input, dtype): (u32, DType),
        width: usize,
        first: &Index,
        paths: &[Path],
    ) -> String {
        let (operand, ty) = (self.operand(input), value_type(dtype));
        let array = self.fresh("v");
        let guarded = !paths.iter().any(Vec::is_empty);
        let start = if guarded { " = {}" } else { "" };
        self.line(&format!("{ty} {array}[{width}]{start};"));
        if guarded {
            let test = self.any_path(paths);
            self.open(&format!("if ({test}) {{"));
        }
        let position = self.index(first);
        self.line(&format!(
            "rt_load<{width}>({array}, {} + {});",
            operand.name,
            parenthesized(&position)
        ));
        if guarded {
            self.close();
        }
        array
    }

    fn any_path(&mut self, paths: &[Path]) -> String {
        let tests: Vec<String> = paths
            .iter()
            .map(|path| {
                let steps: Vec<String> = path
                    .iter()
                    .map(|(conds, taken)| {
                        let test = self.conditions(conds);
                        if *taken { test } else { format!("!({test})") }
                    })
                    .collect();
                steps.join(" && ")
            })
            .collect();
        match tests.as_slice() {
            [one] => one.clone(),
            many => {
                let many: Vec<String> = many.iter().map(|test| format!("({test})")).collect();
                many.join(" || ")
            }
        }
    }
}

/// Notes that `load` is reached by `path`.
fn note(load: ExprId, path: Option<&Path>, found: &mut Reaches) {
    let known = found.loads.entry(load).or_insert_with(|| Some(Vec::new()));
    match (path, known) {
        (Some(path), Some(paths)) if !paths.contains(path) => paths.push(path.clone()),
        (Some(_), _) => {}
        (None, known) => *known = None,
    }
}

/// Position of the byte of the first lane, where two lanes each share a byte and the bytes are neighbours.
pub fn packed_position(position: &Index, lane: Lane) -> Option<Index> {
    let shared = Atom::Div(Box::new(Index::var(lane.var)), Extent::from(PER_BYTE));
    let (own, rest): (Vec<_>, Vec<_>) = position
        .terms
        .iter()
        .cloned()
        .partition(|(atom, _)| *atom == shared);
    let first = Index {
        terms: rest.into_iter().collect(),
        constant: position.constant,
    };
    let bytes = Lane {
        width: lane.width / PER_BYTE,
        ..lane
    };
    let is_step = matches!(own.as_slice(), [(_, step)] if step.as_known() == Some(1));
    let is_even = lane.width > 0 && lane.width.is_multiple_of(PER_BYTE);
    let is_whole = is_step
        && is_even
        && first.stride_of(lane.var) == Some(Extent::known(0))
        && is_aligned(&first, bytes);
    is_whole.then_some(first)
}

/// `text` as an operand of `+`.
fn parenthesized(text: &str) -> String {
    if text.contains('-') {
        format!("({text})")
    } else {
        text.to_owned()
    }
}

/// `index` at value zero of `var`, which occurs as a term only.
pub fn without(index: &Index, var: VarId) -> Index {
    let mut rest = index.clone();
    rest.terms.retain(|(atom, _)| *atom != Atom::Var(var));
    rest
}

/// Whether the first lane's position is a multiple of the number of lanes.
pub fn is_aligned(position: &Index, lane: Lane) -> bool {
    let width = i64::try_from(lane.width).expect("vectors are short");
    let rest = without(position, lane.var);
    rest.constant % width == 0
        && rest
            .terms
            .iter()
            .all(|(_, coefficient)| coefficient.scale % width == 0)
}
