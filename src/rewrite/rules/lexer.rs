//! Rule text to tokens, each with its span.

use super::ast::{FileId, Span};
use super::error::RuleError;

#[derive(Clone, Debug, PartialEq)]
pub enum Token {
    Word(String),
    Int(i64),
    Float(f64),
    Str(String),
    /// Punctuation, as it is written.
    Sign(&'static str),
    End,
}

impl Token {
    /// How a message names it.
    pub fn describe(&self) -> String {
        match self {
            Token::Word(word) => format!("`{word}`"),
            Token::Int(value) => format!("`{value}`"),
            Token::Float(value) => format!("`{value}`"),
            Token::Str(_) => "a string".to_owned(),
            Token::Sign(sign) => format!("`{sign}`"),
            Token::End => "the end of the file".to_owned(),
        }
    }
}

/// Longer signs come before those they begin with.
const SIGNS: &[&str] = &[
    "<=>", "=>", "~>", "==", "!=", "<=", ">=", "..", "?:", "(", ")", "[", "]", "{", "}", ",", ";", ":", "=",
    "<", ">", "+", "-", "*", "/", "%", "@", "?",
];

/// Tokens of `text`, ending with [`Token::End`]. What is not a token is reported and left out.
pub fn tokens(file: FileId, text: &str, errors: &mut Vec<RuleError>) -> Vec<(Token, Span)> {
    let mut lexer = Lexer {
        file,
        text,
        at: 0,
        tokens: Vec::new(),
    };
    while let Some(next) = lexer.rest().chars().next() {
        if let Err(error) = lexer.step(next) {
            errors.push(error);
        }
    }
    let span = lexer.span_from(lexer.at);
    lexer.tokens.push((Token::End, span));
    lexer.tokens
}

struct Lexer<'a> {
    file: FileId,
    text: &'a str,
    at: usize,
    tokens: Vec<(Token, Span)>,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn span_from(&self, start: usize) -> Span {
        let offset = |at: usize| u32::try_from(at).expect("rule files have under 4 GB");
        Span {
            file: self.file,
            start: offset(start),
            end: offset(self.at),
        }
    }

    fn push(&mut self, token: Token, start: usize) {
        let span = self.span_from(start);
        self.tokens.push((token, span));
    }

    fn step(&mut self, next: char) -> Result<(), RuleError> {
        let start = self.at;
        if next.is_whitespace() {
            self.at += next.len_utf8();
        } else if next == '#' {
            self.at += self.rest().find('\n').unwrap_or(self.rest().len());
        } else if next.is_ascii_alphabetic() || next == '_' {
            let word = self.take_while(|c| c.is_ascii_alphanumeric() || c == '_');
            self.push(Token::Word(word.to_owned()), start);
        } else if next.is_ascii_digit() {
            self.number()?;
        } else if next == '"' {
            self.string()?;
        } else if let Some(sign) = SIGNS.iter().find(|sign| self.rest().starts_with(**sign)) {
            self.at += sign.len();
            self.push(Token::Sign(sign), start);
        } else {
            self.at += next.len_utf8();
            return Err(RuleError::new(
                "rules::unknown_character",
                self.span_from(start),
                format!("`{next}` does not begin anything in a rule file"),
                "not a token",
            ));
        }
        Ok(())
    }

    fn take_while(&mut self, accepts: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c| !accepts(c)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    /// `12`, `0.5`, `1e-5`; `0..` is a number and a sign.
    fn number(&mut self) -> Result<(), RuleError> {
        let start = self.at;
        let is_digit = |c: char| c.is_ascii_digit();
        self.take_while(is_digit);
        let mut is_float = false;
        if self.rest().starts_with('.') && self.rest()[1..].starts_with(is_digit) {
            is_float = true;
            self.at += 1;
            self.take_while(is_digit);
        }
        let exponent = self.rest().strip_prefix(['e', 'E']).map(|rest| {
            let sign = usize::from(rest.starts_with(['+', '-']));
            (1 + sign, rest[sign..].starts_with(is_digit))
        });
        if let Some((skipped, true)) = exponent {
            is_float = true;
            self.at += skipped;
            self.take_while(is_digit);
        }
        let text = &self.text[start..self.at];
        let token = if is_float {
            text.parse().ok().map(Token::Float)
        } else {
            text.parse().ok().map(Token::Int)
        };
        let Some(token) = token else {
            return Err(RuleError::new(
                "rules::number_too_large",
                self.span_from(start),
                format!("`{text}` does not fit in 64 bits"),
                "too large",
            ));
        };
        self.push(token, start);
        Ok(())
    }

    /// `"text"`; a line break inside is one space, so that a reason may be wrapped.
    fn string(&mut self) -> Result<(), RuleError> {
        let start = self.at;
        self.at += 1;
        let inside = self.take_while(|c| c != '"');
        if self.rest().is_empty() {
            return Err(RuleError::new(
                "rules::unterminated_string",
                self.span_from(start),
                "a string does not end",
                "begins here",
            ));
        }
        self.at += 1;
        let words: Vec<&str> = inside.split_whitespace().collect();
        self.push(Token::Str(words.join(" ")), start);
        Ok(())
    }
}

/// Line of byte `at`, from 1.
pub fn line_of(text: &str, at: u32) -> usize {
    let before = &text.as_bytes()[..at as usize];
    before.split(|&byte| byte == b'\n').count()
}
