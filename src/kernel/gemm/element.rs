//! The kinds that matrix instructions take operands in, and sum them in.

use serde::Serialize;

use crate::ir::DType;
use crate::kernel::body::rebuild::operands;
use crate::kernel::gemm::contraction::{Contraction, Side};
use crate::kernel::gemm::exact::is_exact;
use crate::kernel::gemm::operand::memory_kind;
use crate::kernel::gemm::parts::tensors;
use crate::kernel::print::expr::index_type;
use crate::kernel::print::types::{storage_type, value_type};
use crate::kernel::source::Arch;
use crate::kernel::spec::KernelSpec;
use crate::tile::{Expr, ExprId};

/// Terms whose sum surely fits 32 bits: products of two 8-bit integers are at most 2^14.
const MOST_TERMS: usize = 1 << 17;
/// Terms whose sum is at most 2^22, so that it takes no conversion to be a float.
const MOST_SMALL_TERMS: usize = 1 << 8;

/// The kinds in which instructions of a warp multiply what the products mean, the fastest first.
/// Instructions for 8-bit kinds want neighbours along `k`.
pub fn of_warps(contraction: &Contraction, spec: &KernelSpec, arch: Arch) -> Vec<DType> {
    let kinds = [Side::A, Side::B].map(|side| memory_kind(contraction, side));
    let all_are = |kind: DType| kinds.iter().all(|&own| is_exact(own, kind));
    let product = contraction.product;
    let mut found = Vec::new();
    if kinds == [DType::I8; 2] && arch.sm >= 80 && sums_fit(contraction) {
        found.push(DType::I8);
    }
    match product {
        DType::F16 | DType::BF16 => found.push(product),
        DType::F32 if all_are(DType::F16) => found.push(DType::F16),
        DType::F32 if all_are(DType::BF16) => found.push(DType::BF16),
        DType::F32 if spec.options.tf32 => found.push(DType::F32),
        _ => {}
    }
    found.retain(|&kind| kind == DType::F16 || arch.sm >= 80);
    found
}

/// As [`of_warps`], for the instructions of groups of warps.
pub fn of_groups(contraction: &Contraction, spec: &KernelSpec, arch: Arch) -> Vec<DType> {
    let kinds = [Side::A, Side::B].map(|side| memory_kind(contraction, side));
    let mut found = of_warps(contraction, spec, arch);
    if kinds == [DType::F8E4M3; 2] && contraction.product.is_float() {
        found.insert(0, DType::F8E4M3);
    }
    found.retain(|kind| kind.size_bytes() <= 2);
    found
}

/// Whether sums of 8-bit integers in 32 bits are what the product's own sums are, or nearer to the
/// true ones.
fn sums_fit(contraction: &Contraction) -> bool {
    match contraction.product {
        DType::I32 => true,
        product => product.is_float() && contraction.sizes.k <= MOST_TERMS,
    }
}

/// How the sums of the instructions reach the epilogue.
pub struct Sums {
    /// C++ types of the sums, and of what the epilogue takes them as.
    pub sum: &'static str,
    pub value: &'static str,
    /// The functions that load the one as the other, and that take it as the other.
    pub load: &'static str,
    pub taken: &'static str,
}

/// The C++ types of a kernel with matrix instructions, as templates have them.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TypesContext {
    index_type: &'static str,
    element: &'static str,
    /// Those of the instructions' sums, and of what the epilogue takes them as.
    sum: &'static str,
    value: &'static str,
    /// What loads the one as the other.
    load: &'static str,
}

impl TypesContext {
    pub fn new(element: DType, contraction: &Contraction, spec: &KernelSpec) -> TypesContext {
        let Sums { sum, value, load, .. } = sums(element, contraction);
        TypesContext {
            index_type: index_type(&tensors(spec)),
            element: storage_type(element),
            sum,
            value,
            load,
        }
    }
}

pub fn sums(element: DType, contraction: &Contraction) -> Sums {
    let sum = if element == DType::I8 { "int32_t" } else { "float" };
    let value = if is_taken_as_f32(contraction) {
        "float"
    } else {
        value_type(contraction.sum)
    };
    let is_small = contraction.sizes.k <= MOST_SMALL_TERMS;
    let (load, taken) = match (sum, value) {
        ("int32_t", "float") if is_small => ("rt_load_small", "rt_f32_of_small"),
        _ => ("rt_load", value),
    };
    Sums {
        sum,
        value,
        load,
        taken,
    }
}

/// Whether all that happens to the sum is that it becomes an `f32`.
fn is_taken_as_f32(contraction: &Contraction) -> bool {
    let body = &contraction.body;
    let is_sum =
        |id: &ExprId| matches!(body.expr(*id), Expr::Acc { slot, .. } if *slot == contraction.sum_slot);
    let is_cast = |expr: &Expr| {
        matches!(
            expr,
            Expr::Map {
                op: "cast",
                dtype: DType::F32,
                ..
            }
        )
    };
    let mut readers = body
        .exprs()
        .filter(|(_, expr)| operands(expr).iter().any(is_sum))
        .peekable();
    readers.peek().is_some()
        && readers.all(|(_, expr)| is_cast(expr))
        && !contraction.outputs.iter().any(is_sum)
}
