//! Arguments of `rules`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::build::{BuildArgs, RuleArgs};

#[derive(Debug, Args)]
pub struct RulesArgs {
    #[command(subcommand)]
    pub command: RulesCommand,
}

#[derive(Debug, Subcommand)]
pub enum RulesCommand {
    /// One line per rule: name, phase, numerics, place, what it is for.
    List(RulesListArgs),
    /// One rule with its text.
    Show(RulesShowArgs),
    /// Try rules on pinned and drawn instances: types, numbers, NaN and infinity, and exact
    /// equality in a prime field.
    Check(RulesCheckArgs),
    /// Say where one rule fires in a model, and what keeps it from firing elsewhere.
    Try(RulesTryArgs),
    /// Say what each rule is worth in a model: kernels and predicted time without it.
    Ablate(RulesAblateArgs),
    /// Say which rules make what others look for.
    Graph(RulesGraphArgs),
}

#[derive(Debug, Args)]
pub struct RulesListArgs {
    #[command(flatten)]
    pub rules: RuleArgs,
    /// Machine-readable list on stdout.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct RulesShowArgs {
    pub name: String,
    #[command(flatten)]
    pub rules: RuleArgs,
    /// Machine-readable rule on stdout, its text among it.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct RulesCheckArgs {
    /// Rules, or files of rules; all rules unless given.
    #[arg(value_name = "RULE|FILE")]
    pub subjects: Vec<String>,
    #[command(flatten)]
    pub rules: RuleArgs,
    /// Drawn instances that a rule must keep, for each pinned one.
    #[arg(long, value_name = "N", default_value_t = 60)]
    pub instances: usize,
    /// Also try every small instance: extents up to three, all axes and permutations.
    #[arg(long)]
    pub small_scope: bool,
    /// Machine-readable report on stdout.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct RulesTryArgs {
    /// The rule.
    pub rule: String,
    /// The ONNX model, or a graph in text form (`.rtrt`).
    pub model: PathBuf,
    /// Print every miss, also where only the outermost op of the rule was found.
    #[arg(long)]
    pub all: bool,
    #[command(flatten)]
    pub build: BuildArgs,
    /// Machine-readable report on stdout.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct RulesAblateArgs {
    /// The ONNX model, or a graph in text form (`.rtrt`).
    pub model: PathBuf,
    /// Architecture to predict times for.
    #[arg(long, value_name = "ARCH", default_value = "sm_90a")]
    pub arch: String,
    /// Leave out all rules of a tag at once (`layout`, or several as `layout+vertical`), instead
    /// of one rule at a time; may be repeated.
    #[arg(long, value_name = "TAGS")]
    pub tag: Vec<String>,
    #[command(flatten)]
    pub build: BuildArgs,
    /// Machine-readable report on stdout.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct RulesGraphArgs {
    /// Only what this rule enables, and what enables it.
    pub rule: Option<String>,
    #[command(flatten)]
    pub rules: RuleArgs,
    /// Every pair of rules, instead of what the rules of one file make for those of another.
    #[arg(long)]
    pub all: bool,
    /// In the language of Graphviz.
    #[arg(long)]
    pub dot: bool,
    /// Machine-readable graph on stdout.
    #[arg(long)]
    pub json: bool,
}
