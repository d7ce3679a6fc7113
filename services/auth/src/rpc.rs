//! The gRPC face of sign-in.

mod convert;
mod status;

use std::sync::Arc;

use opentelemetry::{KeyValue, metrics::Counter};
use proto::auth::v1::{
    CreateCredentialRequest, CreateCredentialResponse, GetCredentialRequest, GetCredentialResponse,
    GetSessionRequest, GetSessionResponse, GrantRoleRequest, GrantRoleResponse, LoginRequest, LoginResponse,
    LogoutRequest, LogoutResponse, ResolveSessionRequest, ResolveSessionResponse, Role,
    auth_service_server::AuthService, credential_service_server::CredentialService,
    session_service_server::SessionService,
};
use rpc::Caller;
use status::from_error;
use tonic::{Request, Response, Status};

use crate::app::{Auth, Clock, Passwords, SessionCache, Started, Store};

/// Serves the three services of the contract.
pub struct Handler<S, C, P, K> {
    auth: Arc<Auth<S, C, P, K>>,
    logins: Counter<u64>,
}

impl<S, C, P, K> Handler<S, C, P, K> {
    /// Serves `auth`.
    pub fn new(auth: Arc<Auth<S, C, P, K>>) -> Self {
        let logins = telemetry::metrics::meter()
            .u64_counter("kontor.auth.logins")
            .with_description("sign-ins, by outcome")
            .build();
        Self { auth, logins }
    }
}

#[tonic::async_trait]
impl<S: Store, C: SessionCache, P: Passwords, K: Clock> AuthService for Handler<S, C, P, K> {
    async fn login(&self, request: Request<LoginRequest>) -> Result<Response<LoginResponse>, Status> {
        let bearer = request.get_ref().bearer;
        let (email, password) = convert::login(request.into_inner())?;
        let result = self.auth.login(email, password).await;
        let outcome = result.as_ref().map_or_else(status::outcome, |_| "success");
        self.logins.add(1, &[KeyValue::new("outcome", outcome)]);
        let Started { token, session } = result.map_err(from_error)?;
        let mut response = Response::new(LoginResponse {
            status: "logged_in".to_owned(),
            user_id: session.user_id,
            session_token: bearer.then(|| token.expose().to_owned()),
            expires_at: Some(convert::timestamp(session.expires_at)),
        });
        if !bearer {
            convert::set_session(response.metadata_mut(), &token, self.auth.session_lifetime)?;
        }
        Ok(response)
    }

    async fn logout(&self, request: Request<LogoutRequest>) -> Result<Response<LogoutResponse>, Status> {
        // a caller without a session has nothing that could be ended
        if let Some(digest) = convert::own_session(rpc::caller(&request)?)? {
            self.auth.logout(digest).await.map_err(from_error)?;
        }
        let mut response = Response::new(LogoutResponse {
            status: "logged_out".to_owned(),
        });
        convert::clear_session(response.metadata_mut());
        Ok(response)
    }

    async fn get_session(
        &self,
        request: Request<GetSessionRequest>,
    ) -> Result<Response<GetSessionResponse>, Status> {
        let caller = rpc::caller(&request)?;
        let user_id = caller.user_id()?;
        let role = match caller {
            Caller::User { operator: true, .. } => Role::Operator,
            Caller::User { .. } | Caller::Anonymous | Caller::Service { .. } => Role::User,
        };
        Ok(Response::new(GetSessionResponse {
            user_id,
            role: role.into(),
        }))
    }
}

#[tonic::async_trait]
impl<S: Store, C: SessionCache, P: Passwords, K: Clock> CredentialService for Handler<S, C, P, K> {
    async fn create_credential(
        &self,
        request: Request<CreateCredentialRequest>,
    ) -> Result<Response<CreateCredentialResponse>, Status> {
        let (user_id, email, password) = convert::credential(request.into_inner())?;
        self.auth
            .create_credential(user_id, email, password)
            .await
            .map_err(from_error)?;
        Ok(Response::new(CreateCredentialResponse {}))
    }

    async fn get_credential(
        &self,
        request: Request<GetCredentialRequest>,
    ) -> Result<Response<GetCredentialResponse>, Status> {
        let user_id = convert::user_id(request.get_ref().user_id)?;
        let exists = self.auth.has_credential(user_id).await.map_err(from_error)?;
        Ok(Response::new(GetCredentialResponse { exists }))
    }

    async fn grant_role(
        &self,
        request: Request<GrantRoleRequest>,
    ) -> Result<Response<GrantRoleResponse>, Status> {
        let user_id = convert::user_id(request.get_ref().user_id)?;
        let role = convert::role(request.get_ref().role())?;
        self.auth.grant_role(user_id, role).await.map_err(from_error)?;
        Ok(Response::new(GrantRoleResponse {}))
    }
}

#[tonic::async_trait]
impl<S: Store, C: SessionCache, P: Passwords, K: Clock> SessionService for Handler<S, C, P, K> {
    async fn resolve_session(
        &self,
        request: Request<ResolveSessionRequest>,
    ) -> Result<Response<ResolveSessionResponse>, Status> {
        let digest = convert::digest(&request.get_ref().token_digest)?;
        let session = self.auth.resolve(digest).await.map_err(from_error)?;
        Ok(Response::new(ResolveSessionResponse {
            user_id: session.user_id,
            role: convert::role_number(session.role),
            expires_at: Some(convert::timestamp(session.expires_at)),
        }))
    }
}
