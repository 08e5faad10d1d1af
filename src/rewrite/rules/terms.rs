//! Terms (patterns and constructions) and expressions (conditions, attributes) of rules.
//!
//! `a + b`, `a - b`, `a * b`, `a / b` and `-a` in a term are short for the ops `add`, `sub`,
//! `mul`, `div` and `neg`.

use super::ast::{AttrItem, BinaryOp, Expr, ExprKind, Head, Name, OpTerm, Span, TILE_FORMS, Term};
use super::lexer::Token;
use super::parser::{Parsed, Parser};
use crate::ir::DType;

/// Words that stand for any op of a tile kind.
pub const FAMILIES: [&str; 7] = ["map", "view", "index", "reduce", "dot", "window", "other"];

impl Parser<'_> {
    pub fn term(&mut self) -> Parsed<Term> {
        self.infix_term(&[("+", "add"), ("-", "sub")], |parser| {
            parser.infix_term(&[("*", "mul"), ("/", "div")], Self::atom)
        })
    }

    fn infix_term(
        &mut self,
        signs: &[(&str, &str)],
        mut inner: impl FnMut(&mut Self) -> Parsed<Term>,
    ) -> Parsed<Term> {
        let mut left = inner(self)?;
        while let Some((_, op)) = signs.iter().find(|(sign, _)| self.is_sign(sign)) {
            let (_, sign_span) = self.next();
            let right = inner(self)?;
            let span = left.span().to(right.span());
            left = plain_op(op, sign_span, vec![left, right], span);
        }
        Ok(left)
    }

    fn atom(&mut self) -> Parsed<Term> {
        let start = self.span();
        match self.peek().clone() {
            Token::Int(_) | Token::Float(_) => {
                let value = self.primary()?;
                Ok(Term::Scalar {
                    span: value.span,
                    value,
                })
            }
            Token::Sign("-") => self.negated(start),
            Token::Sign("(") => {
                self.next();
                let term = self.term()?;
                self.expect(")")?;
                Ok(term)
            }
            Token::Word(_) => self.named_term(start),
            _ => Err(self.unexpected("a term")),
        }
    }

    fn negated(&mut self, start: Span) -> Parsed<Term> {
        self.next();
        if matches!(self.peek(), Token::Int(_) | Token::Float(_)) {
            let value = self.primary()?;
            let span = start.to(value.span);
            let kind = ExprKind::Negate(Box::new(value));
            return Ok(Term::Scalar {
                value: Expr { kind, span },
                span,
            });
        }
        let operand = self.atom()?;
        let span = start.to(operand.span());
        Ok(plain_op("neg", start, vec![operand], span))
    }

    fn named_term(&mut self, start: Span) -> Parsed<Term> {
        let name = self.name("a term")?;
        if self.eat("@") {
            let head = self.name("an op")?;
            return self.op_term(Some(name), head, start);
        }
        if self.is_sign("[") || (self.is_sign("(") && name.text != "scalar") {
            return self.op_term(None, name, start);
        }
        if name.text == "scalar" && self.eat("(") {
            let value = self.expr()?;
            let span = start.to(self.expect(")")?);
            return Ok(Term::Scalar { value, span });
        }
        if self.eat("?") {
            let span = start.to(self.last_span());
            return Ok(Term::Optional {
                name,
                default: None,
                span,
            });
        }
        if self.eat("?:") {
            let default = Some(self.number()?);
            let span = start.to(self.last_span());
            return Ok(Term::Optional { name, default, span });
        }
        Ok(Term::Var(name))
    }

    fn number(&mut self) -> Parsed<f64> {
        let negative = self.eat("-");
        #[expect(clippy::cast_precision_loss, reason = "defaults are small numbers")]
        let value = match *self.peek() {
            Token::Int(value) => value as f64,
            Token::Float(value) => value,
            _ => return Err(self.unexpected("a number")),
        };
        self.next();
        Ok(if negative { -value } else { value })
    }

    fn op_term(&mut self, label: Option<Name>, name: Name, start: Span) -> Parsed<Term> {
        let mut attrs = if self.eat("[") {
            self.list("]", Self::attr_item)?
        } else {
            Vec::new()
        };
        let operands = if self.eat("(") {
            self.list(")", Self::operand)?
        } else {
            Vec::new()
        };
        let span = start.to(self.last_span());
        let head = head(name, &mut attrs)?;
        Ok(Term::Op(OpTerm {
            label,
            head,
            attrs,
            operands,
            span,
        }))
    }

    fn attr_item(&mut self) -> Parsed<AttrItem> {
        let name = self.name("an attribute")?;
        if self.eat("=") {
            let value = self.expr()?;
            return Ok(AttrItem::Named { name, value });
        }
        if !self.is_sign("(") {
            return Ok(AttrItem::Bare(name));
        }
        // A mode with arguments, `load[row(s)](..)`, is a named entry of its own call.
        let call = self.call(name.clone())?;
        Ok(AttrItem::Named { name, value: call })
    }

    fn operand(&mut self) -> Parsed<Term> {
        let term = self.term()?;
        if self.eat("..") {
            return Ok(Term::Each(Box::new(term)));
        }
        Ok(term)
    }

    pub fn expr(&mut self) -> Parsed<Expr> {
        self.binary_words("or", BinaryOp::Or, |parser| {
            parser.binary_words("and", BinaryOp::And, Self::inversion)
        })
    }

    fn binary_words(
        &mut self,
        word: &str,
        op: BinaryOp,
        mut inner: impl FnMut(&mut Self) -> Parsed<Expr>,
    ) -> Parsed<Expr> {
        let mut left = inner(self)?;
        while self.eat_word(word) {
            let right = inner(self)?;
            left = binary(op, left, right);
        }
        Ok(left)
    }

    fn inversion(&mut self) -> Parsed<Expr> {
        let start = self.span();
        if self.eat_word("not") {
            let inner = self.inversion()?;
            let span = start.to(inner.span);
            let kind = ExprKind::Not(Box::new(inner));
            return Ok(Expr { kind, span });
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Parsed<Expr> {
        const SIGNS: [(&str, BinaryOp); 6] = [
            ("==", BinaryOp::Equal),
            ("!=", BinaryOp::NotEqual),
            ("<=", BinaryOp::LessEqual),
            (">=", BinaryOp::GreaterEqual),
            ("<", BinaryOp::Less),
            (">", BinaryOp::Greater),
        ];
        let left = self.sum()?;
        if self.eat_word("in") {
            self.expect("{")?;
            let set = self.list("}", Self::sum)?;
            let span = left.span.to(self.last_span());
            let value = Box::new(left);
            let kind = ExprKind::In { value, set };
            return Ok(Expr { kind, span });
        }
        let Some((_, op)) = SIGNS.iter().find(|(sign, _)| self.is_sign(sign)) else {
            return Ok(left);
        };
        self.next();
        let right = self.sum()?;
        Ok(binary(*op, left, right))
    }

    fn sum(&mut self) -> Parsed<Expr> {
        let mut left = self.product()?;
        loop {
            let op = if self.eat("+") {
                BinaryOp::Add
            } else if self.eat("-") {
                BinaryOp::Sub
            } else {
                return Ok(left);
            };
            let right = self.product()?;
            left = binary(op, left, right);
        }
    }

    fn product(&mut self) -> Parsed<Expr> {
        let mut left = self.signed()?;
        loop {
            let op = if self.eat("*") {
                BinaryOp::Mul
            } else if self.eat("/") {
                BinaryOp::Div
            } else if self.eat("%") {
                BinaryOp::Rem
            } else {
                return Ok(left);
            };
            let right = self.signed()?;
            left = binary(op, left, right);
        }
    }

    fn signed(&mut self) -> Parsed<Expr> {
        let start = self.span();
        if self.eat("-") {
            let inner = self.signed()?;
            let span = start.to(inner.span);
            let kind = ExprKind::Negate(Box::new(inner));
            return Ok(Expr { kind, span });
        }
        self.primary()
    }

    fn primary(&mut self) -> Parsed<Expr> {
        let start = self.span();
        let kind = match self.peek().clone() {
            Token::Int(value) => self.literal(ExprKind::Int(value)),
            Token::Float(value) => self.literal(ExprKind::Float(value)),
            Token::Str(text) => self.literal(ExprKind::Str(text)),
            Token::Sign("[") => {
                self.next();
                ExprKind::List(self.list("]", Self::expr)?)
            }
            Token::Sign("(") => {
                self.next();
                let inner = self.expr()?;
                self.expect(")")?;
                return Ok(inner);
            }
            Token::Word(_) => {
                let name = self.name("an expression")?;
                if self.is_sign("(") {
                    return self.call(name);
                }
                match DType::from_name(&name.text) {
                    Some(dtype) => ExprKind::DType(dtype),
                    None => ExprKind::Name(name.text),
                }
            }
            _ => return Err(self.unexpected("an expression")),
        };
        let span = start.to(self.last_span());
        Ok(Expr { kind, span })
    }

    fn literal(&mut self, kind: ExprKind) -> ExprKind {
        self.next();
        kind
    }

    fn call(&mut self, function: Name) -> Parsed<Expr> {
        let start = function.span;
        self.expect("(")?;
        let args = self.list(")", |parser| {
            let arg = parser.expr()?;
            // `w_i..` names all siblings' values; functions take the name.
            parser.eat("..");
            Ok(arg)
        })?;
        let span = start.to(self.last_span());
        let kind = ExprKind::Call { function, args };
        Ok(Expr { kind, span })
    }
}

/// An op, a family with the name of its binding taken from `attrs`, or a tile form.
fn head(name: Name, attrs: &mut Vec<AttrItem>) -> Parsed<Head> {
    if TILE_FORMS.iter().any(|(form, ..)| *form == name.text) {
        return Ok(Head::Tile(name));
    }
    if !FAMILIES.contains(&name.text.as_str()) {
        return Ok(Head::Op(name));
    }
    match attrs.first() {
        Some(AttrItem::Bare(_)) => {
            let AttrItem::Bare(binding) = attrs.remove(0) else {
                unreachable!("the first entry was bare when it was looked at")
            };
            Ok(Head::Family { kind: name, binding })
        }
        _ => Err(super::error::RuleError::new(
            "rules::unnamed_family",
            name.span,
            format!(
                "`{}` stands for any op of its kind and needs a name for it",
                name.text
            ),
            format!("write `{}[f](..)`", name.text),
        )),
    }
}

fn binary(op: BinaryOp, left: Expr, right: Expr) -> Expr {
    let span = left.span.to(right.span);
    let (left, right) = (Box::new(left), Box::new(right));
    let kind = ExprKind::Binary { op, left, right };
    Expr { kind, span }
}

fn plain_op(op: &str, sign: Span, operands: Vec<Term>, span: Span) -> Term {
    let name = Name {
        text: op.to_owned(),
        span: sign,
    };
    Term::Op(OpTerm {
        label: None,
        head: Head::Op(name),
        attrs: Vec::new(),
        operands,
        span,
    })
}
