//! The parts of an engine that programs share: weights, cubins and sources, each stored once.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use super::Sharing;
use super::lifetimes::padded;
use crate::engine::blob_table;
use crate::engine::shared::extents::Extents;
use crate::engine::{Content, Engine, Header, Memory, Place, Profile, Program};
use crate::ir::HostTensor;

/// What an engine says of itself.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// Name of the model's graph.
    pub model: String,
    pub precision: String,
    /// Version of NVRTC.
    pub nvrtc: String,
    /// Most bytes of device memory of an execution.
    pub max_memory: Option<usize>,
    /// Most streams of an execution beside the caller's.
    pub max_aux_streams: u32,
    /// Execution contexts that are to execute at the same time.
    pub n_contexts: usize,
}

/// An engine under construction.
#[derive(Default)]
pub struct Assembly {
    weights: Vec<u8>,
    places: HashMap<[u8; 32], Place>,
    /// Of long ones, by how they begin.
    beginnings: HashMap<[u8; BEGINNING], Vec<Place>>,
    /// Places of tensors that were seen before, by the address of their bytes, which stay there.
    seen: HashMap<usize, (HostTensor, Place)>,
    blobs: Vec<Vec<u8>>,
    numbers: HashMap<[u8; 32], usize>,
    profiles: Vec<Profile>,
    programs: Vec<Program>,
    /// Programs that are not listed.
    sharing: Option<Sharing>,
}

/// Number of the blob of all weights.
const WEIGHTS: usize = 0;
/// Bytes by which weights are told that may be the beginning of another.
const BEGINNING: usize = 256;
/// Shorter weights have places of their own.
const LONG: usize = 1 << 12;

impl Assembly {
    pub fn new() -> Self {
        Assembly::default()
    }

    /// Adds weights, the longest first, so that those that others begin with lie in these: what a model computes of a
    /// sequence's positions alone is, for a short one, the beginning of what it is for a long one.
    pub fn weights_of_many<'a>(&mut self, all: impl Iterator<Item = &'a HostTensor>) {
        let different: HashMap<usize, &HostTensor> = all.map(|data| (data.address(), data)).collect();
        let mut different: Vec<&HostTensor> = different.into_values().collect();
        different.sort_by(|a, b| {
            let longer = b.n_bytes().cmp(&a.n_bytes());
            longer.then_with(|| a.bytes().cmp(b.bytes()))
        });
        for data in different {
            self.weight(data);
        }
    }

    /// Where the bytes of `data` are among the weights.
    pub fn weight(&mut self, data: &HostTensor) -> Place {
        let address = data.address();
        let of_these_bytes =
            |(known, place): &(HostTensor, Place)| (known.ty() == data.ty()).then_some(*place);
        if let Some(place) = self.seen.get(&address).and_then(of_these_bytes) {
            return place;
        }
        let place = self.weight_by_digest(data.bytes());
        self.seen.insert(address, (data.clone(), place));
        place
    }

    fn weight_by_digest(&mut self, bytes: &[u8]) -> Place {
        let digest: [u8; 32] = Sha256::digest(bytes).into();
        if let Some(place) = self.places.get(&digest) {
            return *place;
        }
        let place = self.begun(bytes).unwrap_or_else(|| self.appended(bytes));
        self.places.insert(digest, place);
        place
    }

    /// Where a longer weight begins with these bytes.
    fn begun(&self, bytes: &[u8]) -> Option<Place> {
        let candidates = self.beginnings.get(&beginning(bytes)?)?;
        let begins = |own: &&Place| self.weights[own.offset..own.offset + own.len].starts_with(bytes);
        let own = candidates.iter().find(begins)?;
        Some(Place {
            len: bytes.len(),
            ..*own
        })
    }

    fn appended(&mut self, bytes: &[u8]) -> Place {
        let place = Place {
            memory: Memory::Weights,
            offset: self.weights.len(),
            len: bytes.len(),
        };
        self.weights.extend_from_slice(bytes);
        self.weights.resize(padded(self.weights.len()), 0);
        if let Some(beginning) = beginning(bytes) {
            self.beginnings.entry(beginning).or_default().push(place);
        }
        place
    }

    /// Number of a blob with this content.
    pub fn blob(&mut self, content: &[u8]) -> usize {
        let digest: [u8; 32] = Sha256::digest(content).into();
        *self.numbers.entry(digest).or_insert_with(|| {
            self.blobs.push(content.to_vec());
            WEIGHTS + self.blobs.len()
        })
    }

    /// Bytes of all weights so far.
    pub fn weights_bytes(&self) -> usize {
        self.weights.len()
    }

    /// Lists a program, and its profile where that is not listed yet.
    pub fn add(&mut self, profile: Profile, program: Program) {
        let known = self.profiles.iter().position(|own| *own == profile);
        let profile = known.unwrap_or_else(|| {
            self.profiles.push(profile);
            self.profiles.len() - 1
        });
        self.programs.push(Program { profile, ..program });
    }

    /// Has programs that are [`shared`](Assembly::share) be those of a range.
    pub fn share_in(&mut self, extents: Extents) {
        self.sharing = Some(Sharing::of(extents));
    }

    /// Adds a program whose kernels others use, too: of a range, the one of its next shape; else it is listed.
    pub fn share(&mut self, profile: Profile, program: Program) {
        match &mut self.sharing {
            Some(sharing) => sharing.add(&profile, program),
            None => self.add(profile, program),
        }
    }

    /// The whole engine.
    pub fn finish(self, identity: Identity) -> Engine {
        let contents = std::iter::once(self.weights).chain(self.blobs);
        let blobs: Vec<Content> = contents.map(Content::from).collect();
        Engine {
            header: Header {
                producer: concat!("rtrt-codegen ", env!("CARGO_PKG_VERSION")).to_owned(),
                model: identity.model,
                precision: identity.precision,
                nvrtc: identity.nvrtc,
                profiles: self.profiles,
                weights: WEIGHTS,
                programs: self.programs,
                blobs: blob_table(&blobs),
                max_memory: identity.max_memory,
                max_aux_streams: Some(identity.max_aux_streams),
                n_contexts: Some(identity.n_contexts).filter(|&n| n > 1),
                stripped: None,
                told: Vec::new(),
                shared: self.sharing.map(Sharing::finish),
            },
            blobs,
        }
    }
}

/// How a long weight begins.
fn beginning(bytes: &[u8]) -> Option<[u8; BEGINNING]> {
    let long = bytes.len() >= LONG;
    bytes.first_chunk().filter(|_| long).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(rows: usize) -> HostTensor {
        let mut value = 0.0;
        let values: Vec<f32> = std::iter::repeat_with(|| {
            value += 1.0;
            value
        })
        .take(rows * 256)
        .collect();
        HostTensor::from_f32(&[rows, 256], &values)
    }

    #[test]
    fn weights_lie_in_longer_ones_that_begin_with_them() {
        let all = [
            numbers(4),
            numbers(9),
            HostTensor::zeros(crate::ir::DType::F32, &[5, 256]),
            numbers(7),
        ];
        let mut assembly = Assembly::new();
        assembly.weights_of_many(all.iter());
        assert_eq!(assembly.weights_bytes(), (9 + 5) * 1024);
        for data in &all {
            let place = assembly.weight(data);
            assert_eq!(
                &assembly.weights[place.offset..place.offset + place.len],
                data.bytes()
            );
        }
        // One that comes later and is longer has a place of its own.
        let place = assembly.weight(&numbers(10));
        assert_eq!((place.offset, place.len), (14 * 1024, 10 * 1024));
    }
}
