//! What a misspelt name may have meant.

use super::cursor::Resolve;

/// An op one edit away from `name`.
pub(super) fn similar(name: &str, resolve: Resolve<'_>) -> Option<&'static str> {
    if let Some(op) = resolve(&name.to_ascii_lowercase()) {
        return Some(op);
    }
    let letters = || ('a'..='z').chain('A'..='Z').chain(['_']);
    let splits = (0..=name.len()).filter(|&at| name.is_char_boundary(at));
    splits.map(|at| name.split_at(at)).find_map(|(before, after)| {
        let mut rest = after.chars();
        let first = rest.next();
        let rest = rest.as_str();
        let second = rest.chars().next();
        let swapped = first.zip(second).map(|(first, second)| {
            let after = &rest[second.len_utf8()..];
            format!("{before}{second}{first}{after}")
        });
        let shorter = format!("{before}{rest}");
        let longer = letters().map(|letter| format!("{before}{letter}{after}"));
        let other = letters().map(|letter| format!("{before}{letter}{rest}"));
        let mut tries = swapped.into_iter().chain([shorter]).chain(longer).chain(other);
        tries.find_map(|text| resolve(&text))
    })
}

/// Edits between two names.
pub(super) fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (above, left) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], above + 1);
        for (column, &right) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(left != right);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[b.len()]
}
