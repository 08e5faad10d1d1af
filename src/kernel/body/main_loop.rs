//! The parts of a region around the op that has its main loop: what its operands are at given
//! coordinates, and where its results go.
//!
//! A template with a main loop of its own owns the op's coordinates. It asks [`before`] for an
//! operand of the op, read through the views in front of it, and [`after`] for the region's
//! outputs in terms of the op's result, which is accumulator number zero.

use std::collections::BTreeSet;

use crate::ir::{Attr, Graph, Node, ValueId};
use crate::kernel::body::compose::Composer;
use crate::kernel::body::rebuild::canonical;
use crate::kernel::body::region::{operands, results};
use crate::kernel::error::KernelError;
use crate::kernel::print::expr::{Operand, Printer};
use crate::kernel::print::store::{is_vector, store_one};
use crate::kernel::print::types::value_type;
use crate::kernel::print::vector::{Lane, is_aligned, without};
use crate::kernel::spec::KernelSpec;
use crate::ops::{self, Lowering, TileKind};
use crate::tile::index::{delinearize, linearize};
use crate::tile::{Body, Expr, ExprId, Extent, Index, VarId};

/// One value over the variables of its element.
#[derive(Clone, Debug)]
pub struct Before {
    pub body: Body,
    pub vars: Vec<VarId>,
    pub value: ExprId,
}

/// The region's outputs over the variables of one element of the main op's result.
#[derive(Clone, Debug)]
pub struct After {
    pub body: Body,
    pub vars: Vec<VarId>,
    pub outputs: Vec<Stored>,
}

/// An output's value and its coordinates.
#[derive(Clone, Debug)]
pub struct Stored {
    pub value: ExprId,
    pub at: Vec<Index>,
}

/// The one node of `spec` with a main loop, `None` if there are several.
pub fn main_node(spec: &KernelSpec) -> Option<&Node> {
    let mut found = spec.body.nodes.iter().filter(|node| has_main_loop(node));
    found.next().filter(|_| found.next().is_none())
}

fn has_main_loop(node: &Node) -> bool {
    match ops::lookup(node.op).map(|def| &def.lower) {
        Some(Lowering::Tile(kind, _)) => match kind {
            TileKind::Map | TileKind::View | TileKind::Index => false,
            TileKind::Reduce | TileKind::Dot | TileKind::Window | TileKind::Other => true,
        },
        Some(Lowering::Map(_)) | None => false,
        Some(Lowering::Loop | Lowering::Expand(_) | Lowering::Bounded(_) | Lowering::Host(_)) => true,
    }
}

/// `value` at the coordinates that `at` makes of variables of `extents`.
///
/// # Errors
/// If an op of the body has no generated code.
pub fn before(
    graph: &Graph,
    value: ValueId,
    extents: &[usize],
    at: impl Fn(&Body, &[VarId]) -> Vec<Index>,
) -> Result<Before, KernelError> {
    let (mut body, vars) = fresh_vars(extents);
    let coordinates = at(&body, &vars);
    let value = Composer::new(graph).value(&mut body, value, &coordinates)?;
    let (body, values) = canonical(&body, &vars, &[value]);
    Ok(Before {
        body,
        vars,
        value: values[0],
    })
}

/// Outputs of `spec` where the result of `node` is at the coordinates `at`, over variables of
/// `extents`. `None` where views put one element in two places, or two elements in one.
///
/// # Errors
/// If an op of the body has no generated code.
pub fn after(
    spec: &KernelSpec,
    node: &Node,
    extents: &[usize],
    at: impl Fn(&Body, &[VarId]) -> Vec<Index>,
) -> Result<Option<After>, KernelError> {
    let (mut body, vars) = fresh_vars(extents);
    let coordinates = at(&body, &vars);
    let Some(places) = places(&spec.body, node.results[0], &coordinates, &body) else {
        return Ok(None);
    };
    let mut composer = Composer::new(&spec.body).stop_at(node.results[0], 0);
    let (mut values, mut ats) = (Vec::new(), Vec::new());
    for &output in &spec.body.outputs {
        let Some(at) = places[output.0 as usize].clone() else {
            return Ok(None);
        };
        values.push(composer.value(&mut body, output, &at)?);
        ats.push(at);
    }
    let (body, values) = canonical(&body, &vars, &values);
    let outputs = values
        .into_iter()
        .zip(ats)
        .map(|(value, at)| Stored { value, at })
        .collect();
    Ok(Some(After { body, vars, outputs }))
}

fn fresh_vars(extents: &[usize]) -> (Body, Vec<VarId>) {
    let mut body = Body::new();
    let vars = extents
        .iter()
        .map(|&extent| body.vars.fresh(Extent::from(extent)))
        .collect();
    (body, vars)
}

/// Coordinates of every value that depends on `start`, whose element is at `at`.
fn places(graph: &Graph, start: ValueId, at: &[Index], body: &Body) -> Option<Vec<Option<Vec<Index>>>> {
    let mut places: Vec<Option<Vec<Index>>> = vec![None; graph.values.len()];
    places[start.0 as usize] = Some(at.to_vec());
    for node in &graph.nodes {
        let mut found: Option<Vec<Index>> = None;
        for &operand in node.operands.iter().flatten() {
            let Some(at) = &places[operand.0 as usize] else {
                continue;
            };
            let moved = moved(graph, node, operand, at, body)?;
            if found.as_ref().is_some_and(|found| *found != moved) {
                return None;
            }
            found = Some(moved);
        }
        if found.is_some() {
            places[node.results[0].0 as usize] = found;
        }
    }
    Some(places)
}

/// Where `node` puts the element of its operand at `at`.
fn moved(graph: &Graph, node: &Node, operand: ValueId, at: &[Index], body: &Body) -> Option<Vec<Index>> {
    let (from, to) = (graph.ty(operand).dims(), graph.ty(node.results[0]).dims());
    if from.iter().product::<usize>() != to.iter().product::<usize>() {
        return None;
    }
    match ops::lookup(node.op).map(|def| &def.lower) {
        Some(Lowering::Map(_)) => {
            let mut moved = vec![Index::zero(); to.len() - from.len()];
            moved.extend_from_slice(at);
            Some(moved)
        }
        Some(Lowering::Tile(TileKind::View, _)) if node.op == "reshape" => {
            let flat = linearize(at, &crate::kernel::body::region::extents(&from)).recombined(&body.vars);
            Some(delinearize(
                &flat,
                &crate::kernel::body::region::extents(&to),
                &body.vars,
            ))
        }
        Some(Lowering::Tile(TileKind::View, _)) if node.op == "transpose" => {
            let Some(Attr::Ints(perm)) = node.attrs.get("perm") else {
                return None;
            };
            perm.iter()
                .map(|&axis| at.get(usize::try_from(axis).ok()?).cloned())
                .collect()
        }
        Some(
            Lowering::Tile(..)
            | Lowering::Loop
            | Lowering::Expand(_)
            | Lowering::Bounded(_)
            | Lowering::Host(_),
        )
        | None => None,
    }
}

impl Before {
    /// Where `lane.width` neighbouring elements can be copied from as they are: the operand and
    /// the position of the first.
    pub fn plain(&self, inputs: &[Operand], lane: Lane) -> Option<(u32, Index)> {
        let (input, position) = self.place(inputs)?;
        let wide = lane.width == 1
            || (position.stride_of(lane.var) == Some(Extent::known(1)) && is_aligned(&position, lane));
        wide.then(|| (input, without(&position, lane.var)))
    }

    /// The operand and the position in it that hold the value as it is.
    pub fn place(&self, inputs: &[Operand]) -> Option<(u32, Index)> {
        let mut id = self.value;
        // A cast to the kind that memory has already.
        while let Expr::Map {
            op: "cast",
            args,
            dtype,
            ..
        } = self.body.expr(id)
            && self.body.dtype(args[0]) == *dtype
        {
            id = args[0];
        }
        let Expr::Load { input, index, .. } = self.body.expr(id) else {
            return None;
        };
        Some((*input, Printer::new(&self.body, inputs).position(*input, index)))
    }
}

impl After {
    /// The text of [`After::store`], one level inside a kernel of `spec`. The last variable is the
    /// lane, one of `width`, and `names` are what the kernel calls the others. `array` holds the main
    /// op's result of all lanes, which depends on the variables `changing`.
    ///
    /// # Errors
    /// If the region has no generated code.
    pub fn print_store(
        &self,
        spec: &KernelSpec,
        width: usize,
        names: &[&str],
        array: &str,
        changing: &BTreeSet<VarId>,
    ) -> Result<String, KernelError> {
        let outputs = results(spec);
        let all: Vec<Operand> = operands(spec)
            .into_iter()
            .chain(outputs.iter().cloned())
            .collect();
        let mut printer = Printer::new(&self.body, &all);
        printer.set_depth(2);
        printer.accumulators_depend_on(changing);
        for (&var, name) in self.vars.iter().zip(names) {
            printer.bind(var, name);
        }
        let lane = Lane {
            var: self.lane(),
            width,
        };
        self.store(&mut printer, &outputs, lane, &|counter| {
            format!("{array}[{counter}]")
        });
        printer.finish()
    }

    /// The lane, where the last variable is one.
    pub fn lane(&self) -> VarId {
        *self.vars.last().expect("every part has a lane")
    }

    /// Statements that store the outputs of all lanes; `accumulator` says what holds the main
    /// op's result in the lane that a counter names. Variables are bound already.
    pub fn store(
        &self,
        printer: &mut Printer<'_>,
        outputs: &[Operand],
        lane: Lane,
        accumulator: &dyn Fn(&str) -> String,
    ) {
        let targets: Vec<(Index, Option<String>)> = self
            .outputs
            .iter()
            .zip(outputs)
            .map(|(stored, to)| self.target(printer, stored, to, lane))
            .collect();
        let counter = printer.fresh("lane");
        let roots: Vec<ExprId> = self.outputs.iter().map(|stored| stored.value).collect();
        let loads = printer.shared_work(lane, &roots);
        printer.line("#pragma unroll");
        printer.bind(lane.var, &counter);
        printer.bind_accumulator(0, &accumulator(&counter));
        printer.open(&format!(
            "for (int {counter} = 0; {counter} < {}; ++{counter}) {{",
            lane.width
        ));
        for (load, array) in loads {
            printer.preset(load, &format!("{array}[{counter}]"));
        }
        for ((stored, to), (address, array)) in self.outputs.iter().zip(outputs).zip(&targets) {
            let value = printer.value(stored.value);
            if let Some(array) = array {
                printer.line(&format!("{array}[{counter}] = {value};"));
            } else {
                store_one(printer, to, address, &value);
            }
        }
        printer.close();
        for ((address, array), to) in targets.iter().zip(outputs) {
            if let Some(array) = array {
                let address = printer.index(&without(address, lane.var));
                printer.line(&format!(
                    "rt_store<{}>({} + ({address}), {array});",
                    lane.width, to.name
                ));
            }
        }
    }

    /// Address of an output's element, and an array where its lanes gather for one wide store.
    fn target(
        &self,
        printer: &mut Printer<'_>,
        stored: &Stored,
        to: &Operand,
        lane: Lane,
    ) -> (Index, Option<String>) {
        let address = to.address(&stored.at, &self.body.vars);
        let wide = lane.width > 1 && is_vector(&address, lane);
        let array = wide.then(|| {
            let name = printer.fresh("y");
            printer.line(&format!(
                "{} {name}[{}];",
                value_type(self.body.dtype(stored.value)),
                lane.width
            ));
            name
        });
        (address, array)
    }
}
