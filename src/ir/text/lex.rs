//! Splits a text into tokens.

use std::ops::Range;

use super::error::TextError;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Word(String),
    Quoted(String),
    /// `%7`
    Id(u32),
    /// A number as it is written, among them `-inf`.
    Number(String),
    /// One of the signs of the grammar.
    Sign(&'static str),
    End,
}

impl Token {
    /// How messages speak of it.
    pub fn describe(&self) -> String {
        match self {
            Token::Word(text) | Token::Number(text) => format!("`{text}`"),
            Token::Quoted(text) => format!("{text:?}"),
            Token::Id(id) => format!("`%{id}`"),
            Token::Sign(sign) => format!("`{sign}`"),
            Token::End => "the end of the text".to_owned(),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Spanned {
    pub token: Token,
    pub span: Range<usize>,
}

const SIGNS: [&str; 12] = ["..", "(", ")", "[", "]", "{", "}", ",", ":", "=", "?", "."];

pub(super) fn starts_word(character: char) -> bool {
    character.is_ascii_alphabetic() || character == '_'
}

pub(super) fn continues_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '.')
}

/// The tokens of `text`, with [`Token::End`] last.
pub(super) fn lex(text: &str) -> Result<Vec<Spanned>, TextError> {
    let mut tokens = Vec::new();
    let mut at = skip(text, 0);
    while at < text.len() {
        let (token, end) = next(text, at)?;
        tokens.push(Spanned { token, span: at..end });
        at = skip(text, end);
    }
    tokens.push(Spanned {
        token: Token::End,
        span: text.len()..text.len(),
    });
    Ok(tokens)
}

/// The place after white space and comments.
fn skip(text: &str, mut at: usize) -> usize {
    loop {
        let rest = &text[at..];
        at += rest.len() - rest.trim_start().len();
        if !text[at..].starts_with(';') {
            return at;
        }
        at = text[at..].find('\n').map_or(text.len(), |length| at + length);
    }
}

fn next(text: &str, at: usize) -> Result<(Token, usize), TextError> {
    let rest = &text[at..];
    let first = rest.chars().next().expect("lex() stops at the end");
    if first == '"' {
        return quoted(text, at);
    }
    if starts_word(first) {
        let end = at + length(rest, continues_word);
        return Ok((Token::Word(text[at..end].to_owned()), end));
    }
    if first == '%' {
        return id(text, at);
    }
    if first.is_ascii_digit() || matches!(first, '-' | '+') {
        let end = at + number_length(rest);
        return Ok((Token::Number(text[at..end].to_owned()), end));
    }
    match SIGNS.into_iter().find(|sign| rest.starts_with(sign)) {
        Some(sign) => Ok((Token::Sign(sign), at + sign.len())),
        None => Err(TextError::Character {
            character: first,
            span: at..at + first.len_utf8(),
        }),
    }
}

fn length(text: &str, accept: impl Fn(char) -> bool) -> usize {
    text.find(|character| !accept(character)).unwrap_or(text.len())
}

fn id(text: &str, at: usize) -> Result<(Token, usize), TextError> {
    let end = at + 1 + length(&text[at + 1..], |character| character.is_ascii_digit());
    let id = text[at + 1..end].parse().map_err(|_| TextError::Unexpected {
        expected: "a value number such as `%7`".to_owned(),
        found: format!("`{}`", &text[at..end]),
        span: at..end,
    })?;
    Ok((Token::Id(id), end))
}

/// Length of a number: a sign, then a word (`inf`, `nan`), hex digits, or decimals.
fn number_length(text: &str) -> usize {
    let sign = usize::from(text.starts_with(['-', '+']));
    let body = &text[sign..];
    if let Some(digits) = body.strip_prefix("0x") {
        return sign + 2 + length(digits, |character| character.is_ascii_hexdigit());
    }
    if body.starts_with(starts_word) {
        return sign + length(body, continues_word);
    }
    let digits = |text: &str| length(text, |character| character.is_ascii_digit());
    let mut end = digits(body);
    // `1..` is a number and a sign of repetition.
    if body[end..].starts_with('.') && !body[end..].starts_with("..") {
        end += 1 + digits(&body[end + 1..]);
    }
    if body[end..].starts_with(['e', 'E']) {
        let sign = usize::from(body[end + 1..].starts_with(['-', '+']));
        end += 1 + sign + digits(&body[end + 1 + sign..]);
    }
    sign + end
}

/// A string, escaped as Rust prints it.
fn quoted(text: &str, at: usize) -> Result<(Token, usize), TextError> {
    let open = || TextError::OpenString { span: at..at + 1 };
    let mut value = String::new();
    let mut characters = text[at + 1..].char_indices();
    while let Some((offset, character)) = characters.next() {
        match character {
            '"' => return Ok((Token::Quoted(value), at + offset + 2)),
            '\\' => {
                let (_, escape) = characters.next().ok_or_else(open)?;
                value.push(match escape {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    '0' => '\0',
                    'u' => unicode(&mut characters).ok_or_else(open)?,
                    other => other,
                });
            }
            other => value.push(other),
        }
    }
    Err(open())
}

/// The rest of `\u{1f600}` after the `u`.
fn unicode(characters: &mut std::str::CharIndices<'_>) -> Option<char> {
    if characters.next()?.1 != '{' {
        return None;
    }
    let digits: String = characters
        .map(|(_, character)| character)
        .take_while(|&character| character != '}')
        .collect();
    char::from_u32(u32::from_str_radix(&digits, 16).ok()?)
}
