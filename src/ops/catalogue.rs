//! Every operator of ONNX's main domain, and which of them the op table imports.
//!
//! The list is data from the ONNX specification: names, the opsets that changed them (negative:
//! the one that took them out) and the kinds of their first operand, or of the first result
//! where there is none. What is supported is read off the op table; `docs/operators.md` is
//! [`page`], which a test compares. An operator that is refused has its reason here.

use std::fmt::Write;

use super::{AttrDefault, InferCtx, Lowering, NEWEST_OPSET, OpDef, lookup_onnx, sized_forms};
use crate::ir::{DType, TensorType};

/// The oldest opset that is listed.
const OLDEST_OPSET: i64 = 6;

/// Operators the importer resolves itself.
const IMPORTED: &[&str] = &["Constant", "Identity"];

const STRINGS: &str = "strings are not supported";
const RANDOM: &str = "its results are random, and an engine gives the same results for the same inputs";

/// Why an operator is refused.
const REFUSED: &[(&str, &str)] = &[
    ("Bernoulli", RANDOM),
    (
        "ImageDecoder",
        "image decoding is not supported; decode before the model runs",
    ),
    ("Multinomial", RANDOM),
    ("RandomNormal", RANDOM),
    ("RandomNormalLike", RANDOM),
    ("RandomUniform", RANDOM),
    ("RandomUniformLike", RANDOM),
    ("RegexFullMatch", STRINGS),
    ("StringConcat", STRINGS),
    ("StringNormalizer", STRINGS),
    ("StringSplit", STRINGS),
];

/// What a user must know of a supported operator.
const RESTRICTIONS: &[(&str, &str)] = &[
    ("AffineGrid", "`size` must be constant to compile"),
    (
        "BitCast",
        "all NaN of a kind narrower than 32 bits become one where compiled",
    ),
    ("BlackmanWindow", "`size` must be constant to compile"),
    ("Col2Im", "shapes must be constant to compile"),
    (
        "ConstantOfShape",
        "to compile, a shape that data decides must have a limit",
    ),
    ("CumProd", "`axis` must be constant to compile"),
    ("CumSum", "`axis` must be constant to compile"),
    (
        "DFT",
        "length and axis must be constant to compile; the matrix of the transform has at most 2^26 elements",
    ),
    ("Det", "up to 64 rows"),
    ("Dropout", "inference only: training mode is refused"),
    (
        "Expand",
        "to compile, a shape that data decides must have a limit",
    ),
    ("HammingWindow", "`size` must be constant to compile"),
    ("HannWindow", "`size` must be constant to compile"),
    (
        "LinearAttention",
        "unrolled: the number of tokens is fixed when compiled",
    ),
    ("MelWeightMatrix", "operands must be constant to compile"),
    (
        "NonMaxSuppression",
        "limits must be constant to compile; up to 65536 boxes of an image",
    ),
    ("OneHot", "the depth must be constant to compile"),
    (
        "Range",
        "to compile, a length that data decides must have a limit; the step must be constant then, and the start of floats",
    ),
    (
        "Reshape",
        "to compile, a shape that data decides must follow from extents of the operand",
    ),
    (
        "RoiAlign",
        "where `sampling_ratio` is 0, regions must be constant to compile",
    ),
    ("Slice", "axes and steps must be constant to compile"),
    ("STFT", "step and frame length must be constant to compile"),
    ("TfIdfVectorizer", "integers only, no strings"),
    (
        "TopK",
        "results are always sorted; takes time with the square of the axis",
    ),
    ("Unique", "slices along an axis are executed by the host"),
];

/// An operator: its name, the opsets that changed it, the kinds it takes.
type Entry = (&'static str, &'static [i64], &'static str);

/// Groups of kinds that are written as one word.
const GROUPS: &[(&str, &[DType])] = &[
    ("float", &[DType::F64, DType::F32, DType::F16]),
    ("bf16", &[DType::BF16]),
    (
        "f8",
        &[DType::F8E4M3, DType::F8E4M3Fnuz, DType::F8E5M2, DType::F8E5M2Fnuz],
    ),
    ("f8e8m0", &[DType::F8E8M0]),
    ("f4", &[DType::F4E2M1]),
    ("int", &[DType::I64, DType::I32, DType::I16, DType::I8]),
    ("uint", &[DType::U64, DType::U32, DType::U16, DType::U8]),
    ("int4", &[DType::I4, DType::U4]),
    ("int2", &[DType::I2, DType::U2]),
    ("bool", &[DType::Bool]),
];

/// Why the operator cannot be imported at this opset.
pub fn refusal(domain: &str, name: &str, opset: i64) -> String {
    match domain {
        "" => main_refusal(name, opset),
        "ai.onnx.ml" => "classical machine learning is not supported".to_owned(),
        "ai.onnx.preview.training" | "ai.onnx.training" => "training is not supported".to_owned(),
        "ai.onnx.preview" => "preview operators are not supported".to_owned(),
        _ => "this operator is not known".to_owned(),
    }
}

fn main_refusal(name: &str, opset: i64) -> String {
    if let Some((_, reason)) = REFUSED.iter().find(|(own, _)| *own == name) {
        return (*reason).to_owned();
    }
    let Some((_, versions, _)) = OPERATORS.iter().find(|(own, ..)| *own == name) else {
        return "this operator is not known".to_owned();
    };
    match versions.first() {
        Some(&first) if first > opset => format!("this operator came with opset {first}"),
        _ => "this operator is not supported".to_owned(),
    }
}

/// The ops that import an operator, oldest opset first.
fn defs(entry: &Entry) -> Vec<(i64, &'static OpDef)> {
    let last = entry
        .1
        .iter()
        .find(|version| **version < 0)
        .map_or(NEWEST_OPSET, |end| -end - 1);
    let first = entry.1.first().copied().unwrap_or(1).max(OLDEST_OPSET);
    (first..=last)
        .filter_map(|opset| lookup_onnx("", entry.0, opset).map(|def| (opset, def)))
        .collect()
}

/// Whether the operator is imported at some opset.
fn is_supported(entry: &Entry) -> bool {
    IMPORTED.contains(&entry.0) || !defs(entry).is_empty()
}

/// The opsets an operator is imported at, such as `6-28`.
fn opsets(entry: &Entry) -> String {
    if IMPORTED.contains(&entry.0) {
        return format!("{OLDEST_OPSET}-{NEWEST_OPSET}");
    }
    let known = defs(entry);
    match (known.first(), known.last()) {
        (Some((first, _)), Some((last, _))) if first == last => first.to_string(),
        (Some((first, _)), Some((last, _))) => format!("{first}-{last}"),
        _ => "-".to_owned(),
    }
}

/// Kinds that ONNX allows and, for ops with code of their own, inference takes.
fn kinds(entry: &Entry) -> String {
    let def = defs(entry).last().map(|(_, def)| *def);
    let words = entry.2.split(' ').filter(|word| !word.is_empty());
    let taken: Vec<&str> = words
        .filter(|word| def.is_none_or(|def| group(word).iter().all(|&kind| takes(def, kind))))
        .collect();
    taken.join(", ")
}

/// The kinds a word stands for.
fn group(word: &str) -> Vec<DType> {
    match GROUPS.iter().find(|(own, _)| *own == word) {
        Some((_, kinds)) => kinds.to_vec(),
        None => DType::from_name(word).into_iter().collect(),
    }
}

/// Whether an op with a scalar function takes operands of this kind. Others are asked when
/// they are used: their operands depend on each other.
fn takes(def: &OpDef, kind: DType) -> bool {
    let given = def.attrs.iter().all(|attr| attr.default != AttrDefault::Required);
    if !matches!(def.lower, Lowering::Map(_)) || !given {
        return true;
    }
    let Ok(attrs) = super::with_defaults(def, crate::ir::Attrs::new()) else {
        return true;
    };
    let operand = |name: &&str| {
        let kind = if *name == "cond" { DType::Bool } else { kind };
        Some(TensorType::new(kind, &[1]))
    };
    let operands: Vec<Option<TensorType>> = def.operands.required.iter().map(operand).collect();
    let ctx = InferCtx {
        attrs: &attrs,
        operands: &operands,
    };
    def.result_types(&ctx).is_ok()
}

/// What limits the use of an operator.
fn restriction(entry: &Entry) -> String {
    if let Some((_, reason)) = REFUSED.iter().find(|(own, _)| *own == entry.0) {
        return format!("refused: {reason}");
    }
    if !is_supported(entry) {
        return "refused: not supported".to_owned();
    }
    let own = RESTRICTIONS.iter().find(|(own, _)| *own == entry.0);
    let own = own.map(|(_, text)| (*text).to_owned());
    match defs(entry).last().map(|(_, def)| &def.lower) {
        Some(Lowering::Host(reason)) => {
            format!("executed by the host; compiles where it folds into a constant: {reason}")
        }
        Some(Lowering::Bounded(form)) if form.reason != sized_forms::COMPUTED => {
            let how = format!(
                "compiles to the most elements there can be and their count: {}",
                form.reason
            );
            [Some(how), own]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join("; ")
        }
        _ => own.unwrap_or_default(),
    }
}

/// Number of operators that are imported, and of all.
pub fn counts() -> (usize, usize) {
    let supported = OPERATORS.iter().filter(|entry| is_supported(entry)).count();
    (supported, OPERATORS.len())
}

/// The operators of another domain that the op table imports, sorted.
fn names_of(domain: &str) -> Vec<&'static str> {
    let mut names: Vec<&str> = super::all()
        .flat_map(|def| def.onnx)
        .filter(|onnx| onnx.domain == domain)
        .map(|onnx| onnx.name)
        .collect();
    names.sort_unstable();
    names
}

/// `docs/operators.md`.
pub fn page() -> String {
    let (supported, all) = counts();
    let mut page = format!(
        "# ONNX operators\n\n\
         Made from the op table by a test; `make bless` rewrites it.\n\n\
         {supported} of the {all} operators of the main domain are supported, for the opsets listed \
         ({OLDEST_OPSET} to {NEWEST_OPSET}; those before {OLDEST_OPSET} mostly work and are not tested). \
         Of `com.microsoft`, {} are supported. \
         Operators of `ai.onnx.ml`, of the preview domains and for training are refused. A model that \
         uses what is refused is refused as a whole, and every such node is named with its reason.\n\n\
         Kinds are those of the first operand, or of the result where there is none: `float` is \
         f64, f32 and f16; `f8` the four 8-bit floats; `int` and `uint` 8 to 64 bits; `int4` and `int2` \
         signed and unsigned. Strings and complex numbers are not supported anywhere. A shape that is \
         \"constant to compile\" may also be computed from shapes of the inputs; on the CPU it may depend \
         on any data. Where something limits a size that data decides, or `--bound` does, results are as large as \
         they can become in an engine, and a count says how much of them is there.\n\n\
         | operator | opsets | kinds | restrictions |\n|---|---|---|---|\n",
        names_of("com.microsoft").join(", ")
    );
    for entry in OPERATORS {
        let kinds = if is_supported(entry) {
            kinds(entry)
        } else {
            String::new()
        };
        let cells = [entry.0.to_owned(), opsets(entry), kinds, restriction(entry)];
        writeln!(page, "| {} |", cells.join(" | ")).expect("writing to a string cannot fail");
    }
    page
}

/// From the ONNX specification, version 1.23.
static OPERATORS: &[Entry] = &[
    ("Abs", &[1, 6, 13], "float bf16 int uint"),
    ("Acos", &[7, 22], "float bf16"),
    ("Acosh", &[9, 22], "float bf16"),
    ("Add", &[1, 6, 7, 13, 14], "float bf16 int uint"),
    ("AffineGrid", &[20], "float bf16"),
    ("And", &[1, 7], "bool"),
    ("ArgMax", &[1, 11, 12, 13], "float bf16 int uint"),
    ("ArgMin", &[1, 11, 12, 13], "float bf16 int uint"),
    ("Asin", &[7, 22], "float bf16"),
    ("Asinh", &[9, 22], "float bf16"),
    ("Atan", &[7, 22], "float bf16"),
    ("Atanh", &[9, 22], "float bf16"),
    ("Attention", &[23, 24, 25], "float bf16"),
    ("AveragePool", &[1, 7, 10, 11, 19, 22], "float bf16"),
    ("BatchNormalization", &[1, 6, 7, 9, 14, 15], "float bf16"),
    ("Bernoulli", &[15, 22], "float bf16"),
    (
        "BitCast",
        &[26],
        "float bf16 f8 f8e8m0 f4 int uint int4 int2 bool",
    ),
    ("BitShift", &[11, 28], "int uint"),
    ("BitwiseAnd", &[18], "int uint"),
    ("BitwiseNot", &[18], "int uint"),
    ("BitwiseOr", &[18], "int uint"),
    ("BitwiseXor", &[18], "int uint"),
    ("BlackmanWindow", &[17], "i64 i32"),
    (
        "Cast",
        &[1, 6, 9, 13, 19, 21, 23, 24, 25, 28],
        "float bf16 f8 f8e8m0 f4 int uint int4 int2 bool",
    ),
    (
        "CastLike",
        &[15, 19, 21, 23, 24, 25],
        "float bf16 f8 f8e8m0 f4 int uint int4 int2 bool",
    ),
    ("CausalConvWithState", &[27], "f32 f16 bf16"),
    ("Ceil", &[1, 6, 13], "float bf16"),
    ("Celu", &[12, 28], "float bf16"),
    ("CenterCropPad", &[18], "float bf16 int uint bool"),
    ("Clip", &[1, 6, 11, 12, 13], "float bf16 int uint"),
    ("Col2Im", &[18], "float bf16 int uint bool"),
    ("Compress", &[9, 11, 28], "float bf16 int uint bool"),
    ("Concat", &[1, 4, 11, 13], "float bf16 int uint bool"),
    ("ConcatFromSequence", &[11], "float int uint bool"),
    (
        "Constant",
        &[1, 9, 11, 12, 13, 19, 21, 23, 24, 25],
        "float bf16 f8 f8e8m0 f4 int uint int4 int2 bool",
    ),
    ("ConstantOfShape", &[9, 20, 21, 23, 24, 25], "i64"),
    ("Conv", &[1, 11, 22], "float bf16"),
    ("ConvInteger", &[10], "i8 u8"),
    ("ConvTranspose", &[1, 11, 22], "float bf16"),
    ("Cos", &[7, 22], "float bf16"),
    ("Cosh", &[9, 22], "float bf16"),
    ("CumProd", &[26], "float bf16 i64 i32 u64 u32"),
    ("CumSum", &[11, 14], "float bf16 i64 i32 u64 u32"),
    ("DFT", &[17, 20], "float bf16"),
    ("DeformConv", &[19, 22], "float bf16"),
    ("DepthToSpace", &[1, 11, 13, 28], "float bf16 int uint bool"),
    (
        "DequantizeLinear",
        &[10, 13, 19, 21, 23, 24, 25, 28],
        "f8 f4 i32 i16 i8 u16 u8 int4 int2",
    ),
    ("Det", &[11, 22], "float bf16"),
    ("Div", &[1, 6, 7, 13, 14], "float bf16 int uint"),
    ("Dropout", &[1, 6, 7, 10, 12, 13, 22], "float bf16 f8"),
    ("DynamicQuantizeLinear", &[11], "f32"),
    ("Einsum", &[12, 28], "float bf16 int uint"),
    ("Elu", &[1, 6, 22], "float bf16"),
    ("Equal", &[1, 7, 11, 13, 19], "float bf16 int uint bool"),
    ("Erf", &[9, 13], "float bf16"),
    ("Exp", &[1, 6, 13], "float bf16"),
    ("Expand", &[8, 13], "float bf16 int uint bool"),
    ("EyeLike", &[9, 22], "float bf16 int uint bool"),
    (
        "Flatten",
        &[1, 9, 11, 13, 21, 23, 24, 25],
        "float bf16 f8 f8e8m0 f4 int uint int4 int2 bool",
    ),
    ("Floor", &[1, 6, 13], "float bf16"),
    ("GRU", &[1, 3, 7, 14, 22], "float bf16"),
    ("Gather", &[1, 11, 13], "float bf16 int uint bool"),
    ("GatherElements", &[11, 13], "float bf16 int uint bool"),
    ("GatherND", &[11, 12, 13], "float bf16 int uint bool"),
    ("Gelu", &[20], "float bf16"),
    ("Gemm", &[1, 6, 7, 9, 11, 13], "float bf16 i64 i32 u64 u32"),
    ("GlobalAveragePool", &[1, 22], "float bf16"),
    ("GlobalLpPool", &[1, 2, 22], "float bf16"),
    ("GlobalMaxPool", &[1, 22], "float bf16"),
    ("Greater", &[1, 7, 9, 13], "float bf16 int uint"),
    ("GreaterOrEqual", &[12, 16], "float bf16 int uint"),
    ("GridSample", &[16, 20, 22], "float bf16 int uint bool"),
    ("GroupNormalization", &[-18, 21], "float bf16"),
    ("HammingWindow", &[17], "i64 i32"),
    ("HannWindow", &[17], "i64 i32"),
    ("HardSigmoid", &[1, 6, 22], "float bf16"),
    ("HardSwish", &[14, 22], "float bf16"),
    ("Hardmax", &[1, 11, 13], "float bf16"),
    (
        "Identity",
        &[1, 13, 14, 16, 19, 21, 23, 24, 25],
        "float bf16 f8 f8e8m0 f4 int uint int4 int2 bool",
    ),
    (
        "If",
        &[1, 11, 13, 16, 19, 21, 23, 24, 25],
        "float bf16 f8 f8e8m0 f4 int uint int4 int2 bool",
    ),
    ("ImageDecoder", &[20], "u8"),
    ("InstanceNormalization", &[1, 6, 22], "float bf16"),
    ("IsInf", &[10, 20], "float bf16 f8"),
    ("IsNaN", &[9, 13, 20], "float bf16 f8"),
    ("LRN", &[1, 13], "float bf16"),
    ("LSTM", &[1, 7, 14, 22], "float bf16"),
    ("LayerNormalization", &[17], "float bf16"),
    ("LeakyRelu", &[1, 6, 16], "float bf16"),
    ("Less", &[1, 7, 9, 13], "float bf16 int uint"),
    ("LessOrEqual", &[12, 16], "float bf16 int uint"),
    ("LinearAttention", &[27], "f32 f16 bf16"),
    ("Log", &[1, 6, 13], "float bf16"),
    ("LogSoftmax", &[1, 11, 13], "float bf16"),
    (
        "Loop",
        &[1, 11, 13, 16, 19, 21, 23, 24, 25],
        "float bf16 f8 f8e8m0 f4 int uint int4 int2 bool",
    ),
    ("LpNormalization", &[1, 22], "float bf16"),
    ("LpPool", &[1, 2, 11, 18, 22], "float bf16"),
    ("MatMul", &[1, 9, 13], "float bf16 i64 i32 u64 u32"),
    ("MatMulInteger", &[10], "i8 u8"),
    ("Max", &[1, 6, 8, 12, 13], "float bf16 int uint"),
    ("MaxPool", &[1, 8, 10, 11, 12, 22], "float bf16 i8 u8"),
    ("MaxRoiPool", &[1, 22], "float bf16"),
    ("MaxUnpool", &[9, 11, 22], "float bf16"),
    ("Mean", &[1, 6, 8, 13], "float bf16"),
    ("MeanVarianceNormalization", &[9, 13], "float bf16"),
    ("MelWeightMatrix", &[17], "i64 i32"),
    ("Min", &[1, 6, 8, 12, 13], "float bf16 int uint"),
    ("Mish", &[18, 22], "float bf16"),
    ("Mod", &[10, 13, 28], "float bf16 int uint"),
    ("Mul", &[1, 6, 7, 13, 14], "float bf16 int uint"),
    ("Multinomial", &[7, 22], "float bf16"),
    ("Neg", &[1, 6, 13], "float bf16 int"),
    ("NegativeLogLikelihoodLoss", &[12, 13, 22], "float bf16"),
    ("NonMaxSuppression", &[10, 11], "f32"),
    ("NonZero", &[9, 13], "float bf16 int uint bool"),
    ("Not", &[1], "bool"),
    ("OneHot", &[9, 11, 28], "float int uint"),
    (
        "Optional",
        &[15, 28],
        "float bf16 f8 f8e8m0 f4 int uint int4 int2 bool",
    ),
    (
        "OptionalGetElement",
        &[15, 18, 28],
        "float bf16 f8 f8e8m0 f4 int uint int4 int2 bool",
    ),
    (
        "OptionalHasElement",
        &[15, 18, 28],
        "float bf16 f8 f8e8m0 f4 int uint int4 int2 bool",
    ),
    ("Or", &[1, 7], "bool"),
    ("PRelu", &[1, 6, 7, 9, 16], "float bf16 i64 i32 u64 u32"),
    (
        "Pad",
        &[1, 2, 11, 13, 18, 19, 21, 23, 24, 25],
        "float bf16 f8 f8e8m0 f4 int uint int4 int2 bool",
    ),
    ("Pow", &[1, 7, 12, 13, 15], "float bf16 i64 i32"),
    ("QLinearConv", &[10], "i8 u8"),
    ("QLinearMatMul", &[10, 21], "f8 i8 u8"),
    (
        "QuantizeLinear",
        &[10, 13, 19, 21, 23, 24, 25, 28],
        "f32 f16 bf16 i32",
    ),
    ("RMSNormalization", &[23], "float bf16"),
    ("RNN", &[1, 7, 14, 22], "float bf16"),
    ("RandomNormal", &[1, 22], "float bf16"),
    ("RandomNormalLike", &[1, 22], "float bf16 int uint bool"),
    ("RandomUniform", &[1, 22], "float bf16"),
    ("RandomUniformLike", &[1, 22], "float bf16 int uint bool"),
    ("Range", &[11, 27], "float bf16 i64 i32 i16"),
    ("Reciprocal", &[1, 6, 13], "float bf16"),
    ("ReduceL1", &[1, 11, 13, 18], "float bf16 i64 i32 u64 u32"),
    ("ReduceL2", &[1, 11, 13, 18], "float bf16 i64 i32 u64 u32"),
    ("ReduceLogSum", &[1, 11, 13, 18, 28], "float bf16"),
    ("ReduceLogSumExp", &[1, 11, 13, 18, 28], "float bf16"),
    (
        "ReduceMax",
        &[1, 11, 12, 13, 18, 20],
        "float bf16 i64 i32 i8 u64 u32 u8 bool",
    ),
    ("ReduceMean", &[1, 11, 13, 18], "float bf16 i64 i32 u64 u32"),
    (
        "ReduceMin",
        &[1, 11, 12, 13, 18, 20],
        "float bf16 i64 i32 i8 u64 u32 u8 bool",
    ),
    ("ReduceProd", &[1, 11, 13, 18], "float bf16 i64 i32 u64 u32"),
    ("ReduceSum", &[1, 11, 13], "float bf16 i64 i32 u64 u32"),
    ("ReduceSumSquare", &[1, 11, 13, 18], "float bf16 i64 i32 u64 u32"),
    ("RegexFullMatch", &[20], ""),
    ("Relu", &[1, 6, 13, 14], "float bf16 int"),
    (
        "Reshape",
        &[1, 5, 13, 14, 19, 21, 23, 24, 25],
        "float bf16 f8 f8e8m0 f4 int uint int4 int2 bool",
    ),
    ("Resize", &[10, 11, 13, 18, 19], "float bf16 int uint bool"),
    ("ReverseSequence", &[10, 28], "float bf16 int uint bool"),
    ("RoiAlign", &[10, 16, 22], "float bf16"),
    ("RotaryEmbedding", &[23], "f32 f16 bf16"),
    ("Round", &[11, 22], "float bf16"),
    ("STFT", &[17], "float bf16"),
    (
        "Scan",
        &[8, 9, 11, 16, 19, 21, 23, 24, 25],
        "float bf16 f8 f8e8m0 f4 int uint int4 int2 bool",
    ),
    ("Scatter", &[9, -11], "float int uint bool"),
    ("ScatterElements", &[11, 13, 16, 18], "float bf16 int uint bool"),
    ("ScatterND", &[11, 13, 16, 18], "float bf16 int uint bool"),
    ("Selu", &[1, 6, 22], "float bf16"),
    ("SequenceAt", &[11], "float int uint bool"),
    ("SequenceConstruct", &[11], "float int uint bool"),
    ("SequenceEmpty", &[11], "float int uint bool"),
    ("SequenceErase", &[11], "float int uint bool"),
    ("SequenceInsert", &[11], "float int uint bool"),
    ("SequenceLength", &[11], "float int uint bool"),
    ("SequenceMap", &[17], "float int uint bool"),
    (
        "Shape",
        &[1, 13, 15, 19, 21, 23, 24, 25],
        "float bf16 f8 f8e8m0 f4 int uint int4 int2 bool",
    ),
    ("Shrink", &[9], "float int uint"),
    ("Sigmoid", &[1, 6, 13], "float bf16"),
    ("Sign", &[9, 13], "float bf16 int uint"),
    ("Sin", &[7, 22], "float bf16"),
    ("Sinh", &[9, 22], "float bf16"),
    (
        "Size",
        &[1, 13, 19, 21, 23, 24, 25],
        "float bf16 f8 f8e8m0 f4 int uint int4 int2 bool",
    ),
    ("Slice", &[1, 10, 11, 13], "float bf16 int uint bool"),
    ("Softmax", &[1, 11, 13], "float bf16"),
    ("SoftmaxCrossEntropyLoss", &[12, 13], "float bf16"),
    ("Softplus", &[1, 22], "float bf16"),
    ("Softsign", &[1, 22], "float bf16"),
    ("SpaceToDepth", &[1, 13, 28], "float bf16 int uint bool"),
    ("Split", &[1, 2, 11, 13, 18], "float bf16 int uint bool"),
    ("SplitToSequence", &[11, 24], "float bf16 int uint bool"),
    ("Sqrt", &[1, 6, 13], "float bf16"),
    (
        "Squeeze",
        &[1, 11, 13, 21, 23, 24, 25],
        "float bf16 f8 f8e8m0 f4 int uint int4 int2 bool",
    ),
    ("StringConcat", &[20], ""),
    ("StringNormalizer", &[10], ""),
    ("StringSplit", &[20], ""),
    ("Sub", &[1, 6, 7, 13, 14], "float bf16 int uint"),
    ("Sum", &[1, 6, 8, 13], "float bf16"),
    ("SwiGLU", &[28], "float bf16"),
    ("Swish", &[24], "float bf16"),
    ("Tan", &[7, 22], "float bf16"),
    ("Tanh", &[1, 6, 13], "float bf16"),
    (
        "TensorScatter",
        &[24],
        "float bf16 f8 f8e8m0 f4 int uint int4 bool",
    ),
    ("TfIdfVectorizer", &[9], "i64 i32"),
    ("ThresholdedRelu", &[10, 22], "float bf16"),
    ("Tile", &[1, 6, 13], "float bf16 int uint bool"),
    ("TopK", &[1, 10, 11, 24], "float bf16 int uint"),
    (
        "Transpose",
        &[1, 13, 21, 23, 24, 25],
        "float bf16 f8 f8e8m0 f4 int uint int4 int2 bool",
    ),
    ("Trilu", &[14], "float bf16 int uint bool"),
    ("Unique", &[11, 28], "float bf16 int uint bool"),
    (
        "Unsqueeze",
        &[1, 11, 13, 21, 23, 24, 25],
        "float bf16 f8 f8e8m0 f4 int uint int4 int2 bool",
    ),
    ("Upsample", &[1, 7, 9, -10], "float int uint bool"),
    ("Where", &[9, 16], "bool"),
    ("Xor", &[1, 7], "bool"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operator_of_the_table_is_listed() {
        for def in super::super::all() {
            for onnx in def.onnx.iter().filter(|onnx| onnx.domain.is_empty()) {
                assert!(
                    OPERATORS.iter().any(|(name, ..)| *name == onnx.name),
                    "{} is not an operator of ONNX",
                    onnx.name
                );
            }
        }
    }

    #[test]
    fn what_is_refused_has_a_reason_and_nothing_else() {
        for entry in OPERATORS {
            let refused = REFUSED.iter().any(|(name, _)| *name == entry.0);
            assert!(refused != is_supported(entry), "{} is both or neither", entry.0);
        }
        assert!(counts().0 >= 175, "fewer operators than promised: {}", counts().0);
    }

    #[test]
    fn refusals_say_why() {
        assert_eq!(refusal("", "StringSplit", 20), STRINGS);
        assert_eq!(refusal("", "GridSample", 15), "this operator came with opset 16");
        assert_eq!(refusal("", "Frobnicate", 15), "this operator is not known");
        assert_eq!(
            refusal("ai.onnx.preview.training", "Adam", 1),
            "training is not supported"
        );
    }
}
