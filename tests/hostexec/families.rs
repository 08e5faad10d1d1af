//! Kernels whose numbers are arguments.

use crate::checks::SM_90;
use crate::family_regions;
use crate::harness::{Case, Outcome, have_compiler, run_all};
use rtrt_codegen::kernel::{self};

/// The members of the families that one template makes of a region's sizes, each beside the kernel that it
/// stands for.
fn in_families(sized: &family_regions::Sized, template: &str) -> Vec<(Case, Case)> {
    let problems = sized.sizes.map(sized.of);
    let variants = problems
        .each_ref()
        .map(|problem| kernel::variants(&problem.spec, SM_90));
    let offered = |knobs: &str| {
        let is_own = |own: &&kernel::Variant| own.template == template && own.knobs_text() == knobs;
        let own = variants.each_ref().map(|all| all.iter().find(is_own).cloned());
        let numbers = (0..problems.len()).filter(|&number| own[number].is_some());
        let sources = numbers.map(|number| {
            let variant = own[number].as_ref().expect("it was found");
            (
                number,
                kernel::render(&problems[number].spec, variant, SM_90).unwrap(),
            )
        });
        sources.collect::<Vec<_>>()
    };
    let case = |number: usize, source: kernel::Source| Case {
        label: format!("{} {}", problems[number].label, source.name),
        source,
        inputs: problems[number].inputs.clone(),
        weights: problems[number].spec.weights.clone(),
        outputs: problems[number].spec.stored_types(),
    };
    let own = variants
        .iter()
        .flatten()
        .filter(|variant| variant.template == template);
    for knobs in own.map(kernel::Variant::knobs_text) {
        let (numbers, sources): (Vec<usize>, Vec<kernel::Source>) = offered(&knobs).into_iter().unzip();
        let mut families = kernel::family::Families::default();
        for (place, source) in sources.iter().enumerate() {
            families.add(place, source.clone());
        }
        let members = families.finish().into_iter().flat_map(|family| family.members);
        let pairs = members.map(|(place, member)| {
            let alone = sources[place].clone();
            (case(numbers[place], member), case(numbers[place], alone))
        });
        let pairs: Vec<(Case, Case)> = pairs.collect();
        if !pairs.is_empty() {
            return pairs;
        }
    }
    panic!("no variant of `{template}` is for several sizes");
}

/// Whose numbers are arguments computes the same bits as whose numbers are in its text.
#[test]
fn families_compute_what_single_kernels_compute() {
    if !have_compiler() {
        return;
    }
    let all = family_regions::all();
    for template in kernel::templates::TEMPLATES {
        let is_tried = all.iter().any(|sized| sized.templates.contains(&template.name));
        assert!(is_tried, "`{}` is in no family", template.name);
    }
    let pairs = all.iter().flat_map(|sized| {
        let templates = sized.templates.iter();
        templates.flat_map(|template| in_families(sized, template))
    });
    let (general, alone): (Vec<Case>, Vec<Case>) = pairs.unzip();
    let n_dims = |case: &Case| {
        let params = case.source.params.iter();
        params
            .filter(|param| matches!(param, kernel::Param::Dim(_)))
            .count()
    };
    assert!(general.iter().all(|case| n_dims(case) > 0));
    let found = run_all(&general).into_iter().zip(run_all(&alone));
    for ((general, alone), case) in found.zip(&general) {
        let bits = |outcome: &Outcome| -> Vec<Vec<u8>> {
            let outputs = outcome.launches.iter().flatten();
            outputs.map(|output| output.bytes().to_vec()).collect()
        };
        assert_eq!(bits(&general), bits(&alone), "{}", case.label);
    }
}
