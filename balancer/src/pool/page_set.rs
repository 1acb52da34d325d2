//! Pages of one image: a bit for each.

use accounting::Run;

const BITS: u64 = u64::BITS as u64;

/// A set of pages, by their number in the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageSet {
    words: Vec<u64>,
    pages: u64,
}

impl PageSet {
    /// The empty set of an image of this number of pages.
    #[must_use]
    pub fn new(pages: u64) -> Self {
        let words = usize::try_from(pages.div_ceil(BITS)).expect("a file's pages are fewer than addresses");
        Self { words: vec![0; words], pages }
    }

    /// Every page of it.
    #[must_use]
    pub fn all(pages: u64) -> Self {
        let mut set = Self::new(pages);
        set.insert(Run { first: 0, count: pages });
        set
    }

    /// Pages of the image, in the set or not.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// Adds a run. Pages behind the image's end are left out.
    pub fn insert(&mut self, run: Run) {
        let (mut at, end) = (run.first, run.first.saturating_add(run.count).min(self.pages));
        while at < end {
            let (word, from) = ((at / BITS) as usize, at % BITS);
            let count = (BITS - from).min(end - at);
            self.words[word] |= (u64::MAX >> (BITS - count)) << from;
            at += count;
        }
    }

    /// The same set with a run in it.
    #[must_use]
    pub fn with(mut self, run: Run) -> Self {
        self.insert(run);
        self
    }

    /// The same set without a run.
    #[must_use]
    pub fn without(&self, run: Run) -> Self {
        self.minus(&Self::new(self.pages).with(run))
    }

    /// Number of pages in the set.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// True if it has no page.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// Adds the pages of another set.
    pub fn add(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word |= other);
    }

    /// Pages that are in both.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        self.combined(other, |word, other| word & other)
    }

    /// Pages that are in this one and not in the other.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        self.combined(other, |word, other| word & !other)
    }

    fn combined(&self, other: &Self, op: fn(u64, u64) -> u64) -> Self {
        let words = self.words.iter().zip(&other.words).map(|(word, other)| op(*word, *other));
        Self { words: words.collect(), pages: self.pages }
    }

    /// Its runs in ascending order, as long as they can be.
    pub fn runs(&self) -> impl Iterator<Item = Run> + '_ {
        let mut at = 0;
        std::iter::from_fn(move || {
            let first = self.next(at, true)?;
            let end = self.next(first, false).unwrap_or(self.pages);
            at = end;
            Some(Run { first, count: end - first })
        })
    }

    /// The first page from one on that is in the set, or is not.
    fn next(&self, from: u64, inside: bool) -> Option<u64> {
        let start = (from / BITS) as usize;
        let wanted = |word: u64| if inside { word } else { !word };
        let masked = |index: usize, word: u64| {
            if index == start { wanted(word) & (u64::MAX << (from % BITS)) } else { wanted(word) }
        };
        let rest = self.words.iter().enumerate().skip(start);
        let (index, word) = rest.map(|(index, word)| (index, masked(index, *word))).find(|(_, w)| *w != 0)?;
        Some(index as u64 * BITS + u64::from(word.trailing_zeros())).filter(|page| *page < self.pages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const PAGES: u64 = 300;

    fn set(runs: &[(u64, u64)]) -> (PageSet, BTreeSet<u64>) {
        let mut set = PageSet::new(PAGES);
        runs.iter().for_each(|(first, count)| set.insert(Run { first: *first, count: *count }));
        let pages = runs.iter().flat_map(|(first, count)| *first..first + count).filter(|page| *page < PAGES);
        (set, pages.collect())
    }

    fn pages(set: &PageSet) -> BTreeSet<u64> {
        set.runs().flat_map(|run| run.first..run.first + run.count).collect()
    }

    proptest! {
        #[test]
        fn it_is_a_set(
            a in prop::collection::vec((0u64..320, 0u64..130), 0..6),
            b in prop::collection::vec((0u64..320, 0u64..130), 0..6),
        ) {
            let ((a, model_a), (b, model_b)) = (set(&a), set(&b));
            prop_assert_eq!(pages(&a), model_a.clone());
            prop_assert_eq!(a.count(), model_a.len() as u64);
            prop_assert_eq!(a.is_empty(), model_a.is_empty());
            prop_assert_eq!(pages(&a.and(&b)), model_a.intersection(&model_b).copied().collect::<BTreeSet<_>>());
            prop_assert_eq!(pages(&a.minus(&b)), model_a.difference(&model_b).copied().collect::<BTreeSet<_>>());
            let mut both = a.clone();
            both.add(&b);
            prop_assert_eq!(pages(&both), model_a.union(&model_b).copied().collect::<BTreeSet<_>>());
            let runs: Vec<Run> = both.runs().collect();
            prop_assert!(runs.windows(2).all(|pair| pair[0].first + pair[0].count < pair[1].first), "{:?}", runs);
        }
    }

    #[test]
    fn a_run_behind_the_end_is_left_out() {
        let mut set = PageSet::new(70);
        set.insert(Run { first: 69, count: u64::MAX });
        set.insert(Run { first: 70, count: 1 });
        assert_eq!((set.count(), set.runs().next()), (1, Some(Run { first: 69, count: 1 })));
        assert_eq!(PageSet::all(70).runs().collect::<Vec<_>>(), [Run { first: 0, count: 70 }]);
        assert!(PageSet::new(0).is_empty() && PageSet::all(0).runs().next().is_none());
    }
}
