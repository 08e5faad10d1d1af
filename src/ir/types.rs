//! Element kinds, extents and tensor types.

use std::fmt;

use smallvec::SmallVec;

/// Kind of one tensor element.
///
/// Names print as in the text IR (`f32`, `i64`, `bool`). Four- and two-bit kinds are held
/// one element per byte on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DType {
    F64,
    F32,
    F16,
    BF16,
    F8E4M3,
    F8E4M3Fnuz,
    F8E5M2,
    F8E5M2Fnuz,
    F8E8M0,
    F4E2M1,
    I64,
    I32,
    I16,
    I8,
    I4,
    I2,
    U64,
    U32,
    U16,
    U8,
    U4,
    U2,
    Bool,
}

impl DType {
    /// Every kind, in declaration order.
    pub const ALL: [DType; 23] = [
        DType::F64,
        DType::F32,
        DType::F16,
        DType::BF16,
        DType::F8E4M3,
        DType::F8E4M3Fnuz,
        DType::F8E5M2,
        DType::F8E5M2Fnuz,
        DType::F8E8M0,
        DType::F4E2M1,
        DType::I64,
        DType::I32,
        DType::I16,
        DType::I8,
        DType::I4,
        DType::I2,
        DType::U64,
        DType::U32,
        DType::U16,
        DType::U8,
        DType::U4,
        DType::U2,
        DType::Bool,
    ];

    /// Spelling in text IR, rules and messages.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F64 => "f64",
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::F8E4M3 => "f8e4m3",
            DType::F8E4M3Fnuz => "f8e4m3fnuz",
            DType::F8E5M2 => "f8e5m2",
            DType::F8E5M2Fnuz => "f8e5m2fnuz",
            DType::F8E8M0 => "f8e8m0",
            DType::F4E2M1 => "f4e2m1",
            DType::I64 => "i64",
            DType::I32 => "i32",
            DType::I16 => "i16",
            DType::I8 => "i8",
            DType::I4 => "i4",
            DType::I2 => "i2",
            DType::U64 => "u64",
            DType::U32 => "u32",
            DType::U16 => "u16",
            DType::U8 => "u8",
            DType::U4 => "u4",
            DType::U2 => "u2",
            DType::Bool => "bool",
        }
    }

    /// The kind spelled `name`, if any.
    pub fn from_name(name: &str) -> Option<DType> {
        DType::ALL.into_iter().find(|dtype| dtype.name() == name)
    }

    /// Bytes one element takes, on the host and in device memory.
    pub const fn size_bytes(self) -> usize {
        match self {
            DType::F64 | DType::I64 | DType::U64 => 8,
            DType::F32 | DType::I32 | DType::U32 => 4,
            DType::F16 | DType::BF16 | DType::I16 | DType::U16 => 2,
            DType::F8E4M3
            | DType::F8E4M3Fnuz
            | DType::F8E5M2
            | DType::F8E5M2Fnuz
            | DType::F8E8M0
            | DType::F4E2M1
            | DType::I8
            | DType::I4
            | DType::I2
            | DType::U8
            | DType::U4
            | DType::U2
            | DType::Bool => 1,
        }
    }

    /// Bits that tell one value from another.
    pub const fn bits(self) -> u32 {
        match self {
            DType::F64 | DType::I64 | DType::U64 => 64,
            DType::F32 | DType::I32 | DType::U32 => 32,
            DType::F16 | DType::BF16 | DType::I16 | DType::U16 => 16,
            DType::F8E4M3
            | DType::F8E4M3Fnuz
            | DType::F8E5M2
            | DType::F8E5M2Fnuz
            | DType::F8E8M0
            | DType::I8
            | DType::U8
            | DType::Bool => 8,
            DType::F4E2M1 | DType::I4 | DType::U4 => 4,
            DType::I2 | DType::U2 => 2,
        }
    }

    /// Whether values are floating point, of any width.
    pub const fn is_float(self) -> bool {
        matches!(
            self,
            DType::F64
                | DType::F32
                | DType::F16
                | DType::BF16
                | DType::F8E4M3
                | DType::F8E4M3Fnuz
                | DType::F8E5M2
                | DType::F8E5M2Fnuz
                | DType::F8E8M0
                | DType::F4E2M1
        )
    }

    /// Whether values are integers, signed or not; `bool` is not one.
    pub const fn is_int(self) -> bool {
        !self.is_float() && !matches!(self, DType::Bool)
    }

    /// Whether values are signed integers.
    pub const fn is_signed_int(self) -> bool {
        matches!(
            self,
            DType::I64 | DType::I32 | DType::I16 | DType::I8 | DType::I4 | DType::I2
        )
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One extent of a shape: a number, or a symbol such as `batch` that a binding replaces.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dim {
    Known(usize),
    Symbol(String),
}

impl Dim {
    /// The extent, where it is a number.
    pub fn known(&self) -> Option<usize> {
        match self {
            Dim::Known(extent) => Some(*extent),
            Dim::Symbol(_) => None,
        }
    }
}

impl From<usize> for Dim {
    fn from(extent: usize) -> Self {
        Dim::Known(extent)
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Known(extent) => write!(f, "{extent}"),
            Dim::Symbol(name) => f.write_str(name),
        }
    }
}

/// Extents of a tensor, outermost first. A scalar has none.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shape(pub SmallVec<[Dim; 6]>);

impl Shape {
    /// A shape of numbers only.
    pub fn known(dims: &[usize]) -> Self {
        Shape(dims.iter().map(|&extent| Dim::Known(extent)).collect())
    }

    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// The extents, where every one is a number.
    pub fn dims(&self) -> Option<Vec<usize>> {
        self.0.iter().map(Dim::known).collect()
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (position, dim) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str(",")?;
            }
            write!(f, "{dim}")?;
        }
        f.write_str("]")
    }
}

/// The most that one tensor may take: more than a device has for one, and little enough that sizes, strides and
/// numbers of blocks of every kernel are far from overflowing.
pub const MAX_TENSOR_BYTES: usize = 128 << 30;

/// Bytes of a tensor, or `None` where the product overflows.
pub fn checked_bytes(dtype: DType, dims: &[usize]) -> Option<usize> {
    dims.iter()
        .try_fold(dtype.size_bytes(), |bytes, &extent| bytes.checked_mul(extent))
        .filter(|&bytes| isize::try_from(bytes).is_ok())
}

/// Element kind and shape of a value; prints as `f32[batch,3,224,224]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TensorType {
    pub dtype: DType,
    pub shape: Shape,
}

impl TensorType {
    /// A type whose extents are all numbers.
    pub fn new(dtype: DType, dims: &[usize]) -> Self {
        TensorType {
            dtype,
            shape: Shape::known(dims),
        }
    }

    pub fn rank(&self) -> usize {
        self.shape.rank()
    }

    /// Extents of a type that is known to be bound.
    ///
    /// # Panics
    /// If a dim is still a symbol; [`crate::specialize`] leaves none.
    pub fn dims(&self) -> Vec<usize> {
        self.shape.dims().expect("specialize() bound every symbolic dim")
    }

    /// Whether a tensor takes more than [`MAX_TENSOR_BYTES`], extents of zero counted as one so that strides are
    /// limited, too; `false` where a dim is a symbol.
    pub fn is_too_large(&self) -> bool {
        self.shape.dims().is_some_and(|dims| {
            let dims: Vec<usize> = dims.into_iter().map(|extent| extent.max(1)).collect();
            checked_bytes(self.dtype, &dims).is_none_or(|bytes| bytes > MAX_TENSOR_BYTES)
        })
    }

    /// Number of elements of a bound type.
    pub fn n_elements(&self) -> usize {
        self.dims().iter().product()
    }

    /// Bytes of a bound type, stored densely.
    pub fn n_bytes(&self) -> usize {
        self.n_elements() * self.dtype.size_bytes()
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.dtype, self.shape)
    }
}
