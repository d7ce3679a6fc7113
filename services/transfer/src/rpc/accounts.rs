//! `LedgerAccountService`: accounts, balances and histories.

use std::{sync::Arc, time::Instant};

use futures_util::stream::BoxStream;
use lifecycle::Lifecycle;
use proto::{
    http_body::HttpBody,
    transfer::v1::{
        CloseAccountRequest, CloseAccountResponse, CreateAccountRequest, CreateAccountResponse,
        CreateSystemAccountRequest, CreateSystemAccountResponse, FreezeAccountRequest, FreezeAccountResponse,
        GetAccountRequest, GetAccountResponse, GetBalanceRequest, GetBalanceResponse, GetStatementCsvRequest,
        GetStatementRequest, GetStatementResponse, ListAccountsRequest, ListAccountsResponse,
        ListEntriesRequest, ListEntriesResponse, ReopenAccountRequest, ReopenAccountResponse,
        SetAccountLimitsRequest, SetAccountLimitsResponse, UnfreezeAccountRequest, UnfreezeAccountResponse,
        WatchAccountRequest, WatchAccountResponse, ledger_account_service_server::LedgerAccountService,
    },
};
use tonic::{Request, Response, Status};

use super::{
    authority,
    convert::{self, accounts as from},
    replayed, status, tail,
};
use crate::{
    app::{
        accounts::{Accounts as UseCases, Store},
        error::Error,
        reads::{AccountRecord, Journal, Reads, history::Balance},
        watch::Watch,
    },
    domain::{account::Change, command::Authority},
};

/// How long a watcher may take to begin.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// Serves `LedgerAccountService`.
pub struct Accounts<S, J> {
    use_cases: UseCases<S, J>,
    reads: Arc<Reads<J>>,
    watch: Arc<Watch>,
    lifecycle: Lifecycle,
}

impl<S: Store, J: Journal> Accounts<S, J> {
    /// Serves the accounts of a store, and what is read of them.
    pub fn new(store: S, reads: Arc<Reads<J>>, watch: Arc<Watch>, lifecycle: Lifecycle) -> Self {
        Self {
            use_cases: UseCases::new(store, Arc::clone(&reads)),
            reads,
            watch,
            lifecycle,
        }
    }

    /// An account that the caller may see.
    async fn seen<T>(&self, request: &Request<T>, account: i64) -> Result<Arc<AccountRecord>, Status> {
        let (by, deadline) = (authority(request)?, rpc::deadline(request).instant());
        self.reads
            .account(account, by, deadline)
            .await
            .map_err(status::from_error)
    }

    /// Changes an account for an operator: the guard lets nobody else in.
    async fn change<T>(
        &self,
        request: &Request<T>,
        account: i64,
        change: Change,
    ) -> Result<AccountRecord, Status> {
        let by = rpc::caller(request)?.user_id()?;
        let account = from::account_id(account)?;
        self.use_cases
            .change(account, change, by)
            .await
            .map_err(status::from_error)
    }
}

#[tonic::async_trait]
impl<S: Store, J: Journal> LedgerAccountService for Accounts<S, J> {
    async fn create_account(
        &self,
        request: Request<CreateAccountRequest>,
    ) -> Result<Response<CreateAccountResponse>, Status> {
        let owner = rpc::caller(&request)?.user_id()?;
        let opening = from::opening(request.into_inner(), owner)?;
        let opened = self.use_cases.open(&opening).await.map_err(status::from_error)?;
        let account = Some(from::account(&opened.record));
        Ok(replayed(opened.replayed, CreateAccountResponse { account }))
    }

    async fn create_system_account(
        &self,
        request: Request<CreateSystemAccountRequest>,
    ) -> Result<Response<CreateSystemAccountResponse>, Status> {
        let by = rpc::caller(&request)?.user_id()?;
        let (role, currency) = from::system(request.get_ref())?;
        let opened = self
            .use_cases
            .open_system(role, currency, by)
            .await
            .map_err(status::from_error)?;
        let account = Some(from::account(&opened.record));
        Ok(replayed(opened.replayed, CreateSystemAccountResponse { account }))
    }

    async fn get_account(
        &self,
        request: Request<GetAccountRequest>,
    ) -> Result<Response<GetAccountResponse>, Status> {
        let account = from::account_id(request.get_ref().account_id)?;
        let record = self.seen(&request, account).await?;
        Ok(Response::new(GetAccountResponse {
            account: Some(from::account(&record)),
        }))
    }

    async fn list_accounts(
        &self,
        request: Request<ListAccountsRequest>,
    ) -> Result<Response<ListAccountsResponse>, Status> {
        let (by, caller) = (authority(&request)?, rpc::caller(&request)?.user_id()?);
        let whose = from::whose(*request.get_ref(), caller)?;
        let records = self.use_cases.list(whose, by).await.map_err(status::from_error)?;
        Ok(Response::new(ListAccountsResponse {
            accounts: records.iter().map(from::account).collect(),
        }))
    }

    async fn set_account_limits(
        &self,
        request: Request<SetAccountLimitsRequest>,
    ) -> Result<Response<SetAccountLimitsResponse>, Status> {
        let (account, change) = from::limits(*request.get_ref())?;
        let record = self.change(&request, account, change).await?;
        Ok(Response::new(SetAccountLimitsResponse {
            account: Some(from::account(&record)),
        }))
    }

    async fn freeze_account(
        &self,
        request: Request<FreezeAccountRequest>,
    ) -> Result<Response<FreezeAccountResponse>, Status> {
        let account = request.get_ref().account_id;
        let record = self.change(&request, account, Change::Freeze).await?;
        Ok(Response::new(FreezeAccountResponse {
            account: Some(from::account(&record)),
        }))
    }

    async fn unfreeze_account(
        &self,
        request: Request<UnfreezeAccountRequest>,
    ) -> Result<Response<UnfreezeAccountResponse>, Status> {
        let account = request.get_ref().account_id;
        let record = self.change(&request, account, Change::Unfreeze).await?;
        Ok(Response::new(UnfreezeAccountResponse {
            account: Some(from::account(&record)),
        }))
    }

    async fn close_account(
        &self,
        request: Request<CloseAccountRequest>,
    ) -> Result<Response<CloseAccountResponse>, Status> {
        let (by, caller) = (authority(&request)?, rpc::caller(&request)?.user_id()?);
        let deadline = rpc::deadline(&request).instant();
        let account = from::account_id(request.get_ref().account_id)?;
        let record = self
            .use_cases
            .close(account, by, caller, deadline)
            .await
            .map_err(status::from_error)?;
        Ok(Response::new(CloseAccountResponse {
            account: Some(from::account(&record)),
        }))
    }

    async fn reopen_account(
        &self,
        request: Request<ReopenAccountRequest>,
    ) -> Result<Response<ReopenAccountResponse>, Status> {
        let account = request.get_ref().account_id;
        let record = self.change(&request, account, Change::Reopen).await?;
        Ok(Response::new(ReopenAccountResponse {
            account: Some(from::account(&record)),
        }))
    }

    async fn get_balance(
        &self,
        request: Request<GetBalanceRequest>,
    ) -> Result<Response<GetBalanceResponse>, Status> {
        let (account, at) = from::balance_at(*request.get_ref())?;
        let record = self.seen(&request, account).await?;
        let balance = match at {
            None => Ok(Balance::of(&record.account)),
            Some(at) => self.reads.balance_at(&record, at, convert::now()).await,
        };
        let mut balance = balance.map_err(status::from_error)?;
        balance.at = at.or(balance.at);
        Ok(Response::new(GetBalanceResponse {
            balance: Some(from::balance(&record.account, &balance)),
        }))
    }

    async fn list_entries(
        &self,
        request: Request<ListEntriesRequest>,
    ) -> Result<Response<ListEntriesResponse>, Status> {
        let asked = from::entries(request.get_ref().clone())?;
        let record = self.seen(&request, asked.account).await?;
        let page = self
            .reads
            .entries(&record, asked.query.clone(), asked.cursor)
            .await
            .map_err(status::from_error)?;
        Ok(Response::new(asked.answer(&page)))
    }

    async fn get_statement(
        &self,
        request: Request<GetStatementRequest>,
    ) -> Result<Response<GetStatementResponse>, Status> {
        let asked = from::statement(request.get_ref())?;
        let record = self.seen(&request, asked.account).await?;
        let statement = self
            .reads
            .statement(&record, asked.span, asked.limit, asked.rest)
            .await
            .map_err(status::from_error)?;
        Ok(Response::new(asked.answer(&record, &statement)))
    }

    async fn get_statement_csv(
        &self,
        request: Request<GetStatementCsvRequest>,
    ) -> Result<Response<HttpBody>, Status> {
        let (account, span) = from::whole_statement(request.get_ref())?;
        let record = self.seen(&request, account).await?;
        let written = async {
            let mut csv = convert::csv::Statement::begin()?;
            self.reads
                .whole_statement(&record, span, |entries| csv.add(entries))
                .await?;
            csv.end()
        };
        let body = written.await.map_err(|error: Error| status::from_error(error))?;
        Ok(Response::new(body))
    }

    type WatchAccountStream = BoxStream<'static, Result<WatchAccountResponse, Status>>;

    async fn watch_account(
        &self,
        request: Request<WatchAccountRequest>,
    ) -> Result<Response<Self::WatchAccountStream>, Status> {
        let (by, caller): (Authority, i64) = (authority(&request)?, rpc::caller(&request)?.user_id()?);
        let asked = from::watched(*request.get_ref(), by, caller)?;
        let watcher = self
            .watch
            .watch(&self.reads, asked, Instant::now() + PATIENCE)
            .await
            .map_err(status::from_error)?;
        Ok(Response::new(tail::entries(watcher, self.lifecycle.clone())))
    }
}
