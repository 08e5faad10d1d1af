//! Device code that never varies, as text that goes before a kernel.

use std::sync::Arc;

/// A file of `templates/device`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    pub name: &'static str,
    pub text: &'static str,
}

/// Types and everything that needs assembly. Tests replace this section to run on the CPU.
pub const PRELUDE: Section = Section {
    name: "prelude",
    text: include_str!("../../templates/device/prelude.cuh"),
};
pub const CONVERT: Section = Section {
    name: "convert",
    text: include_str!("../../templates/device/convert.cuh"),
};
pub const SCALAR: Section = Section {
    name: "scalar",
    text: include_str!("../../templates/device/scalar.cuh"),
};
pub const INDEX: Section = Section {
    name: "index",
    text: include_str!("../../templates/device/index.cuh"),
};
pub const VECTOR: Section = Section {
    name: "vector",
    text: include_str!("../../templates/device/vector.cuh"),
};
pub const REDUCE: Section = Section {
    name: "reduce",
    text: include_str!("../../templates/device/reduce.cuh"),
};
/// Which tile a block computes, and how tiles lie in shared memory.
pub const TILE: Section = Section {
    name: "tile",
    text: include_str!("../../templates/device/tile.cuh"),
};
pub const SPLIT: Section = Section {
    name: "split",
    text: include_str!("../../templates/device/split.cuh"),
};
/// Blocks that read each other's shared memory.
pub const CLUSTER: Section = Section {
    name: "cluster",
    text: include_str!("../../templates/device/cluster.cuh"),
};
/// Matrix instructions.
pub const MMA: Section = Section {
    name: "mma",
    text: include_str!("../../templates/device/mma.cuh"),
};
pub const ASYNC_COPY: Section = Section {
    name: "async_copy",
    text: include_str!("../../templates/device/async_copy.cuh"),
};
/// Barriers in shared memory with phases.
pub const MBARRIER: Section = Section {
    name: "mbarrier",
    text: include_str!("../../templates/device/mbarrier.cuh"),
};
pub const TENSOR_COPY: Section = Section {
    name: "tensor_copy",
    text: include_str!("../../templates/device/tensor_copy.cuh"),
};
/// Stores of results that caches are not to keep.
pub const STREAM: Section = Section {
    name: "stream",
    text: include_str!("../../templates/device/stream.cuh"),
};
/// Matrices of results from registers to shared memory.
pub const MATRIX_STORE: Section = Section {
    name: "matrix_store",
    text: include_str!("../../templates/device/matrix_store.cuh"),
};
/// Matrix instructions of groups of warps.
pub const WGMMA: Section = Section {
    name: "wgmma",
    text: include_str!("../../templates/device/wgmma.cuh"),
};
/// Operands of matrix instructions out of shared memory.
pub const FRAGMENT: Section = Section {
    name: "fragment",
    text: include_str!("../../templates/device/fragment.cuh"),
};

pub const ATTENTION: Section = Section {
    name: "attention",
    text: include_str!("../../templates/device/attention.cuh"),
};
/// Boxes of images.
pub const BOXES: Section = Section {
    name: "boxes",
    text: include_str!("../../templates/device/boxes.cuh"),
};
pub const WINDOW: Section = Section {
    name: "window",
    text: include_str!("../../templates/device/window.cuh"),
};

/// What every kernel of this crate begins with.
pub const COMMON: &[Section] = &[PRELUDE, CONVERT, SCALAR, INDEX, VECTOR, REDUCE];

/// `sections` in order and then `kernel`, each under a line that names it.
pub fn translation_unit(sections: &[Section], kernel: &str) -> Arc<str> {
    let mut text = String::new();
    for section in sections {
        text.push_str(&banner(section.name));
        text.push_str(section.text);
        text.push('\n');
    }
    text.push_str(&banner("kernel"));
    text.push_str(kernel);
    text.into()
}

/// The line above a section.
pub fn banner(name: &str) -> String {
    format!("// ==== {name}\n")
}

/// The kernel itself, without the sections before it.
pub fn kernel_part(text: &str) -> &str {
    text.split_once(&banner("kernel"))
        .map_or(text, |(_, kernel)| kernel)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_follows_its_sections() {
        let text = translation_unit(COMMON, "void f();\n");
        assert_eq!(kernel_part(&text), "void f();\n");
        assert!(text.find(&banner("convert")) < text.find(&banner("scalar")));
    }
}
