//! Digests of blobs, page by page on all cores.
//!
//! A blob's digest is the SHA-256 of the SHA-256s of its pages of [`PAGE_BYTES`], the last of which may be
//! shorter; an empty blob has none. Weights are one blob of many pages, so that reading an engine takes as
//! long as its bytes divided by the speed of all cores, not of one.

use std::num::NonZero;
use std::ops::Range;
use std::sync::Mutex;
use std::thread;

use sha2::{Digest, Sha256};

pub const PAGE_BYTES: usize = 1 << 20;
/// More threads than this do not read memory faster.
const MAX_THREADS: usize = 16;

/// A SHA-256.
pub type Hash = [u8; 32];

/// Digests of blobs, in their order.
pub fn digests(blobs: &[&[u8]]) -> Vec<Hash> {
    let pages: Vec<&[u8]> = blobs.iter().flat_map(|blob| blob.chunks(PAGE_BYTES)).collect();
    let mut hashes = in_parallel(pages, |page| -> Hash { Sha256::digest(page).into() }).into_iter();
    let of_blob = |blob: &&[u8]| {
        let mut whole = Sha256::new();
        let own = hashes.by_ref().take(blob.len().div_ceil(PAGE_BYTES));
        own.for_each(|hash| whole.update(hash));
        whole.finalize().into()
    };
    blobs.iter().map(of_blob).collect()
}

/// Plain SHA-256s of blobs, as format versions 1 and 2 have them.
pub fn plain_digests(blobs: &[&[u8]]) -> Vec<Hash> {
    in_parallel(blobs.to_vec(), |blob| Sha256::digest(blob).into())
}

/// `span` in pieces of a page.
pub fn pieces(span: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let end = span.end;
    span.step_by(PAGE_BYTES)
        .map(move |start| start..end.min(start + PAGE_BYTES))
}

/// Does `work` for each of `jobs`, each about a page's worth, on all cores; results are in the order of
/// the jobs.
pub fn in_parallel<J: Send, T: Send>(jobs: Vec<J>, work: impl Fn(J) -> T + Sync) -> Vec<T> {
    let n_cores = thread::available_parallelism().map_or(1, NonZero::get);
    let n_helpers = n_cores.min(MAX_THREADS).min(jobs.len()).saturating_sub(1);
    let queue = Mutex::new(jobs.into_iter().enumerate());
    let next = || queue.lock().expect("taking a job does not panic").next();
    let drain = || -> Vec<(usize, T)> {
        std::iter::from_fn(next)
            .map(|(number, job)| (number, work(job)))
            .collect()
    };
    let mut done = thread::scope(|scope| {
        // Where the system has no threads left, fewer do all of it.
        let spawn = |_| thread::Builder::new().spawn_scoped(scope, drain).ok();
        let helpers: Vec<_> = (0..n_helpers).filter_map(spawn).collect();
        let mut done = drain();
        for helper in helpers {
            done.extend(helper.join().expect("work does not panic"));
        }
        done
    });
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_that_of_the_pages() {
        let blob = vec![7; 2 * PAGE_BYTES + 5];
        let mut whole = Sha256::new();
        for page in blob.chunks(PAGE_BYTES) {
            whole.update(Sha256::digest(page));
        }
        let expected: Hash = whole.finalize().into();
        let empty: Hash = Sha256::digest([]).into();
        let small: Hash = Sha256::digest(Sha256::digest([1, 2])).into();
        assert_eq!(digests(&[&blob, &[], &[1, 2]]), [expected, empty, small]);
    }

    #[test]
    fn results_are_in_the_order_of_the_jobs() {
        let jobs: Vec<usize> = (0..1000).collect();
        assert_eq!(in_parallel(jobs.clone(), |job| job), jobs);
        assert!(in_parallel(Vec::<usize>::new(), |job| job).is_empty());
    }

    #[test]
    fn pieces_cover_a_span() {
        let spans: Vec<Range<usize>> = pieces(3..PAGE_BYTES + 5).collect();
        assert_eq!(spans, [3..PAGE_BYTES + 3, PAGE_BYTES + 3..PAGE_BYTES + 5]);
        assert_eq!(pieces(3..3).count(), 0);
    }
}
