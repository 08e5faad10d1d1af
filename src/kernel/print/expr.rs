//! Tile expressions as CUDA C++ statements.
//!
//! A [`Printer`] appends statements to a block and answers with the name that holds an
//! expression's value. Each value is computed once per scope; the branches of a `Select` and
//! the bodies of reductions are scopes of their own, so nothing is evaluated that the term
//! does not evaluate, and what does not depend on a loop is computed before it.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;

use crate::ir::{Attr, DType, Placement, TensorType};
use crate::kernel::body::free_vars::FreeVars;
use crate::kernel::body::rebuild::operands;
use crate::kernel::error::KernelError;
use crate::kernel::print::types::{float_literal, int_constant, literal, value_type};
use crate::ops::{self, Lowering};
use crate::tile::index::linearize;
use crate::tile::{Atom, Body, Cond, Expr, ExprId, Extent, Index, ReduceOp, Scalar, VarId, Vars};

/// A tensor in memory, that expressions load from or whose elements are stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Operand {
    /// Pointer parameter, such as `in0`.
    pub name: String,
    /// Of what the pointer points to.
    pub dims: Vec<Extent>,
    pub dtype: DType,
    /// Where the operand begins in it; empty where it is the whole.
    pub starts: Vec<usize>,
}

impl Operand {
    /// A tensor of its own.
    pub fn whole(name: String, ty: &TensorType) -> Operand {
        Operand {
            name,
            dims: ty.dims().into_iter().map(Extent::from).collect(),
            dtype: ty.dtype,
            starts: Vec::new(),
        }
    }

    /// A tensor that is a box of what the pointer points to, where `placement` says so.
    pub fn placed(name: String, ty: &TensorType, placement: Option<&Placement>) -> Operand {
        let own = Operand::whole(name, ty);
        let Some(placement) = placement else {
            return own;
        };
        Operand {
            dims: placement.dims.iter().copied().map(Extent::from).collect(),
            starts: placement.starts.clone(),
            ..own
        }
    }

    /// Position of the element at coordinates `at`, from the pointer on.
    pub fn address(&self, at: &[Index], vars: &Vars) -> Index {
        let starts = self.starts.iter().copied().chain(std::iter::repeat(0));
        let known = |start| i64::try_from(start).expect("extents fit in i64");
        let moved: Vec<Index> = at
            .iter()
            .zip(starts)
            .map(|(index, start)| index.plus_known(known(start)))
            .collect();
        linearize(&moved, &self.dims).recombined(vars)
    }
}

/// Names that are in reach at one nesting level of the text.
#[derive(Default)]
struct Scope {
    exprs: HashMap<ExprId, String>,
    atoms: HashMap<Atom, String>,
}

/// Prints expressions of one body.
pub struct Printer<'a> {
    pub(super) body: &'a Body,
    pub(super) free: FreeVars,
    operands: &'a [Operand],
    vars: HashMap<VarId, String>,
    /// What stands for accumulator number `i`.
    accumulators: Vec<String>,
    scopes: Vec<Scope>,
    text: String,
    depth: usize,
    counts: HashMap<&'static str, usize>,
    index_type: &'static str,
    error: Option<KernelError>,
}

impl<'a> Printer<'a> {
    /// A printer of an empty block. Indices are 32-bit unless an operand needs more.
    pub fn new(body: &'a Body, operands: &'a [Operand]) -> Self {
        Printer {
            body,
            free: FreeVars::of(body),
            operands,
            vars: HashMap::new(),
            accumulators: Vec::new(),
            scopes: vec![Scope::default()],
            text: String::new(),
            depth: 1,
            counts: HashMap::new(),
            index_type: index_type(operands),
            error: None,
        }
    }

    /// Says which C++ variable holds `var`.
    pub fn bind(&mut self, var: VarId, name: &str) {
        self.vars.insert(var, name.to_owned());
    }

    /// Says which C++ expression holds accumulator number `slot`.
    pub fn bind_accumulator(&mut self, slot: u8, text: &str) {
        let slot = usize::from(slot);
        if self.accumulators.len() <= slot {
            self.accumulators.resize(slot + 1, String::new());
        }
        text.clone_into(&mut self.accumulators[slot]);
    }

    /// Says that accumulators differ for every value of `vars`; to be said before printing.
    pub fn accumulators_depend_on(&mut self, vars: &BTreeSet<VarId>) {
        self.free = FreeVars::with_accumulators(self.body, vars);
    }

    /// Says that `text` already holds `id`, within the current scope.
    pub fn preset(&mut self, id: ExprId, text: &str) {
        self.remember(id, text.to_owned());
    }

    /// Appends one line to the block.
    pub fn line(&mut self, line: &str) {
        for _ in 0..self.depth {
            self.text.push_str("  ");
        }
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// Appends a line that ends in `{`, and enters a scope.
    pub fn open(&mut self, line: &str) {
        self.line(line);
        self.depth += 1;
        self.scopes.push(Scope::default());
    }

    /// Leaves a scope.
    pub fn close(&mut self) {
        self.depth -= 1;
        self.scopes.pop();
        self.line("}");
    }

    /// Leaves a scope and enters its `else` branch.
    fn close_else(&mut self) {
        self.depth -= 1;
        self.scopes.pop();
        self.open("} else {");
    }

    /// A fresh C++ name that begins with `base`.
    pub fn fresh(&mut self, base: &'static str) -> String {
        let count = self.counts.entry(base).or_default();
        let name = format!("{base}{count}");
        *count += 1;
        name
    }

    /// Type of index variables: `int`, or `int64_t` where a tensor is too large for it.
    pub fn index_type(&self) -> &'static str {
        self.index_type
    }

    /// Number of levels below the function body, from one.
    pub fn set_depth(&mut self, depth: usize) {
        self.depth = depth;
    }

    /// The block printed so far; the printer goes on with an empty one and knows all names.
    pub fn take(&mut self) -> String {
        std::mem::take(&mut self.text)
    }

    /// The finished block.
    ///
    /// # Errors
    /// If an op's text could not be filled in.
    pub fn finish(mut self) -> Result<String, KernelError> {
        match self.error.take() {
            None => Ok(self.text),
            Some(error) => Err(error),
        }
    }

    /// A name or literal that holds the value of `id`; statements are appended as needed.
    pub fn value(&mut self, id: ExprId) -> String {
        if let Some(known) = self.known(id) {
            return known;
        }
        let body = self.body;
        let name = match body.expr(id) {
            Expr::Const(scalar) => return literal(*scalar),
            Expr::Acc { slot, .. } => return self.accumulators[usize::from(*slot)].clone(),
            Expr::Load { input, index, .. } => {
                let element = self.element(*input, index);
                self.define("x", id, &format!("rt_get({element})"))
            }
            Expr::Map { op, .. } => {
                if let Some(text) = self.rounded(id) {
                    let name = self.define(op, id, &text);
                    self.remember(id, name.clone());
                    return name;
                }
                if let Some(Lowering::Map(template)) = ops::lookup(op).map(|def| &def.lower) {
                    return self.map(id, template);
                }
                let error = KernelError::UnknownOp { op: (*op).to_owned() };
                self.error.get_or_insert(error);
                "0".to_owned()
            }
            Expr::IndexValue(index) => {
                let text = format!("int64_t({})", self.index(index));
                self.define("pos", id, &text)
            }
            Expr::Select {
                conds,
                then,
                otherwise,
            } => self.select(id, conds, *then, *otherwise),
            Expr::Reduce {
                op,
                vars,
                body,
                dtype,
                ..
            } => self.reduce(*op, vars, *body, *dtype),
        };
        self.remember(id, name.clone());
        name
    }

    /// As [`Printer::value`], of what is stored next: where it is rounded to 16 bits and nothing else depends on it, an op
    /// may be computed with less work.
    pub fn result(&mut self, id: ExprId) -> String {
        let Expr::Map { op, dtype, .. } = self.body.expr(id) else {
            return self.value(id);
        };
        let is_half = matches!(dtype, DType::F16 | DType::BF16);
        let template = ops::lookup(op).and_then(|def| def.halves).filter(|_| is_half);
        let is_used = || self.body.exprs().any(|(_, expr)| operands(expr).contains(&id));
        match template {
            Some(template) if self.known(id).is_none() && !is_used() => self.map(id, template),
            _ => self.value(id),
        }
    }

    /// Evaluates the map `id` by a text of its op.
    fn map(&mut self, id: ExprId, template: &str) -> String {
        let body = self.body;
        let Expr::Map {
            op,
            attrs,
            args,
            dtype,
        } = body.expr(id)
        else {
            unreachable!("only maps have such texts");
        };
        let values: Vec<String> = args.iter().map(|&arg| self.value(arg)).collect();
        let kind = args.first().map_or(*dtype, |&arg| body.dtype(arg));
        let text = fill((op, template), &values, &|name| {
            attr_text(body.attrs(*attrs).get(name)?, kind)
        });
        let text = text.unwrap_or_else(|error| {
            self.error.get_or_insert(error);
            "0".to_owned()
        });
        let name = self.define(op, id, &text);
        self.remember(id, name.clone());
        name
    }

    /// The value of `id` where `inner`, which it depends on, is what `replacement` is.
    pub(super) fn value_with(&mut self, id: ExprId, inner: ExprId, replacement: ExprId) -> String {
        let text = self.value(replacement);
        self.scopes.push(Scope::default());
        self.preset(inner, &text);
        let value = self.value(id);
        self.scopes.pop();
        value
    }

    fn define(&mut self, base: &'static str, id: ExprId, text: &str) -> String {
        let name = self.fresh(base);
        let ty = value_type(self.body.dtype(id));
        self.line(&format!("const {ty} {name} = {text};"));
        name
    }

    pub fn known(&self, id: ExprId) -> Option<String> {
        self.scopes
            .iter()
            .rev()
            .find_map(|scope| scope.exprs.get(&id))
            .cloned()
    }

    fn remember(&mut self, id: ExprId, name: String) {
        let scope = self.scopes.last_mut().expect("the outermost scope is never left");
        scope.exprs.insert(id, name);
    }

    /// `in0[..]`.
    pub fn element(&mut self, input: u32, index: &[Index]) -> String {
        let position = self.position(input, index);
        let position = self.index(&position);
        format!("{}[{position}]", self.operands[input as usize].name)
    }

    /// Row-major position of `index` in an operand.
    pub fn position(&self, input: u32, index: &[Index]) -> Index {
        self.operands[input as usize].address(index, &self.body.vars)
    }

    pub(super) fn operand(&self, input: u32) -> &'a Operand {
        &self.operands[input as usize]
    }

    fn select(&mut self, id: ExprId, conds: &[Cond], then: ExprId, otherwise: ExprId) -> String {
        let ty = value_type(self.body.dtype(id));
        let name = self.fresh("pick");
        let test = self.conditions(conds);
        let trivial = match self.body.expr(otherwise) {
            Expr::Const(scalar) => Some(literal(*scalar)),
            _ => self.known(otherwise),
        };
        match &trivial {
            Some(text) => self.line(&format!("{ty} {name} = {text};")),
            None => self.line(&format!("{ty} {name};")),
        }
        self.open(&format!("if ({test}) {{"));
        let value = self.value(then);
        self.line(&format!("{name} = {value};"));
        if trivial.is_none() {
            self.close_else();
            let value = self.value(otherwise);
            self.line(&format!("{name} = {value};"));
        }
        self.close();
        name
    }

    /// `conds` joined by `&&`, without comparisons that always hold.
    pub fn conditions(&mut self, conds: &[Cond]) -> String {
        let mut tests = Vec::new();
        for cond in conds {
            let range = cond.index.range(&self.body.vars);
            let size = cond.extent.as_known();
            let text = self.index(&cond.index);
            if range.is_none_or(|(low, _)| low < 0) {
                tests.push(format!("{text} >= 0"));
            }
            let below = matches!((range, size), (Some((_, high)), Some(size)) if high < size);
            if !below {
                tests.push(format!("{text} < {}", extent(&cond.extent)));
            }
        }
        if tests.is_empty() {
            "true".to_owned()
        } else {
            tests.join(" && ")
        }
    }

    fn reduce(&mut self, op: ReduceOp, vars: &[VarId], body: ExprId, dtype: DType) -> String {
        self.hoist(body, &vars.iter().copied().collect());
        let acc = self.fold_begin(op, dtype, self.body.dtype(body));
        for &var in vars {
            self.open_loop(var);
        }
        let value = self.value(body);
        let position = vars.first().map(|var| self.vars[var].clone()).unwrap_or_default();
        self.fold(op, &acc, &value, &position);
        for _ in vars {
            self.close();
        }
        acc.name
    }

    /// Enters a loop over every value of `var`.
    pub fn open_loop(&mut self, var: VarId) {
        let name = self.fresh("r");
        let bound = extent(self.body.vars.extent(var));
        let ty = self.index_type;
        self.bind(var, &name);
        self.open(&format!("for ({ty} {name} = 0; {name} < {bound}; ++{name}) {{"));
    }

    /// Computes now what `id` needs and does not depend on `bound`. Branches that may not be
    /// taken are left alone.
    pub fn hoist(&mut self, id: ExprId, bound: &BTreeSet<VarId>) {
        let body = self.body;
        if self.known(id).is_some() {
            return;
        }
        if self.free.get(id).is_disjoint(bound) {
            self.value(id);
            return;
        }
        match body.expr(id) {
            Expr::Select { conds, .. } => {
                let mut values = Vec::new();
                for cond in conds {
                    crate::kernel::body::free_vars::values_in(&cond.index, &mut values);
                }
                for value in values {
                    self.hoist(value, bound);
                }
            }
            Expr::Reduce { vars, body, .. } => {
                let inner: BTreeSet<VarId> = bound.iter().chain(vars).copied().collect();
                self.hoist(*body, &inner);
            }
            expr => operands(expr)
                .into_iter()
                .for_each(|operand| self.hoist(operand, bound)),
        }
    }

    /// Declares the accumulator of a reduction whose terms are of kind `term`.
    pub fn fold_begin(&mut self, op: ReduceOp, dtype: DType, term: DType) -> Fold {
        let name = self.fresh(fold_name(op));
        let ty = value_type(dtype);
        let (start, best) = match op {
            ReduceOp::ArgMax { .. } | ReduceOp::ArgMin { .. } => {
                let best = self.fresh("best");
                let start = identity(op, term);
                self.line(&format!("{} {best} = {start};", value_type(term)));
                ("0".to_owned(), Some(best))
            }
            _ => (identity(op, dtype), None),
        };
        self.line(&format!("{ty} {name} = {start};"));
        Fold { name, best }
    }

    /// Combines one term; `position` is the value of the reduced variable.
    pub fn fold(&mut self, op: ReduceOp, acc: &Fold, value: &str, position: &str) {
        let Fold { name, best } = acc;
        let arg = |test: &str| {
            let best = best.as_deref().unwrap_or_default();
            format!(
                "if ({test}({value}, {best}) || {position} == 0) {{ {best} = {value}; {name} = {position}; }}"
            )
        };
        let line = match op {
            ReduceOp::Sum => format!("{name} += {value};"),
            ReduceOp::Prod => format!("{name} *= {value};"),
            ReduceOp::Max => format!("{name} = rt_fold_max({name}, {value});"),
            ReduceOp::Min => format!("{name} = rt_fold_min({name}, {value});"),
            ReduceOp::And => format!("{name} = {name} && {value};"),
            ReduceOp::Or => format!("{name} = {name} || {value};"),
            ReduceOp::ArgMax { last: false } => arg("rt_above"),
            ReduceOp::ArgMax { last: true } => arg("rt_not_below"),
            ReduceOp::ArgMin { last: false } => arg("rt_below"),
            ReduceOp::ArgMin { last: true } => arg("rt_not_above"),
        };
        self.line(&line);
    }

    /// An index as an integer expression; quotients and remainders get names.
    pub fn index(&mut self, index: &Index) -> String {
        let mut text = String::new();
        for (atom, coefficient) in &index.terms {
            let name = self.atom(atom);
            push_term(&mut text, &name, coefficient);
        }
        match (text.is_empty(), index.constant) {
            (true, constant) => constant.to_string(),
            (false, 0) => text,
            (false, constant) => {
                let sign = if constant < 0 { '-' } else { '+' };
                format!("{text} {sign} {}", constant.unsigned_abs())
            }
        }
    }

    fn atom(&mut self, atom: &Atom) -> String {
        if let Atom::Var(var) = atom {
            return self
                .vars
                .get(var)
                .cloned()
                .unwrap_or_else(|| format!("unbound{}", var.0));
        }
        if let Some(known) = self.scopes.iter().rev().find_map(|scope| scope.atoms.get(atom)) {
            return known.clone();
        }
        let (base, text) = match atom {
            Atom::Var(_) => unreachable!("variables are answered above"),
            Atom::Div(inner, divisor) => ("q", self.quotient(inner, divisor, "/", "rt_floor_div")),
            Atom::Mod(inner, divisor) => ("m", self.quotient(inner, divisor, "%", "rt_floor_mod")),
            Atom::Value(id) => {
                let value = self.value(*id);
                ("at", format!("{}({value})", self.index_type))
            }
            Atom::Clamp(inner, size) => {
                let value = self.index(inner);
                let ty = self.index_type;
                ("c", format!("rt_clamp_index<{ty}>({value}, {})", extent(size)))
            }
        };
        let name = self.fresh(base);
        let ty = self.index_type;
        self.line(&format!("const {ty} {name} = {text};"));
        let scope = self.scopes.last_mut().expect("the outermost scope is never left");
        scope.atoms.insert(atom.clone(), name.clone());
        name
    }

    /// C++ division truncates, which is the floor only where nothing is negative.
    fn quotient(&mut self, inner: &Index, divisor: &Extent, operator: &str, floored: &str) -> String {
        let text = self.index(inner);
        let bound = extent(divisor);
        if inner.range(&self.body.vars).is_some_and(|(low, _)| low >= 0) {
            let simple = inner.constant == 0
                && matches!(inner.terms.as_slice(), [(_, one)] if one.as_known() == Some(1));
            let text = if simple { text } else { format!("({text})") };
            return format!("{text} {operator} {bound}");
        }
        format!("{floored}<{}>({text}, {bound})", self.index_type)
    }
}

/// The C++ variables of a running reduction.
pub struct Fold {
    pub name: String,
    /// Best term so far, for `ArgMax` and `ArgMin`.
    pub best: Option<String>,
}

/// `int64_t` where a position in one of `operands` does not fit in an `int`.
pub fn index_type(operands: &[Operand]) -> &'static str {
    let fits = |operand: &Operand| {
        let count = operand
            .dims
            .iter()
            .try_fold(1i64, |count, dim| count.checked_mul(dim.as_known().unwrap_or(1)));
        count.is_some_and(|count| count <= i64::from(i32::MAX))
    };
    if operands.iter().all(fits) {
        "int"
    } else {
        "int64_t"
    }
}

/// A size as an integer expression; run-time arguments are kernel parameters `dim0`, ..
pub fn extent(size: &Extent) -> String {
    let mut factors: Vec<String> = size.args.iter().map(|slot| format!("dim{slot}")).collect();
    if size.scale != 1 || factors.is_empty() {
        factors.insert(0, size.scale.to_string());
    }
    factors.join(" * ")
}

fn push_term(text: &mut String, name: &str, coefficient: &Extent) {
    let size = Extent {
        scale: coefficient.scale.abs(),
        args: coefficient.args.clone(),
    };
    let sign = match (text.is_empty(), coefficient.scale < 0) {
        (true, false) => "",
        (true, true) => "-",
        (false, false) => " + ",
        (false, true) => " - ",
    };
    text.push_str(sign);
    text.push_str(name);
    if size.as_known() != Some(1) {
        write!(text, " * {}", extent(&size)).expect("writing to a string succeeds");
    }
}

fn fold_name(op: ReduceOp) -> &'static str {
    match op {
        ReduceOp::Sum => "sum",
        ReduceOp::Prod => "prod",
        ReduceOp::Max => "max",
        ReduceOp::Min => "min",
        ReduceOp::And => "all",
        ReduceOp::Or => "any",
        ReduceOp::ArgMax { .. } => "argmax",
        ReduceOp::ArgMin { .. } => "argmin",
    }
}

/// What a reduction starts from.
pub fn identity(op: ReduceOp, dtype: DType) -> String {
    let ty = value_type(dtype);
    match op {
        ReduceOp::Sum => literal(Scalar::of(dtype, 0.0)),
        ReduceOp::Prod => literal(Scalar::of(dtype, 1.0)),
        ReduceOp::Max | ReduceOp::ArgMax { .. } => format!("rt_lowest<{ty}>()"),
        ReduceOp::Min | ReduceOp::ArgMin { .. } => format!("rt_highest<{ty}>()"),
        ReduceOp::And => "true".to_owned(),
        ReduceOp::Or => "false".to_owned(),
    }
}

/// The scalar text of op `op` with operands and attributes filled in.
fn fill(
    (op, template): (&'static str, &str),
    values: &[String],
    attr: &dyn Fn(&str) -> Option<String>,
) -> Result<String, KernelError> {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let (hole, after) = after.split_once('}').unwrap_or((after, ""));
        let filled = match hole.parse::<usize>() {
            Ok(position) => values.get(position).cloned(),
            Err(_) => attr(hole),
        };
        text.push_str(before);
        text.push_str(&filled.ok_or_else(|| KernelError::UnknownHole {
            op,
            hole: hole.to_owned(),
        })?);
        rest = after;
    }
    text.push_str(rest);
    Ok(text)
}

/// An attribute inside the text of a map over elements of kind `kind`.
fn attr_text(attr: &Attr, kind: DType) -> Option<String> {
    Some(match attr {
        Attr::Int(value) => value.to_string(),
        Attr::Float(value) if kind.is_float() => float_literal(*value, kind == DType::F64),
        Attr::Float(value) => int_constant(kind, *value),
        Attr::Str(value) => value.clone(),
        Attr::DType(dtype) => dtype.name().to_owned(),
        Attr::Ints(_) | Attr::Floats(_) | Attr::Strs(_) | Attr::Tensor(_) | Attr::Graph(_) => return None,
    })
}
