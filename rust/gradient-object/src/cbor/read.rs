//! The reader: canonical bytes to values.
//!
//! Every count is checked against the bytes that are left and added to the elements of the whole object before
//! anything of that size is allocated.

use std::cmp::Ordering;

use super::bounds::{Bounds, Place, check_element};
use super::token::{Token, Tokens, malformed, not_canonical};
use super::{check_object_len, tag};
use crate::RANK_MAX;
use crate::error::ObjectError;
use crate::id::{ChunkId, TreeId};
use crate::int::Int;
use crate::key::Key;
use crate::mapping::Mapping;
use crate::tensor::{Flavor, Tensor, TensorData};
use crate::value::Value;

/// Bytes of a chunk id as it is written: a head of two, and the id.
const ENCODED_ID_LEN: usize = 2 + ChunkId::LEN;

/// Reads one object.
pub(crate) struct Reader<'a> {
    tokens: Tokens<'a>,
    bounds: Bounds,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8], place: Place) -> Result<Self, ObjectError> {
        check_object_len(bytes.len())?;
        Ok(Self { tokens: Tokens::new(bytes), bounds: Bounds::new(place) })
    }

    /// Checks that nothing follows.
    pub(crate) fn finish(self) -> Result<(), ObjectError> {
        if self.tokens.remaining() == 0 {
            return Ok(());
        }
        Err(malformed("bytes after the object", self.tokens.offset()))
    }

    /// Counts the object itself as the first of its elements.
    pub(crate) fn count_root(&mut self) -> Result<(), ObjectError> {
        self.bounds.count(1)
    }

    /// Reads the only value of an object.
    pub(crate) fn root_value(&mut self) -> Result<Value, ObjectError> {
        self.count_root()?;
        self.value()
    }

    /// Reads the only mapping of an object.
    pub(crate) fn root_mapping(&mut self) -> Result<Mapping, ObjectError> {
        self.count_root()?;
        let start = self.offset();
        let token = self.next()?;
        self.mapping(token, start)
    }

    /// Reads a mapping whose entries were inserted in sorted order.
    pub(crate) fn sorted_entries<K, V>(
        &mut self,
        read_key: impl Fn(&mut Self) -> Result<K, ObjectError>,
        read_value: impl Fn(&mut Self) -> Result<V, ObjectError>,
    ) -> Result<Vec<(K, V)>, ObjectError> {
        let start = self.offset();
        match self.next()? {
            token @ Token::Map(_) => self.entries(token, start, read_key, read_value),
            _ => Err(malformed("not a mapping in sorted order", start)),
        }
    }

    pub(crate) fn offset(&self) -> usize {
        self.tokens.offset()
    }

    pub(crate) fn next(&mut self) -> Result<Token<'a>, ObjectError> {
        self.tokens.next()
    }

    /// Reads text.
    pub(crate) fn text(&mut self, what: &'static str) -> Result<&'a str, ObjectError> {
        let start = self.offset();
        match self.next()? {
            Token::Text(text) => Ok(text),
            _ => Err(malformed(what, start)),
        }
    }

    /// Reads the 32 bytes of an id.
    pub(crate) fn id(&mut self, what: &'static str) -> Result<[u8; 32], ObjectError> {
        let start = self.offset();
        let Token::Bytes(bytes) = self.next()? else {
            return Err(malformed(what, start));
        };
        bytes.try_into().map_err(|_| malformed(what, start))
    }

    /// Reads an integer that is not negative.
    pub(crate) fn unsigned(&mut self, what: &'static str) -> Result<u64, ObjectError> {
        let start = self.offset();
        match self.next()? {
            Token::Unsigned(n) => Ok(n),
            _ => Err(malformed(what, start)),
        }
    }

    /// Reads the head of an array.
    pub(crate) fn array(&mut self, what: &'static str) -> Result<usize, ObjectError> {
        let start = self.offset();
        match self.next()? {
            Token::Array(len) => Ok(len),
            _ => Err(malformed(what, start)),
        }
    }

    /// Reads the head of an array of this length.
    fn array_of(&mut self, len: usize, what: &'static str) -> Result<(), ObjectError> {
        let start = self.offset();
        if self.array(what)? == len {
            return Ok(());
        }
        Err(malformed(what, start))
    }

    /// Reads the content of a mapping whose first token is `token`, entries in the order of insertion.
    pub(crate) fn entries<K, V>(
        &mut self,
        token: Token<'a>,
        start: usize,
        read_key: impl Fn(&mut Self) -> Result<K, ObjectError>,
        read_value: impl Fn(&mut Self) -> Result<V, ObjectError>,
    ) -> Result<Vec<(K, V)>, ObjectError> {
        let (len, reordered) = match token {
            Token::Map(len) => (len, false),
            Token::Tag(tag::MAPPING) => {
                self.array_of(2, "a mapping and its order")?;
                let start = self.offset();
                match self.next()? {
                    Token::Map(len) => (len, true),
                    _ => return Err(malformed("not a mapping", start)),
                }
            }
            _ => return Err(malformed("not a mapping", start)),
        };
        self.bounds.open(len.saturating_mul(2))?;
        let mut entries = Vec::with_capacity(len);
        let mut previous: &[u8] = &[];
        for _ in 0..len {
            let start = self.offset();
            let key = read_key(self)?;
            let key_bytes = self.tokens.since(start);
            check_rising(previous, key_bytes, "key", start)?;
            previous = key_bytes;
            entries.push((key, read_value(self)?));
        }
        self.bounds.close();
        if reordered {
            return self.reorder(entries);
        }
        Ok(entries)
    }

    /// Reads the permutation and brings the entries into the order of insertion.
    fn reorder<K, V>(&mut self, entries: Vec<(K, V)>) -> Result<Vec<(K, V)>, ObjectError> {
        let start = self.offset();
        self.array_of(entries.len(), "an order for every entry")?;
        let mut slots: Vec<_> = entries.into_iter().map(Some).collect();
        let mut inserted = Vec::with_capacity(slots.len());
        let mut is_identity = true;
        for i in 0..slots.len() {
            let at = self.offset();
            let position = usize::try_from(self.unsigned("a position")?).unwrap_or(usize::MAX);
            is_identity &= position == i;
            let entry = slots.get_mut(position).and_then(Option::take);
            inserted.push(entry.ok_or_else(|| malformed("the order is not a permutation", at))?);
        }
        if is_identity {
            return Err(not_canonical("an order that is the sorted order", start));
        }
        Ok(inserted)
    }

    /// Reads a mapping whose first token is `token`.
    pub(crate) fn mapping(&mut self, token: Token<'a>, start: usize) -> Result<Mapping, ObjectError> {
        let entries = self.entries(token, start, Self::key, Self::value)?;
        Ok(Mapping::from_unique(entries))
    }

    fn value(&mut self) -> Result<Value, ObjectError> {
        let start = self.offset();
        Ok(match self.next()? {
            Token::Null => Value::None,
            Token::Bool(bool) => Value::Bool(bool),
            Token::Unsigned(n) => Value::Int(Int::from_small(false, n)),
            Token::Negative(n) => Value::Int(Int::from_small(true, n)),
            Token::Float(float) => Value::Float(float),
            Token::Text(text) => Value::Text(text.to_owned()),
            Token::Bytes(bytes) => Value::Bytes(bytes.to_vec()),
            Token::Array(len) => Value::List(self.items(len)?),
            token @ Token::Map(_) => Value::Map(self.mapping(token, start)?),
            Token::Tag(tag) => self.tagged(tag, start)?,
        })
    }

    fn tagged(&mut self, tag: u64, start: usize) -> Result<Value, ObjectError> {
        Ok(match tag {
            tag::BIG | tag::BIG_NEGATIVE => Value::Int(self.big(tag == tag::BIG_NEGATIVE)?),
            tag::MAPPING => Value::Map(self.mapping(Token::Tag(tag), start)?),
            tag::TUPLE => {
                let len = self.array("the elements of a tuple")?;
                Value::Tuple(self.items(len)?)
            }
            tag::SET | tag::FROZEN_SET => self.set(tag == tag::FROZEN_SET)?,
            tag::COMPLEX => {
                let (real, imaginary) = self.complex()?;
                Value::Complex(real, imaginary)
            }
            tag::TENSOR => Value::Tensor(self.tensor(Flavor::Torch)?),
            tag::ARRAY => Value::Tensor(self.tensor(Flavor::Numpy)?),
            tag::ALIAS => Value::Alias(self.alias()?),
            tag::NAMED => self.named()?,
            tag::SUBTREE => Value::Subtree(self.subtree_id()?),
            _ => return Err(malformed("a tag that is not of the format", start)),
        })
    }

    fn items(&mut self, len: usize) -> Result<Vec<Value>, ObjectError> {
        self.bounds.open(len)?;
        let mut items = Vec::with_capacity(len);
        for _ in 0..len {
            items.push(self.value()?);
        }
        self.bounds.close();
        Ok(items)
    }

    fn set(&mut self, frozen: bool) -> Result<Value, ObjectError> {
        let len = self.array("the elements of a set")?;
        self.bounds.open(len)?;
        let mut items = Vec::with_capacity(len);
        let mut previous: &[u8] = &[];
        for _ in 0..len {
            let start = self.offset();
            let item = self.value()?;
            check_element(&item)?;
            let item_bytes = self.tokens.since(start);
            check_rising(previous, item_bytes, "element of a set", start)?;
            previous = item_bytes;
            items.push(item);
        }
        self.bounds.close();
        Ok(Value::Set { frozen, items })
    }

    pub(crate) fn key(&mut self) -> Result<Key, ObjectError> {
        let start = self.offset();
        Ok(match self.next()? {
            Token::Null => Key::None,
            Token::Bool(bool) => Key::Bool(bool),
            Token::Unsigned(n) => Key::Int(Int::from_small(false, n)),
            Token::Negative(n) => Key::Int(Int::from_small(true, n)),
            Token::Float(float) => Key::Float(float),
            Token::Text(text) => Key::Text(text.to_owned()),
            Token::Bytes(bytes) => Key::Bytes(bytes.to_vec()),
            Token::Tag(tag @ (tag::BIG | tag::BIG_NEGATIVE)) => Key::Int(self.big(tag == tag::BIG_NEGATIVE)?),
            Token::Tag(tag::COMPLEX) => {
                let (real, imaginary) = self.complex()?;
                Key::Complex(real, imaginary)
            }
            Token::Tag(tag::TUPLE) => {
                let len = self.array("the elements of a tuple")?;
                self.bounds.open(len)?;
                let mut keys = Vec::with_capacity(len);
                for _ in 0..len {
                    keys.push(self.key()?);
                }
                self.bounds.close();
                Key::Tuple(keys)
            }
            Token::Array(_) | Token::Map(_) | Token::Tag(_) => {
                return Err(malformed("no value that can be a key", start));
            }
        })
    }

    fn big(&mut self, negative: bool) -> Result<Int, ObjectError> {
        let start = self.offset();
        let Token::Bytes(n) = self.next()? else {
            return Err(malformed("the magnitude of an integer", start));
        };
        if n.len() <= 8 || n.starts_with(&[0]) {
            return Err(not_canonical("an integer that could be shorter", start));
        }
        Ok(Int::from_n(negative, n))
    }

    fn complex(&mut self) -> Result<(f64, f64), ObjectError> {
        let start = self.offset();
        self.array_of(2, "the parts of a complex number")?;
        match (self.next()?, self.next()?) {
            (Token::Float(real), Token::Float(imaginary)) => Ok((real, imaginary)),
            _ => Err(malformed("the parts of a complex number", start)),
        }
    }

    fn tensor(&mut self, flavor: Flavor) -> Result<Tensor, ObjectError> {
        self.bounds.admit_tensor()?;
        self.array_of(4, "dtype, shape, order and data of a tensor")?;
        let dtype = self.text("a dtype")?.to_owned();
        let rank = self.array("a shape")?;
        let mut shape = Vec::with_capacity(check_rank(rank)?);
        for _ in 0..rank {
            shape.push(self.unsigned("a dimension")?);
        }
        let tensor = Tensor { flavor, dtype, shape, order: self.order()?, data: self.tensor_data()? };
        tensor.check()?;
        Ok(tensor)
    }

    fn order(&mut self) -> Result<Option<Vec<u32>>, ObjectError> {
        let start = self.offset();
        let len = match self.next()? {
            Token::Null => return Ok(None),
            Token::Array(len) => check_rank(len)?,
            _ => return Err(malformed("an order of dimensions", start)),
        };
        let mut order = Vec::with_capacity(len);
        for _ in 0..len {
            let at = self.offset();
            let dim = u32::try_from(self.unsigned("a dimension")?);
            order.push(dim.map_err(|_| malformed("a dimension", at))?);
        }
        Ok(Some(order))
    }

    fn tensor_data(&mut self) -> Result<TensorData, ObjectError> {
        let start = self.offset();
        match self.next()? {
            Token::Bytes(bytes) => Ok(TensorData::Inline(bytes.to_vec())),
            Token::Array(len) if len <= self.tokens.remaining() / ENCODED_ID_LEN => {
                let mut ids = Vec::with_capacity(len);
                for _ in 0..len {
                    ids.push(ChunkId::from_bytes(self.id("a chunk id")?));
                }
                Ok(TensorData::Chunks(ids))
            }
            _ => Err(malformed("the data of a tensor", start)),
        }
    }

    fn alias(&mut self) -> Result<Vec<Key>, ObjectError> {
        self.bounds.admit_alias()?;
        let len = self.array("a path")?;
        if len == 0 {
            return Err(ObjectError::EmptyAlias);
        }
        self.bounds.count(len)?;
        let mut path = Vec::with_capacity(len);
        for _ in 0..len {
            path.push(self.key()?);
        }
        Ok(path)
    }

    fn named(&mut self) -> Result<Value, ObjectError> {
        self.array_of(3, "name, value and extra")?;
        let name = self.text("a name")?.parse()?;
        self.bounds.open(2)?;
        let value = Box::new(self.value()?);
        let extra = Box::new(self.value()?);
        self.bounds.close();
        crate::named::Name::check(name, &value, &extra)?;
        Ok(Value::Named { name, value, extra })
    }

    fn subtree_id(&mut self) -> Result<TreeId, ObjectError> {
        self.bounds.admit_subtree()?;
        Ok(TreeId::from_bytes(self.id("a tree id")?))
    }

    /// Reads a subtree, with its tag.
    pub(crate) fn subtree(&mut self) -> Result<TreeId, ObjectError> {
        let start = self.offset();
        match self.next()? {
            Token::Tag(tag::SUBTREE) => self.subtree_id(),
            _ => Err(malformed("not a subtree", start)),
        }
    }
}

fn check_rank(rank: usize) -> Result<usize, ObjectError> {
    if rank <= RANK_MAX {
        return Ok(rank);
    }
    Err(ObjectError::TooLarge { what: "dimensions of a tensor", actual: rank as u64, max: RANK_MAX as u64 })
}

/// Checks that a key or element comes after the one before it.
fn check_rising(previous: &[u8], bytes: &[u8], what: &'static str, offset: usize) -> Result<(), ObjectError> {
    match previous.cmp(bytes) {
        Ordering::Less => Ok(()),
        Ordering::Equal => Err(ObjectError::Duplicate { what, key: format!("{:02x?}", &bytes[..bytes.len().min(16)]) }),
        Ordering::Greater => Err(not_canonical("keys or elements that do not rise", offset)),
    }
}
