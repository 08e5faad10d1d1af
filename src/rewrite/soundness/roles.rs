//! What the attributes of a rule mean, from the names under which ops know them.

use std::collections::{BTreeMap, BTreeSet};

use crate::rewrite::rules::ast::{AttrItem, ExprKind, Term};

/// What values an attribute may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Permutation,
    Axis,
    Axes,
    /// Dims of a result.
    Extents,
    /// Positions along axes.
    Bounds,
    /// Strides, dilations and windows: from one on.
    Steps,
    /// Paddings: from zero on.
    Pads,
    /// A small count or a flag.
    Count,
    Number,
}

impl Role {
    /// The role of an attribute in the op table.
    pub fn of_attribute(name: &str) -> Role {
        match name {
            "perm" => Role::Permutation,
            "axis" => Role::Axis,
            "axes" => Role::Axes,
            "shape" => Role::Extents,
            "starts" | "ends" => Role::Bounds,
            "strides" | "dilations" | "kernel_shape" | "steps" => Role::Steps,
            "pads" | "before" | "after" | "output_padding" => Role::Pads,
            "group" | "causal" | "causal_offset" | "count_include_pad" => Role::Count,
            _ => Role::Number,
        }
    }
}

/// Roles of the names of a left side.
#[derive(Clone, Debug, Default)]
pub struct Roles {
    by_name: BTreeMap<String, Role>,
    optional: BTreeSet<String>,
}

impl Roles {
    pub fn of(left: &Term) -> Self {
        let mut roles = Roles::default();
        left.walk(&mut |term| match term {
            Term::Optional { name, .. } => {
                roles.optional.insert(name.text.clone());
            }
            Term::Op(op) => op.attrs.iter().for_each(|item| roles.attr(item)),
            Term::Var(_) | Term::Each(_) | Term::Scalar { .. } => {}
        });
        roles
    }

    fn attr(&mut self, item: &AttrItem) {
        if let AttrItem::Named { name, value } = item
            && let ExprKind::Name(variable) = &value.kind
        {
            self.by_name
                .entry(variable.clone())
                .or_insert_with(|| Role::of_attribute(&name.text));
        }
    }

    /// The role of an attribute's name on the left side; a number where it is none.
    pub fn of_name(&self, name: &str) -> Role {
        self.by_name.get(name).copied().unwrap_or(Role::Number)
    }

    /// Whether the name may stand for an absent operand.
    pub fn is_optional(&self, name: &str) -> bool {
        self.optional.contains(name)
    }
}
