//! Layouts by time: a graph is planned with channels last and as exported, and for each size of
//! picture either way; the fastest plan is built.
//!
//! Rules tagged `turns` turn an op to channels last, others let the transposes sink. Plans differ by
//! the picture sizes for which the first kind may fire. Without a GPU their times are predicted, so
//! that every machine finds the same plan; where kernels are timed, the nearest plans are timed, too, and
//! those whose kernels are about as fast are executed as a whole.
//!
//! A plan that is taken is a guide to other shapes of the model, which are then cut alike without a search.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Mutex;
use std::time::Instant;

use rayon::prelude::*;

use super::{PipelineError, Settings, in_canonical_form};
use crate::ir::Graph;
use crate::kernel::{self, Arch, KernelOptions, KernelSpec};
use crate::plan::lifetimes::Storage;
use crate::reference::Constants;
use crate::rewrite::{Cutter, Cutting, Derivations, DeviceRates, FusedGraph, RegionKind, Rejected, RuleSet};
use crate::tune::{Tactic, fastest};

/// Tag of the rules that turn an op `y = op(x, ..)` whose pictures are the last two axes of `x`.
pub(super) const TURNS: &str = "turns";
/// Most sizes of pictures that are decided apart from each other; the largest are decided first.
const MAX_SIZES: usize = 8;
/// By how many times others must be predicted faster than channels last everywhere: kernels are
/// written for those, and predictions are no more exact.
const LEAST_GAIN: f64 = 1.03;
/// Layouts that must be this many times faster than another to be taken without looking further.
const CLEARLY: f64 = 1.5;

/// Plans whose kernels take up to this many times those of the fastest are executed as a whole, and how many.
const CLOSE: f64 = 1.15;
const MAX_FINALISTS: usize = 3;

/// A plan with its kernels.
pub type Solved<'a> = (&'a FusedGraph, &'a [Tactic]);

/// Predicted times of kernel problems, which most plans of a graph share.
#[derive(Default)]
pub struct Times {
    known: Mutex<HashMap<String, f64>>,
}

impl Times {
    /// Microseconds of the launches of `fused`, one after the other.
    pub fn plan_us(&self, fused: &FusedGraph, arch: Arch, options: KernelOptions) -> f64 {
        let steps = Storage::of(fused).steps;
        let times: Vec<f64> = steps
            .par_iter()
            .map(|&region| self.kernel_us(&kernel::spec(fused, region, &options), arch))
            .collect();
        // In order: the sum is the same on every machine.
        times.into_iter().sum()
    }

    /// Microseconds of the variant that is predicted fastest.
    pub fn kernel_us(&self, spec: &KernelSpec, arch: Arch) -> f64 {
        let key = format!("{arch:?} {}", spec.key());
        let known = |own: &Self| {
            own.known
                .lock()
                .expect("no thread panics with it")
                .get(&key)
                .copied()
        };
        if let Some(time) = known(self) {
            return time;
        }
        let variants = kernel::variants(spec, arch);
        let time = variants.first().map_or(0.0, |variant| variant.predicted_us);
        self.known
            .lock()
            .expect("no thread panics with it")
            .insert(key, time);
        time
    }
}

/// A plan of a graph.
struct Layout {
    fused: FusedGraph,
    cutting: Cutting,
    predicted_us: f64,
    /// Sizes of pictures, in cells, whose channels are last.
    turned: BTreeSet<usize>,
}

/// A plan that was taken.
pub struct Taken {
    pub fused: FusedGraph,
    pub guide: Guide,
}

/// What other shapes may take over from a plan.
pub struct Guide {
    turned: Turned,
    cutting: Cutting,
}

/// Pictures whose channels are last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Turned {
    All,
    /// Those of so many cells.
    Of(BTreeSet<usize>),
}

/// The plans of a graph that are worth timing; the first one is taken where none is timed.
pub struct Layouts {
    plans: Vec<Layout>,
    /// All sizes of pictures.
    sizes: BTreeSet<usize>,
}

impl Layouts {
    /// Whether there is nothing to choose.
    pub fn is_single(&self) -> bool {
        self.plans.len() == 1
    }

    /// The plan that is predicted fastest.
    pub fn predicted(mut self) -> Taken {
        let us: Vec<f64> = self.plans.iter().map(|plan| plan.predicted_us).collect();
        self.explain(0, &us);
        taken(self.plans.swap_remove(0), &self.sizes)
    }

    /// All plans, that which is predicted fastest first.
    pub fn all(self) -> Vec<Taken> {
        let taken = |plan| taken(plan, &self.sizes);
        self.plans.into_iter().map(taken).collect()
    }

    /// The plan that takes the least time: `tactics` chooses and times the kernels of a plan, and `race` gives
    /// the times of executions of plans whose kernels are about as fast. Plans that are predicted much slower
    /// than the first are left out, those that are still to be tried when time is up, and those of which a
    /// kernel was not timed.
    ///
    /// # Errors
    /// If no kernels can be chosen for any plan.
    pub fn timed(
        mut self,
        until: Option<Instant>,
        tactics: impl Fn(&FusedGraph) -> Result<Vec<Tactic>, PipelineError>,
        race: impl Fn(&[Solved<'_>]) -> Result<Vec<f64>, PipelineError>,
    ) -> Result<(Taken, Vec<Tactic>), PipelineError> {
        let is_late = || until.is_some_and(|until| until <= Instant::now());
        let most = CLEARLY * self.plans[0].predicted_us;
        self.plans.retain(|plan| plan.predicted_us <= most);
        let mut found: Vec<Result<Vec<Tactic>, PipelineError>> = Vec::new();
        for plan in &self.plans {
            if !found.is_empty() && is_late() {
                break;
            }
            found.push(tactics(&plan.fused));
        }
        self.plans.truncate(found.len());
        let times = self.plans.iter().zip(&found).map(|(plan, own)| match own {
            Ok(own) => measured_us(&plan.fused, own),
            Err(_) => f64::INFINITY,
        });
        let mut us: Vec<f64> = times.collect();
        let finalists = finalists(&us);
        let mut chosen = finalists.first().copied().unwrap_or(0);
        if finalists.len() > 1 && !is_late() {
            let solved: Vec<Solved<'_>> = finalists
                .iter()
                .filter_map(|&plan| Some((&self.plans[plan].fused, found[plan].as_deref().ok()?)))
                .collect();
            let executed = race(&solved)?;
            for (&plan, executed) in finalists.iter().zip(executed) {
                us[plan] = executed;
            }
            let timed = finalists.iter().map(|&plan| (plan, us[plan]));
            chosen = fastest(timed).map_or(chosen, |(plan, _)| plan);
        }
        let own = found.swap_remove(chosen)?;
        self.explain(chosen, &us);
        Ok((taken(self.plans.swap_remove(chosen), &self.sizes), own))
    }

    /// Says at the first convolution of plan number `chosen` how the others differ, where `us` are the
    /// times of all of them.
    fn explain(&mut self, chosen: usize, us: &[f64]) {
        let others = (0..us.len()).filter(|&other| other != chosen && us[other].is_finite());
        let rejected: Vec<Rejected> = others
            .map(|other| Rejected {
                rules: vec![self.name(&self.plans[other])],
                lost_us: (us[other] - us[chosen]).max(0.0),
                ..Rejected::default()
            })
            .collect();
        let mut regions = self.plans[chosen].fused.regions.iter_mut();
        if let Some(first) = regions.find(|region| region.kind == RegionKind::Window) {
            first.explanation.rejected.extend(rejected);
        }
    }

    fn name(&self, plan: &Layout) -> String {
        let sizes: Vec<String> = plan.turned.iter().rev().map(ToString::to_string).collect();
        if plan.turned.is_empty() {
            "channels last nowhere".to_owned()
        } else if plan.turned == self.sizes {
            "channels last everywhere".to_owned()
        } else {
            format!("channels last for pictures of {} cells", sizes.join(", "))
        }
    }
}

fn taken(plan: Layout, sizes: &BTreeSet<usize>) -> Taken {
    let turned = if plan.turned == *sizes {
        Turned::All
    } else {
        Turned::Of(plan.turned)
    };
    Taken {
        fused: plan.fused,
        guide: Guide {
            turned,
            cutting: plan.cutting,
        },
    }
}

/// The plans of the graph of `search`.
///
/// # Errors
/// If a rule is wrong.
pub fn layouts(search: &Search<'_>) -> Result<Layouts, PipelineError> {
    let can_turn = search
        .rules
        .headers()
        .any(|header| header.tags.iter().any(|tag| tag == TURNS));
    // Rules make such ops of each other only; a graph without them is canonicalised once.
    let has_pictures = can_turn && search.core.nodes.iter().any(|node| reads_pictures(node.op));
    if !has_pictures {
        return search.only();
    }
    let untouched = search.canonical(&Turned::Of(BTreeSet::new()))?;
    let sizes = picture_sizes(&untouched);
    if sizes.is_empty() {
        return search.only();
    }
    let everywhere = search.plan(&sizes, &sizes)?;
    let nowhere = search.fused(&untouched, BTreeSet::new())?;
    let mixed = search.mixed(&sizes, &everywhere, &nowhere)?;
    let mut plans = vec![everywhere, nowhere];
    plans.extend(mixed);
    let handicapped = |plan: &Layout| {
        let handicap = if plan.turned == sizes { 1.0 } else { LEAST_GAIN };
        handicap * plan.predicted_us
    };
    plans.sort_by(|a, b| handicapped(a).total_cmp(&handicapped(b)));
    Ok(Layouts { plans, sizes })
}

/// The graph of `search` cut as one of `guides` was, by the fastest of those that fit; `None` where none does.
///
/// # Errors
/// If a rule is wrong.
pub fn alike(search: &Search<'_>, guides: &[Guide]) -> Result<Option<FusedGraph>, PipelineError> {
    let mut by_layout: BTreeMap<&Turned, Vec<&Cutting>> = BTreeMap::new();
    for guide in guides {
        by_layout.entry(&guide.turned).or_default().push(&guide.cutting);
    }
    let mut found = Vec::new();
    for (turned, models) in by_layout {
        let canonical = search.canonical(turned)?;
        let fused = search.cutter().cut_alike(&canonical, &models)?;
        found.extend(fused.map(|fused| (turned, fused)));
    }
    if found.len() < 2 {
        return Ok(found.pop().map(|(_, fused)| fused));
    }
    let us = |turned: &Turned, fused: &FusedGraph| {
        let handicap = if *turned == Turned::All { 1.0 } else { LEAST_GAIN };
        handicap * search.plan_us(fused)
    };
    let timed = found
        .into_iter()
        .map(|(turned, fused)| (us(turned, &fused), fused));
    let fastest = timed.min_by(|(a, _), (b, _)| a.total_cmp(b));
    Ok(fastest.map(|(_, fused)| fused))
}

/// The regions of a plan that was taken of the graph of `search`, as [`Cutter::unplaced`] leaves them.
///
/// # Errors
/// If a rule is wrong.
pub fn unplaced(search: &Search<'_>, guide: &Guide) -> Result<Option<FusedGraph>, PipelineError> {
    let canonical = search.canonical(&guide.turned)?;
    Ok(search.cutter().unplaced_alike(&canonical, &[&guide.cutting])?)
}

/// Whether the shape that gave `other` may as well be cut as `known` says.
pub fn serves(known: &Guide, other: &Guide, rules: &RuleSet, arch: Arch) -> bool {
    let constants = Constants::default();
    let cutter = Cutter::new(rules, DeviceRates::for_sm(arch.sm), &constants);
    known.turned == other.turned && cutter.serves(&known.cutting, &other.cutting)
}

/// A graph to be planned, and what is known of others.
#[derive(Clone, Copy)]
pub struct Search<'a> {
    pub core: &'a Graph,
    pub arch: Arch,
    pub settings: &'a Settings,
    pub rules: &'a RuleSet,
    pub times: &'a Times,
    pub constants: &'a Constants,
    /// How other graphs of the model were derived, where there are such.
    pub derivations: Option<&'a Derivations>,
}

impl Search<'_> {
    /// Nothing to choose from: channels last wherever rules turn anything.
    fn only(&self) -> Result<Layouts, PipelineError> {
        let sizes = BTreeSet::new();
        Ok(Layouts {
            plans: vec![self.plan(&sizes, &sizes)?],
            sizes,
        })
    }

    pub(super) fn cutter(&self) -> Cutter<'_> {
        Cutter {
            rules: self.rules,
            device: DeviceRates::for_sm(self.arch.sm),
            constants: self.constants,
            derivations: self.derivations,
        }
    }

    pub(super) fn plan_us(&self, fused: &FusedGraph) -> f64 {
        let options = self.settings.kernel_options();
        self.times.plan_us(fused, self.arch, options)
    }

    fn fused(&self, canonical: &Graph, turned: BTreeSet<usize>) -> Result<Layout, PipelineError> {
        let (fused, cutting) = self.cutter().cut(canonical)?;
        Ok(Layout {
            predicted_us: self.plan_us(&fused),
            fused,
            cutting,
            turned,
        })
    }

    /// The graph that the e-graph starts from, where channels are last in these pictures.
    fn canonical(&self, turned: &Turned) -> Result<Graph, PipelineError> {
        let form = |rules: &RuleSet| in_canonical_form(self.core, self.settings, rules, self.constants);
        Ok(match turned {
            Turned::All => form(self.rules),
            Turned::Of(sizes) if sizes.is_empty() => form(&self.rules.without(TURNS)),
            Turned::Of(sizes) => form(&self.rules.restricted(TURNS, &is_one_of(sizes))?),
        })
    }

    /// The plan in which pictures of the sizes `turned`, of all `sizes`, have channels last.
    fn plan(&self, turned: &BTreeSet<usize>, sizes: &BTreeSet<usize>) -> Result<Layout, PipelineError> {
        let canonical = if turned == sizes {
            self.canonical(&Turned::All)
        } else {
            self.canonical(&Turned::Of(turned.clone()))
        };
        self.fused(&canonical?, turned.clone())
    }

    /// The best plan that differs from both for some sizes, if it is better than they: from the
    /// better of them on, every size is tried the other way, once.
    fn mixed(
        &self,
        sizes: &BTreeSet<usize>,
        everywhere: &Layout,
        nowhere: &Layout,
    ) -> Result<Option<Layout>, PipelineError> {
        let (faster, slower) = if everywhere.predicted_us <= nowhere.predicted_us {
            (everywhere, nowhere)
        } else {
            (nowhere, everywhere)
        };
        if sizes.len() < 2 || slower.predicted_us > CLEARLY * faster.predicted_us {
            return Ok(None);
        }
        let mut best: Option<Layout> = None;
        for size in sizes.iter().rev().take(MAX_SIZES) {
            let current = best.as_ref().unwrap_or(faster);
            let mut turned = current.turned.clone();
            if !turned.remove(size) {
                turned.insert(*size);
            }
            // Both ends are known.
            if turned.is_empty() || turned == *sizes {
                continue;
            }
            let other = self.plan(&turned, sizes)?;
            if other.predicted_us < current.predicted_us {
                best = Some(other);
            }
        }
        Ok(best)
    }
}

/// Plans that are executed as a whole, by rising times `us` of their kernels.
fn finalists(us: &[f64]) -> Vec<usize> {
    let mut plans: Vec<usize> = (0..us.len()).filter(|&plan| us[plan].is_finite()).collect();
    plans.sort_by(|&a, &b| us[a].total_cmp(&us[b]));
    let most = plans.first().map_or(0.0, |&first| CLOSE * us[first]);
    plans.retain(|&plan| us[plan] <= most);
    plans.truncate(MAX_FINALISTS);
    plans
}

/// Microseconds of the launches of a plan; infinite where one was not timed.
fn measured_us(fused: &FusedGraph, tactics: &[Tactic]) -> f64 {
    let steps = Storage::of(fused).steps.into_iter();
    let times = steps.map(|region| tactics[region].measured_us.unwrap_or(f64::INFINITY));
    times.sum()
}

/// A condition that holds for pictures of these sizes.
fn is_one_of(sizes: &BTreeSet<usize>) -> String {
    let tests = sizes
        .iter()
        .map(|size| format!("size(x) == {size} * dim(x, 0) * dim(x, 1)"));
    tests.collect::<Vec<_>>().join(" or ")
}

fn reads_pictures(op: &str) -> bool {
    ["conv", "conv_transpose", "max_pool", "avg_pool"].contains(&op)
}

/// Cells of the pictures that convolutions and poolings of a graph in the exporter's order read.
fn picture_sizes(graph: &Graph) -> BTreeSet<usize> {
    let windows = graph.nodes.iter().filter(|node| reads_pictures(node.op));
    let cells = windows.filter_map(|node| {
        let dims = graph.ty(node.operands.first().copied()??).dims();
        (dims.len() == 4).then(|| dims[2] * dims[3])
    });
    cells.filter(|&cells| cells > 0).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::compile::{Cubin, Resources};
    use crate::ir::{DType, HostTensor};
    use crate::kernel::{Launch, Source, Variant};
    use crate::ops::random::drawn;
    use crate::tune::error_of;
    use crate::{ir, ops, reference, rewrite, specialize};

    const ARCH: Arch = Arch {
        sm: 90,
        specific: true,
    };

    /// Convolutions of pictures of 64 and 16 cells, and a sum over a skip connection.
    fn network() -> Graph {
        let text = "graph g(x: f32[1,8,8,8]) {
            y = relu(conv[strides=[1,1], pads=[1,1,1,1], dilations=[1,1]](x, f32[16,8,3,3]{0.03 ..}))
            p = max_pool[kernel_shape=[2,2], strides=[2,2], pads=[0,0,0,0], dilations=[1,1]](y)
            z = relu(conv[strides=[1,1], pads=[1,1,1,1], dilations=[1,1]](p, f32[16,16,3,3]{0.02 ..}))
            return add(p, conv[strides=[1,1], pads=[1,1,1,1], dilations=[1,1]](z, f32[16,16,3,3]{0.01 ..})) as \"y\"
          }";
        let graph = ir::text::parse(text, &|name| ops::lookup(name).map(|def| def.name)).unwrap();
        let bindings = specialize::bind(&graph, &[]).unwrap();
        specialize::specialize(&graph, &bindings).unwrap()
    }

    fn search_in(core: &Graph, check: impl Fn(&Search<'_>, &BTreeSet<usize>)) {
        let settings = Settings::stored_in(DType::F32);
        let search = Search {
            core,
            arch: ARCH,
            settings: &settings,
            rules: RuleSet::builtin(),
            times: &Times::default(),
            constants: &Constants::default(),
            derivations: None,
        };
        let untouched = search.canonical(&Turned::Of(BTreeSet::new())).unwrap();
        check(&search, &picture_sizes(&untouched));
    }

    fn plans_of(core: &Graph, times: &Times) -> Layouts {
        layouts(&Search {
            core,
            arch: ARCH,
            settings: &Settings::stored_in(DType::F32),
            rules: RuleSet::builtin(),
            times,
            constants: &Constants::default(),
            derivations: None,
        })
        .unwrap()
    }

    fn n_turned(plan: &Layout) -> usize {
        let nodes = plan.fused.regions.iter().flat_map(|region| &region.body.nodes);
        nodes.filter(|node| node.op == "conv_nhwc").count()
    }

    #[test]
    fn only_pictures_of_the_chosen_sizes_are_turned() {
        search_in(&network(), |search, sizes| {
            assert_eq!(*sizes, BTreeSet::from([16, 64]));
            let turned = |own: &[usize]| {
                let own: BTreeSet<usize> = own.iter().copied().collect();
                n_turned(&search.plan(&own, sizes).unwrap())
            };
            assert_eq!((turned(&[64]), turned(&[16]), turned(&[16, 64])), (1, 2, 3));
        });
    }

    #[test]
    fn every_layout_computes_the_same() {
        let core = network();
        let inputs: Vec<HostTensor> = core
            .inputs
            .iter()
            .map(|&input| drawn(core.ty(input), 3))
            .collect();
        let wanted = reference::run(&core, &inputs).unwrap();
        search_in(&core, |search, sizes| {
            for own in [vec![64], vec![16], vec![16, 64]] {
                let plan = search.plan(&own.into_iter().collect(), sizes).unwrap();
                let found = rewrite::run_fused(&plan.fused, &inputs).unwrap();
                assert!(error_of(&found[0], &wanted[0]) < 1e-4);
            }
        });
    }

    #[test]
    fn the_plan_that_is_predicted_fastest_is_taken_and_says_what_lost() {
        let times = Times::default();
        let found = plans_of(&network(), &times);
        let least = found
            .plans
            .iter()
            .map(|plan| plan.predicted_us)
            .fold(f64::INFINITY, f64::min);
        assert!(found.plans.len() >= 2 && found.plans[0].predicted_us <= LEAST_GAIN * least);
        let fused = found.predicted().fused;
        let told = fused
            .regions
            .iter()
            .flat_map(|region| &region.explanation.rejected);
        let told: Vec<&String> = told.flat_map(|other| &other.rules).collect();
        assert!(
            told.iter().any(|rule| rule.starts_with("channels last")),
            "{told:?}"
        );
        let again = plans_of(&network(), &times).predicted().fused;
        let us = |fused: &FusedGraph| times.plan_us(fused, ARCH, KernelOptions::default()).to_bits();
        assert_eq!(us(&again), us(&fused));
    }

    #[test]
    fn plans_with_about_equal_kernels_are_executed() {
        assert_eq!(finalists(&[20.0, 10.0, 11.0]), [1, 2]);
        assert_eq!(finalists(&[f64::INFINITY, 10.0, 12.0]), [1]);
        assert_eq!(finalists(&[f64::INFINITY]), [0; 0]);
    }

    /// Kernels of which all take `us` together.
    fn kernels(fused: &FusedGraph, us: f64) -> Vec<Tactic> {
        let n_regions = u32::try_from(fused.regions.len()).unwrap();
        let tactic = Tactic {
            variant: Variant {
                template: String::new(),
                knobs: BTreeMap::new(),
                predicted_us: 0.0,
                registers: None,
            },
            source: Source {
                name: String::new(),
                header: String::new(),
                text: "".into(),
                template: "",
                launch: Launch::in_a_row(1, 1, 0),
                params: Vec::new(),
                workspace_bytes: 0,
            },
            cubin: Cubin {
                bytes: Arc::default(),
                resources: Resources::default(),
            },
            measured_us: Some(us / f64::from(n_regions)),
        };
        vec![tactic; fused.regions.len()]
    }

    #[test]
    fn the_plan_whose_execution_is_fastest_is_taken() {
        let taken = |executed_us: [f64; 2]| {
            let mut found = plans_of(&network(), &Times::default());
            found.plans.truncate(2);
            found.plans[1].predicted_us = found.plans[0].predicted_us;
            let own: Vec<usize> = found.plans.iter().map(n_turned).collect();
            assert_ne!(own[0], own[1]);
            let chosen = found.timed(
                None,
                |fused| Ok(kernels(fused, 100.0)),
                |plans| {
                    assert_eq!(plans.len(), 2);
                    Ok(executed_us.to_vec())
                },
            );
            let nodes = chosen
                .unwrap()
                .0
                .fused
                .regions
                .into_iter()
                .flat_map(|region| region.body.nodes);
            let n_turned = nodes.filter(|node| node.op == "conv_nhwc").count();
            own.iter().position(|own| *own == n_turned).unwrap()
        };
        assert_eq!(taken([100.0, 90.0]), 1);
        assert_eq!(taken([100.0, 99.0]), 0);
        assert_eq!(taken([f64::INFINITY, 99.0]), 1);
    }

    #[test]
    fn graphs_without_pictures_have_one_plan() {
        let text = "graph g(x: f32[4,8]) { return relu(x) as \"y\" }";
        let graph = ir::text::parse(text, &|name| ops::lookup(name).map(|def| def.name)).unwrap();
        assert!(plans_of(&graph, &Times::default()).is_single());
    }
}
