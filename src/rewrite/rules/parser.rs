//! Rule text to blocks. A file is read to its end; every mistake in it is reported.
//!
//! After a mistake inside a block, reading goes on behind the block's closing brace. Terms
//! and expressions are read in [`super::terms`].

use super::ast::{
    Arrow, Expr, FileId, Header, Horizontal, Item, Kernel, Let, Name, Numbers, Numerics, Phase, Rule,
    Ruleset, Span, Term, TestEntry, TestValue,
};
use super::error::{RuleError, closest};
use super::lexer::{Token, line_of, tokens};
use crate::ir::{DType, TensorType};

/// The blocks of one file, in order.
pub fn parse(file: FileId, text: &str, errors: &mut Vec<RuleError>) -> Vec<Item> {
    let tokens = tokens(file, text, errors);
    if let Some(error) = too_deep(&tokens) {
        errors.push(error);
        return Vec::new();
    }
    let mut parser = Parser {
        text,
        tokens,
        at: 0,
        defaults: Defaults::default(),
    };
    let mut items = Vec::new();
    while *parser.peek() != Token::End {
        let start = parser.at;
        match parser.item() {
            Ok(item) => items.push(item),
            Err(error) => {
                errors.push(error);
                parser.recover(start);
            }
        }
    }
    items
}

/// Terms and expressions are read by recursion, which a text must not be able to drive without bound.
const MAX_NESTING: usize = 64;

/// Where brackets, or signs and words before an operand, are nested too deeply.
fn too_deep(tokens: &[(Token, Span)]) -> Option<RuleError> {
    let (mut depth, mut run) = (0usize, 0usize);
    let too_deep = tokens.iter().find(|(token, _)| {
        match token {
            Token::Sign("(" | "[" | "{") => depth += 1,
            Token::Sign(")" | "]" | "}") => depth = depth.saturating_sub(1),
            _ => {}
        }
        let is_prefix = match token {
            Token::Sign(sign) => *sign == "-",
            Token::Word(word) => word == "not",
            _ => false,
        };
        run = if is_prefix { run + 1 } else { 0 };
        depth + run > MAX_NESTING
    })?;
    Some(RuleError::new(
        "rules::nesting",
        too_deep.1,
        format!("nested more than {MAX_NESTING} deep"),
        "here",
    ))
}

/// What the latest `ruleset` says for the rules after it.
#[derive(Default)]
struct Defaults {
    phase: Option<Phase>,
    numerics: Option<Numerics>,
    finite: bool,
    off: bool,
    tags: Vec<String>,
}

pub(super) type Parsed<T> = Result<T, RuleError>;

pub(super) struct Parser<'a> {
    text: &'a str,
    tokens: Vec<(Token, Span)>,
    at: usize,
    defaults: Defaults,
}

const BLOCKS: [&str; 4] = ["ruleset", "rule", "horizontal", "kernel"];

/// What follows the equation of a rule, in any order.
#[derive(Default)]
struct Clauses {
    lets: Vec<Let>,
    conditions: Vec<Expr>,
    doc: String,
    tests: Vec<Vec<TestEntry>>,
}

impl Parser<'_> {
    pub fn peek(&self) -> &Token {
        &self.tokens[self.at].0
    }

    /// The token behind the next one.
    pub fn peek_second(&self) -> &Token {
        &self.tokens[(self.at + 1).min(self.tokens.len() - 1)].0
    }

    pub fn span(&self) -> Span {
        self.tokens[self.at].1
    }

    /// Span of the token read last.
    pub fn last_span(&self) -> Span {
        self.tokens[self.at.saturating_sub(1)].1
    }

    pub fn next(&mut self) -> (Token, Span) {
        let token = self.tokens[self.at].clone();
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        token
    }

    pub fn is_sign(&self, sign: &str) -> bool {
        matches!(self.peek(), Token::Sign(found) if *found == sign)
    }

    pub fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Token::Word(found) if found == word)
    }

    /// Reads `sign` if it is next.
    pub fn eat(&mut self, sign: &str) -> bool {
        let found = self.is_sign(sign);
        if found {
            self.next();
        }
        found
    }

    /// Reads `word` if it is next.
    pub fn eat_word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        if found {
            self.next();
        }
        found
    }

    pub fn expect(&mut self, sign: &str) -> Parsed<Span> {
        if self.is_sign(sign) {
            return Ok(self.next().1);
        }
        Err(self.unexpected(&format!("`{sign}`")))
    }

    pub fn name(&mut self, wanted: &str) -> Parsed<Name> {
        match self.peek() {
            Token::Word(_) => {
                let (token, span) = self.next();
                let Token::Word(text) = token else {
                    unreachable!("the token was a word when it was looked at")
                };
                Ok(Name { text, span })
            }
            _ => Err(self.unexpected(wanted)),
        }
    }

    pub fn unexpected(&self, wanted: &str) -> RuleError {
        RuleError::new(
            "rules::unexpected_token",
            self.span(),
            format!("expected {wanted}, found {}", self.peek().describe()),
            format!("expected {wanted}"),
        )
    }

    /// Items up to `end`, separated by commas; a trailing comma is fine.
    pub fn list<T>(&mut self, end: &str, mut item: impl FnMut(&mut Self) -> Parsed<T>) -> Parsed<Vec<T>> {
        let mut items = Vec::new();
        while !self.eat(end) {
            items.push(item(self)?);
            if !self.eat(",") {
                self.expect(end)?;
                break;
            }
        }
        Ok(items)
    }

    /// Goes behind the block that began at token `start`.
    fn recover(&mut self, start: usize) {
        let mut depth = 0;
        self.at = start;
        while *self.peek() != Token::End {
            match self.next().0 {
                Token::Sign("{") => depth += 1,
                Token::Sign("}") if depth <= 1 => return,
                Token::Sign("}") => depth -= 1,
                _ => {}
            }
            let begins_block = matches!(self.peek(), Token::Word(word) if BLOCKS.contains(&word.as_str()));
            if depth == 0 && begins_block {
                return;
            }
        }
    }

    fn item(&mut self) -> Parsed<Item> {
        let keyword = self.name("`rule`, `horizontal`, `kernel` or `ruleset`")?;
        match keyword.text.as_str() {
            "ruleset" => self.ruleset().map(Item::Ruleset),
            "rule" => self.rule(keyword.span).map(Item::Rule),
            "horizontal" => self.horizontal(keyword.span).map(Item::Horizontal),
            "kernel" => self.kernel(keyword.span).map(Item::Kernel),
            other => Err(RuleError::new(
                "rules::unknown_block",
                keyword.span,
                format!(
                    "`{other}` is not a kind of block, expected `rule`, `horizontal`, `kernel` or `ruleset`"
                ),
                "unknown block",
            )
            .suggest(other, BLOCKS)),
        }
    }

    fn ruleset(&mut self) -> Parsed<Ruleset> {
        let name = self.name("a name")?;
        let mut set = Ruleset {
            name,
            phase: None,
            numerics: None,
            finite: false,
            default_on: true,
            tags: Vec::new(),
        };
        if self.eat(":") {
            loop {
                self.ruleset_entry(&mut set)?;
                if !self.eat(",") {
                    break;
                }
            }
        }
        self.defaults = Defaults {
            phase: set.phase,
            numerics: set.numerics,
            finite: set.finite,
            off: !set.default_on,
            tags: set.tags.clone(),
        };
        Ok(set)
    }

    fn ruleset_entry(&mut self, set: &mut Ruleset) -> Parsed<()> {
        if self.is_word("numerics") {
            let (numerics, finite) = self.numerics()?;
            set.numerics = Some(numerics);
            set.finite = finite;
        } else if self.is_word("tags") {
            set.tags = self.tags()?;
        } else if self.eat_word("default") {
            let state = self.name("`on` or `off`")?;
            set.default_on = match state.text.as_str() {
                "on" => true,
                "off" => false,
                _ => return Err(unexpected_word(&state, "`on` or `off`")),
            };
        } else {
            set.phase = Some(self.phase()?);
        }
        Ok(())
    }

    fn phase(&mut self) -> Parsed<Phase> {
        let name = self.name("a phase")?;
        Phase::from_name(&name.text).ok_or_else(|| {
            let known: Vec<&str> = Phase::ALL.iter().map(|phase| phase.name()).collect();
            unexpected_word(&name, &format!("a phase ({})", known.join(", "))).suggest(&name.text, known)
        })
    }

    /// `numerics(exact)`, `numerics(reassoc)`, `numerics(step)`, `numerics(approx(4), finite)`: the class, and whether
    /// it is promised for finite numbers alone.
    fn numerics(&mut self) -> Parsed<(Numerics, bool)> {
        self.next();
        self.expect("(")?;
        let kind = self.name("`exact`, `reassoc`, `step` or `approx(ulps)`")?;
        let numerics = match kind.text.as_str() {
            "exact" => Numerics::Exact,
            "reassoc" => Numerics::Reassoc,
            "step" => Numerics::Step,
            "approx" => {
                self.expect("(")?;
                let ulps = self.integer()?;
                self.expect(")")?;
                Numerics::Approx(u32::try_from(ulps).unwrap_or(u32::MAX))
            }
            _ => {
                return Err(unexpected_word(
                    &kind,
                    "`exact`, `reassoc`, `step` or `approx(ulps)`",
                ));
            }
        };
        let mut finite = false;
        if self.eat(",") {
            let word = self.name("`finite`")?;
            if word.text != "finite" {
                return Err(unexpected_word(&word, "`finite`").suggest(&word.text, ["finite"]));
            }
            finite = true;
        }
        self.expect(")")?;
        Ok((numerics, finite))
    }

    fn tags(&mut self) -> Parsed<Vec<String>> {
        self.next();
        self.expect("(")?;
        self.list(")", |parser| parser.string("a tag in quotes"))
    }

    fn string(&mut self, wanted: &str) -> Parsed<String> {
        match self.peek().clone() {
            Token::Str(text) => {
                self.next();
                Ok(text)
            }
            _ => Err(self.unexpected(wanted)),
        }
    }

    fn integer(&mut self) -> Parsed<i64> {
        match *self.peek() {
            Token::Int(value) => {
                self.next();
                Ok(value)
            }
            _ => Err(self.unexpected("an integer")),
        }
    }

    /// `name : phase numerics(..) {`, with what the ruleset gives where they are left out.
    fn header(&mut self, start: Span) -> Parsed<Header> {
        let name = self.name("the name of the rule")?;
        let mut phase = self.defaults.phase;
        let mut numerics = self.defaults.numerics;
        let mut finite = self.defaults.finite;
        let mut tags = self.defaults.tags.clone();
        if self.eat(":") {
            while !self.is_sign("{") {
                if self.is_word("numerics") {
                    let promise = self.numerics()?;
                    numerics = Some(promise.0);
                    finite = promise.1;
                } else if self.is_word("tags") {
                    tags.extend(self.tags()?);
                } else {
                    phase = Some(self.phase()?);
                }
                self.eat(",");
            }
        }
        self.expect("{")?;
        let phase = phase.ok_or_else(|| {
            RuleError::new(
                "rules::missing_phase",
                name.span,
                format!("rule `{}` does not say in which phase it runs", name.text),
                "add `: phase`",
            )
        })?;
        let numerics = numerics.ok_or_else(|| missing_numerics(&name))?;
        Ok(Header {
            line: u32::try_from(line_of(self.text, start.start)).unwrap_or(u32::MAX),
            span: start,
            enabled: !self.defaults.off,
            doc: String::new(),
            name,
            phase,
            numerics,
            finite,
            tags,
        })
    }

    fn rule(&mut self, start: Span) -> Parsed<Rule> {
        let mut header = self.header(start)?;
        let left = self.term()?;
        let arrow = self.arrow()?;
        let right = self.term()?;
        let mut clauses = Clauses::default();
        while !self.is_sign("}") {
            self.clause(&mut clauses)?;
        }
        header.span = start.to(self.next().1);
        header.doc = clauses.doc;
        Ok(Rule {
            header,
            left,
            arrow,
            right,
            lets: clauses.lets,
            conditions: clauses.conditions,
            tests: clauses.tests,
        })
    }

    fn arrow(&mut self) -> Parsed<Arrow> {
        let arrow = match self.peek() {
            Token::Sign("=>") => Arrow::Rewrite,
            Token::Sign("<=>") => Arrow::Both,
            Token::Sign("=") => Arrow::Merge,
            Token::Sign("~" | "~>") => Arrow::Replace,
            _ => return Err(self.unexpected("an arrow (`=>`, `<=>`, `=` or `~>`)")),
        };
        self.next();
        Ok(arrow)
    }

    fn clause(&mut self, clauses: &mut Clauses) -> Parsed<()> {
        const KEYWORDS: [&str; 4] = ["where", "let", "doc", "test"];
        let keyword = self.name("`where`, `let`, `doc`, `test` or `}`")?;
        match keyword.text.as_str() {
            "where" => self.conditions(&mut clauses.conditions),
            "let" => self.lets(&mut clauses.lets),
            "doc" => {
                clauses.doc = self.string("the reason, in quotes")?;
                Ok(())
            }
            "test" => {
                let entries = self.test_entries()?;
                clauses.tests.push(entries);
                Ok(())
            }
            other => {
                Err(unexpected_word(&keyword, "`where`, `let`, `doc` or `test`").suggest(other, KEYWORDS))
            }
        }
    }

    fn conditions(&mut self, into: &mut Vec<Expr>) -> Parsed<()> {
        loop {
            into.push(self.expr()?);
            if !self.eat(",") {
                return Ok(());
            }
        }
    }

    fn lets(&mut self, into: &mut Vec<Let>) -> Parsed<()> {
        loop {
            let name = self.name("a name")?;
            self.expect("=")?;
            let value = self.expr()?;
            into.push(Let { name, value });
            if !self.eat(",") {
                return Ok(());
            }
        }
    }

    fn test_entries(&mut self) -> Parsed<Vec<TestEntry>> {
        let mut entries = Vec::new();
        loop {
            let name = self.name("a variable of the left side")?;
            let value = if self.eat(":") {
                self.test_tensor()?
            } else {
                self.expect("=")?;
                self.test_attr()?
            };
            entries.push(TestEntry { name, value });
            if !self.eat(",") {
                return Ok(entries);
            }
        }
    }

    fn test_tensor(&mut self) -> Parsed<TestValue> {
        if self.eat_word("none") {
            return Ok(TestValue::Absent);
        }
        if self.eat("{") {
            return self.list("}", Self::tensor_type).map(TestValue::Inputs);
        }
        let is_constant = self.eat_word("const");
        let named = Numbers::NAMED
            .into_iter()
            .find(|numbers| self.eat_word(numbers.word()));
        let numbers = named.unwrap_or_default();
        let ty = self.tensor_type()?;
        let value = if self.eat("=") { Some(self.expr()?) } else { None };
        Ok(if is_constant || value.is_some() {
            TestValue::Constant { ty, numbers, value }
        } else {
            TestValue::Input { ty, numbers }
        })
    }

    fn test_attr(&mut self) -> Parsed<TestValue> {
        if self.eat("{") {
            return self.test_attrs().map(TestValue::Attrs);
        }
        let is_op = matches!(self.peek(), Token::Word(word) if crate::ops::lookup(word).is_some());
        if is_op {
            let op = self.name("an op")?;
            let attrs = if self.eat("{") {
                self.test_attrs()?
            } else {
                Vec::new()
            };
            return Ok(TestValue::Op(op, attrs));
        }
        self.expr().map(TestValue::Attr)
    }

    fn test_attrs(&mut self) -> Parsed<Vec<(Name, Expr)>> {
        self.list("}", |parser| {
            let name = parser.name("an attribute")?;
            parser.expect("=")?;
            Ok((name, parser.expr()?))
        })
    }

    /// `f32[2,3]`
    fn tensor_type(&mut self) -> Parsed<TensorType> {
        let name = self.name("a type such as `f32[2,3]`")?;
        let dtype = DType::from_name(&name.text).ok_or_else(|| {
            let known = DType::ALL.iter().map(|dtype| dtype.name());
            unexpected_word(&name, "a kind such as `f32`").suggest(&name.text, known)
        })?;
        self.expect("[")?;
        let dims = self.list("]", |parser| {
            let extent = parser.integer()?;
            usize::try_from(extent).map_err(|_| parser.unexpected("an extent"))
        })?;
        Ok(TensorType::new(dtype, &dims))
    }

    /// `siblings y_i = pattern where .. => a = term; y_i = term`
    fn horizontal(&mut self, start: Span) -> Parsed<Horizontal> {
        let mut header = self.header(start)?;
        if !self.eat_word("siblings") {
            return Err(self.unexpected("`siblings`"));
        }
        let sibling = self.name("the sibling's name, such as `y_i`")?;
        self.expect("=")?;
        let pattern = self.term()?;
        let mut clauses = Clauses::default();
        let mut bindings = Vec::new();
        while !self.is_sign("}") {
            if self.eat("=>") {
                bindings = self.bindings()?;
            } else {
                self.clause(&mut clauses)?;
            }
        }
        header.span = start.to(self.next().1);
        header.doc = clauses.doc;
        Ok(Horizontal {
            header,
            sibling,
            pattern,
            lets: clauses.lets,
            conditions: clauses.conditions,
            tests: clauses.tests,
            bindings,
        })
    }

    fn bindings(&mut self) -> Parsed<Vec<(Name, Term)>> {
        let mut bindings = Vec::new();
        loop {
            let name = self.name("a name")?;
            self.expect("=")?;
            bindings.push((name, self.term()?));
            if !self.eat(";") || !matches!(self.peek_second(), Token::Sign("=")) {
                return Ok(bindings);
            }
        }
    }

    fn kernel(&mut self, start: Span) -> Parsed<Kernel> {
        let name = self.name("the name of the kernel")?;
        self.expect("{")?;
        let mut kernel = Kernel {
            line: u32::try_from(line_of(self.text, start.start)).unwrap_or(u32::MAX),
            name,
            template: None,
            accepts: Vec::new(),
            conditions: Vec::new(),
            limits: Vec::new(),
            doc: String::new(),
            span: start,
        };
        while !self.is_sign("}") {
            self.kernel_clause(&mut kernel)?;
        }
        kernel.span = start.to(self.next().1);
        Ok(kernel)
    }

    fn kernel_clause(&mut self, kernel: &mut Kernel) -> Parsed<()> {
        const KEYWORDS: [&str; 5] = ["template", "accepts", "where", "limits", "doc"];
        let keyword = self.name("a clause of a kernel")?;
        match keyword.text.as_str() {
            "template" => kernel.template = Some(self.string("a file name in quotes")?),
            "accepts" => loop {
                kernel.accepts.push(self.name("a kind of region")?);
                if !self.eat(",") {
                    break;
                }
            },
            "where" => self.conditions(&mut kernel.conditions)?,
            "limits" => loop {
                let name = self.name("a quantity")?;
                self.expect("=")?;
                kernel.limits.push((name, self.integer()?));
                if !self.eat(",") {
                    break;
                }
            },
            "doc" => kernel.doc = self.string("the reason, in quotes")?,
            other => {
                let wanted = "`template`, `accepts`, `where`, `limits` or `doc`";
                return Err(unexpected_word(&keyword, wanted).suggest(other, KEYWORDS));
            }
        }
        Ok(())
    }
}

fn unexpected_word(name: &Name, wanted: &str) -> RuleError {
    RuleError::new(
        "rules::unexpected_token",
        name.span,
        format!("expected {wanted}, found `{}`", name.text),
        format!("expected {wanted}"),
    )
}

fn missing_numerics(name: &Name) -> RuleError {
    RuleError::new(
        "rules::missing_numerics",
        name.span,
        format!("rule `{}` does not say how far it may move results", name.text),
        "add `numerics(..)`",
    )
    .help("`numerics(exact)` keeps bits, `numerics(reassoc)` is equal over the reals, `numerics(approx(4))` within 4 ulps")
}

/// The op most like `name`, for messages.
pub(super) fn closest_op(name: &str) -> Option<&'static str> {
    closest(name, crate::ops::all().map(|def| def.name))
}
