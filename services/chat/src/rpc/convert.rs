//! Requests to use cases, and results to answers.

use std::collections::HashSet;

use proto::chat::v1::{
    CreateRoomRequest, ListDirectMessagesRequest, ListMessagesRequest, ListRoomsRequest, ListRoomsResponse,
    Message, Room, RoomPosition, SendDirectMessageRequest, SendDirectMessageResponse, SendMessageRequest,
    SendMessageResponse, SubscribeResponse, Subscribed, subscribe_response::Event,
};
use rpc::fields::Problems;
use tonic::Status;

use super::token;
use crate::{
    app::{Delivered, Draft, NewRoom, Page, Position, RoomPage, Sent},
    domain::{
        direct::Pair,
        text::{content_problem, room_name_problem},
    },
    wire,
};

/// The most positions of a subscription.
const MAX_POSITIONS: usize = 1_000;
/// The most other members of a new room.
const MAX_MEMBERS: usize = 100;
/// What every accepted message is.
const SENT: &str = "sent";

/// Which page of messages is wanted.
pub struct Wanted {
    pub before: Option<Position>,
    pub limit: i64,
}

pub fn direct_message(request: SendDirectMessageRequest) -> Result<(Pair, Draft), Status> {
    let mut problems = Problems::default();
    let receiver = problems.id("receiver_id", request.receiver_id);
    let sender = problems.id("sender_id", request.sender_id);
    let pair = Pair::new(sender, receiver);
    problems.check("receiver_id", pair.is_none().then_some("must not be the sender"));
    problems.check("content", content_problem(&request.content));
    let id = problems.uuid("message_id", &request.message_id);
    let pair = problems.finish_with(pair)?;
    Ok((
        pair,
        Draft {
            id,
            sender,
            content: request.content,
        },
    ))
}

pub fn direct_sent(message_id: String, sent: Sent) -> SendDirectMessageResponse {
    SendDirectMessageResponse {
        status: SENT.to_owned(),
        message_id,
        room_id: sent.room,
        seq: sent.seq,
        timestamp: Some(wire::timestamp(sent.at)),
    }
}

pub fn direct_messages(request: &ListDirectMessagesRequest) -> Result<(Pair, Wanted), Status> {
    let mut problems = Problems::default();
    let user = problems.id("user_id", request.user_id);
    let other = problems.id("other_id", request.other_id);
    let pair = Pair::new(user, other);
    problems.check("other_id", pair.is_none().then_some("must not be user_id"));
    let limit = problems.page_size(request.page_size);
    let before = problems.token(&request.page_token, token::read_messages);
    Ok((problems.finish_with(pair)?, Wanted { before, limit }))
}

pub fn new_room(creator: i64, request: CreateRoomRequest) -> Result<NewRoom, Status> {
    let mut problems = Problems::default();
    problems.check("name", room_name_problem(&request.name));
    if request.member_ids.len() > MAX_MEMBERS {
        problems.add("member_ids", "must be at most 100");
    } else {
        for (index, member) in request.member_ids.iter().enumerate() {
            problems.id(format!("member_ids[{index}]"), *member);
        }
    }
    let id = problems.uuid("request_id", &request.request_id);
    problems.finish()?;
    let mut members = request.member_ids;
    members.push(creator);
    members.sort_unstable();
    members.dedup();
    Ok(NewRoom {
        creator,
        request: id,
        name: request.name,
        members,
    })
}

pub fn rooms(request: &ListRoomsRequest) -> Result<(Option<i64>, i64), Status> {
    let mut problems = Problems::default();
    let limit = problems.page_size(request.page_size);
    let below = problems.token(&request.page_token, token::read_rooms);
    problems.finish()?;
    Ok((below, limit))
}

pub fn room_page(caller: i64, page: RoomPage) -> ListRoomsResponse {
    let room = |room: crate::app::Room| Room {
        room_id: room.id,
        name: room.name,
        peer_id: room.pair.map(|pair| pair.other(caller)),
        last_seq: room.last_seq,
    };
    ListRoomsResponse {
        rooms: page.rooms.into_iter().map(room).collect(),
        next_page_token: page.next.map(token::rooms),
    }
}

pub fn room_message(sender: i64, request: SendMessageRequest) -> Result<(i64, Draft), Status> {
    let mut problems = Problems::default();
    let room = problems.id("room_id", request.room_id);
    problems.check("content", content_problem(&request.content));
    let id = problems.uuid("message_id", &request.message_id);
    problems.finish()?;
    Ok((
        room,
        Draft {
            id,
            sender,
            content: request.content,
        },
    ))
}

pub fn room_sent(message_id: String, sent: Sent) -> SendMessageResponse {
    SendMessageResponse {
        status: SENT.to_owned(),
        message_id,
        seq: sent.seq,
        timestamp: Some(wire::timestamp(sent.at)),
    }
}

pub fn room_messages(request: &ListMessagesRequest) -> Result<(i64, Wanted), Status> {
    let mut problems = Problems::default();
    let room = problems.id("room_id", request.room_id);
    let limit = problems.page_size(request.page_size);
    let before = problems.token(&request.page_token, token::read_messages);
    problems.finish()?;
    Ok((room, Wanted { before, limit }))
}

pub fn page(page: Page) -> (Vec<Message>, Option<String>) {
    let messages = page.messages.into_iter().map(wire::message).collect();
    (messages, page.previous.map(token::messages))
}

pub fn positions(positions: &[RoomPosition]) -> Result<Vec<Position>, Status> {
    let mut problems = Problems::default();
    if positions.len() > MAX_POSITIONS {
        problems.add("positions", "must be at most 1,000");
        problems.finish()?;
        return Ok(Vec::new());
    }
    let mut rooms = HashSet::new();
    for (index, position) in positions.iter().enumerate() {
        problems.id(format!("positions[{index}].room_id"), position.room_id);
        if position.after_seq < 0 {
            problems.add(format!("positions[{index}].after_seq"), "must not be negative");
        }
        if !rooms.insert(position.room_id) {
            problems.add(format!("positions[{index}].room_id"), "must not be named twice");
        }
    }
    problems.finish()?;
    Ok(positions
        .iter()
        .map(|position| Position {
            room: position.room_id,
            seq: position.after_seq,
        })
        .collect())
}

pub fn subscribed(positions: Vec<Position>) -> SubscribeResponse {
    let position = |position: Position| RoomPosition {
        room_id: position.room,
        after_seq: position.seq,
    };
    let subscribed = Subscribed {
        positions: positions.into_iter().map(position).collect(),
    };
    SubscribeResponse {
        event: Some(Event::Subscribed(subscribed)),
    }
}

/// The last step of a message's way, and of its trace.
pub fn delivered(delivered: Delivered) -> SubscribeResponse {
    let message = match delivered {
        Delivered::Live(live) => {
            let span = tracing::info_span!(
                parent: None,
                "deliver",
                messaging.operation.name = "deliver",
                messaging.message.id = %live.message.id,
                chat.room.id = live.message.room,
                chat.message.seq = live.message.seq,
            );
            telemetry::propagation::set_parent(&span, live.trace.clone());
            span.in_scope(|| live.message.clone())
        }
        Delivered::History(message) => message,
    };
    SubscribeResponse {
        event: Some(Event::Message(wire::message(message))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_message_is_told_field_by_field() {
        let request = SendDirectMessageRequest {
            receiver_id: 1,
            sender_id: 1,
            content: String::new(),
            message_id: "no".to_owned(),
        };
        let status = direct_message(request).unwrap_err();
        let fields: Vec<String> = rpc::error::violations(&status)
            .into_iter()
            .map(|(field, _)| field)
            .collect();
        assert_eq!(fields, ["receiver_id", "content", "message_id"]);
    }

    #[test]
    fn members_are_each_once_and_include_the_creator() {
        let request = CreateRoomRequest {
            name: "tea".to_owned(),
            member_ids: vec![5, 2, 5],
            request_id: "123e4567-e89b-42d3-a456-426614174000".to_owned(),
        };
        assert_eq!(new_room(3, request).unwrap().members, [2, 3, 5]);
    }

    #[test]
    fn positions_are_bounded_and_name_each_room_once() {
        let position = |room_id, after_seq| RoomPosition { room_id, after_seq };
        assert!(positions(&vec![position(1, 0); 1_001]).is_err());
        assert!(positions(&[position(1, 0), position(1, 0)]).is_err());
        assert!(positions(&[position(1, -1)]).is_err());
        assert_eq!(positions(&[position(1, 0), position(2, 7)]).unwrap().len(), 2);
    }
}
