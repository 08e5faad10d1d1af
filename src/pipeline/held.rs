//! Fused graphs of many shapes, held as what differs between them.
//!
//! Shapes that are cut alike have the same regions of the same ops with the same names. Of each graph its numbers
//! (extents, attributes, bounds) and constants are held, and what is left once for all graphs of that form.

use std::sync::Arc;

use crate::ir::{Attr, Dim, Graph, HostTensor, Shape, Source};
use crate::rewrite::{FusedGraph, TensorSource};

/// The forms of the graphs that are held.
#[derive(Default)]
pub struct Holder {
    forms: Vec<Arc<FusedGraph>>,
}

/// A graph without what it shares with others.
pub struct Held {
    form: Arc<FusedGraph>,
    /// Seven bits a byte, the last byte of each number below 128.
    numbers: Box<[u8]>,
    weights: Box<[HostTensor]>,
    names: Box<[String]>,
}

impl Holder {
    pub fn hold(&mut self, mut fused: FusedGraph) -> Held {
        let mut taken = Taken::default();
        walk(&mut fused, &mut taken);
        let known = self.forms.iter().find(|form| ***form == fused).cloned();
        let form = known.unwrap_or_else(|| {
            self.forms.push(Arc::new(fused));
            Arc::clone(self.forms.last().expect("one was pushed"))
        });
        Held {
            form,
            numbers: taken.numbers.into(),
            weights: taken.weights.into(),
            names: taken.names.into(),
        }
    }
}

impl Held {
    /// Constants that launches read.
    pub fn constants(&self) -> &[HostTensor] {
        let is_weight = |source: &TensorSource| matches!(source, TensorSource::Weight(_));
        let tensors = self.form.tensors.iter();
        // They are taken before those of bodies.
        &self.weights[..tensors.filter(|tensor| is_weight(&tensor.source)).count()]
    }

    /// The graph as it was.
    pub fn fused(&self) -> FusedGraph {
        let mut fused = (*self.form).clone();
        walk(
            &mut fused,
            &mut Given {
                numbers: self.numbers.iter(),
                weights: self.weights.iter(),
                names: self.names.iter(),
            },
        );
        fused
    }
}

/// What takes the place of what shapes differ in.
trait Exchange {
    fn number(&mut self, own: u64) -> u64;
    fn weight(&mut self, own: &mut HostTensor);
    fn name(&mut self, own: &mut String);

    fn extent(&mut self, own: &mut usize) {
        let number = self.number(u64::try_from(*own).expect("extents have at most 64 bits"));
        *own = usize::try_from(number).expect("it was an extent");
    }

    fn int(&mut self, own: &mut i64) {
        // Small numbers stay small, whatever their sign.
        let number = self.number(((*own << 1) ^ (*own >> 63)).cast_unsigned());
        *own = (number >> 1).cast_signed() ^ -(number & 1).cast_signed();
    }

    fn float(&mut self, own: &mut f64) {
        *own = f64::from_bits(self.number(own.to_bits()));
    }

    fn shape(&mut self, own: &mut Shape) {
        for dim in &mut own.0 {
            if let Dim::Known(extent) = dim {
                self.extent(extent);
            }
        }
    }
}

/// Takes everything out.
#[derive(Default)]
struct Taken {
    numbers: Vec<u8>,
    weights: Vec<HostTensor>,
    names: Vec<String>,
}

impl Exchange for Taken {
    fn number(&mut self, mut own: u64) -> u64 {
        while own > 0x7f {
            self.numbers.push(0x80 | low_bits(own));
            own >>= 7;
        }
        self.numbers.push(low_bits(own));
        0
    }

    fn weight(&mut self, own: &mut HostTensor) {
        let nothing = HostTensor::zeros(own.dtype(), &[0]);
        self.weights.push(std::mem::replace(own, nothing));
    }

    fn name(&mut self, own: &mut String) {
        self.names.push(std::mem::take(own));
    }
}

fn low_bits(number: u64) -> u8 {
    u8::try_from(number & 0x7f).expect("seven bits")
}

/// Puts everything back.
struct Given<'a> {
    numbers: std::slice::Iter<'a, u8>,
    weights: std::slice::Iter<'a, HostTensor>,
    names: std::slice::Iter<'a, String>,
}

impl Exchange for Given<'_> {
    fn number(&mut self, _: u64) -> u64 {
        let (mut number, mut shift) = (0, 0);
        for byte in self.numbers.by_ref() {
            number |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if *byte < 0x80 {
                break;
            }
        }
        number
    }

    fn weight(&mut self, own: &mut HostTensor) {
        own.clone_from(self.weights.next().expect("as many were taken"));
    }

    fn name(&mut self, own: &mut String) {
        own.clone_from(self.names.next().expect("as many were taken"));
    }
}

/// Exchanges everything that the shape of a graph may decide, always in one order.
fn walk(fused: &mut FusedGraph, exchange: &mut impl Exchange) {
    for tensor in &mut fused.tensors {
        exchange.shape(&mut tensor.ty.shape);
        if let TensorSource::Weight(data) = &mut tensor.source {
            exchange.weight(data);
        }
    }
    for region in &mut fused.regions {
        body(&mut region.body, exchange);
        for placement in region.placements.values_mut() {
            let all = placement.dims.iter_mut().chain(&mut placement.starts);
            all.for_each(|extent| exchange.extent(extent));
        }
        exchange.float(&mut region.bound_us);
        exchange.extent(&mut region.explanation.saved_launches);
        region.explanation.saved_bytes = exchange.number(region.explanation.saved_bytes);
        for rejected in &mut region.explanation.rejected {
            exchange.float(&mut rejected.lost_us);
        }
    }
}

fn body(graph: &mut Graph, exchange: &mut impl Exchange) {
    // A body is called by the type of its result.
    exchange.name(&mut graph.name);
    for value in &mut graph.values {
        if let Some(ty) = &mut value.ty {
            exchange.shape(&mut ty.shape);
        }
        if let Source::Weight(data) = &mut value.source {
            exchange.weight(data);
        }
    }
    for attr in graph.nodes.iter_mut().flat_map(|node| node.attrs.0.values_mut()) {
        match attr {
            Attr::Int(value) => exchange.int(value),
            Attr::Float(value) => exchange.float(value),
            Attr::Ints(values) => values.iter_mut().for_each(|value| exchange.int(value)),
            Attr::Floats(values) => values.iter_mut().for_each(|value| exchange.float(value)),
            Attr::Tensor(data) => exchange.weight(data),
            Attr::Str(_) | Attr::Strs(_) | Attr::DType(_) | Attr::Graph(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Attrs, TensorType};
    use crate::rewrite::{DeviceRates, RuleSet, fuse};
    use crate::testing::builder::{GraphBuilder, ints};

    fn graph(rows: usize, scale: f64) -> FusedGraph {
        let mut g = GraphBuilder::new("rows", 1);
        let x = g.input(&[rows, 16]);
        let w = g.weight(&[16, 32]);
        let y = g.plain("matmul", &[x, w]);
        let y = g.op("softmax", &[y], Attrs::new().with("axis", Attr::Int(-1)));
        let rows = i64::try_from(rows).unwrap();
        let y = g.op("reshape", &[y], Attrs::new().with("shape", ints(&[rows * 32])));
        let factor = g
            .graph
            .add_weight("", crate::ops::evaluate::scalar(crate::ir::DType::F32, scale));
        let y = g.plain("mul", &[y, factor]);
        g.output(y);
        let mut fused = fuse(&g.graph, RuleSet::builtin(), DeviceRates::for_sm(90)).unwrap();
        // Graphs that are cut as another one have none of these.
        for region in &mut fused.regions {
            region.explanation.rejected.clear();
        }
        fused
    }

    #[test]
    fn graphs_of_one_form_are_held_as_their_numbers() {
        let mut holder = Holder::default();
        let graphs = [graph(200, 0.5), graph(300, 0.5), graph(310, -7.25)];
        let held: Vec<Held> = graphs.iter().map(|own| holder.hold(own.clone())).collect();
        assert_eq!(holder.forms.len(), 1);
        for (held, own) in held.iter().zip(&graphs) {
            assert!(held.fused() == *own);
            assert!(held.numbers.len() < 1000, "{}", held.numbers.len());
        }
        let read = |held: &Held| held.constants().iter().map(HostTensor::ty).collect::<Vec<_>>();
        assert_eq!(
            read(&held[0]),
            [TensorType::new(crate::ir::DType::F32, &[16, 32])]
        );
        let rows = |held: &Held| held.fused().tensors[0].ty.clone();
        assert_eq!(rows(&held[1]), TensorType::new(crate::ir::DType::F32, &[300, 16]));
    }

    #[test]
    fn graphs_of_another_form_are_held_apart() {
        let mut holder = Holder::default();
        let (one, mut other) = (graph(3, 0.5), graph(3, 0.5));
        other.tensors[0].name.push('x');
        let held = [holder.hold(one.clone()), holder.hold(other.clone())];
        assert_eq!(holder.forms.len(), 2);
        assert!(held[0].fused() == one && held[1].fused() == other && one != other);
    }

    #[test]
    fn every_number_comes_back() {
        let numbers = [0, 1, 127, 128, 1 << 35, u64::MAX];
        let mut taken = Taken::default();
        for number in numbers {
            assert_eq!(taken.number(number), 0);
        }
        let signed = [0, -1, 1, i64::MIN, i64::MAX];
        for mut number in signed {
            taken.int(&mut number);
        }
        let mut given = Given {
            numbers: taken.numbers.iter(),
            weights: [].iter(),
            names: [].iter(),
        };
        assert_eq!(numbers.map(|_| given.number(0)), numbers);
        let mut int = || {
            let mut number = 0;
            given.int(&mut number);
            number
        };
        assert_eq!(signed.map(|_| int()), signed);
    }
}
