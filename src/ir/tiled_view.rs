//! A strided tensor that is copied a tile at a time.

/// What a bulk tensor copy knows of its source: axes innermost first, extents in elements,
/// strides in bytes. Outside of the extents it copies zeros.
///
/// Rows of a tile are [`TILE_ROW_BYTES`] long; in shared memory their 16-byte chunks are
/// exchanged by the row's number modulo eight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TiledView {
    pub element_bytes: usize,
    pub dims: Vec<usize>,
    /// Of every axis but the innermost, whose elements are neighbours.
    pub strides: Vec<usize>,
    pub tile: Vec<usize>,
}

/// Bytes of a row of a tile.
pub const TILE_ROW_BYTES: usize = 128;

const MAX_RANK: usize = 5;
const MAX_TILE_EXTENT: usize = 256;
/// Strides are multiples of it, and so are addresses.
const STRIDE_BYTES: usize = 16;
const MAX_EXTENT: usize = 1 << 32;
const MAX_STRIDE: usize = 1 << 40;

impl TiledView {
    /// Proves that the hardware takes the view, and that it reaches no byte beyond `len`.
    ///
    /// # Errors
    /// What does not hold, in words.
    pub fn check(&self, len: usize) -> Result<(), String> {
        let rank = self.dims.len();
        if !(1..=MAX_RANK).contains(&rank) || self.strides.len() + 1 != rank || self.tile.len() != rank {
            return Err(format!("a tensor map of {rank} axes"));
        }
        if ![1, 2, 4].contains(&self.element_bytes)
            || self.tile[0].checked_mul(self.element_bytes) != Some(TILE_ROW_BYTES)
        {
            return Err(format!("rows of {} elements in a tile", self.tile[0]));
        }
        if self
            .tile
            .iter()
            .any(|extent| !(1..=MAX_TILE_EXTENT).contains(extent))
        {
            return Err(format!("a tile of {:?}", self.tile));
        }
        if self.dims.iter().any(|extent| !(1..=MAX_EXTENT).contains(extent)) {
            return Err(format!("a tensor map of extents {:?}", self.dims));
        }
        let is_stride = |&stride: &usize| stride.is_multiple_of(STRIDE_BYTES) && stride < MAX_STRIDE;
        if !self.strides.iter().all(is_stride) {
            return Err(format!("a tensor map of strides {:?}", self.strides));
        }
        match self.reach() {
            Some(reach) if reach <= len => Ok(()),
            _ => Err(format!("a tensor map that leaves its {len} bytes")),
        }
    }

    /// Bytes from the first element to the end of the last.
    fn reach(&self) -> Option<usize> {
        let row = self.dims[0].checked_mul(self.element_bytes)?;
        let steps = self.dims[1..].iter().zip(&self.strides);
        steps.fold(Some(row), |reach, (&extent, &stride)| {
            reach?.checked_add((extent - 1).checked_mul(stride)?)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> TiledView {
        TiledView {
            element_bytes: 2,
            dims: vec![40, 3, 2],
            strides: vec![80, 256],
            tile: vec![64, 128, 1],
        }
    }

    #[test]
    fn a_view_reaches_to_the_end_of_its_last_row() {
        assert_eq!(view().reach(), Some(256 + 160 + 80));
        assert_eq!(view().check(496), Ok(()));
        assert!(view().check(495).is_err());
    }

    #[test]
    fn what_the_hardware_refuses_is_refused() {
        let refused = |change: fn(&mut TiledView)| {
            let mut view = view();
            change(&mut view);
            view.check(usize::MAX).is_err()
        };
        assert!(refused(|view| view.strides[0] = 88));
        assert!(refused(|view| view.tile[0] = 32));
        assert!(refused(|view| view.tile[1] = 257));
        assert!(refused(|view| view.dims[2] = 0));
        assert!(refused(|view| view.element_bytes = 8));
        assert!(refused(|view| view.tile.truncate(2)));
        assert!(refused(|view| {
            view.dims[1] = 1 << 32;
            view.strides[0] = (1 << 40) - 16;
        }));
    }
}
