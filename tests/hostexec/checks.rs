//! Runs variants of problems, and compares what they store with the reference.

use std::cell::Cell;

use crate::harness::{Case, Outcome, have_compiler, run_all};
use crate::regions::Problem;
use crate::translation::poison;
use rtrt_codegen::ir::HostTensor;
use rtrt_codegen::kernel::{self, Arch};
use rtrt_codegen::reference;

pub const SM_90: Arch = Arch {
    sm: 90,
    specific: true,
};

/// Runs every variant of every problem.
pub fn check(problems: Vec<Problem>) {
    check_some(problems, usize::MAX);
}

/// Runs the `n_best` variants of every problem, and the indexed one.
pub fn check_some(problems: Vec<Problem>, n_best: usize) {
    check_picked(&problems, SM_90, 1.0, |variants| {
        let ranks = 0..variants.len();
        ranks
            .filter(|&rank| rank < n_best || variants[rank].template == "indexed")
            .collect()
    });
}

/// Runs `most` variants of `template`, the best ones and others drawn from all ranks. It must
/// offer some.
pub fn check_template(problems: &[Problem], template: &str, arch: Arch, most: usize) {
    check_sums(problems, template, arch, most, SUMS);
}

pub fn check_sums(problems: &[Problem], template: &str, arch: Arch, most: usize, slack: f64) {
    check_picked(problems, arch, slack, |variants| {
        let own: Vec<usize> = (0..variants.len())
            .filter(|&rank| variants[rank].template == template)
            .collect();
        assert!(!own.is_empty(), "`{template}` refuses");
        let step = own.len().div_ceil(most).max(1);
        own.into_iter().step_by(step).collect()
    });
}

/// Runs one variant of `template` per problem, another one each time.
pub fn check_in_turns(problems: &[Problem], template: &str, arch: Arch, slack: f64) {
    let turn = Cell::new(0);
    check_picked(problems, arch, slack, |variants| {
        let own: Vec<usize> = (0..variants.len())
            .filter(|&rank| variants[rank].template == template)
            .collect();
        assert!(!own.is_empty(), "`{template}` refuses");
        turn.set(turn.get() + 5);
        vec![own[turn.get() % own.len()]]
    });
}

/// Runs every variant that any template offers.
pub fn check_all(problems: &[Problem]) {
    for arch in [SM_90, SM_75] {
        check_picked(problems, arch, SUMS, |variants| (0..variants.len()).collect());
    }
}

/// Sums of products may cancel in an epilogue, and the reference rounds between its ops.
pub const SUMS: f64 = 3.0;

/// Operands keep 11 bits of 24.
pub const TF32: f64 = 2000.0;

/// Runs the best variants and the indexed ones; what was rounded to integers may be a step off.
pub fn check_steps(problems: &[Problem], arch: Arch, n_best: usize) {
    let pick = |variants: &[kernel::Variant]| {
        let ranks = 0..variants.len();
        ranks
            .filter(|&rank| rank < n_best || variants[rank].template == "indexed")
            .collect()
    };
    check_by(problems, arch, pick, Outcome::wrong_by_steps);
}

/// Runs the variants whose ranks `pick` chooses; `slack` widens the tolerance.
pub fn check_picked(
    problems: &[Problem],
    arch: Arch,
    slack: f64,
    pick: impl Fn(&[kernel::Variant]) -> Vec<usize>,
) {
    check_by(problems, arch, pick, |found, wanted| found.wrong(wanted, slack));
}

/// Runs the variants whose ranks `pick` chooses; `wrong` says what is wrong with what came out.
pub fn check_by(
    problems: &[Problem],
    arch: Arch,
    pick: impl Fn(&[kernel::Variant]) -> Vec<usize>,
    wrong_with: impl Fn(&Outcome, &[HostTensor]) -> Option<String>,
) {
    check_on(problems, arch, u32::MAX, pick, wrong_with);
}

/// The same with `most_blocks` at most, for kernels whose blocks take as many tiles as are left.
pub fn check_on(
    problems: &[Problem],
    arch: Arch,
    most_blocks: u32,
    pick: impl Fn(&[kernel::Variant]) -> Vec<usize>,
    wrong_with: impl Fn(&Outcome, &[HostTensor]) -> Option<String>,
) {
    if !have_compiler() {
        return;
    }
    let mut cases = Vec::new();
    let mut wanted = Vec::new();
    for problem in problems {
        let variants = kernel::variants(&problem.spec, arch);
        assert!(!variants.is_empty(), "{} has no kernel", problem.label);
        for rank in pick(&variants) {
            let variant = &variants[rank];
            let mut source = kernel::render(&problem.spec, variant, arch).unwrap();
            source.launch.grid[0] = source.launch.grid[0].min(most_blocks);
            // A device refuses to launch nothing.
            assert!(
                source.launch.grid.iter().all(|&blocks| blocks > 0),
                "{}: {:?}",
                source.name,
                source.launch
            );
            let case = Case {
                label: format!("{} {} {:?}", problem.label, variant.template, variant.knobs),
                source,
                inputs: problem.inputs.clone(),
                weights: problem.spec.weights.clone(),
                outputs: problem.spec.stored_types(),
            };
            let results = reference::run(&problem.spec.body, &problem.inputs).unwrap();
            wanted.push(problem.spec.stored(results, poison(&case)));
            cases.push(case);
        }
    }
    let mut wrong = Vec::new();
    for ((case, found), wanted) in cases.iter().zip(run_all(&cases)).zip(&wanted) {
        if let Some(complaint) = wrong_with(&found, wanted) {
            wrong.push(format!("{}: {complaint}", case.label));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} wrong:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

pub const SM_75: Arch = Arch {
    sm: 75,
    specific: false,
};
