//! Graphs as text.

use std::collections::HashMap;
use std::fmt::Write;

use super::super::{Attr, Attrs, Dim, Graph, Node, Operand, Source, TensorType, Value, ValueId};
use super::{is_identifier, literal};

/// The text of a graph, from which [`super::parse`] makes the same graph.
pub fn print(graph: &Graph) -> String {
    print_at(graph, 0, false)
}

/// Like [`print()`], for people alone: the data of large weights is left out.
pub fn print_brief(graph: &Graph) -> String {
    print_at(graph, 0, true)
}

fn print_at(graph: &Graph, depth: usize, brief: bool) -> String {
    let statements = statements(graph);
    let mut printer = Printer {
        graph,
        labels: labels(graph, &statements),
        text: String::new(),
        depth,
        brief,
    };
    printer.graph(&statements);
    printer.text
}

struct Printer<'a> {
    graph: &'a Graph,
    /// How each value is referred to.
    labels: Vec<String>,
    text: String,
    depth: usize,
    brief: bool,
}

impl Printer<'_> {
    fn graph(&mut self, statements: &[Statement<'_>]) {
        let graph = self.graph;
        let inputs: Vec<String> = graph
            .inputs
            .iter()
            .map(|&input| self.define(input, None))
            .collect();
        self.push(format_args!("graph {}({})", name(&graph.name), inputs.join(", ")));
        if !graph.captures.is_empty() {
            let captures: Vec<String> = graph
                .captures
                .iter()
                .map(|(own, outer)| format!("{} = {outer:?}", self.label(*own)))
                .collect();
            self.push(format_args!(" captures ({})", captures.join(", ")));
        }
        self.push(format_args!(" {{\n"));
        for statement in statements {
            self.indent(1);
            match statement {
                Statement::Weight(value) => self.weight(*value),
                Statement::Node(node) => self.node(node),
            }
        }
        self.outputs();
        self.indent(0);
        self.push(format_args!("}}"));
    }

    fn weight(&mut self, value: ValueId) {
        let data = self
            .graph
            .weight(value)
            .expect("statements() lists weights as weights");
        let label = self.define(value, Some(&data.ty()));
        let data = literal::tensor(data, self.brief);
        self.push(format_args!("{label} = {data}\n"));
    }

    fn node(&mut self, node: &Node) {
        let results: Vec<String> = node
            .results
            .iter()
            .map(|&result| self.define(result, None))
            .collect();
        let operands: Vec<String> = node
            .operands
            .iter()
            .map(|operand| self.operand(*operand))
            .collect();
        let results = if results.is_empty() {
            "()".to_owned()
        } else {
            results.join(", ")
        };
        let attrs = self.attrs(&node.attrs);
        self.push(format_args!(
            "{results} = {}{attrs}({})",
            node.op,
            operands.join(", ")
        ));
        self.list(" from", &node.origin);
        self.list(" by", &node.rules);
        self.push(format_args!("\n"));
    }

    fn list(&mut self, word: &str, names: &[String]) {
        for (position, text) in names.iter().enumerate() {
            let before = if position == 0 { word } else { "," };
            self.push(format_args!("{before} {text:?}"));
        }
    }

    fn outputs(&mut self) {
        let graph = self.graph;
        let outputs: Vec<String> = graph
            .outputs
            .iter()
            .zip(&graph.output_names)
            .map(|(&output, name)| {
                if *name == graph.value(output).name {
                    self.label(output).to_owned()
                } else {
                    format!("{} as {name:?}", self.label(output))
                }
            })
            .collect();
        if !outputs.is_empty() {
            self.indent(1);
            self.push(format_args!("return {}\n", outputs.join(", ")));
        }
    }

    /// A value where it is defined: its label, and its type unless that is `expected`.
    fn define(&self, value: ValueId, expected: Option<&TensorType>) -> String {
        let ty = &self.graph.value(value).ty;
        let label = self.label(value);
        match ty {
            _ if expected == ty.as_ref() => label.to_owned(),
            Some(ty) => format!("{label}: {}", tensor_type(ty)),
            None => format!("{label}: ?"),
        }
    }

    fn label(&self, value: ValueId) -> &str {
        &self.labels[value.0 as usize]
    }

    fn operand(&self, operand: Operand) -> String {
        operand.map_or_else(|| "_".to_owned(), |value| self.label(value).to_owned())
    }

    fn attrs(&self, attrs: &Attrs) -> String {
        if attrs.0.is_empty() {
            return String::new();
        }
        let texts: Vec<String> = attrs
            .0
            .iter()
            .map(|(key, attr)| format!("{}={}", name(key), self.attr(attr)))
            .collect();
        format!("[{}]", texts.join(", "))
    }

    fn attr(&self, attr: &Attr) -> String {
        match attr {
            Attr::Int(value) => value.to_string(),
            Attr::Float(value) => literal::attr_float(*value),
            Attr::Str(value) => format!("{value:?}"),
            Attr::Ints(values) => list("", values.iter().map(i64::to_string)),
            Attr::Floats(values) => list("floats", values.iter().map(|&value| literal::attr_float(value))),
            Attr::Strs(values) => list("strings", values.iter().map(|value| format!("{value:?}"))),
            Attr::DType(dtype) => dtype.to_string(),
            Attr::Tensor(data) => literal::tensor(data, self.brief),
            Attr::Graph(body) => print_at(body, self.depth + 2, self.brief),
        }
    }

    fn indent(&mut self, more: usize) {
        let width = 2 * (self.depth + more);
        self.push(format_args!("{:width$}", ""));
    }

    fn push(&mut self, text: std::fmt::Arguments<'_>) {
        self.text
            .write_fmt(text)
            .expect("writing to a string cannot fail");
    }
}

/// A list; empty ones, which show no element, say what they would hold.
fn list(word: &str, texts: impl Iterator<Item = String>) -> String {
    let texts: Vec<String> = texts.collect();
    let word = if texts.is_empty() { word } else { "" };
    format!("{word}[{}]", texts.join(", "))
}

fn name(name: &str) -> String {
    if is_identifier(name) {
        name.to_owned()
    } else {
        format!("{name:?}")
    }
}

fn tensor_type(ty: &TensorType) -> String {
    let dims: Vec<String> = ty
        .shape
        .0
        .iter()
        .map(|dim| match dim {
            Dim::Known(extent) => extent.to_string(),
            Dim::Symbol(symbol) => name(symbol),
        })
        .collect();
    format!("{}[{}]", ty.dtype, dims.join(","))
}

/// Labels of all values: the name where that is enough, with the number where names repeat or
/// the value is not where the parser would put it, and the number alone without a name.
fn labels(graph: &Graph, statements: &[Statement<'_>]) -> Vec<String> {
    let mut uses: HashMap<&str, usize> = HashMap::new();
    for value in &graph.values {
        *uses.entry(&value.name).or_default() += 1;
    }
    let positions = positions(graph, statements);
    let label = |(id, value): (usize, &Value)| {
        let own = value.name.as_str();
        if own.is_empty() {
            format!("%{id}")
        } else if uses[own] > 1 || positions[id] != Some(id) {
            format!("{}%{id}", name(own))
        } else {
            name(own)
        }
    };
    graph.values.iter().enumerate().map(label).collect()
}

/// For each value, how many the text defines before it.
fn positions(graph: &Graph, statements: &[Statement<'_>]) -> Vec<Option<usize>> {
    let mut positions = vec![None; graph.values.len()];
    let defined = statements.iter().flat_map(|statement| match statement {
        Statement::Weight(value) => std::slice::from_ref(value),
        Statement::Node(node) => node.results.as_slice(),
    });
    for (position, value) in graph.inputs.iter().chain(defined).enumerate() {
        positions[value.0 as usize] = Some(position);
    }
    positions
}

/// A line of the text.
enum Statement<'a> {
    Weight(ValueId),
    Node(&'a Node),
}

/// Nodes in order. Weights come where their number says, but before the node that reads them.
fn statements(graph: &Graph) -> Vec<Statement<'_>> {
    let mut pending: Vec<bool> = graph
        .values
        .iter()
        .map(|value| matches!(value.source, Source::Weight(_)))
        .collect();
    let mut statements = Vec::with_capacity(graph.values.len());
    let mut add = |value: ValueId, statements: &mut Vec<Statement<'_>>| {
        if std::mem::take(&mut pending[value.0 as usize]) {
            statements.push(Statement::Weight(value));
        }
    };
    let mut numbered = (0..).map(ValueId).take(graph.values.len()).peekable();
    for node in &graph.nodes {
        let first = node.results.iter().min().copied();
        while let Some(value) = numbered.next_if(|value| first.is_some_and(|first| *value < first)) {
            add(value, &mut statements);
        }
        for &value in node.operands.iter().flatten() {
            add(value, &mut statements);
        }
        statements.push(Statement::Node(node));
    }
    for value in numbered {
        add(value, &mut statements);
    }
    statements
}
