//! Generated CUDA as tokens. Together they are the text: nothing is lost between them.

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A name or a keyword.
    Word,
    /// A decimal literal that has the stated type and fits an argument of 32 bits.
    Integer(Suffix),
    /// Any other number: of floats, in other bases, or too large.
    Number,
    /// A string or a character.
    Quoted,
    /// A comment, to the end of its line or of itself.
    Comment,
    /// A line of the preprocessor.
    Directive,
    Space,
    /// One character of punctuation.
    Mark,
}

/// The type of a literal that is written without a dot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Suffix {
    /// `7`, an `int`.
    Int,
    /// `7u`.
    Unsigned,
    /// `7ll`.
    LongLong,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token<'a> {
    pub kind: Kind,
    pub text: &'a str,
}

impl Token<'_> {
    pub fn is_word(&self, text: &str) -> bool {
        self.kind == Kind::Word && self.text == text
    }

    pub fn is_mark(&self, mark: char) -> bool {
        self.kind == Kind::Mark && self.text.starts_with(mark)
    }

    /// Whether a compiler sees it.
    pub fn is_code(&self) -> bool {
        !matches!(self.kind, Kind::Space | Kind::Comment)
    }

    /// The bits of an argument of 32 bits with the value of a literal.
    pub fn argument(&self) -> Option<i32> {
        let Kind::Integer(suffix) = self.kind else {
            return None;
        };
        let digits = self.text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        match suffix {
            Suffix::Int | Suffix::LongLong => digits.parse().ok(),
            Suffix::Unsigned => digits.parse().ok().map(u32::cast_signed),
        }
    }
}

/// The tokens of `text`.
pub fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut found: Vec<Token<'_>> = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let begins_line = found.last().is_none_or(|last| last.text.ends_with('\n'))
            || found.len() >= 2 && is_indent(&found[found.len() - 2..]);
        let (kind, len) = next(rest, begins_line);
        let (text, after) = rest.split_at(len);
        found.push(Token { kind, text });
        rest = after;
    }
    found
}

/// Whether nothing but space is before a token on its line.
fn is_indent(last: &[Token<'_>]) -> bool {
    last[1].kind == Kind::Space && (last[1].text.contains('\n') || last[0].text.ends_with('\n'))
}

/// Kind and length of the first token of a text that is not empty.
fn next(text: &str, begins_line: bool) -> (Kind, usize) {
    let first = text.chars().next().expect("the caller has some text left");
    let run = |belongs: fn(char) -> bool| text.find(|c| !belongs(c)).unwrap_or(text.len());
    match first {
        c if c.is_whitespace() => (Kind::Space, run(char::is_whitespace)),
        c if is_name(c) && !c.is_ascii_digit() => (Kind::Word, run(is_name)),
        c if c.is_ascii_digit() => number(text),
        '.' if text[1..].starts_with(|c: char| c.is_ascii_digit()) => (Kind::Number, number(text).1),
        '"' | '\'' => (Kind::Quoted, quoted_len(text, first)),
        '/' if text.starts_with("//") => (Kind::Comment, line_len(text)),
        '/' if text.starts_with("/*") => (Kind::Comment, text.find("*/").map_or(text.len(), |end| end + 2)),
        '#' if begins_line => (Kind::Directive, line_len(text)),
        c => (Kind::Mark, c.len_utf8()),
    }
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Up to the end of a line, with lines that a backslash continues.
fn line_len(text: &str) -> usize {
    let mut end = 0;
    for line in text.split_inclusive('\n') {
        let content = line.trim_end_matches(['\n', '\r']);
        end += content.len();
        if !content.ends_with('\\') {
            break;
        }
        end += line.len() - content.len();
    }
    end
}

fn quoted_len(text: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '\\' if !is_escaped => is_escaped = true,
            c if c == quote && !is_escaped => return at + 1,
            _ => is_escaped = false,
        }
    }
    text.len()
}

/// A number as the preprocessor reads it: all that may belong to one, a sign after an exponent, too.
fn number(text: &str) -> (Kind, usize) {
    let is_hexadecimal = text.starts_with("0x") || text.starts_with("0X");
    let mut end = 0;
    let mut before = ' ';
    for c in text.chars() {
        let is_exponent = match before {
            'e' | 'E' => !is_hexadecimal,
            'p' | 'P' => true,
            _ => false,
        };
        let is_sign = matches!(c, '+' | '-') && is_exponent;
        if !(is_name(c) || c == '.' || c == '\'' || is_sign) {
            break;
        }
        end += c.len_utf8();
        before = c;
    }
    (integer(&text[..end]).map_or(Kind::Number, Kind::Integer), end)
}

/// The type of a decimal literal that an argument can replace.
fn integer(text: &str) -> Option<Suffix> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let is_octal = digits.len() > 1 && digits.starts_with('0');
    if is_octal || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    match &text[digits.len()..] {
        "" => digits.parse::<i32>().ok().map(|_| Suffix::Int),
        "u" | "U" => digits.parse::<u32>().ok().map(|_| Suffix::Unsigned),
        "ll" | "LL" => digits.parse::<i32>().ok().map(|_| Suffix::LongLong),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<(Kind, &str)> {
        let all = tokens(text);
        let whole: String = all.iter().map(|token| token.text).collect();
        assert_eq!(whole, text);
        let code = all.iter().filter(|token| token.kind != Kind::Space);
        code.map(|token| (token.kind, token.text)).collect()
    }

    #[test]
    fn literals_have_the_types_that_c_gives_them() {
        let int = Kind::Integer(Suffix::Int);
        for (text, kind) in [
            ("7", int),
            ("0", int),
            ("2147483647", int),
            ("7u", Kind::Integer(Suffix::Unsigned)),
            ("4294967295U", Kind::Integer(Suffix::Unsigned)),
            ("7ll", Kind::Integer(Suffix::LongLong)),
            // A `long`, and what does not fit 32 bits.
            ("2147483648", Kind::Number),
            ("4294967296u", Kind::Number),
            ("2147483648ll", Kind::Number),
            ("7l", Kind::Number),
            ("7ull", Kind::Number),
            ("017", Kind::Number),
            ("0x1f", Kind::Number),
            ("0b11", Kind::Number),
            ("1'000", Kind::Number),
            ("1.0f", Kind::Number),
            ("1.", Kind::Number),
            (".5", Kind::Number),
            ("1e-5f", Kind::Number),
            ("1e5", Kind::Number),
            ("0x1p-3", Kind::Number),
        ] {
            assert_eq!(kinds(text), [(kind, text)]);
        }
        assert_eq!(kinds("0xe+1").len(), 3);
        assert_eq!(kinds("1-1").len(), 3);
        assert_eq!(tokens("4294967295u")[0].argument(), Some(-1));
        assert_eq!(tokens("12ll")[0].argument(), Some(12));
    }

    #[test]
    fn what_is_no_code_holds_no_literals() {
        assert_eq!(
            kinds("a7 // 7 <8>\n'7' \"\\\"7\" /* 7\n*/ x"),
            [
                (Kind::Word, "a7"),
                (Kind::Comment, "// 7 <8>"),
                (Kind::Quoted, "'7'"),
                (Kind::Quoted, "\"\\\"7\""),
                (Kind::Comment, "/* 7\n*/"),
                (Kind::Word, "x"),
            ]
        );
        assert_eq!(
            kinds("#define X 7 \\\n  8\n  #pragma unroll 4\na # 7")[..2],
            [
                (Kind::Directive, "#define X 7 \\\n  8"),
                (Kind::Directive, "#pragma unroll 4"),
            ]
        );
        assert_eq!(kinds("a # 7").len(), 3);
    }
}
