//! Reading requests strictly: bytes that are no message, and fields that this broker does not know, are the caller's
//! mistake and named as such.
//!
//! proto3 drops unknown fields in silence. For a request that would be the wrong side to err on: a newer client may ask
//! for less than it gets (a narrower audience, a longer validity) and would not notice. Responses are read as proto3
//! has it, so that the broker may grow.

use super::pb;
use crate::error::Error;
use prost::Message;
use prost::bytes::{Buf as _, Bytes};
use prost::encoding::{DecodeContext, decode_key, skip_field};
use std::marker::PhantomData;
use tonic::Status;
use tonic::codec::{self, BufferSettings, DecodeBuf};
use tonic_prost::ProstEncoder;

/// Where a message is written, in bytes: an answer with a token of 1,500 fits, and a larger one makes it grow. tonic's
/// own 8 KiB would be allocated, and zeroed when they are freed, for every call.
const ROOM: usize = 2 * 1024;
/// Where a message is read, in bytes: most requests are a name, and larger ones make it grow.
const SPARE: usize = 256;
/// Messages of a stream that are ready together are sent together, up to this; tonic's own.
const ENOUGH: usize = 32 * 1024;

/// What a message may hold.
pub trait Fields {
    /// The numbers of its fields, for messages that are read strictly.
    const KNOWN: Option<&'static [u32]>;
}

impl Fields for pb::GetTokenRequest {
    const KNOWN: Option<&'static [u32]> = Some(&[1, 2]);
}

impl Fields for pb::GetTokenResponse {
    const KNOWN: Option<&'static [u32]> = None;
}

impl Fields for pb::WatchTokensRequest {
    const KNOWN: Option<&'static [u32]> = Some(&[1]);
}

impl Fields for pb::WatchTokensResponse {
    const KNOWN: Option<&'static [u32]> = None;
}

impl Fields for pb::ReportRejectedTokenRequest {
    const KNOWN: Option<&'static [u32]> = Some(&[1, 2, 3]);
}

impl Fields for pb::ReportRejectedTokenResponse {
    const KNOWN: Option<&'static [u32]> = None;
}

/// The codec of every method of `tokenbroker.v1`; named in `build.rs`.
#[derive(Debug)]
pub struct Codec<E, D>(PhantomData<(E, D)>);

/// Its reading half.
#[derive(Debug)]
pub struct Decoder<D>(PhantomData<D>);

impl<E, D> Default for Codec<E, D> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<E, D> codec::Codec for Codec<E, D>
where
    E: Message + Send + 'static,
    D: Message + Default + Fields + Send + 'static,
{
    type Encode = E;
    type Decode = D;
    type Encoder = ProstEncoder<E>;
    type Decoder = Decoder<D>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(BufferSettings::new(ROOM, ENOUGH))
    }

    fn decoder(&mut self) -> Self::Decoder {
        Decoder(PhantomData)
    }
}

impl<D: Message + Default + Fields> codec::Decoder for Decoder<D> {
    type Item = D;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<D>, Status> {
        let bytes = source.copy_to_bytes(source.remaining());
        Ok(Some(read(bytes)?))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(SPARE, ENOUGH)
    }
}

fn read<D: Message + Default + Fields>(bytes: Bytes) -> Result<D, Error> {
    if let Some(known) = D::KNOWN
        && let Some(field) = unknown_field(bytes.clone(), known)?
    {
        return Err(Error::invalid("request", format!("holds field {field}, which this broker does not know")));
    }
    D::decode(bytes).map_err(|_no_message| no_message())
}

fn unknown_field(mut bytes: Bytes, known: &[u32]) -> Result<Option<u32>, Error> {
    while bytes.has_remaining() {
        let (field, wire_type) = decode_key(&mut bytes).map_err(|_no_message| no_message())?;
        if !known.contains(&field) {
            return Ok(Some(field));
        }
        skip_field(wire_type, field, &mut bytes, DecodeContext::default()).map_err(|_no_message| no_message())?;
    }
    Ok(None)
}

fn no_message() -> Error {
    Error::invalid("request", "is no message of the schema")
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost_types::FileDescriptorSet;

    #[test]
    fn the_numbers_are_those_of_the_schema() {
        let schema = FileDescriptorSet::decode(pb::FILE_DESCRIPTOR_SET).unwrap();
        let messages: Vec<_> = schema.file.iter().flat_map(|file| &file.message_type).collect();
        let numbers = |name: &str| -> Vec<u32> {
            let message = messages.iter().find(|message| message.name() == name).unwrap();
            message.field.iter().map(|field| field.number().unsigned_abs()).collect()
        };
        assert_eq!(pb::GetTokenRequest::KNOWN, Some(&numbers("GetTokenRequest")[..]));
        assert_eq!(pb::WatchTokensRequest::KNOWN, Some(&numbers("WatchTokensRequest")[..]));
        assert_eq!(pb::ReportRejectedTokenRequest::KNOWN, Some(&numbers("ReportRejectedTokenRequest")[..]));
    }
}
