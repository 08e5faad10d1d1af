//! A strided tensor that is copied a tile at a time.

/// What a bulk tensor copy knows of its source: axes innermost first, extents in elements,
/// strides in bytes. Outside of the extents it copies zeros.
///
/// With [`PixelBox`], rows of a tile are pixels in their order, see there. Rows of a tile are
/// [`TILE_ROW_BYTES`] long; in shared memory their 16-byte chunks are
/// exchanged by the row's number modulo eight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TiledView {
    pub element_bytes: usize,
    pub dims: Vec<usize>,
    /// Of every axis but the innermost, whose elements are neighbours.
    pub strides: Vec<usize>,
    /// Of every axis; of channels and of pixels where there is a [`PixelBox`].
    pub tile: Vec<usize>,
    pub pixels: Option<PixelBox>,
}

/// Pixels of images with axes channel, x, y and image, in the order of a convolution's results:
/// those of a box over x and y, `steps` apart, and then those of the next image. A copy may shift
/// all of them by a tap of the filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PixelBox {
    /// Where the box begins, along x and y.
    pub lower: [i32; 2],
    /// Its exclusive end, counted from the image's own.
    pub upper: [i32; 2],
    pub steps: [usize; 2],
}

/// Bytes of a row of a tile.
pub const TILE_ROW_BYTES: usize = 128;

const MAX_RANK: usize = 5;
const MAX_TILE_EXTENT: usize = 256;
const MAX_STEP: usize = 8;
const CORNERS: std::ops::RangeInclusive<i32> = -128..=127;
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
        let (ranks, tile_rank) = match &self.pixels {
            None => (1..=MAX_RANK, rank),
            Some(pixels) => {
                pixels.check()?;
                (4..=4, 2)
            }
        };
        if !ranks.contains(&rank) || self.strides.len() + 1 != rank || self.tile.len() != tile_rank {
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
        let mut steps = self.dims[1..].iter().zip(&self.strides);
        steps.try_fold(row, |reach, (&extent, &stride)| {
            reach.checked_add((extent - 1).checked_mul(stride)?)
        })
    }
}

impl PixelBox {
    fn check(&self) -> Result<(), String> {
        let corners = self.lower.iter().chain(&self.upper);
        let mut steps = self.steps.iter();
        if corners.clone().all(|corner| CORNERS.contains(corner))
            && steps.all(|step| (1..=MAX_STEP).contains(step))
        {
            Ok(())
        } else {
            Err(format!("a box of pixels {self:?}"))
        }
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
            pixels: None,
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
        let pixels = PixelBox {
            lower: [-1, -1],
            upper: [-1, -1],
            steps: [2, 2],
        };
        let images = TiledView {
            element_bytes: 2,
            dims: vec![8, 3, 3, 2],
            strides: vec![16, 48, 144],
            tile: vec![64, 128],
            pixels: Some(pixels),
        };
        assert_eq!(images.check(288), Ok(()));
        let far = PixelBox {
            lower: [-129, 0],
            ..pixels
        };
        let fast = PixelBox {
            steps: [1, 9],
            ..pixels
        };
        for pixels in [far, fast] {
            let images = TiledView {
                pixels: Some(pixels),
                ..images.clone()
            };
            assert!(images.check(288).is_err());
        }
        assert!(refused(|view| {
            view.dims[1] = 1 << 32;
            view.strides[0] = (1 << 40) - 16;
        }));
    }
}
