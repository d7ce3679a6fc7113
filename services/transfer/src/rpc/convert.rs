//! Requests to orders, with every bad field named at once, and results to answers.

use chrono::{DateTime, Utc};
use proto::transfer::v1::{CreateTransferRequest, DepositRequest, OpenAccountRequest, Transfer};
use rpc::fields::Problems;
use tonic::Status;
use uuid::Uuid;

use crate::{
    app::{self, Order, Party},
    domain::money::{Amount, Currency},
};

const AMOUNT: &str = "must be between 1 and 9007199254740991 minor units";
const CURRENCY: &str = "must be an ISO 4217 code such as USD";

pub fn transfer_order(request: &CreateTransferRequest) -> Result<Order, Status> {
    let mut problems = Problems::default();
    let from = problems.id("from", request.from_user_id);
    let to = problems.id("to", request.to_user_id);
    if from == to {
        problems.add("to", "must not be the paying user");
    }
    let amount = problems.need("amount", AMOUNT, Amount::new(request.amount));
    let currency = named_currency(&mut problems, &request.currency);
    let id = problems.uuid("transfer_id", &request.transfer_id);
    let amount = problems.finish_with(amount)?;
    Ok(Order {
        id,
        from: Party::User(from),
        to: Party::User(to),
        amount,
        currency,
    })
}

pub fn deposit_order(request: &DepositRequest) -> Result<Order, Status> {
    let mut problems = Problems::default();
    let to = problems.id("to", request.to_user_id);
    let amount = problems.need("amount", AMOUNT, Amount::new(request.amount));
    let currency = named_currency(&mut problems, &request.currency);
    let id = problems.uuid("transfer_id", &request.transfer_id);
    let amount = problems.finish_with(amount)?;
    Ok(Order {
        id,
        from: Party::Treasury,
        to: Party::User(to),
        amount,
        currency,
    })
}

/// An absent currency is good: it means the account's.
fn named_currency(problems: &mut Problems, code: &str) -> Option<Currency> {
    if code.is_empty() {
        return None;
    }
    problems.need("currency", CURRENCY, Currency::from_code(code))
}

pub fn transfer_id(text: &str) -> Result<Uuid, Status> {
    let mut problems = Problems::default();
    let id = problems.uuid("transfer_id", text);
    problems.finish()?;
    Ok(id)
}

pub fn opening(request: &OpenAccountRequest) -> Result<(i64, Currency), Status> {
    let mut problems = Problems::default();
    let user = problems.id("user_id", request.user_id);
    let currency = problems.need("currency", CURRENCY, Currency::from_code(&request.currency));
    Ok((user, problems.finish_with(currency)?))
}

pub fn transfer(transfer: app::Transfer) -> Transfer {
    Transfer {
        transfer_id: transfer.id.to_string(),
        from_user_id: user(transfer.from),
        to_user_id: user(transfer.to),
        amount: transfer.amount,
        currency: transfer.currency,
        created_at: Some(timestamp(transfer.created_at)),
    }
}

fn user(party: Party) -> i64 {
    match party {
        Party::User(id) => id,
        Party::Treasury => 0,
    }
}

pub fn timestamp(time: DateTime<Utc>) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.timestamp(),
        // below 2 * 10^9 by definition, leap seconds included
        nanos: i32::try_from(time.timestamp_subsec_nanos()).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn request() -> CreateTransferRequest {
        CreateTransferRequest {
            from_user_id: 1,
            to_user_id: 2,
            amount: 100,
            currency: "USD".into(),
            transfer_id: "5d3ecbbb-42a7-4bd1-9cbb-9d5e0c1a9f00".into(),
        }
    }

    #[test]
    fn every_bad_field_is_named_at_once() {
        let bad = CreateTransferRequest {
            from_user_id: 0,
            to_user_id: -1,
            amount: 0,
            currency: "usd\0".into(),
            transfer_id: "x".repeat(1_000_000),
        };
        let status = transfer_order(&bad).unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        let fields: Vec<String> = rpc::error::violations(&status)
            .into_iter()
            .map(|(field, _)| field)
            .collect();
        assert_eq!(fields, ["from", "to", "amount", "currency", "transfer_id"]);
    }

    #[test]
    fn nobody_pays_oneself() {
        let status = transfer_order(&CreateTransferRequest {
            to_user_id: 1,
            ..request()
        })
        .unwrap_err();
        assert_eq!(
            rpc::error::violations(&status),
            [("to".into(), "must not be the paying user".into())]
        );
    }

    #[test]
    fn an_absent_currency_is_the_accounts() {
        let order = transfer_order(&CreateTransferRequest {
            currency: String::new(),
            ..request()
        })
        .unwrap();
        assert!(order.currency.is_none());
        assert_eq!(
            transfer_order(&request()).unwrap().currency,
            Currency::from_code("USD")
        );
    }
}
