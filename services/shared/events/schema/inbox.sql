-- Events that were processed: a row is written in the transaction of the event's effect, so that an event has its effect once.
CREATE TABLE inbox (
    consumer     text        NOT NULL,
    event_id     uuid        NOT NULL,
    processed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT inbox_pkey PRIMARY KEY (consumer, event_id)
);

-- for the removal of old rows
CREATE INDEX inbox_by_time ON inbox (processed_at);
