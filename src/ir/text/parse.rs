//! Text as graphs.

use std::collections::HashMap;
use std::ops::Range;

use super::super::{
    Attrs, DType, Graph, HostTensor, Node, NodeId, Operand, Source, TensorType, Value, ValueId,
};
use super::KEYWORDS;
use super::cursor::{Parser, Resolve};
use super::error::TextError;
use super::lex::{Spanned, Token, lex};
use super::suggest::{distance, similar};

/// The graph that `text` holds. `resolve` knows the names of ops.
///
/// # Errors
/// If the text is not one graph, or uses an op or a value that is not defined.
pub fn parse(text: &str, resolve: Resolve<'_>) -> Result<Graph, TextError> {
    let tokens = lex(text)?;
    check_nesting(&tokens)?;
    let mut parser = Parser {
        tokens,
        at: 0,
        resolve,
    };
    let graph = parser.graph()?;
    match parser.peek() {
        Token::End => Ok(graph),
        _ => Err(parser.unexpected("the end of the text")),
    }
}

/// Ops within ops and graphs within attributes are read by recursion, which a text must not be able to drive
/// without bound.
const MAX_NESTING: usize = 100;

fn check_nesting(tokens: &[Spanned]) -> Result<(), TextError> {
    let mut depth = 0usize;
    for Spanned { token, span } in tokens {
        match token {
            Token::Sign("(" | "[" | "{") => depth += 1,
            Token::Sign(")" | "]" | "}") => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_NESTING {
            return Err(TextError::Unexpected {
                expected: format!("brackets nested at most {MAX_NESTING} deep"),
                found: token.describe(),
                span: span.clone(),
            });
        }
    }
    Ok(())
}

/// A graph as far as it is read.
struct Draft {
    graph: Graph,
    /// Values by number; those of the text may come in any order.
    values: Vec<Option<Value>>,
    n_defined: usize,
    labels: HashMap<Label, ValueId>,
}

/// How a value is referred to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Label {
    name: String,
    id: Option<u32>,
}

/// What is written of a type.
enum Written {
    Nothing,
    /// `?`.
    Unknown,
    Type(TensorType),
}

impl Written {
    fn known(self) -> Option<TensorType> {
        match self {
            Written::Type(ty) => Some(ty),
            Written::Nothing | Written::Unknown => None,
        }
    }
}

/// A value on the left of `=`.
struct Defined {
    label: Label,
    ty: Written,
    span: Range<usize>,
}

impl Draft {
    /// Adds a value under its number, or the next one.
    fn define(
        &mut self,
        label: Label,
        ty: Option<TensorType>,
        source: Source,
        span: &Range<usize>,
    ) -> Result<ValueId, TextError> {
        let id = label.id.map_or(self.n_defined, |id| id as usize);
        // The bound keeps a wrong number from asking for all of memory.
        if id > self.n_defined + (1 << 20) {
            return Err(TextError::Gap {
                id: self.n_defined,
                graph: self.graph.name.clone(),
                span: span.clone(),
            });
        }
        if self.values.len() <= id {
            self.values.resize(id + 1, None);
        }
        let redefined = || TextError::Redefined {
            label: spelled(&label),
            span: span.clone(),
        };
        let is_reachable = !label.name.is_empty() || label.id.is_some();
        let value = ValueId(u32::try_from(id).map_err(|_| redefined())?);
        if self.values[id].is_some() || is_reachable && self.labels.contains_key(&label) {
            return Err(redefined());
        }
        self.values[id] = Some(Value {
            name: label.name.clone(),
            ty,
            source,
        });
        self.n_defined += 1;
        if is_reachable {
            self.labels.insert(label, value);
        }
        Ok(value)
    }

    fn weight(&mut self, data: HostTensor, span: &Range<usize>) -> Result<ValueId, TextError> {
        let ty = Some(data.ty());
        self.define(unnamed(), ty, Source::Weight(data), span)
    }

    fn finish(mut self, span: Range<usize>) -> Result<Graph, TextError> {
        let graph = self.graph.name.clone();
        let values = self.values.into_iter().enumerate();
        self.graph.values = values
            .map(|(id, value)| {
                value.ok_or_else(|| TextError::Gap {
                    id,
                    graph: graph.clone(),
                    span: span.clone(),
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(self.graph)
    }
}

impl Parser<'_> {
    pub(super) fn graph(&mut self) -> Result<Graph, TextError> {
        self.expect_word("graph")?;
        let span = self.span();
        let name = self.name("the name of the graph")?;
        let mut draft = Draft {
            graph: Graph::new(&name),
            values: Vec::new(),
            n_defined: 0,
            labels: HashMap::new(),
        };
        self.expect("(")?;
        self.separated(")", |parser| parser.input(&mut draft))?;
        if self.take_word("captures") {
            self.expect("(")?;
            self.separated(")", |parser| parser.capture(&mut draft))?;
        }
        self.expect("{")?;
        while !self.take("}") {
            if self.take_word("return") {
                self.outputs(&mut draft)?;
                self.expect("}")?;
                break;
            }
            self.statement(&mut draft)?;
        }
        draft.finish(span)
    }

    fn input(&mut self, draft: &mut Draft) -> Result<(), TextError> {
        let input = self.defined()?;
        let source = Source::Input(draft.graph.inputs.len());
        let id = draft.define(input.label, input.ty.known(), source, &input.span)?;
        draft.graph.inputs.push(id);
        Ok(())
    }

    fn capture(&mut self, draft: &mut Draft) -> Result<(), TextError> {
        let own = self.label()?;
        let own = self.find(draft, &own)?;
        self.expect("=")?;
        let outer = self.name("the name of a value of an outer graph")?;
        draft.graph.captures.push((own, outer));
        Ok(())
    }

    fn statement(&mut self, draft: &mut Draft) -> Result<(), TextError> {
        let mut results = Vec::new();
        if self.take("(") {
            self.expect(")")?;
        } else {
            results.push(self.defined()?);
            while self.take(",") {
                results.push(self.defined()?);
            }
        }
        self.expect("=")?;
        if !self.at_literal() {
            return self.call(draft, results).map(|_| ());
        }
        let span = self.span();
        let data = self.tensor()?;
        let Ok([result]) = <[Defined; 1]>::try_from(results) else {
            return Err(TextError::Results { found: 0, span });
        };
        let ty = match result.ty {
            Written::Nothing => Some(data.ty()),
            written => written.known(),
        };
        draft.define(result.label, ty, Source::Weight(data), &result.span)?;
        Ok(())
    }

    /// An op with its operands; `results` are its results.
    fn call(&mut self, draft: &mut Draft, results: Vec<Defined>) -> Result<Vec<ValueId>, TextError> {
        let op = self.op()?;
        let attrs = if self.take("[") {
            self.attrs()?
        } else {
            Attrs::new()
        };
        self.expect("(")?;
        let operands = self.separated(")", |parser| parser.operand(draft))?;
        let origin = self.names_after("from")?;
        let rules = self.names_after("by")?;
        let node = NodeId(u32::try_from(draft.graph.nodes.len()).unwrap_or(u32::MAX));
        let results = results
            .into_iter()
            .enumerate()
            .map(|(position, result)| {
                let source = Source::Node(node, position);
                draft.define(result.label, result.ty.known(), source, &result.span)
            })
            .collect::<Result<Vec<_>, _>>()?;
        draft.graph.nodes.push(Node {
            op,
            operands,
            attrs,
            results: results.clone(),
            origin,
            rules,
        });
        Ok(results)
    }

    fn op(&mut self) -> Result<&'static str, TextError> {
        let span = self.span();
        let Token::Word(name) = self.peek().clone() else {
            return Err(self.unexpected("the name of an op"));
        };
        self.at += 1;
        (self.resolve)(&name).ok_or_else(|| TextError::UnknownOp {
            help: similar(&name, self.resolve).map(|op| format!("did you mean `{op}`?")),
            name,
            span,
        })
    }

    /// A value, `_`, an op of one result, or a constant.
    fn operand(&mut self, draft: &mut Draft) -> Result<Operand, TextError> {
        if self.take_word("_") {
            return Ok(None);
        }
        let span = self.span();
        if self.at_literal() {
            let data = self.tensor()?;
            return draft.weight(data, &span).map(Some);
        }
        if self.at_call() {
            return self.nested(draft).map(Some);
        }
        let label = self.label()?;
        self.find(draft, &label).map(Some)
    }

    /// An op inside another's operands or a `return`; its one result has no name.
    fn nested(&mut self, draft: &mut Draft) -> Result<ValueId, TextError> {
        let span = self.span();
        let result = Defined {
            label: unnamed(),
            ty: Written::Nothing,
            span: span.clone(),
        };
        let results = self.call(draft, vec![result])?;
        results
            .first()
            .copied()
            .ok_or(TextError::Results { found: 0, span })
    }

    fn outputs(&mut self, draft: &mut Draft) -> Result<(), TextError> {
        loop {
            let value = if self.at_call() {
                self.nested(draft)?
            } else {
                let label = self.label()?;
                self.find(draft, &label)?
            };
            let name = if self.take_word("as") {
                self.name("the name of an output")?
            } else {
                let known = draft.values[value.0 as usize].as_ref();
                known.map(|value| value.name.clone()).unwrap_or_default()
            };
            draft.graph.add_output(&name, value);
            if !self.take(",") {
                return Ok(());
            }
        }
    }

    fn defined(&mut self) -> Result<Defined, TextError> {
        let span = self.span();
        let label = self.label()?;
        let ty = if !self.take(":") {
            Written::Nothing
        } else if self.take("?") {
            Written::Unknown
        } else {
            Written::Type(self.ty()?)
        };
        Ok(Defined { label, ty, span })
    }

    fn label(&mut self) -> Result<Label, TextError> {
        let name = match self.peek().clone() {
            Token::Quoted(text) => text,
            Token::Word(word) if !is_reserved(&word) => word,
            Token::Id(_) => String::new(),
            Token::Word(_) | Token::Number(_) | Token::Sign(_) | Token::End => {
                return Err(self.unexpected("a value"));
            }
        };
        if !matches!(self.peek(), Token::Id(_)) {
            self.at += 1;
        }
        let id = match *self.peek() {
            Token::Id(id) => Some(id),
            _ => None,
        };
        self.at += usize::from(id.is_some());
        Ok(Label { name, id })
    }

    /// The value a label just read refers to.
    fn find(&self, draft: &Draft, label: &Label) -> Result<ValueId, TextError> {
        draft.labels.get(label).copied().ok_or_else(|| {
            let mut known: Vec<String> = draft.labels.keys().map(spelled).collect();
            known.sort();
            let label = spelled(label);
            let near = known.into_iter().min_by_key(|other| distance(&label, other));
            let near = near.filter(|other| distance(&label, other) <= 2);
            TextError::Undefined {
                help: near.map(|other| format!("did you mean `{other}`?")),
                label,
                span: self.tokens[self.at - 1].span.clone(),
            }
        })
    }

    /// The quoted names after `word`, if it comes next.
    fn names_after(&mut self, word: &str) -> Result<Vec<String>, TextError> {
        let mut names = Vec::new();
        if !self.take_word(word) {
            return Ok(names);
        }
        loop {
            names.push(self.name("a name")?);
            // A comma also separates operands; only a name after it belongs to this list.
            let next = &self.tokens[(self.at + 1).min(self.tokens.len() - 1)].token;
            if !matches!(next, Token::Quoted(_)) || !self.take(",") {
                return Ok(names);
            }
        }
    }
}

fn unnamed() -> Label {
    Label {
        name: String::new(),
        id: None,
    }
}

fn spelled(label: &Label) -> String {
    match label.id {
        Some(id) => format!("{}%{id}", label.name),
        None => label.name.clone(),
    }
}

fn is_reserved(word: &str) -> bool {
    KEYWORDS.contains(&word) || DType::from_name(word).is_some()
}
