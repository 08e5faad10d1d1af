//! Regions whose outputs are boxes of larger tensors.

use rtrt_codegen::ir::Placement;
use rtrt_codegen::kernel::{KernelOptions, KernelSpec};
use rtrt_codegen::ops::samples::Draw;
use rtrt_codegen::rewrite::{DeviceRates, RuleSet, fuse};
use rtrt_codegen::testing::builder::joined_graph;

use crate::regions::Problem;

/// How far an axis reaches beyond the box, before and behind it: by whole vectors, by half of
/// one, and by single elements.
const MARGINS: [(usize, usize); 4] = [(8, 8), (4, 0), (0, 24), (3, 2)];

/// `problems` with every output in a box, along one axis after the other.
pub fn in_boxes(problems: Vec<Problem>) -> Vec<Problem> {
    let turns = (0..problems.len()).zip(problems);
    turns.map(|(turn, problem)| in_box(problem, turn)).collect()
}

fn in_box(mut problem: Problem, turn: usize) -> Problem {
    for (number, ty) in problem.spec.output_types().into_iter().enumerate() {
        let dims = ty.dims();
        if dims.is_empty() {
            continue;
        }
        // Mostly along the last axis, as channels are joined.
        let axis = if turn % 3 == 2 {
            turn / 3 % dims.len()
        } else {
            dims.len() - 1
        };
        let (before, behind) = MARGINS[(turn + number) % MARGINS.len()];
        let mut placement = Placement {
            starts: vec![0; dims.len()],
            dims,
        };
        placement.starts[axis] = before;
        placement.dims[axis] += before + behind;
        problem.label = format!("{} {placement}", problem.label);
        problem.spec.placements.insert(number, placement);
    }
    problem
}

/// The regions of drawn graphs of concatenations that read or write boxes.
pub fn of_graphs(seeds: std::ops::Range<u64>) -> Vec<Problem> {
    let mut problems = Vec::new();
    for seed in seeds {
        let graph = joined_graph(20, seed).graph;
        let fused = fuse(&graph, RuleSet::builtin(), DeviceRates::for_sm(90)).unwrap();
        let mut draw = Draw::new(seed);
        for (number, region) in fused.regions.iter().enumerate() {
            let spec = KernelSpec::of_region(region, KernelOptions::default());
            let types = spec.input_types();
            if !spec.placements.is_empty() || spec.ops().contains(&"slice") {
                problems.push(Problem {
                    label: format!("region {number} of seed {seed}"),
                    inputs: types.iter().map(|ty| draw.tensor(ty.dtype, &ty.dims())).collect(),
                    spec,
                });
            }
        }
    }
    problems
}
