//! Texts without their numbers: what programs of one range have in common, to the letter.
//!
//! A JSON text is cut into *pieces*, a launch or a tensor each, and these at their numbers. Putting numbers back gives
//! the text that was cut, whatever it is of, so that nothing here has to know what a program is made of.

use std::fmt::Write;

/// A number of a text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    Int(i64),
    Real(f64),
}

/// What is between the numbers of a piece: one more text than there are numbers.
pub type Piece = Vec<String>;

/// Brackets that are open where a piece ends: those of a pair, of a program, and of a list in it.
const DEPTH: usize = 3;

impl Number {
    /// The number that is written like `text`; none where writing it gives another text.
    fn of(text: &str) -> Option<Self> {
        let number = match text.parse() {
            Ok(int) => Number::Int(int),
            Err(_) => Number::Real(text.parse().ok()?),
        };
        let mut written = String::new();
        number.write(&mut written);
        (written == text).then_some(number)
    }

    fn write(self, into: &mut String) {
        match self {
            Number::Int(int) => {
                let _ = write!(into, "{int}");
            }
            Number::Real(real) => *into += &serde_json::to_string(&real).unwrap_or_default(),
        }
    }
}

/// The pieces of a JSON text, and the numbers between them.
pub fn cut(text: &str) -> (Vec<Piece>, Vec<Number>) {
    let (mut pieces, mut numbers) = (Vec::new(), Vec::new());
    let (mut piece, mut fragment) = (Piece::new(), String::new());
    let mut depth = 0usize;
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let len = token_len(rest, first);
        let (token, after) = rest.split_at(len);
        rest = after;
        match Number::of(token).filter(|_| first != '"') {
            Some(number) => {
                numbers.push(number);
                piece.push(std::mem::take(&mut fragment));
            }
            None => fragment += token,
        }
        match first {
            '[' | '{' => depth += 1,
            ']' | '}' => {
                depth = depth.saturating_sub(1);
                if depth == DEPTH {
                    piece.push(std::mem::take(&mut fragment));
                    pieces.push(std::mem::take(&mut piece));
                }
            }
            _ => {}
        }
    }
    piece.push(fragment);
    pieces.push(piece);
    (pieces, numbers)
}

/// Bytes of the string, number, or character that `text` begins with.
fn token_len(text: &str, first: char) -> usize {
    match first {
        '"' => string_len(text),
        '-' | '0'..='9' => {
            let is_other = |c: char| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '+' | '-');
            text.find(is_other).unwrap_or(text.len())
        }
        other => other.len_utf8(),
    }
}

fn string_len(text: &str) -> usize {
    let mut is_escaped = false;
    for (position, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return position + 1,
            _ => {}
        }
    }
    text.len()
}

/// The text of `pieces` with `numbers` between them, as many as they have room for.
pub fn joined<'a>(
    pieces: impl Iterator<Item = &'a Piece>,
    mut numbers: impl Iterator<Item = Number>,
) -> String {
    let mut text = String::new();
    for piece in pieces {
        for (position, fragment) in piece.iter().enumerate() {
            if position > 0
                && let Some(number) = numbers.next()
            {
                number.write(&mut text);
            }
            text += fragment;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_is_joined_again() {
        let text = r#"[[1,20],{"a":[{"x 1":"\"2\\","y":-3,"z":4.5,"small":1e-300},{"y":18446744073709551615,"z":2.0}],"ä7":null}]"#;
        let (pieces, numbers) = cut(text);
        let found: Vec<Number> = [1, 20, -3].map(Number::Int).to_vec();
        assert_eq!(numbers[..3], found);
        // More than 64 bits count is no number here, but text.
        assert_eq!(numbers[3..], [4.5, 1e-300, 2.0].map(Number::Real));
        let n_fragments = |piece: &Piece| piece.len();
        assert_eq!(pieces.iter().map(n_fragments).collect::<Vec<_>>(), [6, 2, 1]);
        assert_eq!(joined(pieces.iter(), numbers.into_iter()), text);
    }

    #[test]
    fn texts_that_are_no_json_are_kept_too() {
        for text in ["", "\"", "]]]3", "{\"a\\", "1.50", "-", "00", "1e5é"] {
            let (pieces, numbers) = cut(text);
            assert_eq!(joined(pieces.iter(), numbers.into_iter()), text);
        }
    }
}
