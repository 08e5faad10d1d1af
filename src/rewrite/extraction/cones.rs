//! Candidate kernels: for each tensor, a few sets of producers that one kernel may compute.
//!
//! A cone grows from its root towards the inputs, tensors in falling rank, so that all
//! readers of a tensor are decided before the tensor is. Cones differ by their exceptions to
//! "inline whatever is legal": none, then one, then two, .. up to a number per tensor. The
//! single op is always a candidate, so a plan always exists.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use rayon::prelude::*;
use rustc_hash::{FxHashMap, FxHashSet};

use super::contract::{Cone, Shape};
use super::cost::{DeviceRates, as_f64, gathered, work_of};
use super::limits::Limits;
use super::net::{Net, Use};
use super::parts::{JOIN, placing_us, selecting_us};
use super::regions::RegionKind;
use crate::ir::DType;
use crate::ops::TileKind;

/// Candidates kept per tensor.
const MAX_CONES: usize = 24;
/// Decisions that may deviate from the greedy cone at once.
const MAX_EXCEPTIONS: usize = 3;
/// Tensors of all cones grown for one expression: large cones get fewer variations.
const MAX_INLINED: usize = 800;

/// The view that moves nothing.
const RELABELLING: &str = "reshape";

/// A kernel that may be chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    pub kind: RegionKind,
    /// Tensor the cone grew from; the largest one of `outputs`.
    pub root: usize,
    /// Tensors written, in rising order.
    pub outputs: Vec<usize>,
    /// Tensors read that are computed on the device, in rising order; inputs and constants
    /// are always there.
    pub needs: Vec<usize>,
    /// Tensors computed inside, the root among them, and the expression of each.
    pub inlined: BTreeMap<usize, usize>,
    pub bound_us: f64,
    /// Bytes read from and written to memory.
    pub bytes: f64,
}

/// Candidates of every tensor that is computed on the device; empty for others.
pub fn enumerate(net: &Net, limits: &Limits, device: &DeviceRates) -> Vec<Vec<Candidate>> {
    let grower = Grower {
        net,
        limits,
        device,
        reductions: reductions_by_operand(net),
    };
    (0..net.tensors.len())
        .into_par_iter()
        .map(|root| {
            if net.tensors[root].is_device() {
                grower.candidates(root)
            } else {
                Vec::new()
            }
        })
        .collect()
}

/// The kernels of another shape over the tensors and expressions of `net`, with what they cost here; `None` where one
/// of them may be none here.
pub fn remade<'k>(
    net: &Net,
    limits: &Limits,
    device: &DeviceRates,
    kernels: impl IntoIterator<Item = &'k Candidate>,
) -> Option<Vec<Candidate>> {
    let grower = Grower {
        net,
        limits,
        device,
        reductions: BTreeMap::new(),
    };
    kernels.into_iter().map(|kernel| grower.remade(kernel)).collect()
}

/// Reductions of each tensor that something on the device reads: results and expressions.
fn reductions_by_operand(net: &Net) -> BTreeMap<usize, Vec<(usize, usize)>> {
    let mut found: BTreeMap<usize, Vec<(usize, usize)>> = BTreeMap::new();
    for (tensor, own) in net.tensors.iter().enumerate() {
        let is_read = own.is_device() && own.consumers > 0;
        for &expr in own.exprs.iter().filter(|_| is_read) {
            if net.exprs[expr].kind == TileKind::Reduce
                && let Some(operand) = net.exprs[expr].uses().next()
            {
                found.entry(operand.tensor).or_default().push((tensor, expr));
            }
        }
    }
    found
}

/// What to do with a tensor instead of inlining its first legal expression: another
/// expression of it, or none (`usize::MAX`). Few, by rising tensor.
type Exceptions = Vec<(usize, usize)>;

/// `exceptions` with one more, in the place of that for the same tensor.
fn with_exception(exceptions: &Exceptions, tensor: usize, other: usize) -> Exceptions {
    let place = exceptions.partition_point(|&(own, _)| own < tensor);
    let is_replaced = exceptions.get(place).is_some_and(|&(own, _)| own == tensor);
    let mut all = Vec::with_capacity(exceptions.len() + 1);
    all.extend_from_slice(&exceptions[..place]);
    all.push((tensor, other));
    all.extend_from_slice(&exceptions[place + usize::from(is_replaced)..]);
    all
}

struct Grower<'a> {
    net: &'a Net,
    limits: &'a Limits,
    device: &'a DeviceRates,
    /// By the tensor that they reduce.
    reductions: BTreeMap<usize, Vec<(usize, usize)>>,
}

/// What was found of the cones of a root: cones with other exceptions begin alike.
type Known = FxHashMap<BTreeMap<usize, usize>, Option<Rc<Shape>>>;

/// A finished cone and the tensors at which it could have been another one.
struct Grown {
    inlined: BTreeMap<usize, usize>,
    shape: Rc<Shape>,
    /// Tensors inlined, and their legal expressions.
    choices: Vec<(usize, Vec<usize>)>,
}

impl Grower<'_> {
    fn candidates(&self, root: usize) -> Vec<Candidate> {
        let mut found: Vec<Candidate> = Vec::new();
        let exprs = &self.net.tensors[root].exprs;
        for &expr in exprs {
            found.extend(self.single(root, expr));
        }
        let share = MAX_CONES / exprs.len().max(1);
        for &expr in exprs {
            self.vary(root, expr, share.max(1), &mut found);
        }
        let wider: Vec<Candidate> = found.iter().filter_map(|own| self.with_statistics(own)).collect();
        found.extend(wider);
        // A join that moves nothing says by how much a kernel that does would lose.
        let (joins, kernels): (Vec<Candidate>, Vec<Candidate>) = found
            .into_iter()
            .partition(|candidate| self.is_join(root, &candidate.inlined));
        let mut kept = undominated(kernels);
        kept.extend(undominated(joins));
        kept
    }

    /// A product that also writes the statistics of its rows that others read: they are taken
    /// while the rows pass by, whether or not the product needs them itself.
    fn with_statistics(&self, candidate: &Candidate) -> Option<Candidate> {
        let kind_of = |tensor: usize| self.net.exprs[candidate.inlined[&tensor]].kind;
        let mut tensors = candidate.inlined.keys().copied();
        let product = tensors.find(|&tensor| kind_of(tensor) == TileKind::Dot)?;
        let operands = &self.net.exprs[candidate.inlined[&product]].operands;
        let rows = operands.first()?.as_ref()?.tensor;
        let statistics = self.reductions.get(&rows)?;
        let mut inlined = candidate.inlined.clone();
        for &(tensor, expr) in statistics {
            inlined.entry(tensor).or_insert(expr);
        }
        let root = candidate.root;
        let shape = self.allowed(root, &inlined)?;
        let mut outputs: Vec<usize> = statistics.iter().map(|(tensor, _)| *tensor).collect();
        outputs.extend(&candidate.outputs);
        let is_last = outputs.iter().all(|&output| output <= root);
        is_last.then(|| self.candidate(root, outputs, inlined, shape.kind, &shape.after))?
    }

    /// Cones of one expression of the root, fewest exceptions first.
    fn vary(&self, root: usize, expr: usize, n_wanted: usize, found: &mut Vec<Candidate>) {
        let mut tried: FxHashSet<Exceptions> = FxHashSet::from_iter([Exceptions::new()]);
        let mut open = vec![Exceptions::new()];
        let (mut n_found, mut n_inlined) = (0, 0);
        let mut known = Known::default();
        for _ in 0..=MAX_EXCEPTIONS {
            let mut deeper = Vec::new();
            for exceptions in open {
                if n_found >= n_wanted || n_inlined >= MAX_INLINED {
                    return;
                }
                let Some(grown) = self.grow(root, expr, &exceptions, &mut known) else {
                    continue;
                };
                n_inlined += grown.inlined.len();
                for (tensor, others) in self.by_interest(&grown) {
                    for other in others {
                        let next = with_exception(&exceptions, tensor, other);
                        if tried.insert(next.clone()) {
                            deeper.push(next);
                        }
                    }
                }
                n_found += usize::from(self.add(root, grown, found));
            }
            open = deeper;
        }
    }

    /// Tensors to make exceptions at, those first where the choice matters most: values
    /// that others read too, and those that quantisers make, then main loops; any other private
    /// map is best inlined anyway. A reshape always is: it costs nothing, and what it relabels is
    /// a choice of its own.
    fn by_interest(&self, grown: &Grown) -> Vec<(usize, Vec<usize>)> {
        let mut choices: Vec<(usize, Vec<usize>)> = grown
            .choices
            .iter()
            .map(|(tensor, legal)| {
                let taken = grown.inlined[tensor];
                let others = legal.iter().copied().filter(|&expr| expr != taken);
                let none = (self.net.exprs[taken].op != RELABELLING).then_some(usize::MAX);
                (*tensor, others.chain(none).collect())
            })
            .collect();
        choices.sort_by_key(|(tensor, others)| {
            let shared =
                self.net.tensors[*tensor].consumers > 1 || self.is_quantised(*tensor, grown.inlined[tensor]);
            let heavy = grown.shape.after.contains(tensor);
            let grade = match (shared, heavy || others.len() > 1) {
                (true, _) => 0,
                (false, true) => 1,
                (false, false) => 2,
            };
            (grade, std::cmp::Reverse(*tensor))
        });
        choices
    }

    /// Whether `expr` makes bytes out of something wider: what is stored in a quantised network.
    fn is_quantised(&self, tensor: usize, expr: usize) -> bool {
        let bytes = |tensor: usize| self.net.tensors[tensor].ty.dtype.size_bytes();
        let is_byte = bytes(tensor) == 1 && self.net.tensors[tensor].ty.dtype != DType::Bool;
        is_byte
            && self.net.exprs[expr]
                .uses()
                .any(|operand| bytes(operand.tensor) > 1)
    }

    /// The op alone.
    fn single(&self, root: usize, expr: usize) -> Option<Candidate> {
        let inlined = BTreeMap::from([(root, expr)]);
        let shape = self.cone(root, &inlined).classify();
        let kind = shape.as_ref().map_or(RegionKind::Other, |shape| shape.kind);
        let once = BTreeSet::from([root]);
        self.candidate(root, self.net.exprs[expr].results.clone(), inlined, kind, &once)
    }

    /// A kernel that was a candidate in another shape.
    fn remade(&self, kernel: &Candidate) -> Option<Candidate> {
        let Candidate {
            root,
            outputs,
            inlined,
            ..
        } = kernel;
        if inlined.len() == 1 {
            let alone = self.single(*root, inlined[root]);
            return alone.filter(|own| own.outputs == *outputs);
        }
        let shape = self.allowed(*root, inlined)?;
        self.candidate(*root, outputs.clone(), inlined.clone(), shape.kind, &shape.after)
    }

    fn add(&self, root: usize, grown: Grown, found: &mut Vec<Candidate>) -> bool {
        if found.iter().any(|known| known.inlined == grown.inlined) {
            return false;
        }
        let outputs = self.net.exprs[grown.inlined[&root]].results.clone();
        let made = self.candidate(root, outputs, grown.inlined, grown.shape.kind, &grown.shape.after);
        let is_new = made.is_some();
        found.extend(made);
        is_new
    }

    fn is_join(&self, root: usize, inlined: &BTreeMap<usize, usize>) -> bool {
        inlined
            .get(&root)
            .is_some_and(|&expr| self.net.exprs[expr].op == JOIN)
    }

    /// The candidate of a cone; `None` where it reads what is only computed later.
    fn candidate(
        &self,
        root: usize,
        mut outputs: Vec<usize>,
        inlined: BTreeMap<usize, usize>,
        kind: RegionKind,
        once: &BTreeSet<usize>,
    ) -> Option<Candidate> {
        outputs.sort_unstable();
        outputs.dedup();
        let first = outputs[0];
        let mut needs: Vec<usize> = Vec::new();
        for &expr in inlined.values() {
            let read = self.net.exprs[expr].uses().map(|operand| operand.tensor);
            needs.extend(
                read.filter(|tensor| !inlined.contains_key(tensor) && self.net.tensors[*tensor].is_device()),
            );
        }
        needs.sort_unstable();
        needs.dedup();
        if needs.last().is_some_and(|&last| last >= first) {
            return None;
        }
        let (bound_us, bytes) = if self.is_join(root, &inlined) {
            (placing_us(self.net, root, &inlined, self.device)?, 0.0)
        } else {
            let once = |tensor| once.contains(&tensor);
            let work = work_of(self.net, &outputs, &inlined, once, self.device);
            (
                work.bound_us(self.device) + selecting_us(self.net, &inlined),
                work.bytes,
            )
        };
        Some(Candidate {
            kind,
            root,
            outputs,
            needs,
            inlined,
            bound_us,
            bytes,
        })
    }

    /// The largest legal cone under the exceptions.
    fn grow(&self, root: usize, expr: usize, exceptions: &Exceptions, known: &mut Known) -> Option<Grown> {
        let mut inlined = BTreeMap::from([(root, expr)]);
        let alone = self.cone(root, &inlined);
        let mut shape = Rc::new(alone.classify()?);
        let mut choices = Vec::new();
        // Reads of tensors that are still to be decided, highest first.
        let mut open: BTreeMap<usize, Vec<&Use>> = BTreeMap::new();
        self.open(expr, &mut open);
        while let Some((tensor, uses)) = open.pop_last() {
            if tensor >= root || !self.net.tensors[tensor].is_device() {
                continue;
            }
            let legal = self.legal(root, tensor, &uses, &mut inlined, known);
            let exception = exceptions.iter().find(|(own, _)| *own == tensor);
            let taken = match exception {
                None => legal
                    .first()
                    .filter(|(expr, _)| !self.is_better_stored(tensor, *expr, &inlined)),
                Some((_, wanted)) => legal.iter().find(|(expr, _)| expr == wanted),
            };
            if let Some((taken, new_shape)) = taken {
                inlined.insert(tensor, *taken);
                shape = Rc::clone(new_shape);
                self.open(*taken, &mut open);
                choices.push((tensor, legal.iter().map(|(expr, _)| *expr).collect()));
            }
        }
        Some(Grown {
            inlined,
            shape,
            choices,
        })
    }

    /// Whether a product would gather the transposed `tensor` in pieces, although the loop that computes it for
    /// no one else can store it in this order.
    fn is_better_stored(&self, tensor: usize, expr: usize, inlined: &BTreeMap<usize, usize>) -> bool {
        let from = self.net.exprs[expr].uses().next().map(|operand| operand.tensor);
        let Some(from) = from.filter(|_| self.net.exprs[expr].op == "transpose") else {
            return false;
        };
        let is_loop = |&expr: &usize| {
            let kind = self.net.exprs[expr].kind;
            matches!(kind, TileKind::Dot | TileKind::Window | TileKind::Other)
        };
        let own = &self.net.tensors[from];
        let mut with = inlined.clone();
        with.insert(tensor, expr);
        own.consumers == 1 && own.exprs.iter().all(is_loop) && !gathered(self.net, &with).is_empty()
    }

    fn open<'n>(&'n self, expr: usize, into: &mut BTreeMap<usize, Vec<&'n Use>>) {
        for operand in self.net.exprs[expr].uses() {
            into.entry(operand.tensor).or_default().push(operand);
        }
    }

    /// Expressions that may be inlined for all reads of `tensor` in the cone, and what the
    /// cone becomes with each.
    fn legal(
        &self,
        root: usize,
        tensor: usize,
        uses: &[&Use],
        inlined: &mut BTreeMap<usize, usize>,
        known: &mut Known,
    ) -> Vec<(usize, Rc<Shape>)> {
        let mut legal = Vec::new();
        for &expr in &self.net.tensors[tensor].exprs {
            let fused = uses.iter().all(|operand| operand.inline.contains(&expr));
            if !fused || self.net.exprs[expr].results.len() > 1 {
                continue;
            }
            inlined.insert(tensor, expr);
            if !known.contains_key(inlined) {
                known.insert(inlined.clone(), self.allowed(root, inlined).map(Rc::new));
            }
            legal.extend(known[inlined].iter().map(|shape| (expr, Rc::clone(shape))));
            inlined.remove(&tensor);
        }
        legal
    }

    fn cone<'c>(&'c self, root: usize, inlined: &'c BTreeMap<usize, usize>) -> Cone<'c> {
        Cone {
            net: self.net,
            device: self.device,
            root,
            inlined,
        }
    }

    /// What the cone is, where it may be a kernel.
    fn allowed(&self, root: usize, inlined: &BTreeMap<usize, usize>) -> Option<Shape> {
        let shape = self.cone(root, inlined).classify()?;
        self.limits.allow(self.net, inlined, &shape).then_some(shape)
    }
}

/// Candidates without those that cost no less than another that needs no more.
fn undominated(mut found: Vec<Candidate>) -> Vec<Candidate> {
    found.sort_by(|a, b| {
        let cost = a.bound_us.total_cmp(&b.bound_us);
        cost.then_with(|| a.needs.cmp(&b.needs))
            .then_with(|| a.inlined.cmp(&b.inlined))
    });
    let mut kept: Vec<Candidate> = Vec::new();
    for candidate in found {
        let is_worse = kept.iter().any(|known| {
            known.outputs == candidate.outputs
                && known
                    .needs
                    .iter()
                    .all(|need| candidate.needs.binary_search(need).is_ok())
        });
        if !is_worse {
            kept.push(candidate);
        }
    }
    kept
}

/// Sum of the bytes that a set of tensors takes.
pub fn bytes_of(net: &Net, tensors: &[usize]) -> f64 {
    tensors
        .iter()
        .map(|&tensor| as_f64(net.tensors[tensor].n_bytes()))
        .sum()
}
