//! The text that the members of a family execute, and the arguments of each.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::ops::Range;

use super::form::{Form, Numbers, is_number, pieces};
use super::tokens::{Kind, Suffix, Token};

/// Most numbers that a family takes as arguments: kernel parameters are few kilobytes.
const MAX_DIMS: usize = 128;
/// What arguments are called, before their number.
const DIM: &str = "dim";

/// A text, and for each argument its value in every member.
pub struct General {
    pub text: String,
    pub values: Vec<Vec<i32>>,
}

impl General {
    /// What `members` execute, of which `first` is the first. `None` where their texts cannot be one.
    pub fn of(first: &Form<'_>, members: &[&Numbers]) -> Option<Self> {
        let is_taken = |token: &Token<'_>| {
            let digits = token.text.strip_prefix(DIM).filter(|_| token.kind == Kind::Word);
            digits.is_some_and(is_number)
        };
        let dims = Dims::of(first, members);
        if dims.values.len() > MAX_DIMS || first.tokens.iter().any(is_taken) {
            return None;
        }
        Some(General {
            text: text(first, members, &dims),
            values: dims.values,
        })
    }
}

/// The arguments of a family.
struct Dims {
    /// For each, its value in every member.
    values: Vec<Vec<i32>>,
    /// For each token that is replaced, the number of its argument.
    places: HashMap<usize, usize>,
    /// What is computed to one number from what differs: places of the expression, and the number.
    common: Vec<(Range<usize>, i64)>,
}

impl Dims {
    fn of(first: &Form<'_>, members: &[&Numbers]) -> Self {
        let differing: HashMap<usize, Vec<i32>> = first
            .free()
            .enumerate()
            .map(|(literal, at)| (at, members.iter().map(|own| own.literals[literal]).collect()))
            .filter(|(_, own): &(usize, Vec<i32>)| own.iter().any(|value| *value != own[0]))
            .collect();
        let mut dims = Dims {
            values: Vec::new(),
            places: HashMap::new(),
            common: common(first, members, |at| differing.contains_key(&at)),
        };
        let mut numbers: HashMap<&Vec<i32>, usize> = HashMap::new();
        for at in first.free() {
            let Some(own) = differing.get(&at).filter(|_| !dims.is_common(at)) else {
                continue;
            };
            let number = *numbers.entry(own).or_insert_with(|| {
                dims.values.push(own.clone());
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

    /// A comment with the names of what differs in it; `next` is the first of its numbers, and then the first behind it.
    fn comment(&self, comment: &str, next: &mut usize, members: &[&Numbers]) -> String {
        let mut text = String::new();
        for piece in pieces(comment) {
            if !is_number(piece) {
                text.push_str(piece);
                continue;
            }
            let all: Vec<&str> = members.iter().map(|own| &*own.comments[*next]).collect();
            *next += 1;
            if all.iter().all(|other| *other == piece) {
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
fn common(
    first: &Form<'_>,
    members: &[&Numbers],
    differs: impl Fn(usize) -> bool,
) -> Vec<(Range<usize>, i64)> {
    let dependents = dependents(first, differs);
    let found = first
        .analysis
        .declarations
        .iter()
        .enumerate()
        .filter_map(|(number, own)| {
            let is_one = |value: &i64| members.iter().all(|other| other.computed[number] == Some(*value));
            let value = members[0].computed[number].filter(is_one)?;
            dependents
                .contains(&own.keyword)
                .then(|| (own.value.clone(), value))
        });
    found.collect()
}

fn text(first: &Form<'_>, members: &[&Numbers], dims: &Dims) -> String {
    let mut text = first.before().to_owned();
    let variable = variable_keywords(first, dims);
    let mut in_comments = 0;
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
            if token.kind == Kind::Comment {
                in_comments += pieces(token.text).filter(|piece| is_number(piece)).count();
            }
            continue;
        }
        let replaced = match token.kind {
            Kind::Integer(suffix) => dims.replacement(at, suffix),
            Kind::Comment => Some(dims.comment(token.text, &mut in_comments, members)),
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
