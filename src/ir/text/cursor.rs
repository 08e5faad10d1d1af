//! The parser's place in the tokens, and what it asks of them.

use std::ops::Range;

use super::super::DType;
use super::error::TextError;
use super::lex::{Spanned, Token};

/// Finds an op by name.
pub(super) type Resolve<'a> = &'a dyn Fn(&str) -> Option<&'static str>;

pub(super) struct Parser<'a> {
    pub tokens: Vec<Spanned>,
    pub at: usize,
    pub resolve: Resolve<'a>,
}

impl Parser<'_> {
    pub fn name(&mut self, expected: &str) -> Result<String, TextError> {
        let (Token::Word(name) | Token::Quoted(name)) = self.peek().clone() else {
            return Err(self.unexpected(expected));
        };
        self.at += 1;
        Ok(name)
    }

    /// Items with commas between them, up to the sign that closes them.
    pub fn separated<T>(
        &mut self,
        close: &'static str,
        mut item: impl FnMut(&mut Self) -> Result<T, TextError>,
    ) -> Result<Vec<T>, TextError> {
        let mut items = Vec::new();
        while !self.take(close) {
            items.push(item(self)?);
            if !self.take(",") {
                self.expect(close)?;
                break;
            }
        }
        Ok(items)
    }

    /// Whether a constant comes next: a kind, and its dims in brackets.
    pub fn at_literal(&self) -> bool {
        let is_kind = matches!(self.peek(), Token::Word(word) if DType::from_name(word).is_some());
        is_kind && self.peek_after() == &Token::Sign("[")
    }

    /// Whether an op comes next: a name, and attributes or operands.
    pub fn at_call(&self) -> bool {
        matches!(self.peek(), Token::Word(_)) && matches!(self.peek_after(), Token::Sign("[" | "("))
    }

    pub fn peek(&self) -> &Token {
        &self.tokens[self.at].token
    }

    pub fn peek_after(&self) -> &Token {
        &self.tokens[(self.at + 1).min(self.tokens.len() - 1)].token
    }

    pub fn span(&self) -> Range<usize> {
        self.tokens[self.at].span.clone()
    }

    pub fn take(&mut self, sign: &'static str) -> bool {
        let found = *self.peek() == Token::Sign(sign);
        self.at += usize::from(found);
        found
    }

    pub fn take_word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Token::Word(found) if found == word);
        self.at += usize::from(found);
        found
    }

    pub fn expect(&mut self, sign: &'static str) -> Result<(), TextError> {
        if self.take(sign) {
            return Ok(());
        }
        Err(self.unexpected(&format!("`{sign}`")))
    }

    pub fn expect_word(&mut self, word: &str) -> Result<(), TextError> {
        if self.take_word(word) {
            return Ok(());
        }
        Err(self.unexpected(&format!("`{word}`")))
    }

    pub fn unexpected(&self, expected: &str) -> TextError {
        TextError::Unexpected {
            expected: expected.to_owned(),
            found: self.peek().describe(),
            span: self.span(),
        }
    }

    pub fn bad_number(&self, text: &str, kind: &str) -> TextError {
        TextError::Number {
            text: text.to_owned(),
            kind: kind.to_owned(),
            span: self.span(),
        }
    }
}
