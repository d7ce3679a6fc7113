//! The answer of a method that is not JSON.

/// `google.api.HttpBody`: a REST caller gets `data` as it is. Written by hand, as the generated code of our packages
/// cannot name that of Google's.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct HttpBody {
    /// The media type of the body.
    #[prost(string, tag = "1")]
    pub content_type: String,
    /// The body.
    #[prost(bytes = "bytes", tag = "2")]
    pub data: prost::bytes::Bytes,
}
