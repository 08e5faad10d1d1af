//! `TfIdfVectorizer` over integers: how often each n-gram of a fixed pool occurs.

use super::build::{FORM, optional_attr, required_attr};
use super::{AttrKind, ExpandCtx, Lowering, OnnxOp, OpDef, OpError, infer};
use crate::ir::{Attrs, DType, ValueId};

/// N-grams are found by comparing every window with every entry of the pool.
pub static TF_IDF_VECTORIZER: OpDef = OpDef {
    name: "TfIdfVectorizer",
    onnx: &[OnnxOp::new("TfIdfVectorizer")],
    attrs: &[
        required_attr("max_gram_length", AttrKind::Int),
        required_attr("max_skip_count", AttrKind::Int),
        required_attr("min_gram_length", AttrKind::Int),
        required_attr("mode", AttrKind::Str),
        required_attr("ngram_counts", AttrKind::Ints),
        required_attr("ngram_indexes", AttrKind::Ints),
        optional_attr("pool_int64s", AttrKind::Ints),
        optional_attr("pool_strings", AttrKind::Strs),
        optional_attr("weights", AttrKind::Floats),
    ],
    lower: Lowering::Expand(vectorizer),
    ..FORM
};

pub static OPS: &[&OpDef] = &[&TF_IDF_VECTORIZER];

/// The n-grams of one length.
struct Pool {
    length: usize,
    /// One after the other.
    entries: Vec<i64>,
    /// Where each is counted.
    columns: Vec<usize>,
}

/// Pools of the wanted lengths, and the number of columns.
fn pools(attrs: &Attrs) -> Result<(Vec<Pool>, usize), OpError> {
    let Some(pool) = attrs.ints("pool_int64s") else {
        return Err(OpError::unsupported("n-grams of strings"));
    };
    let (counts, columns) = (
        infer::sizes(attrs, "ngram_counts")?,
        infer::sizes(attrs, "ngram_indexes")?,
    );
    let (shortest, longest) = (
        infer::int(attrs, "min_gram_length")?,
        infer::int(attrs, "max_gram_length")?,
    );
    let width = columns.iter().max().map_or(0, |last| last + 1);
    let (mut pools, mut n_known) = (Vec::new(), 0);
    for (n, &start) in counts.iter().enumerate() {
        let (length, end) = (n + 1, counts.get(n + 1).copied().unwrap_or(pool.len()));
        let entries = pool.get(start..end).ok_or_else(|| {
            OpError::invalid(format!(
                "attribute `ngram_counts` is {counts:?} for {} entries",
                pool.len()
            ))
        })?;
        let known = entries.len() / length;
        let own = columns.get(n_known..n_known + known).ok_or_else(|| {
            OpError::invalid("attribute `ngram_indexes` has fewer entries than there are n-grams")
        })?;
        n_known += known;
        let wanted = i64::try_from(length).is_ok_and(|length| (shortest..=longest).contains(&length));
        if wanted && known > 0 {
            pools.push(Pool {
                length,
                entries: entries[..known * length].to_vec(),
                columns: own.to_vec(),
            });
        }
    }
    Ok((pools, width))
}

fn vectorizer(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let x = ctx.value(0)?;
    let (pools, width) = pools(ctx.attrs)?;
    let dims = ctx.dims_of(x);
    let (rows, length) = match dims[..] {
        [] => (1, 1),
        [length] => (1, length),
        [rows, length] => (rows, length),
        _ => {
            return Err(OpError::invalid(format!(
                "n-grams of a sequence of dims {dims:?}"
            )));
        }
    };
    let x = ctx.cast(x, DType::I64)?;
    let x = ctx.reshape(x, &[rows, length])?;
    let skips = usize::try_from(infer::int(ctx.attrs, "max_skip_count")?).unwrap_or(0);
    infer::table_entries(&[rows, width])?;
    let mut total = ctx.filled(DType::F32, &[rows, width], 0.0);
    for pool in &pools {
        // Single entries have nothing to skip between them.
        let skips = if pool.length == 1 { 0 } else { skips };
        // Entries further apart than the sequence is long are in none.
        for distance in 1..=skips.saturating_add(1).min(length) {
            if let Some(found) = counted(ctx, x, pool, distance, width)? {
                total = ctx.binary("add", total, found)?;
            }
        }
    }
    let result = weighted(ctx, total, width)?;
    let dims = if dims.len() == 2 {
        vec![rows, width]
    } else {
        vec![width]
    };
    Ok(vec![ctx.reshape(result, &dims)?])
}

/// How often n-grams with entries `distance` apart occur, `[rows, width]`.
fn counted(
    ctx: &mut ExpandCtx<'_>,
    x: ValueId,
    pool: &Pool,
    distance: usize,
    width: usize,
) -> Result<Option<ValueId>, OpError> {
    let dims = ctx.dims_of(x);
    let Some(n_windows) = dims[1]
        .checked_sub((pool.length - 1) * distance)
        .filter(|&count| count > 0)
    else {
        return Ok(None);
    };
    let known = pool.columns.len();
    let mut found = None;
    for n in 0..pool.length {
        let entries = ctx.part(x, 1, n * distance..n * distance + n_windows)?;
        let entries = ctx.reshape(entries, &[dims[0], n_windows, 1])?;
        let wanted: Vec<i64> = pool
            .entries
            .iter()
            .skip(n)
            .step_by(pool.length)
            .copied()
            .collect();
        let wanted = ctx.integers(&[known], &wanted);
        let equal = ctx.binary("equal", entries, wanted)?;
        found = Some(match found {
            Some(found) => ctx.binary("and", found, equal)?,
            None => equal,
        });
    }
    let Some(found) = found else {
        return Ok(None);
    };
    let found = ctx.cast(found, DType::F32)?;
    let counts = ctx.dropped("reduce_sum", found, &[1])?;
    let mut columns = vec![0.0; known * width];
    for (n, column) in pool.columns.iter().enumerate() {
        columns[n * width + column] = 1.0;
    }
    let columns = ctx.numbers(DType::F32, &[known, width], &columns);
    ctx.binary("matmul", counts, columns).map(Some)
}

/// Counts, whether there are any, or one of these times weights.
fn weighted(ctx: &mut ExpandCtx<'_>, counts: ValueId, width: usize) -> Result<ValueId, OpError> {
    let mode = ctx.attrs.str("mode").unwrap_or_default().to_owned();
    let value = match mode.as_str() {
        "TF" => return Ok(counts),
        "TFIDF" => counts,
        "IDF" => ctx.clamp(counts, 0.0, 1.0)?,
        _ => {
            return Err(OpError::invalid(format!(
                "attribute `mode` must be `TF`, `IDF` or `TFIDF`, found `{mode}`"
            )));
        }
    };
    let Some(weights) = ctx.attrs.floats("weights").map(<[f64]>::to_vec) else {
        return Ok(value);
    };
    let columns = infer::sizes(ctx.attrs, "ngram_indexes")?;
    if weights.len() != columns.len() {
        return Err(OpError::invalid(
            "attributes `weights` and `ngram_indexes` differ in length",
        ));
    }
    let mut by_column = vec![0.0; width];
    for (column, weight) in columns.into_iter().zip(weights) {
        by_column[column] = weight;
    }
    let weights = ctx.numbers(DType::F32, &[width], &by_column);
    ctx.binary("mul", value, weights)
}
