//! Extents that data decides, in a graph whose extents are constants.
//!
//! `NonZero` and the like become ops whose results are as large as they can be, and a count. What is
//! computed of such results is kept where each element along their axis needs the same element of
//! them alone: then those beyond the count are computed in vain and disturb nothing. This is proven of
//! the tile function of every op that is added, not known of ops by name. That nothing else follows
//! from the extent is tried: the same nodes are made for a larger one, and compared.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::element::Element;
use super::error::Problem;
use super::walk::{Lowered, Walk};
use crate::ir::{Attrs, BoundedAxis, Graph, HostTensor, Node, Source, TensorType, ValueId};
use crate::ops::evaluate::to_vec;
use crate::ops::{self, BoundedForm, BoundedResults, NEWEST_OPSET, OpError};
use crate::tile::Index;

/// Axes of which data decides how many elements there are.
#[derive(Default)]
pub(super) struct Bounds {
    counts: Vec<Count>,
    /// Axes of values, with the number of the count.
    axes: BTreeMap<ValueId, Vec<(usize, usize)>>,
}

struct Count {
    /// One `i64`.
    value: ValueId,
    /// At most.
    bound: usize,
    /// Who counts, for messages.
    subject: String,
    /// Where it counts the first ones of those that another one counts.
    cut: Option<Cut>,
}

/// The first `extent` of the elements that `count` counts.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Cut {
    count: usize,
    extent: usize,
}

/// What is seen of nodes that were made for larger extents.
pub(super) struct Tried {
    ops: Vec<&'static str>,
    /// Types and constants of the values that were added, in order.
    values: Vec<(TensorType, Option<HostTensor>)>,
    /// For those, how they depend on extents that data decides.
    lanes: Vec<Lanes>,
}

/// For axes of a value the count whose element along the same axis they need, and no other.
type Lanes = Vec<(usize, usize)>;

impl Bounds {
    /// An extent that no other axis has for another reason.
    fn larger(&self, count: usize) -> usize {
        self.counts[count].bound + 1 + count
    }

    /// Gives all axes that data decides a larger extent, or the one that they have.
    fn resize(&self, graph: &mut Graph, larger: bool) {
        for (&value, axes) in &self.axes {
            let (dtype, mut dims) = (graph.ty(value).dtype, graph.ty(value).dims());
            for &(axis, count) in axes {
                dims[axis] = if larger {
                    self.larger(count)
                } else {
                    self.counts[count].bound
                };
            }
            graph.value_mut(value).ty = Some(TensorType::new(dtype, &dims));
        }
    }

    /// Forgets values from number `first` on, which were taken back.
    pub(super) fn forget(&mut self, first: usize) {
        let stays = |value: ValueId| (value.0 as usize) < first;
        self.axes.retain(|&value, _| stays(value));
        let n_counts = self.counts.iter().take_while(|count| stays(count.value)).count();
        self.counts.truncate(n_counts);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.axes.is_empty()
    }

    fn subjects(&self, lanes: &[(usize, usize)]) -> String {
        let names = lanes
            .iter()
            .map(|&(_, count)| self.counts[count].subject.as_str());
        names.collect::<Vec<_>>().join(", ")
    }

    /// Looks at the values of `graph` from number `first` on.
    fn look(&self, graph: &Graph, first_node: usize, first_value: usize) -> Result<Tried, OpError> {
        let mut tried = Tried {
            ops: graph.nodes[first_node..].iter().map(|node| node.op).collect(),
            values: Vec::new(),
            lanes: vec![Lanes::new(); graph.values.len() - first_value],
        };
        for value in &graph.values[first_value..] {
            let constant = match &value.source {
                Source::Weight(data) => Some(data.clone()),
                Source::Input(_) | Source::Node(..) => None,
            };
            let ty = value.ty.clone().expect("every value that is added has a type");
            tried.values.push((ty, constant));
        }
        for node in &graph.nodes[first_node..] {
            let of = |value: ValueId| match (value.0 as usize).checked_sub(first_value) {
                Some(added) => tried.lanes[added].clone(),
                None => self.axes.get(&value).cloned().unwrap_or_default(),
            };
            let operands: Vec<Lanes> = node
                .operands
                .iter()
                .map(|operand| operand.map_or_else(Lanes::new, of))
                .collect();
            if operands.iter().all(Vec::is_empty) {
                continue;
            }
            for (number, &result) in node.results.iter().enumerate() {
                let lanes = lanes(graph, node, number, &operands).map_err(|reason| {
                    let subjects = self.subjects(&operands.concat());
                    OpError::HostOnly(format!("{reason}, whose extent is decided by {subjects}"))
                })?;
                tried.lanes[result.0 as usize - first_value] = lanes;
            }
        }
        Ok(tried)
    }
}

/// Which axes of result `number` are lanes: element `i` along them needs element `i` of operands along the
/// axes in `operands`, and no other element of these.
fn lanes(graph: &Graph, node: &Node, number: usize, operands: &[Lanes]) -> Result<Lanes, String> {
    let types: Vec<Option<TensorType>> = (node.operands.iter())
        .map(|operand| operand.map(|value| graph.ty(value).clone()))
        .collect();
    let result = graph.ty(node.results[number]);
    if result.n_elements() == 0 || types.iter().flatten().any(|ty| ty.n_elements() == 0) {
        return Err(format!("`{}` has no elements", node.op));
    }
    let mixes = |axis: usize| format!("`{}` mixes elements along axis {axis} of its operand", node.op);
    // An axis of one element is no lane: data decides of larger ones here.
    let Some(element) = Element::of(node.op, &node.attrs, &types, result, number) else {
        let axis = operands.iter().flatten().map(|&(axis, _)| axis).next();
        return Err(mixes(axis.unwrap_or(0)));
    };
    let (loads, vars) = (element.loads(), &element.vars);
    let mut lanes: Lanes = Vec::new();
    for &(operand, index) in &loads {
        for &(axis, count) in &operands[operand] {
            let own = vars.iter().position(|&var| index[axis] == Index::var(var));
            match own {
                None => return Err(mixes(axis)),
                Some(own) if lanes.contains(&(own, count)) => {}
                Some(own) if lanes.iter().any(|&(other, _)| other == own) => return Err(mixes(axis)),
                Some(own) => lanes.push((own, count)),
            }
        }
    }
    // No other axis may be read along a lane: it would have to be as long as data says.
    for &(operand, index) in &loads {
        for (axis, index) in index.iter().enumerate() {
            let mut read = Vec::new();
            index.variables(&mut read);
            let is_foreign = |&(own, count): &(usize, usize)| {
                read.contains(&vars[own]) && !operands[operand].contains(&(axis, count))
            };
            if lanes.iter().any(is_foreign) {
                return Err(format!(
                    "`{}` reads axis {axis} of an operand along that of another",
                    node.op
                ));
            }
        }
    }
    Ok(lanes)
}

impl Walk<'_> {
    /// Adds a node of which data decides an extent, as large as it can be.
    pub(super) fn emit_bounded(
        &mut self,
        node: &Node,
        form: &BoundedForm,
        operands: &[Option<ValueId>],
    ) -> Lowered {
        let bounds = self.bounds.as_ref().expect("the caller looked");
        if let Some(axes) = operands.iter().flatten().find_map(|value| bounds.axes.get(value)) {
            let subjects = bounds.subjects(axes);
            return Err(OpError::HostOnly(format!(
                "its operand is only as long as {subjects} says, and its result depends on that once more"
            )));
        }
        let made = RefCell::new(None);
        let results = self.append(&|target: &mut Graph| {
            let results = ops::emit_bounded(target, node, form, operands)?;
            let values = results.values.clone();
            *made.borrow_mut() = Some(results);
            Ok(values)
        })?;
        let made = made.into_inner().expect("append() has called");
        let subject = Problem::at_node(node, OpError::invalid("")).subject;
        self.count(&made, subject);
        Ok(results)
    }

    /// Remembers which axes of results are counted by `made.count`.
    fn count(&mut self, made: &BoundedResults, subject: String) {
        let bounds = self.bounds.as_mut().expect("only then nodes are bounded");
        let counted = || made.values.iter().zip(&made.axes);
        let Some((value, axis)) = counted().find_map(|(&value, axis)| axis.map(|axis| (value, axis))) else {
            return;
        };
        let number = bounds.counts.len();
        bounds.counts.push(Count {
            value: made.count,
            bound: self.target.ty(value).dims()[axis],
            subject,
            cut: None,
        });
        for (&value, &axis) in counted() {
            bounds.axes.extend(axis.map(|axis| (value, vec![(axis, number)])));
        }
    }

    /// Lets `build` append nodes for larger extents, looks at them and takes them back.
    pub(super) fn try_larger(
        &mut self,
        build: &dyn Fn(&mut Graph) -> Result<Vec<ValueId>, OpError>,
    ) -> Result<Tried, OpError> {
        let (n_nodes, n_values) = (self.target.nodes.len(), self.target.values.len());
        let bounds = self.bounds.as_ref().expect("the caller looked");
        bounds.resize(&mut self.target, true);
        let tried = build(&mut self.target).and_then(|_| bounds.look(&self.target, n_nodes, n_values));
        self.target.nodes.truncate(n_nodes);
        self.target.values.truncate(n_values);
        bounds.resize(&mut self.target, false);
        tried.map_err(|error| match error {
            OpError::HostOnly(_) => error,
            other => OpError::HostOnly(format!(
                "an extent that data decides may not be the largest: {other}"
            )),
        })
    }

    /// Compares the nodes and values from these numbers on with those that were made for larger extents,
    /// and remembers which of their axes data decides.
    pub(super) fn follow(&mut self, tried: &Tried, first_node: usize, first: usize) -> Result<(), OpError> {
        let differs = || OpError::HostOnly("its result depends on an extent that data decides".to_owned());
        let ops = self.target.nodes[first_node..].iter().map(|node| node.op);
        if !ops.eq(tried.ops.iter().copied()) || tried.values.len() != self.target.values.len() - first {
            return Err(differs());
        }
        let bounds = self.bounds.as_ref().expect("the caller looked");
        let mut followed: Vec<(ValueId, usize, Cut)> = Vec::new();
        for (position, (larger, constant)) in tried.values.iter().enumerate() {
            let id = ValueId(u32::try_from(first + position).expect("graphs have under 2^32 values"));
            let value = self.target.value(id);
            if let Source::Weight(data) = &value.source
                && constant.as_ref() != Some(data)
            {
                return Err(differs());
            }
            let extents = self.target.ty(id).dims().into_iter().zip(larger.dims());
            for (axis, (extent, larger)) in extents.enumerate() {
                let lane = tried.lanes[position].iter().find(|&&(lane, _)| lane == axis);
                let Some(&(_, count)) = lane else {
                    if extent == larger {
                        continue;
                    }
                    return Err(differs());
                };
                let bound = bounds.counts[count].bound;
                let follows = (extent, larger) == (bound, bounds.larger(count));
                let is_cut = extent == larger && extent <= bound;
                if !follows && !is_cut {
                    return Err(differs());
                }
                followed.push((id, axis, Cut { count, extent }));
            }
        }
        for (value, axis, cut) in followed {
            let count = self.shorter(cut)?;
            let bounds = self.bounds.as_mut().expect("the caller looked");
            bounds.axes.entry(value).or_default().push((axis, count));
        }
        Ok(())
    }

    /// The count of the first elements of counted ones.
    fn shorter(&mut self, cut: Cut) -> Result<usize, OpError> {
        let bounds = self.bounds.as_ref().expect("the caller looked");
        let own = &bounds.counts[cut.count];
        if own.bound == cut.extent {
            return Ok(cut.count);
        }
        if let Some(known) = bounds.counts.iter().position(|count| count.cut == Some(cut)) {
            return Ok(known);
        }
        let subject = own.subject.clone();
        let most = i64::try_from(cut.extent).expect("extents fit in i64");
        let operands = vec![
            Some(own.value),
            Some(self.target.add_weight("", HostTensor::from_i64(&[], &[most]))),
        ];
        let made = ops::emit(
            &mut self.target,
            "min",
            operands,
            Attrs::new(),
            1,
            NEWEST_OPSET,
            &[],
        )?;
        let bounds = self.bounds.as_mut().expect("the caller looked");
        bounds.counts.push(Count {
            value: made[0],
            bound: cut.extent,
            subject,
            cut: Some(cut),
        });
        Ok(bounds.counts.len() - 1)
    }

    /// Lists counts behind the outputs whose extents they decide.
    pub(super) fn add_counts(&mut self) {
        let Some(bounds) = self.bounds.take() else {
            return;
        };
        let outputs = self.target.outputs.clone();
        let mut listed: BTreeMap<usize, usize> = BTreeMap::new();
        for (output, value) in outputs.into_iter().enumerate() {
            for &(axis, count) in bounds.axes.get(&value).into_iter().flatten() {
                let target = &mut self.target;
                let position = *listed.entry(count).or_insert_with(|| {
                    let name = format!("{}.count", target.output_names[output]);
                    target.add_output(&name, bounds.counts[count].value);
                    target.outputs.len() - 1
                });
                target.bounds.push(BoundedAxis {
                    output,
                    axis,
                    count: position,
                });
            }
        }
    }
}

/// The outputs of the model, where those of `graph` are `outputs`: only the elements that counts say are there.
///
/// # Panics
/// If the outputs are not of this graph.
pub fn counted(graph: &Graph, outputs: &[HostTensor]) -> Vec<HostTensor> {
    let own = outputs[..graph.n_own_outputs()].iter().enumerate();
    own.map(|(number, output)| {
        let mut dims = output.dims().to_vec();
        for bound in graph.bounds.iter().filter(|bound| bound.output == number) {
            let count = to_vec::<i64>(&outputs[bound.count])[0];
            dims[bound.axis] = usize::try_from(count).expect("counts are not negative");
        }
        output.first(&dims)
    })
    .collect()
}

/// What data decides, against the reference, which knows the data.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Attr, DType};
    use crate::ops::samples::Draw;
    use crate::reference;
    use crate::specialize::tests::add;
    use crate::specialize::{SpecializeError, bind, bind_inputs, specialize, specialize_bounded};
    use crate::testing::detectors::{Detector, sparse};

    fn input(graph: &mut Graph, name: &str, dtype: DType, dims: &[usize]) -> ValueId {
        graph.add_input(name, Some(TensorType::new(dtype, dims)))
    }

    fn integers(graph: &mut Graph, dims: &[usize], values: &[i64]) -> ValueId {
        graph.add_weight("", HostTensor::from_i64(dims, values))
    }

    fn axis(axis: i64) -> Attrs {
        Attrs::new().with("axis", Attr::Int(axis))
    }

    /// Compares the model with the graph that an engine is made of, and gives the outputs.
    #[track_caller]
    fn assert_same(graph: &Graph, inputs: &[HostTensor]) -> Vec<HostTensor> {
        let bindings = bind_inputs(graph, inputs).unwrap();
        assert!(matches!(
            specialize(graph, &bindings),
            Err(SpecializeError::DependsOnData(_))
        ));
        let core = specialize_bounded(graph, &bindings).unwrap();
        let found = counted(&core, &reference::run(&core, inputs).unwrap());
        let wanted = reference::run(graph, inputs).unwrap();
        assert_eq!(found, wanted);
        found
    }

    #[track_caller]
    fn refusal(graph: &Graph) -> String {
        let error = specialize_bounded(graph, &bind(graph, &[]).unwrap()).unwrap_err();
        assert!(error.is_unsupported(), "{error}");
        assert!(matches!(error, SpecializeError::DependsOnData(_)), "{error}");
        error.to_string()
    }

    #[test]
    fn coordinates_of_none_of_some_and_of_all_elements() {
        let mut draw = Draw::new(3);
        for dims in [&[7][..], &[3, 5, 4], &[40, 41], &[33, 2, 31], &[64], &[1]] {
            let mut graph = Graph::new("g");
            let x = input(&mut graph, "x", DType::I64, dims);
            let places = add(&mut graph, "NonZero", &[x], Attrs::new());
            graph.add_output("places", places);
            let most: usize = dims.iter().product();
            for (share, count) in [(0.0, Some(0)), (0.02, None), (0.5, None), (1.1, Some(most))] {
                let x = sparse(&mut draw, dims, share);
                let found = assert_same(&graph, &[x]);
                assert_eq!(found[0].dims()[0], dims.len());
                assert!(count.is_none_or(|count| found[0].dims()[1] == count));
            }
        }
    }

    #[test]
    fn numbers_that_are_none_are_not_zero() {
        let mut graph = Graph::new("g");
        let x = input(&mut graph, "x", DType::F32, &[5]);
        let places = add(&mut graph, "NonZero", &[x], Attrs::new());
        graph.add_output("places", places);
        let x = HostTensor::from_f32(&[5], &[f32::NAN, -0.0, 0.0, f32::NEG_INFINITY, 1e-30]);
        let found = assert_same(&graph, &[x]);
        assert_eq!(found[0], HostTensor::from_i64(&[1, 3], &[0, 3, 4]));
    }

    /// `NonZero` turned to rows of indices, and what is gathered by them.
    #[test]
    fn elements_behind_coordinates_are_gathered() {
        let mut graph = Graph::new("g");
        let mask = input(&mut graph, "mask", DType::I64, &[9, 5]);
        let data = input(&mut graph, "data", DType::F32, &[9, 5, 3]);
        let weights = input(&mut graph, "weights", DType::F32, &[3, 2]);
        let places = add(&mut graph, "NonZero", &[mask], Attrs::new());
        let turn = Attrs::new().with("perm", Attr::Ints(vec![1, 0]));
        let rows = add(&mut graph, "Transpose", &[places], turn);
        let found = add(&mut graph, "gather_nd", &[data, rows], Attrs::new());
        let negative = add(&mut graph, "neg", &[found], Attrs::new());
        let product = add(&mut graph, "MatMul", &[negative, weights], Attrs::new());
        let last = add(
            &mut graph,
            "ReduceMax",
            &[product],
            Attrs::new().with("axes", Attr::Ints(vec![1])),
        );
        let column = integers(&mut graph, &[], &[1]);
        let first = add(&mut graph, "Gather", &[rows, column], axis(1));
        let four = integers(&mut graph, &[], &[4]);
        let zero = integers(&mut graph, &[1], &[0]);
        let ends = integers(&mut graph, &[1], &[6]);
        let some = add(&mut graph, "Slice", &[product, zero, ends], Attrs::new());
        let shifted = add(&mut graph, "add", &[first, four], Attrs::new());
        for (name, value) in [
            ("product", product),
            ("last", last),
            ("shifted", shifted),
            ("some", some),
        ] {
            graph.add_output(name, value);
        }
        let mut draw = Draw::new(11);
        for share in [0.0, 0.1, 0.5, 1.1] {
            let inputs = [
                sparse(&mut draw, &[9, 5], share),
                draw.floats(DType::F32, &[9, 5, 3], -1.0, 1.0),
                draw.floats(DType::F32, &[3, 2], -1.0, 1.0),
            ];
            let found = assert_same(&graph, &inputs);
            assert_eq!(found[3].dims()[0], found[0].dims()[0].min(6));
        }
    }

    #[test]
    fn slices_at_which_a_condition_holds() {
        let mut draw = Draw::new(5);
        let cases = [
            (&[6, 4][..], Some(0), 6),
            (&[6, 70], Some(1), 70),
            (&[5, 9], None, 20),
            (&[3], Some(0), 2),
        ];
        for (dims, along, named) in cases {
            let mut graph = Graph::new("g");
            let x = input(&mut graph, "x", DType::F32, dims);
            let score = input(&mut graph, "score", DType::I64, &[named]);
            let zero = integers(&mut graph, &[], &[0]);
            let holds = add(&mut graph, "greater", &[score, zero], Attrs::new());
            let kept = add(
                &mut graph,
                "Compress",
                &[x, holds],
                along.map_or_else(Attrs::new, axis),
            );
            let doubled = add(&mut graph, "add", &[kept, kept], Attrs::new());
            graph.add_output("kept", doubled);
            for share in [0.0, 0.4, 1.1] {
                let x = draw.floats(DType::F32, dims, -1.0, 1.0);
                assert_same(&graph, &[x, sparse(&mut draw, &[named], share)]);
            }
        }
    }

    #[test]
    fn boxes_that_overlap_no_better_one() {
        let mut draw = Draw::new(17);
        let cases = [
            (20, 3, 5, Some(0.5)),
            (50, 2, 100, None),
            (33, 1, 7, Some(2.0)),
            (4, 2, 0, None),
            (60, 4, 60, Some(0.0)),
        ];
        for (boxes, classes, most, threshold) in cases {
            let detector = Detector {
                images: 2,
                boxes,
                classes,
                most,
                lowest: threshold,
            };
            let (graph, inputs) = (detector.graph(), detector.inputs(&mut draw));
            if most == 0 {
                let core = specialize_bounded(&graph, &bind(&graph, &[]).unwrap()).unwrap();
                assert!(core.bounds.is_empty());
                continue;
            }
            let found = assert_same(&graph, &inputs);
            assert_eq!(found[0].dims()[0] == 0, threshold == Some(2.0));
        }
    }

    #[test]
    fn as_many_boxes_as_there_can_be() {
        let detector = Detector {
            images: 2,
            boxes: 6,
            classes: 2,
            most: 6,
            lowest: None,
        };
        let graph = detector.graph();
        let apart: Vec<f32> = (0..48)
            .map(|n: u8| [0.0, 0.0, 1.0, 1.0][usize::from(n % 4)] + f32::from(n / 4 % 6 * 3))
            .collect();
        let scores = Draw::new(1).floats(DType::F32, &[2, 2, 6], -1.0, 1.0);
        let found = assert_same(&graph, &[HostTensor::from_f32(&[2, 6, 4], &apart), scores]);
        assert_eq!(found[0].dims(), [24, 3]);
    }

    /// A vector that is as long as data says, and what becomes of it.
    fn after_compress(build: impl Fn(&mut Graph, ValueId) -> ValueId) -> Graph {
        let mut graph = Graph::new("g");
        let x = input(&mut graph, "x", DType::F32, &[8, 4]);
        let holds = input(&mut graph, "holds", DType::Bool, &[8]);
        let kept = add(&mut graph, "Compress", &[x, holds], axis(0));
        let y = build(&mut graph, kept);
        graph.add_output("y", y);
        graph
    }

    #[test]
    fn what_mixes_elements_is_refused() {
        let reduced = |op, of: i64| {
            let attrs = Attrs::new().with("axes", Attr::Ints(vec![of]));
            refusal(&after_compress(|graph, kept| {
                add(graph, op, &[kept], attrs.clone())
            }))
        };
        let message = reduced("ReduceSum", 0);
        assert!(
            message.contains("`ReduceSum`") && message.contains("mixes elements along axis 0"),
            "{message}"
        );
        assert!(message.contains("(`Compress`)"), "{message}");
        assert!(reduced("ReduceMean", 0).contains("mixes"));
        let message = refusal(&after_compress(|graph, kept| {
            add(graph, "Softmax", &[kept], axis(0))
        }));
        assert!(message.contains("mixes"), "{message}");
        let gram = |graph: &mut Graph, kept| {
            let turned = add(graph, "Transpose", &[kept], Attrs::new());
            add(graph, "MatMul", &[turned, kept], Attrs::new())
        };
        assert!(refusal(&after_compress(gram)).contains("`matmul` mixes"));
        let joined = |graph: &mut Graph, kept| add(graph, "Concat", &[kept, kept], axis(0));
        assert!(refusal(&after_compress(joined)).contains("`concat` mixes"));
        let picked = |graph: &mut Graph, kept| {
            let index = integers(graph, &[2], &[1, 0]);
            add(graph, "Gather", &[kept, index], axis(0))
        };
        assert!(refusal(&after_compress(picked)).contains("`gather` mixes"));
        let merged = |graph: &mut Graph, kept| {
            let shape = integers(graph, &[1], &[-1]);
            add(graph, "Reshape", &[kept, shape], Attrs::new())
        };
        assert!(refusal(&after_compress(merged)).contains("`reshape` mixes"));
        let again = |graph: &mut Graph, kept| add(graph, "NonZero", &[kept], Attrs::new());
        assert!(refusal(&after_compress(again)).contains("depends on that once more"));
    }

    #[test]
    fn what_needs_the_extent_itself_is_refused() {
        let shape = |graph: &mut Graph, kept| add(graph, "Shape", &[kept], Attrs::new());
        assert!(refusal(&after_compress(shape)).contains("an extent that data decides"));
        let size = |graph: &mut Graph, kept| add(graph, "Size", &[kept], Attrs::new());
        assert!(refusal(&after_compress(size)).contains("an extent that data decides"));
        // Right for the largest extent alone.
        let reshaped = |graph: &mut Graph, kept| {
            let shape = integers(graph, &[2], &[8, 4]);
            add(graph, "Reshape", &[kept, shape], Attrs::new())
        };
        assert!(refusal(&after_compress(reshaped)).contains("may not be the largest"));
        let beside = |graph: &mut Graph, kept| {
            let others = graph.add_weight("", HostTensor::from_f32(&[8, 1], &[1.0; 8]));
            add(graph, "add", &[kept, others], Attrs::new())
        };
        assert!(refusal(&after_compress(beside)).contains("may not be the largest"));
        // The shape of other axes is known.
        let columns = |graph: &mut Graph, kept| {
            let attrs = Attrs::new().with("start", Attr::Int(1));
            let columns = add(graph, "Shape", &[kept], attrs);
            let zero = integers(graph, &[1], &[0]);
            let shape = add(graph, "Concat", &[zero, columns], axis(0));
            add(graph, "Reshape", &[kept, shape], Attrs::new())
        };
        let graph = after_compress(columns);
        let holds = HostTensor::from_slice(DType::Bool, &[8], &[1u8, 0, 0, 1, 1, 0, 1, 0]);
        assert_same(
            &graph,
            &[Draw::new(2).floats(DType::F32, &[8, 4], -1.0, 1.0), holds],
        );
    }

    #[test]
    fn two_extents_that_data_decides_do_not_meet() {
        let mut graph = Graph::new("g");
        let x = input(&mut graph, "x", DType::F32, &[8]);
        let masks = ["a", "b"].map(|name| input(&mut graph, name, DType::Bool, &[8]));
        let parts = masks.map(|mask| add(&mut graph, "Compress", &[x, mask], axis(0)));
        let sum = add(&mut graph, "add", &parts, Attrs::new());
        graph.add_output("sum", sum);
        let message = refusal(&graph);
        assert!(message.contains("may not be the largest"), "{message}");
    }
}
