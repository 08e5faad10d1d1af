//! What happens to a finished sum: the rest of the region's expression, and the stores.

use std::collections::{BTreeMap, BTreeSet};

use crate::ir::DType;
use crate::kernel::body::free_vars::FreeVars;
use crate::kernel::body::rebuild::Rebuild;
use crate::kernel::body::region::{lane_index, results};
use crate::kernel::error::KernelError;
use crate::kernel::gemm::contraction::{BATCH, Contraction, M, N, Strips};
use crate::kernel::gemm::parts::tensors;
use crate::kernel::print::expr::{Operand, Printer};
use crate::kernel::print::store::{Stores, is_vector};
use crate::kernel::print::types::{storage_type, value_type};
use crate::kernel::print::vector::{Lane, without};
use crate::kernel::spec::KernelSpec;
use crate::tile::{Body, Expr, ExprId, Extent, Index, VarId};

/// The outputs over (batch, row, vector of columns, lane).
pub struct Epilogue {
    body: Body,
    vars: [VarId; 3],
    lane: Lane,
    sum_slot: u8,
    /// Accumulators of the sums beside the product, and their numbers.
    row_slots: Vec<(u8, usize)>,
    outputs: Vec<ExprId>,
    places: Vec<Index>,
    /// Which of the region's results the outputs are.
    numbers: Vec<usize>,
    /// Results of sums over neighbouring columns, which lanes of neighbouring vectors share.
    strips: Option<Strips>,
    n_columns: usize,
    pub stores: Stores,
    /// Whether the two results of a lane become word `p` of the array `words`, instead of being stored.
    pub in_words: bool,
}

impl Epilogue {
    /// `rows` and `columns` are the extents that tiles cover; `width` divides the columns.
    pub fn new(contraction: &Contraction, width: usize, rows: usize, columns: usize) -> Epilogue {
        let mut into = Body::new();
        let batch = into.vars.fresh(contraction.body.vars.extent(BATCH).clone());
        let m = into.vars.fresh(Extent::from(rows));
        let n = into.vars.fresh(Extent::from(columns / width));
        let lane = into.vars.fresh(Extent::from(width));
        let column = Index::var(n)
            .times(&Extent::from(width))
            .plus(&lane_index(lane, width));
        let vars = BTreeMap::from([(BATCH, Index::var(batch)), (M, Index::var(m)), (N, column)]);
        let mut rebuild = Rebuild::new(&contraction.body, into, vars);
        rebuild.lane = (width > 1).then_some(lane);
        let outputs = contraction
            .outputs
            .iter()
            .map(|&output| rebuild.expr(output))
            .collect();
        let places = contraction
            .places
            .iter()
            .map(|place| rebuild.index(place))
            .collect();
        let strips = contraction.strips.as_ref().map(|own| Strips {
            terms: own.terms.iter().map(|&term| rebuild.expr(term)).collect(),
            ..own.clone()
        });
        Epilogue {
            body: rebuild.into,
            vars: [batch, m, n],
            lane: Lane { var: lane, width },
            sum_slot: contraction.sum_slot,
            row_slots: contraction.row_sums.slots.clone(),
            outputs,
            places,
            numbers: contraction.numbers.clone(),
            strips,
            n_columns: contraction.sizes.n,
            stores: Stores::default(),
            in_words: false,
        }
    }

    /// Whether every output is stored as whole vectors.
    pub fn stores_wide(&self) -> bool {
        self.places.iter().all(|place| self.is_wide(place))
    }

    fn is_wide(&self, place: &Index) -> bool {
        is_vector(&place.recombined(&self.body.vars), self.lane)
    }

    /// Loads of whole vectors, and the printer that knows where they read.
    fn wide_loads<'a>(&'a self, all: &'a [Operand]) -> (Printer<'a>, Vec<ExprId>) {
        let mut printer = Printer::new(&self.body, all);
        if self.lane.width == 1 {
            return (printer, Vec::new());
        }
        printer.accumulators_depend_on(&BTreeSet::from([self.lane.var]));
        let loads = printer.wide_loads(self.lane, &self.outputs);
        (printer, loads)
    }

    /// Loads of vectors of whole words that no other row reads: what is worth asking for long before it is used.
    pub fn row_loads(&self, spec: &KernelSpec) -> Vec<ExprId> {
        let all = tensors(spec);
        let (_, loads) = self.wide_loads(&all);
        let free = FreeVars::of(&self.body);
        let row = self.vars[1];
        loads
            .into_iter()
            .filter(|&load| free.has(load, row) && self.is_of_words(load))
            .collect()
    }

    fn is_of_words(&self, load: ExprId) -> bool {
        let size = self.body.dtype(load).size_bytes();
        size <= 4 && (size * self.lane.width).is_multiple_of(4)
    }

    /// Loads of vectors that are the same for all rows, and column for column what an input holds.
    pub fn column_loads(&self, spec: &KernelSpec) -> Vec<ExprId> {
        let all = tensors(spec);
        let (printer, loads) = self.wide_loads(&all);
        let first = Index::var(self.vars[2]).times(&Extent::from(self.lane.width));
        let is_of_columns = |load: &ExprId| match self.body.expr(*load) {
            Expr::Load { input, index, .. } => {
                without(&printer.position(*input, index), self.lane.var) == first
            }
            _ => false,
        };
        loads.into_iter().filter(is_of_columns).collect()
    }

    /// Those of [`Epilogue::column_loads`] that read whole words of weights: a thread can have them before earlier
    /// kernels are done, and holds them until its sums are finished.
    pub fn weight_columns(&self, spec: &KernelSpec) -> Vec<ExprId> {
        let is_weight = |load: &ExprId| match self.body.expr(*load) {
            Expr::Load { input, .. } => spec.weights.contains(&(*input as usize)),
            _ => false,
        };
        let loads = self.column_loads(spec).into_iter();
        loads
            .filter(|load| is_weight(load) && self.is_of_words(*load))
            .collect()
    }

    /// The type in which shared memory holds elements of a load, where `computed` that in which floats are computed, and
    /// its size in bytes.
    pub fn held(&self, load: ExprId, computed: bool) -> (&'static str, usize) {
        let dtype = self.body.dtype(load);
        if computed && dtype.is_float() && dtype.size_bytes() < 4 {
            return (value_type(dtype), 4);
        }
        (storage_type(dtype), dtype.size_bytes())
    }

    /// The type that memory holds elements of a load in, and the input that they are read from.
    ///
    /// # Panics
    /// If `load` is none of the loads that this epilogue has answered with.
    pub fn stored(&self, spec: &KernelSpec, load: ExprId) -> (&'static str, String) {
        let (_, from) = self.source(spec, load);
        (storage_type(self.body.dtype(load)), from)
    }

    /// The type that elements of a load are computed in, and the input that they are read from.
    ///
    /// # Panics
    /// If `load` is none of the loads that this epilogue has answered with.
    pub fn source(&self, spec: &KernelSpec, load: ExprId) -> (&'static str, String) {
        let Expr::Load { input, dtype, .. } = self.body.expr(load) else {
            unreachable!("only loads are collected");
        };
        (value_type(*dtype), tensors(spec)[*input as usize].name.clone())
    }

    /// Bytes that a thread holds of `loads` for one vector of columns.
    pub fn asked_bytes(&self, loads: &[ExprId]) -> usize {
        let sizes = loads.iter().map(|&load| self.body.dtype(load).size_bytes());
        sizes.sum::<usize>() * self.lane.width
    }

    /// Types of the elements of `loads`.
    pub fn asked_types(&self, loads: &[ExprId]) -> Vec<&'static str> {
        loads
            .iter()
            .map(|&load| storage_type(self.body.dtype(load)))
            .collect()
    }

    /// Statements that load the vectors of row `m` into `asked0[slot][k]`, `asked1[slot][k]` and so on, or arrays that
    /// `name` names so.
    ///
    /// # Errors
    /// If an op's text could not be filled in.
    pub fn asking(
        &self,
        spec: &KernelSpec,
        loads: &[ExprId],
        name: &str,
        depth: usize,
    ) -> Result<String, KernelError> {
        self.words_of(spec, loads, |number| asked_vector(name, number), depth)
    }

    /// Statements that load vector `n` of columns into `held0`, `held1` and so on, each followed by `slot`.
    ///
    /// # Errors
    /// If an op's text could not be filled in.
    pub fn holding(&self, spec: &KernelSpec, held: Held<'_>, depth: usize) -> Result<String, KernelError> {
        self.words_of(spec, held.loads, |number| held.vector(number), depth)
    }

    fn words_of(
        &self,
        spec: &KernelSpec,
        loads: &[ExprId],
        vector: impl Fn(usize) -> String,
        depth: usize,
    ) -> Result<String, KernelError> {
        let all = tensors(spec);
        let mut printer = Printer::new(&self.body, &all);
        printer.set_depth(depth);
        for (var, name) in self.vars.into_iter().zip(["batch", "m", "n"]) {
            printer.bind(var, name);
        }
        for (number, &load) in loads.iter().enumerate() {
            let Expr::Load { input, index, .. } = self.body.expr(load) else {
                continue;
            };
            let position = without(&printer.position(*input, index), self.lane.var);
            let position = printer.index(&position);
            let from = &all[*input as usize].name;
            printer.line(&format!("{}.load({from} + ({position}));", vector(number)));
        }
        printer.finish()
    }

    /// Statements that finish and store the sums in the array `sum`, for row `m` and vector
    /// `n` of columns of `batch`. `row_sums` points to the sums beside the product of row `m`.
    ///
    /// # Errors
    /// If an op's text could not be filled in.
    pub fn text(&self, spec: &KernelSpec, early: Early<'_>, depth: usize) -> Result<String, KernelError> {
        let all = tensors(spec);
        let results = results(spec);
        let outputs: Vec<Operand> = self
            .numbers
            .iter()
            .map(|&number| results[number].clone())
            .collect();
        let mut printer = Printer::new(&self.body, &all);
        printer.accumulators_depend_on(&BTreeSet::from([self.lane.var]));
        printer.set_depth(depth);
        for (var, name) in self.vars.into_iter().zip(["batch", "m", "n"]) {
            printer.bind(var, name);
        }
        bind_row_sums(&mut printer, &self.row_slots);
        if self.lane.width == 1 {
            printer.bind_accumulator(self.sum_slot, "sum[0]");
            for ((output, &root), place) in outputs.iter().zip(&self.outputs).zip(&self.places) {
                let value = printer.result(root);
                self.stores.one(&mut printer, output, place, &value);
            }
            return printer.finish();
        }
        let arrays = self.lanes(&mut printer, &outputs, early);
        let stored = outputs.iter().zip(&self.outputs).zip(&self.places).zip(arrays);
        for (((output, &root), place), array) in stored {
            if let Some(array) = array {
                if self.in_words {
                    let ty = storage_type(output.dtype);
                    printer.line(&format!("words[p] = rt_word_of<{ty}>({array});"));
                    continue;
                }
                let place = without(&place.recombined(&self.body.vars), self.lane.var);
                let position = printer.index(&place);
                let (name, width) = (&output.name, self.lane.width);
                let store = if self.stores_words(&printer, root) {
                    "rt_store_bytes"
                } else {
                    self.stores.of_vectors()
                };
                printer.line(&format!("{store}<{width}>({name} + ({position}), {array});"));
            }
        }
        self.store_strips(&mut printer, &results);
        printer.finish()
    }

    /// The type of the one result, and the statement that stores `vector` of it, which is finished, for row `m` and
    /// vector `n` of columns of `batch`.
    ///
    /// # Errors
    /// If an op's text could not be filled in.
    pub fn copied(&self, spec: &KernelSpec, depth: usize) -> Result<(&'static str, String), KernelError> {
        let (all, results) = (tensors(spec), results(spec));
        let output = &results[self.numbers[0]];
        let mut printer = Printer::new(&self.body, &all);
        printer.set_depth(depth);
        for (var, name) in self.vars.into_iter().zip(["batch", "m", "n"]) {
            printer.bind(var, name);
        }
        let place = without(&self.places[0].recombined(&self.body.vars), self.lane.var);
        let position = printer.index(&place);
        let (ty, name) = (storage_type(output.dtype), &output.name);
        let to = format!(
            "reinterpret_cast<RtPack<{ty}, {}>*>({name} + ({position}))",
            self.lane.width
        );
        printer.line(&match self.stores {
            Stores::Cached => format!("*{to} = vector;"),
            Stores::Streamed => format!("rt_stream({to}, vector);"),
        });
        Ok((ty, printer.finish()?))
    }

    /// Whether anything is read for every element.
    fn reads_elements(&self) -> bool {
        let free = FreeVars::of(&self.body);
        let [_, row, vector] = self.vars;
        let is_read = |(id, expr): (ExprId, &Expr)| {
            let of_column = free.has(id, vector) || free.has(id, self.lane.var);
            matches!(expr, Expr::Load { .. }) && free.has(id, row) && of_column
        };
        self.body.exprs().any(is_read)
    }

    /// Statements that fold what the lanes of a strip have summed; the first of them stores it.
    fn store_strips(&self, printer: &mut Printer<'_>, results: &[Operand]) {
        let Some(strips) = &self.strips else {
            return;
        };
        let (lanes, n_sums) = (strips.columns / self.lane.width, strips.terms.len());
        printer.line("#pragma unroll");
        printer.line(&format!(
            "for (int q = 0; q < {n_sums}; ++q) strip[q] = rt_warp_fold<RtSum, {lanes}>(strip[q]);"
        ));
        printer.line(&format!(
            "if (n % {lanes} == 0) rt_store<{n_sums}>({} + (m * {} + n / {lanes}) * {n_sums}, strip);",
            results[strips.number].name,
            self.n_columns / strips.columns
        ));
    }

    /// Whether lanes of an output are bytes that wait to be stored as the last ones of words.
    fn stores_words(&self, printer: &Printer<'_>, root: ExprId) -> bool {
        self.lane.width.is_multiple_of(4) && self.lane.width <= 16 && printer.is_rounded(root)
    }

    /// Makes floats of a vector of bytes at once; answers with the casts that this does, and the array.
    fn floats_of_bytes(
        &self,
        printer: &mut Printer<'_>,
        load: ExprId,
        vector: &str,
    ) -> Vec<(ExprId, String)> {
        let is_cast = |expr: &Expr| {
            matches!(expr, Expr::Map { op: "cast", args, dtype, .. }
                if args[..] == [load] && matches!(dtype, DType::F32 | DType::F16 | DType::BF16))
        };
        let casts: Vec<ExprId> = self
            .body
            .exprs()
            .filter(|(_, expr)| is_cast(expr))
            .map(|(id, _)| id)
            .collect();
        if casts.is_empty() || !matches!(self.body.dtype(load), DType::I8 | DType::U8) {
            return Vec::new();
        }
        let (array, width) = (printer.fresh("v"), self.lane.width);
        printer.line(&format!("float {array}[{width}];"));
        printer.line(&format!("rt_floats<{width}>({array}, {vector});"));
        casts.into_iter().map(|cast| (cast, array.clone())).collect()
    }

    /// Statements that declare `column_values0` and so on, for vectors of `loads`.
    pub fn column_arrays(&self, loads: &[ExprId], depth: usize) -> String {
        let (width, indent) = (self.lane.width, "  ".repeat(depth));
        let declare = |(number, &load): (usize, &ExprId)| {
            let ty = value_type(self.body.dtype(load));
            format!("{indent}{ty} column_values{number}[{width}];\n")
        };
        loads.iter().enumerate().map(declare).collect()
    }

    /// Statements that read vector `n` of the arrays `columns0` and so on into those. Where `computed`, arrays are as
    /// [`Epilogue::held`] says.
    pub fn column_vectors(&self, loads: &[ExprId], computed: bool, depth: usize) -> String {
        let (width, indent) = (self.lane.width, "  ".repeat(depth));
        let read = |(number, &load): (usize, &ExprId)| {
            if computed && self.is_apart(load) {
                return format!("{indent}rt_load_apart(column_values{number}, columns{number}, n);\n");
            }
            format!("{indent}rt_load<{width}>(column_values{number}, columns{number} + n * {width});\n")
        };
        loads.iter().enumerate().map(read).collect()
    }

    /// Whether the pieces of vectors of `load` take turns in shared memory, where it holds what is computed with.
    pub fn is_apart(&self, load: ExprId) -> bool {
        let (_, size) = self.held(load, true);
        size == 4 && self.lane.width.is_multiple_of(4) && self.body.dtype(load).is_float()
    }

    /// Evaluates all lanes; stores what is not stored as a vector, and names the arrays of
    /// what is.
    fn lanes(&self, printer: &mut Printer<'_>, outputs: &[Operand], early: Early<'_>) -> Vec<Option<String>> {
        let width = self.lane.width;
        let Early { asked, columns, held } = early;
        let columns: Vec<(ExprId, String)> = (0..columns.len())
            .map(|number| (columns[number], format!("column_values{number}")))
            .collect();
        for (load, array) in &columns {
            printer.preset(*load, array);
        }
        let asked = asked
            .iter()
            .enumerate()
            .map(|(number, &load)| (load, asked_vector("asked", number)));
        let held_vectors = (held.loads.iter().enumerate()).map(|(number, &load)| (load, held.vector(number)));
        let in_words: Vec<(ExprId, String)> = asked.chain(held_vectors).collect();
        let mut floats = Vec::new();
        for (load, vector) in &in_words {
            printer.preset(*load, vector);
            floats.extend(self.floats_of_bytes(printer, *load, vector));
        }
        let shared = printer.shared_work(self.lane, &self.outputs);
        let mut arrays = Vec::new();
        for (&root, place) in self.outputs.iter().zip(&self.places) {
            arrays.push(self.is_wide(place).then(|| {
                let name = printer.fresh("y");
                let ty = if self.stores_words(printer, root) {
                    "uint32_t"
                } else {
                    value_type(self.body.dtype(root))
                };
                printer.line(&format!("{ty} {name}[{width}];"));
                name
            }));
        }
        if let Some(strips) = &self.strips {
            printer.line(&format!("float strip[{}] = {{}};", strips.terms.len()));
        }
        printer.line("#pragma unroll");
        let counter = printer.fresh("lane");
        printer.bind(self.lane.var, &counter);
        printer.bind_accumulator(self.sum_slot, &format!("sum[{counter}]"));
        printer.open(&format!(
            "for (int {counter} = 0; {counter} < {width}; ++{counter}) {{"
        ));
        for (load, array) in shared.into_iter().chain(columns).chain(floats) {
            printer.preset(load, &format!("{array}[{counter}]"));
        }
        for (load, vector) in in_words {
            printer.preset(load, &format!("rt_get({vector}.element({counter}))"));
        }
        let each = outputs
            .iter()
            .zip(&self.outputs)
            .zip(self.places.iter().zip(&arrays));
        for ((output, &root), (place, array)) in each {
            let bits = array.as_ref().filter(|_| self.stores_words(printer, root));
            let value = match bits {
                Some(_) => printer.rounded_bits(root),
                None => None,
            };
            let value = value.unwrap_or_else(|| printer.result(root));
            match array {
                Some(array) => printer.line(&format!("{array}[{counter}] = {value};")),
                None => self.stores.one(printer, output, place, &value),
            }
        }
        for (number, &term) in self.strips.iter().flat_map(|own| own.terms.iter().enumerate()) {
            let value = printer.value(term);
            printer.line(&format!("strip[{number}] += {value};"));
        }
        printer.close();
        arrays
    }
}

/// Loads that are done before the sums are finished.
#[derive(Clone, Copy, Debug, Default)]
pub struct Early<'a> {
    /// Those of [`Epilogue::asking`].
    pub asked: &'a [ExprId],
    /// Those of [`Epilogue::column_vectors`].
    pub columns: &'a [ExprId],
    /// Those of [`Epilogue::holding`].
    pub held: Held<'a>,
}

/// Loads of columns whose vectors are held in registers, and what follows their names where they are used.
#[derive(Clone, Copy, Debug, Default)]
pub struct Held<'a> {
    pub loads: &'a [ExprId],
    pub slot: &'static str,
}

impl Held<'_> {
    fn vector(self, number: usize) -> String {
        format!("held{number}{}", self.slot)
    }
}

fn asked_vector(name: &str, number: usize) -> String {
    format!("{name}{number}[slot][k]")
}

/// Says that `row_sums` points to the sums beside the product.
pub fn bind_row_sums(printer: &mut Printer<'_>, slots: &[(u8, usize)]) {
    for &(slot, number) in slots {
        printer.bind_accumulator(slot, &format!("row_sums[{number}]"));
    }
}

/// Whether lanes that finish vectors of `width` columns each can sum the strips among themselves, where a warp has
/// `columns` of a row at a time.
pub fn has_whole_strips(contraction: &Contraction, width: usize, columns: usize) -> bool {
    contraction.strips.as_ref().is_none_or(|strips| {
        let lanes = strips.columns / width;
        width > 1
            && strips.columns.is_multiple_of(width)
            && lanes.is_power_of_two()
            && columns.is_multiple_of(strips.columns)
            && contraction.sizes.n.is_multiple_of(strips.columns)
    })
}

/// The widest vector of columns that matrix templates store the results of `spec` in: 16 bytes of the narrowest, but
/// no fewer than four and no more than eight. `None` without results.
pub fn result_width(contraction: &Contraction, spec: &KernelSpec) -> Option<usize> {
    let least = spec.output_types().iter().map(|ty| ty.dtype.size_bytes()).min()?;
    Some(best_width(contraction, (16 / least).clamp(4, 8)))
}

/// Whether what happens to the sums reads tensors of as many elements.
pub fn reads_elements(contraction: &Contraction) -> bool {
    let (m, n) = (contraction.sizes.m.max(1), contraction.sizes.n.max(1));
    Epilogue::new(contraction, 1, m, n).reads_elements()
}

/// Bytes that a vector of `width` results takes of tensors that no other row reads, whatever the tiles; none where
/// there are no results.
pub fn row_bytes(contraction: &Contraction, width: usize, spec: &KernelSpec) -> usize {
    let [m, n] = [contraction.sizes.m, contraction.sizes.n].map(|extent| extent.next_multiple_of(256));
    if m * n == 0 {
        return 0;
    }
    let epilogue = Epilogue::new(contraction, width, m, n);
    epilogue.asked_bytes(&epilogue.row_loads(spec))
}

/// The widest vector of columns of at most `widest` that outputs can be stored in.
pub fn best_width(contraction: &Contraction, widest: usize) -> usize {
    let (rows, columns) = (
        contraction.sizes.m.next_multiple_of(256).max(256),
        contraction.sizes.n.next_multiple_of(256).max(256),
    );
    let mut width = widest;
    while width > 1 {
        let divides = contraction.sizes.n.is_multiple_of(width);
        if divides && Epilogue::new(contraction, width, rows, columns).stores_wide() {
            return width;
        }
        width /= 2;
    }
    1
}
