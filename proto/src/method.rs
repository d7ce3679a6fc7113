//! What the contracts say about each method, read once from the descriptors.

use std::{collections::HashMap, sync::LazyLock};

use prost_reflect::{
    MethodDescriptor, Value,
    prost_types::{MethodOptions, method_options::IdempotencyLevel},
};

/// The longest body of a REST call whose method does not say, in bytes.
const DEFAULT_MAX_BODY: usize = 1024 * 1024;

/// Who may call a method: `kontor.options.v1.Access`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anyone, without a session.
    Public,
    /// A signed-in user.
    User,
    /// A signed-in operator.
    Operator,
    /// Only another kontor service.
    Internal,
}

/// A method of a contract.
#[derive(Clone, Debug)]
pub struct Method {
    /// The path of a gRPC call, `/kontor.auth.v1.AuthService/Login`.
    pub path: String,
    /// The service of kontor that serves it: `auth`, `account`, `transfer` or `chat`.
    pub upstream: String,
    /// Who may call it.
    pub access: Access,
    /// The weight of one call in the caller's rate limit, in tokens, at least 1.
    pub cost: u32,
    /// The status of a successful REST call.
    pub http_success: u16,
    /// The longest body of a REST call, in bytes.
    pub max_body: usize,
    /// True for `NO_SIDE_EFFECTS`: a read, which may be retried and served by any region.
    pub read_only: bool,
    /// The method's descriptor.
    pub descriptor: MethodDescriptor,
}

static METHODS: LazyLock<HashMap<String, Method>> = LazyLock::new(|| {
    crate::descriptors()
        .services()
        .flat_map(|service| {
            service
                .methods()
                .filter_map(|method| read(&method))
                .collect::<Vec<_>>()
        })
        .map(|method| (method.path.clone(), method))
        .collect()
});

/// All methods of all contracts.
pub fn all() -> impl Iterator<Item = &'static Method> {
    METHODS.values()
}

/// The method of a gRPC path, `/kontor.auth.v1.AuthService/Login`.
pub fn by_path(path: &str) -> Option<&'static Method> {
    METHODS.get(path)
}

fn read(descriptor: &MethodDescriptor) -> Option<Method> {
    let service = descriptor.parent_service();
    let upstream = service
        .full_name()
        .strip_prefix("kontor.")?
        .split('.')
        .next()?
        .to_owned();
    let access = match number(descriptor, "access") {
        1 => Access::Public,
        2 => Access::User,
        3 => Access::Operator,
        // the closed side: a number that this build does not know reaches nobody outside
        _ => Access::Internal,
    };
    let level = descriptor
        .method_descriptor_proto()
        .options
        .as_ref()
        .map(MethodOptions::idempotency_level);
    Some(Method {
        path: format!("/{}/{}", service.full_name(), descriptor.name()),
        upstream,
        access,
        cost: number(descriptor, "cost").max(1),
        http_success: match u16::try_from(number(descriptor, "http_success")) {
            Ok(status) if status >= 200 => status,
            _ => 200,
        },
        max_body: match number(descriptor, "max_body") {
            0 => DEFAULT_MAX_BODY,
            bytes => usize::try_from(bytes).unwrap_or(DEFAULT_MAX_BODY),
        },
        read_only: level == Some(IdempotencyLevel::NoSideEffects),
        descriptor: descriptor.clone(),
    })
}

fn number(method: &MethodDescriptor, option: &str) -> u32 {
    let name = format!("kontor.options.v1.{option}");
    let Some(extension) = crate::descriptors().get_extension_by_name(&name) else {
        return 0;
    };
    match &*method.options().get_extension(&extension) {
        Value::U32(value) => *value,
        Value::EnumNumber(value) => u32::try_from(*value).unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_from_the_descriptors() {
        let login = by_path("/kontor.auth.v1.AuthService/Login").unwrap();
        assert_eq!(
            (login.access, login.cost, login.upstream.as_str()),
            (Access::Public, 10, "auth")
        );
        assert!(!login.read_only);
        let user = by_path("/kontor.account.v1.AccountService/GetUser").unwrap();
        assert_eq!(
            (user.access, user.read_only, user.http_success),
            (Access::User, true, 200)
        );
        let create = by_path("/kontor.account.v1.AccountService/CreateUser").unwrap();
        assert_eq!(create.http_success, 201);
        assert_eq!(create.max_body, 1 << 20);
        let batch = by_path("/kontor.transfer.v1.TransferService/CreateTransfers").unwrap();
        assert_eq!(batch.max_body, 8 << 20);
        let open = by_path("/kontor.transfer.v1.LedgerService/OpenAccount").unwrap();
        assert_eq!(open.access, Access::Internal);
    }
}
