//! The types of one input or output in all profiles, for messages: listed where they are few, else as ranges.

use super::Binding;

/// Most types that are listed.
const MAX_LISTED: usize = 8;

/// `i64[1,8] or i64[1,16]`; of many, `i64[1,1 to 128]`, or how many there are within such ranges.
pub fn spanned<'a>(bindings: impl IntoIterator<Item = &'a Binding>) -> String {
    let mut distinct: Vec<&Binding> = Vec::new();
    for binding in bindings {
        if !distinct.iter().any(|known| known.dims == binding.dims) {
            distinct.push(binding);
        }
    }
    let Some(first) = distinct.first() else {
        return String::new();
    };
    let rank = first.dims.len();
    if distinct.len() <= MAX_LISTED || distinct.iter().any(|other| other.dims.len() != rank) {
        let texts: Vec<String> = distinct.iter().map(|binding| binding.ty().to_string()).collect();
        return texts.join(" or ");
    }
    let extents = |axis: usize| distinct.iter().map(move |binding| binding.dims[axis]);
    let ranges: Vec<(usize, usize)> = (0..rank)
        .map(|axis| (extents(axis).min().unwrap_or(0), extents(axis).max().unwrap_or(0)))
        .collect();
    let texts: Vec<String> = ranges
        .iter()
        .map(|&(least, most)| {
            if least == most {
                least.to_string()
            } else {
                format!("{least} to {most}")
            }
        })
        .collect();
    let within = format!("{}[{}]", first.dtype.name(), texts.join(","));
    let sizes = ranges.iter().map(|(least, most)| most - least + 1);
    let n_within = sizes.fold(1usize, usize::saturating_mul);
    if n_within == distinct.len() {
        within
    } else {
        format!("one of {} shapes within {within}", distinct.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::DType;

    fn told(shapes: &[&[usize]]) -> String {
        let bindings: Vec<Binding> = shapes
            .iter()
            .map(|dims| Binding {
                name: "x".to_owned(),
                dtype: DType::F32,
                dims: dims.to_vec(),
            })
            .collect();
        spanned(&bindings)
    }

    #[test]
    fn few_are_listed_and_many_are_ranges() {
        assert_eq!(told(&[&[1, 3], &[2, 3], &[1, 3]]), "f32[1,3] or f32[2,3]");
        let lengths: Vec<Vec<usize>> = (1..=128).map(|length| vec![2, length]).collect();
        let mut shapes: Vec<&[usize]> = lengths.iter().map(Vec::as_slice).collect();
        assert_eq!(told(&shapes), "f32[2,1 to 128]");
        shapes.remove(5);
        assert_eq!(told(&shapes), "one of 127 shapes within f32[2,1 to 128]");
    }
}
