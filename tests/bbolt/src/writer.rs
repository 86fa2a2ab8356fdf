//! Contents to pages: trees from the bottom up, then the tree of buckets, then the meta pages.

use crate::contents::{Contents, Pairs};
use crate::image::{Image, PageKind, PageNote};

/// Whether the list of free pages is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Freelist {
    /// In a page of its own.
    Kept,
    /// Not at all, as etcd does.
    NotKept,
}

/// What the two meta pages say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Metas {
    /// The same root twice, the first with the larger transaction number: a snapshot.
    Snapshot,
    /// The older one has an empty tree: a live file, in which a wrong choice shows.
    Live,
}

/// How a file is written.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of a page: a power of two, 1024 or more.
    pub page_bytes: usize,
    /// The most elements in a page, 2 or more, so that few pairs make a deep tree; `None` fills
    /// the pages.
    pub elements_max: Option<usize>,
    /// Whether small buckets lie in their own value, as bbolt does it.
    pub inline: bool,
    /// The list of free pages.
    pub freelist: Freelist,
    /// The two meta pages.
    pub metas: Metas,
    /// The last transaction.
    pub txid: u64,
    /// Pages with garbage below the high-water mark.
    pub free_pages: usize,
    /// Pages with garbage above it, as in the file of a running server.
    pub slack_pages: usize,
    /// Whether the SHA-256 of a snapshot follows.
    pub hash: bool,
}

impl Default for Options {
    /// A snapshot as etcd writes it on the usual hosts.
    fn default() -> Options {
        Options {
            page_bytes: 4096,
            elements_max: None,
            inline: true,
            freelist: Freelist::NotKept,
            metas: Metas::Snapshot,
            txid: 10,
            free_pages: 0,
            slack_pages: 0,
            hash: true,
        }
    }
}

const HEADER_BYTES: usize = 16;
const ELEMENT_BYTES: usize = 16;
const FLAG_BRANCH: u16 = 1;
const FLAG_LEAF: u16 = 2;
const FLAG_META: u16 = 4;
const FLAG_FREELIST: u16 = 16;
const FREELIST_PAGE: u64 = 2;
const GARBAGE: u8 = 0xa5;

/// Writes a file.
///
/// # Panics
///
/// If the options are not what they say.
#[must_use]
pub fn write(options: &Options, contents: &Contents) -> Image {
    assert!(options.page_bytes.is_power_of_two() && options.page_bytes >= 1024);
    assert!(options.elements_max.is_none_or(|max| max >= 2));
    let mut writer = Writer {
        options,
        bytes: Vec::new(),
        notes: Vec::new(),
    };
    writer.allocate(3);
    let mut buckets = Vec::new();
    for (name, pairs) in contents.buckets() {
        buckets.push(Element::bucket(name, &writer.bucket(name, pairs)));
    }
    let root = writer.tree(b"", &buckets);
    let old_root = match options.metas {
        Metas::Snapshot => root,
        Metas::Live => writer.tree(b"", &[]),
    };
    let free = writer.garbage(options.free_pages);
    writer.freelist(&free);
    let high_water = writer.next_page();
    let (newer, older) = match options.metas {
        Metas::Snapshot => (0, 1),
        Metas::Live => (options.txid % 2, 1 - options.txid % 2),
    };
    writer.meta(newer, root, high_water, options.txid);
    writer.meta(older, old_root, high_water, options.txid - 1);
    writer.garbage(options.slack_pages);
    Image::new(writer.bytes, options.page_bytes, options.hash, writer.notes)
}

struct Writer<'a> {
    options: &'a Options,
    bytes: Vec<u8>,
    notes: Vec<PageNote>,
}

/// An element of either kind of page.
#[derive(Clone)]
struct Element {
    key: Vec<u8>,
    value: Vec<u8>,
    is_bucket: bool,
    child: u64,
}

impl Element {
    fn pair(key: &[u8], value: &[u8]) -> Element {
        Element {
            key: key.to_vec(),
            value: value.to_vec(),
            is_bucket: false,
            child: 0,
        }
    }

    fn bucket(name: &[u8], value: &[u8]) -> Element {
        Element {
            is_bucket: true,
            ..Element::pair(name, value)
        }
    }

    fn child(key: &[u8], child: u64) -> Element {
        Element {
            child,
            ..Element::pair(key, b"")
        }
    }

    fn bytes(&self) -> usize {
        ELEMENT_BYTES + self.key.len() + self.value.len()
    }
}

impl Writer<'_> {
    /// The value of a bucket's element, after its pages, if any, are written.
    fn bucket(&mut self, name: &[u8], pairs: &Pairs) -> Vec<u8> {
        let elements: Vec<Element> = pairs
            .iter()
            .map(|(key, value)| Element::pair(key, value))
            .collect();
        let mut value = vec![0; 16];
        if self.options.inline && page_len(&elements) <= self.options.page_bytes / 4 {
            value.extend(page(0, PageKind::Leaf, 0, &elements));
        } else {
            let root = self.tree(name, &elements);
            value[..8].copy_from_slice(&root.to_le_bytes());
        }
        value
    }

    /// Writes a tree, leaves first, and returns its root.
    fn tree(&mut self, bucket: &[u8], elements: &[Element]) -> u64 {
        let mut level = self.level(bucket, 0, elements);
        let mut height = 0;
        while level.len() > 1 {
            height += 1;
            level = self.level(bucket, height, &level);
        }
        level[0].child
    }

    /// Writes the pages of one level, and returns the elements for the level above.
    fn level(&mut self, bucket: &[u8], height: usize, elements: &[Element]) -> Vec<Element> {
        let kind = if height == 0 {
            PageKind::Leaf
        } else {
            PageKind::Branch
        };
        let mut parents = Vec::new();
        let mut rest = elements;
        loop {
            let (these, after) = rest.split_at(self.fitting(kind, rest));
            let pages = page_len(these).div_ceil(self.options.page_bytes);
            let id = self.allocate(pages);
            let overflow = u32::try_from(pages - 1).expect("few pages");
            self.overwrite(id, &page(id, kind, overflow, these));
            let (bucket, count) = (bucket.to_vec(), these.len());
            self.notes.push(PageNote {
                id,
                kind,
                bucket,
                height,
                pages,
                count,
            });
            let first_key = these.first().map_or(&b""[..], |element| &element.key);
            parents.push(Element::child(first_key, id));
            rest = after;
            if rest.is_empty() {
                return parents;
            }
        }
    }

    /// How many of `elements` go into the next page: at least one, in a branch at least two, and
    /// in a branch never all but one, because bbolt has no branch with a single child.
    fn fitting(&self, kind: PageKind, elements: &[Element]) -> usize {
        let count_max = self.options.elements_max.unwrap_or(usize::from(u16::MAX));
        let mut bytes = HEADER_BYTES;
        let mut count = 0;
        for element in elements.iter().take(count_max) {
            bytes += element.bytes();
            if bytes > self.options.page_bytes {
                break;
            }
            count += 1;
        }
        let least = if kind == PageKind::Branch { 2 } else { 1 };
        count = count.max(least).min(elements.len());
        match (kind, elements.len() - count) {
            (PageKind::Branch, 1) if count > 2 => count - 1,
            (PageKind::Branch, 1) => count + 1,
            _ => count,
        }
    }

    fn garbage(&mut self, pages: usize) -> Vec<u64> {
        let mut ids = Vec::new();
        for _ in 0..pages {
            let id = self.allocate(1);
            self.overwrite(id, &vec![GARBAGE; self.options.page_bytes]);
            ids.push(id);
        }
        ids
    }

    fn freelist(&mut self, free: &[u64]) {
        if self.options.freelist == Freelist::NotKept {
            self.overwrite(FREELIST_PAGE, &vec![GARBAGE; self.options.page_bytes]);
            return;
        }
        let mut bytes = header(FREELIST_PAGE, FLAG_FREELIST, free.len(), 0);
        for id in free {
            bytes.extend(id.to_le_bytes());
        }
        assert!(bytes.len() <= self.options.page_bytes, "few free pages");
        self.overwrite(FREELIST_PAGE, &bytes);
    }

    fn meta(&mut self, page: u64, root: u64, high_water: u64, txid: u64) {
        let freelist = match self.options.freelist {
            Freelist::Kept => FREELIST_PAGE,
            Freelist::NotKept => u64::MAX,
        };
        let mut body = Vec::new();
        body.extend(0xED0C_DAEDu32.to_le_bytes());
        body.extend(2u32.to_le_bytes());
        let page_bytes = u32::try_from(self.options.page_bytes).expect("a small page");
        body.extend(page_bytes.to_le_bytes());
        body.extend(0u32.to_le_bytes());
        for number in [root, 0, freelist, high_water, txid] {
            body.extend(number.to_le_bytes());
        }
        let mut checksum = 0xcbf2_9ce4_8422_2325u64;
        for byte in &body {
            checksum = (checksum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        body.extend(checksum.to_le_bytes());
        let mut bytes = header(page, FLAG_META, 0, 0);
        bytes.extend(body);
        self.overwrite(page, &bytes);
    }

    fn next_page(&self) -> u64 {
        (self.bytes.len() / self.options.page_bytes) as u64
    }

    fn allocate(&mut self, pages: usize) -> u64 {
        let id = self.next_page();
        self.bytes
            .resize(self.bytes.len() + pages * self.options.page_bytes, 0);
        id
    }

    fn overwrite(&mut self, id: u64, bytes: &[u8]) {
        let at = usize::try_from(id).expect("few pages") * self.options.page_bytes;
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

fn page_len(elements: &[Element]) -> usize {
    HEADER_BYTES + elements.iter().map(Element::bytes).sum::<usize>()
}

fn header(id: u64, flags: u16, count: usize, overflow: u32) -> Vec<u8> {
    let mut bytes = id.to_le_bytes().to_vec();
    bytes.extend(flags.to_le_bytes());
    bytes.extend(u16::try_from(count).expect("few elements").to_le_bytes());
    bytes.extend(overflow.to_le_bytes());
    bytes
}

/// A page: header, table, then keys each followed by its value.
fn page(id: u64, kind: PageKind, overflow: u32, elements: &[Element]) -> Vec<u8> {
    let flags = if kind == PageKind::Branch {
        FLAG_BRANCH
    } else {
        FLAG_LEAF
    };
    let mut bytes = header(id, flags, elements.len(), overflow);
    let small = |n: usize| {
        u32::try_from(n)
            .expect("an element below 4 GiB")
            .to_le_bytes()
    };
    let mut data_at = HEADER_BYTES + elements.len() * ELEMENT_BYTES;
    for element in elements {
        let pos = small(data_at - bytes.len());
        match kind {
            PageKind::Branch => {
                bytes.extend(pos);
                bytes.extend(small(element.key.len()));
                bytes.extend(element.child.to_le_bytes());
            }
            PageKind::Leaf => {
                bytes.extend(u32::from(element.is_bucket).to_le_bytes());
                bytes.extend(pos);
                bytes.extend(small(element.key.len()));
                bytes.extend(small(element.value.len()));
            }
        }
        data_at += element.key.len() + element.value.len();
    }
    for element in elements {
        bytes.extend_from_slice(&element.key);
        bytes.extend_from_slice(&element.value);
    }
    bytes
}
