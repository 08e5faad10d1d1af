//! One variant for the problems of many shapes, where it is about as fast as the best of each.
//!
//! Which shapes go together is not told by their extents but by predictions: a bucket is what one variant
//! solves well. Fewer variants are fewer texts, and so fewer kernels.

use std::collections::{BTreeMap, HashMap};

use rayon::prelude::*;

use super::problem::{Incumbent, Problem};
use crate::kernel::header::onnx_nodes;
use crate::kernel::{Arch, Variant};

/// By how many times a bucket's variant may be predicted slower than the fastest of a problem.
const MOST_LOSS: f64 = 1.05;

/// Problems whose variants are looked at together: of most, few are kept.
const AT_ONCE: usize = 256;

/// Problems, by their places in a list, that one variant solves.
#[derive(Clone, Debug)]
pub struct Bucket {
    pub variant: Incumbent,
    pub members: Vec<usize>,
    /// The variant of each member, with the time that is predicted there.
    pub variants: Vec<Variant>,
    /// The member that takes longest: a variant is tried on it for all of them.
    pub representative: usize,
}

/// The problems of each layer, by their places: those of one form.
pub fn layers(problems: &[Problem]) -> Vec<Vec<usize>> {
    let forms: Vec<String> = problems.par_iter().map(form).collect();
    let mut layers: Vec<Vec<usize>> = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    for (number, form) in forms.into_iter().enumerate() {
        let own = *known.entry(form).or_insert_with(|| {
            layers.push(Vec::new());
            layers.len() - 1
        });
        layers[own].push(number);
    }
    layers
}

/// Every problem in one bucket, with others of its layer; problems without any variant are in none.
pub fn buckets(problems: &[Problem], layers: &[Vec<usize>], arch: Arch) -> Vec<Bucket> {
    let mut names = Names::default();
    let mut good: Vec<Vec<Good>> = Vec::with_capacity(problems.len());
    for some in problems.chunks(AT_ONCE) {
        let variants: Vec<Vec<Variant>> = some.par_iter().map(|problem| about_best(problem, arch)).collect();
        good.extend(variants.into_iter().map(|own| names.all(own)));
    }
    layers
        .iter()
        .flat_map(|members| cover(members.clone(), &good, &names))
        .collect()
}

/// Variants of a problem that are about as fast as the fastest, which is the first.
fn about_best(problem: &Problem, arch: Arch) -> Vec<Variant> {
    let mut variants = problem.variants(arch);
    let least = variants.first().map_or(0.0, |variant| variant.predicted_us);
    variants.retain(|variant| variant.predicted_us <= MOST_LOSS * least);
    variants
}

/// A variant that may solve a problem.
#[derive(Clone, Copy, Debug)]
struct Good {
    name: usize,
    us: f64,
    registers: Option<usize>,
}

/// Variants by their numbers, whatever they take: many problems have the same.
#[derive(Default)]
struct Names {
    variants: Vec<Variant>,
    texts: Vec<(String, String)>,
    known: HashMap<(String, String), usize>,
}

impl Names {
    fn all(&mut self, variants: Vec<Variant>) -> Vec<Good> {
        variants.into_iter().map(|variant| self.good(variant)).collect()
    }

    fn good(&mut self, variant: Variant) -> Good {
        let (us, registers) = (variant.predicted_us, variant.registers);
        let text = (variant.template.clone(), variant.knobs_text());
        let name = *self.known.entry(text.clone()).or_insert_with(|| {
            self.variants.push(variant);
            self.texts.push(text);
            self.variants.len() - 1
        });
        Good { name, us, registers }
    }

    fn variant(&self, good: Good) -> Variant {
        Variant {
            predicted_us: good.us,
            registers: good.registers,
            ..self.variants[good.name].clone()
        }
    }
}

/// Equal for problems of one layer in several shapes: those that compute the same nodes, and differ in extents alone.
/// Of repeated layers, which pose one problem, the first one tells.
fn form(problem: &Problem) -> String {
    let spec = &problem.spec;
    let text = format!(
        "{:?} {:?} {}\n{}",
        spec.kind,
        spec.options,
        problem.workspace,
        spec.text()
    );
    let mut form = format!("{:?} {:?}", onnx_nodes(&spec.body), spec.weights);
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

/// What a variant may solve.
#[derive(Default)]
struct Offer {
    members: Vec<usize>,
    /// How many of them have no faster one.
    n_first: usize,
    /// Of all of them together.
    us: f64,
}

/// Variants that are the fastest of most problems first, then those that most share, until every problem has one.
fn cover(mut open: Vec<usize>, good: &[Vec<Good>], names: &Names) -> Vec<Bucket> {
    let mut found = Vec::new();
    loop {
        let mut offers: BTreeMap<usize, Offer> = BTreeMap::new();
        for &number in &open {
            for (rank, variant) in good[number].iter().enumerate() {
                let own = offers.entry(variant.name).or_default();
                own.members.push(number);
                own.n_first += usize::from(rank == 0);
                own.us += variant.us;
            }
        }
        let best = offers.into_iter().min_by(|(a_name, a), (b_name, b)| {
            let by_count = (b.n_first, b.members.len()).cmp(&(a.n_first, a.members.len()));
            by_count
                .then(a.us.total_cmp(&b.us))
                .then_with(|| names.texts[*a_name].cmp(&names.texts[*b_name]))
        });
        let Some((name, Offer { members, .. })) = best else {
            return found;
        };
        let least = |number: usize| good[number][0].us;
        let representative = members
            .iter()
            .copied()
            .max_by(|&a, &b| least(a).total_cmp(&least(b)));
        // Both lists rise.
        open.retain(|number| members.binary_search(number).is_err());
        let (template, knobs) = names.texts[name].clone();
        let own = |&number: &usize| good[number].iter().find(|own| own.name == name);
        found.push(Bucket {
            representative: representative.expect("a variant that is offered has a problem"),
            variants: members
                .iter()
                .filter_map(own)
                .map(|&own| names.variant(own))
                .collect(),
            variant: Incumbent { template, knobs },
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
        let mut names = Names::default();
        let good: Vec<Vec<Good>> = offers(times).into_iter().map(|own| names.all(own)).collect();
        let buckets = cover((0..good.len()).collect(), &good, &names);
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
    fn of_variants_that_are_the_fastest_as_often_the_one_for_more_is_taken() {
        let found = covered(&[
            &[("b", 1.0), ("a", 1.05)],
            &[("a", 2.0), ("b", 2.01)],
            &[("c", 2.0), ("b", 2.01)],
        ]);
        assert_eq!(found, [("b".to_owned(), vec![0, 1, 2], 2)]);
        assert!(covered(&[&[]]).is_empty());
    }
}
