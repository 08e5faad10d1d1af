//! Kernels for many shapes: texts that differ in numbers alone become one, whose numbers are arguments.
//!
//! What the numbers of a text mean plays no part. Texts with the same tokens but for integers are members
//! of one family; where their integers differ, the family takes an argument, and each member passes the
//! very number that its own text had. So a family computes what its members compute, and a template knows
//! nothing of it. Places that need constants (`constants.rs`) are not replaced: texts that differ there are
//! of different families. Constants that are computed to one number in all members (`value.rs`) stay constants, so
//! that a loop which has one turn in all of them is none.

mod constants;
mod form;
mod general;
mod tokens;
mod value;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::source::{Param, Source};
use form::{Form, Key, Numbers};
use general::General;

/// Sources that execute one text.
pub struct Family {
    /// The first of them as it is alone.
    pub alone: Source,
    /// Each under the number that it was added with, with its own arguments.
    pub members: Vec<(usize, Source)>,
}

/// Sources, taken one at a time: of most, what differs from others is kept, and not the text.
#[derive(Default)]
pub struct Families {
    groups: Vec<Group>,
    by_key: HashMap<Key, usize>,
}

/// Sources of one key.
struct Group {
    first: Source,
    members: Vec<Member>,
}

struct Member {
    number: usize,
    /// What is launched, with the first one's text.
    source: Source,
    numbers: Numbers,
}

impl Families {
    /// Adds a source under a number. One that is not one kernel is in no family.
    pub fn add(&mut self, number: usize, source: Source) {
        let Some(form) = Form::of(&source) else { return };
        let (key, numbers) = (form.key(), form.numbers());
        let next = self.groups.len();
        let own = *self.by_key.entry(key).or_insert(next);
        if own == next {
            self.groups.push(Group {
                first: source.clone(),
                members: Vec::new(),
            });
        }
        let group = &mut self.groups[own];
        let source = Source {
            text: Arc::clone(&group.first.text),
            header: String::new(),
            ..source
        };
        group.members.push(Member {
            number,
            source,
            numbers,
        });
    }

    /// Families of at least two texts each; sources that are in none are left out.
    pub fn finish(self) -> Vec<Family> {
        self.groups.into_iter().filter_map(Group::family).collect()
    }
}

impl Group {
    /// `None` where all texts are equal, or cannot be one.
    fn family(self) -> Option<Family> {
        let texts: HashSet<&Numbers> = self.members.iter().map(|own| &own.numbers).collect();
        let n_texts = texts.len();
        if n_texts < 2 {
            return None;
        }
        let form = Form::of(&self.first)?;
        let numbers: Vec<&Numbers> = self.members.iter().map(|own| &own.numbers).collect();
        let General { text, values } = General::of(&form, &numbers)?;
        let header = format!(
            "// family   one of {n_texts} shapes, in which numbers are arguments\n{}",
            self.first.header
        );
        let text: Arc<str> = text.into();
        // Operands are each one's own: texts may be equal where tensor maps differ.
        let member = |(place, own): (usize, Member)| {
            let mut source = own.source;
            source.text = Arc::clone(&text);
            source.header.clone_from(&header);
            source
                .params
                .extend(values.iter().map(|values| Param::Dim(values[place])));
            (own.number, source)
        };
        let members = self.members.into_iter().enumerate().map(member).collect();
        Some(Family {
            alone: self.first,
            members,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::prelude::{COMMON, kernel_part, translation_unit};
    use super::super::source::Launch;
    use super::*;

    /// Families among `sources`, by their places.
    fn families(sources: &[Source]) -> Vec<Family> {
        let mut all = Families::default();
        for (number, source) in sources.iter().enumerate() {
            all.add(number, source.clone());
        }
        all.finish()
    }

    fn source(body: &str) -> Source {
        let kernel = format!(
            "// Rows of {}.\nextern \"C\" __global__ void __launch_bounds__(128) k(\n    float* out0) {{\n{body}}}\n",
            body.len()
        );
        Source {
            name: "k".to_owned(),
            header: "// region\n".to_owned(),
            text: translation_unit(COMMON, &kernel),
            template: "pointwise",
            launch: Launch::in_a_row(body.len(), 128, 0),
            params: vec![Param::Output(0)],
            workspace_bytes: 0,
        }
    }

    fn bodies(texts: &[&str]) -> Vec<Source> {
        texts.iter().map(|text| source(text)).collect()
    }

    /// The only family of some sources.
    fn family(texts: &[&str]) -> Vec<Source> {
        let sources = bodies(texts);
        let mut all = families(&sources);
        assert_eq!(all.len(), 1, "{texts:?}");
        let members = all.remove(0).members;
        let numbers: Vec<usize> = members.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, (0..sources.len()).collect::<Vec<_>>());
        for ((_, member), source) in members.iter().zip(&sources) {
            assert_eq!(member.launch, source.launch);
            assert_eq!(member.text, members[0].1.text);
        }
        members.into_iter().map(|(_, source)| source).collect()
    }

    fn dims(source: &Source) -> Vec<i32> {
        let dims = source.params.iter().filter_map(|param| match param {
            Param::Dim(value) => Some(*value),
            _ => None,
        });
        dims.collect()
    }

    fn body(source: &Source) -> &str {
        let kernel = kernel_part(&source.text);
        kernel.split_once(") {\n").unwrap().1.strip_suffix("}\n").unwrap()
    }

    #[test]
    fn what_differs_becomes_an_argument_and_equal_numbers_share_one() {
        let own = family(&[
            "if (x < 97) y = x * 768 + 97;\n",
            "if (x < 98) y = x * 768 + 98;\n",
            "if (x < 5) y = x * 768 + 5;\n",
        ]);
        assert_eq!(body(&own[0]), "if (x < dim0) y = x * 768 + dim0;\n");
        assert!(own[0].text.contains("float* out0,\n    const int dim0) {"));
        assert_eq!(own.iter().map(dims).collect::<Vec<_>>(), [[97], [98], [5]]);
        // What two places have in common by chance in some members only stays apart.
        let own = family(&["x = 4 + 4;\n", "x = 5 + 6;\n"]);
        assert_eq!(body(&own[0]), "x = dim0 + dim1;\n");
        assert_eq!(own.iter().map(dims).collect::<Vec<_>>(), [[4, 4], [5, 6]]);
    }

    #[test]
    fn what_is_computed_from_arguments_is_no_constant() {
        let text = |n: usize| {
            format!(
                "constexpr int kM = {n};\nconstexpr int kT = kM * 2;\nconstexpr int kN = 3;\nx[kN] = kT;\n"
            )
        };
        let own = family(&[&text(7), &text(9)]);
        assert_eq!(
            body(&own[0]),
            "const int kM = dim0;\nconst int kT = kM * 2;\nconstexpr int kN = 3;\nx[kN] = kT;\n"
        );
    }

    #[test]
    fn what_is_computed_to_one_number_stays_a_constant() {
        let text = |n: usize| {
            format!(
                "constexpr int kKeys = {n};\nconstexpr int kTiles = (kKeys + 63) / 64;\nconstexpr int kTwo = kTiles * 2;\nif (x < kKeys) y = kTwo;\n"
            )
        };
        let own = family(&[&text(70), &text(99), &text(128)]);
        assert_eq!(
            body(&own[0]),
            "const int kKeys = dim0;\nconstexpr int kTiles = 2;\nconstexpr int kTwo = 4;\nif (x < kKeys) y = kTwo;\n"
        );
        let own = family(&[&text(70), &text(200)]);
        assert!(body(&own[0]).contains("const int kTiles = (kKeys + 63) / 64;"));
        // A name that has two numbers is not computed with.
        let twice = |n: usize| {
            format!("{{ constexpr int kA = {n}; }}\nconstexpr int kA = 64;\nconstexpr int kB = kA / {n};\n")
        };
        let own = family(&[&twice(33), &twice(34)]);
        assert!(
            body(&own[0]).contains("const int kB = kA / dim0;"),
            "{}",
            body(&own[0])
        );
    }

    #[test]
    fn arguments_have_the_types_of_the_literals() {
        let own = family(&["x = 3u * 4000000000u + 7ll;\n", "x = 4u * 4000000001u + 8ll;\n"]);
        assert_eq!(
            body(&own[0]),
            "x = static_cast<unsigned>(dim0) * static_cast<unsigned>(dim1) + static_cast<long long>(dim2);\n"
        );
        assert_eq!(dims(&own[1]), [4, (4_000_000_001u32).cast_signed(), 8]);
        let apart = [
            "x = 3 * i;\n",
            "x = 3u * i;\n",
            "x = 5000000000 * i;\n",
            "x = 5000000001 * i;\n",
        ];
        assert!(families(&bodies(&apart)).is_empty());
    }

    #[test]
    fn constants_and_other_tokens_keep_kernels_apart() {
        for texts in [
            ["float x[3];\n", "float x[4];\n"],
            ["rt_load<3>(x);\n", "rt_load<4>(x);\n"],
            ["x = 1.0f;\n", "x = 2.0f;\n"],
            ["x = 0x10;\n", "x = 0x11;\n"],
            ["f(\"3\");\n", "f(\"4\");\n"],
            [
                "#pragma unroll 3\nfor (;;) {}\n",
                "#pragma unroll 4\nfor (;;) {}\n",
            ],
            ["x = y + 3;\n", "x = z + 3;\n"],
            [
                "constexpr int kA = 3;\nfloat x[kA];\n",
                "constexpr int kA = 4;\nfloat x[kA];\n",
            ],
        ] {
            assert!(families(&bodies(&texts)).is_empty(), "{texts:?}");
        }
        let mut other = bodies(&["x = 3;\n", "x = 4;\n"]);
        other[1].launch.block = [64, 1, 1];
        assert!(families(&other).is_empty());
        let mut taken = bodies(&["dim0 = 3;\n", "dim0 = 4;\n"]);
        assert!(families(&taken).is_empty());
        taken.truncate(1);
        assert!(families(&taken).is_empty());
    }

    #[test]
    fn comments_name_the_arguments() {
        let own = family(&["x = 30; // 30 of 8 and 1\n", "x = 40; // 40 of 8 and 2\n"]);
        assert_eq!(body(&own[0]), "x = dim0; // dim0 of 8 and ..\n");
    }

    #[test]
    fn sources_of_one_text_have_the_same_arguments() {
        let sources = bodies(&["x = 3;\n", "x = 4;\n", "x = 3;\n"]);
        let all = families(&sources);
        let mut numbers: Vec<(usize, Vec<i32>)> = all[0]
            .members
            .iter()
            .map(|(number, own)| (*number, dims(own)))
            .collect();
        numbers.sort();
        assert_eq!(numbers, [(0, vec![3]), (1, vec![4]), (2, vec![3])]);
    }
}
