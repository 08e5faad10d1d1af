//! Blobs once kernels were replaced.

use std::collections::HashMap;

use super::blobs::completed_table;
use super::{Blob, Content, Engine, Header, Kernel, Problem};

/// `engine` with the blobs that it uses alone, each once, in the order in which a compiler adds them: the
/// weights, what programs are made of one after the other, and PTX.
pub fn compacted(mut engine: Engine) -> Engine {
    let mut blobs = Blobs {
        old: std::mem::take(&mut engine.blobs),
        old_table: std::mem::take(&mut engine.header.blobs),
        new: Vec::new(),
        known: Vec::new(),
        by_content: HashMap::new(),
    };
    blobs.push(engine.header.weights);
    engine.header.weights = 0;
    let Header { programs, shared, .. } = &mut engine.header;
    for program in programs {
        blobs.renumber(&mut program.kernels, &mut program.problems);
    }
    for own in shared.iter_mut().flat_map(|shared| &mut shared.archs) {
        blobs.renumber(own.kernels.iter_mut().map(|shared| &mut shared.kernel), &mut []);
    }
    let kernels = engine.header.kernels_mut().flat_map(|(_, kernels)| kernels);
    for ptx in kernels.filter_map(|kernel| kernel.ptx.as_mut()) {
        *ptx = blobs.take(*ptx);
    }
    engine.header.blobs = completed_table(&blobs.new, blobs.known);
    engine.blobs = blobs.new;
    engine
}

struct Blobs {
    old: Vec<Content>,
    /// Of those that the engine had when its table was made, whose digests are not computed again.
    old_table: Vec<Blob>,
    new: Vec<Content>,
    known: Vec<Option<Blob>>,
    /// New numbers.
    by_content: HashMap<Vec<u8>, usize>,
}

impl Blobs {
    fn renumber<'a>(&mut self, kernels: impl IntoIterator<Item = &'a mut Kernel>, problems: &mut [Problem]) {
        for kernel in kernels {
            kernel.cubin = self.take(kernel.cubin);
            kernel.source = self.take(kernel.source);
        }
        for problem in problems {
            problem.graph = self.take(problem.graph);
        }
    }

    /// The new number of a blob.
    fn take(&mut self, old: usize) -> usize {
        let content = self.old[old].to_vec();
        if let Some(&number) = self.by_content.get(&content) {
            return number;
        }
        let number = self.push(old);
        self.by_content.insert(content, number);
        number
    }

    fn push(&mut self, old: usize) -> usize {
        self.new.push(self.old[old].clone());
        self.known.push(self.old_table.get(old).cloned());
        self.new.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::super::blob_table;
    use super::super::tests::example;
    use super::super::validate::validate;
    use super::*;

    #[test]
    fn what_is_unused_or_there_twice_goes() {
        let engine = example(&["sm_87", "sm_90a"]);
        assert_eq!(compacted(engine.clone()), engine);
        let mut grown = engine.clone();
        grown.blobs.push(Content::from(b"nobody's".to_vec()));
        grown.blobs.push(grown.blobs[1].clone());
        grown.header.programs[1].kernels[0].cubin = 4;
        grown.header.blobs = blob_table(&grown.blobs);
        validate(&grown).unwrap();
        assert_eq!(compacted(grown), engine);
    }
}
