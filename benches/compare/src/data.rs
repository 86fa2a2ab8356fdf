//! The bytes that every engine gets, and how each read of them is checked.
//!
//! Everything follows from the seed: keys from their number, the order of the puts, and each value
//! from its key and the number of its put. So a reader that knows a key can tell from the value
//! alone whether it belongs there and is whole, and no engine is handed a cheaper check than
//! another. This file knows neither engines nor time.

use crate::Result;

/// Bytes of a key, `/registry/pods/ns-%04d/pod-%08d`.
pub(crate) const KEY_BYTES: usize = 35;
/// Bytes of a value.
pub(crate) const VALUE_BYTES: usize = 512;
/// A value opens with the tag of its key and the number of its put.
const VALUE_HEAD_BYTES: usize = 16;
/// The random bytes that values are cut from; small enough for the second-level cache, so that
/// making a value costs every engine little.
const POOL_BYTES: usize = 256 * 1024;
const KEYS_PER_NAMESPACE: u32 = 1000;

/// What a put carries when it is not one of the load: its number, counted from here.
pub(crate) const FIRST_EXTRA_PUT: u64 = 1 << 40;

/// splitmix64: enough randomness for orders and offsets, and the same everywhere.
#[derive(Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `bound`; the bias of the multiplication is far below what is measured.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        let product = (self.next() >> 32) * u64::from(bound);
        u32::try_from(product >> 32).expect("a product of two 32-bit numbers, shifted by 32")
    }
}

fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// One read with its known answer; the key is spelled out so that a run of queries is read
/// sequentially and costs no cache miss of its own.
pub(crate) struct Query {
    pub(crate) key: [u8; KEY_BYTES],
    pub(crate) id: u32,
    /// The revision to read at.
    pub(crate) rev: u64,
    /// The put that must be found.
    pub(crate) put: u64,
}

/// Keys, values and their order.
pub(crate) struct Data {
    seed: u64,
    key_count: u32,
    /// Put `i` goes to key `order[i]` and gets revision `i + 2`.
    order: Vec<u32>,
    pool: Vec<u8>,
}

impl Data {
    /// Each of `key_count` keys `revs_per_key` times, in one global random order.
    pub(crate) fn new(seed: u64, key_count: u32, revs_per_key: u32) -> Data {
        let mut random = Random::new(seed);
        let pool = (0..POOL_BYTES / 8)
            .flat_map(|_| random.next().to_le_bytes())
            .collect();
        let mut order: Vec<u32> = (0..revs_per_key).flat_map(|_| 0..key_count).collect();
        for last in (1..order.len()).rev() {
            let bound = u32::try_from(last + 1).expect("puts are counted in 32 bits");
            order.swap(last, random.below(bound) as usize);
        }
        Data {
            seed,
            key_count,
            order,
            pool,
        }
    }

    pub(crate) fn key_count(&self) -> u32 {
        self.key_count
    }

    /// The number of puts of the load.
    pub(crate) fn put_count(&self) -> u64 {
        self.order.len() as u64
    }

    /// The store's revision after the load.
    pub(crate) fn loaded_rev(&self) -> u64 {
        self.put_count() + 1
    }

    /// The key of put `put`.
    pub(crate) fn key_of_put(&self, put: u64) -> u32 {
        self.order[usize::try_from(put).expect("a put of the load")]
    }

    /// Fills `value` with what put `put` writes to key `id`.
    pub(crate) fn value(&self, id: u32, put: u64, value: &mut [u8; VALUE_BYTES]) {
        value[..8].copy_from_slice(&self.tag(id).to_le_bytes());
        value[8..16].copy_from_slice(&put.to_le_bytes());
        let offset = self.pool_offset(put);
        let body = &self.pool[offset..offset + VALUE_BYTES - VALUE_HEAD_BYTES];
        value[VALUE_HEAD_BYTES..].copy_from_slice(body);
    }

    /// Checks that `value` was written to key `id` and is whole at both ends; the put that wrote
    /// it. The bytes between the ends are covered by the checksum that each engine verifies.
    pub(crate) fn check(&self, id: u32, value: &[u8]) -> Result<u64> {
        let value: &[u8; VALUE_BYTES] =
            value.try_into().map_err(|_| "a value of another length")?;
        let word = |at: usize| u64::from_le_bytes(value[at..at + 8].try_into().expect("8 bytes"));
        if word(0) != self.tag(id) {
            return Err(format!("the value of key {id} belongs to another key").into());
        }
        let put = word(8);
        let end = self.pool_offset(put) + VALUE_BYTES - VALUE_HEAD_BYTES;
        if value[VALUE_BYTES - 8..] != self.pool[end - 8..end] {
            return Err(format!("the value of key {id} is damaged").into());
        }
        Ok(put)
    }

    /// As `check`, and the value must be the one of put `put`.
    pub(crate) fn check_put(&self, id: u32, put: u64, value: &[u8]) -> Result<()> {
        let found = self.check(id, value)?;
        if found != put {
            return Err(format!("key {id}: found put {found}, expected {put}").into());
        }
        Ok(())
    }

    /// The put that each key shows after the load.
    pub(crate) fn current_puts(&self) -> Vec<u64> {
        let mut current = vec![0; self.key_count as usize];
        for (put, &id) in (0..).zip(&self.order) {
            current[id as usize] = put;
        }
        current
    }

    /// `count` reads of random keys as they are after the load.
    pub(crate) fn current_queries(&self, count: usize) -> Vec<Query> {
        let current = self.current_puts();
        let mut random = Random::new(self.seed ^ 0xb);
        let mut query = || {
            let id = random.below(self.key_count);
            Query {
                key: key(id),
                id,
                rev: self.loaded_rev(),
                put: current[id as usize],
            }
        };
        (0..count).map(|_| query()).collect()
    }

    /// `count` reads of random puts, each at a random revision of those at which it was current.
    pub(crate) fn old_queries(&self, count: usize) -> Vec<Query> {
        let mut superseded = vec![self.put_count(); self.order.len()];
        let mut newer = vec![self.put_count(); self.key_count as usize];
        for (put, &id) in self.order.iter().enumerate().rev() {
            superseded[put] = newer[id as usize];
            newer[id as usize] = put as u64;
        }
        let puts = u32::try_from(self.order.len()).expect("puts are counted in 32 bits");
        let mut random = Random::new(self.seed ^ 0xb2);
        let mut query = || {
            let put = random.below(puts);
            let lasts = superseded[put as usize] - u64::from(put);
            let later = random.below(u32::try_from(lasts).expect("at most all the puts"));
            let id = self.order[put as usize];
            let rev = u64::from(put) + u64::from(later) + 2;
            Query {
                key: key(id),
                id,
                rev,
                put: u64::from(put),
            }
        };
        (0..count).map(|_| query()).collect()
    }

    fn tag(&self, id: u32) -> u64 {
        mix(self.seed ^ (u64::from(id) << 1 | 1))
    }

    fn pool_offset(&self, put: u64) -> usize {
        let slots = (POOL_BYTES - VALUE_BYTES) as u64 / 8;
        usize::try_from(mix(put) % slots).expect("below the pool's size") * 8
    }
}

/// The key of number `id`; the order of keys is the order of their numbers.
pub(crate) fn key(id: u32) -> [u8; KEY_BYTES] {
    let mut key = *b"/registry/pods/ns-0000/pod-00000000";
    write_decimal(&mut key[18..22], id / KEYS_PER_NAMESPACE);
    write_decimal(&mut key[27..], id);
    key
}

fn write_decimal(digits: &mut [u8], mut number: u32) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).expect("one decimal digit");
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_say_which_key_and_put_they_belong_to() {
        let data = Data::new(7, 10, 3);
        let mut value = [0; VALUE_BYTES];
        data.value(4, 21, &mut value);
        assert_eq!(data.check(4, &value).unwrap(), 21);
        assert!(data.check(5, &value).is_err());
        assert!(data.check_put(4, 20, &value).is_err());
        value[VALUE_BYTES - 1] ^= 1;
        assert!(data.check(4, &value).is_err());
        assert!(data.check(4, &value[1..]).is_err());
    }

    #[test]
    fn old_queries_name_the_put_that_was_current_at_their_revision() {
        let data = Data::new(11, 20, 5);
        for query in data.old_queries(500) {
            let until = query.rev - 2;
            let current = (0..=until)
                .rev()
                .find(|&put| data.key_of_put(put) == query.id);
            assert_eq!(current, Some(query.put));
        }
    }

    #[test]
    fn keys_sort_as_their_numbers() {
        assert_eq!(&key(123_456), b"/registry/pods/ns-0123/pod-00123456");
        assert!((0..5000).map(key).is_sorted());
    }
}
