//! Kernels for many shapes: texts that differ in numbers alone become one, whose numbers are arguments.
//!
//! What the numbers of a text mean plays no part. Texts with the same tokens but for integers are members
//! of one family; where their integers differ, the family takes an argument, and each member passes the
//! very number that its own text had. So a family computes what its members compute, and a template knows
//! nothing of it. Places that need constants (`constants.rs`) are not replaced: texts that differ there are
//! of different families. Constants that are computed to one number in all members (`value.rs`) stay constants, so
//! that a loop which has one turn in all of them is none.

mod constants;
mod tokens;
mod value;

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;

use super::prelude::kernel_part;
use super::source::{Param, Source};
use constants::{Analysis, analyse};
use tokens::{Kind, Suffix, Token, tokens};
use value::{Values, value};

/// Most numbers that a family takes as arguments: kernel parameters are few kilobytes.
const MAX_DIMS: usize = 128;
/// What arguments are called, before their number.
const DIM: &str = "dim";

/// Sources that execute one text, as places in a list of them, each with its own arguments.
pub struct Family {
    pub members: Vec<(usize, Source)>,
}

/// Families among `sources`, each of at least two texts; sources that are in none are left out.
pub fn families(sources: &[Source]) -> Vec<Family> {
    let mut users: Vec<(&Source, Vec<usize>)> = Vec::new();
    let mut known: HashMap<&str, usize> = HashMap::new();
    for (number, source) in sources.iter().enumerate() {
        let own = *known.entry(&source.text).or_insert_with(|| {
            users.push((source, Vec::new()));
            users.len() - 1
        });
        users[own].1.push(number);
    }
    let forms: Vec<Option<Form<'_>>> = users.iter().map(|(source, _)| Form::of(source)).collect();
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut by_key: HashMap<&str, usize> = HashMap::new();
    for (number, form) in forms.iter().enumerate() {
        let Some(form) = form else { continue };
        let own = *by_key.entry(&form.key).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[own].push(number);
    }
    let several = groups.iter().filter(|group| group.len() > 1);
    let families = several.filter_map(|group| {
        let own: Vec<&Form<'_>> = group
            .iter()
            .filter_map(|&number| forms[number].as_ref())
            .collect();
        let general = General::of(&own)?;
        let members = group.iter().enumerate().flat_map(|(member, &number)| {
            let users = users[number].1.iter();
            let general = &general;
            users.map(move |&user| (user, general.as_member(member, &sources[user])))
        });
        Some(Family {
            members: members.collect(),
        })
    });
    families.collect()
}

/// A source in tokens, and what it shares with the other members of its family.
struct Form<'a> {
    source: &'a Source,
    tokens: Vec<Token<'a>>,
    analysis: Analysis,
    /// Where the list of parameters ends.
    params_end: usize,
    key: String,
}

impl<'a> Form<'a> {
    fn of(source: &'a Source) -> Option<Self> {
        let kernel = kernel_part(&source.text);
        let tokens = tokens(kernel);
        let (params_end, body) = entry(&tokens, &source.name)?;
        let analysis = analyse(&tokens, body);
        let mut key = source.text[..source.text.len() - kernel.len()].to_owned();
        for (token, &is_free) in tokens.iter().zip(&analysis.is_free) {
            match token.kind {
                Kind::Integer(suffix) if is_free => write!(key, "\u{1}{suffix:?}").expect("a String"),
                Kind::Comment => key.extend(pieces(token.text).filter(|piece| !is_number(piece))),
                _ => key.push_str(token.text),
            }
        }
        let kinds = source.params.iter().map(|param| match param {
            Param::TensorMap { input, .. } => format!("map {input}"),
            Param::Dim(_) => "dim".to_owned(),
            other => format!("{other:?}"),
        });
        let kinds: Vec<String> = kinds.collect();
        write!(key, "\u{1}{}{kinds:?}{:?}", source.name, source.launch.block).expect("a String");
        Some(Form {
            source,
            tokens,
            analysis,
            params_end,
            key,
        })
    }

    /// The number of each declaration, where it is known.
    fn computed(&self) -> Vec<Option<i64>> {
        let mut names: Values<'_> = HashMap::new();
        let declarations = self.analysis.declarations.iter();
        let numbers = declarations.map(|own| {
            let number = value(&self.tokens[own.value.clone()], &names).filter(|_| own.is_int);
            // Two declarations of a name are in different places, which are not told apart.
            let known = names.entry(self.tokens[own.name].text).or_insert(number);
            if *known != number {
                *known = None;
            }
            number
        });
        numbers.collect()
    }

    /// Places of literals that may be replaced.
    fn free(&self) -> impl Iterator<Item = usize> {
        let places = self.analysis.is_free.iter().enumerate();
        places.filter(|(_, is_free)| **is_free).map(|(at, _)| at)
    }
}

/// Where the parameters of the kernel end, and its body. None where the text is not one kernel.
fn entry(tokens: &[Token<'_>], name: &str) -> Option<(usize, Range<usize>)> {
    let name = tokens.iter().position(|token| token.is_word(name))?;
    let open = (name..tokens.len()).find(|&at| tokens[at].is_mark('('))?;
    let params_end = closing(tokens, open, ['(', ')'])?;
    let body = (params_end..tokens.len()).find(|&at| tokens[at].is_mark('{'))?;
    let end = closing(tokens, body, ['{', '}'])?;
    Some((params_end, body..end))
}

/// The bracket that closes the one at `open`.
fn closing(tokens: &[Token<'_>], open: usize, [opens, closes]: [char; 2]) -> Option<usize> {
    let mut depth = 0usize;
    (open..tokens.len()).find(|&at| {
        if tokens[at].is_mark(opens) {
            depth += 1;
        } else if tokens[at].is_mark(closes) {
            depth -= 1;
        }
        depth == 0
    })
}

/// Numbers and what is between them.
fn pieces(comment: &str) -> impl Iterator<Item = &str> {
    let mut rest = comment;
    std::iter::from_fn(move || {
        let is_digit = rest.chars().next()?.is_ascii_digit();
        let len = rest.find(|c: char| c.is_ascii_digit() != is_digit);
        let (piece, after) = rest.split_at(len.unwrap_or(rest.len()));
        rest = after;
        Some(piece)
    })
}

fn is_number(piece: &str) -> bool {
    piece.starts_with(|c: char| c.is_ascii_digit())
}

/// The arguments of a family: for each, its value in every member.
struct Dims {
    values: Vec<Vec<i32>>,
    /// For each token that is replaced, the number of its argument.
    places: HashMap<usize, usize>,
    /// What is computed to one number from what differs: places of the expression, and the number.
    common: Vec<(Range<usize>, i64)>,
}

impl Dims {
    fn of(members: &[&Form<'_>]) -> Self {
        let mut dims = Dims {
            values: Vec::new(),
            places: HashMap::new(),
            common: common(members),
        };
        let mut numbers: HashMap<Vec<i32>, usize> = HashMap::new();
        for at in members[0].free() {
            if dims.is_common(at) {
                continue;
            }
            let value = |form: &&Form<'_>| {
                let value = form.tokens[at].argument();
                value.expect("literals that may be replaced fit an argument")
            };
            let own: Vec<i32> = members.iter().map(value).collect();
            if own.iter().all(|value| *value == own[0]) {
                continue;
            }
            let number = *numbers.entry(own.clone()).or_insert_with(|| {
                dims.values.push(own);
                dims.values.len() - 1
            });
            dims.places.insert(at, number);
        }
        dims
    }

    /// Whether a token is part of what is computed to one number.
    fn is_common(&self, at: usize) -> bool {
        self.common.iter().any(|(place, _)| place.contains(&at))
    }

    /// What is written for the literal at `at`, which has the literal's type.
    fn replacement(&self, at: usize, suffix: Suffix) -> Option<String> {
        let name = format!("{DIM}{}", self.places.get(&at)?);
        Some(match suffix {
            Suffix::Int => name,
            Suffix::Unsigned => format!("static_cast<unsigned>({name})"),
            Suffix::LongLong => format!("static_cast<long long>({name})"),
        })
    }

    /// A comment with the names of what differs in it.
    fn comment(&self, at: usize, members: &[&Form<'_>]) -> String {
        let own: Vec<Vec<&str>> = members
            .iter()
            .map(|form| pieces(form.tokens[at].text).collect())
            .collect();
        let mut text = String::new();
        for (position, piece) in own[0].iter().enumerate() {
            let all: Vec<&str> = own.iter().map(|pieces| pieces[position]).collect();
            if all.iter().all(|other| other == piece) {
                text.push_str(piece);
                continue;
            }
            let numbers: Option<Vec<i32>> = all.iter().map(|piece| piece.parse().ok()).collect();
            let known = self
                .values
                .iter()
                .position(|values| Some(values) == numbers.as_ref());
            match known {
                Some(number) => write!(text, "{DIM}{number}").expect("a String"),
                None => text.push_str(".."),
            }
        }
        text
    }
}

/// Constants that are computed to one number in all members, where what they are computed from differs.
fn common(members: &[&Form<'_>]) -> Vec<(Range<usize>, i64)> {
    let computed: Vec<Vec<Option<i64>>> = members.iter().map(|form| form.computed()).collect();
    let first = members[0];
    let differs = |at: usize| {
        let text = first.tokens[at].text;
        first.analysis.is_free[at] && members.iter().any(|form| form.tokens[at].text != text)
    };
    let dependents = dependents(first, differs);
    let found = first
        .analysis
        .declarations
        .iter()
        .enumerate()
        .filter_map(|(number, own)| {
            let is_one = |value: &i64| computed.iter().all(|other| other[number] == Some(*value));
            let value = computed[0][number].filter(is_one)?;
            dependents
                .contains(&own.keyword)
                .then(|| (own.value.clone(), value))
        });
    found.collect()
}

/// What the members of a family execute.
struct General {
    text: Arc<str>,
    header: String,
    dims: Dims,
}

impl General {
    /// None where the texts cannot be one.
    fn of(members: &[&Form<'_>]) -> Option<Self> {
        let first = members[0];
        let is_taken = |token: &Token<'_>| {
            let digits = token.text.strip_prefix(DIM).filter(|_| token.kind == Kind::Word);
            digits.is_some_and(is_number)
        };
        let dims = Dims::of(members);
        if dims.values.len() > MAX_DIMS || first.tokens.iter().any(is_taken) {
            return None;
        }
        let header = format!(
            "// family   one of {} shapes, in which numbers are arguments\n{}",
            members.len(),
            first.source.header
        );
        Some(General {
            text: text(members, &dims).into(),
            header,
            dims,
        })
    }

    /// A source whose text is that of a member. Operands are its own: texts may be equal where tensor maps differ.
    fn as_member(&self, member: usize, source: &Source) -> Source {
        let dims = self.dims.values.iter().map(|values| Param::Dim(values[member]));
        Source {
            text: Arc::clone(&self.text),
            header: self.header.clone(),
            params: source.params.iter().cloned().chain(dims).collect(),
            ..source.clone()
        }
    }
}

fn text(members: &[&Form<'_>], dims: &Dims) -> String {
    let first = members[0];
    let kernel = kernel_part(&first.source.text);
    let mut text = first.source.text[..first.source.text.len() - kernel.len()].to_owned();
    let variable = variable_keywords(first, dims);
    for (at, token) in first.tokens.iter().enumerate() {
        if at == first.params_end {
            for number in 0..dims.values.len() {
                write!(text, ",\n    const int {DIM}{number}").expect("a String");
            }
        }
        let common = dims.common.iter().find(|(place, _)| place.contains(&at));
        if let Some((place, number)) = common {
            if place.start == at {
                write!(text, " {number}").expect("a String");
            }
            continue;
        }
        let replaced = match token.kind {
            Kind::Integer(suffix) => dims.replacement(at, suffix),
            Kind::Comment => Some(dims.comment(at, members)),
            _ if variable.contains(&at) => Some("const".to_owned()),
            _ => None,
        };
        text.push_str(replaced.as_deref().unwrap_or(token.text));
    }
    text
}

/// Places of the `constexpr` of what is computed from tokens that differ, also through other names.
fn dependents(form: &Form<'_>, differs: impl Fn(usize) -> bool) -> HashSet<usize> {
    let mut names: HashSet<&str> = HashSet::new();
    let mut keywords = HashSet::new();
    loop {
        let before = keywords.len();
        for own in &form.analysis.declarations {
            let depends = own.value.clone().any(|at| {
                let token = form.tokens[at];
                differs(at) || token.kind == Kind::Word && names.contains(token.text)
            });
            if depends && keywords.insert(own.keyword) {
                names.insert(form.tokens[own.name].text);
            }
        }
        if keywords.len() == before {
            return keywords;
        }
    }
}

/// Places of the `constexpr` of what depends on an argument.
fn variable_keywords(form: &Form<'_>, dims: &Dims) -> HashSet<usize> {
    let mut keywords = dependents(form, |at| dims.places.contains_key(&at));
    for own in &form.analysis.declarations {
        if dims.is_common(own.value.start) {
            keywords.remove(&own.keyword);
        }
    }
    keywords
}

#[cfg(test)]
mod tests {
    use super::super::prelude::{COMMON, translation_unit};
    use super::super::source::Launch;
    use super::*;

    fn source(body: &str) -> Source {
        let kernel = format!(
            "// Rows of {}.\nextern \"C\" __global__ void __launch_bounds__(128) k(\n    float* out0) {{\n{body}}}\n",
            body.len()
        );
        Source {
            name: "k".to_owned(),
            header: "// region\n".to_owned(),
            text: translation_unit(COMMON, &kernel),
            template: "pointwise",
            launch: Launch::in_a_row(body.len(), 128, 0),
            params: vec![Param::Output(0)],
            workspace_bytes: 0,
        }
    }

    fn bodies(texts: &[&str]) -> Vec<Source> {
        texts.iter().map(|text| source(text)).collect()
    }

    /// The only family of some sources.
    fn family(texts: &[&str]) -> Vec<Source> {
        let sources = bodies(texts);
        let mut all = families(&sources);
        assert_eq!(all.len(), 1, "{texts:?}");
        let members = all.remove(0).members;
        let numbers: Vec<usize> = members.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, (0..sources.len()).collect::<Vec<_>>());
        for ((_, member), source) in members.iter().zip(&sources) {
            assert_eq!(member.launch, source.launch);
            assert_eq!(member.text, members[0].1.text);
        }
        members.into_iter().map(|(_, source)| source).collect()
    }

    fn dims(source: &Source) -> Vec<i32> {
        let dims = source.params.iter().filter_map(|param| match param {
            Param::Dim(value) => Some(*value),
            _ => None,
        });
        dims.collect()
    }

    fn body(source: &Source) -> &str {
        let kernel = kernel_part(&source.text);
        kernel.split_once(") {\n").unwrap().1.strip_suffix("}\n").unwrap()
    }

    #[test]
    fn what_differs_becomes_an_argument_and_equal_numbers_share_one() {
        let own = family(&[
            "if (x < 97) y = x * 768 + 97;\n",
            "if (x < 98) y = x * 768 + 98;\n",
            "if (x < 5) y = x * 768 + 5;\n",
        ]);
        assert_eq!(body(&own[0]), "if (x < dim0) y = x * 768 + dim0;\n");
        assert!(own[0].text.contains("float* out0,\n    const int dim0) {"));
        assert_eq!(own.iter().map(dims).collect::<Vec<_>>(), [[97], [98], [5]]);
        // What two places have in common by chance in some members only stays apart.
        let own = family(&["x = 4 + 4;\n", "x = 5 + 6;\n"]);
        assert_eq!(body(&own[0]), "x = dim0 + dim1;\n");
        assert_eq!(own.iter().map(dims).collect::<Vec<_>>(), [[4, 4], [5, 6]]);
    }

    #[test]
    fn what_is_computed_from_arguments_is_no_constant() {
        let text = |n: usize| {
            format!(
                "constexpr int kM = {n};\nconstexpr int kT = kM * 2;\nconstexpr int kN = 3;\nx[kN] = kT;\n"
            )
        };
        let own = family(&[&text(7), &text(9)]);
        assert_eq!(
            body(&own[0]),
            "const int kM = dim0;\nconst int kT = kM * 2;\nconstexpr int kN = 3;\nx[kN] = kT;\n"
        );
    }

    #[test]
    fn what_is_computed_to_one_number_stays_a_constant() {
        let text = |n: usize| {
            format!(
                "constexpr int kKeys = {n};\nconstexpr int kTiles = (kKeys + 63) / 64;\nconstexpr int kTwo = kTiles * 2;\nif (x < kKeys) y = kTwo;\n"
            )
        };
        let own = family(&[&text(70), &text(99), &text(128)]);
        assert_eq!(
            body(&own[0]),
            "const int kKeys = dim0;\nconstexpr int kTiles = 2;\nconstexpr int kTwo = 4;\nif (x < kKeys) y = kTwo;\n"
        );
        let own = family(&[&text(70), &text(200)]);
        assert!(body(&own[0]).contains("const int kTiles = (kKeys + 63) / 64;"));
        // A name that has two numbers is not computed with.
        let twice = |n: usize| {
            format!("{{ constexpr int kA = {n}; }}\nconstexpr int kA = 64;\nconstexpr int kB = kA / {n};\n")
        };
        let own = family(&[&twice(33), &twice(34)]);
        assert!(
            body(&own[0]).contains("const int kB = kA / dim0;"),
            "{}",
            body(&own[0])
        );
    }

    #[test]
    fn arguments_have_the_types_of_the_literals() {
        let own = family(&["x = 3u * 4000000000u + 7ll;\n", "x = 4u * 4000000001u + 8ll;\n"]);
        assert_eq!(
            body(&own[0]),
            "x = static_cast<unsigned>(dim0) * static_cast<unsigned>(dim1) + static_cast<long long>(dim2);\n"
        );
        assert_eq!(dims(&own[1]), [4, (4_000_000_001u32).cast_signed(), 8]);
        let apart = [
            "x = 3 * i;\n",
            "x = 3u * i;\n",
            "x = 5000000000 * i;\n",
            "x = 5000000001 * i;\n",
        ];
        assert!(families(&bodies(&apart)).is_empty());
    }

    #[test]
    fn constants_and_other_tokens_keep_kernels_apart() {
        for texts in [
            ["float x[3];\n", "float x[4];\n"],
            ["rt_load<3>(x);\n", "rt_load<4>(x);\n"],
            ["x = 1.0f;\n", "x = 2.0f;\n"],
            ["x = 0x10;\n", "x = 0x11;\n"],
            ["f(\"3\");\n", "f(\"4\");\n"],
            [
                "#pragma unroll 3\nfor (;;) {}\n",
                "#pragma unroll 4\nfor (;;) {}\n",
            ],
            ["x = y + 3;\n", "x = z + 3;\n"],
            [
                "constexpr int kA = 3;\nfloat x[kA];\n",
                "constexpr int kA = 4;\nfloat x[kA];\n",
            ],
        ] {
            assert!(families(&bodies(&texts)).is_empty(), "{texts:?}");
        }
        let mut other = bodies(&["x = 3;\n", "x = 4;\n"]);
        other[1].launch.block = [64, 1, 1];
        assert!(families(&other).is_empty());
        let mut taken = bodies(&["dim0 = 3;\n", "dim0 = 4;\n"]);
        assert!(families(&taken).is_empty());
        taken.truncate(1);
        assert!(families(&taken).is_empty());
    }

    #[test]
    fn comments_name_the_arguments() {
        let own = family(&["x = 30; // 30 of 8 and 1\n", "x = 40; // 40 of 8 and 2\n"]);
        assert_eq!(body(&own[0]), "x = dim0; // dim0 of 8 and ..\n");
    }

    #[test]
    fn sources_of_one_text_have_the_same_arguments() {
        let sources = bodies(&["x = 3;\n", "x = 4;\n", "x = 3;\n"]);
        let all = families(&sources);
        let mut numbers: Vec<(usize, Vec<i32>)> = all[0]
            .members
            .iter()
            .map(|(number, own)| (*number, dims(own)))
            .collect();
        numbers.sort();
        assert_eq!(numbers, [(0, vec![3]), (1, vec![4]), (2, vec![3])]);
    }
}
