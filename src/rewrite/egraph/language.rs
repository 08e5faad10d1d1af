//! The e-graph's terms: tensors in memory and tile expressions, over the op table.
//!
//! Two sorts share one node type. **Tensor** nodes are uses of core ops (and `Input`,
//! `Weight`, `Project`, `Store`); **tile** nodes (`Load`, `Tile`) say what a kernel computes
//! for one element. Attributes are interned records; a node holds the record's number, so
//! nodes stay small and compare by their bits. Types live in the analysis, not in nodes.

use std::collections::BTreeMap;
use std::fmt;

use egg::{Id, Language};
use smallvec::SmallVec;

use crate::ir::{Attr, Attrs, HostTensor};
use crate::ops::{Lowering, OpDef, TileKind, lookup};

/// What a node is, apart from its attributes and children.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Head {
    /// An operand that is not given.
    Absent,
    /// Input number `data` of the graph.
    Input,
    /// Constant number `data` of [`Interner::weights`].
    Weight,
    /// A use of op `name`, attributes `data`; several results make it a tuple.
    Op(&'static str),
    /// Result number `data` of a tuple.
    Project,
    /// A tile expression written to memory.
    Store,
    /// An element read from a tensor for the consumer kind of word `data`.
    Load,
    /// The scalar meaning of op `name` with attributes `data` over tile expressions.
    Tile(&'static str),
}

impl Head {
    /// Whether this is a use of `op`.
    pub fn is_op(self, op: &str) -> bool {
        matches!(self, Head::Op(name) if name == op)
    }

    /// Whether its nodes have attributes.
    pub fn has_attrs(self) -> bool {
        matches!(self, Head::Op(_) | Head::Tile(_))
    }
}

/// A node. `head` comes first, so that the derived order groups nodes of one head; egg
/// finds matching nodes of large classes by that order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Enode {
    pub head: Head,
    pub data: u32,
    pub children: SmallVec<[Id; 4]>,
}

impl Enode {
    pub fn new(head: Head, data: u32, children: impl IntoIterator<Item = Id>) -> Self {
        Enode {
            head,
            data,
            children: children.into_iter().collect(),
        }
    }

    pub fn leaf(head: Head, data: u32) -> Self {
        Enode::new(head, data, [])
    }
}

impl Language for Enode {
    type Discriminant = Head;

    fn discriminant(&self) -> Head {
        self.head
    }

    fn matches(&self, other: &Self) -> bool {
        self.head == other.head && self.data == other.data && self.children.len() == other.children.len()
    }

    fn children(&self) -> &[Id] {
        &self.children
    }

    fn children_mut(&mut self) -> &mut [Id] {
        &mut self.children
    }
}

impl fmt::Display for Enode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.head {
            Head::Absent => f.write_str("absent"),
            Head::Input => write!(f, "input#{}", self.data),
            Head::Weight => write!(f, "weight#{}", self.data),
            Head::Op(name) => write!(f, "{name}#{}", self.data),
            Head::Project => write!(f, "project#{}", self.data),
            Head::Store => f.write_str("store"),
            Head::Load => write!(f, "load#{}", self.data),
            Head::Tile(name) => write!(f, "tile_{name}#{}", self.data),
        }
    }
}

/// Records that nodes name by number: attribute sets, load modes, constants.
#[derive(Debug, Default)]
pub struct Interner {
    attrs: Vec<(Attrs, usize)>,
    attr_numbers: BTreeMap<(Vec<u8>, usize), u32>,
    words: Vec<String>,
    pub weights: Vec<HostTensor>,
}

impl Interner {
    /// Number of an attribute set of a node with `n_results` results.
    pub fn attrs(&mut self, attrs: &Attrs, n_results: usize) -> u32 {
        let key = (attrs_key(attrs), n_results);
        if let Some(&number) = self.attr_numbers.get(&key) {
            return number;
        }
        let number = count(self.attrs.len());
        self.attrs.push((attrs.clone(), n_results));
        self.attr_numbers.insert(key, number);
        number
    }

    pub fn attrs_of(&self, number: u32) -> &Attrs {
        &self.attrs[number as usize].0
    }

    pub fn n_results(&self, number: u32) -> usize {
        self.attrs[number as usize].1
    }

    /// Number of a load mode.
    pub fn word(&mut self, word: &str) -> u32 {
        let known = self.words.iter().position(|own| own == word);
        count(known.unwrap_or_else(|| {
            self.words.push(word.to_owned());
            self.words.len() - 1
        }))
    }

    /// All load modes, by their numbers.
    pub fn words(&self) -> &[String] {
        &self.words
    }

    pub fn word_of(&self, number: u32) -> &str {
        &self.words[number as usize]
    }

    /// Number of a constant; equal constants made by different calls stay apart.
    pub fn weight(&mut self, data: HostTensor) -> u32 {
        self.weights.push(data);
        count(self.weights.len() - 1)
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).expect("graphs have under 2^32 records")
}

/// Bytes that are equal for equal attribute sets; floats compare by their bits.
pub fn attrs_key(attrs: &Attrs) -> Vec<u8> {
    let mut key = Vec::new();
    for (name, attr) in &attrs.0 {
        key.extend_from_slice(name.as_bytes());
        key.push(0);
        push_attr(&mut key, attr);
    }
    key
}

fn push_attr(key: &mut Vec<u8>, attr: &Attr) {
    let tag = |key: &mut Vec<u8>, tag: u8, n: usize| {
        key.push(tag);
        key.extend_from_slice(&n.to_le_bytes());
    };
    match attr {
        Attr::Int(value) => {
            tag(key, 1, 1);
            key.extend_from_slice(&value.to_le_bytes());
        }
        Attr::Float(value) => {
            tag(key, 2, 1);
            key.extend_from_slice(&float_bits(*value).to_le_bytes());
        }
        Attr::Str(text) => {
            tag(key, 3, text.len());
            key.extend_from_slice(text.as_bytes());
        }
        Attr::Ints(values) => {
            tag(key, 4, values.len());
            for value in values {
                key.extend_from_slice(&value.to_le_bytes());
            }
        }
        Attr::Floats(values) => {
            tag(key, 5, values.len());
            for value in values {
                key.extend_from_slice(&float_bits(*value).to_le_bytes());
            }
        }
        Attr::Strs(texts) => {
            tag(key, 6, texts.len());
            for text in texts {
                tag(key, 6, text.len());
                key.extend_from_slice(text.as_bytes());
            }
        }
        Attr::DType(dtype) => {
            tag(key, 7, 1);
            key.extend_from_slice(dtype.name().as_bytes());
            key.push(0);
        }
        Attr::Tensor(data) => {
            let ty = data.ty().to_string();
            tag(key, 8, ty.len());
            key.extend_from_slice(ty.as_bytes());
            key.extend_from_slice(data.bytes());
        }
        Attr::Graph(graph) => {
            let text = format!("{graph:?}");
            tag(key, 9, text.len());
            key.extend_from_slice(text.as_bytes());
        }
    }
}

/// Bits with one NaN and one zero.
fn float_bits(value: f64) -> u64 {
    if value.is_nan() {
        f64::NAN.to_bits()
    } else if value == 0.0 {
        0
    } else {
        value.to_bits()
    }
}

/// The op table's entry of a name that came from the table.
pub fn def_of(op: &'static str) -> &'static OpDef {
    lookup(op).expect("nodes name entries of the op table")
}

/// Tile kind of a core op; ops without generated code count as `Other`.
pub fn kind_of(op: &'static str) -> TileKind {
    match &def_of(op).lower {
        Lowering::Map(_) => TileKind::Map,
        Lowering::Tile(kind, _) => *kind,
        Lowering::Loop | Lowering::Expand(_) | Lowering::Bounded(_) | Lowering::Host(_) => TileKind::Other,
    }
}

/// Spelling of a tile kind in rule files: as a tensor op, and as a tile form.
pub const fn kind_names(kind: TileKind) -> (&'static str, &'static str) {
    match kind {
        TileKind::Map => ("map", "smap"),
        TileKind::View => ("view", "sview"),
        TileKind::Index => ("index", "sindex"),
        TileKind::Reduce => ("reduce", "sred"),
        TileKind::Dot => ("dot", "sdot"),
        TileKind::Window => ("window", "swin"),
        TileKind::Other => ("other", "sother"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attribute_sets_are_one_record_when_equal() {
        let mut interner = Interner::default();
        let set = |alpha: f64| Attrs::new().with("alpha", Attr::Float(alpha));
        let first = interner.attrs(&set(0.5), 1);
        assert_eq!(interner.attrs(&set(0.5), 1), first);
        assert_ne!(interner.attrs(&set(0.25), 1), first);
        assert_ne!(interner.attrs(&set(0.5), 2), first);
        assert_eq!(interner.attrs(&set(0.0), 1), interner.attrs(&set(-0.0), 1));
        assert_eq!(interner.attrs_of(first).float("alpha"), Some(0.5));
    }

    #[test]
    fn order_groups_nodes_by_head() {
        let add = Enode::leaf(Head::Op("add"), 9);
        let relu = Enode::leaf(Head::Op("relu"), 0);
        let load = Enode::leaf(Head::Load, 0);
        assert!(add < relu && relu < load);
    }
}
