//! The functions that conditions, lets and attribute expressions of rules may call.
//!
//! Each is pure and total: what it cannot answer is `None`. Axes and positions may be
//! negative, counting from the end. Adding one is one line in [`FUNCTIONS`].

use std::collections::HashMap;
use std::sync::LazyLock;

use super::facts::{Binding, Facts, Handle};
use super::ranges;
use super::sinking::{Sunk, inverse, perm_over_units, permute, sink};
use super::values::{Value, equal};
use crate::ir::{Attr, DType};

type Body = fn(&[Value], &dyn Facts) -> Option<Value>;

/// A function, for rules and for people.
pub struct Function {
    pub name: &'static str,
    /// Least and greatest number of arguments.
    pub arity: (usize, usize),
    pub doc: &'static str,
    body: Body,
}

impl Function {
    const fn new(name: &'static str, arity: (usize, usize), doc: &'static str, body: Body) -> Self {
        Function {
            name,
            arity,
            doc,
            body,
        }
    }

    pub fn call(&self, args: &[Value], facts: &dyn Facts) -> Option<Value> {
        let (least, greatest) = self.arity;
        (least..=greatest)
            .contains(&args.len())
            .then(|| (self.body)(args, facts))?
    }
}

const MANY: usize = usize::MAX;

/// Functions that only `horizontal` blocks know; the e-graph side evaluates them.
pub const SIBLING_FUNCTIONS: &[(&str, (usize, usize), &str)] = &[
    (
        "prefix",
        (1, 1),
        "sum of the expression over the siblings before this one",
    ),
    ("total", (1, 1), "sum of the expression over all siblings"),
    ("siblings", (0, 0), "number of siblings"),
];

/// Every function, sorted by subject.
pub static FUNCTIONS: &[Function] = &[
    // Types.
    Function::new("rank", (1, 1), "number of axes", |args, facts| {
        Value::count(dims(&args[0], facts)?.len())
    }),
    Function::new("dims", (1, 1), "extents, outermost first", |args, facts| {
        dims(&args[0], facts).map(Value::ints)
    }),
    Function::new("dim", (2, 2), "dim(x, axis): one extent", |args, facts| {
        let dims = dims(&args[0], facts)?;
        Some(Value::int(dims[at(&dims, &args[1])?]))
    }),
    Function::new("size", (1, 1), "number of elements", |args, facts| {
        Some(Value::int(dims(&args[0], facts)?.iter().product()))
    }),
    Function::new("dtype", (1, 1), "element kind", |args, facts| {
        let ty = facts.ty(args[0].as_handle()?)?;
        Some(Value::Bound(Binding::Attr(Attr::DType(ty.dtype))))
    }),
    Function::new(
        "is_float",
        (1, 1),
        "whether elements are floating point",
        |args, facts| kind_is(&args[0], facts, DType::is_float),
    ),
    Function::new(
        "is_int",
        (1, 1),
        "whether elements are integers (bool is not)",
        |args, facts| kind_is(&args[0], facts, DType::is_int),
    ),
    Function::new(
        "holds_all",
        (2, 2),
        "holds_all(wide, kind): whether every value of a kind is one of the wide kind",
        |args, _| match (args[0].attr()?, args[1].attr()?) {
            (Attr::DType(wide), Attr::DType(narrow)) => Some(Value::Bool(holds_all(*wide, *narrow))),
            _ => None,
        },
    ),
    Function::new("bytes", (1, 1), "bytes of the tensor", |args, facts| {
        let ty = facts.ty(args[0].as_handle()?)?;
        Value::count(ty.n_bytes())
    }),
    Function::new(
        "same_type",
        (2, 2),
        "whether kind and dims agree",
        |args, facts| {
            let (left, right) = (facts.ty(args[0].as_handle()?)?, facts.ty(args[1].as_handle()?)?);
            Some(Value::Bool(left == right))
        },
    ),
    Function::new(
        "aligned",
        (2, 2),
        "aligned(x, rank): extents with ones in front",
        |args, facts| {
            let (dims, rank) = (dims(&args[0], facts)?, usize::try_from(args[1].as_int()?).ok()?);
            let missing = rank.checked_sub(dims.len())?;
            Some(Value::ints([vec![1; missing], dims].concat()))
        },
    ),
    Function::new(
        "broadcast",
        (2, 2),
        "broadcast(a, b): dims of the two lists broadcast",
        |args, _| broadcast(args[0].as_ints()?, args[1].as_ints()?).map(Value::ints),
    ),
    // Where values come from.
    Function::new(
        "const",
        (1, MANY),
        "whether all are computed from weights alone",
        |args, facts| {
            let handles: Option<Vec<Vec<Handle>>> = args.iter().map(Value::handles).collect();
            Some(Value::Bool(
                handles?.iter().flatten().all(|&handle| facts.is_const(handle)),
            ))
        },
    ),
    Function::new(
        "scalar",
        (1, 1),
        "the value all elements of a constant equal",
        |args, facts| facts.scalar(args[0].as_handle()?).map(Value::float),
    ),
    Function::new(
        "uniform",
        (1, 1),
        "whether all elements of a constant are equal",
        |args, facts| Some(Value::Bool(facts.scalar(args[0].as_handle()?).is_some())),
    ),
    Function::new(
        "elements",
        (1, 1),
        "the elements of a small integer constant",
        |args, facts| facts.ints(args[0].as_handle()?).map(Value::ints),
    ),
    Function::new(
        "magnitude",
        (1, 1),
        "bound of the absolute values of a weight, or of a tensor of small integers",
        |args, facts| ranges::magnitude(args[0].as_handle()?, facts).map(Value::float),
    ),
    Function::new(
        "of_bytes",
        (1, 1),
        "whether the value is made of bytes, or is a weight that bytes or groups of four bits hold",
        |args, facts| Some(Value::Bool(ranges::of_bytes(args[0].as_handle()?, facts))),
    ),
    Function::new(
        "largest_sum",
        (2, 2),
        "largest_sum(w, axis): of absolute values of a weight, over all other axes",
        |args, facts| ranges::largest_sum(args[0].as_handle()?, args[1].as_int()?, facts).map(Value::float),
    ),
    Function::new(
        "causal_offset",
        (1, 1),
        "causal_offset(m): how far behind a query the last key is that a constant mask shows, where it hides all others",
        |args, facts| ranges::causal_offset(args[0].as_handle()?, facts).map(Value::int),
    ),
    Function::new(
        "consumers",
        (1, 1),
        "how many nodes read the value",
        |args, facts| Value::count(facts.consumers(args[0].as_handle()?)),
    ),
    Function::new(
        "kind",
        (1, 1),
        "tile kind of the op that makes the value",
        |args, facts| facts.kind(args[0].as_handle()?).map(Value::word),
    ),
    Function::new(
        "made_by",
        (2, MANY),
        "made_by(x, op, ..): whether one of the ops makes x",
        |args, facts| {
            let handle = args[0].as_handle()?;
            let is_one = |op: &Value| match op {
                Value::Bound(Binding::Word(op)) => facts.made_by(handle, op).is_some(),
                Value::Bound(_) | Value::Bool(_) => false,
            };
            Some(Value::Bool(args[1..].iter().any(is_one)))
        },
    ),
    Function::new(
        "any_transposed",
        (2, 2),
        "any_transposed(x, p): whether a transpose by p makes one of the values",
        |args, facts| {
            let (handles, perm) = (args[0].handles()?, args[1].as_ints()?);
            let is_turned = |handle: &Handle| {
                let made = facts.made_by(*handle, "transpose");
                made.is_some_and(|(attrs, _)| attrs.ints("perm") == Some(perm))
            };
            Some(Value::Bool(handles.iter().any(is_turned)))
        },
    ),
    Function::new("flops", (1, 1), "scalar operations per element", |args, facts| {
        Some(Value::float(facts.flops(args[0].as_handle()?)))
    }),
    Function::new(
        "absent",
        (1, 1),
        "whether an optional operand is absent",
        |args, _| Some(Value::Bool(args[0] == Value::Bound(Binding::Absent))),
    ),
    Function::new(
        "count",
        (1, 1),
        "how many values a `x..` stands for",
        |args, _| Value::count(args[0].handles()?.len()),
    ),
    // Equality.
    Function::new("same", (2, MANY), "whether all arguments are equal", |args, _| {
        Some(Value::Bool(args.windows(2).all(|pair| equal(&pair[0], &pair[1]))))
    }),
    Function::new(
        "near",
        (2, 2),
        "near(a, b): whether two numbers agree in six digits",
        |args, _| {
            let (left, right) = (args[0].as_float()?, args[1].as_float()?);
            Some(Value::Bool((left - right).abs() <= 1e-6 * right.abs()))
        },
    ),
    Function::new(
        "attr",
        (2, 2),
        "attr(a, name): one attribute of a bound set",
        |args, _| match args {
            [
                Value::Bound(Binding::Attrs(attrs) | Binding::Op(_, attrs)),
                Value::Bound(Binding::Word(name)),
            ] => {
                let attr = attrs.get(name)?;
                Some(Value::Bound(Binding::Attr(attr.clone())))
            }
            _ => None,
        },
    ),
    // Permutations: `p[i]` is the axis of the operand that becomes axis `i`.
    Function::new("inverse", (1, 1), "the permutation that undoes p", |args, _| {
        inverse(args[0].as_ints()?).map(Value::ints)
    }),
    Function::new(
        "compose",
        (2, 2),
        "compose(p, q): transpose by p, then by q",
        |args, _| permute(args[0].as_ints()?, args[1].as_ints()?).map(Value::ints),
    ),
    Function::new(
        "identity",
        (1, 1),
        "whether a permutation moves nothing",
        |args, _| {
            let perm = args[0].as_ints()?;
            Some(Value::Bool((0..).zip(perm).all(|(axis, &own)| axis == own)))
        },
    ),
    Function::new(
        "permute",
        (2, 2),
        "permute(list, p): entry p[i] of the list at each i",
        |args, _| permute(args[0].as_ints()?, args[1].as_ints()?).map(Value::ints),
    ),
    Function::new(
        "lookup",
        (2, 2),
        "lookup(axes, p): p[axis] for each axis",
        |args, _| permute(args[1].as_ints()?, args[0].as_ints()?).map(Value::ints),
    ),
    Function::new(
        "sunk_shape",
        (3, 3),
        "sunk_shape(dims, p, s): the dims that a reshape to s before a transpose by p would give, where it can come first",
        |args, _| sunk(args).map(|sunk| Value::ints(sunk.dims)),
    ),
    Function::new(
        "sunk_perm",
        (3, 3),
        "sunk_perm(dims, p, s): the transpose behind that reshape",
        |args, _| sunk(args).map(|sunk| Value::ints(sunk.perm)),
    ),
    Function::new(
        "perm_over_units",
        (3, 3),
        "perm_over_units(dims, s, p): the transpose that does what a reshape to s, which only moves ones, and a transpose by p do",
        |args, _| {
            perm_over_units(args[0].as_ints()?, args[1].as_ints()?, args[2].as_ints()?).map(Value::ints)
        },
    ),
    Function::new(
        "moves_units",
        (2, 2),
        "moves_units(dims, p): whether p only moves axes of extent one",
        |args, _| {
            let (dims, perm) = (args[0].as_ints()?, args[1].as_ints()?);
            let moved = permute(dims, perm)?;
            let order: Vec<i64> = perm
                .iter()
                .zip(&moved)
                .filter(|(_, extent)| **extent != 1)
                .map(|(axis, _)| *axis)
                .collect();
            Some(Value::Bool(order.is_sorted()))
        },
    ),
    Function::new(
        "swap_last",
        (1, 1),
        "swap_last(n): the permutation of n axes that exchanges the last two",
        |args, _| {
            let rank = args[0].as_int()?;
            let mut perm: Vec<i64> = (0..rank).collect();
            let n = perm.len();
            (n >= 2).then(|| perm.swap(n - 2, n - 1))?;
            Some(Value::ints(perm))
        },
    ),
    // Lists.
    Function::new("len", (1, 1), "number of entries", |args, _| {
        Value::count(args[0].as_ints()?.len())
    }),
    Function::new("at", (2, 2), "at(list, i): one entry", |args, _| {
        let list = args[0].as_ints()?;
        Some(Value::int(list[at(list, &args[1])?]))
    }),
    Function::new("prod", (1, 1), "product of a list", |args, _| {
        Some(Value::int(args[0].as_ints()?.iter().product()))
    }),
    Function::new("sum", (1, 1), "sum of a list", |args, _| {
        Some(Value::int(args[0].as_ints()?.iter().sum()))
    }),
    Function::new(
        "concat",
        (2, MANY),
        "lists and numbers, one behind the other",
        |args, _| {
            let mut all = Vec::new();
            for arg in args {
                match arg.as_int() {
                    Some(value) => all.push(value),
                    None => all.extend(arg.as_ints()?),
                }
            }
            Some(Value::ints(all))
        },
    ),
    Function::new("range", (2, 2), "range(a, b): a, a+1, .. below b", |args, _| {
        Some(Value::ints((args[0].as_int()?..args[1].as_int()?).collect()))
    }),
    Function::new("fill", (2, 2), "fill(n, v): v, n times", |args, _| {
        Some(Value::ints(vec![
            args[1].as_int()?;
            usize::try_from(args[0].as_int()?).ok()?
        ]))
    }),
    Function::new(
        "take",
        (2, 2),
        "take(list, n): the first n entries; a negative n leaves out that many",
        |args, _| {
            let list = args[0].as_ints()?;
            Some(Value::ints(list[..cut(list, &args[1])?].to_vec()))
        },
    ),
    Function::new(
        "drop",
        (2, 2),
        "drop(list, n): without the first n entries; a negative n keeps that many",
        |args, _| {
            let list = args[0].as_ints()?;
            Some(Value::ints(list[cut(list, &args[1])?..].to_vec()))
        },
    ),
    Function::new(
        "replace",
        (3, 3),
        "replace(list, i, v): with v at i",
        |args, _| {
            let mut list = args[0].as_ints()?.to_vec();
            let position = at(&list, &args[1])?;
            list[position] = args[2].as_int()?;
            Some(Value::ints(list))
        },
    ),
    Function::new("remove", (2, 2), "remove(list, i): without entry i", |args, _| {
        let mut list = args[0].as_ints()?.to_vec();
        list.remove(at(&list, &args[1])?);
        Some(Value::ints(list))
    }),
    Function::new(
        "insert",
        (3, 3),
        "insert(list, i, v): with v in front of entry i",
        |args, _| {
            let mut list = args[0].as_ints()?.to_vec();
            let position = usize::try_from(args[1].as_int()?)
                .ok()
                .filter(|&position| position <= list.len())?;
            list.insert(position, args[2].as_int()?);
            Some(Value::ints(list))
        },
    ),
    Function::new("sorted", (1, 1), "a list in rising order", |args, _| {
        let mut list = args[0].as_ints()?.to_vec();
        list.sort_unstable();
        Some(Value::ints(list))
    }),
    Function::new("contains", (2, 2), "contains(list, v)", |args, _| {
        Some(Value::Bool(args[0].as_ints()?.contains(&args[1].as_int()?)))
    }),
    Function::new("squeeze", (1, 1), "a list without its ones", |args, _| {
        let list = args[0].as_ints()?;
        Some(Value::ints(
            list.iter().copied().filter(|&extent| extent != 1).collect(),
        ))
    }),
    Function::new(
        "all_equal",
        (2, 2),
        "all_equal(list, v): whether every entry is v",
        |args, _| {
            let value = args[1].as_int()?;
            Some(Value::Bool(
                args[0].as_ints()?.iter().all(|&entry| entry == value),
            ))
        },
    ),
    Function::new(
        "scaled",
        (2, 2),
        "scaled(a, b): entries multiplied pairwise",
        |args, _| pairwise(args, i64::checked_mul),
    ),
    Function::new(
        "shifted",
        (2, 2),
        "shifted(a, b): entries added pairwise",
        |args, _| pairwise(args, i64::checked_add),
    ),
    // Numbers.
    Function::new("sqrt", (1, 1), "square root", |args, _| {
        Some(Value::float(args[0].as_float()?.sqrt()))
    }),
    Function::new("exp", (1, 1), "exponential", |args, _| {
        Some(Value::float(args[0].as_float()?.exp()))
    }),
    Function::new("min", (2, 2), "the smaller number", |args, _| {
        pick(args, |a, b| a <= b)
    }),
    Function::new("max", (2, 2), "the larger number", |args, _| {
        pick(args, |a, b| a >= b)
    }),
    Function::new(
        "power_of_two",
        (1, 1),
        "whether a number is a power of two, of any sign and exponent",
        |args, _| {
            let value = args[0].as_float()?.abs();
            Some(Value::Bool(value.is_normal() && value.log2().fract() == 0.0))
        },
    ),
];

/// The function spelled `name`.
pub fn lookup(name: &str) -> Option<&'static Function> {
    static BY_NAME: LazyLock<HashMap<&str, &Function>> = LazyLock::new(|| {
        FUNCTIONS
            .iter()
            .map(|function| (function.name, function))
            .collect()
    });
    BY_NAME.get(name).copied()
}

/// What [`sink`] makes of `(dims, p, s)`.
fn sunk(args: &[Value]) -> Option<Sunk> {
    sink(args[0].as_ints()?, args[1].as_ints()?, args[2].as_ints()?)
}

/// Dims of a value's type.
fn dims(value: &Value, facts: &dyn Facts) -> Option<Vec<i64>> {
    let dims = facts.ty(value.as_handle()?)?.shape.dims()?;
    dims.into_iter()
        .map(|extent| i64::try_from(extent).ok())
        .collect()
}

/// Whether every value of `narrow` is a value of `wide`.
fn holds_all(wide: DType, narrow: DType) -> bool {
    let bits = |dtype: DType| 8 * dtype.size_bytes();
    if wide == narrow || (narrow == DType::Bool && wide.is_int()) {
        return true;
    }
    match (wide, narrow) {
        (DType::F64, _) => bits(narrow) < 64,
        (DType::F32, DType::F64 | DType::I32 | DType::U32 | DType::I64 | DType::U64) => false,
        (DType::F32, _) => true,
        _ if wide.is_int() && narrow.is_int() => {
            let same_sign = wide.is_signed_int() == narrow.is_signed_int();
            bits(wide) > bits(narrow) && (same_sign || wide.is_signed_int())
        }
        _ => false,
    }
}

fn kind_is(value: &Value, facts: &dyn Facts, test: fn(DType) -> bool) -> Option<Value> {
    Some(Value::Bool(test(facts.ty(value.as_handle()?)?.dtype)))
}

/// Position `at` of a list, negative from its end.
fn at(list: &[i64], at: &Value) -> Option<usize> {
    let (at, len) = (at.as_int()?, i64::try_from(list.len()).ok()?);
    let position = usize::try_from(if at < 0 { at + len } else { at }).ok()?;
    (position < list.len()).then_some(position)
}

/// Where a list is cut in two; negative from its end.
fn cut(list: &[i64], at: &Value) -> Option<usize> {
    let (at, len) = (at.as_int()?, i64::try_from(list.len()).ok()?);
    let position = usize::try_from(if at < 0 { at + len } else { at }).ok()?;
    (position <= list.len()).then_some(position)
}

fn broadcast(left: &[i64], right: &[i64]) -> Option<Vec<i64>> {
    let rank = left.len().max(right.len());
    let extent = |dims: &[i64], axis: usize| (axis + dims.len()).checked_sub(rank).map_or(1, |own| dims[own]);
    (0..rank)
        .map(|axis| match (extent(left, axis), extent(right, axis)) {
            (left, right) if left == right => Some(left),
            (1, other) | (other, 1) => Some(other),
            (..) => None,
        })
        .collect()
}

fn pairwise(args: &[Value], combine: fn(i64, i64) -> Option<i64>) -> Option<Value> {
    let (left, right) = (args[0].as_ints()?, args[1].as_ints()?);
    if left.len() != right.len() {
        return None;
    }
    let entries: Option<Vec<i64>> = left.iter().zip(right).map(|(&a, &b)| combine(a, b)).collect();
    entries.map(Value::ints)
}

fn pick(args: &[Value], keeps_first: fn(f64, f64) -> bool) -> Option<Value> {
    let first = keeps_first(args[0].as_float()?, args[1].as_float()?);
    Some(args[usize::from(!first)].clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct NoFacts;

    impl Facts for NoFacts {
        fn ty(&self, _: Handle) -> Option<crate::ir::TensorType> {
            None
        }
        fn is_const(&self, _: Handle) -> bool {
            false
        }
        fn scalar(&self, _: Handle) -> Option<f64> {
            None
        }
        fn consumers(&self, _: Handle) -> usize {
            0
        }
        fn kind(&self, _: Handle) -> Option<&'static str> {
            None
        }
        fn flops(&self, _: Handle) -> f64 {
            0.0
        }
        fn made_by(&self, _: Handle, _: &str) -> Option<(crate::ir::Attrs, Vec<Option<Handle>>)> {
            None
        }
    }

    fn call(name: &str, args: &[Value]) -> Option<Value> {
        lookup(name).unwrap().call(args, &NoFacts)
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<&str> = FUNCTIONS.iter().map(|function| function.name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
    }

    #[test]
    fn a_permutation_and_its_inverse_cancel() {
        let perm = Value::ints(vec![0, 2, 3, 1]);
        let inverse = call("inverse", std::slice::from_ref(&perm)).unwrap();
        assert_eq!(inverse, Value::ints(vec![0, 3, 1, 2]));
        let both = call("compose", &[perm, inverse]).unwrap();
        assert_eq!(call("identity", &[both]), Some(Value::Bool(true)));
    }

    #[test]
    fn unit_axes_move_freely() {
        let perm = Value::ints(vec![0, 3, 1, 2]);
        let moves = |dims: &[i64]| call("moves_units", &[Value::ints(dims.to_vec()), perm.clone()]);
        assert_eq!(moves(&[2, 1, 1, 5]), Some(Value::Bool(true)));
        assert_eq!(moves(&[2, 1, 3, 5]), Some(Value::Bool(false)));
    }

    #[test]
    fn out_of_range_is_unknown() {
        let list = Value::ints(vec![1, 2]);
        assert_eq!(call("at", &[list.clone(), Value::int(-1)]), Some(Value::int(2)));
        assert_eq!(call("at", &[list.clone(), Value::int(2)]), None);
        assert_eq!(call("permute", &[list, Value::ints(vec![5])]), None);
    }
}
