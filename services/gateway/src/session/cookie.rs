//! The session cookie: read from requests, and made from what auth says beside its answer.

use http::{HeaderMap, HeaderName, HeaderValue, header};

const NAME: &str = "session";
const SET: HeaderName = HeaderName::from_static("kontor-set-session");
const MAX_AGE: HeaderName = HeaderName::from_static("kontor-session-max-age");
const CLEAR: HeaderName = HeaderName::from_static("kontor-clear-session");

/// Makes session cookies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cookies {
    /// Whether browsers send the cookie over TLS only. False is for a machine without TLS.
    pub secure: bool,
}

/// The session token among the cookies of a request.
pub(crate) fn session(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.split_once('='))
        .find_map(|(name, value)| (name.trim() == NAME).then(|| value.trim()))
}

impl Cookies {
    /// The `Set-Cookie` header that an upstream's answer asks for.
    pub fn asked_by(self, answer: &HeaderMap) -> Option<HeaderValue> {
        let text = |name: &HeaderName| answer.get(name).and_then(|value| value.to_str().ok());
        if Self::is_cleared_by(answer) {
            return self.make("", 0);
        }
        let token = text(&SET)?;
        self.make(token, text(&MAX_AGE)?.parse().ok()?)
    }

    /// Whether an upstream's answer says that the caller's session has ended.
    pub fn is_cleared_by(answer: &HeaderMap) -> bool {
        answer.contains_key(&CLEAR)
    }

    fn make(self, token: &str, max_age_s: u64) -> Option<HeaderValue> {
        let secure = if self.secure { "; Secure" } else { "" };
        let cookie = format!("{NAME}={token}; HttpOnly; SameSite=Lax; Path=/; Max-Age={max_age_s}{secure}");
        let mut value = HeaderValue::try_from(cookie).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_session_is_found_among_cookies() {
        let read = |value: &'static str| {
            let headers = HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_static(value))]);
            session(&headers).map(str::to_owned)
        };
        assert_eq!(read("a=b; session=token; c=d").as_deref(), Some("token"));
        assert_eq!(read("session=token").as_deref(), Some("token"));
        assert_eq!(read("my_session=token; Session=x"), None);
        assert_eq!(read("session"), None);
    }

    #[test]
    fn a_cookie_has_all_its_attributes() {
        let cookie = |secure: bool, headers: &[(HeaderName, &'static str)]| {
            let headers = headers
                .iter()
                .map(|(name, value)| (name.clone(), HeaderValue::from_static(value)))
                .collect();
            Cookies { secure }
                .asked_by(&headers)
                .map(|value| value.to_str().unwrap().to_owned())
        };
        let login = [(SET, "abc"), (MAX_AGE, "86400")];
        assert_eq!(
            cookie(true, &login).as_deref(),
            Some("session=abc; HttpOnly; SameSite=Lax; Path=/; Max-Age=86400; Secure")
        );
        assert_eq!(
            cookie(false, &[(CLEAR, "1")]).as_deref(),
            Some("session=; HttpOnly; SameSite=Lax; Path=/; Max-Age=0")
        );
        assert_eq!(cookie(true, &[]), None);
        assert_eq!(cookie(true, &[(SET, "abc")]), None);
    }
}
