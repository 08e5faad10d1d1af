//! Drawn models: what is not refused is right.

use super::*;
use crate::ir::Operand;

/// A model under construction: tensors of which data decides extents, or that are computed of such.
struct Drawn {
    graph: Graph,
    /// Of floats.
    values: Vec<ValueId>,
    draw: Draw,
}

const ROWS: usize = 6;

impl Drawn {
    fn new(seed: u64) -> Self {
        let mut graph = Graph::new("g");
        let x = input(&mut graph, "x", DType::F32, &[ROWS, 4]);
        let holds = input(&mut graph, "holds", DType::Bool, &[ROWS]);
        let kept = add(&mut graph, "Compress", &[x, holds], axis(0));
        Drawn {
            graph,
            values: vec![x, kept],
            draw: Draw::new(seed),
        }
    }

    fn any(&mut self) -> ValueId {
        let n = self.values.len();
        // The later ones more often.
        let place = self.draw.below(n).max(self.draw.below(n));
        self.values[place]
    }

    fn list(&mut self, numbers: &[i64]) -> ValueId {
        integers(&mut self.graph, &[numbers.len()], numbers)
    }

    fn op(&mut self, op: &'static str, operands: &[ValueId], attrs: Attrs) -> ValueId {
        add(&mut self.graph, op, operands, attrs)
    }

    fn pick<const N: usize>(&mut self, of: [&'static str; N]) -> &'static str {
        of[self.draw.below(N)]
    }

    /// One more tensor of those that there are.
    fn step(&mut self) -> ValueId {
        let (x, y) = (self.any(), self.any());
        let along = self.draw.int(-2, 1);
        let axes = Attrs::new().with("axes", Attr::Ints(vec![along]));
        match self.draw.below(14) {
            0 => {
                let op = self.pick(["neg", "relu", "abs"]);
                self.op(op, &[x], Attrs::new())
            }
            1 => {
                let op = self.pick(["add", "mul", "max"]);
                self.op(op, &[x, y], Attrs::new())
            }
            2 => self.op("Transpose", &[x], Attrs::new()),
            3 => {
                let op = self.pick(["ReduceSum", "ReduceMax", "ReduceMin", "ReduceSumSquare"]);
                self.op(op, &[x], axes)
            }
            4 => {
                let turned = self.op("Transpose", &[y], Attrs::new());
                self.op("MatMul", &[x, turned], Attrs::new())
            }
            5 => {
                let attrs = Attrs::new().with("reverse", Attr::Int(self.draw.int(0, 1)));
                let place = integers(&mut self.graph, &[], &[along]);
                self.op("CumSum", &[x, place], attrs)
            }
            6 => self.op("Concat", &[x, y], axis(along)),
            7 => self.sliced(x, along),
            8 => self.reshaped(x),
            9 => self.best(x, along),
            10 => {
                let last = self.draw.int(-1, 1);
                let place = self.list(&[last]);
                self.op("Gather", &[x, place], axis(along))
            }
            11 => {
                let shape = self.op("Shape", &[y], Attrs::new());
                self.op("Expand", &[x, shape], Attrs::new())
            }
            12 => {
                let places = self.op("NonZero", &[x], Attrs::new());
                let to = Attrs::new().with("to", Attr::DType(DType::F32));
                self.op("cast", &[places], to)
            }
            _ => {
                let place = self.op("ArgMax", &[x], axis(along));
                self.op("GatherElements", &[x, place], axis(along))
            }
        }
    }

    fn sliced(&mut self, x: ValueId, along: i64) -> ValueId {
        let (start, end) = (self.draw.int(-3, 3), self.draw.int(-3, 7));
        let step = [1, 1, 2, -1][self.draw.below(4)];
        let lists = [start, end, along, step].map(|number| self.list(&[number]));
        self.op(
            "Slice",
            &[x, lists[0], lists[1], lists[2], lists[3]],
            Attrs::new(),
        )
    }

    fn reshaped(&mut self, x: ValueId) -> ValueId {
        let dims = [&[-1, 4][..], &[-1, 2], &[1, -1], &[-1, 1], &[0, -1], &[4, -1]];
        let chosen = dims[self.draw.below(dims.len())];
        let dims = self.list(chosen);
        self.op("Reshape", &[x, dims], Attrs::new())
    }

    /// The best along an axis, no more than this has.
    fn best(&mut self, x: ValueId, along: i64) -> ValueId {
        let shape = self.op("Shape", &[x], Attrs::new());
        let place = self.list(&[along]);
        let extent = self.op("Gather", &[shape, place], axis(0));
        let most = self.draw.int(0, 4);
        let most = self.list(&[most]);
        let k = self.op("min", &[extent, most], Attrs::new());
        let attrs = axis(along).with("largest", Attr::Int(self.draw.int(0, 1)));
        let origin = vec![format!("TopK_{}", self.graph.nodes.len())];
        let operands: Vec<Operand> = vec![Some(x), Some(k)];
        let node = self
            .graph
            .add_node("TopK", operands, attrs, &[("", None), ("", None)], origin);
        self.graph.node(node).results[0]
    }
}

/// The same floats, but for the sign of zero: sums with what is not there have that of sums with zero.
fn same(a: &HostTensor, b: &HostTensor) -> bool {
    let numbers = a.as_slice::<f32>().iter().zip(b.as_slice::<f32>());
    a.dims() == b.dims()
        && numbers
            .into_iter()
            .all(|(a, b)| a == b || a.is_nan() && b.is_nan())
}

/// How many of the drawn data sets the model computes as the reference does; none where it is refused.
fn agreements(drawn: &mut Drawn, seed: u64) -> usize {
    let graph = &drawn.graph;
    let Ok(core) = specialize_bounded(graph, &bind(graph, &[]).unwrap(), &[]) else {
        return 0;
    };
    let mut found = 0;
    for share in [0.0, 0.3, 0.6, 1.1] {
        let x = drawn.draw.ints(DType::F32, &[ROWS, 4], -3, 3);
        let inputs = [x, flags(&mut drawn.draw, ROWS, share, false)];
        // What has no meaning for this data, or is no number, has no meaning to keep to.
        let Ok(wanted) = reference::run(graph, &inputs) else {
            continue;
        };
        let own = counted(&core, &reference::run(&core, &inputs).unwrap()).unwrap();
        let same = own.iter().zip(&wanted).all(|(own, wanted)| same(own, wanted));
        assert!(same, "model {seed}, {share}:\n{own:?}\n{wanted:?}");
        found += 1;
    }
    found
}

#[test]
fn what_is_not_refused_is_right() {
    let (mut models, mut steps) = (0, 0);
    for seed in 0..60 {
        let mut drawn = Drawn::new(seed);
        let mut last = 0;
        for _ in 0..8 {
            let before = (drawn.graph.clone(), drawn.values.clone());
            let value = drawn.step();
            drawn.values.push(value);
            let name = format!("y{}", drawn.values.len());
            drawn.graph.add_output(&name, value);
            let found = agreements(&mut drawn, seed);
            if found == 0 {
                (drawn.graph, drawn.values) = before;
            } else {
                last = found;
                steps += 1;
            }
        }
        models += usize::from(last > 0);
    }
    assert!(models > 55 && steps > 250, "{models} models, {steps} steps");
}
