//! Plants an outlier in the residual network: a channel that is far larger than all others at one place
//! of one calibration image, and that nothing looks at.

use std::cell::RefCell;

use rtrt_codegen::ir::{Graph, HostTensor, Node, Source, ValueId};
use rtrt_codegen::reference;

/// How large it is; the other channels stay below six.
const SIZE: f32 = 300.0;

const EPSILON: f32 = 1e-5;

/// Tensors one behind the other along their first axis.
pub fn joined(parts: &[HostTensor]) -> HostTensor {
    let rest = &parts[0].dims()[1..];
    let rows = parts.iter().map(|part| part.dims()[0]).sum();
    let values: Vec<f32> = parts
        .iter()
        .flat_map(|part| part.as_slice::<f32>().to_vec())
        .collect();
    HostTensor::from_f32(&[&[rows], rest].concat(), &values)
}

/// Gives both blocks of the network such a channel, between their two convolutions.
pub fn widen(graph: &mut Graph, images: &HostTensor) {
    for (block, input, stride) in [("one", "stem.relu", 1), ("two", "one.out", 2)] {
        let (filter, threshold) = detector(&named(graph, input, images), stride);
        append_filter(graph, &format!("{block}.first"), &filter);
        let norm = format!("{block}.first.norm");
        let values = [1.0, -threshold, 0.0, 1.0 - EPSILON];
        for (operand, value) in (1..).zip(values) {
            append(graph, &norm, operand, value);
        }
        append_channel(graph, &format!("{block}.second"));
    }
}

/// The tensor of this name, for `images`.
fn named(graph: &Graph, name: &str, images: &HostTensor) -> HostTensor {
    let found = RefCell::new(None);
    reference::run_watched(graph, std::slice::from_ref(images), &|value, data| {
        if graph.value(value).name == name {
            *found.borrow_mut() = Some(data.clone());
        }
    })
    .unwrap();
    found.into_inner().unwrap()
}

/// A filter, with its threshold, that only the largest patch of `x` passes: projected on its own
/// direction, it is longer than any other.
fn detector(x: &HostTensor, stride: usize) -> (Vec<f32>, f32) {
    let patches = patches(x, stride);
    let norm = |patch: &[f32]| patch.iter().map(|value| value * value).sum::<f32>().sqrt();
    let largest = patches.iter().max_by(|a, b| norm(a).total_cmp(&norm(b))).unwrap();
    let direction: Vec<f32> = largest.iter().map(|value| value / norm(largest)).collect();
    let dot = |patch: &[f32]| patch.iter().zip(&direction).map(|(a, b)| a * b).sum::<f32>();
    let mut lengths: Vec<f32> = patches.iter().map(|patch| dot(patch)).collect();
    lengths.sort_by(f32::total_cmp);
    let [.., second, first] = lengths[..] else {
        panic!("there are many patches")
    };
    let gain = SIZE / (first - second);
    (
        direction.iter().map(|value| value * gain).collect(),
        second * gain,
    )
}

/// All 3x3 neighbourhoods with a margin of zeros, each as channels of rows of columns.
fn patches(x: &HostTensor, stride: usize) -> Vec<Vec<f32>> {
    let [n, channels, height, width] = x.dims()[..] else {
        panic!("images have four axes")
    };
    let values = x.as_slice::<f32>();
    let at = |image: usize, channel: usize, row: usize, column: usize| {
        // Positions are one off, so that the margin begins at zero.
        let inside = (1..=height).contains(&row) && (1..=width).contains(&column);
        let start = (image * channels + channel) * height * width;
        if inside {
            values[start + (row - 1) * width + column - 1]
        } else {
            0.0
        }
    };
    let mut patches = Vec::new();
    for image in 0..n {
        for row in (0..height).step_by(stride) {
            for column in (0..width).step_by(stride) {
                let cells = (0..channels)
                    .flat_map(|channel| (0..9).map(move |tap| (channel, row + tap / 3, column + tap % 3)));
                patches.push(
                    cells
                        .map(|(channel, row, column)| at(image, channel, row, column))
                        .collect(),
                );
            }
        }
    }
    patches
}

fn node<'a>(graph: &'a Graph, name: &str) -> &'a Node {
    graph.nodes.iter().find(|node| node.origin == [name]).unwrap()
}

fn weight(graph: &Graph, name: &str, operand: usize) -> (ValueId, HostTensor) {
    let value = node(graph, name).operands[operand].unwrap();
    (value, graph.weight(value).unwrap().clone())
}

fn replace(graph: &mut Graph, value: ValueId, data: HostTensor) {
    let own = graph.value_mut(value);
    own.ty = Some(data.ty());
    own.source = Source::Weight(data);
}

fn append_filter(graph: &mut Graph, conv: &str, filter: &[f32]) {
    let (value, data) = weight(graph, conv, 1);
    let mut dims = data.dims().to_vec();
    dims[0] += 1;
    let values = [data.as_slice::<f32>(), filter].concat();
    replace(graph, value, HostTensor::from_f32(&dims, &values));
}

fn append(graph: &mut Graph, norm: &str, operand: usize, last: f32) {
    let (value, data) = weight(graph, norm, operand);
    let values = [data.as_slice::<f32>(), &[last]].concat();
    replace(graph, value, HostTensor::from_f32(&[values.len()], &values));
}

/// A channel that every filter weighs with zero.
fn append_channel(graph: &mut Graph, conv: &str) {
    let (value, data) = weight(graph, conv, 1);
    let mut dims = data.dims().to_vec();
    dims[1] += 1;
    let filter: usize = data.dims()[1..].iter().product();
    let rows = data.as_slice::<f32>().chunks(filter);
    let values: Vec<f32> = rows.flat_map(|row| [row, &[0.0; 9]].concat()).collect();
    replace(graph, value, HostTensor::from_f32(&dims, &values));
}
