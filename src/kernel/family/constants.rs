//! Where a number must be a constant: extents of arrays, arguments of templates, bounds of loops that are
//! unrolled, and what such places are computed from.
//!
//! Nothing wrong follows from a place that is overlooked: the compiler refuses what it needs a constant
//! for. A place that is taken for one without need keeps kernels apart that could be one.

use std::collections::HashSet;
use std::ops::Range;

use super::tokens::{Kind, Token};

/// What is known of the tokens of a kernel.
pub struct Analysis {
    /// For each token, whether it is a literal that may be replaced.
    pub is_free: Vec<bool>,
    /// Of names that may have to be no constants.
    pub declarations: Vec<Declaration>,
}

/// A `constexpr` that is not an array.
pub struct Declaration {
    /// Place of the keyword.
    pub keyword: usize,
    /// Place of the name.
    pub name: usize,
    /// Places of what it is computed from.
    pub value: Range<usize>,
    /// Whether it is an `int`, of 32 bits or 64.
    pub is_int: bool,
}

/// Looks at `tokens`, of which `body` are within the kernel's braces.
pub fn analyse(tokens: &[Token<'_>], body: Range<usize>) -> Analysis {
    let mut is_constant = constant_places(tokens);
    let all = declarations(tokens, &body);
    let mut names: HashSet<&str> = HashSet::new();
    for (at, token) in tokens.iter().enumerate() {
        match token.kind {
            Kind::Directive => names.extend(words(token.text)),
            Kind::Word if is_constant[at] => {
                names.insert(token.text);
            }
            _ => {}
        }
    }
    let mut pending: Vec<&Declared> = all.iter().collect();
    loop {
        let is_needed = |own: &&Declared| own.is_array || names.contains(tokens[own.own.name].text);
        let (needed, others): (Vec<&Declared>, Vec<&Declared>) = pending.into_iter().partition(is_needed);
        pending = others;
        if needed.is_empty() {
            break;
        }
        for at in needed.into_iter().flat_map(|own| own.own.value.clone()) {
            is_constant[at] = true;
            if tokens[at].kind == Kind::Word {
                names.insert(tokens[at].text);
            }
        }
    }
    let is_free = tokens
        .iter()
        .enumerate()
        .map(|(at, token)| matches!(token.kind, Kind::Integer(_)) && body.contains(&at) && !is_constant[at]);
    Analysis {
        is_free: is_free.collect(),
        declarations: all.into_iter().map(|declared| declared.own).collect(),
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
}

struct Declared {
    own: Declaration,
    is_array: bool,
}

/// Every `constexpr NAME = VALUE;`.
fn declarations(tokens: &[Token<'_>], body: &Range<usize>) -> Vec<Declared> {
    let keywords = body.clone().filter(|&at| {
        tokens[at].is_word("constexpr") && !code_before(tokens, at).is_some_and(|at| tokens[at].is_word("if"))
    });
    keywords.filter_map(|keyword| declared(tokens, keyword)).collect()
}

fn declared(tokens: &[Token<'_>], keyword: usize) -> Option<Declared> {
    let until = |from: usize, mark: char| (from..tokens.len()).find(|&at| tokens[at].is_mark(mark));
    let end = until(keyword, ';')?;
    let equals = until(keyword, '=').filter(|&at| at < end)?;
    let left = keyword..equals;
    let is_array = left.clone().any(|at| tokens[at].is_mark('['));
    // Names of arrays stand before their extents, and all literals there are constants anyway.
    let name = left.rev().find(|&at| tokens[at].kind == Kind::Word)?;
    let is_static = code_before(tokens, keyword).is_some_and(|at| tokens[at].is_word("static"));
    Some(Declared {
        own: Declaration {
            keyword,
            name,
            value: equals + 1..end,
            is_int: tokens[keyword + 1..name]
                .iter()
                .any(|token| token.is_word("int") || token.is_word("int64_t")),
        },
        is_array: is_array || is_static,
    })
}

/// The last token before `at` that a compiler sees.
fn code_before(tokens: &[Token<'_>], at: usize) -> Option<usize> {
    tokens[..at].iter().rposition(Token::is_code)
}

/// Words whose parentheses hold constants.
const CONSTANT_CALLS: [&str; 5] = [
    "__launch_bounds__",
    "static_assert",
    "alignas",
    "__align__",
    "decltype",
];
/// Words after which a name is used, not declared.
const USING_WORDS: [&str; 5] = ["return", "else", "case", "do", "co_return"];

#[derive(Clone, Copy)]
struct Bracket {
    is_constant: bool,
    open: usize,
}

/// For each token, whether it stands where a constant must be.
fn constant_places(tokens: &[Token<'_>]) -> Vec<bool> {
    let mut walk = Walk {
        tokens,
        brackets: Vec::new(),
        closed_list: None,
        closed_extent: None,
        is_unrolled: false,
        is_case: false,
    };
    (0..tokens.len()).map(|at| walk.step(at)).collect()
}

struct Walk<'a> {
    tokens: &'a [Token<'a>],
    brackets: Vec<Bracket>,
    /// Where a list of template arguments ended last.
    closed_list: Option<usize>,
    /// Where an array's extent ended last.
    closed_extent: Option<usize>,
    /// Whether the next loop is unrolled.
    is_unrolled: bool,
    is_case: bool,
}

impl Walk<'_> {
    fn is_constant(&self) -> bool {
        self.is_case || self.brackets.last().is_some_and(|bracket| bracket.is_constant)
    }

    fn step(&mut self, at: usize) -> bool {
        let token = self.tokens[at];
        match token.kind {
            Kind::Directive => {
                // With a number loops are unrolled in part, and need no constant bounds.
                self.is_unrolled = token.text.split_whitespace().eq(["#pragma", "unroll"]);
            }
            Kind::Word if token.text == "case" => self.is_case = true,
            Kind::Mark => self.mark(at, token.text.as_bytes()[0]),
            _ => {}
        }
        self.is_constant()
    }

    fn mark(&mut self, at: usize, mark: u8) {
        match mark {
            b'(' | b'[' | b'{' => {
                let is_constant = self.is_constant() || self.needs_constants(at, mark);
                self.brackets.push(Bracket {
                    is_constant,
                    open: at,
                });
            }
            b'<' if self.opens_list(at) => self.brackets.push(Bracket {
                is_constant: true,
                open: at,
            }),
            b'>' if self.is_in(b'<') && !self.tokens[at - 1].is_mark('-') => {
                self.brackets.pop();
                self.closed_list = Some(at);
            }
            b')' | b']' | b'}' => {
                // What looked like a list of arguments was a comparison.
                while self.is_in(b'<') {
                    self.brackets.pop();
                }
                let closed = self.brackets.pop();
                if mark == b']' && closed.is_some_and(|bracket| bracket.is_constant) {
                    self.closed_extent = Some(at);
                }
            }
            b':' => self.is_case = false,
            _ => {}
        }
    }

    /// Whether the innermost bracket is of this kind.
    fn is_in(&self, mark: u8) -> bool {
        let innermost = self.brackets.last();
        innermost.is_some_and(|bracket| self.tokens[bracket.open].text.as_bytes()[0] == mark)
    }

    /// Whether a `<` follows a name directly and no space follows it: comparisons are spaced.
    fn opens_list(&self, at: usize) -> bool {
        let follows_name = at > 0 && self.tokens[at - 1].kind == Kind::Word;
        let next = self.tokens.get(at + 1);
        let is_operator = next.is_some_and(|next| next.is_mark('<') || next.is_mark('='));
        follows_name && !is_operator && next.is_some_and(|next| next.kind != Kind::Space)
    }

    fn needs_constants(&mut self, at: usize, mark: u8) -> bool {
        let Some(before) = code_before(self.tokens, at) else {
            return false;
        };
        match mark {
            b'(' if self.tokens[before].is_word("for") => std::mem::take(&mut self.is_unrolled),
            b'(' => self.calls_for_constants(before),
            b'[' => self.closed_extent == Some(before) || self.declares_array(before),
            _ => false,
        }
    }

    fn calls_for_constants(&self, before: usize) -> bool {
        let word = self.tokens[before];
        let is_if = |at: usize| self.tokens[at].is_word("if");
        let is_if_constexpr =
            || word.is_word("constexpr") && code_before(self.tokens, before).is_some_and(is_if);
        word.kind == Kind::Word && CONSTANT_CALLS.contains(&word.text) || is_if_constexpr()
    }

    /// Whether `[` after the token at `name` is part of a declaration: a type is before the name, or it is a
    /// reference in parentheses.
    fn declares_array(&self, name: usize) -> bool {
        if self.tokens[name].is_mark(')') {
            let open = self.tokens[..name].iter().rposition(|token| token.is_mark('('));
            let first = open.and_then(|open| self.tokens.get(open + 1));
            return first.is_some_and(|first| first.is_mark('&') || first.is_mark('*'));
        }
        if self.tokens[name].kind != Kind::Word {
            return false;
        }
        let Some(before) = code_before(self.tokens, name) else {
            return false;
        };
        let ty = self.tokens[before];
        let is_type = ty.kind == Kind::Word && !USING_WORDS.contains(&ty.text);
        is_type || self.closed_list == Some(before)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tokens::tokens;
    use super::*;

    /// The literals of a kernel's body that may be replaced.
    fn free(text: &str) -> Vec<&str> {
        let all = tokens(text);
        let analysis = analyse(&all, 0..all.len());
        let free = all.iter().zip(&analysis.is_free).filter(|(_, is_free)| **is_free);
        free.map(|(token, _)| token.text).collect()
    }

    #[test]
    fn bounds_and_factors_are_free() {
        assert_eq!(free("if (row < 97) x = y[row * 768 + 3];"), ["97", "768", "3"]);
        assert_eq!(
            free("constexpr int kM = 97; if (m < kM) return a[7];"),
            ["97", "7"]
        );
        assert_eq!(free("x = a < 3 && b > 4;"), ["3", "4"]);
        assert_eq!(free("x = 1 << 5;"), ["1", "5"]);
        assert_eq!(free("for (int i = 0; i < 12; i += 4) {}"), ["0", "12", "4"]);
        assert_eq!(
            free("#pragma unroll 4\nfor (int i = 0; i < 12; ++i) {}"),
            ["0", "12"]
        );
        assert_eq!(free("x = f(2)[3];"), ["2", "3"]);
        assert_eq!(free("if (x<3 || y>4) z = 5;"), ["4", "5"]);
    }

    #[test]
    fn constants_are_not() {
        for text in [
            "float x[3];",
            "float x[2 + 1][4];",
            "RtPack<half, 8> next[2];",
            "float (&own)[3] = all;",
            "rt_load<8>(x, y);",
            "RtPack<RtKept<half, 2>, 8> z;",
            "__launch_bounds__(256, 1)",
            "static_assert(sizeof(x) == 16);",
            "alignas(16) char x;",
            "if constexpr (4 > 3) f();",
            "switch (x) { case 3: break; }",
            "#pragma unroll\nfor (int i = 0; i < 12; ++i) {}",
            "constexpr int kX[2] = {3, 4};",
            "static constexpr int kX = 3;",
            "x = 0x10 + 1.0f;",
            "#define X 7\n",
        ] {
            assert_eq!(free(text), [""; 0], "{text}");
        }
    }

    #[test]
    fn what_constants_are_made_of_is_constant() {
        let text =
            "constexpr int kA = 3;\nconstexpr int kB = kA * 2;\nconstexpr int kC = kB + 1;\nfloat x[kC];";
        assert_eq!(free(text), [""; 0]);
        let text = "constexpr int kA = 3;\n#pragma unroll kA\nfor (int i = 0; i < 12; ++i) {}";
        assert_eq!(free(text), ["0", "12"]);
        let text = "constexpr int kA = 3;\nconstexpr int kB = kA * 2;\nx = kB;\nrt_f<kA>(5);";
        assert_eq!(free(text), ["2", "5"]);
    }
}
