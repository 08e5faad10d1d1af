//! What is wrong with a text, and where.

use std::ops::Range;

/// Why a text is no graph. Spans are byte ranges of the text; attach it with
/// `miette::Report::with_source_code`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
pub enum TextError {
    #[error("expected {expected}, found {found}")]
    #[diagnostic(code(text::unexpected))]
    Unexpected {
        expected: String,
        found: String,
        #[label("{expected} here")]
        span: Range<usize>,
    },
    #[error("`{character}` begins nothing")]
    #[diagnostic(code(text::unknown_character))]
    Character {
        character: char,
        #[label("here")]
        span: Range<usize>,
    },
    #[error("a string is not closed")]
    #[diagnostic(code(text::open_string))]
    OpenString {
        #[label("opened here")]
        span: Range<usize>,
    },
    #[error("no op is named `{name}`")]
    #[diagnostic(code(text::unknown_op))]
    UnknownOp {
        name: String,
        #[help]
        help: Option<String>,
        #[label("unknown")]
        span: Range<usize>,
    },
    #[error("no value is named `{label}` here")]
    #[diagnostic(code(text::undefined_value))]
    Undefined {
        label: String,
        #[help]
        help: Option<String>,
        #[label("not defined before this")]
        span: Range<usize>,
    },
    #[error("`{label}` is defined twice")]
    #[diagnostic(code(text::redefined_value))]
    Redefined {
        label: String,
        #[label("defined again here")]
        span: Range<usize>,
    },
    #[error("value number {id} of graph `{graph}` is not defined, although a higher one is")]
    #[diagnostic(code(text::missing_value))]
    Gap {
        id: usize,
        graph: String,
        #[label("in this graph")]
        span: Range<usize>,
    },
    #[error("attribute `{name}` is given twice")]
    #[diagnostic(code(text::repeated_attribute))]
    RepeatedAttr {
        name: String,
        #[label("again here")]
        span: Range<usize>,
    },
    #[error("`{text}` is not an element of kind `{kind}`")]
    #[diagnostic(code(text::bad_number))]
    Number {
        text: String,
        kind: String,
        #[label("here")]
        span: Range<usize>,
    },
    #[error("`{ty}` has {expected} elements, found {found}")]
    #[diagnostic(code(text::element_count))]
    ElementCount {
        ty: String,
        expected: usize,
        found: usize,
        #[label("these")]
        span: Range<usize>,
    },
    #[error("`{ty}` is too large, or one of its dims is not a number")]
    #[diagnostic(code(text::bad_weight_type))]
    WeightType {
        ty: String,
        #[label("weights have known dims")]
        span: Range<usize>,
    },
    #[error("expected one result, found an op with {found}")]
    #[diagnostic(code(text::nested_results))]
    Results {
        found: usize,
        #[label("here")]
        span: Range<usize>,
    },
}
