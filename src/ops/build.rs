//! What expansions build with: constants and the commonest core ops by a method each.

use super::evaluate::{filled, scalar};
use super::{
    AttrDef, AttrDefault, AttrKind, ExpandCtx, Lowering, OpDef, OpError, Operands, Reach, Tolerance,
    evaluate, infer, samples,
};
use crate::ir::{Attr, Attrs, DType, HostTensor, ValueId};

/// An extent as ONNX's integers.
pub fn signed(extent: usize) -> i64 {
    i64::try_from(extent).expect("extents fit in i64")
}

/// An `axis` attribute.
pub fn axis_attr(axis: usize) -> Attrs {
    Attrs::new().with("axis", Attr::Int(i64::try_from(axis).expect("ranks are small")))
}

/// An attribute list entry with an integer default.
pub const fn int_attr(name: &'static str, default: i64) -> AttrDef {
    AttrDef {
        name,
        kind: AttrKind::Int,
        default: AttrDefault::Int(default),
    }
}

/// An attribute list entry with a float default.
pub const fn float_attr(name: &'static str, default: f64) -> AttrDef {
    AttrDef {
        name,
        kind: AttrKind::Float,
        default: AttrDefault::Float(default),
    }
}

/// An attribute list entry with a string default.
pub const fn str_attr(name: &'static str, default: &'static str) -> AttrDef {
    AttrDef {
        name,
        kind: AttrKind::Str,
        default: AttrDefault::Str(default),
    }
}

/// An attribute that may be absent.
pub const fn optional_attr(name: &'static str, kind: AttrKind) -> AttrDef {
    AttrDef {
        name,
        kind,
        default: AttrDefault::Absent,
    }
}

/// An attribute that must be given.
pub const fn required_attr(name: &'static str, kind: AttrKind) -> AttrDef {
    AttrDef {
        name,
        kind,
        default: AttrDefault::Required,
    }
}

/// What ONNX forms have in common: types, meaning and code are those of their expansion.
pub const FORM: OpDef = OpDef {
    name: "",
    onnx: &[],
    operands: Operands::exactly(&["x"]),
    attrs: &[],
    infer: infer::BY_EXPANSION,
    eval: evaluate::BY_EXPANSION,
    lower: Lowering::Host("an op that only expands"),
    samples: samples::NONE,
    tolerance: Tolerance::Close,
    halves: None,
    reach: Reach::Elements,
};

impl ExpandCtx<'_> {
    /// Type dims and kind of a value of the graph.
    pub fn dims_of(&self, value: ValueId) -> Vec<usize> {
        self.graph.ty(value).dims()
    }

    pub fn dtype_of(&self, value: ValueId) -> DType {
        self.graph.ty(value).dtype
    }

    /// A scalar constant.
    pub fn scalar(&mut self, dtype: DType, value: f64) -> ValueId {
        self.weight(scalar(dtype, value))
    }

    /// A constant of one value.
    pub fn filled(&mut self, dtype: DType, dims: &[usize], value: f64) -> ValueId {
        self.weight(filled(dtype, dims, value))
    }

    /// An op without attributes.
    ///
    /// # Errors
    /// If the operand types do not fit.
    pub fn plain(&mut self, op: &'static str, operands: &[ValueId]) -> Result<ValueId, OpError> {
        self.emit(op, operands, Attrs::new())
    }

    /// `value` under other dims; itself where they are its own.
    ///
    /// # Errors
    /// If the counts differ.
    pub fn reshape(&mut self, value: ValueId, dims: &[usize]) -> Result<ValueId, OpError> {
        if self.dims_of(value) == dims {
            return Ok(value);
        }
        // A constant is reshaped for free, and stays a constant for expansions that ask for one.
        if let Some(data) = self.constant_of(value)
            && data.n_elements() == dims.iter().product::<usize>()
        {
            let reshaped = data.reshaped(dims);
            return Ok(self.weight(reshaped));
        }
        let dims = dims
            .iter()
            .map(|&extent| i64::try_from(extent).expect("extents fit in i64"))
            .collect();
        self.emit("reshape", &[value], Attrs::new().with("shape", Attr::Ints(dims)))
    }

    /// A vector along axis `axis` of a tensor of rank `rank`, as a shape that broadcasts.
    ///
    /// # Errors
    /// If `value` has more than one axis.
    pub fn along_axis(&mut self, value: ValueId, axis: usize, rank: usize) -> Result<ValueId, OpError> {
        let mut dims = vec![1; rank.saturating_sub(axis).max(1)];
        dims[0] = self.dims_of(value).iter().product();
        self.reshape(value, &dims)
    }

    /// An op of two operands.
    ///
    /// # Errors
    /// If the operand types do not fit.
    pub fn binary(&mut self, op: &'static str, a: ValueId, b: ValueId) -> Result<ValueId, OpError> {
        self.plain(op, &[a, b])
    }

    /// An op of `value` and a number of its kind.
    ///
    /// # Errors
    /// If the kind has no such op.
    pub fn with_number(&mut self, op: &'static str, value: ValueId, number: f64) -> Result<ValueId, OpError> {
        let number = self.scalar(self.dtype_of(value), number);
        self.plain(op, &[value, number])
    }

    /// `value` with axes in another order; itself where the order is its own.
    ///
    /// # Errors
    /// If `perm` is not a permutation.
    pub fn transpose(&mut self, value: ValueId, perm: &[usize]) -> Result<ValueId, OpError> {
        if perm.iter().copied().eq(0..perm.len()) {
            return Ok(value);
        }
        let perm = perm
            .iter()
            .map(|&axis| i64::try_from(axis).expect("axes fit in i64"))
            .collect();
        self.emit("transpose", &[value], Attrs::new().with("perm", Attr::Ints(perm)))
    }

    /// `value` converted to another kind; itself where it is of that kind.
    ///
    /// # Errors
    /// If the kinds have no conversion.
    pub fn cast(&mut self, value: ValueId, to: DType) -> Result<ValueId, OpError> {
        if self.dtype_of(value) == to {
            return Ok(value);
        }
        self.emit("cast", &[value], Attrs::new().with("to", Attr::DType(to)))
    }

    /// `value` repeated to `dims`; itself where they are its own.
    ///
    /// # Errors
    /// If it does not broadcast to `dims`.
    pub fn expand(&mut self, value: ValueId, dims: &[usize]) -> Result<ValueId, OpError> {
        if self.dims_of(value) == dims {
            return Ok(value);
        }
        let shape = super::samples::ints_attr(dims);
        self.emit("expand", &[value], Attrs::new().with("shape", shape))
    }

    /// A reduction over `axes`, which keeps them as extents of one.
    ///
    /// # Errors
    /// If the kind has no such reduction.
    pub fn reduce(&mut self, op: &'static str, value: ValueId, axes: &[usize]) -> Result<ValueId, OpError> {
        let axes = super::samples::ints_attr(axes);
        self.emit(op, &[value], Attrs::new().with("axes", axes))
    }

    /// Elements `range` of axis `axis`; `value` itself where these are all.
    ///
    /// # Errors
    /// If the range leaves the axis.
    pub fn part(
        &mut self,
        value: ValueId,
        axis: usize,
        range: std::ops::Range<usize>,
    ) -> Result<ValueId, OpError> {
        let mut ends = self.dims_of(value);
        if range == (0..ends[axis]) {
            return Ok(value);
        }
        let mut starts = vec![0; ends.len()];
        (starts[axis], ends[axis]) = (range.start, range.end);
        self.slice(value, &starts, &ends)
    }

    /// The elements from `starts` up to `ends`, a value of its own even where these are all.
    ///
    /// # Errors
    /// If they leave an axis.
    pub fn slice(&mut self, value: ValueId, starts: &[usize], ends: &[usize]) -> Result<ValueId, OpError> {
        let attrs = Attrs::new()
            .with("starts", samples::ints_attr(starts))
            .with("ends", samples::ints_attr(ends))
            .with("steps", samples::ints_attr(&vec![1; starts.len()]));
        self.emit("slice", &[value], attrs)
    }

    /// `values` one after the other along `axis`; the value itself where there is one.
    ///
    /// # Errors
    /// If other extents or kinds differ.
    pub fn joined(&mut self, values: &[ValueId], axis: usize) -> Result<ValueId, OpError> {
        if let [only] = values {
            return Ok(*only);
        }
        self.emit("concat", values, axis_attr(axis))
    }

    /// `value` limited to `low..=high`.
    ///
    /// # Errors
    /// If its kind has no order.
    pub fn clamp(&mut self, value: ValueId, low: f64, high: f64) -> Result<ValueId, OpError> {
        let attrs = Attrs::new()
            .with("low", Attr::Float(low))
            .with("high", Attr::Float(high));
        self.emit("clamp", &[value], attrs)
    }

    /// `a` where `cond` holds, `b` elsewhere.
    ///
    /// # Errors
    /// If kinds or shapes do not fit.
    pub fn select(&mut self, cond: ValueId, a: ValueId, b: ValueId) -> Result<ValueId, OpError> {
        self.plain("where", &[cond, a, b])
    }

    /// A selection by index along `axis`: `gather` or `gather_elements`.
    ///
    /// # Errors
    /// If the indices do not fit.
    pub fn gathered(
        &mut self,
        op: &'static str,
        value: ValueId,
        index: ValueId,
        axis: usize,
    ) -> Result<ValueId, OpError> {
        let axis = i64::try_from(axis).expect("ranks are small");
        self.emit(op, &[value, index], Attrs::new().with("axis", Attr::Int(axis)))
    }

    /// A reduction over `axes`, which it drops.
    ///
    /// # Errors
    /// If the kind has no such reduction.
    pub fn dropped(&mut self, op: &'static str, value: ValueId, axes: &[usize]) -> Result<ValueId, OpError> {
        let kept = self.reduce(op, value, axes)?;
        let dims: Vec<usize> = (self.dims_of(value).into_iter().enumerate())
            .filter(|(axis, _)| !axes.contains(axis))
            .map(|(_, extent)| extent)
            .collect();
        self.reshape(kept, &dims)
    }

    /// An integer constant.
    pub fn integers(&mut self, dims: &[usize], values: &[i64]) -> ValueId {
        self.weight(HostTensor::from_i64(dims, values))
    }

    /// The integers `first`, `first + step`, .. as a constant.
    ///
    /// # Errors
    /// If they are too many for a table.
    pub fn counted_up(&mut self, first: i64, step: i64, dims: &[usize]) -> Result<ValueId, OpError> {
        let count = signed(infer::table_entries(dims)?);
        let values: Vec<i64> = (0..count).map(|n| first + n * step).collect();
        Ok(self.integers(dims, &values))
    }

    /// Which elements of an axis of `extent` are there, where `count` are.
    ///
    /// # Errors
    /// If `count` is no `i64`, or the axis too long for a table.
    pub fn present(&mut self, extent: usize, count: ValueId) -> Result<ValueId, OpError> {
        let positions = self.counted_up(0, 1, &[extent])?;
        self.binary("less", positions, count)
    }

    /// A constant of kind `dtype`, from values computed in `f64`.
    pub fn numbers(&mut self, dtype: DType, dims: &[usize], values: &[f64]) -> ValueId {
        self.weight(super::evaluate::from_values(dtype, dims, values))
    }

    /// The one integer in constant operand `n`; `None` if the operand is absent.
    ///
    /// # Errors
    /// If it is no constant, or not one number.
    pub fn constant_int(&self, n: usize) -> Result<Option<i64>, OpError> {
        let Some(data) = self.constant(n)? else {
            return Ok(None);
        };
        match super::evaluate::to_vec::<i64>(&data)[..] {
            [only] if data.dtype().is_int() => Ok(Some(only)),
            _ => Err(OpError::invalid(format!(
                "operand {n} must be one integer, found `{}`",
                data.ty()
            ))),
        }
    }

    fn constant_of(&self, value: ValueId) -> Option<&HostTensor> {
        self.graph.weight(value)
    }
}
