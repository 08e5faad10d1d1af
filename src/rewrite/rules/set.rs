//! The rules a build uses: the embedded files, a user's folder over them, and switches.
//!
//! Files are read in the order of their names, so a set is the same on every machine.
//! A rule of a user's folder replaces the embedded rule of its name.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use include_dir::{Dir, include_dir};

use super::ast::{Arrow, FileId, Header, Horizontal, Item, Kernel, Numerics, Rule, Span};
use super::error::{PlacedError, RuleError, RuleErrors, closest};
use super::lexer::line_of;
use super::{check, parser};
use crate::rewrite::prepack::WeightOrders;

static EMBEDDED: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/rules");

/// A rule file as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleFile {
    /// Below `rules/` or the user's folder, with `/` between parts.
    pub path: String,
    pub text: Arc<str>,
}

/// Which rules to use.
#[derive(Clone, Debug)]
pub struct RuleOptions {
    /// A folder, or one file, whose rules are added to the embedded ones, or replace them by name.
    pub dir: Option<PathBuf>,
    /// Names of rules, or tags, that are not to run.
    pub disabled: Vec<String>,
    /// Names of rules, or tags, of `default off` rulesets that are to run.
    pub enabled: Vec<String>,
    /// Whether rules of `default off` rulesets are kept too.
    pub all: bool,
    /// Rules that may move results further than this are left out; `Exact` also leaves out
    /// those that promise nothing for numbers that are not finite.
    pub numerics: Numerics,
}

impl Default for RuleOptions {
    fn default() -> Self {
        RuleOptions {
            dir: None,
            disabled: Vec::new(),
            enabled: Vec::new(),
            all: false,
            numerics: Numerics::Approx(u32::MAX),
        }
    }
}

/// Checked rules, in file order.
#[derive(Clone, Debug, Default)]
pub struct RuleSet {
    pub files: Vec<RuleFile>,
    /// How many of these are embedded; the others are the user's.
    n_embedded: usize,
    pub rules: Vec<Rule>,
    pub horizontals: Vec<Horizontal>,
    pub kernels: Vec<Kernel>,
    /// How weights are stored that programs for other shapes read, too; none where there are none.
    pub weight_orders: WeightOrders,
}

static BUILTIN: LazyLock<RuleSet> = LazyLock::new(|| {
    RuleSet::load(&RuleOptions::default())
        .unwrap_or_else(|errors| panic!("tests/rules.rs checked the embedded rules: {errors:?}"))
});

impl RuleSet {
    /// The rules that run on terms, in an e-graph; `~>` rules have run before there is one.
    pub fn of_terms(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter().filter(|rule| rule.arrow != Arrow::Replace)
    }

    /// The embedded rules.
    pub fn builtin() -> &'static RuleSet {
        &BUILTIN
    }

    /// The embedded rules with the user's folder and switches applied.
    ///
    /// # Errors
    /// If a file cannot be read or holds mistakes (all of them are reported), or a switch
    /// names no rule.
    pub fn load(options: &RuleOptions) -> Result<RuleSet, RuleErrors> {
        let mut files = embedded_files();
        let n_embedded = files.len();
        if let Some(dir) = &options.dir {
            files.extend(folder_files(dir)?);
        }
        let mut set = RuleSet::from_files(files, n_embedded)?;
        set.check_switches(options)?;
        set.keep(options);
        Ok(set)
    }

    /// The rules of one text, alone; for tests and for trying a rule.
    ///
    /// # Errors
    /// If the text holds mistakes.
    pub fn from_text(path: &str, text: &str) -> Result<RuleSet, RuleErrors> {
        let file = RuleFile {
            path: path.to_owned(),
            text: Arc::from(text),
        };
        RuleSet::from_files(vec![file], 1)
    }

    /// Parses and checks files, of which the first `n_base` may be overridden by the others.
    fn from_files(files: Vec<RuleFile>, n_base: usize) -> Result<RuleSet, RuleErrors> {
        let mut errors = Vec::new();
        let mut items = Vec::new();
        for (id, file) in (0u32..).map(FileId).zip(&files) {
            items.extend(parser::parse(id, &file.text, &mut errors));
        }
        check::check(&items, n_base, &mut errors);
        if !errors.is_empty() {
            return Err(place_errors(errors, &files, n_base));
        }
        let mut set = RuleSet {
            files,
            n_embedded: n_base,
            ..RuleSet::default()
        };
        for item in items {
            set.add(item);
        }
        Ok(set)
    }

    /// Adds a block, in the place of an earlier one of its kind and name.
    fn add(&mut self, item: Item) {
        match item {
            Item::Ruleset(_) => {}
            Item::Rule(rule) => put(&mut self.rules, rule, |rule| &rule.header.name.text),
            Item::Horizontal(rule) => put(&mut self.horizontals, rule, |rule| &rule.header.name.text),
            Item::Kernel(kernel) => put(&mut self.kernels, kernel, |kernel| &kernel.name.text),
        }
    }

    /// Headers of rules and horizontals, in file order of their kinds.
    pub fn headers(&self) -> impl Iterator<Item = &Header> {
        let rules = self.rules.iter().map(|rule| &rule.header);
        rules.chain(self.horizontals.iter().map(|rule| &rule.header))
    }

    fn check_switches(&self, options: &RuleOptions) -> Result<(), RuleErrors> {
        for name in options.disabled.iter().chain(&options.enabled) {
            if !self.headers().any(|header| is_named(header, name)) {
                let names = self.headers().map(|header| header.name.text.as_str());
                let tags = self.headers().flat_map(|header| &header.tags).map(String::as_str);
                return Err(RuleErrors::NoSuchRule {
                    name: name.clone(),
                    hint: closest(name, names.chain(tags)).map(str::to_owned),
                });
            }
        }
        Ok(())
    }

    fn keep(&mut self, options: &RuleOptions) {
        let keeps = |header: &Header| {
            let named = |names: &[String]| names.iter().any(|name| is_named(header, name));
            (header.enabled || options.all || named(&options.enabled))
                && !named(&options.disabled)
                && header.numerics <= options.numerics
                && !(header.finite && options.numerics == Numerics::Exact)
        };
        self.rules.retain(|rule| keeps(&rule.header));
        self.horizontals.retain(|rule| keeps(&rule.header));
    }

    /// The set without the rules of a name or tag.
    #[must_use]
    pub fn without(&self, name: &str) -> RuleSet {
        let mut set = self.clone();
        set.rules.retain(|rule| !is_named(&rule.header, name));
        set.horizontals.retain(|rule| !is_named(&rule.header, name));
        set
    }

    /// The set, where rules of a name or tag fire only where `condition` holds, too.
    ///
    /// # Errors
    /// If the condition cannot be read.
    pub fn restricted(&self, name: &str, condition: &str) -> Result<RuleSet, RuleErrors> {
        let text =
            format!("rule r : canonical numerics(exact) {{ relu(x) ~> x where {condition} doc \"-\" }}");
        let conditions = RuleSet::from_text("condition", &text)?.rules.remove(0).conditions;
        let mut set = self.clone();
        for rule in set.rules.iter_mut().filter(|rule| is_named(&rule.header, name)) {
            rule.conditions.extend(conditions.iter().cloned());
        }
        Ok(set)
    }

    /// Where a span begins, as `layout.rules:12`.
    pub fn place(&self, span: Span) -> String {
        let file = &self.files[span.file.0 as usize];
        format!("{}:{}", file.path, line_of(&file.text, span.start))
    }

    /// Whether a span is in a file of the user's.
    pub fn is_added(&self, span: Span) -> bool {
        span.file.0 as usize >= self.n_embedded
    }

    /// The text of a span.
    pub fn text(&self, span: Span) -> &str {
        &self.files[span.file.0 as usize].text[span.start as usize..span.end as usize]
    }

    /// Mistakes found in rules of this set, with the text they are in.
    pub fn mistakes(&self, errors: Vec<RuleError>) -> RuleErrors {
        place_errors(errors, &self.files, self.n_embedded)
    }

    /// The rule of a name.
    pub fn rule(&self, name: &str) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.header.name.text == name)
    }
}

fn is_named(header: &Header, name: &str) -> bool {
    header.name.text == name || header.tags.iter().any(|tag| tag == name)
}

fn put<T>(list: &mut Vec<T>, item: T, name: impl Fn(&T) -> &String) {
    match list.iter().position(|known| name(known) == name(&item)) {
        Some(position) => list[position] = item,
        None => list.push(item),
    }
}

fn embedded_files() -> Vec<RuleFile> {
    let mut files = BTreeMap::new();
    collect_embedded(&EMBEDDED, &mut files);
    files.into_values().collect()
}

fn collect_embedded(dir: &Dir<'_>, into: &mut BTreeMap<String, RuleFile>) {
    for file in dir.files() {
        if let (true, Some(text)) = (is_rule_file(file.path()), file.contents_utf8()) {
            let path = slashed(file.path());
            let text = Arc::from(text);
            into.insert(path.clone(), RuleFile { path, text });
        }
    }
    for inner in dir.dirs() {
        collect_embedded(inner, into);
    }
}

fn folder_files(dir: &Path) -> Result<Vec<RuleFile>, RuleErrors> {
    let mut files = BTreeMap::new();
    if dir.is_file() {
        let name = dir.file_name().map_or(dir, Path::new);
        read_into(dir, slashed(name), &mut files)?;
        return Ok(files.into_values().collect());
    }
    collect_folder(dir, dir, &mut files)?;
    Ok(files.into_values().collect())
}

fn collect_folder(root: &Path, dir: &Path, into: &mut BTreeMap<String, RuleFile>) -> Result<(), RuleErrors> {
    for entry in fs::read_dir(dir).map_err(|error| unreadable(dir, error))? {
        let path = entry.map_err(|error| unreadable(dir, error))?.path();
        if path.is_dir() {
            collect_folder(root, &path, into)?;
        } else if is_rule_file(&path) {
            let below = slashed(path.strip_prefix(root).unwrap_or(&path));
            read_into(&path, below, into)?;
        }
    }
    Ok(())
}

fn read_into(path: &Path, name: String, into: &mut BTreeMap<String, RuleFile>) -> Result<(), RuleErrors> {
    let text = fs::read_to_string(path).map_err(|error| unreadable(path, error))?;
    let text = Arc::from(text);
    into.insert(name.clone(), RuleFile { path: name, text });
    Ok(())
}

fn unreadable(path: &Path, source: std::io::Error) -> RuleErrors {
    RuleErrors::Unreadable {
        path: path.display().to_string(),
        source,
    }
}

fn is_rule_file(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "rules")
}

fn slashed(path: &Path) -> String {
    let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
    parts.join("/")
}

/// The first `n_base` files are embedded.
fn place_errors(mut errors: Vec<RuleError>, files: &[RuleFile], n_base: usize) -> RuleErrors {
    errors.sort_by_key(|error| error.span);
    let errors = errors
        .into_iter()
        .map(|error| {
            let number = error.span.file.0 as usize;
            let file = &files[number];
            let folder = if number < n_base { "rules/" } else { "" };
            PlacedError::new(error, &format!("{folder}{}", file.path), &file.text)
        })
        .collect();
    RuleErrors::Mistakes { errors }
}
