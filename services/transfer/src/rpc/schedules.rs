//! `ScheduleService`: transfers that happen later.

use std::sync::Arc;

use proto::transfer::v1::{
    CancelScheduleRequest, CancelScheduleResponse, CreateScheduleRequest, CreateScheduleResponse,
    GetScheduleRequest, GetScheduleResponse, ListSchedulesRequest, ListSchedulesResponse,
    schedule_service_server::ScheduleService,
};
use tonic::{Request, Response, Status};

use super::{authority, convert::schedules as convert, replayed, status};
use crate::app::{
    directory::Accounts,
    schedules::{Schedules as UseCases, Store},
};

/// Serves `ScheduleService`.
pub struct Schedules<S, A>(Arc<UseCases<S, A>>);

impl<S, A> Schedules<S, A> {
    /// Serves these.
    pub fn new(schedules: Arc<UseCases<S, A>>) -> Self {
        Self(schedules)
    }
}

#[tonic::async_trait]
impl<S: Store, A: Accounts> ScheduleService for Schedules<S, A> {
    async fn create_schedule(
        &self,
        request: Request<CreateScheduleRequest>,
    ) -> Result<Response<CreateScheduleResponse>, Status> {
        let (owner, by) = (rpc::caller(&request)?.user_id()?, authority(&request)?);
        let request = request.into_inner();
        let dry_run = request.dry_run;
        let plan = convert::plan(request, owner, by)?;
        let planned = self.0.plan(&plan, dry_run).await.map_err(status::from_error)?;
        let answer = CreateScheduleResponse {
            schedule: Some(convert::schedule(planned.schedule, &[])),
        };
        Ok(replayed(planned.replayed, answer))
    }

    async fn get_schedule(
        &self,
        request: Request<GetScheduleRequest>,
    ) -> Result<Response<GetScheduleResponse>, Status> {
        let (owner, by) = (rpc::caller(&request)?.user_id()?, authority(&request)?);
        let id = convert::id(&request.get_ref().schedule_id)?;
        let (schedule, latest) = self.0.read(id, owner, by).await.map_err(status::from_error)?;
        Ok(Response::new(GetScheduleResponse {
            schedule: Some(convert::schedule(schedule, &latest)),
        }))
    }

    async fn list_schedules(
        &self,
        request: Request<ListSchedulesRequest>,
    ) -> Result<Response<ListSchedulesResponse>, Status> {
        let owner = rpc::caller(&request)?.user_id()?;
        let (below, limit) = convert::page(request.get_ref())?;
        let (page, next) = self
            .0
            .list(owner, below, limit)
            .await
            .map_err(status::from_error)?;
        Ok(Response::new(ListSchedulesResponse {
            schedules: page
                .into_iter()
                .map(|schedule| convert::schedule(schedule, &[]))
                .collect(),
            next_page_token: next.map(convert::token).unwrap_or_default(),
        }))
    }

    async fn cancel_schedule(
        &self,
        request: Request<CancelScheduleRequest>,
    ) -> Result<Response<CancelScheduleResponse>, Status> {
        let (owner, by) = (rpc::caller(&request)?.user_id()?, authority(&request)?);
        let deadline = rpc::deadline(&request).instant();
        let id = convert::id(&request.get_ref().schedule_id)?;
        let schedule = self
            .0
            .cancel(id, owner, by, deadline)
            .await
            .map_err(status::from_error)?;
        Ok(Response::new(CancelScheduleResponse {
            schedule: Some(convert::schedule(schedule, &[])),
        }))
    }
}
