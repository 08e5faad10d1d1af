//! What `row` and `column` print alike: passes over rows that fold into accumulators.

use std::collections::BTreeSet;

use crate::ir::{DType, TensorType};
use crate::kernel::body::free_vars::values_in;
use crate::kernel::body::rebuild::Stage;
use crate::kernel::body::region::operands;
use crate::kernel::device::Device;
use crate::kernel::print::expr::{Operand, Printer, identity};
use crate::kernel::print::store::{is_vector, store_one};
use crate::kernel::print::types::value_type;
use crate::kernel::print::vector::{Lane, without};
use crate::kernel::row::plan::{RowBody, RowOutput};
use crate::kernel::spec::KernelSpec;
use crate::tile::{Expr, ExprId, Extent, Index, ReduceOp, VarId, Vars};

/// The accumulator of one stage as C++.
#[derive(Clone, Debug)]
pub struct Accumulator {
    pub name: String,
    /// Type of the variable.
    pub ty: String,
    /// The device struct that combines two of them.
    pub fold: String,
    pub start: String,
    is_position: bool,
}

impl Accumulator {
    pub fn of(stage: &Stage, term: DType, printer: &mut Printer<'_>) -> Self {
        let plain = |fold: &str, base: &'static str, printer: &mut Printer<'_>| Accumulator {
            name: printer.fresh(base),
            ty: value_type(stage.dtype).to_owned(),
            fold: fold.to_owned(),
            start: identity(stage.op, stage.dtype),
            is_position: false,
        };
        let arg = |is_max: bool, last: bool, printer: &mut Printer<'_>| {
            let ty = value_type(term);
            Accumulator {
                name: printer.fresh("best"),
                ty: format!("RtArg<{ty}>"),
                fold: format!("RtArgFold<{is_max}, {last}>"),
                start: format!("{{{}, -1}}", identity(stage.op, term)),
                is_position: true,
            }
        };
        match stage.op {
            ReduceOp::Sum => plain("RtSum", "sum", printer),
            ReduceOp::Prod => plain("RtProd", "prod", printer),
            ReduceOp::Max => plain("RtMax", "max", printer),
            ReduceOp::Min => plain("RtMin", "min", printer),
            ReduceOp::And => plain("RtAnd", "all", printer),
            ReduceOp::Or => plain("RtOr", "any", printer),
            ReduceOp::ArgMax { last } => arg(true, last, printer),
            ReduceOp::ArgMin { last } => arg(false, last, printer),
        }
    }

    /// The statement that folds `value`, found at `position`, into `variable`.
    pub fn step(&self, variable: &str, value: &str, position: &str) -> String {
        let Accumulator { ty, fold, .. } = self;
        if self.is_position {
            return format!("{variable} = {fold}::fold({variable}, {ty}{{{value}, {position}}});");
        }
        match fold.as_str() {
            "RtSum" => format!("{variable} += {value};"),
            _ => format!("{variable} = {fold}::fold({variable}, {value});"),
        }
    }

    /// What the rest of the term reads of `variable`.
    pub fn result(&self, variable: &str) -> String {
        if self.is_position {
            format!("{variable}.position")
        } else {
            variable.to_owned()
        }
    }
}

/// Values of one output for the lanes of a thread, on their way to memory.
pub struct Stored {
    array: Option<String>,
    address: Index,
}

/// Where the lanes of an output go: one wide store, or an element each.
pub fn prepare_store(
    printer: &mut Printer<'_>,
    rows: &RowBody,
    output: &RowOutput,
    to: &Operand,
    lane: Lane,
) -> Stored {
    let address = to.address(&output.at, &rows.body.vars);
    let wide = lane.width > 1 && is_vector(&address, lane);
    let array = wide.then(|| {
        let name = printer.fresh("y");
        let ty = value_type(rows.body.dtype(output.value));
        printer.line(&format!("{ty} {name}[{}];", lane.width));
        name
    });
    Stored { array, address }
}

/// Inside the loop over lanes: keeps or stores one value.
pub fn store_lane(printer: &mut Printer<'_>, stored: &Stored, to: &Operand, value: &str, counter: &str) {
    match &stored.array {
        Some(array) => printer.line(&format!("{array}[{counter}] = {value};")),
        None => store_one(printer, to, &stored.address, value),
    }
}

/// After the loop over lanes: the wide store.
pub fn store_wide(printer: &mut Printer<'_>, stored: &Stored, to: &Operand, lane: Lane) {
    if let Some(array) = &stored.array {
        let address = printer.index(&without(&stored.address, lane.var));
        printer.line(&format!(
            "rt_store<{}>({} + {address}, {array});",
            lane.width, to.name
        ));
    }
}

/// Roots of every pass: the terms of its stages, and last the outputs that `of_last` picks.
pub fn pass_roots(rows: &RowBody, of_last: impl Fn(&RowOutput) -> bool) -> Vec<Vec<ExprId>> {
    let mut roots: Vec<Vec<ExprId>> = rows
        .passes()
        .into_iter()
        .map(|stages| stages.into_iter().map(|stage| rows.stages[stage].term).collect())
        .collect();
    roots.push(
        rows.outputs
            .iter()
            .filter(|output| of_last(output))
            .map(|output| output.value)
            .collect(),
    );
    roots
}

/// Computes before a pass what none of its elements differ in.
pub fn hoist(printer: &mut Printer<'_>, roots: &[ExprId], along: &BTreeSet<VarId>) {
    for &root in roots {
        printer.hoist(root, along);
    }
}

/// How far the first two neighbours are apart, as most are where a position begins anew now and then.
fn first_step(position: &Index, neighbour: VarId, vars: &Vars) -> Option<Extent> {
    let at = |value: i64| {
        let with = |var| {
            if var == neighbour {
                Index::known(value)
            } else {
                Index::var(var)
            }
        };
        position.substituted(vars, &with)
    };
    at(1).minus(&at(0)).as_known().map(Extent::known)
}

/// Microseconds of memory when neighbouring threads differ in `neighbour` and, within one, in the lane: an
/// operand whose elements they do not read side by side costs a sector each, of the L2 cache every time.
pub fn memory_us(spec: &KernelSpec, rows: &RowBody, lane: Lane, neighbour: VarId, device: &Device) -> f64 {
    const SECTOR_BYTES: f64 = 32.0;
    /// Share of the L2 rate that single sectors reach.
    const SECTOR_RATE: f64 = 0.6;
    let mut sectors = 0.0;
    let inputs = operands(spec);
    let printer = Printer::new(&rows.body, &inputs);
    let step = Extent::from(lane.width);
    let types = spec.input_types();
    let extents = rows.vars.iter().map(|&var| rows.body.vars.extent(var).as_known());
    let n_elements: i64 = extents.flatten().product();
    let n_elements = usize::try_from(n_elements).unwrap_or(usize::MAX);
    let mut bytes: Vec<usize> = types.iter().map(TensorType::n_bytes).collect();
    let mut factors = vec![1.0f64; inputs.len()];
    for (_, expr) in rows.body.exprs() {
        let Expr::Load { input, index, .. } = expr else {
            continue;
        };
        let mut looked_up = Vec::new();
        for one in index {
            values_in(one, &mut looked_up);
        }
        if !looked_up.is_empty() {
            // Of a table only what is looked up.
            let most = n_elements.saturating_mul(types[*input as usize].dtype.size_bytes());
            let own = &mut bytes[*input as usize];
            *own = most.min(*own);
        }
        let position = printer.position(*input, index);
        let none = Extent::known(0);
        let stride = position
            .stride_of(neighbour)
            .or_else(|| first_step(&position, neighbour, &rows.body.vars));
        let side_by_side = stride
            .as_ref()
            .is_some_and(|stride| *stride == step || *stride == none)
            && (lane.width == 1
                || position
                    .stride_of(lane.var)
                    .is_some_and(|stride| stride == Extent::known(1) || stride == none));
        if !side_by_side {
            // Lanes that are neighbours share what is fetched for the first of them.
            let neighbours = position.stride_of(lane.var) == Some(Extent::known(1));
            let used = if neighbours { lane.width } else { 1 };
            #[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
            let sector = SECTOR_BYTES / (inputs[*input as usize].dtype.size_bytes() * used) as f64;
            factors[*input as usize] = sector.clamp(1.0, 8.0);
            #[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
            let fetched = n_elements as f64 / used as f64;
            sectors += fetched;
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
    let read: f64 = bytes
        .iter()
        .zip(factors)
        .map(|(&bytes, factor)| bytes as f64 * factor)
        .sum();
    #[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
    let written = spec.output_types().iter().map(TensorType::n_bytes).sum::<usize>() as f64;
    let through_l2 = sectors * SECTOR_BYTES / (device.l2_gb_per_s * SECTOR_RATE * 1e3);
    device.memory_us(read + written).max(through_l2)
}
