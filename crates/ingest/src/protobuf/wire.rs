//! Protobuf's wire format: the fields of one message, one after the other.

use prost::encoding::{MAX_TAG, MIN_TAG};

/// Wire types: what follows a key.
pub(super) const VARINT: u32 = 0;
pub(super) const FIXED64: u32 = 1;
pub(super) const BYTES: u32 = 2;
const GROUP_START: u32 = 3;
const GROUP_END: u32 = 4;
pub(super) const FIXED32: u32 = 5;

/// Reads the fields of one message. What `prost` takes for no field is an error here too.
///
/// [`Reader::key`] says what comes next, and then it is to be read as what it is. Whoever wants every
/// field whole iterates.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

/// A field as it lies in its message.
pub(super) struct WireField<'a> {
    pub(super) number: u32,
    pub(super) payload: Payload<'a>,
}

/// What a field holds.
pub(super) enum Payload<'a> {
    /// A number, or the start or end of a group (whose fields then follow as if they were the
    /// message's own: OTLP has no groups).
    Scalar,
    Bytes(&'a [u8]),
}

/// The bytes are no protobuf.
#[derive(Debug)]
pub(super) struct NotProtobuf;

impl<'a> Reader<'a> {
    pub(super) fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// What was not read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Number and wire type of the next field; `None` at the end of the message.
    #[inline(always)]
    pub(super) fn key(&mut self) -> Result<Option<(u32, u32)>, NotProtobuf> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).map_err(|_| NotProtobuf)?;
        if !(MIN_TAG..=MAX_TAG).contains(&number) {
            return Err(NotProtobuf);
        }
        Ok(Some((number, (key & 7) as u32)))
    }

    /// A number of 7 bits a byte. Nearly all are one byte.
    #[inline(always)]
    pub(super) fn varint(&mut self) -> Result<u64, NotProtobuf> {
        match self.rest {
            [byte, rest @ ..] if *byte < 0x80 => {
                self.rest = rest;
                Ok(u64::from(*byte))
            }
            _ => self.long_varint(),
        }
    }

    #[inline(always)]
    pub(super) fn fixed64(&mut self) -> Result<u64, NotProtobuf> {
        self.array().map(u64::from_le_bytes)
    }

    #[inline(always)]
    pub(super) fn fixed32(&mut self) -> Result<u32, NotProtobuf> {
        self.array().map(u32::from_le_bytes)
    }

    #[inline(always)]
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], NotProtobuf> {
        let len = usize::try_from(self.varint()?).map_err(|_| NotProtobuf)?;
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(NotProtobuf)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Passes over a value of this wire type. Of a group there is only its start or end to pass.
    #[inline(always)]
    pub(super) fn pass(&mut self, wire_type: u32) -> Result<(), NotProtobuf> {
        match wire_type {
            BYTES => self.bytes().map(drop),
            VARINT => self.varint().map(drop),
            FIXED64 => self.fixed64().map(drop),
            FIXED32 => self.fixed32().map(drop),
            GROUP_START | GROUP_END => Ok(()),
            _ => Err(NotProtobuf),
        }
    }

    /// Whether a wire type is that of a group.
    pub(super) fn is_group(wire_type: u32) -> bool {
        matches!(wire_type, GROUP_START | GROUP_END)
    }

    fn long_varint(&mut self) -> Result<u64, NotProtobuf> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first().ok_or(NotProtobuf)?;
            self.rest = rest;
            // Of the tenth byte one bit is left.
            if shift == 63 && *byte > 1 {
                return Err(NotProtobuf);
            }
            value |= u64::from(byte & 0x7f) << shift;
            if *byte < 0x80 {
                return Ok(value);
            }
        }
        Err(NotProtobuf)
    }

    #[inline(always)]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], NotProtobuf> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(NotProtobuf)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn whole_field(&mut self) -> Result<Option<WireField<'a>>, NotProtobuf> {
        let Some((number, wire_type)) = self.key()? else { return Ok(None) };
        let payload = match wire_type {
            BYTES => Payload::Bytes(self.bytes()?),
            _ => self.pass(wire_type).map(|()| Payload::Scalar)?,
        };
        Ok(Some(WireField { number, payload }))
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Result<WireField<'a>, NotProtobuf>;

    fn next(&mut self) -> Option<Self::Item> {
        self.whole_field().transpose()
    }
}
