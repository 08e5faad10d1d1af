//! The table of blobs that a header holds.

use super::pages::digests;
use super::{ALIGNMENT, Blob, Content};
use crate::hex::hex;

/// Length, offset from the first blob, and digest of each blob; [`write()`] adds the header.
pub fn blob_table(blobs: &[Content]) -> Vec<Blob> {
    completed_table(blobs, vec![None; blobs.len()])
}

/// The same, where some entries are known, but for their offsets.
pub(super) fn completed_table(blobs: &[Content], known: Vec<Option<Blob>>) -> Vec<Blob> {
    let unknown = blobs.iter().zip(&known).filter(|(_, entry)| entry.is_none());
    let slices: Vec<&[u8]> = unknown.map(|(blob, _)| &**blob).collect();
    let mut computed = slices.iter().zip(digests(&slices)).map(|(blob, digest)| Blob {
        offset: 0,
        len: blob.len() as u64,
        sha256: hex(&digest),
    });
    let entries = known.into_iter().map(|entry| entry.or_else(|| computed.next()));
    let mut entries: Vec<Blob> = entries
        .map(|entry| entry.expect("what was unknown is computed"))
        .collect();
    lay_out(&mut entries, |_| true);
    entries
}

/// Places the blobs that are in the file one after the other; the others take no room.
pub(super) fn lay_out(entries: &mut [Blob], is_stored: impl Fn(usize) -> bool) {
    let mut offset = 0u64;
    for (number, entry) in entries.iter_mut().enumerate() {
        entry.offset = offset;
        if is_stored(number) {
            offset = (offset + entry.len).next_multiple_of(ALIGNMENT as u64);
        }
    }
}
