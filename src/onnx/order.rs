//! Nodes into an order in which every value is defined before its use.
//!
//! ONNX asks for this order, but not every writer keeps it. The order of the file is kept
//! where it can be.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::error::ImportError;
use super::proto::{GraphProto, NodeProto};

/// Name of a node for messages: its own, else that of its first output.
pub fn label(node: &NodeProto) -> &str {
    let outputs = node.output.iter().map(String::as_str);
    std::iter::once(node.name.as_str())
        .chain(outputs)
        .find(|name| !name.is_empty())
        .unwrap_or(&node.op_type)
}

/// Positions of `nodes` in an order in which they can run. `given` are the names defined
/// before any node; names nothing here defines are left to be looked up outside.
///
/// # Errors
/// If a name is defined twice, or nodes wait for each other.
pub fn sorted<'a>(
    nodes: &'a [NodeProto],
    given: impl Iterator<Item = &'a str>,
    place: &str,
) -> Result<Vec<usize>, ImportError> {
    let producers = producers(nodes, given, place)?;
    let needs: Vec<BTreeSet<usize>> = nodes
        .iter()
        .map(|node| {
            uses(node)
                .into_iter()
                .filter_map(|name| producers.get(name).copied().flatten())
                .collect()
        })
        .collect();
    if needs
        .iter()
        .enumerate()
        .all(|(position, needs)| needs.last().is_none_or(|&last| last < position))
    {
        return Ok((0..nodes.len()).collect());
    }
    kahn(&needs).map_err(|waiting| ImportError::Cycle {
        place: place.to_owned(),
        nodes: cycle(&needs, &waiting)
            .into_iter()
            .map(|position| label(&nodes[position]).to_owned())
            .collect(),
    })
}

/// The node behind each name; `None` for names given from outside.
fn producers<'a>(
    nodes: &'a [NodeProto],
    given: impl Iterator<Item = &'a str>,
    place: &str,
) -> Result<HashMap<&'a str, Option<usize>>, ImportError> {
    let duplicate = |name: &str| ImportError::Duplicate {
        name: name.to_owned(),
        place: place.to_owned(),
    };
    let mut producers = HashMap::new();
    for name in given {
        if producers.insert(name, None).is_some() {
            return Err(duplicate(name));
        }
    }
    for (position, node) in nodes.iter().enumerate() {
        for name in node.output.iter().filter(|name| !name.is_empty()) {
            if producers.insert(name.as_str(), Some(position)).is_some() {
                return Err(duplicate(name));
            }
        }
    }
    Ok(producers)
}

/// Names a node reads, those its subgraphs take from outside included.
fn uses(node: &NodeProto) -> HashSet<&str> {
    let mut names: HashSet<&str> = node
        .input
        .iter()
        .map(String::as_str)
        .filter(|name| !name.is_empty())
        .collect();
    for body in bodies(node) {
        names.extend(free_names(body));
    }
    names
}

fn bodies(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    node.attribute
        .iter()
        .flat_map(|attribute| attribute.g.as_deref().into_iter().chain(&attribute.graphs))
}

/// Names a subgraph uses without defining them.
fn free_names(body: &GraphProto) -> HashSet<&str> {
    let mut names: HashSet<&str> = body.node.iter().flat_map(uses).collect();
    names.extend(body.output.iter().map(|output| output.name.as_str()));
    for name in given_names(body).chain(
        body.node
            .iter()
            .flat_map(|node| node.output.iter().map(String::as_str)),
    ) {
        names.remove(name);
    }
    names
}

/// Names of a graph's inputs and initializers, each once: an initializer may also be an input.
pub fn given_names(graph: &GraphProto) -> impl Iterator<Item = &str> {
    let initializers = initializer_names(graph);
    let inputs = graph.input.iter().map(|input| input.name.as_str());
    inputs
        .filter(move |name| !initializers.contains(name))
        .chain(graph.initializer.iter().map(|tensor| tensor.name.as_str()))
        .chain(
            graph
                .sparse_initializer
                .iter()
                .filter_map(|sparse| Some(sparse.values.as_ref()?.name.as_str())),
        )
}

/// Names of a graph's initializers.
pub fn initializer_names(graph: &GraphProto) -> HashSet<&str> {
    let sparse = graph
        .sparse_initializer
        .iter()
        .filter_map(|sparse| sparse.values.as_ref());
    graph
        .initializer
        .iter()
        .chain(sparse)
        .map(|tensor| tensor.name.as_str())
        .collect()
}

/// Kahn's algorithm, the earliest ready node first; on failure, the nodes that never get ready.
fn kahn(needs: &[BTreeSet<usize>]) -> Result<Vec<usize>, BTreeSet<usize>> {
    let mut users = vec![Vec::new(); needs.len()];
    let mut n_missing: Vec<usize> = needs.iter().map(BTreeSet::len).collect();
    for (position, needs) in needs.iter().enumerate() {
        for &producer in needs {
            users[producer].push(position);
        }
    }
    let mut ready: BTreeSet<usize> = (0..needs.len())
        .filter(|&position| n_missing[position] == 0)
        .collect();
    let mut order = Vec::with_capacity(needs.len());
    while let Some(position) = ready.pop_first() {
        order.push(position);
        for &user in &users[position] {
            n_missing[user] -= 1;
            if n_missing[user] == 0 {
                ready.insert(user);
            }
        }
    }
    if order.len() == needs.len() {
        return Ok(order);
    }
    Err((0..needs.len())
        .filter(|&position| n_missing[position] > 0)
        .collect())
}

/// One cycle among `waiting`, each node followed by one that uses it.
fn cycle(needs: &[BTreeSet<usize>], waiting: &BTreeSet<usize>) -> Vec<usize> {
    let mut path: Vec<usize> = waiting.first().copied().into_iter().collect();
    while let Some(&last) = path.last() {
        let Some(&next) = needs[last].iter().find(|producer| waiting.contains(producer)) else {
            return path;
        };
        if let Some(start) = path.iter().position(|&seen| seen == next) {
            let mut cycle = path.split_off(start);
            cycle.reverse();
            return cycle;
        }
        path.push(next);
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
        NodeProto {
            name: name.to_owned(),
            op_type: "Op".to_owned(),
            input: inputs.iter().map(|name| (*name).to_owned()).collect(),
            output: outputs.iter().map(|name| (*name).to_owned()).collect(),
            ..NodeProto::default()
        }
    }

    #[test]
    fn nodes_move_only_where_they_must() {
        let nodes = [
            node("c", &["b"], &["c"]),
            node("a", &["x"], &["a"]),
            node("b", &["a"], &["b"]),
        ];
        assert_eq!(sorted(&nodes, ["x"].into_iter(), "graph").unwrap(), [1, 2, 0]);
        let good = [node("a", &["x"], &["a"]), node("b", &["a", "outer"], &["b"])];
        assert_eq!(sorted(&good, ["x"].into_iter(), "graph").unwrap(), [0, 1]);
    }

    #[test]
    fn a_cycle_names_its_nodes_in_order_of_flow() {
        let nodes = [
            node("before", &["x"], &["p"]),
            node("first", &["p", "r"], &["q"]),
            node("second", &["q"], &["r"]),
            node("after", &["r"], &["s"]),
        ];
        let error = sorted(&nodes, ["x"].into_iter(), "graph `g`")
            .unwrap_err()
            .to_string();
        assert_eq!(error, "graph `g` has a cycle: `second` -> `first` -> `second`");
    }

    #[test]
    fn subgraphs_count_as_uses_of_what_they_take_from_outside() {
        let body = GraphProto {
            node: vec![node("inner", &["late", "own"], &["z"])],
            ..GraphProto::default()
        };
        let mut holder = node("if", &["c"], &["y"]);
        holder.attribute.push(super::super::proto::AttributeProto {
            g: Some(Box::new(body)),
            ..Default::default()
        });
        let nodes = [holder, node("late", &["x"], &["late"])];
        assert_eq!(sorted(&nodes, ["x", "c"].into_iter(), "graph").unwrap(), [1, 0]);
    }

    #[test]
    fn a_name_is_defined_once() {
        let nodes = [node("a", &["x"], &["y"]), node("b", &["x"], &["y"])];
        let error = sorted(&nodes, ["x"].into_iter(), "graph `g`")
            .unwrap_err()
            .to_string();
        assert_eq!(error, "value `y` is defined twice in graph `g`");
    }
}
