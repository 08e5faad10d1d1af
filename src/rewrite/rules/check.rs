//! What the grammar cannot say: names exist, variables are bound, arrows fit their phase.

use std::collections::HashSet;

use super::ast::{
    Arrow, AttrItem, Expr, ExprKind, Head, Header, Horizontal, Item, Kernel, Name, OpTerm, Phase, Rule, Term,
    TestEntry,
};
use super::error::RuleError;
use super::parser::closest_op;
use super::terms::FAMILIES;
use crate::ops::{AttrDefault, OpDef, all, lookup};
use crate::rewrite::conditions::functions::{FUNCTIONS, SIBLING_FUNCTIONS, lookup as lookup_function};

/// Words that are no variables: tile kinds, sources and truth values. Names of ops are too.
const WORDS: &[&str] = &[
    "input", "weight", "smap", "sred", "srow", "sdot", "swin", "sview", "sindex", "sother", "load", "true",
    "false",
];

/// What a kernel may accept.
const REGION_KINDS: [&str; 7] = [
    "pointwise",
    "row",
    "reduce",
    "dot",
    "window",
    "attention",
    "other",
];

/// Reports every mistake of `items`. Items of files `n_base` and later may replace others.
pub fn check(items: &[Item], n_base: usize, errors: &mut Vec<RuleError>) {
    check_unique(items, n_base, errors);
    for item in items {
        match item {
            Item::Ruleset(_) => {}
            Item::Rule(rule) => check_rule(rule, errors),
            Item::Horizontal(rule) => check_horizontal(rule, errors),
            Item::Kernel(kernel) => check_kernel(kernel, errors),
        }
    }
}

fn item_name(item: &Item) -> (&Name, &'static str) {
    match item {
        Item::Ruleset(set) => (&set.name, "ruleset"),
        Item::Rule(rule) => (&rule.header.name, "rule"),
        Item::Horizontal(rule) => (&rule.header.name, "rule"),
        Item::Kernel(kernel) => (&kernel.name, "kernel"),
    }
}

/// Names are unique among the embedded files, and among the user's.
fn check_unique(items: &[Item], n_base: usize, errors: &mut Vec<RuleError>) {
    let mut seen = HashSet::new();
    for item in items {
        let (name, kind) = item_name(item);
        let is_base = (name.span.file.0 as usize) < n_base;
        if !seen.insert((kind, &name.text, is_base)) {
            errors.push(RuleError::new(
                "rules::duplicate_name",
                name.span,
                format!("a {kind} named `{}` was already declared", name.text),
                "second declaration",
            ));
        }
    }
}

fn check_rule(rule: &Rule, errors: &mut Vec<RuleError>) {
    check_arrow(rule, errors);
    let mut scope = Scope::new(&rule.header, errors);
    scope.check_root(&rule.left);
    scope.left(&rule.left);
    let left_names = scope.names.clone();
    for entry in &rule.lets {
        scope.expr(&entry.value);
        scope.names.push(&entry.name.text);
    }
    for condition in &rule.conditions {
        scope.expr(condition);
    }
    scope.right(&rule.right);
    if rule.arrow == Arrow::Both {
        scope.check_root(&rule.right);
    }
    for entry in rule.tests.iter().flatten() {
        check_test_entry(entry, &left_names, errors);
    }
}

fn check_arrow(rule: &Rule, errors: &mut Vec<RuleError>) {
    let destructive = rule.arrow == Arrow::Replace;
    let (allowed, help) = match rule.header.phase {
        Phase::Model | Phase::ModelRest | Phase::Canonical | Phase::Recognize | Phase::Layout => (
            destructive,
            "rules of this phase run before the e-graph and replace: write `~>`",
        ),
        Phase::Algebra => (true, ""),
        Phase::Lower | Phase::Fuse | Phase::View => (
            !destructive,
            "an e-graph keeps both sides: write `=>` or `=`, or choose an earlier phase",
        ),
    };
    if !allowed {
        let name = &rule.header.name;
        let message = format!(
            "rule `{}` of phase `{}` cannot use `{}`",
            name.text,
            rule.header.phase.name(),
            arrow_text(rule.arrow)
        );
        errors.push(
            RuleError::new(
                "rules::arrow_in_phase",
                name.span,
                message,
                "its arrow does not fit",
            )
            .help(help),
        );
    }
}

fn arrow_text(arrow: Arrow) -> &'static str {
    match arrow {
        Arrow::Rewrite => "=>",
        Arrow::Both => "<=>",
        Arrow::Merge => "=",
        Arrow::Replace => "~>",
    }
}

fn check_test_entry(entry: &TestEntry, names: &[&str], errors: &mut Vec<RuleError>) {
    let name = &entry.name;
    if !names.contains(&name.text.as_str()) {
        errors.push(
            RuleError::new(
                "rules::unbound_variable",
                name.span,
                format!("the left side has no variable `{}`", name.text),
                "not on the left side",
            )
            .suggest(&name.text, names.iter().copied()),
        );
    }
}

fn check_horizontal(rule: &Horizontal, errors: &mut Vec<RuleError>) {
    let mut scope = Scope::new(&rule.header, errors);
    scope.horizontal = true;
    scope.check_root(&rule.pattern);
    scope.left(&rule.pattern);
    let pattern_names = scope.names.clone();
    scope.bind(&rule.sibling.text);
    for entry in &rule.lets {
        scope.expr(&entry.value);
        scope.names.push(&entry.name.text);
    }
    for condition in &rule.conditions {
        scope.expr(condition);
    }
    for (name, term) in &rule.bindings {
        scope.right(term);
        scope.names.push(&name.text);
    }
    for entry in rule.tests.iter().flatten() {
        check_test_entry(entry, &pattern_names, errors);
    }
    let replaces = rule
        .bindings
        .last()
        .is_some_and(|(name, _)| name.text == rule.sibling.text);
    if !replaces {
        let message = format!(
            "the right side does not end with what replaces `{}`",
            rule.sibling.text
        );
        let label = "never replaced";
        errors.push(RuleError::new(
            "rules::sibling_not_replaced",
            rule.sibling.span,
            message,
            label,
        ));
    }
}

fn check_kernel(kernel: &Kernel, errors: &mut Vec<RuleError>) {
    for kind in &kernel.accepts {
        if !REGION_KINDS.contains(&kind.text.as_str()) {
            let message = format!(
                "`{}` is not a kind of region ({})",
                kind.text,
                REGION_KINDS.join(", ")
            );
            let error = RuleError::new("rules::unknown_region_kind", kind.span, message, "unknown kind");
            errors.push(error.suggest(&kind.text, REGION_KINDS));
        }
    }
}

/// Names a rule has bound so far, and the mistakes found in it.
struct Scope<'a, 'e> {
    names: Vec<&'a str>,
    /// Whether terms of the tile sort may occur.
    tiles: bool,
    horizontal: bool,
    errors: &'e mut Vec<RuleError>,
}

impl<'a, 'e> Scope<'a, 'e> {
    fn new(header: &Header, errors: &'e mut Vec<RuleError>) -> Self {
        Scope {
            names: Vec::new(),
            tiles: matches!(header.phase, Phase::Lower | Phase::Fuse | Phase::View),
            horizontal: false,
            errors,
        }
    }

    fn report(&mut self, error: RuleError) {
        self.errors.push(error);
    }

    /// A left side that is a variable would match everywhere.
    fn check_root(&mut self, term: &Term) {
        if !matches!(term, Term::Op(_)) {
            let message = "the left side must be an op, so that it is clear where the rule looks";
            self.report(RuleError::new(
                "rules::no_root",
                term.span(),
                message,
                "not an op",
            ));
        }
    }

    fn bind(&mut self, name: &'a str) {
        if !self.names.contains(&name) {
            self.names.push(name);
        }
    }

    fn left(&mut self, term: &'a Term) {
        match term {
            Term::Var(name) | Term::Optional { name, .. } => self.bind(&name.text),
            Term::Each(inner) => self.left(inner),
            Term::Scalar { value, .. } => self.left_expr(value),
            Term::Op(op) => self.left_op(op),
        }
    }

    fn left_op(&mut self, op: &'a OpTerm) {
        if let Some(label) = &op.label {
            self.bind(&label.text);
        }
        if let Head::Family { binding, .. } = &op.head {
            self.bind(&binding.text);
        }
        let def = self.check_head(op);
        for item in &op.attrs {
            match item {
                AttrItem::Bare(name) => self.bind(&name.text),
                AttrItem::Named { name, value } => {
                    self.check_attr(def, name);
                    self.left_expr(value);
                }
            }
        }
        op.operands.iter().for_each(|operand| self.left(operand));
    }

    /// On the left, a name alone binds; anything else is computed from what is bound.
    fn left_expr(&mut self, value: &'a Expr) {
        match &value.kind {
            ExprKind::Name(name) => self.bind(name),
            _ => self.expr(value),
        }
    }

    fn right(&mut self, term: &Term) {
        match term {
            Term::Var(name) | Term::Optional { name, .. } => self.check_bound(name),
            Term::Each(inner) => self.right(inner),
            Term::Scalar { value, .. } => self.expr(value),
            Term::Op(op) => self.right_op(op),
        }
    }

    fn right_op(&mut self, op: &OpTerm) {
        if let Head::Family { binding, .. } = &op.head {
            self.check_bound(binding);
        }
        let def = self.check_head(op);
        let is_tile = matches!(op.head, Head::Tile(_));
        for item in &op.attrs {
            match item {
                AttrItem::Bare(_) if is_tile => {}
                AttrItem::Bare(name) => self.check_bound(name),
                AttrItem::Named { name, value } => {
                    self.check_attr(def, name);
                    self.expr(value);
                }
            }
        }
        if let Some(def) = def {
            self.check_required(def, op);
        }
        op.operands.iter().for_each(|operand| self.right(operand));
    }

    fn check_bound(&mut self, name: &Name) {
        if !self.names.contains(&name.text.as_str()) {
            let error = RuleError::new(
                "rules::unbound_variable",
                name.span,
                format!("`{}` is used but not bound on the left side", name.text),
                "not bound",
            );
            let error = error.suggest(&name.text, self.names.iter().copied());
            self.report(error);
        }
    }

    /// The declaration of the op at the head, where it names one.
    fn check_head(&mut self, op: &OpTerm) -> Option<&'static OpDef> {
        match &op.head {
            Head::Op(name) => {
                let Some(def) = lookup(&name.text) else {
                    self.unknown_op(name);
                    return None;
                };
                self.check_arity(def, op);
                Some(def)
            }
            Head::Family { .. } => None,
            Head::Tile(name) => {
                if !self.tiles {
                    let message = format!(
                        "`{}` is of the tile sort, which begins in phase `lower`",
                        name.text
                    );
                    let label = "not known in this phase";
                    self.report(RuleError::new(
                        "rules::tile_form_in_phase",
                        name.span,
                        message,
                        label,
                    ));
                }
                None
            }
        }
    }

    fn unknown_op(&mut self, name: &Name) {
        let message = format!("no op is named `{}`", name.text);
        let error = RuleError::new("rules::unknown_op", name.span, message, "unknown op");
        self.report(match closest_op(&name.text) {
            Some(known) => error.help(format!("did you mean `{known}`?")),
            None => error,
        });
    }

    fn check_arity(&mut self, def: &OpDef, op: &OpTerm) {
        let has_each = matches!(op.operands.last(), Some(Term::Each(_)));
        let found = op.operands.len() - usize::from(has_each);
        let (least, named) = (
            def.operands.required.len(),
            def.operands.required.len() + def.operands.optional.len(),
        );
        let too_few = found < least && !has_each;
        if too_few || (found > named && !def.operands.variadic) {
            let names: Vec<&str> = def
                .operands
                .required
                .iter()
                .chain(def.operands.optional)
                .copied()
                .collect();
            self.report(RuleError::new(
                "rules::arity",
                op.span,
                format!(
                    "`{}` takes ({}), found {found} operands",
                    def.name,
                    names.join(", ")
                ),
                "wrong number of operands",
            ));
        }
    }

    fn check_attr(&mut self, def: Option<&'static OpDef>, name: &Name) {
        let Some(def) = def else { return };
        if !def.attrs.iter().any(|attr| attr.name == name.text) {
            let message = format!("`{}` has no attribute `{}`", def.name, name.text);
            let error = RuleError::new(
                "rules::unknown_attribute",
                name.span,
                message,
                "unknown attribute",
            );
            self.report(error.suggest(&name.text, def.attrs.iter().map(|attr| attr.name)));
        }
    }

    /// On the right, every attribute without a default is given.
    fn check_required(&mut self, def: &OpDef, op: &OpTerm) {
        if op.attrs.iter().any(|item| matches!(item, AttrItem::Bare(_))) {
            return;
        }
        for attr in def
            .attrs
            .iter()
            .filter(|attr| attr.default == AttrDefault::Required)
        {
            let given =
                |item: &AttrItem| matches!(item, AttrItem::Named { name, .. } if name.text == attr.name);
            if !op.attrs.iter().any(given) {
                let name = op.head.name();
                let message = format!("`{}` on the right side needs attribute `{}`", def.name, attr.name);
                let label = format!("add e.g. `{}[{}=..]`", def.name, attr.name);
                self.report(RuleError::new(
                    "rules::missing_attribute",
                    name.span,
                    message,
                    label,
                ));
            }
        }
    }

    fn expr(&mut self, expr: &Expr) {
        match &expr.kind {
            ExprKind::Int(_) | ExprKind::Float(_) | ExprKind::Str(_) | ExprKind::DType(_) => {}
            ExprKind::List(items) => items.iter().for_each(|item| self.expr(item)),
            ExprKind::Name(text) => {
                let is_word = WORDS.contains(&text.as_str())
                    || FAMILIES.contains(&text.as_str())
                    || all().any(|def| def.name == text || def.attrs.iter().any(|attr| attr.name == text));
                if !is_word {
                    self.check_bound(&Name {
                        text: text.clone(),
                        span: expr.span,
                    });
                }
            }
            ExprKind::Call { function, args } => {
                self.check_function(function, args.len());
                for arg in args {
                    self.expr(arg);
                }
            }
            ExprKind::Not(inner) | ExprKind::Negate(inner) => self.expr(inner),
            ExprKind::Binary { left, right, .. } => {
                self.expr(left);
                self.expr(right);
            }
            ExprKind::In { value, set } => {
                self.expr(value);
                for member in set {
                    self.expr(member);
                }
            }
        }
    }

    fn check_function(&mut self, function: &Name, n_args: usize) {
        let sibling = SIBLING_FUNCTIONS
            .iter()
            .find(|(name, ..)| self.horizontal && *name == function.text);
        let arity = match (lookup_function(&function.text), sibling) {
            (Some(known), _) => known.arity,
            (None, Some((_, arity, _))) => *arity,
            (None, None) => {
                let message = format!("no function is named `{}`", function.text);
                let error = RuleError::new(
                    "rules::unknown_function",
                    function.span,
                    message,
                    "unknown function",
                );
                let known = FUNCTIONS.iter().map(|function| function.name);
                return self.report(error.suggest(&function.text, known));
            }
        };
        if !(arity.0..=arity.1).contains(&n_args) {
            let message = format!("`{}` takes {} arguments, found {n_args}", function.text, arity.0);
            let label = "wrong number of arguments";
            self.report(RuleError::new(
                "rules::function_arity",
                function.span,
                message,
                label,
            ));
        }
    }
}
