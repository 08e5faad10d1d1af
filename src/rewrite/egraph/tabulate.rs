//! From the saturated e-graph to the tables of [`crate::rewrite::extraction::net`].
//!
//! An expression of a tensor is a use of an op found in its class: as a tensor term, or as
//! the tile form of a `store`. An operand may be inlined where the class of its `load` holds
//! tile forms too: that is what fuse rules achieve by `load(store(t)) = t`.

use std::collections::{BTreeMap, BTreeSet};

use egg::{Id, Language};

use super::analysis::{Data, Rank, Terms};
use super::language::{Enode, Head, kind_of};
use super::term_graph::TermGraph;
use crate::ir::TensorType;
use crate::ops::TileKind;
use crate::rewrite::extraction::cost::{flops_of_op, flops_per_element};
use crate::rewrite::extraction::net::{Net, NetExpr, NetSource, NetTensor, Use};

/// An op, its attributes and the classes of its operands.
type Key = (&'static str, u32, Vec<Option<Id>>);

/// A net, and what its tensors and expressions are in the e-graph.
pub struct Table {
    pub net: Net,
    /// The class of each tensor.
    pub tensors: Vec<Id>,
    /// A node of each expression.
    pub exprs: Vec<Enode>,
}

/// Tables of everything the outputs can be computed from.
pub fn tabulate(graph: &TermGraph) -> Table {
    let mut table = Tabulator {
        graph,
        terms: &graph.terms,
        forms: BTreeMap::new(),
        places: BTreeMap::new(),
        classes: Vec::new(),
        fused: BTreeMap::new(),
    };
    table.index_fused();
    table.discover();
    table.order();
    let net = table.net();
    Table {
        exprs: table.nodes(&net),
        tensors: table.classes,
        net,
    }
}

/// How a tensor can be computed.
#[derive(Default)]
struct Forms {
    /// Each op form, with the tile node that spells it, if rules made one, and the results
    /// of the op.
    exprs: BTreeMap<Key, (Option<Enode>, Vec<Id>)>,
}

struct Tabulator<'a> {
    graph: &'a TermGraph,
    terms: &'a Terms,
    forms: BTreeMap<Id, Forms>,
    /// Number of each class in the net, and back.
    places: BTreeMap<Id, usize>,
    classes: Vec<Id>,
    /// Rules that fused loads of a mode from a class.
    fused: BTreeMap<(u32, Id), BTreeSet<usize>>,
}

impl Tabulator<'_> {
    fn data(&self, class: Id) -> &Data {
        &self.terms[class].data
    }

    fn index_fused(&mut self) {
        for &(mode, tensor, rule) in &self.graph.fused {
            self.fused
                .entry((mode, self.terms.find(tensor)))
                .or_default()
                .insert(rule);
        }
    }

    /// Finds all classes the outputs may need, and their forms.
    fn discover(&mut self) {
        let mut open: Vec<Id> = self.graph.outputs.iter().map(|&id| self.terms.find(id)).collect();
        while let Some(class) = open.pop() {
            if self.forms.contains_key(&class) {
                continue;
            }
            let forms = self.forms_of(class);
            for ((_, _, operands), (_, results)) in &forms.exprs {
                open.extend(operands.iter().flatten().chain(results));
            }
            self.forms.insert(class, forms);
        }
    }

    fn forms_of(&self, class: Id) -> Forms {
        let mut forms = Forms::default();
        if self.is_leaf(class) {
            return forms;
        }
        for enode in self.terms[class].iter() {
            match enode.head {
                Head::Op(name) => {
                    forms.add((name, enode.data, self.operands(enode)), None, vec![class]);
                }
                Head::Project => self.add_tuple(enode.children[0], &mut forms),
                Head::Store => self.add_tiles(enode.children[0], class, &mut forms),
                Head::Absent | Head::Input | Head::Weight | Head::Load | Head::Tile(_) => {}
            }
        }
        forms
    }

    fn is_leaf(&self, class: Id) -> bool {
        let mut nodes = self.terms[class].iter();
        nodes.any(|enode| matches!(enode.head, Head::Input | Head::Weight))
    }

    fn add_tuple(&self, tuple: Id, forms: &mut Forms) {
        for enode in self.terms[self.terms.find(tuple)].iter() {
            if let Head::Op(name) = enode.head {
                let n_results = self.terms.analysis.interner.n_results(enode.data);
                let results = (0u32..)
                    .take(n_results)
                    .filter_map(|number| self.terms.lookup(Enode::new(Head::Project, number, [tuple])))
                    .collect();
                forms.add((name, enode.data, self.operands(enode)), None, results);
            }
        }
    }

    fn add_tiles(&self, tile: Id, class: Id, forms: &mut Forms) {
        for enode in self.terms[self.terms.find(tile)].iter() {
            if let Some(key) = self.tile_key(enode) {
                forms.add(key, Some(enode.clone()), vec![class]);
            }
        }
    }

    /// The op form of a tile node: each child is read back to the tensor it loads.
    fn tile_key(&self, enode: &Enode) -> Option<Key> {
        let Head::Tile(name) = enode.head else {
            return None;
        };
        let mut operands = Vec::new();
        for &child in &enode.children {
            operands.push(if self.is_absent(child) {
                None
            } else {
                Some(self.loaded(child)?)
            });
        }
        Some((name, enode.data, operands))
    }

    /// The tensor that a tile class reads; all its loads read the same one.
    fn loaded(&self, class: Id) -> Option<Id> {
        let mut nodes = self.terms[self.terms.find(class)].iter();
        let load = nodes.find(|enode| enode.head == Head::Load)?;
        Some(self.terms.find(load.children[0]))
    }

    fn is_absent(&self, class: Id) -> bool {
        let mut nodes = self.terms[self.terms.find(class)].iter();
        nodes.any(|enode| enode.head == Head::Absent)
    }

    fn operands(&self, enode: &Enode) -> Vec<Option<Id>> {
        enode
            .children
            .iter()
            .map(|&child| (!self.is_absent(child)).then(|| self.terms.find(child)))
            .collect()
    }

    /// Numbers classes so that everything can be computed in rising order. Of equals, products
    /// come last: cones meet them first, and then know what else may join the main loop.
    fn order(&mut self) {
        let mut classes: Vec<Id> = self.forms.keys().copied().collect();
        let ranks = self.settled_ranks();
        let is_product = |class: Id| {
            let mut ops = self.forms[&class].exprs.keys().map(|(op, ..)| *op);
            ops.any(|op| kind_of(op) == TileKind::Dot)
        };
        classes.sort_by_key(|&class| (ranks[&class], is_product(class), class));
        self.places = classes.iter().copied().zip(0..).collect();
        self.classes = classes;
    }

    /// Ranks at which classes that rules made can be computed in as many of their forms as
    /// possible. They have the rank of their shallowest form, below what other forms read; each
    /// rises above what those read, where that is not above what the class is read for.
    fn settled_ranks(&self) -> BTreeMap<Id, Rank> {
        let own = |&class: &Id| (class, self.data(class).rank.unwrap_or_default());
        let mut ranks: BTreeMap<Id, Rank> = self.forms.keys().map(own).collect();
        let limits = self.rank_limits(&ranks);
        let mut made: Vec<Id> = ranks
            .keys()
            .copied()
            .filter(|class| ranks[class].is_made())
            .collect();
        made.retain(|class| self.has_single_results(*class));
        made.sort_by_key(|class| (ranks[class], *class));
        for class in made {
            let above = |(.., operands): &Key| {
                let below = operands.iter().flatten().map(|operand| ranks[operand]).max();
                below.unwrap_or_default()
            };
            let forms = self.forms[&class].exprs.keys().map(above);
            let fitting = forms.filter(|below| limits.get(&class).is_none_or(|limit| below < limit));
            let highest = fitting.max().map_or(ranks[&class], Rank::next);
            ranks.insert(class, highest.max(ranks[&class]));
        }
        ranks
    }

    /// For each class the lowest rank of the imported values that are computed from it, directly or
    /// through classes that rules made.
    fn rank_limits(&self, ranks: &BTreeMap<Id, Rank>) -> BTreeMap<Id, Rank> {
        let mut limits: BTreeMap<Id, Rank> = BTreeMap::new();
        let mut classes: Vec<Id> = ranks.keys().copied().collect();
        classes.sort_by_key(|class| std::cmp::Reverse((ranks[class], *class)));
        for class in classes {
            let own = if ranks[&class].is_made() {
                limits.get(&class).copied()
            } else {
                Some(ranks[&class])
            };
            let Some(own) = own else { continue };
            for operand in self.forms[&class]
                .exprs
                .keys()
                .flat_map(|(.., operands)| operands)
                .flatten()
            {
                if ranks[operand] < ranks[&class] {
                    let limit = limits.entry(*operand).or_insert(own);
                    *limit = own.min(*limit);
                }
            }
        }
        limits
    }

    fn has_single_results(&self, class: Id) -> bool {
        self.forms[&class]
            .exprs
            .values()
            .all(|(_, results)| results.len() == 1)
    }

    fn net(&self) -> Net {
        let mut net = Net::default();
        for &class in &self.classes {
            net.tensors.push(self.tensor(class));
        }
        let mut numbers: BTreeMap<(Key, Vec<usize>), usize> = BTreeMap::new();
        for (place, class) in self.classes.iter().enumerate() {
            for (key, (tile, results)) in &self.forms[class].exprs {
                let results: Vec<usize> = results.iter().map(|result| self.places[result]).collect();
                let number = *numbers.entry((key.clone(), results.clone())).or_insert_with(|| {
                    net.exprs.push(self.expr(key, tile.as_ref(), results));
                    net.exprs.len() - 1
                });
                net.tensors[place].exprs.push(number);
            }
        }
        self.link_uses(&mut net);
        self.add_provenance(&mut net);
        net.outputs = self
            .graph
            .outputs
            .iter()
            .map(|&id| self.places[&self.terms.find(id)])
            .collect();
        let is_weight = |tensor: &&NetTensor| matches!(tensor.source, NetSource::Const(Some(_)));
        net.weight_bytes = net.tensors.iter().filter(is_weight).map(NetTensor::n_bytes).sum();
        net.count_consumers();
        net
    }

    fn tensor(&self, class: Id) -> NetTensor {
        let data = self.data(class);
        let ty = data.ty().expect("specialize() gave every value a type").clone();
        let mut source = if data.is_const {
            NetSource::Const(None)
        } else {
            NetSource::Device
        };
        for enode in self.terms[class].iter() {
            match enode.head {
                Head::Input => source = NetSource::Input(enode.data as usize),
                Head::Weight => source = NetSource::Const(Some(enode.data)),
                Head::Absent | Head::Op(_) | Head::Project | Head::Store | Head::Load | Head::Tile(_) => {}
            }
        }
        NetTensor {
            n_elements: ty.n_elements(),
            ty,
            source,
            exprs: Vec::new(),
            consumers: 0,
        }
    }

    fn expr(&self, key: &Key, tile: Option<&Enode>, results: Vec<usize>) -> NetExpr {
        let (op, attrs, operands) = key;
        let attrs = self.terms.analysis.interner.attrs_of(*attrs).clone();
        let kind = kind_of(op);
        let types: Vec<Option<TensorType>> = operands
            .iter()
            .map(|operand| operand.and_then(|class| self.data(class).ty().cloned()))
            .collect();
        let flops = match kind {
            TileKind::Map | TileKind::View | TileKind::Index => flops_per_element(op),
            TileKind::Reduce | TileKind::Dot | TileKind::Window | TileKind::Other => {
                let result = self.classes[results[0]];
                flops_of_op(
                    op,
                    &attrs,
                    &types,
                    self.data(result).ty().expect("tensors are typed"),
                )
            }
        };
        NetExpr {
            op,
            kind,
            attrs,
            operands: self.uses(operands, tile),
            results,
            flops,
            rules: Vec::new(),
            nodes: Vec::new(),
        }
    }

    fn uses(&self, operands: &[Option<Id>], tile: Option<&Enode>) -> Vec<Option<Use>> {
        let loads: Vec<Id> = tile.map_or_else(Vec::new, |enode| enode.children.to_vec());
        operands
            .iter()
            .enumerate()
            .map(|(n, operand)| {
                operand.map(|class| Use {
                    tensor: self.places[&class],
                    inline: Vec::new(),
                    rules: loads
                        .get(n)
                        .map_or_else(Vec::new, |&load| self.fuse_rules(load, class)),
                })
            })
            .collect()
    }

    /// Rules that made the loads of a tile class equal to expressions.
    fn fuse_rules(&self, load: Id, class: Id) -> Vec<usize> {
        let load = self.terms.find(load);
        let loads = self.terms[load].iter().filter(|enode| enode.head == Head::Load);
        let rules: BTreeSet<usize> = loads
            .filter_map(|enode| self.fused.get(&(enode.data, class)))
            .flatten()
            .copied()
            .collect();
        rules.into_iter().collect()
    }

    /// Finds for each operand the expressions of the operand's tensor that may be inlined.
    fn link_uses(&self, net: &mut Net) {
        for (class, forms) in &self.forms {
            let own = net.tensors[self.places[class]].exprs.clone();
            for ((_, (tile, _)), &number) in forms.exprs.iter().zip(&own) {
                let Some(tile) = tile else { continue };
                for (n, &child) in tile.children().iter().enumerate() {
                    let Some(tensor) = net.exprs[number].operands[n].as_ref().map(|own| own.tensor) else {
                        continue;
                    };
                    let inline = self.inlinable(child, tensor, net);
                    if let Some(operand) = net.exprs[number].operands[n].as_mut() {
                        operand.inline = inline;
                    }
                }
            }
        }
    }

    fn inlinable(&self, load: Id, tensor: usize, net: &Net) -> Vec<usize> {
        let Some(class) = self.loaded(load) else {
            return Vec::new();
        };
        let forms = &self.forms[&class];
        let keys: BTreeSet<Key> = self.terms[self.terms.find(load)]
            .iter()
            .filter_map(|enode| self.tile_key(enode))
            .collect();
        let numbered = forms.exprs.keys().zip(&net.tensors[tensor].exprs);
        numbered
            .filter(|(key, _)| keys.contains(key))
            .map(|(_, &number)| number)
            .collect()
    }

    /// Notes which rules made each expression and which imported nodes it stands for.
    fn add_provenance(&self, net: &mut Net) {
        let canonical = |enode: &Enode| {
            let mut enode = enode.clone();
            enode.update_children(|child| self.terms.find(child));
            enode
        };
        let mut nodes: BTreeMap<Enode, BTreeSet<usize>> = BTreeMap::new();
        let mut nodes_of_class: BTreeMap<Id, BTreeSet<usize>> = BTreeMap::new();
        for (enode, node) in &self.graph.imported {
            let enode = canonical(enode);
            if let Some(class) = self.terms.lookup(enode.clone()) {
                nodes_of_class.entry(class).or_default().insert(*node);
            }
            nodes.entry(enode).or_default().insert(*node);
        }
        let mut rules: BTreeMap<Enode, BTreeSet<usize>> = BTreeMap::new();
        for made in &self.graph.made {
            let enode = canonical(&made.enode);
            rules.entry(enode.clone()).or_default().insert(made.rule);
            if let Head::Op(_) = enode.head
                && !self.graph.imported.is_empty()
            {
                let from = made
                    .from
                    .iter()
                    .filter_map(|&id| nodes_of_class.get(&self.terms.find(id)));
                let from: BTreeSet<usize> = from.flatten().copied().collect();
                nodes.entry(enode).or_default().extend(from);
            }
        }
        for (class, forms) in &self.forms {
            let own = net.tensors[self.places[class]].exprs.clone();
            for ((key, (tile, _)), number) in forms.exprs.iter().zip(own) {
                let op = self.op_node(key);
                let expr = &mut net.exprs[number];
                let made_by = [Some(&op), tile.as_ref()];
                expr.rules = made_by
                    .into_iter()
                    .flatten()
                    .filter_map(|enode| rules.get(&canonical(enode)))
                    .flatten()
                    .copied()
                    .collect();
                // A form that no import and no rule spelled stands for what its class was made of.
                let own = nodes.get(&op).or_else(|| nodes_of_class.get(class));
                expr.nodes = own.into_iter().flatten().copied().collect();
            }
        }
    }

    /// A node for each expression: a term if there is one, else a tile form.
    fn nodes(&self, net: &Net) -> Vec<Enode> {
        let mut nodes: Vec<Option<Enode>> = vec![None; net.exprs.len()];
        for (class, forms) in &self.forms {
            let own = &net.tensors[self.places[class]].exprs;
            for ((key, (tile, _)), &number) in forms.exprs.iter().zip(own) {
                let term = self.op_node(key);
                let is_term = self.terms.lookup(term.clone()).is_some();
                let tile = tile.clone().filter(|_| !is_term);
                nodes[number].get_or_insert_with(|| tile.unwrap_or(term));
            }
        }
        let node = |node: Option<Enode>| node.expect("every expression was found in a class");
        nodes.into_iter().map(node).collect()
    }

    /// The tensor term of an op form.
    fn op_node(&self, (name, attrs, operands): &Key) -> Enode {
        let absent = self.terms.lookup(Enode::leaf(Head::Absent, 0));
        let children = operands.iter().filter_map(|operand| operand.or(absent));
        Enode::new(Head::Op(name), *attrs, children)
    }
}

impl Forms {
    fn add(&mut self, key: Key, tile: Option<Enode>, results: Vec<Id>) {
        let form = self.exprs.entry(key).or_insert((None, results));
        if form.0.is_none() {
            form.0 = tile;
        }
    }
}
