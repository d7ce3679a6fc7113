//! The gRPC face of the ledger.

mod accounts;
mod admin;
mod batch;
mod convert;
mod feed;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod internal;
mod schedules;
mod status;
mod stream;
mod tail;
mod transfers;

use tonic::{Request, Response, Status};

pub(crate) use self::convert::views::kind;
pub use self::{
    accounts::Accounts, admin::Admin, internal::Internal, schedules::Schedules, transfers::Transfers,
};
use crate::domain::{books::Done, command::Authority};

/// Tells a caller that an earlier attempt with the same id had done it.
const REPLAYED: &str = "idempotent-replayed";

/// On whose behalf a request is.
fn authority<T>(request: &Request<T>) -> Result<Authority, Status> {
    match rpc::caller(request)? {
        rpc::Caller::User { operator: true, .. } | rpc::Caller::Service { .. } => Ok(Authority::Bank),
        rpc::Caller::User { user_id, .. } => Ok(Authority::User(*user_id)),
        rpc::Caller::Anonymous => Err(rpc::error::unauthenticated()),
    }
}

/// An answer to a write, with the header that tells of a replay.
fn written<T>(done: Done, message: T) -> Response<T> {
    replayed(done.replayed, message)
}

fn replayed<T>(replayed: bool, message: T) -> Response<T> {
    let mut response = Response::new(message);
    if replayed {
        response
            .metadata_mut()
            .insert(REPLAYED, tonic::metadata::MetadataValue::from_static("true"));
    }
    response
}
