//! Small regions, each with one variant of one template that has the paths to plant faults in.

use rtrt_codegen::ir::{Attr, Attrs, DType, HostTensor};
use rtrt_codegen::kernel::Arch;
use rtrt_codegen::rewrite::RegionKind;

use crate::byte_products;
use crate::packed_products;
use crate::products::{self, CONV, Conv, Epilogue, HandedOver, Layout};
use crate::regions::{self, Build, Problem, int, ints};

/// A region, and which of its variants to take: the first of `template` whose knobs lie in
/// these ranges.
pub struct Bed {
    pub name: &'static str,
    pub template: &'static str,
    pub arch: Arch,
    pub knobs: &'static [(&'static str, i64, i64)],
    pub problem: fn() -> Problem,
    /// Blocks at most, where those that there are take as many tiles as are left.
    pub most_blocks: u32,
    /// Widens the tolerance, for long sums.
    pub slack: f64,
}

const SM_75: Arch = Arch {
    sm: 75,
    specific: false,
};
const SM_90: Arch = Arch {
    sm: 90,
    specific: true,
};

fn product(dtype: DType, m: usize, n: usize, k: usize) -> Problem {
    let plain = Layout::Plain;
    products::matmul(
        dtype,
        (&[m, k], plain),
        (&[k, n], plain),
        Epilogue::BiasResidualRelu,
    )
}

/// More tiles than there are blocks.
fn many_products() -> Problem {
    let turned = Layout::Turned;
    products::matmul(
        DType::F16,
        (&[280, 24, 392], turned),
        (&[280, 392, 16], turned),
        Epilogue::BiasResidualRelu,
    )
}

fn attention(dtype: DType, queries: usize, keys: usize, depth: usize, causal_offset: Option<i64>) -> Problem {
    attentions([1, 2], dtype, [queries, keys, depth], causal_offset)
}

/// Of some batches and heads.
fn attentions(
    [batch, heads]: [usize; 2],
    dtype: DType,
    [queries, keys, depth]: [usize; 3],
    causal_offset: Option<i64>,
) -> Problem {
    let mut b = Build::new(61);
    let operands = [
        b.input(dtype, &[batch, heads, queries, depth]),
        b.input(dtype, &[batch, heads, keys, depth]),
        b.input(dtype, &[batch, heads, keys, depth]),
    ];
    let attrs = Attrs::new()
        .with("scale", Attr::Float(0.1))
        .with("causal", Attr::Int(i64::from(causal_offset.is_some())))
        .with("causal_offset", Attr::Int(causal_offset.unwrap_or(0)))
        .with("softcap", Attr::Float(0.0));
    let z = b.with("attention", &operands, attrs);
    b.done("attention", RegionKind::Attention, &[z])
}

fn shared_columns() -> Problem {
    regions::shared_columns().swap_remove(0)
}

fn softmax(dims: &[usize], axis: i64, kind: RegionKind) -> Problem {
    let mut b = Build::new(21);
    let x = b.input(DType::F32, dims);
    let z = b.with("softmax", &[x], int("axis", axis));
    b.done("softmax", kind, &[z])
}

fn arg_max() -> Problem {
    let mut b = Build::new(33);
    let ones: Vec<i64> = (0..3 * 700).map(|i| i64::from(i % 5 == 2)).collect();
    let x = b.given(HostTensor::from_i64(&[3, 700], &ones));
    let attrs = int("axis", 1).with("last", Attr::Int(0));
    let z = b.with("arg_max", &[x], attrs);
    b.done("arg_max", RegionKind::Reduce, &[z])
}

fn chain(dims: &[usize]) -> Problem {
    let mut b = Build::new(1);
    let (x, y) = (b.input(DType::F32, dims), b.input(DType::F32, dims));
    let sum = b.op("add", &[x, y]);
    let z = b.op("relu", &[sum]);
    b.done("add relu", RegionKind::Pointwise, &[z])
}

fn turned() -> Problem {
    let mut b = Build::new(41);
    let x = b.input(DType::F32, &[1, 70, 33]);
    let z = b.with("transpose", &[x], ints("perm", &[0, 2, 1]));
    b.done("transpose", RegionKind::Pointwise, &[z])
}

fn window(channels: usize, group: usize) -> Problem {
    let mut b = Build::new(70);
    let x = b.input(DType::F32, &[1, 9, 11, channels]);
    let filter = b.input(DType::F32, &[channels, 3, 3, channels / group]);
    let bias = b.input(DType::F32, &[channels]);
    let attrs = ints("strides", &[1, 1])
        .with("pads", Attr::Ints(vec![1; 4]))
        .with("dilations", Attr::Ints(vec![1, 1]))
        .with("group", Attr::Int(i64::try_from(group).unwrap()));
    let y = b.with("conv_nhwc", &[x, filter, bias], attrs);
    b.done("window", RegionKind::Window, &[y])
}

/// More tiles than blocks, of windows that end beside them.
fn colours() -> Problem {
    coloured("colours", [9, 37, 75], 1)
}

/// Windows that begin 16 bytes apart.
fn colours_apart() -> Problem {
    coloured("colours apart", [3, 37, 75], 2)
}

fn coloured(label: &str, [batch, height, width]: [usize; 3], stride: i64) -> Problem {
    let mut b = Build::new(72);
    let x = b.input(DType::F16, &[batch, height, width, 3]);
    let filter = b.input(DType::F16, &[40, 5, 3, 3]);
    let bias = b.input(DType::F16, &[40]);
    let attrs = ints("strides", &[stride, stride])
        .with("pads", Attr::Ints(vec![2, 1, 2, 1]))
        .with("dilations", Attr::Ints(vec![1, 1]))
        .with("group", Attr::Int(1));
    let y = b.with("conv_nhwc", &[x, filter, bias], attrs);
    b.done(label, RegionKind::Window, &[y])
}

pub const BEDS: &[Bed] = &[
    Bed {
        name: "best boxes",
        template: "best_boxes",
        arch: SM_90,
        knobs: &[("threads", 128, 128)],
        problem: || regions::best_boxes(DType::F32, 300, 2, 200),
        most_blocks: u32::MAX,
        slack: 1.0,
    },
    // More steps than stages, the last of them in the first stage, whose place the sums take.
    Bed {
        name: "mma",
        template: "gemm_mma",
        arch: SM_90,
        knobs: &[
            ("stages", 3, 99),
            ("splits", 1, 1),
            ("tile_k", 64, 64),
            ("tile_n", 32, 64),
        ],
        problem: || product(DType::F16, 40, 72, 936),
        most_blocks: u32::MAX,
        slack: 6.0,
    },
    Bed {
        name: "wgmma",
        template: "gemm_wgmma",
        arch: SM_90,
        knobs: &[
            ("tile_m", 128, 128),
            ("tile_n", 128, 128),
            ("consumers", 2, 2),
            ("splits", 1, 1),
        ],
        problem: || product(DType::F16, 72, 72, 776),
        most_blocks: u32::MAX,
        slack: 8.0,
    },
    Bed {
        name: "wgmma tiles",
        template: "gemm_wgmma",
        arch: SM_90,
        knobs: &[("tile_m", 64, 64), ("tile_n", 64, 64), ("resident", 2, 2)],
        problem: many_products,
        most_blocks: u32::MAX,
        slack: 6.0,
    },
    Bed {
        name: "wgmma direct",
        template: "gemm_wgmma",
        arch: SM_90,
        knobs: &[
            ("tile_m", 64, 64),
            ("tile_n", 128, 128),
            ("resident", 2, 2),
            ("slab", 0, 0),
        ],
        problem: || byte_products::byte_product(DType::I8, DType::F32, &[280, 24, 48], &[280, 48, 80]),
        most_blocks: u32::MAX,
        slack: 1.0,
    },
    Bed {
        name: "wgmma cluster",
        template: "gemm_wgmma",
        arch: SM_90,
        knobs: &[("splits", 2, 99), ("clustered", 1, 1)],
        problem: || product(DType::F16, 40, 72, 776),
        most_blocks: u32::MAX,
        slack: 8.0,
    },
    Bed {
        name: "wgmma narrow",
        template: "gemm_wgmma",
        arch: SM_90,
        knobs: &[
            ("narrow", 1, 1),
            ("turns", 2, 2),
            ("tile_m", 128, 128),
            ("tile_n", 128, 128),
        ],
        problem: || {
            let plain = Layout::Plain;
            products::matmul(
                DType::F16,
                (&[264, 72], plain),
                (&[72, 776], plain),
                Epilogue::BiasGelu,
            )
        },
        most_blocks: 2,
        slack: 8.0,
    },
    // More blocks than are resident at once, which are no clusters.
    Bed {
        name: "wgmma split",
        template: "gemm_wgmma",
        arch: SM_90,
        knobs: &[("splits", 2, 99), ("clustered", 0, 0), ("tile_n", 64, 64)],
        problem: || product(DType::F16, 2408, 72, 392),
        most_blocks: u32::MAX,
        slack: 8.0,
    },
    Bed {
        name: "wgmma turns",
        template: "gemm_wgmma",
        arch: SM_90,
        knobs: &[("turns", 2, 2), ("tile_m", 128, 128), ("tile_n", 128, 128)],
        problem: || product(DType::F16, 296, 296, 456),
        most_blocks: 2,
        slack: 6.0,
    },
    Bed {
        name: "mma strips",
        template: "gemm_mma",
        arch: SM_90,
        knobs: &[("splits", 1, 1), ("tile_n", 64, 64)],
        problem: || products::handing_over(DType::F16, [40, 80, 136], HandedOver::Stored),
        most_blocks: u32::MAX,
        slack: 6.0,
    },
    Bed {
        name: "wgmma strips",
        template: "gemm_wgmma",
        arch: SM_90,
        knobs: &[("splits", 1, 1), ("tile_n", 64, 64)],
        problem: || products::handing_over(DType::F16, [40, 80, 136], HandedOver::Stored),
        most_blocks: u32::MAX,
        slack: 6.0,
    },
    Bed {
        name: "mma parts",
        template: "gemm_mma",
        arch: SM_90,
        knobs: &[("splits", 1, 1)],
        problem: || products::handing_over(DType::F16, [40, 72, 208], HandedOver::Read),
        most_blocks: u32::MAX,
        slack: 6.0,
    },
    Bed {
        name: "wgmma parts",
        template: "gemm_wgmma",
        arch: SM_90,
        knobs: &[("splits", 1, 1)],
        problem: || products::handing_over(DType::F16, [40, 72, 208], HandedOver::Read),
        most_blocks: u32::MAX,
        slack: 6.0,
    },
    Bed {
        name: "wgmma bytes",
        template: "gemm_wgmma",
        arch: SM_90,
        knobs: &[("tile_n", 64, 64), ("splits", 1, 1), ("stages", 2, 6)],
        problem: || byte_products::bytes(DType::F8E4M3, DType::F32).swap_remove(5),
        most_blocks: u32::MAX,
        slack: 1000.0,
    },
    Bed {
        name: "wgmma pixels",
        template: "gemm_wgmma",
        arch: SM_90,
        knobs: &[("splits", 1, 1), ("tile_m", 64, 64)],
        problem: || {
            let shape = Conv {
                stride: 2,
                channels: 72,
                ..CONV
            };
            products::conv(DType::F16, shape, true, Epilogue::Silu)
        },
        most_blocks: u32::MAX,
        slack: 8.0,
    },
    Bed {
        name: "mma split",
        template: "gemm_mma",
        arch: SM_90,
        knobs: &[("splits", 2, 99), ("tile_n", 32, 64)],
        problem: || product(DType::F16, 40, 136, 640),
        most_blocks: u32::MAX,
        slack: 6.0,
    },
    Bed {
        name: "mma without asynchronous copies",
        template: "gemm_mma",
        arch: SM_75,
        knobs: &[("splits", 1, 1)],
        problem: || product(DType::F16, 40, 72, 296),
        most_blocks: u32::MAX,
        slack: 6.0,
    },
    Bed {
        name: "simt",
        template: "gemm_simt",
        arch: SM_90,
        knobs: &[("splits", 1, 1)],
        problem: || product(DType::F32, 37, 70, 70),
        most_blocks: u32::MAX,
        slack: 3.0,
    },
    Bed {
        name: "direct",
        template: "gemm_direct",
        arch: SM_90,
        knobs: &[("chunk", 8, 8), ("width", 4, 8), ("tile_n", 32, 32)],
        problem: || products::thin(DType::F16).swap_remove(1),
        most_blocks: 1,
        slack: 3.0,
    },
    Bed {
        name: "direct along k",
        template: "gemm_direct",
        arch: SM_90,
        knobs: &[("chunk", 8, 8), ("width", 4, 8)],
        problem: || products::thin(DType::F16).swap_remove(2),
        most_blocks: 1,
        slack: 3.0,
    },
    Bed {
        name: "direct windows",
        template: "gemm_direct",
        arch: SM_90,
        knobs: &[("chunk", 8, 8)],
        problem: || products::thin(DType::F16).swap_remove(10),
        most_blocks: 1,
        slack: 3.0,
    },
    Bed {
        name: "gemv",
        template: "gemv",
        arch: SM_90,
        knobs: &[("splits", 1, 1), ("warps_k", 2, 32), ("lanes", 1, 16)],
        problem: || product(DType::F32, 3, 77, 200),
        most_blocks: u32::MAX,
        slack: 6.0,
    },
    Bed {
        name: "gemv by bytes",
        template: "gemv",
        arch: SM_90,
        knobs: &[("splits", 1, 1), ("warps_k", 1, 1), ("unroll", 1, 2)],
        problem: || products::skinny_by_bytes(DType::I8).swap_remove(5),
        most_blocks: u32::MAX,
        slack: 6.0,
    },
    Bed {
        name: "gemv by numbers",
        template: "gemv",
        arch: SM_90,
        knobs: &[("splits", 1, 1), ("unroll", 2, 8)],
        problem: || packed_products::skinny(DType::F32).swap_remove(2),
        most_blocks: u32::MAX,
        slack: 6.0,
    },
    Bed {
        name: "mma by numbers",
        template: "gemm_mma",
        arch: SM_90,
        knobs: &[("splits", 1, 1)],
        problem: || packed_products::tiles(DType::F16).swap_remove(0),
        most_blocks: u32::MAX,
        slack: 6.0,
    },
    Bed {
        name: "gemv split",
        template: "gemv",
        arch: SM_90,
        knobs: &[("splits", 2, 99), ("lanes", 1, 8)],
        problem: || product(DType::F32, 3, 40, 2048),
        most_blocks: u32::MAX,
        slack: 6.0,
    },
    Bed {
        name: "attention mma",
        template: "attention_mma",
        arch: SM_90,
        knobs: &[("key_warps", 2, 2), ("warp_keys", 32, 32)],
        problem: || attention(DType::F16, 33, 150, 64, None),
        most_blocks: u32::MAX,
        slack: 1.0,
    },
    Bed {
        name: "attention wgmma",
        template: "attention_wgmma",
        arch: SM_90,
        knobs: &[("groups", 2, 2), ("tile_keys", 64, 64)],
        problem: || attention(DType::F16, 70, 150, 64, None),
        most_blocks: u32::MAX,
        slack: 1.0,
    },
    Bed {
        name: "attention stream",
        template: "attention_stream",
        arch: SM_90,
        knobs: &[("groups", 2, 2), ("tile_keys", 128, 128), ("stays", 0, 0)],
        problem: || attention(DType::F16, 70, 600, 64, None),
        most_blocks: u32::MAX,
        slack: 1.0,
    },
    Bed {
        name: "attention stream causal",
        template: "attention_stream",
        arch: SM_90,
        knobs: &[("groups", 2, 2), ("tile_keys", 128, 128), ("stays", 0, 0)],
        problem: || attention(DType::F16, 250, 250, 64, Some(0)),
        most_blocks: u32::MAX,
        slack: 1.0,
    },
    Bed {
        name: "attention stream stays",
        template: "attention_stream",
        arch: SM_90,
        knobs: &[
            ("groups", 1, 1),
            ("tile_keys", 64, 64),
            ("resident", 2, 2),
            ("stays", 1, 1),
        ],
        problem: || attentions([133, 2], DType::F16, [40, 40, 64], None),
        most_blocks: u32::MAX,
        slack: 1.0,
    },
    Bed {
        name: "attention mma causal",
        template: "attention_mma",
        arch: SM_90,
        knobs: &[("key_warps", 1, 1), ("row_warps", 1, 1)],
        problem: || attention(DType::F16, 65, 65, 64, Some(0)),
        most_blocks: u32::MAX,
        slack: 1.0,
    },
    Bed {
        name: "attention simt",
        template: "attention_simt",
        arch: SM_90,
        knobs: &[],
        problem: || attention(DType::F32, 33, 150, 20, None),
        most_blocks: u32::MAX,
        slack: 1.0,
    },
    Bed {
        name: "attention decode",
        template: "attention_decode",
        arch: SM_90,
        knobs: &[],
        problem: || attention(DType::F32, 1, 150, 32, None),
        most_blocks: u32::MAX,
        slack: 1.0,
    },
    Bed {
        name: "row per warp",
        template: "row",
        arch: SM_90,
        knobs: &[("threads_per_row", 32, 32)],
        problem: || softmax(&[7, 200], 1, RegionKind::Row),
        most_blocks: u32::MAX,
        slack: 1.0,
    },
    Bed {
        name: "row per block",
        template: "row",
        arch: SM_90,
        knobs: &[("threads_per_row", 64, 1024)],
        problem: || softmax(&[3, 700], 1, RegionKind::Row),
        most_blocks: u32::MAX,
        slack: 1.0,
    },
    Bed {
        name: "arg_max",
        template: "row",
        arch: SM_90,
        knobs: &[("threads_per_row", 64, 1024)],
        problem: arg_max,
        most_blocks: u32::MAX,
        slack: 1.0,
    },
    Bed {
        name: "column",
        template: "column",
        arch: SM_90,
        knobs: &[("slices", 2, 99)],
        problem: || softmax(&[2, 41, 6, 10], 1, RegionKind::Reduce),
        most_blocks: u32::MAX,
        slack: 1.0,
    },
    Bed {
        name: "shared columns",
        template: "column",
        arch: SM_90,
        knobs: &[("slices", 2, 99), ("splits", 2, 99)],
        problem: shared_columns,
        most_blocks: u32::MAX,
        slack: 1.0,
    },
    Bed {
        name: "pointwise",
        template: "pointwise",
        arch: SM_90,
        knobs: &[("unroll", 1, 1)],
        problem: || chain(&[3, 5, 28]),
        most_blocks: u32::MAX,
        slack: 1.0,
    },
    Bed {
        name: "indexed",
        template: "indexed",
        arch: SM_90,
        knobs: &[],
        problem: || chain(&[3, 5, 7]),
        most_blocks: u32::MAX,
        slack: 1.0,
    },
    Bed {
        name: "transpose",
        template: "transpose",
        arch: SM_90,
        knobs: &[],
        problem: turned,
        most_blocks: u32::MAX,
        slack: 1.0,
    },
    Bed {
        name: "squares",
        template: "transpose_block",
        arch: SM_90,
        knobs: &[("width", 8, 8)],
        problem: || regions::turned_vectors().swap_remove(0),
        most_blocks: u32::MAX,
        slack: 1.0,
    },
    Bed {
        name: "colours",
        template: "window_mma",
        arch: SM_75,
        knobs: &[("tile_rows", 8, 8), ("tile_n", 16, 32), ("fragments_m", 1, 1)],
        problem: colours,
        most_blocks: u32::MAX,
        slack: 1.0,
    },
    Bed {
        name: "planes",
        template: "window_planes",
        arch: SM_90,
        knobs: &[("groups", 2, 2), ("resident", 1, 1)],
        problem: || products::near_convolutions(DType::F16).swap_remove(2),
        most_blocks: u32::MAX,
        slack: 6.0,
    },
    Bed {
        name: "colours apart",
        template: "window_wgmma",
        arch: SM_90,
        knobs: &[("groups_down", 2, 2), ("groups_across", 1, 1)],
        problem: colours_apart,
        most_blocks: u32::MAX,
        slack: 1.0,
    },
    Bed {
        name: "strip",
        template: "window_strip",
        arch: SM_90,
        knobs: &[("strip", 2, 99)],
        problem: || window(12, 12),
        most_blocks: u32::MAX,
        slack: 1.0,
    },
    Bed {
        name: "taps",
        template: "window_taps",
        arch: SM_90,
        knobs: &[("n_positions", 2, 99)],
        problem: || window(12, 3),
        most_blocks: u32::MAX,
        slack: 1.0,
    },
];
