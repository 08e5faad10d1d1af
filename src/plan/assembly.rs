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

impl Assembly {
    pub fn new() -> Self {
        Assembly::default()
    }

    /// Where the bytes of `data` are among the weights.
    pub fn weight(&mut self, data: &HostTensor) -> Place {
        let address = data.bytes().as_ptr() as usize;
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
        let place = Place {
            memory: Memory::Weights,
            offset: self.weights.len(),
            len: bytes.len(),
        };
        self.weights.extend_from_slice(bytes);
        self.weights.resize(padded(self.weights.len()), 0);
        self.places.insert(digest, place);
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
