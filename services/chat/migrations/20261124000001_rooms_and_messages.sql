-- Rooms, their members and messages. A direct message is a message in a room of two.
-- The index of every paged list is here, so that no list ever sorts.

-- What chat knows about users, told by account through Kafka. A user that is missing is asked for.
CREATE TABLE users (
    id     bigint NOT NULL CONSTRAINT users_pkey PRIMARY KEY,
    status text   NOT NULL CONSTRAINT users_status_known CHECK (status IN ('pending', 'active', 'frozen', 'closed'))
);

CREATE TABLE rooms (
    id         bigint      GENERATED ALWAYS AS IDENTITY CONSTRAINT rooms_pkey PRIMARY KEY,
    -- a room with a name: who created it, with which request
    name       text,
    creator_id bigint,
    request_id uuid,
    -- a room of two: who they are
    low_user   bigint,
    high_user  bigint,
    -- the seq of the newest message; the row lock taken by its increment orders the messages and events of the room
    last_seq   bigint      NOT NULL DEFAULT 0 CONSTRAINT rooms_last_seq_not_negative CHECK (last_seq >= 0),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT rooms_direct_unique UNIQUE (low_user, high_user),
    CONSTRAINT rooms_request_unique UNIQUE (creator_id, request_id),
    CONSTRAINT rooms_direct_or_named CHECK (
        (num_nonnulls(name, creator_id, request_id) = 3 AND num_nonnulls(low_user, high_user) = 0)
        OR (num_nonnulls(name, creator_id, request_id) = 0 AND num_nonnulls(low_user, high_user) = 2)),
    CONSTRAINT rooms_direct_ordered CHECK (low_user < high_user)
)
-- every message updates last_seq, which no index covers: room on the page keeps these updates out of the indexes (HOT)
WITH (fillfactor = 80);

CREATE TABLE members (
    user_id bigint NOT NULL,
    room_id bigint NOT NULL CONSTRAINT members_room_fkey REFERENCES rooms (id),
    -- lists the rooms of a user, newest first
    CONSTRAINT members_pkey PRIMARY KEY (user_id, room_id)
);

-- the members of a room
CREATE INDEX members_by_room ON members (room_id, user_id);

CREATE TABLE messages (
    -- made by the sender's client: a retry finds the first try here
    id         uuid        NOT NULL CONSTRAINT messages_pkey PRIMARY KEY,
    room_id    bigint      NOT NULL CONSTRAINT messages_room_fkey REFERENCES rooms (id),
    seq        bigint      NOT NULL CONSTRAINT messages_seq_positive CHECK (seq > 0),
    sender_id  bigint      NOT NULL,
    content    text        NOT NULL CONSTRAINT messages_content_length CHECK (char_length(content) BETWEEN 1 AND 4096),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- pages through the messages of a room
    CONSTRAINT messages_room_seq_unique UNIQUE (room_id, seq)
);
