//! The templates: each is a `.cu.tera` file, a context struct and three functions.
//!
//! Adding one is adding a module with a `pub static TEMPLATE: Template` and listing it in
//! [`TEMPLATES`]; `templates/README.md` has the recipe.

pub mod attention_decode;
pub mod attention_mma;
pub mod attention_simt;
pub mod attention_stream;
pub mod attention_wgmma;
pub mod best_boxes;
pub mod column;
pub mod gemm_direct;
pub mod gemm_mma;
pub mod gemm_simt;
pub mod gemm_wgmma;
pub mod gemv;
pub mod indexed;
pub mod pointwise;
pub mod row;
pub mod transpose;
pub mod transpose_block;
pub mod window_mma;
pub mod window_planes;
pub mod window_strip;
pub mod window_taps;
pub mod window_wgmma;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Serialize;
use tera::{Context, Tera};

use super::device::Device;
use super::error::KernelError;
use super::header;
use super::sharing::shared_us;
use super::source::{Arch, Launch, Source, Variant};
use super::spec::{KernelOptions, KernelSpec};

/// One way to make kernels.
pub struct Template {
    /// Stem of the `.cu.tera` file.
    pub name: &'static str,
    pub text: &'static str,
    /// Ways to solve the problem with their analytic times, none where it is not for this
    /// template.
    pub variants: fn(&KernelSpec, Arch) -> Vec<Variant>,
    pub render: fn(&KernelSpec, &Variant, Arch) -> Result<Source, KernelError>,
    /// Names of the fields of its context, for the test that compares them with `text`.
    pub fields: fn() -> Vec<String>,
}

/// Every template. Those that solve a problem best come first, which breaks ties.
pub static TEMPLATES: &[&Template] = &[
    &pointwise::TEMPLATE,
    &transpose_block::TEMPLATE,
    &transpose::TEMPLATE,
    &row::TEMPLATE,
    &column::TEMPLATE,
    &gemv::TEMPLATE,
    &gemm_direct::TEMPLATE,
    &gemm_mma::TEMPLATE,
    &gemm_wgmma::TEMPLATE,
    &gemm_simt::TEMPLATE,
    &attention_stream::TEMPLATE,
    &attention_wgmma::TEMPLATE,
    &attention_mma::TEMPLATE,
    &attention_simt::TEMPLATE,
    &attention_decode::TEMPLATE,
    &window_planes::TEMPLATE,
    &window_wgmma::TEMPLATE,
    &window_mma::TEMPLATE,
    &window_strip::TEMPLATE,
    &window_taps::TEMPLATE,
    &best_boxes::TEMPLATE,
    &indexed::TEMPLATE,
];

/// Ways to solve `spec` on `arch`, the one predicted fastest first; never empty for a region
/// whose ops have generated code. Where executions share the device, times are those of a launch of one of them.
pub fn variants(spec: &KernelSpec, arch: Arch) -> Vec<Variant> {
    let mut found: Vec<Variant> = TEMPLATES
        .iter()
        .flat_map(|template| (template.variants)(spec, arch))
        .collect();
    if spec.options.is_crowded() {
        for variant in &mut found {
            if let Ok(source) = render(spec, variant, arch) {
                let device = Device::of(arch);
                variant.predicted_us = shared_us(variant, &source.launch, spec.options.n_contexts, device);
            }
        }
    }
    found.sort_by(|a, b| a.predicted_us.total_cmp(&b.predicted_us));
    found
}

/// The kernel of one variant.
///
/// # Errors
/// If the variant is not one of [`variants`].
pub fn render(spec: &KernelSpec, variant: &Variant, arch: Arch) -> Result<Source, KernelError> {
    let template = by_name(&variant.template).ok_or_else(|| KernelError::UnknownTemplate {
        template: variant.template.clone(),
    })?;
    let mut source = (template.render)(spec, variant, arch)?;
    source.header = header::problem(spec, variant, arch);
    Ok(source)
}

pub fn by_name(name: &str) -> Option<&'static Template> {
    TEMPLATES.iter().copied().find(|template| template.name == name)
}

/// What templates include, by the names that they do it by.
static PIECES: &[&[(&str, &str)]] = &[gemm_wgmma::PIECES];

static TERA: LazyLock<Tera> = LazyLock::new(|| {
    let mut tera = Tera::default();
    tera.autoescape_on(Vec::<&str>::new());
    let whole = TEMPLATES.iter().map(|template| (template.name, template.text));
    let pieces = PIECES.iter().copied().flatten().copied();
    tera.add_raw_templates(whole.chain(pieces))
        .expect("templates are parsed by the tests");
    tera
});

/// Fills in a template.
pub fn fill<C: Serialize>(template: &Template, context: &C) -> Result<String, KernelError> {
    let failed = |error: tera::Error| KernelError::Template {
        template: template.name,
        message: error.to_string(),
    };
    let context = Context::from_serialize(context).map_err(failed)?;
    TERA.render(template.name, &context).map_err(failed)
}

/// A knob that the variant must have.
pub fn knob(
    template: &'static Template,
    variant: &Variant,
    name: &'static str,
) -> Result<usize, KernelError> {
    variant
        .knobs
        .get(name)
        .and_then(|&value| usize::try_from(value).ok())
        .ok_or(KernelError::MissingKnob {
            template: template.name,
            knob: name,
        })
}

/// Whether the blocks of later kernels find room beside those of a launch: with at most one of its own, an SM has as
/// much left as any other. Where there are more, later ones would crowd on the SMs that are done first; and where
/// several executions share the device, they would wait in room that others need.
fn may_release(launch: &Launch, arch: Arch, options: KernelOptions) -> bool {
    !options.is_crowded() && launch.grid[0] <= Device::of(arch).n_sms
}

/// The launch with at least half of an SM's shared memory, where it has at most one block for each and later launches
/// may begin beside it: then an SM has one of its blocks and one of the next launch's, which would crowd on the SMs
/// that are free otherwise.
fn halving(launch: Launch, arch: Arch, options: KernelOptions) -> Launch {
    let overlaps = arch.sm >= 90 && may_release(&launch, arch, options);
    let half = if overlaps { half_smem_bytes(arch) } else { 0 };
    Launch {
        smem_bytes: launch
            .smem_bytes
            .max(u32::try_from(half).expect("an SM has less")),
        ..launch
    }
}

/// Shared memory of a block where an SM has two.
fn half_smem_bytes(arch: Arch) -> usize {
    /// What a block takes beside its dynamic memory: the system's share, and static variables.
    const RESERVED: usize = 2048;
    Device::of(arch).smem_per_sm as usize / 2 - RESERVED
}

/// A variant of `template`.
pub fn variant(template: &str, knobs: &[(&str, usize)], predicted_us: f64) -> Variant {
    let knobs: BTreeMap<String, i64> = knobs
        .iter()
        .map(|&(name, value)| (name.to_owned(), i64::try_from(value).expect("knobs are small")))
        .collect();
    Variant {
        template: template.to_owned(),
        knobs,
        predicted_us,
        registers: None,
    }
}

/// Names of the fields that a context serializes to.
pub fn field_names<C: Serialize>(context: &C) -> Vec<String> {
    match serde_json::to_value(context) {
        Ok(serde_json::Value::Object(fields)) => fields.keys().cloned().collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Launches may overlap where kernels wait; one that does not would read too early. What is read before a wait is
    /// refused by the emulator, but for weights (`tests/hostexec`).
    #[test]
    fn kernels_wait_for_their_predecessors() {
        const WAIT: &str = "\n  rt_await_predecessors();\n";
        for template in TEMPLATES {
            let text = template
                .text
                .replace("{% if not early %}", "")
                .replace("{% if early %}", "\n");
            assert!(text.contains(WAIT), "template `{}`", template.name);
        }
    }

    #[test]
    fn contexts_and_templates_name_the_same_variables() {
        for template in TEMPLATES {
            let used: BTreeSet<String> = TERA
                .get_template_variables(template.name)
                .unwrap()
                .into_iter()
                .map(str::to_owned)
                .collect();
            let given: BTreeSet<String> = (template.fields)().into_iter().collect();
            assert_eq!(used, given, "template `{}`", template.name);
        }
    }
}
