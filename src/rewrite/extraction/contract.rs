//! What a region may hold: the promise between cone enumeration and the kernel templates.
//!
//! A cone is a root tensor and the producers inlined into it. It is legal when it has one of
//! the shapes of [`RegionKind`]; `classify` finds which. The rules of `rules/vertical` say
//! which producers may be inlined at all, this module what their sum must look like.

use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::FxHashMap;

use super::cost::DeviceRates;
use super::net::{Net, NetExpr, Use};
use super::parts::JOIN;
use super::regions::RegionKind;
use crate::ir::{Attr, DType};
use crate::ops::TileKind;

/// Views after a main loop: each result element has one place to be stored to.
const BIJECTIONS: [&str; 2] = ["reshape", "transpose"];
/// Views and conversions may stand between memory and a main loop's operand.
const CONVERSION: &str = "cast";
/// The one op of `TileKind::Other` that has a template of its own.
const ATTENTION: &str = "attention";
/// Views of tensors that may be parts of a join.
const PLACED_VIEWS: [&str; 2] = ["reshape", "slice"];
/// Row operators whose result at one place depends on the place, not on the row alone.
const SCANS: [&str; 2] = ["cum_sum", "cum_prod"];

/// Reductions that a product can take from the rows it reads: sums of functions of one element.
const ROW_STATISTICS: [&str; 4] = ["inverse_deviation", "inverse_rms", "reduce_sum", "reduce_mean"];
/// Fewest rows of a product that takes statistics of them; with fewer, the kernels that read
/// weights fastest take none.
const LEAST_STATISTIC_ROWS: usize = 9;
/// Shortest such row.
const LEAST_STATISTIC_DEPTH: usize = 16;

/// A product whose rows pass through registers alone, and are read once: at least so many of them, of so many terms
/// and with so many columns at most (`gemm_direct`).
const THIN_ROWS: usize = 4096;
const THIN_DEPTH: usize = 160;
const THIN_COLUMNS: usize = 64;

/// A root and the producers inlined into it.
pub struct Cone<'a> {
    pub net: &'a Net,
    pub device: &'a DeviceRates,
    pub root: usize,
    /// Each tensor of the cone, the root among them, and the expression that computes it.
    pub inlined: &'a BTreeMap<usize, usize>,
}

/// What a legal cone is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    pub kind: RegionKind,
    /// Tensors that depend on a main loop or a reduction: computed once per element.
    pub after: BTreeSet<usize>,
    /// Row length in elements, for rows.
    pub row: Option<usize>,
}

/// Where a value lies relative to the rows that reductions of the cone work on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Independent of every reduction: may be computed anywhere.
    Before,
    /// One value per element of a row, rows in order.
    Element,
    /// One value per row, rows in order.
    PerRow,
    /// One of the above with elements in another order.
    Moved,
}

impl Cone<'_> {
    /// The kind of region the cone is, if it is one.
    pub fn classify(&self) -> Option<Shape> {
        let anchors: Vec<usize> = self
            .inlined
            .keys()
            .copied()
            .filter(|&tensor| self.is_anchor(tensor))
            .collect();
        let shape = match anchors.as_slice() {
            [] => Shape {
                kind: RegionKind::Pointwise,
                after: BTreeSet::new(),
                row: None,
            },
            [anchor] => match self.expr(*anchor).kind {
                TileKind::Dot => self.around(*anchor, RegionKind::Dot)?,
                TileKind::Window => self.around(*anchor, RegionKind::Window)?,
                TileKind::Reduce => self
                    .rows(&anchors)
                    .or_else(|| self.around(*anchor, RegionKind::Reduce))?,
                TileKind::Other if self.expr(*anchor).op == ATTENTION => {
                    self.around(*anchor, RegionKind::Attention)?
                }
                TileKind::Other if self.expr(*anchor).op == JOIN => self.joined(*anchor)?,
                TileKind::Other => self.alone(*anchor)?,
                TileKind::Map | TileKind::View | TileKind::Index => return None,
            },
            _ => match self.product_with_statistics(&anchors) {
                Some(product) => self.around(product, RegionKind::Dot)?,
                None => self.rows(&anchors)?,
            },
        };
        self.keeps_private(&shape.after).then_some(shape)
    }

    fn expr(&self, tensor: usize) -> &NetExpr {
        &self.net.exprs[self.inlined[&tensor]]
    }

    fn is_anchor(&self, tensor: usize) -> bool {
        match self.expr(tensor).kind {
            TileKind::Map | TileKind::View | TileKind::Index => false,
            TileKind::Reduce | TileKind::Dot | TileKind::Window | TileKind::Other => true,
        }
    }

    /// An op that no other op may join.
    fn alone(&self, anchor: usize) -> Option<Shape> {
        (self.inlined.len() == 1).then(|| Shape {
            kind: RegionKind::Other,
            after: BTreeSet::from([anchor]),
            row: None,
        })
    }

    /// A join, and one view between it and each operand.
    fn joined(&self, anchor: usize) -> Option<Shape> {
        let operands: BTreeSet<usize> = self.expr(anchor).uses().map(|operand| operand.tensor).collect();
        let is_view = |tensor: usize| {
            let expr = self.expr(tensor);
            let reads_memory = || {
                expr.uses()
                    .all(|operand| !self.inlined.contains_key(&operand.tensor))
            };
            PLACED_VIEWS.contains(&expr.op) && operands.contains(&tensor) && reads_memory()
        };
        let mut others = self.inlined.keys().filter(|&&tensor| tensor != anchor);
        (anchor == self.root && others.all(|&tensor| is_view(tensor))).then(|| Shape {
            kind: RegionKind::Other,
            after: BTreeSet::from([anchor]),
            row: None,
        })
    }

    /// The one product of `anchors`, where all others are statistics of its rows.
    fn product_with_statistics(&self, anchors: &[usize]) -> Option<usize> {
        let mut products = anchors
            .iter()
            .copied()
            .filter(|&anchor| self.expr(anchor).kind == TileKind::Dot);
        let product = products.next()?;
        let others = anchors.iter().copied().filter(|&anchor| anchor != product);
        let statistics: Vec<usize> = others.collect();
        (Statistics {
            cone: self,
            product,
            anchors: &statistics,
        }
        .fit())
        .then_some(product)
    }

    /// What depends on a main loop is never computed twice: all its readers are inside.
    fn keeps_private(&self, after: &BTreeSet<usize>) -> bool {
        let mut n_readers: FxHashMap<usize, usize> = FxHashMap::default();
        for &expr in self.inlined.values() {
            let mut read: Vec<usize> = self.net.exprs[expr]
                .uses()
                .map(|operand| operand.tensor)
                .collect();
            read.sort_unstable();
            read.dedup();
            for tensor in read {
                *n_readers.entry(tensor).or_default() += 1;
            }
        }
        let is_private = |tensor: &usize| {
            n_readers.get(tensor).copied().unwrap_or(0) == self.net.tensors[*tensor].consumers
        };
        after
            .iter()
            .filter(|&&tensor| tensor != self.root)
            .all(is_private)
    }

    /// One main loop, what its operands are made of, and what happens to its result.
    fn around(&self, anchor: usize, kind: RegionKind) -> Option<Shape> {
        let after = self.dependents(anchor);
        let n_elements = self.net.tensors[anchor].n_elements;
        for &tensor in after.iter().filter(|&&tensor| tensor != anchor) {
            let expr = self.expr(tensor);
            let allowed = match expr.kind {
                TileKind::Map => kind != RegionKind::Attention || expr.op == CONVERSION,
                TileKind::View => BIJECTIONS.contains(&expr.op),
                TileKind::Index | TileKind::Reduce | TileKind::Dot | TileKind::Window | TileKind::Other => {
                    false
                }
            };
            if !allowed || self.net.tensors[tensor].n_elements != n_elements {
                return None;
            }
        }
        self.operands_fit(anchor, kind).then_some(())?;
        self.sides_fit(anchor, &after, kind).then_some(())?;
        Some(Shape {
            kind,
            after,
            row: None,
        })
    }

    /// Tensors of the cone that depend on `anchor`, itself among them.
    fn dependents(&self, anchor: usize) -> BTreeSet<usize> {
        let mut found = BTreeSet::from([anchor]);
        for (&tensor, &expr) in self.inlined.range(anchor..) {
            if self.net.exprs[expr]
                .uses()
                .any(|operand| found.contains(&operand.tensor))
            {
                found.insert(tensor);
            }
        }
        found
    }

    /// Tensors of the cone that operand `n` of `anchor` is computed from.
    fn ancestors(&self, anchor: usize, n: usize) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        let mut open: Vec<usize> = self.expr(anchor).operands[n]
            .iter()
            .map(|operand| operand.tensor)
            .collect();
        while let Some(tensor) = open.pop() {
            if self.inlined.contains_key(&tensor) && found.insert(tensor) {
                open.extend(self.expr(tensor).uses().map(|operand| operand.tensor));
            }
        }
        found
    }

    fn operands_fit(&self, anchor: usize, kind: RegionKind) -> bool {
        let n_operands = self.expr(anchor).operands.len();
        // A scan has no rows to share: each of its elements adds up all before it, and would
        // compute them too.
        let is_scan = SCANS.contains(&self.expr(anchor).op);
        (0..n_operands).all(|n| {
            self.ancestors(anchor, n).into_iter().all(|tensor| {
                let expr = self.expr(tensor);
                match expr.kind {
                    TileKind::View => true,
                    TileKind::Map => match kind {
                        RegionKind::Dot => expr.op == CONVERSION || (n == 0 && self.is_scale(anchor)),
                        RegionKind::Window => expr.op == CONVERSION,
                        // The bias of attention is read element by element, like any load.
                        RegionKind::Attention => expr.op == CONVERSION || n >= 3,
                        RegionKind::Pointwise | RegionKind::Row | RegionKind::Reduce | RegionKind::Other => {
                            !is_scan || expr.op == CONVERSION
                        }
                    },
                    TileKind::Index => kind == RegionKind::Reduce && !is_scan,
                    TileKind::Reduce | TileKind::Dot | TileKind::Window | TileKind::Other => false,
                }
            })
        })
    }

    /// Whether what the first operand of a product is made of is rows of halves as they lie in
    /// memory, each column times its own number: matrix instructions take them from registers. Numbers that
    /// differ between rows, too, as gates of several images do, are for thin products, whose rows never lie elsewhere.
    fn is_scale(&self, product: usize) -> bool {
        let Some(Some(operand)) = self.expr(product).operands.first() else {
            return false;
        };
        let ty = &self.net.tensors[operand.tensor].ty;
        let Some(depth) = ty.dims().last().copied() else {
            return false;
        };
        let is_half = ty.dtype == DType::F16 || (ty.dtype == DType::BF16 && self.device.sm >= 80);
        let is_thin = self.is_thin(product, depth);
        let made = self.ancestors(product, 0);
        let products = made.iter().filter(|&&tensor| self.expr(tensor).op == "mul");
        let keeps_columns = |tensor: &usize| {
            let (expr, own) = (self.expr(*tensor), &self.net.tensors[*tensor]);
            let is_row = own.ty.dims().last() == Some(&depth);
            let tensor_elements = own.n_elements;
            let scale = |operand: &Use| {
                let scale = &self.net.tensors[operand.tensor];
                let is_shared = scale.n_elements == depth || (is_thin && scale.n_elements < tensor_elements);
                is_shared && scale.ty.dims().last() == Some(&depth)
            };
            match expr.op {
                "reshape" => is_row,
                "mul" => is_row && own.n_elements > depth && expr.uses().any(scale),
                _ => false,
            }
        };
        is_half && products.count() == 1 && made.iter().all(keeps_columns)
    }

    /// Whether a product of `depth` terms has many rows, and columns that a warp's registers hold.
    fn is_thin(&self, product: usize, depth: usize) -> bool {
        let columns = self.net.tensors[product].ty.dims().last().copied().unwrap_or(1);
        let rows = self.net.tensors[product].n_elements / columns.max(1);
        let other = self.expr(product).operands.get(1).and_then(Option::as_ref);
        let is_one_matrix =
            other.is_some_and(|other| self.net.tensors[other.tensor].n_elements == depth * columns);
        is_one_matrix && rows >= THIN_ROWS && depth <= THIN_DEPTH && columns <= THIN_COLUMNS
    }

    /// Operands of the epilogue are loads with maps and views on them.
    fn sides_fit(&self, anchor: usize, after: &BTreeSet<usize>, kind: RegionKind) -> bool {
        let n_operands = self.expr(anchor).operands.len();
        let before: BTreeSet<usize> = (0..n_operands).flat_map(|n| self.ancestors(anchor, n)).collect();
        let sides = self
            .inlined
            .keys()
            .filter(|tensor| !after.contains(tensor) && !before.contains(tensor));
        sides.into_iter().all(|&tensor| match self.expr(tensor).kind {
            TileKind::Map | TileKind::View => true,
            TileKind::Index => kind == RegionKind::Reduce,
            // Statistics of the product's rows, or the cone would have been refused before.
            TileKind::Reduce => kind == RegionKind::Dot,
            TileKind::Dot | TileKind::Window | TileKind::Other => false,
        })
    }

    /// Reductions over the same rows, with pointwise work around them.
    fn rows(&self, anchors: &[usize]) -> Option<Shape> {
        let (n_rows, row) = self.row_domain(anchors[0])?;
        let mut places: FxHashMap<usize, Place> = FxHashMap::default();
        for &tensor in self.inlined.keys() {
            let place = self.place(tensor, &places, n_rows, row)?;
            places.insert(tensor, place);
        }
        let after: BTreeSet<usize> = places
            .into_iter()
            .filter(|(_, place)| *place != Place::Before)
            .map(|(tensor, _)| tensor)
            .collect();
        Some(Shape {
            kind: RegionKind::Row,
            after,
            row: Some(row),
        })
    }

    /// Rows and row length of a reduction over trailing axes.
    fn row_domain(&self, anchor: usize) -> Option<(usize, usize)> {
        let expr = self.expr(anchor);
        if expr.kind != TileKind::Reduce || SCANS.contains(&expr.op) {
            return None;
        }
        let dims = self.net.tensors[expr.operands.first()?.as_ref()?.tensor]
            .ty
            .dims();
        let axes = reduced_axes(expr)?;
        let first = *axes.first()?;
        axes.iter().copied().eq(first..dims.len()).then(|| {
            let (outer, inner) = dims.split_at(first);
            (outer.iter().product(), inner.iter().product())
        })
    }

    fn place(
        &self,
        tensor: usize,
        places: &FxHashMap<usize, Place>,
        n_rows: usize,
        row: usize,
    ) -> Option<Place> {
        let expr = self.expr(tensor);
        let of = |operand: usize| places.get(&operand).copied().unwrap_or(Place::Before);
        let n_elements = self.net.tensors[tensor].n_elements;
        let by_size = |n: usize| {
            if n == n_rows * row {
                Some(Place::Element)
            } else {
                (n == n_rows).then_some(Place::PerRow)
            }
        };
        let free = expr.uses().all(|operand| of(operand.tensor) == Place::Before);
        match expr.kind {
            TileKind::Reduce => {
                let operand = expr.uses().next()?.tensor;
                let fits = matches!(of(operand), Place::Before | Place::Element)
                    && self.row_domain(tensor)? == (n_rows, row);
                fits.then(|| by_size(n_elements)).flatten()
            }
            TileKind::Map | TileKind::View | TileKind::Index if free => Some(Place::Before),
            TileKind::View => match (expr.op, of(expr.uses().next()?.tensor)) {
                ("reshape", place) => Some(place),
                ("transpose", _) => Some(Place::Moved),
                _ => None,
            },
            TileKind::Map => self.place_of_map(tensor, &of, row),
            TileKind::Index | TileKind::Dot | TileKind::Window | TileKind::Other => None,
        }
    }

    /// A map over values of rows: all operands that depend on a reduction line up with it.
    fn place_of_map(&self, tensor: usize, of: &impl Fn(usize) -> Place, row: usize) -> Option<Place> {
        let dims = self.net.tensors[tensor].ty.dims();
        let n_elements = self.net.tensors[tensor].n_elements;
        let mut place = None;
        for operand in self.expr(tensor).uses() {
            let own = &self.net.tensors[operand.tensor];
            let here = of(operand.tensor);
            let aligned = match here {
                Place::Before => continue,
                Place::Element | Place::Moved => own.n_elements == n_elements,
                Place::PerRow => {
                    own.n_elements == n_elements || repeats_along_row(&own.ty.dims(), &dims, row)
                }
            };
            let here = if here == Place::PerRow && own.n_elements != n_elements {
                Place::Element
            } else {
                here
            };
            // Two values in other orders need not be in the same one.
            if !aligned || place.is_some_and(|known| known != here || known == Place::Moved) {
                return None;
            }
            place = Some(here);
        }
        place
    }
}

/// Reductions beside a product, of the rows that the product reads.
struct Statistics<'c, 'a> {
    cone: &'c Cone<'a>,
    product: usize,
    anchors: &'c [usize],
}

impl Statistics<'_, '_> {
    /// Whether the main loop can take them, and every product meets those of its own row.
    fn fit(&self) -> bool {
        self.rows_fit() == Some(true)
            && self
                .anchors
                .iter()
                .all(|&anchor| self.is_taken_from_rows(anchor) == Some(true))
            && self.after_fits()
    }

    fn dims(&self, tensor: usize) -> Vec<usize> {
        self.cone.net.tensors[tensor].ty.dims()
    }

    /// The first operand of the product.
    fn source(&self) -> Option<usize> {
        let operands = &self.cone.expr(self.product).operands;
        Some(operands.first()?.as_ref()?.tensor)
    }

    /// Halves that matrix instructions take, in rows of the first operand as they lie in memory, all
    /// of which meet one matrix.
    fn rows_fit(&self) -> Option<bool> {
        let expr = self.cone.expr(self.product);
        let [source, weights] = [0, 1].map(|n| Some(expr.operands.get(n)?.as_ref()?.tensor));
        let (source, weights) = (source?, weights?);
        let (rows, columns) = (self.dims(source), self.dims(self.product));
        let dtype = self.cone.net.tensors[source].ty.dtype;
        let views = self.cone.ancestors(self.product, 0);
        let is_reshape = |tensor: &usize| self.cone.expr(*tensor).op == "reshape";
        let n_rows: usize = rows.split_last()?.1.iter().product();
        Some(
            (dtype == DType::F16 || (dtype == DType::BF16 && self.cone.device.sm >= 80))
                && self.dims(weights).len() == 2
                && rows.len() == columns.len()
                && n_rows >= LEAST_STATISTIC_ROWS
                && *columns.last()? > 1
                && *rows.last()? >= LEAST_STATISTIC_DEPTH
                && views.iter().all(is_reshape),
        )
    }

    fn is_taken_from_rows(&self, anchor: usize) -> Option<bool> {
        let expr = self.cone.expr(anchor);
        let source = self.source()?;
        let last = self.dims(source).len() - 1;
        Some(
            ROW_STATISTICS.contains(&expr.op)
                && expr.uses().next()?.tensor == source
                && reduced_axes(expr)? == [last],
        )
    }

    /// What depends on statistics is one number per row until it meets products, in the order
    /// of the product; and rows stay rows until they are stored.
    fn after_fits(&self) -> bool {
        let products = self.cone.dependents(self.product);
        let dims = self.dims(self.product);
        let keeps_rows = |tensor: usize| self.cone.expr(tensor).op != "transpose";
        let statistics: BTreeSet<usize> = self
            .anchors
            .iter()
            .flat_map(|&anchor| self.cone.dependents(anchor))
            .filter(|tensor| !self.anchors.contains(tensor))
            .collect();
        products.iter().all(|&tensor| keeps_rows(tensor))
            && statistics.iter().all(|&tensor| {
                let is_map = self.cone.expr(tensor).kind == TileKind::Map;
                let is_met = products.contains(&tensor);
                let below = |operand: usize| statistics.contains(&operand) && !products.contains(&operand);
                let reads_rows = self
                    .cone
                    .expr(tensor)
                    .uses()
                    .any(|operand| below(operand.tensor) || self.anchors.contains(&operand.tensor));
                match (is_met, reads_rows) {
                    (true, true) => is_map && self.dims(tensor) == dims,
                    (true, false) => true,
                    (false, _) => is_map && self.dims(tensor).last() == Some(&1),
                }
            })
    }
}

/// Whether a value of dims `own`, one per row, is repeated along trailing axes of `dims`
/// that are one row.
fn repeats_along_row(own: &[usize], dims: &[usize], row: usize) -> bool {
    let Some(skipped) = dims.len().checked_sub(own.len()) else {
        return false;
    };
    let extent = |axis: usize| axis.checked_sub(skipped).map_or(1, |axis| own[axis]);
    let mut length = 1;
    for axis in (0..dims.len()).rev() {
        if length == row && extent(axis) == dims[axis] {
            return (0..axis).all(|axis| extent(axis) == dims[axis]);
        }
        if extent(axis) != 1 {
            return false;
        }
        length *= dims[axis];
    }
    length == row
}

/// Axes a reduction combines, from its attributes.
fn reduced_axes(expr: &NetExpr) -> Option<Vec<usize>> {
    let axes = match (expr.attrs.get("axes"), expr.attrs.get("axis")) {
        (Some(Attr::Ints(axes)), _) => axes.clone(),
        (_, Some(Attr::Int(axis))) => vec![*axis],
        _ => return None,
    };
    axes.into_iter().map(|axis| usize::try_from(axis).ok()).collect()
}
