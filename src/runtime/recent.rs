//! What was made for profiles that were used last; the longest unused goes first.

/// At most so many values, by the number of their profile.
#[derive(Debug)]
pub(super) struct Recent<T> {
    most: usize,
    /// By rising time of their last use.
    kept: Vec<(usize, T)>,
}

impl<T> Recent<T> {
    pub fn new(most: usize) -> Self {
        Recent {
            most: most.max(1),
            kept: Vec::new(),
        }
    }

    /// The value of a profile, which `make` makes where it is not kept. Now it is the last one used.
    ///
    /// # Errors
    /// As `make`'s.
    pub fn get_or_make<E>(&mut self, profile: usize, make: impl FnOnce() -> Result<T, E>) -> Result<&T, E> {
        let known = self.kept.iter().position(|(own, _)| *own == profile);
        let entry = if let Some(known) = known {
            self.kept.remove(known)
        } else {
            if self.kept.len() == self.most {
                self.kept.remove(0);
            }
            (profile, make()?)
        };
        self.kept.push(entry);
        Ok(&self.kept[self.kept.len() - 1].1)
    }

    /// The value that was used last.
    pub fn last(&self) -> Option<&T> {
        self.kept.last().map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_unused_is_made_again() {
        let mut recent = Recent::new(2);
        let mut made = Vec::new();
        for profile in [0, 1, 0, 2, 0, 1] {
            let value = recent.get_or_make(profile, || {
                made.push(profile);
                Ok::<_, ()>(profile * 10)
            });
            assert_eq!(value, Ok(&(profile * 10)));
        }
        assert_eq!(made, [0, 1, 2, 1]);
        assert_eq!(recent.get_or_make(7, || Err("full")), Err("full"));
        assert_eq!(recent.get_or_make(1, || Err("kept")), Ok(&10));
    }
}
