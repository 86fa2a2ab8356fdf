//! The walk over one tree: pairs in order, with the pages of one path in memory.
//!
//! bbolt's data pages have no checksum, so the walk is also the check that there is one tree: each
//! page is the one that was asked for, below the high-water mark, not below itself, and its keys
//! are above those before it and inside the range that its parent gives it. It does not know what
//! keys and values mean.

use super::bbolt::{Bbolt, Pages, Root};
use super::error::{Damage, EtcdError};
use super::page::{Leaf, Page, PageKind};

/// The most levels of a tree. A branch page of bbolt has two children or more, so 2⁴⁸ pages need
/// no more than 48; the rest is margin, and a walk never holds more pages than this.
pub const DEPTH_MAX: usize = 64;

/// A key with its value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pair<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
    /// Where the key begins in the file; the value follows it.
    pub offset: u64,
}

/// A walk over the pairs of a bucket in ascending order of keys.
///
/// ```
/// # fn show(database: &[u8]) -> Result<(), revtree_format::etcd::EtcdError> {
/// use revtree_format::etcd::{Bbolt, bucket};
/// let database = Bbolt::open(database)?;
/// if let Some(bucket) = database.bucket(bucket::KEY)? {
///     let mut records = database.cursor(&bucket);
///     while let Some(record) = records.next()? {
///         println!("{} bytes at {}", record.value.len(), record.offset);
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct Cursor<'a, P: Pages> {
    database: &'a Bbolt<P>,
    /// The root, until it is read.
    root: Option<&'a Root>,
    /// The path to the current element, from the root.
    path: Vec<Level<'a, P::Bytes>>,
    /// Pages read so far. A tree has each page once, so more than the file has is a page twice.
    pages_read: u64,
}

/// A page of the path, and its first element that was not visited.
struct Level<'a, B> {
    page: Page<Held<'a, B>>,
    next: u16,
}

/// A page's bytes: read, or part of a bucket's value.
enum Held<'a, B> {
    Read(B),
    Inline(&'a [u8]),
}

impl<B: AsRef<[u8]>> AsRef<[u8]> for Held<'_, B> {
    fn as_ref(&self) -> &[u8] {
        match self {
            Held::Read(bytes) => bytes.as_ref(),
            Held::Inline(bytes) => bytes,
        }
    }
}

/// What the walk does next.
enum Step {
    /// Yield this element of the leaf at the end of the path.
    Yield(u16),
    /// Go down to this page, named at this offset.
    Descend(u64, u64),
    /// The page at the end of the path has no more.
    Ascend,
}

impl<'a, P: Pages> Cursor<'a, P> {
    pub(super) fn new(database: &'a Bbolt<P>, root: &'a Root) -> Cursor<'a, P> {
        Cursor {
            database,
            root: Some(root),
            path: Vec::new(),
            pages_read: 0,
        }
    }

    /// The next pair; `None` at the end. After an error the walk is over.
    ///
    /// # Errors
    ///
    /// Damage on the way to it, a bucket among the pairs, and errors of the pages.
    #[expect(
        clippy::should_implement_trait,
        reason = "the pair borrows from the cursor"
    )]
    pub fn next(&mut self) -> Result<Option<Pair<'_>>, P::Error> {
        match self.next_element()? {
            None => Ok(None),
            Some(leaf) if leaf.is_bucket => {
                Err(EtcdError::new(leaf.offset, Damage::NestedBucket).into())
            }
            Some(Leaf {
                key, value, offset, ..
            }) => Ok(Some(Pair { key, value, offset })),
        }
    }

    /// The next element, pair or bucket.
    pub(super) fn next_element(&mut self) -> Result<Option<Leaf<'_>>, P::Error> {
        match self.advance() {
            Ok(None) => Ok(None),
            Ok(Some(index)) => match self.path.last() {
                Some(level) => Ok(Some(level.page.leaf(index)?)),
                None => Ok(None),
            },
            Err(error) => {
                self.path.clear();
                Err(error)
            }
        }
    }

    /// Moves on, and returns the element to yield from the leaf at the end of the path.
    fn advance(&mut self) -> Result<Option<u16>, P::Error> {
        if let Some(root) = self.root.take() {
            match root {
                Root::Page { id, offset } => self.descend(*id, *offset)?,
                Root::Inline { bytes, offset } => {
                    let page = Page::parse(Held::Inline(bytes), 0, *offset)?;
                    self.path.push(Level { page, next: 0 });
                }
            }
        }
        while let Some(level) = self.path.last_mut() {
            match level.step()? {
                Step::Yield(index) => return Ok(Some(index)),
                Step::Descend(id, offset) => self.descend(id, offset)?,
                Step::Ascend => {
                    self.path.pop();
                }
            }
        }
        Ok(None)
    }

    /// Reads page `id`, checks it against the path, and makes it the end of the path. `from` is
    /// where it was named.
    fn descend(&mut self, id: u64, from: u64) -> Result<(), P::Error> {
        if self.path.iter().any(|level| level.page.id() == id) {
            return Err(EtcdError::new(from, Damage::PageCycle { id }).into());
        }
        if self.path.len() >= DEPTH_MAX {
            let what = Damage::TooDeep {
                id,
                depth_max: DEPTH_MAX,
            };
            return Err(EtcdError::new(from, what).into());
        }
        let (page, pages) = self.database.read_page(id, from)?;
        let page = page.map(Held::Read);
        self.pages_read = self.pages_read.saturating_add(pages);
        if self.pages_read > self.database.pages_max() {
            let what = Damage::PageTwice {
                id,
                high_water: self.database.meta().high_water,
            };
            return Err(EtcdError::new(from, what).into());
        }
        if page.kind() == PageKind::Branch && page.count() == 0 {
            return Err(EtcdError::new(page.offset() + 10, Damage::EmptyBranch { id }).into());
        }
        self.check_range(&page)?;
        self.path.push(Level { page, next: 0 });
        Ok(())
    }

    /// Checks the first and last key of a page that is about to join the path: not below the key
    /// that its parent has for it, and below the next key of any page above it.
    ///
    /// Keys then ascend from one leaf to the next without any being remembered: the last key of a
    /// leaf is below the next key of the path, and that is the key that a page further down the
    /// walk is not below. The keys between first and last are in order already.
    fn check_range<B: AsRef<[u8]>>(&self, page: &Page<B>) -> Result<(), EtcdError> {
        let Some(last) = page.count().checked_sub(1) else {
            return Ok(());
        };
        let first_key = page.key(0)?;
        if let Some(parent) = self.path.last()
            && first_key < parent.page.key(parent.next.saturating_sub(1))?
        {
            return Err(EtcdError::new(
                page.element_offset(0),
                Damage::KeyRange { index: 0 },
            ));
        }
        // The nearest page with a further child has the tightest limit.
        let limit = self
            .path
            .iter()
            .rev()
            .find(|level| level.next < level.page.count());
        if let Some(level) = limit
            && page.key(last)? >= level.page.key(level.next)?
        {
            let offset = page.element_offset(last);
            return Err(EtcdError::new(offset, Damage::KeyRange { index: last }));
        }
        Ok(())
    }
}

impl<B: AsRef<[u8]>> Level<'_, B> {
    fn step(&mut self) -> Result<Step, EtcdError> {
        let index = self.next;
        if index >= self.page.count() {
            return Ok(Step::Ascend);
        }
        self.next = index.saturating_add(1);
        match self.page.kind() {
            PageKind::Leaf => Ok(Step::Yield(index)),
            PageKind::Branch => {
                let (_, child) = self.page.branch(index)?;
                Ok(Step::Descend(child, self.page.element_offset(index)))
            }
        }
    }
}
