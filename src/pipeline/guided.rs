//! Regions of many shapes from a search for few of them.
//!
//! The ends of a list of shapes are searched, and the middle between two that are cut differently, down to a sixteenth
//! of the list. All other shapes are cut as one of these, by what costs least among those that fit: where one way
//! begins to be worse than the other, or stops being one, needs no search. A shape that none fits is searched, and is
//! then a guide to those that are left.

use rayon::prelude::*;

use super::{Observer, PipelineError};
use crate::rewrite::FusedGraph;

/// Shapes that are searched at a time: each takes much memory for itself while it is.
const SEARCHED_AT_ONCE: usize = 4;
/// Shapes that are cut alike at a time.
const CUT_AT_ONCE: usize = 64;
/// Into how many parts of a list searches look at most.
const PARTS: usize = 16;

/// Ways to the regions of shapes, which are told by their places in a list.
pub trait Ways: Sync {
    /// What a shape that was searched says of others.
    type Guide: Send + Sync;

    /// Those that are best for the shape, and what they say of others.
    ///
    /// # Errors
    /// If there are none.
    fn search(&self, shape: usize) -> Result<(FusedGraph, Self::Guide), PipelineError>;

    /// Those that one of `guides` leads to, if one does.
    ///
    /// # Errors
    /// If a graph or a constant is wrong.
    fn follow(&self, shape: usize, guides: &[Self::Guide]) -> Result<Option<FusedGraph>, PipelineError>;

    /// Whether a shape that was searched, which gave `other`, may as well be cut as `known` says.
    fn serves(&self, known: &Self::Guide, other: &Self::Guide) -> bool;
}

/// What `keep` makes of the regions of `n_shapes` shapes, of which `usual` is the guide from another one; it is given
/// each as it is found.
///
/// # Errors
/// As those of `ways`.
pub fn all_regions<W: Ways, K>(
    ways: &W,
    n_shapes: usize,
    usual: W::Guide,
    keep: &mut dyn FnMut(FusedGraph) -> K,
    observer: &dyn Observer,
) -> Result<Vec<K>, PipelineError> {
    let mut guided = Guided {
        ways,
        guides: vec![usual],
        guide_of: vec![None; n_shapes],
        found: (0..n_shapes).map(|_| None).collect(),
        n_found: 0,
        keep,
        observer,
    };
    guided.search_borders()?;
    guided.follow_all()?;
    Ok(guided.found.into_iter().flatten().collect())
}

struct Guided<'a, W: Ways, K> {
    ways: &'a W,
    /// Each is better than the others in some shape.
    guides: Vec<W::Guide>,
    /// By shape, where it was searched, the guide that it is cut by.
    guide_of: Vec<Option<usize>>,
    found: Vec<Option<K>>,
    n_found: usize,
    keep: &'a mut dyn FnMut(FusedGraph) -> K,
    observer: &'a dyn Observer,
}

impl<W: Ways, K> Guided<'_, W, K> {
    fn search_borders(&mut self) -> Result<(), PipelineError> {
        let Some(last) = self.found.len().checked_sub(1) else {
            return Ok(());
        };
        self.search(&if last > 0 { vec![0, last] } else { vec![0] })?;
        let least = (last / PARTS).max(1);
        let mut spans = vec![(0, last)];
        while !spans.is_empty() {
            spans
                .retain(|&(first, last)| last - first > least && self.guide_of[first] != self.guide_of[last]);
            let middles: Vec<usize> = spans
                .iter()
                .map(|(first, last)| usize::midpoint(*first, *last))
                .collect();
            self.search(&middles)?;
            let halves = spans.iter().zip(middles);
            spans = halves
                .flat_map(|(&(first, last), middle)| [(first, middle), (middle, last)])
                .collect();
        }
        Ok(())
    }

    fn follow_all(&mut self) -> Result<(), PipelineError> {
        let mut left: Vec<usize> = (0..self.found.len())
            .filter(|&shape| self.found[shape].is_none())
            .collect();
        while !left.is_empty() {
            for some in left.chunks(CUT_AT_ONCE) {
                self.follow(some)?;
            }
            left.retain(|&shape| self.found[shape].is_none());
            // From all over the list: what one of them is a guide to is not known.
            let stride = left.len().div_ceil(SEARCHED_AT_ONCE).max(1);
            let some: Vec<usize> = left.iter().copied().step_by(stride).collect();
            self.search(&some)?;
            left.retain(|shape| !some.contains(shape));
        }
        Ok(())
    }

    fn search(&mut self, shapes: &[usize]) -> Result<(), PipelineError> {
        let ways = self.ways;
        for some in shapes.chunks(SEARCHED_AT_ONCE) {
            let searched = some.par_iter().map(|&shape| ways.search(shape));
            let taken: Vec<(FusedGraph, W::Guide)> = searched.collect::<Result<_, _>>()?;
            for (&shape, (fused, guide)) in some.iter().zip(taken) {
                let number = self.number_of(guide);
                tracing::debug!(shape, number, "searched");
                self.guide_of[shape] = Some(number);
                self.put(shape, fused);
            }
        }
        Ok(())
    }

    fn follow(&mut self, shapes: &[usize]) -> Result<(), PipelineError> {
        let (ways, guides) = (self.ways, &self.guides);
        let followed = shapes.par_iter().map(|&shape| ways.follow(shape, guides));
        let regions: Vec<Option<FusedGraph>> = followed.collect::<Result<_, _>>()?;
        for (&shape, fused) in shapes.iter().zip(regions) {
            if let Some(fused) = fused {
                self.put(shape, fused);
            }
        }
        Ok(())
    }

    /// The number of a guide that does as well as this one.
    fn number_of(&mut self, guide: W::Guide) -> usize {
        let known = self.guides.iter().position(|own| self.ways.serves(own, &guide));
        known.unwrap_or_else(|| {
            self.guides.push(guide);
            self.guides.len() - 1
        })
    }

    fn put(&mut self, shape: usize, fused: FusedGraph) {
        self.found[shape] = Some((self.keep)(fused));
        self.n_found += 1;
        self.observer.step(self.n_found, self.found.len());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::pipeline::Silent;

    /// A model whose shapes are best cut in ways that are told by numbers; each way fits shapes that are cut by it.
    struct Numbered {
        best: Vec<usize>,
        searched: Mutex<Vec<usize>>,
    }

    impl Ways for Numbered {
        type Guide = usize;

        fn search(&self, shape: usize) -> Result<(FusedGraph, usize), PipelineError> {
            self.searched.lock().unwrap().push(shape);
            Ok((cut_by(shape, self.best[shape]), self.best[shape]))
        }

        fn follow(&self, shape: usize, guides: &[usize]) -> Result<Option<FusedGraph>, PipelineError> {
            let own = guides.iter().find(|&&guide| guide == self.best[shape]);
            Ok(own.map(|&way| cut_by(shape, way)))
        }

        fn serves(&self, known: &usize, other: &usize) -> bool {
            known == other
        }
    }

    /// Regions that tell the shape and the way.
    fn cut_by(shape: usize, way: usize) -> FusedGraph {
        FusedGraph {
            inputs: vec![(format!("{shape} by {way}"), crate::rewrite::TensorId(0))],
            ..FusedGraph::default()
        }
    }

    /// The shapes that are searched; all become what is best for them.
    fn searched(usual: usize, best: Vec<usize>) -> Vec<usize> {
        let ways = Numbered {
            best,
            searched: Mutex::default(),
        };
        let mut n_kept = 0;
        let mut keep = |fused: FusedGraph| {
            n_kept += 1;
            fused
        };
        let found = all_regions(&ways, ways.best.len(), usual, &mut keep, &Silent).unwrap();
        let told: Vec<String> = found.iter().map(|fused| fused.inputs[0].0.clone()).collect();
        let wanted = ways.best.iter().enumerate();
        let wanted: Vec<String> = wanted.map(|(shape, way)| format!("{shape} by {way}")).collect();
        assert_eq!(told, wanted);
        assert_eq!(n_kept, ways.best.len());
        let mut searched = ways.searched.into_inner().unwrap();
        searched.sort_unstable();
        searched
    }

    #[test]
    fn shapes_that_are_cut_as_the_usual_one_need_no_search_but_at_the_ends() {
        assert_eq!(searched(7, vec![7; 100]), [0, 99]);
        assert_eq!(searched(7, vec![7]), [0]);
        assert_eq!(searched(7, Vec::new()), [0; 0]);
    }

    #[test]
    fn where_a_way_ends_is_looked_for_coarsely() {
        let best = (0..101).map(|shape| usize::from(shape >= 30)).collect();
        // The other shapes between 25 and 31 follow the one or the other.
        assert_eq!(searched(1, best), [0, 25, 31, 37, 50, 100]);
    }

    #[test]
    fn a_shape_that_no_way_fits_is_searched_and_leads_its_like() {
        let mut best = vec![0; 64];
        best[13] = 1;
        assert_eq!(searched(0, best.clone()), [0, 13, 63]);
        best[20..40].fill(2);
        // Of those left, some from all over the list.
        assert!(searched(0, best).len() <= 2 + 4);
    }
}
