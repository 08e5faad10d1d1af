//! Real models from import to regions: `structure::M` fuses for two archs and every data
//! set's shapes and prints what came out, `kernels::M` says which kernels the regions get and
//! fails where one would do a main loop once per element, `meaning::M` runs the regions on the CPU against the
//! expected outputs, in f32 and with activations stored as f16. Models whose control flow depends on data
//! are run in stages instead: `stages::M`.
//!
//! The models lie in `../shared/models` (or where `RTRT_MODELS` says); without them, and for
//! `meaning` unless `RTRT_TEST_MODELS=1`, the trials print as ignored. Weights are made from
//! their recipes below the target folder. `RTRT_SHOW_REGIONS=1` prints every region,
//! `RTRT_SHOW_ERRORS=1` where f16 loses its digits.

#[path = "open_models/case.rs"]
mod case;
#[path = "open_models/kernels.rs"]
mod kernels;
#[path = "open_models/recipe.rs"]
mod recipe;
#[path = "open_models/report.rs"]
mod report;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use case::Case;
use libtest_mimic::{Arguments, Failed, Trial};

/// Models with live control flow.
const IN_STAGES: [&str; 2] = ["loop_refine_legacy", "cond_gate"];

fn models() -> PathBuf {
    let given = std::env::var_os("RTRT_MODELS").map(PathBuf::from);
    given.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/models"))
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        println!("no models at `{}`: nothing to test", folder.display());
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            path.join("model.onnx").is_file().then_some(())?;
            Some(path.file_name()?.to_str()?.to_owned())
        })
        .collect();
    names.sort();
    names
}

fn trial(
    kind: &str,
    folder: &Path,
    name: &str,
    ignored: bool,
    check: fn(&Case) -> Result<(), String>,
) -> Trial {
    let (from, own) = (folder.join(name), name.to_owned());
    Trial::test(format!("{kind}::{name}"), move || {
        let case = Case::prepare(&from, &own).map_err(Failed::from)?;
        check(&case).map_err(Failed::from)
    })
    .with_ignored_flag(ignored)
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Models are large: one at a time, unless told otherwise.
    arguments.test_threads = arguments.test_threads.or(Some(1));
    let folder = models();
    let ignored = std::env::var_os("RTRT_TEST_MODELS").is_none_or(|value| value != "1");
    let names = names(&folder);
    let mut trials = Vec::new();
    for name in &names {
        if IN_STAGES.contains(&name.as_str()) {
            trials.push(trial("stages", &folder, name, ignored, report::stages));
            continue;
        }
        trials.push(trial("structure", &folder, name, ignored, report::structure));
        trials.push(trial("kernels", &folder, name, ignored, report::kernels));
        trials.push(trial("meaning", &folder, name, ignored, report::meaning));
    }
    trials.push(Trial::test("size::drawn_5000", report::large_graph).with_ignored_flag(ignored));
    libtest_mimic::run(&arguments, trials).exit_code()
}
