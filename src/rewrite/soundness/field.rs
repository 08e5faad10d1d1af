//! Exact evaluation in a prime field: equality without tolerance for polynomial rules.
//!
//! A graph is evaluated through the tile functions of its ops, element by element, modulo a
//! prime of 61 bits. Sums, products, quotients and every kind of moving elements are exact
//! there, so two polynomials that agree on drawn numbers are equal but for a chance of 1 in
//! 2^50. Other functions are *opaque*: each stands for some function that nothing is known
//! about. Sides that agree then agree for all functions; sides that differ say nothing.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::ir::{DType, Graph, HostTensor, Node, Source, TensorType};
use crate::ops::evaluate::to_vec;
use crate::ops::lookup;
use crate::tile::{Atom, Body, Expr, ExprId, Index, ReduceOp, TileCtx, VarId};

/// The Mersenne prime 2^61 - 1.
const PRIME: u64 = (1 << 61) - 1;

/// Loads and functions one side may take; larger instances say [`Outcome::Unknown`].
const MAX_STEPS: usize = 400_000;

/// What the field says about two graphs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Equal, for every meaning of the opaque functions.
    Equal,
    /// Polynomials that differ, at an element of an output.
    Differs { output: usize, position: usize },
    /// Nothing can be said.
    Unknown,
}

/// Compares the outputs of two graphs over the same inputs.
pub fn compare(left: &Graph, right: &Graph, inputs: &[HostTensor]) -> Outcome {
    let (Some(a), Some(b)) = (Evaluation::of(left, inputs), Evaluation::of(right, inputs)) else {
        return Outcome::Unknown;
    };
    for (output, (own, other)) in a.outputs.iter().zip(&b.outputs).enumerate() {
        let Some(position) = own.iter().zip(other).position(|(own, other)| own != other) else {
            continue;
        };
        return if a.is_opaque || b.is_opaque {
            Outcome::Unknown
        } else {
            Outcome::Differs { output, position }
        };
    }
    Outcome::Equal
}

struct Evaluation {
    outputs: Vec<Vec<u64>>,
    is_opaque: bool,
}

impl Evaluation {
    fn of(graph: &Graph, inputs: &[HostTensor]) -> Option<Self> {
        let mut values: Vec<Option<Elements>> = vec![None; graph.values.len()];
        for (&input, data) in graph.inputs.iter().zip(inputs) {
            values[input.0 as usize] = Some(Elements::of(data)?);
        }
        for (value, slot) in graph.values.iter().zip(&mut values) {
            if let Source::Weight(data) = &value.source {
                *slot = Some(Elements::of(data)?);
            }
        }
        let mut is_opaque = false;
        let mut steps = MAX_STEPS;
        for node in &graph.nodes {
            for (number, &result) in node.results.iter().enumerate() {
                let elements = evaluate(graph, node, number, &values, &mut steps, &mut is_opaque)?;
                values[result.0 as usize] = Some(Elements {
                    field: elements,
                    ints: None,
                });
            }
        }
        let outputs = graph.outputs.iter().map(|output| {
            let elements = values[output.0 as usize].as_ref()?;
            Some(elements.field.clone())
        });
        Some(Evaluation {
            outputs: outputs.collect::<Option<_>>()?,
            is_opaque,
        })
    }
}

/// A tensor's elements, row-major.
#[derive(Clone)]
struct Elements {
    field: Vec<u64>,
    /// The numbers themselves, where they are given integers that may index something.
    ints: Option<Vec<i64>>,
}

impl Elements {
    /// `None` where an element is not finite.
    fn of(data: &HostTensor) -> Option<Self> {
        if data.dtype().is_float() {
            let field = to_vec::<f64>(data)
                .into_iter()
                .map(dyadic)
                .collect::<Option<_>>()?;
            return Some(Elements { field, ints: None });
        }
        let ints = to_vec::<i64>(data);
        Some(Elements {
            field: ints.iter().map(|&value| integer(value)).collect(),
            ints: Some(ints),
        })
    }
}

fn evaluate(
    graph: &Graph,
    node: &Node,
    number: usize,
    values: &[Option<Elements>],
    steps: &mut usize,
    is_opaque: &mut bool,
) -> Option<Vec<u64>> {
    let operands: Vec<Option<TensorType>> = node
        .operands
        .iter()
        .map(|operand| match operand {
            // A model's own operators have no types yet.
            Some(value) => graph.value(*value).ty.clone().map(Some),
            None => Some(None),
        })
        .collect::<Option<_>>()?;
    let result = graph.value(node.results[number]).ty.clone()?;
    let mut body = Body::new();
    let vars: Vec<VarId> = result
        .dims()
        .into_iter()
        .map(|extent| body.vars.fresh(extent.into()))
        .collect();
    let at: Vec<Index> = vars.iter().copied().map(Index::var).collect();
    let types = operands.clone();
    let mut read = move |body: &mut Body, n: usize, coordinates: &[Index]| {
        let dtype = types[n].as_ref().map_or(DType::F32, |ty| ty.dtype);
        body.add(Expr::Load {
            input: u32::try_from(n).expect("ops have under 2^32 operands"),
            index: coordinates.to_vec(),
            dtype,
        })
    };
    let root = lookup(node.op)?.tile(&mut TileCtx {
        attrs: &node.attrs,
        operands: &operands,
        result: &result,
        result_index: number,
        at: &at,
        body: &mut body,
        read: &mut read,
    })?;
    let mut machine = Machine {
        body: &body,
        operands: &operands,
        data: node
            .operands
            .iter()
            .map(|operand| operand.and_then(|value| values[value.0 as usize].as_ref()))
            .collect(),
        coordinates: vec![0; body.vars.extents.len()],
        steps,
        is_opaque,
    };
    let mut elements = Vec::with_capacity(result.n_elements());
    machine.for_each(&vars, &mut |machine| {
        elements.push(machine.expr(root)?);
        Some(())
    })?;
    Some(elements)
}

/// Evaluates the expressions of one body at given coordinates.
struct Machine<'a> {
    body: &'a Body,
    operands: &'a [Option<TensorType>],
    data: Vec<Option<&'a Elements>>,
    /// Current value of every variable.
    coordinates: Vec<i64>,
    steps: &'a mut usize,
    is_opaque: &'a mut bool,
}

impl Machine<'_> {
    /// Runs `visit` at every value of `vars`, the last one fastest.
    fn for_each(&mut self, vars: &[VarId], visit: &mut dyn FnMut(&mut Self) -> Option<()>) -> Option<()> {
        let Some((&first, rest)) = vars.split_first() else {
            return visit(self);
        };
        let extent = self.body.vars.extent(first).as_known()?;
        for value in 0..extent {
            self.coordinates[usize::from(first.0)] = value;
            self.for_each(rest, visit)?;
        }
        Some(())
    }

    fn expr(&mut self, id: ExprId) -> Option<u64> {
        *self.steps = self.steps.checked_sub(1)?;
        let body = self.body;
        match body.expr(id) {
            Expr::Load { input, index, .. } => {
                let offset = self.offset(*input as usize, index)?;
                self.data[*input as usize]?.field.get(offset).copied()
            }
            Expr::Const(scalar) if scalar.dtype.is_float() => self.constant(scalar.as_f64()),
            Expr::Const(scalar) => Some(integer(scalar.as_i64())),
            Expr::IndexValue(index) => self.index(index).map(integer),
            Expr::Map {
                op,
                attrs,
                args,
                dtype,
            } => {
                let values: Vec<u64> = args.iter().map(|&arg| self.expr(arg)).collect::<Option<_>>()?;
                let from = args.first().map(|&arg| body.dtype(arg));
                let known = exact(op, &values, from, *dtype);
                known.or_else(|| Some(self.opaque(&(op, format!("{:?}", body.attrs(*attrs)), values))))
            }
            Expr::Select {
                conds,
                then,
                otherwise,
            } => {
                let mut holds = true;
                for cond in conds {
                    let (index, extent) = (self.index(&cond.index)?, cond.extent.as_known()?);
                    holds &= (0..extent).contains(&index);
                }
                self.expr(if holds { *then } else { *otherwise })
            }
            Expr::Reduce { op, vars, body, .. } => {
                let (vars, term) = (vars.clone(), *body);
                let mut terms = Vec::new();
                self.for_each(&vars, &mut |machine| {
                    terms.push(machine.expr(term)?);
                    Some(())
                })?;
                Some(self.reduced(*op, terms))
            }
            Expr::Acc { .. } => None,
        }
    }

    /// Numbers that no `f32` holds stand for others, such as 1/3: nothing exact can be said.
    fn constant(&mut self, value: f64) -> Option<u64> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::float_cmp,
            reason = "it asks whether anything is lost"
        )]
        let is_short = f64::from(value as f32) == value;
        *self.is_opaque |= !is_short;
        if value.is_finite() {
            return dyadic(value);
        }
        Some(self.opaque(&value.to_bits()))
    }

    fn reduced(&mut self, op: ReduceOp, mut terms: Vec<u64>) -> u64 {
        match op {
            ReduceOp::Sum => terms.into_iter().fold(0, plus),
            ReduceOp::Prod => terms.into_iter().fold(1, times),
            ReduceOp::Max | ReduceOp::Min | ReduceOp::And | ReduceOp::Or => {
                // These do not care about order or repetition.
                terms.sort_unstable();
                terms.dedup();
                match terms.as_slice() {
                    [one] => *one,
                    _ => self.opaque(&(op, terms)),
                }
            }
            ReduceOp::ArgMax { .. } | ReduceOp::ArgMin { .. } => self.opaque(&(op, terms)),
        }
    }

    fn opaque(&mut self, what: &impl Hash) -> u64 {
        *self.is_opaque = true;
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        hasher.finish() % PRIME
    }

    fn offset(&mut self, input: usize, index: &[Index]) -> Option<usize> {
        let dims = self.operands[input].as_ref()?.dims();
        let mut offset = 0;
        for (index, extent) in index.iter().zip(dims) {
            let at = usize::try_from(self.index(index)?).ok()?;
            if at >= extent {
                return None;
            }
            offset = offset * extent + at;
        }
        Some(offset)
    }

    fn index(&mut self, index: &Index) -> Option<i64> {
        let mut sum = index.constant;
        for (atom, coefficient) in &index.terms {
            let value = match atom {
                Atom::Var(var) => self.coordinates[usize::from(var.0)],
                Atom::Div(inner, divisor) => self.index(inner)?.div_euclid(divisor.as_known()?),
                Atom::Mod(inner, divisor) => self.index(inner)?.rem_euclid(divisor.as_known()?),
                Atom::Clamp(inner, extent) => self.index(inner)?.clamp(0, extent.as_known()? - 1),
                Atom::Value(expr) => self.run_time_index(*expr)?,
            };
            sum += value * coefficient.as_known()?;
        }
        Some(sum)
    }

    /// An index that is read: known where it is an element of given integers.
    fn run_time_index(&mut self, expr: ExprId) -> Option<i64> {
        let body = self.body;
        match body.expr(expr) {
            Expr::Load { input, index, .. } => {
                let offset = self.offset(*input as usize, index)?;
                self.data[*input as usize]?.ints.as_ref()?.get(offset).copied()
            }
            Expr::Const(scalar) if !scalar.dtype.is_float() => Some(scalar.as_i64()),
            Expr::Map { op: "cast", args, .. } => self.run_time_index(args[0]),
            _ => None,
        }
    }
}

/// Functions that the field has.
fn exact(op: &str, args: &[u64], from: Option<DType>, to: DType) -> Option<u64> {
    match (op, args) {
        ("add", [a, b]) => Some(plus(*a, *b)),
        ("sub", [a, b]) => Some(plus(*a, negative(*b))),
        ("mul", [a, b]) => Some(times(*a, *b)),
        ("neg", [a]) => Some(negative(*a)),
        ("div", [a, b]) if to.is_float() => inverse(*b).map(|b| times(*a, b)),
        ("reciprocal", [a]) => inverse(*a),
        ("cast", [a]) if from.is_some_and(|from| to.is_float() || from == to) => Some(*a),
        ("where", [condition, a, b]) if *condition <= 1 => Some(if *condition == 1 { *a } else { *b }),
        _ => None,
    }
}

fn plus(a: u64, b: u64) -> u64 {
    (a + b) % PRIME
}

fn negative(a: u64) -> u64 {
    (PRIME - a) % PRIME
}

fn times(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b) % u128::from(PRIME);
    u64::try_from(product).expect("a remainder is below the prime")
}

fn power(mut base: u64, mut exponent: u64) -> u64 {
    let mut result = 1;
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = times(result, base);
        }
        base = times(base, base);
        exponent >>= 1;
    }
    result
}

/// `None` for zero.
fn inverse(a: u64) -> Option<u64> {
    (a != 0).then(|| power(a, PRIME - 2))
}

fn integer(value: i64) -> u64 {
    let size = value.unsigned_abs() % PRIME;
    if value < 0 { negative(size) } else { size }
}

/// A finite float is an integer times a power of two, and so is its image.
fn dyadic(value: f64) -> Option<u64> {
    if !value.is_finite() {
        return None;
    }
    let bits = value.to_bits();
    let exponent = i64::try_from(bits >> 52 & 0x7ff).expect("eleven bits fit");
    let fraction = bits & ((1 << 52) - 1);
    let mantissa = if exponent == 0 {
        fraction
    } else {
        fraction | 1 << 52
    };
    let shift = exponent.max(1) - 1075;
    let two = if shift < 0 { inverse(2)? } else { 2 };
    let size = times(mantissa % PRIME, power(two, shift.unsigned_abs()));
    Some(if value.is_sign_negative() {
        negative(size)
    } else {
        size
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::builder::GraphBuilder;

    #[test]
    fn floats_are_their_integers_and_powers_of_two() {
        assert_eq!(dyadic(3.0), Some(3));
        assert_eq!(times(dyadic(0.25).unwrap(), 4), 1);
        assert_eq!(plus(dyadic(-1.5).unwrap(), dyadic(1.5).unwrap()), 0);
        assert_eq!(times(inverse(12345).unwrap(), 12345), 1);
    }

    /// `(a + b) * c` beside `a * c + b * c`, and beside `a * c + b`.
    #[test]
    fn equal_polynomials_are_equal_without_tolerance() {
        let sides = |right_too: bool| {
            let mut left = GraphBuilder::new("left", 1);
            let (a, b, c) = (left.input(&[4, 3]), left.input(&[4, 3]), left.input(&[3, 2]));
            let sum = left.plain("add", &[a, b]);
            let left_product = left.plain("matmul", &[sum, c]);
            left.output(left_product);
            let mut right = GraphBuilder::new("right", 1);
            let (a, b, c) = (right.input(&[4, 3]), right.input(&[4, 3]), right.input(&[3, 2]));
            let first = right.plain("matmul", &[a, c]);
            let second = right.plain("matmul", &[if right_too { b } else { a }, c]);
            let sum = right.plain("add", &[first, second]);
            right.output(sum);
            let inputs = left.inputs();
            compare(&left.graph, &right.graph, &inputs)
        };
        assert_eq!(sides(true), Outcome::Equal);
        assert_eq!(
            sides(false),
            Outcome::Differs {
                output: 0,
                position: 0
            }
        );
    }

    #[test]
    fn opaque_functions_are_equal_only_to_themselves() {
        let side = |op: &'static str| {
            let mut graph = GraphBuilder::new("side", 1);
            let x = graph.input(&[3]);
            let y = graph.plain(op, &[x]);
            graph.output(y);
            graph
        };
        let (mut tanh, erf) = (side("tanh"), side("erf"));
        let inputs = tanh.inputs();
        assert_eq!(compare(&tanh.graph, &tanh.graph, &inputs), Outcome::Equal);
        assert_eq!(compare(&tanh.graph, &erf.graph, &inputs), Outcome::Unknown);
    }
}
