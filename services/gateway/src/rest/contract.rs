//! The contracts as REST clients see them: the same messages, with the JSON names that the documentation shows.

use prost::Message as _;
use prost_reflect::{
    DescriptorError, DescriptorPool, FieldDescriptor, MessageDescriptor, Value,
    prost_types::{DescriptorProto, FileDescriptorSet},
};

/// Why the contracts cannot be served as REST. Found at start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The descriptors of this build are broken.
    #[error("the contracts do not decode")]
    Decode(#[from] prost::DecodeError),
    /// The descriptors of this build contradict themselves.
    #[error("the contracts do not link")]
    Link(#[from] DescriptorError),
    /// An annotation that the gateway cannot follow.
    #[error("{method}: {problem}")]
    Rule {
        /// The method's full name.
        method: String,
        /// What is wrong with its annotation.
        problem: String,
    },
}

/// The contracts with snake_case JSON names, except where a contract sets a name itself.
pub(crate) fn pool() -> Result<DescriptorPool, Error> {
    let mut set = FileDescriptorSet::decode(proto::DESCRIPTOR_SET)?;
    for file in &mut set.file {
        // comments are for reflection; here they would only take memory
        file.source_code_info = None;
        file.message_type.iter_mut().for_each(keep_names);
    }
    Ok(DescriptorPool::from_file_descriptor_set(set)?)
}

fn keep_names(message: &mut DescriptorProto) {
    for field in &mut message.field {
        let name = field.name();
        // the compiler fills in the camel case name when the contract says nothing
        if field
            .json_name
            .as_deref()
            .is_none_or(|json| json == camel_case(name))
        {
            field.json_name = Some(name.to_owned());
        }
    }
    message.nested_type.iter_mut().for_each(keep_names);
}

/// The JSON name that protobuf gives a field: underscores go, the letter behind each is capitalised.
fn camel_case(name: &str) -> String {
    let mut camel = String::with_capacity(name.len());
    let mut capital = false;
    for character in name.chars() {
        match character {
            '_' => capital = true,
            _ if capital => {
                camel.push(character.to_ascii_uppercase());
                capital = false;
            }
            _ => camel.push(character),
        }
    }
    camel
}

/// The field that an `Idempotency-Key` fills. Its option is read from the original contracts: the pool of [`pool`] has
/// names only.
pub(crate) fn idempotency_field(message: &MessageDescriptor) -> Option<FieldDescriptor> {
    let original = proto::descriptors();
    let option = original.get_extension_by_name("kontor.options.v1.idempotency_key")?;
    let marked = original
        .get_message_by_name(message.full_name())?
        .fields()
        .find(|field| matches!(&*field.options().get_extension(&option), Value::Bool(true)))?;
    message.get_field(marked.number())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_names_are_those_of_the_contract() {
        let pool = pool().unwrap();
        let name = |message: &str, field: &str| {
            let message = pool.get_message_by_name(message).unwrap();
            message.get_field_by_name(field).unwrap().json_name().to_owned()
        };
        assert_eq!(name("kontor.chat.v1.Message", "sender_id"), "sender_id");
        assert_eq!(
            name("kontor.transfer.v1.CreateTransferRequest", "from_user_id"),
            "from"
        );
        assert_eq!(camel_case("last_seq_2"), "lastSeq2");
    }

    #[test]
    fn the_idempotency_field_is_found_by_its_option() {
        let pool = pool().unwrap();
        let field = |message: &str| {
            let message = pool.get_message_by_name(message).unwrap();
            idempotency_field(&message).map(|field| field.name().to_owned())
        };
        assert_eq!(
            field("kontor.transfer.v1.CreateTransferRequest").as_deref(),
            Some("transfer_id")
        );
        assert_eq!(field("kontor.auth.v1.LoginRequest"), None);
    }
}
