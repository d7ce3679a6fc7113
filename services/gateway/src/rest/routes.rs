//! The routes of the REST face, read at start from the `google.api.http` annotations of the contracts.

use std::fmt::Write as _;

use http::{HeaderValue, Method as Verb, StatusCode};
use matchit::{Params, Router};
use prost_reflect::{DynamicMessage, FieldDescriptor, MessageDescriptor, Value};
use proto::method::{Access, Method};

use super::{
    contract::{self, Error},
    decode,
};

/// The message of a body that is not JSON.
const HTTP_BODY: &str = "google.api.HttpBody";

/// Which part of a request is in the HTTP body.
#[derive(Debug, PartialEq)]
pub(crate) enum BodyRule {
    /// None: fields that are not in the path come from the query.
    None,
    /// Every field that is not in the path.
    Whole,
    /// One field; the others come from the query.
    Field(FieldDescriptor),
}

/// One annotated method at one path.
#[derive(Debug)]
pub(crate) struct Route {
    pub method: &'static Method,
    /// `GET /api/users/{id}`: the name of its spans.
    pub name: String,
    pub input: MessageDescriptor,
    pub output: MessageDescriptor,
    /// The fields of the path's variables, in order.
    pub variables: Vec<FieldDescriptor>,
    pub body: BodyRule,
    /// The field of the answer that is the HTTP body; the whole answer without it.
    pub response_body: Option<FieldDescriptor>,
    pub idempotency: Option<FieldDescriptor>,
    pub success: StatusCode,
    /// The answer brings its own media type, and is sent as it is.
    pub raw: bool,
}

/// What a verb and a path lead to.
pub(crate) enum Found<'r, 'p> {
    Route(&'r Route, Params<'r, 'p>),
    /// The path exists, with these other verbs.
    OtherVerbs(HeaderValue),
    Nothing,
}

/// All routes, one tree for each verb.
#[derive(Debug)]
pub(crate) struct Routes {
    trees: [(Verb, Router<Route>); 5],
}

impl Routes {
    /// Reads the annotations of all methods that may be called from outside.
    pub fn from_contracts() -> Result<Self, Error> {
        let pool = contract::pool()?;
        let mut routes = Self {
            trees: [Verb::GET, Verb::POST, Verb::PUT, Verb::PATCH, Verb::DELETE]
                .map(|verb| (verb, Router::new())),
        };
        let Some(annotation) = proto::descriptors().get_extension_by_name("google.api.http") else {
            return Ok(routes);
        };
        for method in proto::method::all() {
            let options = method.descriptor.options();
            if !options.has_extension(&annotation) {
                continue;
            }
            let error = |problem: String| Error::Rule {
                method: method.path.clone(),
                problem,
            };
            if method.access == Access::Internal {
                return Err(error("an INTERNAL method has a route".to_owned()));
            }
            let Value::Message(rule) = options.get_extension(&annotation).into_owned() else {
                continue;
            };
            let descriptor = pool
                .get_service_by_name(method.descriptor.parent_service().full_name())
                .and_then(|service| service.methods().find(|it| it.name() == method.descriptor.name()))
                .ok_or_else(|| error("the method is not in the pool".to_owned()))?;
            let types = (descriptor.input(), descriptor.output());
            routes.add(method, &types, &rule).map_err(error)?;
            for additional in list(&rule, "additional_bindings") {
                routes.add(method, &types, &additional).map_err(error)?;
            }
        }
        Ok(routes)
    }

    fn add(
        &mut self,
        method: &'static Method,
        (input, output): &(MessageDescriptor, MessageDescriptor),
        rule: &DynamicMessage,
    ) -> Result<(), String> {
        let (verb, template) = self.pattern(rule)?;
        if method.descriptor.is_client_streaming() || method.descriptor.is_server_streaming() {
            return Err("a streaming method cannot have a route".to_owned());
        }
        if let Some(problem) = decode::unsupported(input) {
            return Err(problem);
        }
        let field = |message: &MessageDescriptor, name: &str| {
            message
                .get_field_by_name(name)
                .ok_or_else(|| format!("{} has no field {name}", message.full_name()))
        };
        let (pattern, names) = pattern_of(&template)?;
        let variables: Vec<FieldDescriptor> = names
            .iter()
            .map(|name| field(input, name))
            .collect::<Result<_, _>>()?;
        let body = match text(rule, "body").as_str() {
            "" => BodyRule::None,
            "*" => BodyRule::Whole,
            name => BodyRule::Field(field(input, name)?),
        };
        let response_body = match text(rule, "response_body").as_str() {
            "" => None,
            name => Some(field(output, name)?),
        };
        let route = Route {
            method,
            name: format!("{} {template}", self.trees[verb].0),
            input: input.clone(),
            output: output.clone(),
            variables,
            body,
            response_body,
            idempotency: contract::idempotency_field(input),
            raw: output.full_name() == HTTP_BODY,
            success: StatusCode::from_u16(method.http_success).map_err(|error| error.to_string())?,
        };
        self.trees[verb]
            .1
            .insert(pattern, route)
            .map_err(|error| error.to_string())
    }

    /// The tree and the template of a rule.
    fn pattern(&self, rule: &DynamicMessage) -> Result<(usize, String), String> {
        let mut given = self.trees.iter().enumerate().filter_map(|(index, (verb, _))| {
            let template = text(rule, &verb.as_str().to_ascii_lowercase());
            (!template.is_empty()).then_some((index, template))
        });
        given
            .next()
            .ok_or_else(|| "the annotation has none of get, post, put, patch and delete".to_owned())
    }

    /// Finds the route of a request. `HEAD` goes where `GET` goes.
    pub fn find<'r, 'p>(&'r self, verb: &Verb, path: &'p str) -> Found<'r, 'p> {
        let verb = if verb == Verb::HEAD { &Verb::GET } else { verb };
        if let Some((_, tree)) = self.trees.iter().find(|(known, _)| known == verb)
            && let Ok(matched) = tree.at(path)
        {
            return Found::Route(matched.value, matched.params);
        }
        let mut others: Vec<&str> = self
            .trees
            .iter()
            .filter(|(_, tree)| tree.at(path).is_ok())
            .map(|(verb, _)| verb.as_str())
            .collect();
        if others.is_empty() {
            return Found::Nothing;
        }
        if others.contains(&"GET") {
            others.push("HEAD");
        }
        others.push("OPTIONS");
        HeaderValue::try_from(others.join(", ")).map_or(Found::Nothing, Found::OtherVerbs)
    }
}

/// Translates a path template for the router. Variables are numbered there, as two methods may name the same place
/// differently; their own names are returned in order.
fn pattern_of(template: &str) -> Result<(String, Vec<String>), String> {
    if !template.starts_with('/') {
        return Err(format!("the path {template} does not begin with a slash"));
    }
    let (mut pattern, mut names) = (String::new(), Vec::new());
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        let close = rest
            .find('}')
            .filter(|close| *close > open)
            .ok_or("a brace is not closed")?;
        pattern.push_str(&rest[..open]);
        let variable = &rest[open + 1..close];
        let (name, shape) = variable.split_once('=').unwrap_or((variable, "*"));
        let star = match shape {
            "*" => "",
            "**" => "*",
            _ => return Err(format!("the path pattern {shape} is not supported")),
        };
        // writing to a String cannot fail
        let _ = write!(pattern, "{{{star}v{}}}", names.len());
        names.push(name.to_owned());
        rest = &rest[close + 1..];
    }
    pattern.push_str(rest);
    if rest.contains(['*', ':']) {
        return Err(format!(
            "the path {template} has a wildcard or a verb, which are not supported"
        ));
    }
    Ok((pattern, names))
}

fn text(rule: &DynamicMessage, field: &str) -> String {
    match rule.get_field_by_name(field).as_deref() {
        Some(Value::String(text)) => text.clone(),
        _ => String::new(),
    }
}

fn list(rule: &DynamicMessage, field: &str) -> Vec<DynamicMessage> {
    match rule.get_field_by_name(field).as_deref() {
        Some(Value::List(members)) => members.iter().filter_map(Value::as_message).cloned().collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(verb: &Verb, path: &str) -> String {
        let routes = Routes::from_contracts().unwrap();
        match routes.find(verb, path) {
            Found::Route(route, params) => {
                let values: Vec<&str> = params.iter().map(|(_, value)| value).collect();
                let names: Vec<&str> = route.variables.iter().map(FieldDescriptor::name).collect();
                format!("{} {} {}", route.method.path, names.join(","), values.join(","))
            }
            Found::OtherVerbs(allow) => format!("allow {}", allow.to_str().unwrap()),
            Found::Nothing => "nothing".to_owned(),
        }
    }

    #[test]
    fn the_routes_of_the_seed_are_there() {
        for (verb, path, expected) in [
            (
                Verb::POST,
                "/api/users",
                "/kontor.account.v1.AccountService/CreateUser  ",
            ),
            (
                Verb::GET,
                "/api/users/7",
                "/kontor.account.v1.AccountService/GetUser id 7",
            ),
            (
                Verb::HEAD,
                "/api/users/7",
                "/kontor.account.v1.AccountService/GetUser id 7",
            ),
            (Verb::POST, "/api/login", "/kontor.auth.v1.AuthService/Login  "),
            (
                Verb::POST,
                "/api/transfer",
                "/kontor.transfer.v1.TransferService/CreateTransfer  ",
            ),
            (
                Verb::POST,
                "/api/messages/2",
                "/kontor.chat.v1.ChatService/SendDirectMessage receiver_id 2",
            ),
            (
                Verb::GET,
                "/api/messages/1/2",
                "/kontor.chat.v1.ChatService/ListDirectMessages user_id,other_id 1,2",
            ),
        ] {
            assert_eq!(found(&verb, path), expected);
        }
    }

    #[test]
    fn a_path_without_the_verb_names_its_verbs() {
        assert_eq!(found(&Verb::DELETE, "/api/users/7"), "allow GET, HEAD, OPTIONS");
        assert_eq!(found(&Verb::GET, "/api/login"), "allow POST, OPTIONS");
        assert_eq!(found(&Verb::OPTIONS, "/api/login"), "allow POST, OPTIONS");
        for path in [
            "/",
            "/api",
            "/api/users/",
            "/api/users/7/",
            "/api//users",
            "/API/users",
            "*",
        ] {
            assert_eq!(found(&Verb::GET, path), "nothing", "{path}");
        }
    }

    #[test]
    fn templates_are_translated_or_refused() {
        let (pattern, names) = pattern_of("/a/{x}/b/{y=**}").unwrap();
        assert_eq!(
            (pattern.as_str(), names.join(",").as_str()),
            ("/a/{v0}/b/{*v1}", "x,y")
        );
        for bad in ["a", "/a/{x", "/a/{x=shelves/*}", "/a/*", "/a/{x}:close"] {
            assert!(pattern_of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn statuses_and_bodies_are_those_of_the_contract() {
        let routes = Routes::from_contracts().unwrap();
        let Found::Route(create, _) = routes.find(&Verb::POST, "/api/users") else {
            panic!("a route")
        };
        assert_eq!(
            (create.success, &create.body),
            (StatusCode::CREATED, &BodyRule::Whole)
        );
        assert_eq!(create.idempotency.as_ref().unwrap().name(), "request_id");
        let Found::Route(read, _) = routes.find(&Verb::GET, "/api/users/1") else {
            panic!("a route")
        };
        assert_eq!(read.response_body.as_ref().unwrap().name(), "user");
        assert_eq!(
            (read.body == BodyRule::None, read.name.as_str()),
            (true, "GET /api/users/{id}")
        );
    }
}
