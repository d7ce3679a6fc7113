//! The gRPC face of chat.

mod convert;
mod status;
mod token;

use std::sync::Arc;

use futures_util::{StreamExt as _, stream, stream::BoxStream};
use proto::chat::v1::{
    CreateRoomRequest, CreateRoomResponse, ListDirectMessagesRequest, ListDirectMessagesResponse,
    ListMessagesRequest, ListMessagesResponse, ListRoomsRequest, ListRoomsResponse, SendDirectMessageRequest,
    SendDirectMessageResponse, SendMessageRequest, SendMessageResponse, SubscribeRequest, SubscribeResponse,
    chat_service_server::ChatService,
};
use tonic::{Request, Response, Status};

use crate::app::{Chat, Directory, Store};

/// Serves the contract.
pub struct Handler<S, D> {
    chat: Arc<Chat<S, D>>,
}

impl<S, D> Handler<S, D> {
    /// Serves `chat`.
    pub fn new(chat: Arc<Chat<S, D>>) -> Self {
        Self { chat }
    }
}

#[tonic::async_trait]
impl<S: Store, D: Directory> ChatService for Handler<S, D> {
    async fn send_direct_message(
        &self,
        request: Request<SendDirectMessageRequest>,
    ) -> Result<Response<SendDirectMessageResponse>, Status> {
        let caller = rpc::caller(&request)?.user_id()?;
        let (pair, draft) = convert::direct_message(request.into_inner())?;
        let message_id = draft.id.to_string();
        let sent = self
            .chat
            .send_direct(caller, pair, draft)
            .await
            .map_err(status::from_error)?;
        Ok(Response::new(convert::direct_sent(message_id, sent)))
    }

    async fn list_direct_messages(
        &self,
        request: Request<ListDirectMessagesRequest>,
    ) -> Result<Response<ListDirectMessagesResponse>, Status> {
        let caller = rpc::caller(&request)?.user_id()?;
        let (pair, page) = convert::direct_messages(request.get_ref())?;
        let found = self
            .chat
            .direct_messages(caller, pair, page.before, page.limit)
            .await
            .map_err(status::from_error)?;
        let (messages, previous_page_token) = convert::page(found);
        Ok(Response::new(ListDirectMessagesResponse {
            messages,
            previous_page_token,
        }))
    }

    async fn create_room(
        &self,
        request: Request<CreateRoomRequest>,
    ) -> Result<Response<CreateRoomResponse>, Status> {
        let caller = rpc::caller(&request)?.user_id()?;
        let room = convert::new_room(caller, request.into_inner())?;
        let room_id = self.chat.create_room(room).await.map_err(status::from_error)?;
        Ok(Response::new(CreateRoomResponse { room_id }))
    }

    async fn list_rooms(
        &self,
        request: Request<ListRoomsRequest>,
    ) -> Result<Response<ListRoomsResponse>, Status> {
        let caller = rpc::caller(&request)?.user_id()?;
        let (below, limit) = convert::rooms(request.get_ref())?;
        let found = self
            .chat
            .rooms(caller, below, limit)
            .await
            .map_err(status::from_error)?;
        Ok(Response::new(convert::room_page(caller, found)))
    }

    async fn send_message(
        &self,
        request: Request<SendMessageRequest>,
    ) -> Result<Response<SendMessageResponse>, Status> {
        let caller = rpc::caller(&request)?.user_id()?;
        let (room, draft) = convert::room_message(caller, request.into_inner())?;
        let message_id = draft.id.to_string();
        let sent = self
            .chat
            .send(caller, room, draft)
            .await
            .map_err(status::from_error)?;
        Ok(Response::new(convert::room_sent(message_id, sent)))
    }

    async fn list_messages(
        &self,
        request: Request<ListMessagesRequest>,
    ) -> Result<Response<ListMessagesResponse>, Status> {
        let caller = rpc::caller(&request)?.user_id()?;
        let (room, page) = convert::room_messages(request.get_ref())?;
        let found = self
            .chat
            .messages(caller, room, page.before, page.limit)
            .await
            .map_err(status::from_error)?;
        let (messages, previous_page_token) = convert::page(found);
        Ok(Response::new(ListMessagesResponse {
            messages,
            previous_page_token,
        }))
    }

    type SubscribeStream = BoxStream<'static, Result<SubscribeResponse, Status>>;

    async fn subscribe(
        &self,
        request: Request<SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let caller = rpc::caller(&request)?.user_id()?;
        let from = convert::positions(&request.get_ref().positions)?;
        let (positions, subscription) = self
            .chat
            .subscribe(caller, &from)
            .await
            .map_err(status::from_error)?;
        // Polled only as fast as the client reads: a slow client fills its inbox in the hub, and nothing else.
        let messages = stream::unfold(Some(Box::new(subscription)), |subscription| async {
            let mut subscription = subscription?;
            Some(match subscription.next().await {
                Ok(delivered) => (Ok(convert::delivered(delivered)), Some(subscription)),
                Err(error) => (Err(status::from_error(error)), None),
            })
        });
        let first = stream::once(std::future::ready(Ok(convert::subscribed(positions))));
        Ok(Response::new(first.chain(messages).boxed()))
    }
}
