//! A derivation that is known.

use egg::Id;
use smallvec::SmallVec;

use crate::ir::{Graph, ValueId};
use crate::rewrite::egraph::language::Head;
use crate::rewrite::egraph::record::Event;
use crate::rewrite::extraction::net::Net;

/// Nodes of an e-graph that are one in the end, told by a number.
pub type Group = u32;

/// What the nodes of a group are.
pub struct Form {
    pub head: Head,
    /// The number of a constant, a load's mode or a result.
    pub data: u32,
    pub children: SmallVec<[Id; 4]>,
    pub class: Id,
    pub n_results: usize,
    /// The group whose attributes it has; that group has its own.
    pub copied: Group,
}

/// How a graph's net was derived. Classes are those of the e-graph in the end, and the `data` of nodes of ops and tile
/// forms are their groups.
pub struct Derivation {
    pub graph: Graph,
    pub forms: Vec<Form>,
    /// Nodes of the graph that are computed, and their groups.
    pub imported: Vec<(usize, Group)>,
    /// Values of the graph that are computed, and their classes.
    pub values: Vec<(ValueId, Id)>,
    /// Constants of the graph, and their numbers; others are made by rules.
    pub weights: Vec<(ValueId, u32)>,
    pub n_weights: usize,
    pub n_classes: usize,
    /// Modes of loads.
    pub words: Vec<String>,
    pub absent: Option<Id>,
    pub events: Vec<Event>,
    /// Groups whose attributes must be equal, and those of which no two may be.
    pub equal: Vec<(Group, Group)>,
    pub apart: Vec<Vec<Group>>,
    /// Without attributes.
    pub net: Net,
    /// By tensor and expression of the net.
    pub classes: Vec<Id>,
    pub groups: Vec<Group>,
}
