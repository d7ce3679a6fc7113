//! Requests to sign-ups, with every bad field named at once, and users to answers.

use proto::account::v1::{CreateUserRequest, User, UserStatus};
use rpc::fields::Problems;
use secrecy::SecretString;
use tonic::Status;

use crate::{
    app::{SignUp, View},
    domain::user::{self, Email, Name},
};

const NAME: &str = "must have 1 to 100 characters, none of them a control character";
const EMAIL: &str = "must be an email address of at most 254 bytes";
const PASSWORD: &str = "must have at least 8 characters and at most 1024 bytes";

pub fn sign_up(request: CreateUserRequest) -> Result<SignUp, Status> {
    let mut problems = Problems::default();
    let name = problems.need("name", NAME, Name::new(&request.name));
    let email = problems.need("email", EMAIL, Email::new(&request.email));
    let password = request.password.map(SecretString::from);
    let strong = password.as_ref().is_none_or(user::is_password);
    problems.check("password", (!strong).then_some(PASSWORD));
    let request_id = problems.uuid("request_id", &request.request_id);
    let (name, email) = problems.finish_with(name.zip(email))?;
    Ok(SignUp {
        request_id,
        name,
        email,
        password,
    })
}

pub fn user(view: View) -> User {
    let View { user, own } = view;
    let mut shown = User {
        id: user.id,
        name: user.name,
        ..User::default()
    };
    if let Some(own) = own {
        shown.email = Some(user.email);
        shown.balance = Some(own.posted);
        shown.currency = Some(own.currency);
    }
    shown
}

pub fn status(status: Option<user::Status>) -> UserStatus {
    match status {
        None => UserStatus::Unspecified,
        Some(user::Status::Pending) => UserStatus::Pending,
        Some(user::Status::Active) => UserStatus::Active,
        Some(user::Status::Frozen) => UserStatus::Frozen,
        Some(user::Status::Closed) => UserStatus::Closed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> CreateUserRequest {
        CreateUserRequest {
            name: "Alice".into(),
            email: "alice@example.com".into(),
            password: None,
            request_id: "5d3ecbbb-42a7-4bd1-9cbb-9d5e0c1a9f00".into(),
        }
    }

    #[test]
    fn every_bad_field_is_named_at_once() {
        let bad = CreateUserRequest {
            name: "\0".into(),
            email: "x".repeat(1_000_000),
            password: Some("short".into()),
            request_id: String::new(),
        };
        let fields: Vec<String> = rpc::error::violations(&sign_up(bad).unwrap_err())
            .into_iter()
            .map(|(field, _)| field)
            .collect();
        assert_eq!(fields, ["name", "email", "password", "request_id"]);
    }

    #[test]
    fn a_password_is_optional_and_never_printed() {
        assert!(sign_up(request()).unwrap().password.is_none());
        let with = CreateUserRequest {
            password: Some("password123".into()),
            ..request()
        };
        assert!(!format!("{:?}", sign_up(with).unwrap()).contains("password123"));
    }

    #[test]
    fn others_see_no_email_and_no_balance() {
        let user = crate::app::User {
            id: 1,
            name: "Alice".into(),
            email: "alice@example.com".into(),
            has_password: true,
            status: user::Status::Active,
            attempted_at: chrono::DateTime::UNIX_EPOCH,
        };
        let shown = super::user(View { user, own: None });
        assert_eq!((shown.email, shown.balance, shown.currency), (None, None, None));
    }
}
