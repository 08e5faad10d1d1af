//! Other instances of a rule, made from a pinned one.
//!
//! A pinned instance says what belongs together: equal extents are taken for one extent, and
//! mostly change together; permutations stay permutations, axes stay within the rank. What
//! does not fit the ops, or a condition, is rejected later, so that a variation may be bold.

use std::collections::BTreeMap;

use super::roles::{Role, Roles};
use crate::ir::{DType, TensorType};
use crate::ops::samples::Draw;
use crate::ops::{AttrDefault, all};
use crate::rewrite::canonicalize::work_graph::kind_name;
use crate::rewrite::rules::ast::{Expr, ExprKind, Name, Numbers, Span, TestEntry, TestValue};

/// Extents that drawn instances have; one is where broadcasting and views go wrong.
const EXTENTS: [usize; 10] = [1, 1, 2, 3, 4, 5, 6, 7, 8, 16];
/// Elements of one tensor of an instance.
const MAX_ELEMENTS: usize = 4096;
/// Numbers that rules treat differently; exact in every kind of float.
const FACTORS: [f64; 7] = [0.5, 2.0, 1.0, -1.5, -0.5, 0.0, 0.125];
const POSITIVE: [f64; 4] = [0.5, 2.0, 1.0, 0.125];
const FLOATS: [DType; 4] = [DType::F32, DType::F64, DType::F16, DType::BF16];
const NUMBERS: [DType; 8] = [
    DType::F32,
    DType::F64,
    DType::F16,
    DType::BF16,
    DType::I32,
    DType::I64,
    DType::I8,
    DType::U8,
];

/// The lines of an instance: one, or one per sibling.
pub type Instance = Vec<Vec<TestEntry>>;

/// A variation of `pinned`; `None` where it grew too large.
pub fn varied(pinned: &Instance, roles: &Roles, draw: &mut Draw) -> Option<Instance> {
    let mut variation = Variation::of(pinned, roles, draw);
    let mut instance = pinned.clone();
    for entry in instance.iter_mut().flatten() {
        variation.entry(entry);
    }
    let small = types(&instance).all(|ty| ty.n_elements() <= MAX_ELEMENTS);
    small.then_some(instance)
}

/// All tensor types of an instance.
pub fn types(instance: &Instance) -> impl Iterator<Item = &TensorType> {
    let entries = instance.iter().flatten();
    entries.flat_map(|entry| match &entry.value {
        TestValue::Input { ty, .. } | TestValue::Constant { ty, .. } => std::slice::from_ref(ty),
        TestValue::Inputs(types) => types.as_slice(),
        TestValue::Absent | TestValue::Attr(_) | TestValue::Attrs(_) | TestValue::Op(..) => &[],
    })
}

/// Largest rank of a tensor of an instance.
pub fn rank(instance: &Instance) -> usize {
    types(instance).map(|ty| ty.dims().len()).max().unwrap_or(0)
}

/// A change of the axes of all tensors.
#[derive(Clone, Copy)]
enum AxisChange {
    None,
    /// A new axis in front of position `at` of all tensors of the highest rank.
    Insert {
        at: usize,
        extent: usize,
    },
    /// Without the outermost axis.
    DropFirst,
}

struct Variation<'a> {
    roles: &'a Roles,
    draw: &'a mut Draw,
    extents: BTreeMap<usize, usize>,
    axes: AxisChange,
    /// Rank before and after.
    rank: usize,
    new_rank: usize,
    /// Dims that attributes may be made of.
    dims: Vec<Vec<usize>>,
    dtype: Option<(DType, DType)>,
    keeps_attrs: bool,
}

impl<'a> Variation<'a> {
    fn of(pinned: &Instance, roles: &'a Roles, draw: &'a mut Draw) -> Self {
        let rank = rank(pinned);
        let mut extents = BTreeMap::new();
        let calm = draw.below(3) == 0;
        for extent in types(pinned).flat_map(TensorType::dims) {
            let keeps = draw.below(3) == 0 || (calm && draw.bool());
            let new = if keeps { extent } else { draw.pick(&EXTENTS) };
            extents.entry(extent).or_insert(new);
        }
        let axes = match draw.below(8) {
            0 if rank > 0 => AxisChange::DropFirst,
            1 | 2 => AxisChange::Insert {
                at: draw.below(rank + 1),
                extent: draw.pick(&EXTENTS),
            },
            _ => AxisChange::None,
        };
        let new_rank = match axes {
            AxisChange::None => rank,
            AxisChange::Insert { .. } => rank + 1,
            AxisChange::DropFirst => rank - 1,
        };
        let mut variation = Variation {
            dtype: dtype_change(pinned, draw),
            keeps_attrs: draw.below(3) == 0,
            roles,
            draw,
            extents,
            axes,
            rank,
            new_rank,
            dims: Vec::new(),
        };
        variation.dims = types(pinned)
            .map(|ty| variation.changed_dims(&ty.dims()))
            .collect();
        variation
    }

    fn changed_dims(&self, dims: &[usize]) -> Vec<usize> {
        let mut dims: Vec<usize> = dims
            .iter()
            .map(|extent| self.extents.get(extent).copied().unwrap_or(*extent))
            .collect();
        if dims.len() == self.rank {
            match self.axes {
                AxisChange::None => {}
                AxisChange::Insert { at, extent } => dims.insert(at, extent),
                AxisChange::DropFirst => {
                    dims.remove(0);
                }
            }
        }
        dims
    }

    fn ty(&mut self, ty: &TensorType) -> TensorType {
        let mut dims = self.changed_dims(&ty.dims());
        // Now and then one extent goes its own way.
        if !dims.is_empty() && self.draw.below(6) == 0 {
            let axis = self.draw.below(dims.len());
            dims[axis] = self.draw.pick(&EXTENTS);
        }
        if self.draw.below(10) == 0 {
            dims = self.broadcast_dims();
        }
        TensorType::new(self.dtype(ty.dtype), &dims)
    }

    /// Dims that broadcast to those of some tensor of the instance.
    fn broadcast_dims(&mut self) -> Vec<usize> {
        let at = self.draw.below(self.dims.len());
        let dims = self.dims[at].clone();
        self.draw.broadcast_from(&dims)
    }

    fn dtype(&self, dtype: DType) -> DType {
        match self.dtype {
            Some((from, to)) if from == dtype => to,
            _ => dtype,
        }
    }

    fn entry(&mut self, entry: &mut TestEntry) {
        let name = entry.name.text.clone();
        match &mut entry.value {
            TestValue::Input { ty, .. } => *ty = self.ty(ty),
            TestValue::Constant { ty, value, numbers } => {
                // Given elements fix the shape; a given number does not.
                let is_list = value
                    .as_ref()
                    .is_some_and(|value| matches!(value.kind, ExprKind::List(_)));
                if is_list {
                    return;
                }
                *ty = self.ty(ty);
                // A given number is one of many; where the rule needs it, this does not fire.
                match (value.as_mut(), self.draw.below(4)) {
                    (Some(number), 0) => {
                        if is_positive(number) {
                            *numbers = Numbers::Positive;
                        }
                        *value = None;
                        if self.draw.bool() {
                            *ty = TensorType::new(ty.dtype, &self.broadcast_dims());
                        }
                    }
                    (Some(number), 1 | 2) if is_positive(number) => {
                        number.kind = ExprKind::Float(self.draw.pick(&POSITIVE));
                    }
                    (Some(_) | None, _) => {}
                }
            }
            TestValue::Inputs(types) => {
                for ty in types.iter_mut() {
                    *ty = self.ty(ty);
                }
                match (self.draw.below(6), types.last().cloned()) {
                    (0, Some(last)) => types.push(last),
                    (1, Some(_)) if types.len() > 1 => {
                        types.pop();
                    }
                    _ => {}
                }
            }
            TestValue::Absent => {}
            TestValue::Attr(value) => self.attr(self.roles.of_name(&name), value),
            TestValue::Attrs(attrs) => self.attrs(attrs),
            TestValue::Op(op, attrs) => {
                self.attrs(attrs);
                if self.draw.bool() {
                    op.text = self.relative(&op.text, attrs);
                    attrs.retain(|(name, _)| is_attribute(&op.text, &name.text));
                }
            }
        }
        let may_be_absent = self.roles.is_optional(&name) && self.draw.below(6) == 0;
        if may_be_absent {
            entry.value = TestValue::Absent;
        }
    }

    fn attrs(&mut self, attrs: &mut [(Name, Expr)]) {
        for (name, value) in attrs {
            self.attr(Role::of_attribute(&name.text), value);
        }
    }

    /// Another op of the family, of the same operands, whose required attributes are given.
    fn relative(&mut self, op: &str, given: &[(Name, Expr)]) -> String {
        let Some(own) = crate::ops::lookup(op) else {
            return op.to_owned();
        };
        let kind = kind_name(op);
        let relatives: Vec<&str> = all()
            .filter(|def| kind_name(def.name) == kind)
            .filter(|def| def.operands.required.len() == own.operands.required.len())
            .filter(|def| {
                let mut required = def
                    .attrs
                    .iter()
                    .filter(|attr| attr.default == AttrDefault::Required);
                required.all(|attr| given.iter().any(|(name, _)| name.text == attr.name))
            })
            .map(|def| def.name)
            .collect();
        if relatives.is_empty() {
            return op.to_owned();
        }
        self.draw.pick(&relatives).to_owned()
    }

    fn attr(&mut self, role: Role, value: &mut Expr) {
        let changed = match (role, &value.kind) {
            (_, ExprKind::DType(dtype)) => {
                let own = self.dtype(*dtype);
                let other = self.draw.pick(&NUMBERS);
                Some(ExprKind::DType(if self.draw.below(3) == 0 { other } else { own }))
            }
            _ if self.keeps_attrs && matches!(self.axes, AxisChange::None) => self.renamed(role, value),
            (Role::Permutation, ExprKind::List(items)) => Some(self.permutation(items.len())),
            (Role::Axes, ExprKind::List(_)) => Some(self.axes()),
            (Role::Axis, ExprKind::Int(_)) => Some(ExprKind::Int(self.below(self.new_rank.max(1)))),
            (Role::Extents, ExprKind::List(_)) => self.shape(value),
            (Role::Bounds, ExprKind::List(items)) => {
                let n = self.followed(items.len());
                let all = (0..n).map(|_| int(self.below(5))).collect();
                Some(ExprKind::List(all))
            }
            (Role::Steps, ExprKind::List(items)) => {
                let all = (0..self.followed(items.len()))
                    .map(|_| int(1 + self.below(3)))
                    .collect();
                Some(ExprKind::List(all))
            }
            (Role::Pads, ExprKind::List(items)) => {
                let all = (0..self.followed(items.len()))
                    .map(|_| int(self.below(3)))
                    .collect();
                Some(ExprKind::List(all))
            }
            (Role::Number, ExprKind::Float(own)) => {
                let keeps = self.draw.below(4) == 0;
                Some(ExprKind::Float(if keeps {
                    *own
                } else {
                    self.draw.pick(&FACTORS)
                }))
            }
            (Role::Count, ExprKind::Int(own)) => {
                let counts = [*own, *own, 0, 1, 2, 3];
                Some(ExprKind::Int(self.draw.pick(&counts)))
            }
            _ => None,
        };
        if let Some(changed) = changed {
            value.kind = changed;
        }
    }

    /// The pinned value under the new extents.
    fn renamed(&self, role: Role, value: &Expr) -> Option<ExprKind> {
        let ExprKind::List(items) = &value.kind else {
            return None;
        };
        if !matches!(role, Role::Extents | Role::Bounds) {
            return None;
        }
        let new = |item: &Expr| match &item.kind {
            ExprKind::Int(own) => {
                let extent = usize::try_from(*own).ok().and_then(|own| self.extents.get(&own));
                int(extent.map_or(*own, |&extent| signed(extent)))
            }
            _ => item.clone(),
        };
        Some(ExprKind::List(items.iter().map(new).collect()))
    }

    /// Length of a list with one entry per axis.
    fn followed(&self, len: usize) -> usize {
        if len == self.rank { self.new_rank } else { len }
    }

    fn below(&mut self, n: usize) -> i64 {
        signed(self.draw.below(n))
    }

    fn permutation(&mut self, len: usize) -> ExprKind {
        let n = self.followed(len);
        let mut left: Vec<usize> = (0..n).collect();
        let picked = (0..n).map(|_| {
            let at = self.draw.below(left.len());
            int(signed(left.remove(at)))
        });
        ExprKind::List(picked.collect())
    }

    fn axes(&mut self) -> ExprKind {
        let mut axes: Vec<i64> = (0..signed(self.new_rank)).filter(|_| self.draw.bool()).collect();
        if axes.is_empty() {
            axes.push(self.below(self.new_rank.max(1)));
        }
        ExprKind::List(axes.into_iter().map(int).collect())
    }

    /// Dims of as many elements as a tensor of the instance: neighbours joined, ones put in,
    /// axes turned.
    fn shape(&mut self, value: &Expr) -> Option<ExprKind> {
        if self.draw.below(4) == 0 || self.dims.is_empty() {
            return self.renamed(Role::Extents, value);
        }
        let at = self.draw.below(self.dims.len());
        let mut dims = self.dims[at].clone();
        for _ in 0..self.draw.below(4) {
            let n = dims.len();
            match self.draw.below(4) {
                0 if n > 1 => {
                    let axis = self.draw.below(n - 1);
                    let next = dims.remove(axis + 1);
                    dims[axis] *= next;
                }
                1 => {
                    let at = self.draw.below(n + 1);
                    dims.insert(at, 1);
                }
                2 if n > 1 => {
                    let (a, b) = (self.draw.below(n), self.draw.below(n));
                    dims.swap(a, b);
                }
                3 if n > 0 => {
                    let axis = self.draw.below(n);
                    let factor = self.draw.pick(&[2, 3, 4]);
                    if dims[axis].is_multiple_of(factor) {
                        dims[axis] /= factor;
                        dims.insert(axis, factor);
                    }
                }
                _ => {}
            }
        }
        Some(ExprKind::List(
            dims.into_iter().map(|extent| int(signed(extent))).collect(),
        ))
    }
}

/// Whether a given number is above zero: then it stands for such numbers.
fn is_positive(number: &Expr) -> bool {
    match number.kind {
        ExprKind::Int(value) => value > 0,
        ExprKind::Float(value) => value > 0.0,
        _ => false,
    }
}

fn is_attribute(op: &str, name: &str) -> bool {
    crate::ops::lookup(op).is_some_and(|def| def.attrs.iter().any(|attr| attr.name == name))
}

/// Sometimes the main kind of the instance becomes another one.
fn dtype_change(pinned: &Instance, draw: &mut Draw) -> Option<(DType, DType)> {
    let main = types(pinned)
        .map(|ty| ty.dtype)
        .find(|dtype| *dtype != DType::Bool)?;
    let to = match draw.below(6) {
        0 => draw.pick(&NUMBERS),
        1 | 2 => draw.pick(&FLOATS),
        _ => return None,
    };
    Some((main, to))
}

pub(super) fn int(value: i64) -> Expr {
    Expr {
        kind: ExprKind::Int(value),
        span: Span::default(),
    }
}

pub(super) fn signed(n: usize) -> i64 {
    i64::try_from(n).expect("extents fit in i64")
}
