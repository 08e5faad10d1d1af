//! Graphs in text form with what should become of them; see `tests/filetests/README.md`.

#![cfg(feature = "builder")]

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use libtest_mimic::{Arguments, Failed, Trial};
use rtrt_codegen::compile::arch_name;
use rtrt_codegen::ir::text::{TextError, parse, print};
use rtrt_codegen::ir::{Graph, HostTensor};
use rtrt_codegen::kernel::{self, Arch, KernelOptions};
use rtrt_codegen::ops;
use rtrt_codegen::ops::random::drawn;
use rtrt_codegen::reference;
use rtrt_codegen::rewrite::canonicalize::{canonicalize_counting, rewrite_model};
use rtrt_codegen::rewrite::run_fused;
use rtrt_codegen::rewrite::{DeviceRates, FusedGraph, RuleSet, fuse_canonical};
use rtrt_codegen::specialize;
use rtrt_codegen::tune::{bound, error_of};

fn main() {
    let mut files = Vec::new();
    collect(&root(), &mut files);
    let trials = files.into_iter().flat_map(|path| trials(&path)).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/filetests")
}

fn collect(folder: &Path, into: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("it lists").path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rtrt") {
            into.push(path);
        }
    }
}

/// A file taken apart.
struct Case {
    path: PathBuf,
    /// The lines before the graph.
    commands: Vec<String>,
    graph: String,
}

impl Case {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).expect("the file reads");
        let head = text.find("graph ").expect("the file holds a graph");
        let end = text.rfind("\n}").map_or(text.len(), |at| at + 3).min(text.len());
        Case {
            path: path.to_owned(),
            commands: text[..head]
                .lines()
                .filter(|line| line.starts_with("test "))
                .map(str::to_owned)
                .collect(),
            graph: text[head..end].to_owned(),
        }
    }

    /// Folder and stem, which name trials and snapshots.
    fn name(&self) -> String {
        let below = self
            .path
            .strip_prefix(root())
            .expect("files lie below the root")
            .with_extension("");
        below.to_str().expect("names are UTF-8").replace('/', "::")
    }

    fn parse(&self) -> Result<Graph, TextError> {
        parse(&self.graph, &|name| ops::lookup(name).map(|def| def.name))
    }

    /// The static core graph, after the rules of the model phase.
    fn core(&self) -> Result<Graph, Failed> {
        let graph = rewrite_model(&self.parse()?, RuleSet::builtin());
        Ok(specialize::specialize(&graph, &specialize::bind(&graph, &[])?)?)
    }

    /// Compares the comment lines below the graph, or replaces them when blessing.
    fn expect(&self, found: &str) -> Result<(), Failed> {
        let text = fs::read_to_string(&self.path)?;
        let below = text.find(&self.graph).map_or(0, |at| at + self.graph.len());
        let wanted: Vec<&str> = text[below..].lines().filter(|line| !line.is_empty()).collect();
        let found: Vec<String> = found.lines().map(|line| format!("; {line}")).collect();
        if wanted == found {
            return Ok(());
        }
        if env::var("RTRT_BLESS").is_ok() {
            fs::write(&self.path, format!("{}{}\n", &text[..below], found.join("\n")))?;
            return Ok(());
        }
        Err(format!(
            "expected\n{}\nfound\n{}\n(`make bless` accepts it)",
            wanted.join("\n"),
            found.join("\n")
        )
        .into())
    }
}

fn trials(path: &Path) -> Vec<Trial> {
    let case = Case::read(path);
    let is_error = case.commands.iter().any(|line| line == "test error");
    let mut trials = Vec::new();
    let mut add = |what: &str, check: fn(&Case, &str) -> Result<(), Failed>, line: &str| {
        let (path, line) = (path.to_owned(), line.to_owned());
        trials.push(Trial::test(format!("{}::{what}", case.name()), move || {
            check(&Case::read(&path), &line)
        }));
    };
    if !is_error {
        add("prints_as_parsed", round_trip, "");
    }
    for line in &case.commands {
        let mut words = line.split_whitespace().skip(1);
        match words.next() {
            Some("rewrite") => add("rewrite", rewrite, line),
            Some("run") => add("run", run, line),
            Some("kernel") => add("kernel", kernels, line),
            Some("error") => add("error", error, line),
            other => panic!("{}: no command is named {other:?}", path.display()),
        }
    }
    trials
}

fn round_trip(case: &Case, _: &str) -> Result<(), Failed> {
    let graph = case.parse()?;
    let text = print(&graph);
    let again = parse(&text, &|name| ops::lookup(name).map(|def| def.name))?;
    if graph == again {
        Ok(())
    } else {
        Err(format!("printed, it is another graph:\n{text}").into())
    }
}

/// `sm_90a` in a command line; `sm_90` unless given.
fn arch_of(line: &str) -> Arch {
    let name = line
        .split_whitespace()
        .find_map(|word| word.strip_prefix("arch="))
        .unwrap_or("sm_90");
    let (digits, specific) = name
        .strip_prefix("sm_")
        .expect("archs begin with sm_")
        .split_at(name.trim_end_matches('a').len() - 3);
    Arch {
        sm: digits.parse().expect("archs are numbered"),
        specific: specific == "a",
    }
}

/// The regions, and the rules that fired before the e-graph.
fn fused(case: &Case, line: &str) -> Result<(FusedGraph, Vec<String>), Failed> {
    let rules = RuleSet::builtin();
    let (canonical, fired) = canonicalize_counting(&case.core()?, rules);
    let device = DeviceRates::for_sm(arch_of(line).sm);
    let fired = fired
        .into_iter()
        .filter(|(_, n)| *n > 0)
        .map(|(name, _)| name.clone());
    Ok((fuse_canonical(&canonical, rules, device)?, fired.collect()))
}

/// What fires, and what the regions are.
fn rewrite(case: &Case, line: &str) -> Result<(), Failed> {
    let (fused, mut fired) = fused(case, line)?;
    for rule in fused.regions.iter().flat_map(|region| &region.rules) {
        if !fired.contains(&rule.name) {
            fired.push(rule.name.clone());
        }
    }
    let mut found = format!("fired:   {}\n", fired.join(", "));
    for (position, region) in fused.regions.iter().enumerate() {
        let ops: Vec<&str> = region.body.nodes.iter().map(|node| node.op).collect();
        let label = if position == 0 { "regions:" } else { "        " };
        let places: Vec<String> = region.placements.values().map(|own| format!(" {own}")).collect();
        let (kind, places) = (region.kind, places.concat());
        writeln!(found, "{label} {kind:?}({}){places}", ops.join(", ")).unwrap();
    }
    case.expect(&found)
}

/// The regions mean what the graph means.
fn run(case: &Case, line: &str) -> Result<(), Failed> {
    let core = case.core()?;
    let inputs: Vec<HostTensor> = core
        .inputs
        .iter()
        .zip(1..)
        .map(|(&input, seed)| drawn(core.ty(input), seed))
        .collect();
    let wanted = reference::run(&core, &inputs)?;
    let (fused, _) = fused(case, line)?;
    let found = run_fused(&fused, &inputs)?;
    for (number, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
        let error = error_of(found, wanted);
        // Regions round halves where they are stored, the graph after every node.
        if found.ty() != wanted.ty() || error > bound(wanted.dtype(), wanted.dtype(), false).0 {
            return Err(format!("output {number}: {} is off by {error:.2e}", found.ty()).into());
        }
    }
    Ok(())
}

/// The kernels that would be compiled first, as a snapshot.
fn kernels(case: &Case, line: &str) -> Result<(), Failed> {
    let arch = arch_of(line);
    let (fused, _) = fused(case, line)?;
    let mut text = String::new();
    for (number, region) in fused.regions.iter().enumerate() {
        let spec = kernel::spec(&fused, number, &KernelOptions::default());
        let variants = kernel::variants(&spec, arch);
        let best = variants.first().ok_or("a region has no kernel")?;
        let source = kernel::render(&spec, best, arch)?;
        let rules: Vec<String> = region.rules.iter().map(ToString::to_string).collect();
        text.push_str(&kernel::header::origins(&[kernel::header::Origin {
            nodes: &kernel::header::onnx_nodes(&region.body),
            rules: &rules,
        }]));
        text.push_str(&source.header);
        text.push_str(kernel::prelude::kernel_part(&source.text));
        text.push('\n');
    }
    let name = format!("{}__{}", case.name().replace("::", "__"), arch_name(arch));
    snapshot("../snapshots/kernels", &name, &text);
    Ok(())
}

/// The message for a text that is wrong, as a snapshot.
fn error(case: &Case, _: &str) -> Result<(), Failed> {
    let message = match case.parse() {
        Err(error) => {
            let source = miette::NamedSource::new("graph.rtrt", case.graph.clone());
            let report = miette::Report::new(error).with_source_code(source);
            let handler =
                miette::GraphicalReportHandler::new_themed(miette::GraphicalTheme::none()).with_width(90);
            let mut text = String::new();
            handler.render_report(&mut text, report.as_ref())?;
            text
        }
        Ok(graph) => match specialize::bind(&graph, &[]).map_err(|error| error.to_string()) {
            Err(message) => message,
            Ok(bindings) => match specialize::specialize(&graph, &bindings) {
                Err(error) => error.to_string(),
                Ok(_) => return Err("nothing is wrong with this graph".into()),
            },
        },
    };
    snapshot(
        "../snapshots/errors",
        &format!("text__{}", case.name().replace("::", "__")),
        &message,
    );
    Ok(())
}

fn snapshot(folder: &str, name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(folder);
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}
