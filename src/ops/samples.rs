//! Drawn operands for the property tests. The same seed always draws the same sample.

use super::evaluate::from_values;
use super::{Sample, SamplesFn};
use crate::ir::{Attr, Attrs, DType, HostTensor};

/// How many samples most ops draw.
pub const N_SAMPLES: u64 = 6;

/// A deterministic source of numbers.
pub struct Draw {
    state: u64,
}

impl Draw {
    /// The source for sample number `seed`; `None` once an op has had enough.
    pub fn for_seed(seed: u64) -> Option<Self> {
        (seed < N_SAMPLES).then(|| Draw::new(seed))
    }

    pub fn new(seed: u64) -> Self {
        Draw {
            state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1,
        }
    }

    /// Any 64 bits (the splitmix64 sequence).
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `n`, which is above zero.
    pub fn below(&mut self, n: usize) -> usize {
        #[expect(clippy::cast_possible_truncation, reason = "any bits will do")]
        let bits = self.bits() as usize;
        bits % n
    }

    /// A number in `low..=high`.
    pub fn int(&mut self, low: i64, high: i64) -> i64 {
        let span = usize::try_from(high - low + 1).expect("callers pass low <= high");
        low + i64::try_from(self.below(span)).expect("spans are small")
    }

    /// A number in `low..high`.
    pub fn float(&mut self, low: f64, high: f64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "53 bits are exact")]
        let unit = (self.bits() >> 11) as f64 / (1u64 << 53) as f64;
        low + unit * (high - low)
    }

    /// One of `choices`.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    pub fn bool(&mut self) -> bool {
        self.bits() & 1 == 1
    }

    /// Small dims of a rank in `ranks`.
    pub fn dims(&mut self, ranks: std::ops::RangeInclusive<usize>) -> Vec<usize> {
        let rank = ranks.start() + self.below(ranks.end() - ranks.start() + 1);
        (0..rank).map(|_| 1 + self.below(5)).collect()
    }

    /// Dims that broadcast to `dims`: some axes become one, some leading ones are left out.
    pub fn broadcast_from(&mut self, dims: &[usize]) -> Vec<usize> {
        let skipped = if self.bool() {
            0
        } else {
            self.below(dims.len() + 1)
        };
        let own = &dims[skipped..];
        own.iter()
            .map(|&extent| if self.below(3) == 0 { 1 } else { extent })
            .collect()
    }

    /// Floats in `low..high`.
    pub fn floats(&mut self, dtype: DType, dims: &[usize], low: f64, high: f64) -> HostTensor {
        let values: Vec<f64> = (0..count(dims)).map(|_| self.float(low, high)).collect();
        from_values(dtype, dims, &values)
    }

    /// Integers in `low..=high`.
    pub fn ints(&mut self, dtype: DType, dims: &[usize], low: i64, high: i64) -> HostTensor {
        let values: Vec<i64> = (0..count(dims)).map(|_| self.int(low, high)).collect();
        from_values(dtype, dims, &values)
    }

    pub fn bools(&mut self, dims: &[usize]) -> HostTensor {
        self.ints(DType::Bool, dims, 0, 1)
    }

    /// Harmless numbers of any kind: small, and distinct enough to notice a wrong index.
    pub fn tensor(&mut self, dtype: DType, dims: &[usize]) -> HostTensor {
        if dtype.is_float() {
            self.floats(dtype, dims, -3.0, 3.0)
        } else if dtype == DType::Bool {
            self.bools(dims)
        } else if dtype.is_signed_int() {
            self.ints(dtype, dims, -20, 20)
        } else {
            self.ints(dtype, dims, 0, 20)
        }
    }

    /// Floats of which some are zero, minus zero, infinite or NaN.
    pub fn wild_floats(&mut self, dtype: DType, dims: &[usize]) -> HostTensor {
        const SPECIAL: [f64; 9] = [
            0.0,
            -0.0,
            1.0,
            -1.0,
            0.5,
            -2.5,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::NAN,
        ];
        let values: Vec<f64> = (0..count(dims))
            .map(|_| {
                if self.below(3) == 0 {
                    self.pick(&SPECIAL)
                } else {
                    self.float(-8.0, 8.0)
                }
            })
            .collect();
        from_values(dtype, dims, &values)
    }
}

fn count(dims: &[usize]) -> usize {
    dims.iter().product()
}

/// A sample of present operands.
pub fn sample(operands: Vec<HostTensor>, attrs: Attrs) -> Option<Sample> {
    Some(Sample {
        operands: operands.into_iter().map(Some).collect(),
        attrs,
    })
}

/// Shape of sample `seed`: the first ones are a scalar and an empty tensor.
pub fn dims_for(draw: &mut Draw, seed: u64) -> Vec<usize> {
    match seed {
        0 => vec![],
        1 => vec![2, 0, 3],
        2 => vec![37],
        _ => draw.dims(1..=4),
    }
}

/// Float kind of sample `seed`.
pub fn float_for(seed: u64) -> DType {
    [
        DType::F32,
        DType::F32,
        DType::F32,
        DType::F64,
        DType::F16,
        DType::BF16,
    ][(seed % 6) as usize]
}

/// Number kind of sample `seed`.
pub fn number_for(seed: u64) -> DType {
    [
        DType::F32,
        DType::I64,
        DType::F32,
        DType::I32,
        DType::F16,
        DType::U8,
    ][(seed % 6) as usize]
}

/// For ops that only expand and are tested through their expansion's ops.
pub const NONE: SamplesFn = |_| None;

/// One operand of any float kind, special values among them.
pub fn any_float(seed: u64) -> Option<Sample> {
    let mut draw = Draw::for_seed(seed)?;
    let dims = dims_for(&mut draw, seed);
    sample(vec![draw.wild_floats(float_for(seed), &dims)], Attrs::new())
}

/// One operand of any number kind.
pub fn any_number(seed: u64) -> Option<Sample> {
    let mut draw = Draw::for_seed(seed)?;
    let dims = dims_for(&mut draw, seed);
    let dtype = number_for(seed);
    let x = if dtype.is_float() {
        draw.wild_floats(dtype, &dims)
    } else {
        draw.tensor(dtype, &dims)
    };
    sample(vec![x], Attrs::new())
}

/// One float operand in `low..high`.
pub fn float_in(seed: u64, low: f64, high: f64) -> Option<Sample> {
    let mut draw = Draw::for_seed(seed)?;
    let dims = dims_for(&mut draw, seed);
    sample(vec![draw.floats(float_for(seed), &dims, low, high)], Attrs::new())
}

/// Two broadcast operands of one number kind.
pub fn two_numbers(seed: u64) -> Option<Sample> {
    let mut draw = Draw::for_seed(seed)?;
    let dims = dims_for(&mut draw, seed);
    let other = draw.broadcast_from(&dims);
    let dtype = number_for(seed);
    let (a, b) = (draw.tensor(dtype, &dims), draw.tensor(dtype, &other));
    sample(if draw.bool() { vec![a, b] } else { vec![b, a] }, Attrs::new())
}

/// Two broadcast bool operands.
pub fn two_bools(seed: u64) -> Option<Sample> {
    let mut draw = Draw::for_seed(seed)?;
    let dims = dims_for(&mut draw, seed);
    let other = draw.broadcast_from(&dims);
    sample(vec![draw.bools(&dims), draw.bools(&other)], Attrs::new())
}

/// An integer-list attribute from sizes.
pub fn ints_attr(values: &[usize]) -> Attr {
    Attr::Ints(
        values
            .iter()
            .map(|&value| i64::try_from(value).expect("sizes are small"))
            .collect(),
    )
}
