//! Settings of a build, from arguments.

use super::args::{BuildArgs, RuleArgs};
use super::failure::Failure;
use super::shapes;
use crate::compile::{SUPPORTED_SM, arch_name};
use crate::ir::DType;
use crate::kernel::Arch;
use crate::pipeline::Settings;
use crate::rewrite::rule_ast::Numerics;
use crate::rewrite::rule_error::closest;
use crate::rewrite::rule_set::{RuleOptions, RuleSet};
use crate::specialize::Wide;

/// What the arguments ask for.
pub fn settings(args: &BuildArgs) -> Result<Settings, Failure> {
    Ok(Settings {
        shapes: bound_shapes(args)?,
        precision: match (args.fp16 || args.precision.best, args.bf16) {
            (true, _) => DType::F16,
            (false, true) => DType::BF16,
            (false, false) => DType::F32,
        },
        tf32: args.tf32,
        wide: Wide::new(),
        rules: rule_options(&args.rules)?,
    })
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

/// Shapes of `--shapes`; trtexec's ranges are accepted where they are no ranges.
fn bound_shapes(args: &BuildArgs) -> Result<Vec<(String, Vec<usize>)>, Failure> {
    let given = [
        ("--shapes", &args.shapes),
        ("--minShapes", &args.min_shapes),
        ("--maxShapes", &args.max_shapes),
    ];
    let mut bound: Option<Vec<(String, Vec<usize>)>> = None;
    for (flag, text) in given {
        let Some(text) = text else { continue };
        let parsed = shapes::parse(text).map_err(|message| Failure::usage(format!("`{flag}`: {message}")))?;
        match &bound {
            Some(first) if *first != parsed => {
                return Err(Failure::refused(
                    "a range of shapes in one engine",
                    "compile one engine for each shape with `--shapes`",
                ));
            }
            Some(_) => {}
            None => bound = Some(parsed),
        }
    }
    Ok(bound.unwrap_or_default())
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

    fn parsed(arguments: &[&str]) -> Result<Settings, Failure> {
        let head = ["rtrt-codegen", "compile", "m.onnx", "--arch", "sm_80"];
        let cli = Cli::try_parse_from(head.iter().chain(arguments)).unwrap();
        let Command::Compile(args) = cli.command else {
            panic!("the command is compile")
        };
        settings(&args.build)
    }

    #[test]
    fn ranges_of_one_shape_are_shapes() {
        let same = parsed(&["--minShapes=x:1x3", "--optShapes=x:1x3", "--maxShapes=x:[1,3]"]).unwrap();
        assert_eq!(same.shapes, [("x".to_owned(), vec![1, 3])]);
        let range = parsed(&["--minShapes=x:1x3", "--maxShapes=x:8x3"]).unwrap_err();
        assert_eq!(range.exit, 3);
        assert!(range.message().contains("one engine for each shape"));
        assert_eq!(parsed(&["--shapes", "x"]).unwrap_err().exit, 2);
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
