//! The numbers that constants of a kernel are computed to.

use std::collections::HashMap;

use super::tokens::{Kind, Suffix, Token};

/// Numbers of names; none where a name has several, or one that is not known.
pub type Values<'a> = HashMap<&'a str, Option<i64>>;

/// The number that an expression of `int`s is computed to, by names that are known. None for anything else, and
/// where a step does not fit 32 bits: then its type would matter.
pub fn value(tokens: &[Token<'_>], names: &Values<'_>) -> Option<i64> {
    let mut reader = Reader {
        tokens: tokens.iter().filter(|token| token.is_code()).collect(),
        at: 0,
        names,
    };
    let found = reader.choice()?;
    (reader.at == reader.tokens.len()).then_some(found)
}

struct Reader<'a> {
    tokens: Vec<&'a Token<'a>>,
    at: usize,
    names: &'a Values<'a>,
}

/// What binds least comes first.
const LEVELS: [&[&str]; 4] = [
    &["==", "!="],
    &["<=", ">=", "<", ">"],
    &["+", "-"],
    &["*", "/", "%"],
];

impl Reader<'_> {
    /// `a ? b : c`, or what binds more.
    fn choice(&mut self) -> Option<i64> {
        let first = self.level(0)?;
        if !self.take("?") {
            return Some(first);
        }
        let yes = self.choice()?;
        if !self.take(":") {
            return None;
        }
        let no = self.choice()?;
        Some(if first == 0 { no } else { yes })
    }

    fn level(&mut self, level: usize) -> Option<i64> {
        let Some(operators) = LEVELS.get(level) else {
            return self.single();
        };
        let mut left = self.level(level + 1)?;
        while let Some(operator) = operators.iter().find(|operator| self.take(operator)) {
            let right = self.level(level + 1)?;
            left = small(applied(operator, left, right)?)?;
        }
        Some(left)
    }

    fn single(&mut self) -> Option<i64> {
        if self.take("-") {
            return small(-self.single()?);
        }
        if self.take("(") {
            let inner = self.choice()?;
            return self.take(")").then_some(inner);
        }
        let token = *self.tokens.get(self.at)?;
        self.at += 1;
        match token.kind {
            Kind::Integer(Suffix::Int) => token.argument().map(i64::from),
            Kind::Word => self.names.get(token.text).copied().flatten(),
            _ => None,
        }
    }

    /// Goes past an operator, if it is the next.
    fn take(&mut self, operator: &str) -> bool {
        let mark = |at: usize| {
            self.tokens
                .get(at)
                .filter(|token| token.kind == Kind::Mark)
                .map(|token| token.text)
        };
        let mut marks = operator.chars().enumerate();
        let is_next = marks.all(|(step, c)| mark(self.at + step).is_some_and(|own| own.starts_with(c)));
        // `a << b`, `a && b` and the like are not read.
        let is_other = operator.len() == 1
            && ["<", ">"].contains(&operator)
            && mark(self.at + 1).is_some_and(|next| next == operator);
        if is_next && !is_other {
            self.at += operator.len();
        }
        is_next && !is_other
    }
}

fn applied(operator: &str, a: i64, b: i64) -> Option<i64> {
    Some(match operator {
        "+" => a + b,
        "-" => a - b,
        "*" => a * b,
        "/" => a.checked_div(b)?,
        "%" => a.checked_rem(b)?,
        "<" => i64::from(a < b),
        ">" => i64::from(a > b),
        "<=" => i64::from(a <= b),
        ">=" => i64::from(a >= b),
        "==" => i64::from(a == b),
        _ => i64::from(a != b),
    })
}

fn small(number: i64) -> Option<i64> {
    i32::try_from(number).is_ok().then_some(number)
}

#[cfg(test)]
mod tests {
    use super::super::tokens::tokens;
    use super::*;

    #[test]
    fn expressions_are_computed_as_c_does() {
        let names: Values<'_> = [("kA", Some(7)), ("kB", Some(64)), ("kC", None)].into();
        let of = |text: &str| value(&tokens(text), &names);
        for (text, number) in [
            ("(kA + kB - 1) / kB", 1),
            ("2 + 3 * 4", 14),
            ("10 - 3 - 2", 5),
            ("-7 / 2", -3),
            ("-7 % 4", -3),
            ("kA < kB ? kA : kB", 7),
            ("kA >= 8 ? 1 : kB == 64 ? 2 : 3", 2),
            ("kA != 7", 0),
        ] {
            assert_eq!(of(text), Some(number), "{text}");
        }
        for text in [
            "kC + 1",
            "kD",
            "1 << 3",
            "kA >> 1",
            "1u + 2",
            "2147483647 + 1",
            "65536 * 65536 / 65536",
            "1 / 0",
            "f(3)",
            "1.0f",
            "kA kB",
            "(1",
            "kA &&kB",
            "sizeof(int)",
        ] {
            assert_eq!(of(text), None, "{text}");
        }
    }
}
