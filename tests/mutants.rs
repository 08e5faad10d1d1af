//! Faults planted in generated kernels: each must be noticed when the kernel runs on the CPU.
//!
//! A test of the tests. `mutants/plants.rs` has the faults as data, `mutants/beds.rs` the
//! kernels they are planted in.

#![cfg(feature = "builder")]

#[path = "mutants/beds.rs"]
mod beds;
#[path = "hostexec/byte_products.rs"]
mod byte_products;
#[path = "hostexec/harness.rs"]
mod harness;
#[path = "hostexec/packed_products.rs"]
mod packed_products;
#[path = "mutants/plants.rs"]
mod plants;
#[path = "hostexec/products.rs"]
mod products;
#[path = "hostexec/regions.rs"]
mod regions;
#[path = "hostexec/translation.rs"]
mod translation;

use std::thread;

use beds::{BEDS, Bed};
use harness::{Case, Outcome, Program, Sections, have_compiler};
use plants::Mutant;
use rtrt_codegen::ir::HostTensor;
use rtrt_codegen::kernel::{self, Variant};
use rtrt_codegen::reference;
use translation::poison;

/// A bed's kernel as it is, and what it computes.
struct Ground {
    bed: &'static Bed,
    case: Case,
    wanted: Vec<HostTensor>,
}

fn is_wanted(variant: &Variant, bed: &Bed) -> bool {
    let in_range = |&(name, low, high): &(&str, i64, i64)| {
        variant
            .knobs
            .get(name)
            .is_some_and(|value| (low..=high).contains(value))
    };
    variant.template == bed.template && bed.knobs.iter().all(in_range)
}

fn ground(bed: &'static Bed) -> Ground {
    let problem = (bed.problem)();
    let variants = kernel::variants(&problem.spec, bed.arch);
    let variant = variants
        .iter()
        .find(|variant| is_wanted(variant, bed))
        .unwrap_or_else(|| {
            let offered: Vec<String> = variants
                .iter()
                .map(|variant| format!("{} {}", variant.template, variant.knobs_text()))
                .collect();
            panic!("bed `{}` has no variant among\n{}", bed.name, offered.join("\n"))
        });
    let mut source = kernel::render(&problem.spec, variant, bed.arch).unwrap();
    source.launch.grid[0] = source.launch.grid[0].min(bed.most_blocks);
    let results = reference::run(&problem.spec.body, &problem.inputs).unwrap();
    let case = Case {
        label: bed.name.to_owned(),
        source,
        inputs: problem.inputs,
        weights: problem.spec.weights.clone(),
        outputs: problem.spec.stored_types(),
    };
    let wanted = problem.spec.stored(results, poison(&case));
    Ground { bed, case, wanted }
}

/// The bed's kernel with the fault in it.
fn planted(ground: &Ground, mutant: &Mutant) -> Result<Case, String> {
    let text = &ground.case.source.text;
    let found = text.matches(mutant.find).count();
    if found != 1 {
        return Err(format!(
            "{}: {}: found {found} times: {:?}",
            mutant.bed, mutant.stands_for, mutant.find
        ));
    }
    let mut case = ground.case.clone();
    case.label = format!("{}: {}", mutant.bed, mutant.stands_for);
    case.source.text = text.replace(mutant.find, mutant.replace).into();
    Ok(case)
}

/// What gives a kernel away; nothing where it is right.
fn noticed(outcome: Result<Outcome, String>, ground: &Ground) -> Option<String> {
    match outcome {
        Ok(outcome) => outcome.wrong(&ground.wanted, ground.bed.slack),
        Err(complaint) => Some(complaint),
    }
}

/// What gives each case away, compiled in as many programs as there are threads to run them.
fn verdicts(cases: &[Case], grounds: &[&Ground]) -> Vec<Option<String>> {
    let n_programs = thread::available_parallelism().map_or(1, usize::from);
    let share = cases.len().div_ceil(n_programs);
    thread::scope(|scope| {
        let parts: Vec<_> = cases
            .chunks(share)
            .zip(grounds.chunks(share))
            .map(|(cases, grounds)| {
                scope.spawn(move || {
                    let program = Program::new(cases, Sections::Own);
                    let verdict = |number: usize| noticed(program.run_one(number), grounds[number]);
                    (0..cases.len()).map(verdict).collect::<Vec<_>>()
                })
            })
            .collect();
        parts.into_iter().flat_map(|part| part.join().unwrap()).collect()
    })
}

#[test]
fn every_planted_fault_is_noticed() {
    if !have_compiler() {
        return;
    }
    let grounds: Vec<Ground> = BEDS.iter().map(ground).collect();
    let ground_of = |name: &str| grounds.iter().find(|ground| ground.bed.name == name).unwrap();
    let planted: Vec<(Result<Case, String>, &Ground)> = plants::all()
        .map(|mutant| (planted(ground_of(mutant.bed), mutant), ground_of(mutant.bed)))
        .collect();
    let lost: Vec<String> = planted
        .iter()
        .filter_map(|(case, _)| case.as_ref().err().cloned())
        .collect();
    assert!(
        lost.is_empty(),
        "faults that no longer apply:\n{}",
        lost.join("\n")
    );
    let (cases, beds): (Vec<Case>, Vec<&Ground>) = planted
        .into_iter()
        .map(|(case, ground)| (case.unwrap(), ground))
        .unzip();
    let verdicts = verdicts(&cases, &beds);
    for (case, verdict) in cases.iter().zip(&verdicts) {
        println!(
            "{}\n    {}",
            case.label,
            verdict
                .as_deref()
                .unwrap_or("NOT NOTICED")
                .replace('\n', "\n    ")
        );
    }
    let missed = cases
        .iter()
        .zip(&verdicts)
        .filter(|(_, verdict)| verdict.is_none());
    let missed: Vec<&str> = missed.map(|(case, _)| case.label.as_str()).collect();
    assert!(
        missed.is_empty(),
        "{} of {} not noticed:\n{}",
        missed.len(),
        cases.len(),
        missed.join("\n")
    );
}

#[test]
fn kernels_without_a_fault_are_right() {
    if !have_compiler() {
        return;
    }
    let grounds: Vec<Ground> = BEDS.iter().map(ground).collect();
    let cases: Vec<Case> = grounds.iter().map(|ground| ground.case.clone()).collect();
    let grounds: Vec<&Ground> = grounds.iter().collect();
    let wrong: Vec<String> = cases
        .iter()
        .zip(verdicts(&cases, &grounds))
        .filter_map(|(case, verdict)| verdict.map(|verdict| format!("{}: {verdict}", case.label)))
        .collect();
    assert!(wrong.is_empty(), "wrong without a fault:\n{}", wrong.join("\n"));
}

#[test]
fn every_template_has_faults() {
    for template in kernel::templates::TEMPLATES {
        let has_bed = |mutant: &&Mutant| {
            BEDS.iter()
                .any(|bed| bed.name == mutant.bed && bed.template == template.name)
        };
        assert!(
            plants::all().any(|mutant| has_bed(&mutant)),
            "`{}` has none",
            template.name
        );
    }
}

#[test]
#[ignore = "prints the kernels that faults are planted in"]
fn dump() {
    for ground in BEDS.iter().map(ground) {
        println!(
            "// bed {}\n{}",
            ground.bed.name,
            kernel::prelude::kernel_part(&ground.case.source.text)
        );
    }
}
