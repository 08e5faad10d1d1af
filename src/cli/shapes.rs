//! Reads `--shapes` in trtexec's and polygraphy's spelling.

use super::failure::Failure;
use crate::engine::{Binding, Header, Profile};

/// Splits `image:1x3x224x224,mask:[1,128]` into names and dims. `name:scalar` has no dims.
///
/// Input names may contain colons and slashes; the last colon of an entry ends the name.
pub fn parse(text: &str) -> Result<Vec<(String, Vec<usize>)>, String> {
    split_entries(text).into_iter().map(parse_entry).collect()
}

/// The profile whose dims are those of `shapes`, by input names; the first one where none are named.
pub fn profile(header: &Header, shapes: &[(String, Vec<usize>)]) -> Result<usize, Failure> {
    let fits = |profile: &Profile| {
        shapes.iter().all(|(name, dims)| {
            let mut inputs = profile.inputs.iter();
            inputs.any(|binding| binding.name == *name && binding.dims == *dims)
        })
    };
    for number in 0..header.n_profiles() {
        if fits(&*header.profile(number)?) {
            return Ok(number);
        }
    }
    let first = header.profiles.first().map_or(&[][..], |first| &first.inputs);
    let own = first.iter().enumerate();
    let own = own.map(|(position, input)| format!("`{}` is {}", input.name, header.spanned_input(position)));
    Err(Failure::usage(format!(
        "`--shapes`: the engine has no such profile: {}",
        own.collect::<Vec<_>>().join(", ")
    )))
}

/// The inputs of a profile in the spelling of `--shapes`.
pub fn text(profile: &Profile) -> String {
    let entry = |binding: &Binding| {
        let dims: Vec<String> = binding.dims.iter().map(ToString::to_string).collect();
        let dims = if dims.is_empty() {
            "scalar".to_owned()
        } else {
            dims.join("x")
        };
        format!("{}:{dims}", binding.name)
    };
    profile.inputs.iter().map(entry).collect::<Vec<_>>().join(",")
}

/// Splits at commas that are not inside brackets.
fn split_entries(text: &str) -> Vec<&str> {
    let (mut entries, mut depth, mut start) = (Vec::new(), 0usize, 0);
    for (position, character) in text.char_indices() {
        match character {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                entries.push(&text[start..position]);
                start = position + 1;
            }
            _ => {}
        }
    }
    entries.push(&text[start..]);
    entries
        .into_iter()
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .collect()
}

fn parse_entry(entry: &str) -> Result<(String, Vec<usize>), String> {
    let Some((name, dims)) = entry.rsplit_once(':') else {
        return Err(format!(
            "`{entry}` is not `name:1x3x224x224` or `name:[1,3,224,224]`"
        ));
    };
    let dims = dims.trim();
    if dims == "scalar" || dims == "[]" {
        return Ok((name.to_owned(), Vec::new()));
    }
    let (inner, separator) = match dims.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => (inner, ','),
        None => (dims, 'x'),
    };
    let dims: Result<Vec<usize>, String> = inner
        .split(separator)
        .map(|part| {
            part.trim()
                .parse()
                .map_err(|_| format!("`{part}` in `{entry}` is not a dim: expected a whole number"))
        })
        .collect();
    Ok((name.to_owned(), dims?))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn both_spellings_mix() {
        let shapes = parse("image:1x3x224x224, a/b:0:[2,128],n:scalar").unwrap();
        assert_eq!(
            shapes,
            [
                ("image".to_owned(), vec![1, 3, 224, 224]),
                ("a/b:0".to_owned(), vec![2, 128]),
                ("n".to_owned(), vec![])
            ]
        );
    }

    #[test]
    fn mistakes_are_named() {
        assert!(parse("image").unwrap_err().contains("image"));
        assert!(parse("image:1xfoo").unwrap_err().contains("foo"));
    }
}
