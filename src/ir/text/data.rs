//! Parses what stands beside the structure of a graph: attributes, types, constants.

use super::super::types::checked_bytes;
use super::super::{Attr, Attrs, DType, Dim, HostTensor, Shape, TensorType};
use super::cursor::Parser;
use super::error::TextError;
use super::lex::Token;
use super::literal;
use crate::hex::parse_hex;

impl Parser<'_> {
    pub fn attrs(&mut self) -> Result<Attrs, TextError> {
        let mut attrs = Attrs::new();
        self.separated("]", |parser| {
            let span = parser.span();
            let name = parser.name("the name of an attribute")?;
            parser.expect("=")?;
            let attr = parser.attr()?;
            match attrs.0.insert(name.clone(), attr) {
                None => Ok(()),
                Some(_) => Err(TextError::RepeatedAttr { name, span }),
            }
        })?;
        Ok(attrs)
    }

    fn attr(&mut self) -> Result<Attr, TextError> {
        if self.at_literal() {
            return Ok(Attr::Tensor(self.tensor()?));
        }
        match self.peek().clone() {
            Token::Quoted(text) => {
                self.at += 1;
                Ok(Attr::Str(text))
            }
            Token::Sign("[") => self.list(),
            Token::Number(text) => self.number(&text),
            Token::Word(word) => self.word_attr(&word),
            Token::Id(_) | Token::Sign(_) | Token::End => Err(self.unexpected("the value of an attribute")),
        }
    }

    fn word_attr(&mut self, word: &str) -> Result<Attr, TextError> {
        match word {
            "graph" => return Ok(Attr::Graph(Box::new(self.graph()?))),
            "inf" | "nan" => return Ok(Attr::Float(self.float(word)?)),
            "floats" | "strings" => {
                self.at += 1;
                self.expect("[")?;
                self.expect("]")?;
                return Ok(if word == "floats" {
                    Attr::Floats(Vec::new())
                } else {
                    Attr::Strs(Vec::new())
                });
            }
            _ => {}
        }
        let attr = match (word, DType::from_name(word)) {
            (_, Some(dtype)) => Attr::DType(dtype),
            ("true", _) => Attr::Int(1),
            ("false", _) => Attr::Int(0),
            _ => return Err(self.unexpected("the value of an attribute")),
        };
        self.at += 1;
        Ok(attr)
    }

    fn number(&mut self, text: &str) -> Result<Attr, TextError> {
        if is_float(text) {
            return Ok(Attr::Float(self.float(text)?));
        }
        let value = text.parse().map_err(|_| self.bad_number(text, "i64"))?;
        self.at += 1;
        Ok(Attr::Int(value))
    }

    /// A float at the next token, which reads `text`: decimal, `inf`, `nan` or `nan(0x..)`.
    fn float(&mut self, text: &str) -> Result<f64, TextError> {
        let value: f64 = text.parse().map_err(|_| self.bad_number(text, "f64"))?;
        self.at += 1;
        if text != "nan" || !self.take("(") {
            return Ok(if value.is_nan() { f64::NAN } else { value });
        }
        let Token::Number(bits) = self.peek().clone() else {
            return Err(self.unexpected("the bits of a NaN"));
        };
        let parsed = bits
            .strip_prefix("0x")
            .and_then(|digits| u64::from_str_radix(digits, 16).ok());
        let parsed = parsed.ok_or_else(|| self.bad_number(&bits, "f64"))?;
        self.at += 1;
        self.expect(")")?;
        Ok(f64::from_bits(parsed))
    }

    /// A list of one kind: integers, strings, or numbers of which one is a float.
    fn list(&mut self) -> Result<Attr, TextError> {
        self.expect("[")?;
        let entries = self.separated("]", Parser::attr)?;
        let ints = entries.iter().map(|entry| match entry {
            Attr::Int(value) => Some(*value),
            _ => None,
        });
        if let Some(values) = ints.collect() {
            return Ok(Attr::Ints(values));
        }
        let floats = entries.iter().map(|entry| match entry {
            Attr::Float(value) => Some(*value),
            #[expect(
                clippy::cast_precision_loss,
                reason = "a float list may be written with integers"
            )]
            Attr::Int(value) => Some(*value as f64),
            _ => None,
        });
        if let Some(values) = floats.collect() {
            return Ok(Attr::Floats(values));
        }
        let texts = entries.into_iter().map(|entry| match entry {
            Attr::Str(text) => Some(text),
            _ => None,
        });
        let mixed = self.unexpected("a list of one kind");
        texts.collect::<Option<_>>().map(Attr::Strs).ok_or(mixed)
    }

    /// `f32[2]{1.0, 2.0}`, `f32[2]{0.0 ..}` or `f32[2] hex "..."`.
    pub fn tensor(&mut self) -> Result<HostTensor, TextError> {
        let start = self.span();
        let ty = self.ty()?;
        let fitting = ty
            .shape
            .dims()
            .filter(|dims| checked_bytes(ty.dtype, dims).is_some());
        let dims = fitting.ok_or_else(|| TextError::WeightType {
            ty: ty.to_string(),
            span: start,
        })?;
        let span = self.span();
        let bytes = if self.take_word("hex") {
            self.hex()?
        } else {
            self.elements(ty.dtype, dims.iter().product())?
        };
        HostTensor::from_bytes(ty.dtype, &dims, &bytes).ok_or_else(|| TextError::ElementCount {
            ty: ty.to_string(),
            expected: ty.n_elements(),
            found: bytes.len() / ty.dtype.size_bytes(),
            span,
        })
    }

    fn hex(&mut self) -> Result<Vec<u8>, TextError> {
        let Token::Quoted(text) = self.peek() else {
            return Err(self.unexpected("hex digits in quotes"));
        };
        let bytes = parse_hex(text).ok_or_else(|| self.unexpected("hex digits in quotes"))?;
        self.at += 1;
        Ok(bytes)
    }

    fn elements(&mut self, dtype: DType, n_elements: usize) -> Result<Vec<u8>, TextError> {
        self.expect("{")?;
        let mut bytes = Vec::new();
        while !self.take("}") {
            let (Token::Number(text) | Token::Word(text)) = self.peek().clone() else {
                return Err(self.unexpected("an element"));
            };
            let element =
                literal::parse_element(dtype, &text).ok_or_else(|| self.bad_number(&text, dtype.name()))?;
            self.at += 1;
            if bytes.is_empty() && self.take("..") {
                self.expect("}")?;
                return Ok(element.repeat(n_elements));
            }
            bytes.extend(element);
            if !self.take(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(bytes)
    }

    pub fn ty(&mut self) -> Result<TensorType, TextError> {
        let dtype = match self.peek() {
            Token::Word(word) => DType::from_name(word),
            _ => None,
        };
        let dtype = dtype.ok_or_else(|| self.unexpected("a type such as `f32[2,3]`"))?;
        self.at += 1;
        self.expect("[")?;
        let dims = self.separated("]", Parser::dim)?;
        Ok(TensorType {
            dtype,
            shape: Shape(dims.into_iter().collect()),
        })
    }

    fn dim(&mut self) -> Result<Dim, TextError> {
        let dim = match self.peek() {
            Token::Word(word) => Some(Dim::Symbol(word.clone())),
            Token::Quoted(symbol) => Some(Dim::Symbol(symbol.clone())),
            Token::Number(text) => text.parse().ok().map(Dim::Known),
            Token::Id(_) | Token::Sign(_) | Token::End => None,
        };
        let dim = dim.ok_or_else(|| self.unexpected("a dim"))?;
        self.at += 1;
        Ok(dim)
    }
}

fn is_float(text: &str) -> bool {
    !text.starts_with("0x") && text.contains(['.', 'e', 'E', 'n'])
}
