//! Faults to plant, as data: what is replaced occurs once in the text of the bed's kernel.

mod attention_plants;
mod group_plants;
mod product_plants;
mod row_plants;
mod thin_plants;

/// One fault.
pub struct Mutant {
    pub stands_for: &'static str,
    pub bed: &'static str,
    pub find: &'static str,
    pub replace: &'static str,
}

const fn plant(
    bed: &'static str,
    stands_for: &'static str,
    find: &'static str,
    replace: &'static str,
) -> Mutant {
    Mutant {
        stands_for,
        bed,
        find,
        replace,
    }
}
/// All faults.
pub fn all() -> impl Iterator<Item = &'static Mutant> {
    let files = [
        product_plants::MUTANTS,
        group_plants::MUTANTS,
        thin_plants::MUTANTS,
        attention_plants::MUTANTS,
        row_plants::MUTANTS,
    ];
    files.into_iter().flatten()
}
