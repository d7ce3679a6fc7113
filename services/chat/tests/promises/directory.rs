//! The one method of account that chat calls, served over gRPC.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use proto::account::v1::{
    GetUserStatusRequest, GetUserStatusResponse, UserStatus, directory_service_server::DirectoryService,
};
use tonic::{Request, Response, Status};

/// Knows the users that a test told it; all others do not exist.
#[derive(Clone, Default)]
pub struct Directory {
    users: Arc<Mutex<HashMap<i64, UserStatus>>>,
    asked: Arc<AtomicUsize>,
}

impl Directory {
    pub fn set(&self, user: i64, status: UserStatus) {
        self.users.lock().unwrap().insert(user, status);
    }

    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

#[tonic::async_trait]
impl DirectoryService for Directory {
    async fn get_user_status(
        &self,
        request: Request<GetUserStatusRequest>,
    ) -> Result<Response<GetUserStatusResponse>, Status> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let user_id = request.get_ref().user_id;
        let status = self
            .users
            .lock()
            .unwrap()
            .get(&user_id)
            .copied()
            .unwrap_or_default();
        Ok(Response::new(GetUserStatusResponse {
            status: status.into(),
        }))
    }
}
