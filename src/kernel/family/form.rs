//! A text in tokens, and what is kept of it once it is known which texts are alike.

use std::collections::HashMap;
use std::ops::Range;

use sha2::{Digest, Sha256};

use super::constants::{Analysis, analyse};
use super::tokens::{Kind, Token, tokens};
use super::value::{Values, value};
use crate::kernel::prelude::kernel_part;
use crate::kernel::source::{Param, Source};

/// Equal for texts that may be one: of the text but for its free numbers, and of how it is launched.
pub type Key = [u8; 32];

/// A text in tokens.
pub struct Form<'a> {
    pub source: &'a Source,
    /// Those behind the prelude.
    pub tokens: Vec<Token<'a>>,
    pub analysis: Analysis,
    /// Where the list of parameters ends.
    pub params_end: usize,
}

/// What differs between texts of one key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Numbers {
    /// Literals that may be replaced, in their order, as arguments.
    pub literals: Box<[i32]>,
    /// What each declaration is computed to, where that is known.
    pub computed: Box<[Option<i64>]>,
    /// Those in comments.
    pub comments: Box<[Box<str>]>,
}

impl<'a> Form<'a> {
    /// `None` where the text is not one kernel.
    pub fn of(source: &'a Source) -> Option<Self> {
        let tokens = tokens(kernel_part(&source.text));
        let (params_end, body) = entry(&tokens, &source.name)?;
        let analysis = analyse(&tokens, body);
        Some(Form {
            source,
            tokens,
            analysis,
            params_end,
        })
    }

    /// The prelude.
    pub fn before(&self) -> &'a str {
        let text: &'a str = &self.source.text;
        &text[..text.len() - kernel_part(text).len()]
    }

    pub fn key(&self) -> Key {
        let mut key = Sha256::new();
        key.update(self.before());
        for (token, &is_free) in self.tokens.iter().zip(&self.analysis.is_free) {
            match token.kind {
                Kind::Integer(suffix) if is_free => key.update(format!("\u{1}{suffix:?}")),
                Kind::Comment => pieces(token.text)
                    .filter(|piece| !is_number(piece))
                    .for_each(|piece| key.update(piece)),
                _ => key.update(token.text),
            }
        }
        let kinds = self.source.params.iter().map(|param| match param {
            Param::TensorMap { input, .. } => format!("map {input}"),
            Param::Dim(_) => "dim".to_owned(),
            other => format!("{other:?}"),
        });
        let kinds: Vec<String> = kinds.collect();
        let launch = &self.source.launch;
        key.update(format!("\u{1}{}{kinds:?}{:?}", self.source.name, launch.block));
        key.finalize().into()
    }

    pub fn numbers(&self) -> Numbers {
        let literal = |at: usize| {
            let value = self.tokens[at].argument();
            value.expect("literals that may be replaced fit an argument")
        };
        let comments = self.tokens.iter().filter(|token| token.kind == Kind::Comment);
        Numbers {
            literals: self.free().map(literal).collect(),
            computed: self.computed(),
            comments: comments
                .flat_map(|token| pieces(token.text).filter(|piece| is_number(piece)))
                .map(Into::into)
                .collect(),
        }
    }

    /// The number of each declaration, where it is known.
    fn computed(&self) -> Box<[Option<i64>]> {
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
    pub fn free(&self) -> impl Iterator<Item = usize> {
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
pub fn pieces(comment: &str) -> impl Iterator<Item = &str> {
    let mut rest = comment;
    std::iter::from_fn(move || {
        let is_digit = rest.chars().next()?.is_ascii_digit();
        let len = rest.find(|c: char| c.is_ascii_digit() != is_digit);
        let (piece, after) = rest.split_at(len.unwrap_or(rest.len()));
        rest = after;
        Some(piece)
    })
}

pub fn is_number(piece: &str) -> bool {
    piece.starts_with(|c: char| c.is_ascii_digit())
}
