//! The gRPC face of the users.

mod convert;
mod status;

use std::sync::Arc;

use proto::account::v1::{
    CreateUserRequest, CreateUserResponse, GetUserRequest, GetUserResponse, GetUserStatusRequest,
    GetUserStatusResponse, account_service_server::AccountService,
    directory_service_server::DirectoryService,
};
use tonic::{Request, Response, Status};

use crate::app::{Bank, Credentials, Store, Users};

/// Serves both services of the contract.
pub struct Handler<S, C, B> {
    users: Arc<Users<S, C, B>>,
}

impl<S, C, B> Handler<S, C, B> {
    /// Serves `users`.
    pub fn new(users: Arc<Users<S, C, B>>) -> Self {
        Self { users }
    }
}

#[tonic::async_trait]
impl<S: Store, C: Credentials, B: Bank> AccountService for Handler<S, C, B> {
    async fn create_user(
        &self,
        request: Request<CreateUserRequest>,
    ) -> Result<Response<CreateUserResponse>, Status> {
        let sign_up = convert::sign_up(request.into_inner())?;
        let id = self.users.sign_up(&sign_up).await.map_err(status::from_error)?;
        Ok(Response::new(CreateUserResponse { id }))
    }

    async fn get_user(&self, request: Request<GetUserRequest>) -> Result<Response<GetUserResponse>, Status> {
        let caller = rpc::caller(&request)?.user_id()?;
        let view = self
            .users
            .view(caller, request.get_ref().id)
            .await
            .map_err(status::from_error)?;
        Ok(Response::new(GetUserResponse {
            user: Some(convert::user(view)),
        }))
    }
}

#[tonic::async_trait]
impl<S: Store, C: Credentials, B: Bank> DirectoryService for Handler<S, C, B> {
    async fn get_user_status(
        &self,
        request: Request<GetUserStatusRequest>,
    ) -> Result<Response<GetUserStatusResponse>, Status> {
        let status = self
            .users
            .status(request.get_ref().user_id)
            .await
            .map_err(status::from_error)?;
        Ok(Response::new(GetUserStatusResponse {
            status: convert::status(status).into(),
        }))
    }
}
