//! What every attention kernel shares: sizes, reads of the operands, scores and the store.
//!
//! Scores are kept as powers of two: they are multiplied by log2(e) together with the scale,
//! so that a weight is one `exp2`.

use std::fmt::Write as _;

use serde::Serialize;

use super::error::KernelError;
use super::source::Arch;
use super::spec::KernelSpec;
use crate::ir::tiled_view::TILE_ROW_BYTES;
use crate::ir::{DType, Node, TiledView};
use crate::kernel::body::main_loop::{After, Before, after, before, main_node};
use crate::kernel::body::region::{lane_index, operands};
use crate::kernel::print::expr::Printer;
use crate::kernel::print::types::{float_literal, storage_type, value_type};
use crate::kernel::print::vector::Lane;
use crate::tile::{Atom, Body, Extent, Index, VarId};

/// Sizes and settings of a region's attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    pub dtype: DType,
    pub batch: usize,
    pub heads: usize,
    pub key_heads: usize,
    pub queries: usize,
    pub keys: usize,
    pub depth: usize,
    pub value_depth: usize,
    scale: f64,
    softcap: f64,
    /// Query `i` sees keys up to `i + causal_offset`.
    pub causal_offset: Option<i64>,
}

/// The statements that turn a product into a score.
#[derive(Clone, Debug, Default)]
pub struct ScoreText {
    /// What all queries of one key share.
    pub per_key: String,
    /// Makes the score of `x`, at `key` and `query`; `key_at` is the key before it was limited
    /// to those that exist.
    pub own: String,
}

/// How rows of an operand get into shared memory.
#[derive(Clone, Debug)]
struct FillText {
    /// Fills `to` with the elements of one chunk.
    text: String,
    /// Whether the copy runs beside the thread.
    is_async: bool,
}

/// What templates are told that walk over tiles of keys, whatever multiplies.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TilesText {
    heads: usize,
    queries: usize,
    keys: usize,
    causal_offset: Option<String>,
    /// Whether any of the tiles is filled by copies that run beside the threads.
    pub is_async: bool,
    load_q: String,
    load_k: String,
    load_v: String,
    score_per_key: String,
    score: String,
    store: String,
}

/// How a template keeps tiles of an attention.
#[derive(Clone, Copy, Debug)]
pub struct Tiles<'a> {
    pub template: &'static str,
    pub keys: usize,
    /// Columns that are moved at once: of queries and keys, and of values and results.
    pub width: usize,
    pub value_width: usize,
    /// C++ type of the elements of a tile.
    pub ty: &'a str,
}

impl<'a> Tiles<'a> {
    /// Of 16-bit floats, moved 16 bytes at a time.
    pub fn of_halves(template: &'static str, keys: usize, ty: &'a str) -> Self {
        Tiles {
            template,
            keys,
            width: 8,
            value_width: 8,
            ty,
        }
    }
}

/// An operand in memory with a stride for each of batch, head and row.
#[derive(Clone, Debug)]
pub struct Boxed {
    /// Number of the region's input.
    pub input: usize,
    /// Axes column, row, head and batch.
    pub view: TiledView,
    /// Its first column in the view: views of others begin inside of them.
    pub first: usize,
}

impl Boxed {
    fn of(
        input: usize,
        position: &Index,
        vars: &[VarId],
        [batch, heads, rows, depth]: [usize; 4],
        tile_rows: usize,
        dtype: DType,
    ) -> Option<Boxed> {
        let is_linear = position
            .terms
            .iter()
            .all(|(atom, _)| matches!(atom, Atom::Var(_)));
        let first = usize::try_from(position.constant).ok()?;
        // Coordinates of copies have 32 bits.
        if !is_linear || i32::try_from(first + depth).is_err() {
            return None;
        }
        let element_bytes = dtype.size_bytes();
        let steps = vars.iter().map(|&var| stride(position, var));
        let [batch_step, head_step, row_step, step] =
            <[usize; 4]>::try_from(steps.collect::<Option<Vec<_>>>()?).ok()?;
        // An axis of one element has no stride of its own.
        let bytes = |step: usize, extent: usize| match (step, extent) {
            (0, 1) => Some(16),
            (0, _) => None,
            (step, _) => Some(step * element_bytes),
        };
        let strides = vec![
            bytes(row_step, rows)?,
            bytes(head_step, heads)?,
            bytes(batch_step, batch)?,
        ];
        (step == 1).then(|| Boxed {
            input,
            view: TiledView {
                element_bytes,
                dims: vec![first + depth, rows, heads, batch],
                strides,
                tile: vec![TILE_ROW_BYTES / element_bytes, tile_rows, 1, 1],
                pixels: None,
            },
            first,
        })
    }
}

fn stride(position: &Index, var: VarId) -> Option<usize> {
    usize::try_from(position.stride_of(var)?.as_known()?).ok()
}

impl Attention {
    /// Tiles of so many rows that a head has.
    pub fn row_tiles(&self, rows: usize) -> usize {
        self.queries.div_ceil(rows)
    }

    /// Those of all heads and batches.
    pub fn n_tiles(&self, rows: usize) -> usize {
        self.batch * self.heads * self.row_tiles(rows)
    }

    /// Rows, keys and depth of a tile, and warps.
    pub fn tile_name(&self, rows: usize, keys: usize, threads: usize) -> String {
        format!("{rows}x{keys}x{}_w{}", self.depth, threads / 32)
    }

    /// The attention of `spec`, if it is one over tensors that are not empty.
    pub fn of(spec: &KernelSpec) -> Option<(Attention, &Node)> {
        let node = main_node(spec).filter(|node| node.op == "attention")?;
        let ty = |n: usize| {
            node.operands
                .get(n)
                .copied()
                .flatten()
                .map(|value| spec.body.ty(value))
        };
        let (q, k, v) = (ty(0)?, ty(1)?, ty(2)?);
        let (&[batch, heads, queries, depth], &[_, key_heads, keys, _], &[.., value_depth]) =
            (q.dims().as_slice(), k.dims().as_slice(), v.dims().as_slice())
        else {
            return None;
        };
        let causal = node.attrs.int("causal").unwrap_or(0) != 0;
        let attention = Attention {
            dtype: q.dtype,
            batch,
            heads,
            key_heads,
            queries,
            keys,
            depth,
            value_depth,
            scale: node.attrs.float("scale").unwrap_or(1.0),
            softcap: node.attrs.float("softcap").unwrap_or(0.0),
            causal_offset: causal.then(|| node.attrs.int("causal_offset").unwrap_or(0)),
        };
        let sizes = [batch, heads, queries, keys, depth, value_depth];
        sizes.iter().all(|&size| size > 0).then_some((attention, node))
    }

    /// Rows of scores.
    pub fn n_rows(&self) -> usize {
        self.batch * self.heads * self.queries
    }

    /// Operand `n` in chunks of `width` elements, over batch, head, row, chunk and lane.
    ///
    /// # Errors
    /// If an op before the attention has no generated code.
    pub fn operand(
        &self,
        spec: &KernelSpec,
        node: &Node,
        n: usize,
        width: usize,
    ) -> Result<Before, KernelError> {
        let [_, _, rows, depth] = self.extents(n);
        let repeats = Extent::from(self.heads / self.key_heads);
        let value = node.operands[n].expect("attention has queries, keys and values");
        before(
            &spec.body,
            value,
            &[self.batch, self.heads, rows, depth / width, width],
            |body, vars| {
                let head = Index::var(vars[1]);
                let head = if n == 0 {
                    head
                } else {
                    head.div(&repeats, &body.vars)
                };
                vec![
                    Index::var(vars[0]),
                    head,
                    Index::var(vars[2]),
                    chunked(vars, width),
                ]
            },
        )
    }

    /// Operand `n` as the copy engine reads boxes of `rows` of its rows, where it is a strided tensor.
    pub fn boxed(&self, spec: &KernelSpec, node: &Node, n: usize, rows: usize) -> Option<Boxed> {
        let extents = self.extents(n);
        let value = node.operands[n].expect("attention has queries, keys and values");
        let at = |_: &Body, vars: &[VarId]| vars.iter().copied().map(Index::var).collect();
        let part = before(&spec.body, value, &extents, at).ok()?;
        let (input, position) = part.place(&operands(spec))?;
        let boxed = Boxed::of(input as usize, &position, &part.vars, extents, rows, self.dtype)?;
        let ty = &spec.input_types()[boxed.input];
        (ty.dtype == self.dtype && boxed.view.check(ty.n_bytes()).is_ok()).then_some(boxed)
    }

    /// Batches, heads, rows and depth of operand `n`.
    fn extents(&self, n: usize) -> [usize; 4] {
        match n {
            0 => [self.batch, self.heads, self.queries, self.depth],
            1 => [self.batch, self.key_heads, self.keys, self.depth],
            _ => [self.batch, self.key_heads, self.keys, self.value_depth],
        }
    }

    /// Statements that fill `to`, which points to elements of C++ type `ty`, from operand `n`
    /// at `batch`, `head`, `row` and `chunk`.
    ///
    /// # Errors
    /// If an op before the attention has no generated code.
    fn fill(
        &self,
        spec: &KernelSpec,
        node: &Node,
        n: usize,
        width: usize,
        ty: &str,
        arch: Arch,
    ) -> Result<FillText, KernelError> {
        let part = self.operand(spec, node, n, width)?;
        let lane = Lane {
            var: part.vars[4],
            width,
        };
        let inputs = operands(spec);
        let mut printer = Printer::new(&part.body, &inputs);
        bind(&mut printer, &part.vars, &["batch", "head", "row", "chunk"]);
        printer.set_depth(3);
        if let Some((input, first)) = part.plain(&inputs, lane) {
            let from = &inputs[input as usize];
            if storage_type(from.dtype) == ty && width * from.dtype.size_bytes() == 16 {
                let from = format!("{} + ({})", from.name, printer.index(&first));
                let is_async = arch.sm >= 80;
                printer.line(&if is_async {
                    format!("rt_async_copy_16(rt_shared_address(to), {from}, true);")
                } else {
                    format!("rt_copy_16(to, {from});")
                });
                return Ok(FillText {
                    text: printer.finish()?,
                    is_async,
                });
            }
        }
        let values = printer.lanes(lane, &[part.value]);
        printer.line(&format!("rt_store<{width}>(to, {});", values[0]));
        Ok(FillText {
            text: printer.finish()?,
            is_async: false,
        })
    }

    /// Sizes, loads, scores and the store for a template that walks over tiles of keys.
    ///
    /// # Errors
    /// If an op before or behind the attention, or the bias, has no generated code.
    pub fn tiles_text(
        &self,
        spec: &KernelSpec,
        node: &Node,
        tiles: Tiles<'_>,
        arch: Arch,
    ) -> Result<TilesText, KernelError> {
        let load = |n, width| self.fill(spec, node, n, width, tiles.ty, arch);
        let (q, k, v) = (
            load(0, tiles.width)?,
            load(1, tiles.width)?,
            load(2, tiles.value_width)?,
        );
        let score = self.score(spec, node, 3, tiles.keys)?;
        Ok(TilesText {
            heads: self.heads,
            queries: self.queries,
            keys: self.keys,
            causal_offset: self.causal_offset.map(|offset| offset.to_string()),
            is_async: q.is_async || k.is_async || v.is_async,
            load_q: q.text,
            load_k: k.text,
            load_v: v.text,
            score_per_key: score.per_key,
            score: score.own,
            store: self.store(spec, node, tiles.value_width, tiles.template)?,
        })
    }

    /// Statements that read a chunk of operand `n` into the array they name.
    ///
    /// # Errors
    /// If an op before the attention has no generated code.
    pub fn read(
        &self,
        spec: &KernelSpec,
        node: &Node,
        n: usize,
        width: usize,
        names: &[&str; 4],
        depth: usize,
    ) -> Result<(String, String), KernelError> {
        let part = self.operand(spec, node, n, width)?;
        let lane = Lane {
            var: part.vars[4],
            width,
        };
        let inputs = operands(spec);
        let mut printer = Printer::new(&part.body, &inputs);
        bind(&mut printer, &part.vars, names);
        printer.set_depth(depth);
        let values = printer.lanes(lane, &[part.value]);
        Ok((printer.finish()?, values[0].clone()))
    }

    /// Statements of a score; those per key are for depth `depth`, the others for one more.
    ///
    /// # Errors
    /// If the bias has no generated code.
    pub fn score(
        &self,
        spec: &KernelSpec,
        node: &Node,
        depth: usize,
        tile_keys: usize,
    ) -> Result<ScoreText, KernelError> {
        let log2_e = float_literal(std::f64::consts::LOG2_E, self.dtype == DType::F64);
        let (per_key, biased) = self.bias(spec, node, depth, &log2_e)?;
        let indent = "  ".repeat(depth + 1);
        let mut own = format!("{indent}x = {};\n{biased}", self.scaled());
        if let Some(seen) = self.seen(tile_keys) {
            let lowest = format!("rt_lowest<{}>()", value_type(self.dtype));
            writeln!(own, "{indent}x = {seen} ? x : {lowest};").expect("writing to a string succeeds");
        }
        Ok(ScoreText { per_key, own })
    }

    /// The expression that scales the product `x` to be a score, without its bias.
    pub fn scaled(&self) -> String {
        let literal = |value: f64| float_literal(value, self.dtype == DType::F64);
        let log2_e = std::f64::consts::LOG2_E;
        if self.softcap == 0.0 {
            return format!("x * {}", literal(self.scale * log2_e));
        }
        let (inner, outer) = (literal(self.scale / self.softcap), literal(self.softcap * log2_e));
        format!("rt_tanh(x * {inner}) * {outer}")
    }

    /// What products are multiplied by to be scores, where nothing else happens to them and their order
    /// stays.
    pub fn factor(&self, node: &Node) -> Option<f64> {
        let is_plain = self.softcap == 0.0 && node.operands.get(3).copied().flatten().is_none();
        (is_plain && self.scale > 0.0).then_some(self.scale * std::f64::consts::LOG2_E)
    }

    /// Whether `query` sees the key at `key_at`, where not all see all of whole tiles.
    pub fn seen(&self, tile_keys: usize) -> Option<String> {
        let tail = !self.keys.is_multiple_of(tile_keys);
        let tests = [
            tail.then(|| "key_at < kKeys".to_owned()),
            self.causal_offset
                .map(|offset| format!("key_at - query <= {offset}")),
        ];
        let tests: Vec<String> = tests.into_iter().flatten().collect();
        (!tests.is_empty()).then(|| tests.join(" && "))
    }

    fn bias(
        &self,
        spec: &KernelSpec,
        node: &Node,
        depth: usize,
        log2_e: &str,
    ) -> Result<(String, String), KernelError> {
        let Some(part) = self.bias_part(spec, node, 1)? else {
            return Ok((String::new(), String::new()));
        };
        let inputs = operands(spec);
        let mut printer = Printer::new(&part.body, &inputs);
        bind(&mut printer, &part.vars, &["batch", "head", "key", "query"]);
        printer.set_depth(depth);
        printer.hoist(part.value, &[part.vars[3]].into());
        let per_key = printer.take();
        printer.set_depth(depth + 1);
        let value = printer.value(part.value);
        printer.line(&format!("x += {value} * {log2_e};"));
        Ok((per_key, printer.finish()?))
    }

    /// Statements that read the bias of `width` neighbouring keys at `batch`, `head`, `keys` and `query`, and
    /// the array that has it then; `None` where there is no bias.
    ///
    /// # Errors
    /// If the bias has no generated code.
    pub fn near_bias(
        &self,
        spec: &KernelSpec,
        node: &Node,
        width: usize,
        depth: usize,
    ) -> Result<Option<(String, String)>, KernelError> {
        let Some(part) = self.bias_part(spec, node, width)? else {
            return Ok(None);
        };
        let inputs = operands(spec);
        let mut printer = Printer::new(&part.body, &inputs);
        bind(&mut printer, &part.vars, &["batch", "head", "keys", "query"]);
        printer.set_depth(depth);
        let lane = Lane {
            var: part.vars[4],
            width,
        };
        let values = printer.lanes(lane, &[part.value]);
        Ok(Some((printer.finish()?, values[0].clone())))
    }

    /// The bias over batch, head, vector of `width` keys, query and lane.
    fn bias_part(&self, spec: &KernelSpec, node: &Node, width: usize) -> Result<Option<Before>, KernelError> {
        let Some(bias) = node.operands.get(3).copied().flatten() else {
            return Ok(None);
        };
        let dims = spec.body.ty(bias).dims();
        let extents = [self.batch, self.heads, self.keys / width, self.queries, width];
        let at = |_: &Body, vars: &[VarId]| {
            let key = Index::var(vars[2])
                .times(&Extent::from(width))
                .plus(&lane_index(vars[4], width));
            let scores = [Index::var(vars[0]), Index::var(vars[1]), Index::var(vars[3]), key];
            let own = scores[4 - dims.len()..].iter();
            let of_axis = |(&extent, index): (&usize, &Index)| {
                if extent == 1 { Index::zero() } else { index.clone() }
            };
            dims.iter().zip(own).map(of_axis).collect()
        };
        before(&spec.body, bias, &extents, at).map(Some)
    }

    /// The region's outputs over batch, head, query, chunk and lane.
    ///
    /// # Errors
    /// If a view behind the attention has no generated code.
    pub fn after(&self, spec: &KernelSpec, node: &Node, width: usize) -> Result<Option<After>, KernelError> {
        let extents = [
            self.batch,
            self.heads,
            self.queries,
            self.value_depth / width,
            width,
        ];
        after(spec, node, &extents, |_, vars| {
            vec![
                Index::var(vars[0]),
                Index::var(vars[1]),
                Index::var(vars[2]),
                chunked(vars, width),
            ]
        })
    }

    /// Statements that store the array `value` of `width` elements at `batch`, `head`, `query`
    /// and `chunk`, one level inside a kernel.
    ///
    /// # Errors
    /// If the region does not store every element to one place.
    pub fn store(
        &self,
        spec: &KernelSpec,
        node: &Node,
        width: usize,
        template: &'static str,
    ) -> Result<String, KernelError> {
        let after = self
            .after(spec, node, width)?
            .ok_or_else(|| KernelError::NotAccepted {
                template,
                reason: "its views do not give every element one place".to_owned(),
            })?;
        let names = ["batch", "head", "query", "chunk"];
        after.print_store(spec, width, &names, "value", &[after.lane()].into())
    }

    /// Multiplications and additions, those that a causal mask spares left out.
    #[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
    pub fn seen_keys(&self) -> f64 {
        let keys = self.keys as f64;
        let Some(offset) = self.causal_offset else {
            return keys;
        };
        let (first, last) = (offset as f64 + 1.0, offset as f64 + self.queries as f64);
        f64::midpoint(first.clamp(0.0, keys), last.clamp(0.0, keys))
    }
}

/// Element `width * chunk + lane`.
fn chunked(vars: &[VarId], width: usize) -> Index {
    Index::var(vars[3])
        .times(&Extent::from(width))
        .plus(&lane_index(vars[4], width))
}

fn bind(printer: &mut Printer<'_>, vars: &[VarId], names: &[&str]) {
    for (&var, name) in vars.iter().zip(names) {
        printer.bind(var, name);
    }
}

/// The widest of `widths` that divides `depth`.
pub fn chunk_width(depth: usize, widths: &[usize]) -> usize {
    widths
        .iter()
        .copied()
        .find(|&width| depth.is_multiple_of(width))
        .unwrap_or(1)
}

/// Bytes of `RtParts` in shared memory.
pub fn parts_bytes(n_parts: usize, rows: usize, pitch: usize, value_bytes: usize) -> usize {
    let statistics = (2 * n_parts * rows * value_bytes).next_multiple_of(16);
    statistics + n_parts * rows * pitch * value_bytes
}
