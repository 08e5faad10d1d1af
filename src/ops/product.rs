//! Matrix products on the host, the one place where the reference calls the `gemm` crate.

use gemm::Parallelism;

/// Element types with a fast product.
pub trait Element: Copy + Default + Send + Sync + 'static {
    const ONE: Self;

    fn sum(a: Self, b: Self) -> Self;

    fn widen(self) -> f64;

    fn narrow(value: f64) -> Self;
}

impl Element for f32 {
    const ONE: Self = 1.0;

    fn sum(a: Self, b: Self) -> Self {
        a + b
    }

    fn widen(self) -> f64 {
        f64::from(self)
    }

    #[expect(clippy::cast_possible_truncation, reason = "rounding is what narrowing means")]
    fn narrow(value: f64) -> Self {
        value as f32
    }
}

impl Element for f64 {
    const ONE: Self = 1.0;

    fn sum(a: Self, b: Self) -> Self {
        a + b
    }

    fn widen(self) -> f64 {
        self
    }

    fn narrow(value: f64) -> Self {
        value
    }
}

/// A matrix inside a slice; element `(i, j)` is at `i * row_stride + j * column_stride`.
#[derive(Clone, Copy)]
pub struct Matrix<'a, T> {
    pub data: &'a [T],
    pub row_stride: usize,
    pub column_stride: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// A dense, row-major matrix of `columns` columns.
    pub fn dense(data: &'a [T], columns: usize) -> Self {
        Matrix {
            data,
            row_stride: columns,
            column_stride: 1,
        }
    }

    /// The transpose of a dense, row-major matrix of `columns` columns.
    pub fn transposed(data: &'a [T], columns: usize) -> Self {
        Matrix {
            data,
            row_stride: 1,
            column_stride: columns,
        }
    }

    fn expect_holds(&self, rows: usize, columns: usize) {
        let last = (rows - 1) * self.row_stride + (columns - 1) * self.column_stride;
        assert!(
            last < self.data.len(),
            "a {rows}x{columns} matrix lies within its slice"
        );
    }
}

/// Whether a product may use all threads.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    One,
    All,
}

/// `into = a * b`, where `into` is dense and row-major with `into.len() / n` rows of `n`, and
/// `a` has `k` columns.
///
/// # Panics
/// If a matrix does not lie within its slice.
pub fn product<T: Element>(
    a: Matrix<'_, T>,
    b: Matrix<'_, T>,
    n: usize,
    k: usize,
    into: &mut [T],
    threads: Threads,
) {
    if into.is_empty() {
        return;
    }
    if k == 0 {
        into.fill(T::default());
        return;
    }
    let m = into.len() / n;
    assert_eq!(m * n, into.len(), "the result holds whole rows");
    a.expect_holds(m, k);
    b.expect_holds(k, n);
    let parallelism = match threads {
        Threads::One => Parallelism::None,
        Threads::All => Parallelism::Rayon(0),
    };
    let stride = |stride: usize| isize::try_from(stride).expect("strides within a slice fit in isize");
    // SAFETY: `a` and `b` lie within their slices (checked above), `into` has `m` rows of `n`,
    // and a `&mut` slice overlaps neither.
    #[expect(unsafe_code, reason = "the gemm crate takes raw pointers")]
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            into.as_mut_ptr(),
            1,
            stride(n),
            false,
            a.data.as_ptr(),
            stride(a.column_stride),
            stride(a.row_stride),
            b.data.as_ptr(),
            stride(b.column_stride),
            stride(b.row_stride),
            T::default(),
            T::ONE,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_dense_and_transposed_matrices() {
        let (a, b) = (
            [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0],
            [1.0f32, 0.0, 2.0, -1.0, 1.0, 3.0],
        );
        let mut into = [9.0f32; 4];
        product(
            Matrix::dense(&a, 3),
            Matrix::dense(&b, 2),
            2,
            3,
            &mut into,
            Threads::All,
        );
        assert_eq!(into, [8.0, 7.0, 20.0, 13.0]);
        product(
            Matrix::dense(&a, 3),
            Matrix::transposed(&b, 3),
            2,
            3,
            &mut into,
            Threads::One,
        );
        assert_eq!(into, [7.0, 10.0, 16.0, 19.0]);
        product(
            Matrix::dense(&a[..0], 0),
            Matrix::dense(&b[..0], 2),
            2,
            0,
            &mut into,
            Threads::One,
        );
        assert_eq!(into, [0.0; 4]);
    }
}
