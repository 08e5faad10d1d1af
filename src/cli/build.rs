//! Settings of a build, from arguments.

use super::args::{BuildArgs, RuleArgs};
use super::failure::Failure;
use super::shapes;
use crate::compile::{SUPPORTED_SM, arch_name};
use crate::engine::shared::extents::MAX_SHAPES;
use crate::ir::{DType, Graph};
use crate::kernel::Arch;
use crate::pipeline::Settings;
use crate::rewrite::rules::ast::Numerics;
use crate::rewrite::rules::error::closest;
use crate::rewrite::rules::set::{RuleOptions, RuleSet};
use crate::specialize::{self, RangeError, ShapeRange, Shapes, Wide};

/// What the arguments ask for.
pub fn settings(args: &BuildArgs) -> Result<Settings, Failure> {
    Ok(Settings {
        shapes: bound_shapes(args)?,
        bounds: args
            .bounds
            .iter()
            .map(|text| stated_bound(text))
            .collect::<Result<_, _>>()?,
        precision: match (args.fp16 || args.precision.best, args.bf16) {
            (true, _) => DType::F16,
            (false, true) => DType::BF16,
            (false, false) => DType::F32,
        },
        tf32: args.tf32,
        max_memory: args.max_memory.as_deref().map(bytes).transpose()?,
        max_aux_streams: args.max_aux_streams,
        n_contexts: 1,
        wide: Wide::new(),
        rules: rule_options(&args.rules)?,
    })
}

/// `NAME=N`. Names of tensors may have equals signs.
fn stated_bound(text: &str) -> Result<(String, usize), Failure> {
    let parsed = text.rsplit_once('=').and_then(|(name, most)| {
        let most = most.parse().ok()?;
        (!name.is_empty()).then(|| (name.to_owned(), most))
    });
    parsed.ok_or_else(|| {
        Failure::usage(format!(
            "`--bound {text}`: expected the name of a tensor and a number, as `name=100`"
        ))
    })
}

/// `512M`, `1.5G`, or plain bytes; suffixes are powers of 1024.
fn bytes(text: &str) -> Result<usize, Failure> {
    let wrong = || {
        Failure::usage(format!(
            "`--max-memory {text}`: expected bytes, or a number with K, M or G"
        ))
    };
    let (digits, shift) = match text.char_indices().last() {
        Some((at, 'K' | 'k')) => (&text[..at], 10),
        Some((at, 'M' | 'm')) => (&text[..at], 20),
        Some((at, 'G' | 'g')) => (&text[..at], 30),
        _ => (text, 0),
    };
    let number: f64 = digits.parse().map_err(|_| wrong())?;
    let n_bytes = number * f64::from(1u32 << shift);
    if !(0.0..1e18).contains(&n_bytes) {
        return Err(wrong());
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked above"
    )]
    Ok(n_bytes as usize)
}

/// Which rules take part.
pub fn rule_options(args: &RuleArgs) -> Result<RuleOptions, Failure> {
    Ok(RuleOptions {
        dir: args.rules.clone(),
        disabled: args.disable_rule.clone(),
        numerics: numerics(&args.numerics)?,
        ..RuleOptions::default()
    })
}

/// Says early what is wrong with the rules of a build, or with switches that name them.
pub fn check_rules(settings: &Settings) -> Result<(), Failure> {
    RuleSet::load(&settings.rules)?;
    Ok(())
}

fn numerics(name: &str) -> Result<Numerics, Failure> {
    match name {
        "exact" => Ok(Numerics::Exact),
        "reassoc" => Ok(Numerics::Reassoc),
        "step" => Ok(Numerics::Step),
        "approx" => Ok(Numerics::Approx(u32::MAX)),
        _ => {
            let hint = closest(name, ["exact", "reassoc", "step", "approx"]);
            let hint = hint.map_or_else(String::new, |known| format!(", did you mean `{known}`?"));
            Err(Failure::usage(format!(
                "`--numerics {name}`: expected exact, reassoc, step or approx{hint}"
            )))
        }
    }
}

/// Most shapes that are listed for one engine: each of them has kernels of its own.
const MAX_LISTED: usize = 64;
/// Most shapes in the range of one engine. What the file says of each is little; building takes 0.1 to 0.2 seconds of CPU
/// time for each shape of a large model.
const MAX_RANGE: usize = MAX_SHAPES;

/// Bindings of a model's dims.
pub struct Profiles {
    /// The usual one first.
    pub shapes: Vec<Shapes>,
    /// Whether all but the usual one share kernels.
    pub shared: bool,
}

/// The shapes of commands that take one: the first of `--shapes`, or `--optShapes`.
fn bound_shapes(args: &BuildArgs) -> Result<Shapes, Failure> {
    match args.shapes.first() {
        Some(text) => parsed_shapes("--shapes", text),
        None => Ok(range(args)?.map(|range| range.opt).unwrap_or_default()),
    }
}

/// Every binding of the model's dims that an engine is compiled for.
pub fn profiles(args: &BuildArgs, graph: &Graph) -> Result<Profiles, Failure> {
    if let Some(range) = range(args)? {
        let shapes = in_range(graph, &range)?;
        let shared = shapes.len() > args.static_shapes;
        if shared && !args.bounds.is_empty() {
            return Err(Failure::refused(
                format!("`--bound` in a range of {} shapes", shapes.len()),
                format!(
                    "data decides no extents where shapes share kernels; `--static-shapes {}` gives each its own",
                    shapes.len()
                ),
            ));
        }
        return Ok(Profiles { shapes, shared });
    }
    if args.shapes.len() > MAX_LISTED {
        return Err(Failure::refused(
            format!("{} shapes in one engine", args.shapes.len()),
            format!(
                "an engine holds at most {MAX_LISTED} that are listed; give a range of them with `--minShapes` and `--maxShapes`"
            ),
        ));
    }
    let listed = args.shapes.iter().map(|text| parsed_shapes("--shapes", text));
    let mut shapes: Vec<Shapes> = listed.collect::<Result<_, _>>()?;
    if shapes.is_empty() {
        shapes.push(Shapes::new());
    }
    Ok(Profiles {
        shapes,
        shared: false,
    })
}

fn in_range(graph: &Graph, range: &ShapeRange) -> Result<Vec<Shapes>, Failure> {
    specialize::every_shape(graph, range, MAX_RANGE).map_err(|error| match error {
        RangeError::TooMany { .. } => Failure::refused(
            error.to_string(),
            "name those that occur, with `--shapes` once for each of them, or compile an engine for each part of the range",
        ),
        RangeError::Bind(error) => error.into(),
        other => Failure::usage(other.to_string()),
    })
}

/// trtexec's range; what is not given is the usual shape, or the nearest end.
fn range(args: &BuildArgs) -> Result<Option<ShapeRange>, Failure> {
    let parsed = |flag: &str, text: &Option<String>| {
        let shapes = text.as_ref().map(|text| parsed_shapes(flag, text));
        shapes.transpose()
    };
    let min = parsed("--minShapes", &args.min_shapes)?;
    let opt = parsed("--optShapes", &args.opt_shapes)?;
    let max = parsed("--maxShapes", &args.max_shapes)?;
    let Some(usual) = opt.as_ref().or(max.as_ref()).or(min.as_ref()).cloned() else {
        return Ok(None);
    };
    Ok(Some(ShapeRange {
        min: min.unwrap_or_else(|| usual.clone()),
        max: max.unwrap_or_else(|| usual.clone()),
        opt: usual,
    }))
}

fn parsed_shapes(flag: &str, text: &str) -> Result<Shapes, Failure> {
    shapes::parse(text).map_err(|message| Failure::usage(format!("`{flag}`: {message}")))
}

/// The architectures of `--arch sm_87,sm_90a`, each once.
pub fn archs(text: &str) -> Result<Vec<Arch>, Failure> {
    let known = known_archs();
    let mut archs = Vec::new();
    for name in text.split(',').map(str::trim) {
        let Some(&arch) = known.iter().find(|&&arch| arch_name(arch) == name) else {
            let names: Vec<String> = known.iter().map(|&arch| arch_name(arch)).collect();
            return Err(Failure::usage(format!(
                "`--arch`: `{name}` is no architecture this can build for; it can build for {}",
                names.join(", ")
            )));
        };
        if !archs.contains(&arch) {
            archs.push(arch);
        }
    }
    Ok(archs)
}

/// Every architecture by its plain name, and the architecture-specific one that has templates.
fn known_archs() -> Vec<Arch> {
    let mut archs: Vec<Arch> = SUPPORTED_SM
        .iter()
        .map(|&sm| Arch { sm, specific: false })
        .collect();
    archs.push(Arch {
        sm: 90,
        specific: true,
    });
    archs.sort();
    archs
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::args::{Cli, Command};
    use super::*;
    use crate::ir::{Dim, TensorType};

    fn parsed(arguments: &[&str]) -> Result<Settings, Failure> {
        settings(&build_args(arguments))
    }

    fn build_args(arguments: &[&str]) -> BuildArgs {
        let head = ["rtrt-codegen", "compile", "m.onnx", "--arch", "sm_80"];
        let cli = Cli::try_parse_from(head.iter().chain(arguments)).unwrap();
        let Command::Compile(args) = cli.command else {
            panic!("the command is compile")
        };
        args.build
    }

    fn model() -> Graph {
        let mut graph = Graph::new("g");
        let shape = crate::ir::Shape([Dim::Symbol("n".to_owned()), Dim::Known(3)].into_iter().collect());
        let ty = TensorType {
            dtype: DType::F32,
            shape,
        };
        graph.add_input("x", Some(ty));
        graph
    }

    #[test]
    fn an_engine_is_for_listed_shapes_or_all_of_a_range() {
        let extents = |arguments: &[&str]| {
            let profiles = profiles(&build_args(arguments), &model()).unwrap().shapes;
            let first = |shapes: &Shapes| shapes.first().map(|(_, dims)| dims[0]);
            profiles.iter().map(first).collect::<Vec<_>>()
        };
        assert_eq!(extents(&[]), [None]);
        assert_eq!(
            extents(&["--shapes", "x:8x3", "--shapes=x:[2,3]"]),
            [Some(8), Some(2)]
        );
        let range = ["--minShapes=x:1x3", "--optShapes=x:2x3", "--maxShapes=x:[4,3]"];
        assert_eq!(extents(&range), [Some(2), Some(1), Some(3), Some(4)]);
        assert_eq!(extents(&range[1..2]), [Some(2)]);
    }

    #[test]
    fn commands_that_take_one_shape_take_the_usual_one() {
        let range = parsed(&["--minShapes=x:1x3", "--optShapes=x:2x3", "--maxShapes=x:[8,3]"]).unwrap();
        assert_eq!(range.shapes, [("x".to_owned(), vec![2, 3])]);
        let listed = parsed(&["--shapes=x:4x3", "--shapes=x:2x3"]).unwrap();
        assert_eq!(listed.shapes, [("x".to_owned(), vec![4, 3])]);
        assert_eq!(parsed(&["--shapes", "x"]).unwrap_err().exit, 2);
    }

    #[test]
    fn sizes_have_suffixes() {
        assert_eq!(bytes("4096").unwrap(), 4096);
        assert_eq!(bytes("1.5k").unwrap(), 1536);
        assert_eq!(bytes("2G").unwrap(), 2 << 30);
        for wrong in ["", "M", "-1", "12Q", "inf", "NaN"] {
            assert_eq!(bytes(wrong).unwrap_err().exit, 2, "{wrong}");
        }
    }

    #[test]
    fn bounds_are_names_and_numbers() {
        let bounds = |arguments: &[&str]| settings(&build_args(arguments)).map(|own| own.bounds);
        let two = bounds(&["--bound", "a=b=3", "--bound=n=0"]).ok().unwrap();
        assert_eq!(two, [("a=b".to_owned(), 3), ("n".to_owned(), 0)]);
        for wrong in ["n", "=3", "n=", "n=-1", "n=3.5"] {
            assert_eq!(bounds(&["--bound", wrong]).err().unwrap().exit, 2, "{wrong}");
        }
        let range = ["--bound=n=3", "--minShapes=x:1x3", "--maxShapes=x:9x3"];
        let wide = profiles(&build_args(&range), &model()).err().unwrap();
        assert_eq!(wide.exit, 3);
        let own = [range.as_slice(), &["--static-shapes", "9"]].concat();
        assert!(profiles(&build_args(&own), &model()).is_ok());
    }

    #[test]
    fn too_many_shapes_are_refused() {
        let error = |arguments: &[&str]| profiles(&build_args(arguments), &model()).err().unwrap();
        let wide = error(&["--minShapes=x:1x3", "--maxShapes=x:65537x3"]);
        assert_eq!(wide.exit, 3);
        assert!(
            wide.message().contains("once for each of them"),
            "{}",
            wide.message()
        );
        let listed = vec!["--shapes=x:1x3"; 65];
        assert!(error(&listed).message().contains("65 shapes"));
    }

    #[test]
    fn shapes_of_wide_ranges_share_kernels() {
        let is_shared = |arguments: &[&str]| profiles(&build_args(arguments), &model()).unwrap().shared;
        let range = |last: &str| vec!["--minShapes=x:1x3".to_owned(), format!("--maxShapes=x:{last}x3")];
        let of = |last: &str, more: &[&str]| {
            let range = range(last);
            let all: Vec<&str> = range
                .iter()
                .map(String::as_str)
                .chain(more.iter().copied())
                .collect();
            is_shared(&all)
        };
        assert!(!of("8", &[]) && of("9", &[]));
        assert!(of("2", &["--static-shapes", "1"]) && !of("64", &["--static-shapes", "64"]));
        assert!(!is_shared(&["--shapes=x:1x3"; 64]));
    }

    #[test]
    fn architectures_are_known_names() {
        let names =
            |text: &str| archs(text).map(|archs| archs.into_iter().map(arch_name).collect::<Vec<_>>());
        assert_eq!(names("sm_90a, sm_87,sm_90a").unwrap(), ["sm_90a", "sm_87"]);
        let error = names("sm_99").unwrap_err();
        assert_eq!(error.exit, 2);
        assert!(
            error
                .message()
                .contains("sm_75, sm_80, sm_86, sm_87, sm_89, sm_90, sm_90a, sm_100, sm_120")
        );
        assert_eq!(names("").unwrap_err().exit, 2);
    }
}
