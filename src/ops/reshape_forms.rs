//! `Reshape` where data decides extents: which axes of the operand and of the result have the same elements.

use super::bounded::{BoundedCtx, BoundedResults, Linear, Size};
use super::build::signed;
use super::{OpError, infer};

/// An extent as a product: a factor, and numbers that data decides.
#[derive(Clone, Debug, PartialEq)]
struct Product {
    factor: i64,
    parts: Vec<Linear>,
}

impl Product {
    fn of(size: &Size) -> Result<Self, OpError> {
        let unknown =
            || OpError::HostOnly("an extent of the shape is not known from those of the operand".to_owned());
        let linear = size.amount.linear.as_ref().ok_or_else(unknown)?;
        match (linear.as_known(), linear.factored()) {
            (Some(factor), _) => Ok(Product {
                factor,
                parts: Vec::new(),
            }),
            (None, Some((factor, part))) => Ok(Product {
                factor,
                parts: vec![part],
            }),
            (None, None) => Err(unknown()),
        }
    }

    fn one() -> Self {
        Product {
            factor: 1,
            parts: Vec::new(),
        }
    }

    fn times(&self, other: &Product) -> Self {
        let mut parts = [self.parts.as_slice(), &other.parts].concat();
        parts.sort();
        Product {
            factor: self.factor.saturating_mul(other.factor),
            parts,
        }
    }

    /// `self / divisor`, where nothing is left.
    fn divided_by(&self, divisor: &Product) -> Option<Self> {
        let mut parts = self.parts.clone();
        for part in &divisor.parts {
            let position = parts.iter().position(|own| own == part)?;
            parts.remove(position);
        }
        let divides = divisor.factor != 0 && self.factor % divisor.factor == 0;
        divides.then(|| Product {
            factor: self.factor / divisor.factor,
            parts,
        })
    }
}

fn mixes() -> OpError {
    OpError::HostOnly("it mixes elements along an axis whose extent data decides".to_owned())
}

/// `Reshape` to a shape that is computed, or of axes that are as long as data says.
pub fn reshape(ctx: &mut BoundedCtx<'_, '_>) -> Result<BoundedResults, OpError> {
    let x = ctx.value(0)?;
    let dims = ctx.dims_of(x);
    let wanted = ctx
        .sizes("shape", 1)?
        .ok_or_else(|| OpError::invalid("the shape is missing"))?;
    let keeps_zero = infer::int(ctx.attrs, "allowzero")? != 0;
    let mut own = Vec::new();
    for axis in 0..dims.len() {
        own.push(Product::of(&ctx.extent(0, axis)?)?);
    }
    let shape = wanted_products(&own, &wanted, keeps_zero)?;
    let groups = groups(&own, &shape).ok_or_else(|| {
        OpError::HostOnly("data decides its shape, which may have another number of elements".to_owned())
    })?;
    let mut limits: Vec<usize> = (shape.iter())
        .map(|product| usize::try_from(product.factor).unwrap_or(0))
        .collect();
    let mut counted = Vec::new();
    for group in groups {
        let Some((source, target)) = group.counted(&own, &shape)? else {
            continue;
        };
        let (more, less) = (others(&own, group.from, source), others(&shape, group.to, target));
        let scaled = signed(dims[source]).saturating_mul(more);
        if less == 0 || scaled % less != 0 {
            return Err(mixes());
        }
        limits[target] = usize::try_from(scaled / less).map_err(|_| mixes())?;
        let mut count = ctx.extent(0, source)?;
        if more != less {
            let (more, less) = (ctx.known_size(more), ctx.known_size(less));
            count = ctx.combined("mul", &count, &more)?;
            count = ctx.combined("div", &count, &less)?;
        }
        counted.extend(ctx.axis_of(target, &count));
    }
    Ok(BoundedResults::one(ctx.reshape(x, &limits)?, counted))
}

/// The extents of all `axes` but one that data decides.
fn others(products: &[Product], axes: Axes, but: usize) -> i64 {
    let others = axes.filter(|&axis| axis != but);
    others.map(|axis| products[axis].factor).product()
}

/// Zero copies an extent (unless `keeps_zero`), and one entry of -1 takes what is left.
fn wanted_products(own: &[Product], wanted: &[Size], keeps_zero: bool) -> Result<Vec<Product>, OpError> {
    let mut shape = Vec::new();
    let mut left = None;
    for (axis, size) in wanted.iter().enumerate() {
        shape.push(match size.amount.as_known() {
            Some(0) if !keeps_zero => own
                .get(axis)
                .cloned()
                .ok_or_else(|| OpError::invalid("the shape copies an extent that is not there"))?,
            Some(-1) if left.replace(axis).is_none() => Product::one(),
            Some(size) if size < 0 => return Err(OpError::invalid("the shape has a negative entry")),
            _ => Product::of(size)?,
        });
    }
    if let Some(axis) = left {
        let product = |products: &[Product]| products.iter().fold(Product::one(), |all, own| all.times(own));
        shape[axis] = product(own).divided_by(&product(&shape)).ok_or_else(|| {
            OpError::HostOnly("the extent that is left open depends on what data decides".to_owned())
        })?;
    }
    Ok(shape)
}

type Axes = std::ops::Range<usize>;

/// Axes that together have the same elements on both sides.
struct Group {
    from: Axes,
    to: Axes,
}

impl Group {
    /// The axes on both sides of which data decides the extent, where it does of one each.
    ///
    /// # Errors
    /// If what is there does not come first: axes before them have more than one element.
    fn counted(&self, own: &[Product], shape: &[Product]) -> Result<Option<(usize, usize)>, OpError> {
        let only = |products: &[Product], axes: &Axes| {
            let mut all = axes.clone().filter(|&axis| !products[axis].parts.is_empty());
            let Some(axis) = all.next() else { return Ok(None) };
            let is_first = (axes.start..axis).all(|other| products[other] == Product::one());
            if all.next().is_none() && is_first {
                Ok(Some(axis))
            } else {
                Err(mixes())
            }
        };
        match (only(own, &self.from)?, only(shape, &self.to)?) {
            (Some(source), Some(target)) => Ok(Some((source, target))),
            (None, None) => Ok(None),
            _ => Err(mixes()),
        }
    }
}

/// Axes of both sides in groups of as few as possible; `None` where the numbers of elements differ.
fn groups(from: &[Product], to: &[Product]) -> Option<Vec<Group>> {
    let mut groups = Vec::new();
    let (mut a, mut b) = (0, 0);
    while a < from.len() || b < to.len() {
        let (first_a, first_b) = (a, b);
        let (mut own, mut other) = (Product::one(), Product::one());
        let next = |products: &[Product], axis: &mut usize, all: &mut Product| {
            if let Some(product) = products.get(*axis) {
                *all = all.times(product);
                *axis += 1;
            }
        };
        next(from, &mut a, &mut own);
        next(to, &mut b, &mut other);
        while own != other {
            // The side that lacks something takes one more axis.
            let own_lacks = b == to.len() || other.divided_by(&own).is_some();
            if own_lacks && a < from.len() {
                next(from, &mut a, &mut own);
            } else if b < to.len() {
                next(to, &mut b, &mut other);
            } else {
                return None;
            }
        }
        groups.push(Group {
            from: first_a..a,
            to: first_b..b,
        });
    }
    Some(groups)
}
