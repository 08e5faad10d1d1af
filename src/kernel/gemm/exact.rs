//! Casts that change no value.

use crate::ir::DType;
use crate::tile::{Body, Expr, ExprId};

/// Whether every value of `from` is one of `to`.
pub fn is_exact(from: DType, to: DType) -> bool {
    use DType::{BF16, F8E4M3, F16, F32, I8, I32, U8};
    from == to
        || matches!(
            (from, to),
            (F16 | BF16, F32) | (F8E4M3 | I8 | U8, F16 | BF16 | F32) | (I8 | U8, I32)
        )
}

/// `root` without casts that change no value.
pub fn uncast(body: &Body, root: ExprId) -> ExprId {
    match body.expr(root) {
        Expr::Map { op: "cast", args, .. } if is_exact(body.dtype(args[0]), body.dtype(root)) => {
            uncast(body, args[0])
        }
        _ => root,
    }
}
