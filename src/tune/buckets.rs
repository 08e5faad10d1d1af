//! One variant for the problems of many shapes, where it is about as fast as the best of each.
//!
//! Which shapes go together is not told by their extents but by predictions: a bucket is what one variant
//! solves well. Fewer variants are fewer texts, and so fewer kernels.

use std::collections::{BTreeMap, HashMap};

use rayon::prelude::*;

use super::problem::{Incumbent, Problem};
use crate::kernel::{Arch, Variant};

/// By how many times a bucket's variant may be predicted slower than the fastest of a problem.
const MOST_LOSS: f64 = 1.1;

/// Problems, by their places in a list, that one variant solves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    pub variant: Incumbent,
    pub members: Vec<usize>,
    /// The member that takes longest: a variant is tried on it for all of them.
    pub representative: usize,
}

/// Every problem in one bucket; problems without any variant are in none.
pub fn buckets(problems: &[&Problem], arch: Arch) -> Vec<Bucket> {
    let good: Vec<Vec<Variant>> = problems.par_iter().map(|problem| good(problem, arch)).collect();
    let mut forms: Vec<Vec<usize>> = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    for (number, problem) in problems.iter().enumerate() {
        let own = *known.entry(form(problem)).or_insert_with(|| {
            forms.push(Vec::new());
            forms.len() - 1
        });
        forms[own].push(number);
    }
    forms
        .into_iter()
        .flat_map(|members| cover(members, &good))
        .collect()
}

/// Variants of a problem that are about as fast as the fastest.
fn good(problem: &Problem, arch: Arch) -> Vec<Variant> {
    let mut variants = problem.variants(arch);
    let least = variants
        .iter()
        .map(|variant| variant.predicted_us)
        .fold(f64::INFINITY, f64::min);
    variants.retain(|variant| variant.predicted_us <= MOST_LOSS * least);
    variants
}

/// Equal for problems that differ in extents alone.
fn form(problem: &Problem) -> String {
    let spec = &problem.spec;
    let text = format!(
        "{:?} {:?} {}\n{}",
        spec.kind,
        spec.options,
        problem.workspace,
        spec.text()
    );
    let mut form = format!("{:?}", spec.weights);
    let mut in_number = false;
    for c in text.chars() {
        if !c.is_ascii_digit() {
            form.push(c);
        } else if !in_number {
            form.push('#');
        }
        in_number = c.is_ascii_digit();
    }
    form
}

/// Variants that most problems share first, until every problem has one.
fn cover(mut open: Vec<usize>, good: &[Vec<Variant>]) -> Vec<Bucket> {
    let mut found = Vec::new();
    loop {
        // How many problems each solves, and how long they take together.
        let mut users: BTreeMap<(String, String), (Vec<usize>, f64)> = BTreeMap::new();
        for &number in &open {
            for variant in &good[number] {
                let name = (variant.template.clone(), variant.knobs_text());
                let own = users.entry(name).or_default();
                own.0.push(number);
                own.1 += variant.predicted_us;
            }
        }
        let best = users
            .into_iter()
            .min_by(|(_, (a, a_us)), (_, (b, b_us))| b.len().cmp(&a.len()).then(a_us.total_cmp(b_us)));
        let Some(((template, knobs), (members, _))) = best else {
            return found;
        };
        let least = |number: usize| {
            good[number]
                .iter()
                .map(|variant| variant.predicted_us)
                .fold(f64::INFINITY, f64::min)
        };
        let representative = members
            .iter()
            .copied()
            .max_by(|&a, &b| least(a).total_cmp(&least(b)));
        open.retain(|number| !members.contains(number));
        found.push(Bucket {
            variant: Incumbent { template, knobs },
            representative: representative.expect("a variant that is there has a problem"),
            members,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::templates::variant;

    fn offers(times: &[&[(&str, f64)]]) -> Vec<Vec<Variant>> {
        let own = |times: &&[(&str, f64)]| {
            let variants = times
                .iter()
                .map(|&(name, us)| variant(name, &[("threads", 128)], us));
            variants.collect()
        };
        times.iter().map(own).collect()
    }

    fn covered(times: &[&[(&str, f64)]]) -> Vec<(String, Vec<usize>, usize)> {
        let good = offers(times);
        let buckets = cover((0..good.len()).collect(), &good);
        let told = buckets
            .into_iter()
            .map(|own| (own.variant.template, own.members, own.representative));
        told.collect()
    }

    #[test]
    fn the_variant_that_most_share_is_taken_first() {
        let found = covered(&[
            &[("a", 1.0), ("b", 1.05)],
            &[("b", 2.0)],
            &[("b", 3.0), ("c", 3.1)],
            &[("c", 9.0)],
        ]);
        assert_eq!(
            found,
            [("b".to_owned(), vec![0, 1, 2], 2), ("c".to_owned(), vec![3], 3)]
        );
    }

    #[test]
    fn of_variants_that_as_many_share_the_faster_is_taken() {
        let found = covered(&[&[("a", 1.1), ("b", 1.0)], &[("a", 2.0), ("b", 2.0)]]);
        assert_eq!(found, [("b".to_owned(), vec![0, 1], 1)]);
        assert!(covered(&[&[]]).is_empty());
    }
}
