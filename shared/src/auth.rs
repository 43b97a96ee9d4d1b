//! Who is calling. The gateway's JWT authorizer has verified the token; the claims that it passes on are trusted, and
//! nothing else in a request is.

use std::collections::HashMap;

use lambda_http::{RequestExt, request::RequestContext};

use crate::{
    app::App,
    error::{Error, reason},
    http::Request,
};

/// The scope and the group that make a caller a trusted back end.
const SERVICE_SCOPE: &str = "lectern/service";

/// The caller of a route that needs a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The token's `sub`.
    pub user: String,
    /// May create courses.
    pub instructor: bool,
    /// May manage every course.
    pub admin: bool,
    /// Acts for learners.
    pub service: bool,
}

impl Caller {
    /// Reads the caller from the claims that the authorizer verified.
    pub fn of(app: &App, request: &Request) -> Result<Self, Error> {
        let Some(RequestContext::ApiGatewayV2(context)) = request.request_context_ref() else {
            return Err(Error::Unauthenticated(reason::UNAUTHENTICATED));
        };
        let claims = context.authorizer.as_ref().and_then(|authorizer| authorizer.jwt.as_ref()).map(|jwt| &jwt.claims);
        Self::from_claims(claims.ok_or(Error::Unauthenticated(reason::UNAUTHENTICATED))?, &app.config.groups_claim)
    }

    fn from_claims(claims: &HashMap<String, String>, groups_claim: &str) -> Result<Self, Error> {
        let user = claims.get("sub").filter(|sub| is_user(sub));
        let is_access_token = claims.get("token_use").is_none_or(|usage| usage == "access");
        let (Some(user), true) = (user, is_access_token) else {
            return Err(Error::Unauthenticated(reason::INVALID_TOKEN));
        };
        let groups = claims.get(groups_claim).map(|claim| groups(claim)).unwrap_or_default();
        let in_group = |name| groups.contains(&name);
        let has_scope = claims.get("scope").is_some_and(|scope| scope.split(' ').any(|scope| scope == SERVICE_SCOPE));
        Ok(Self {
            user: user.clone(),
            instructor: in_group("instructor"),
            admin: in_group("admin"),
            service: has_scope || in_group("service"),
        })
    }

    /// Refuses everybody but instructors.
    pub fn require_instructor(&self) -> Result<(), Error> {
        if self.instructor { Ok(()) } else { Err(Error::Forbidden(reason::FORBIDDEN)) }
    }

    /// Refuses everybody but admins.
    pub fn require_admin(&self) -> Result<(), Error> {
        if self.admin { Ok(()) } else { Err(Error::Forbidden(reason::FORBIDDEN)) }
    }

    /// Refuses everybody but services and admins.
    pub fn require_service_or_admin(&self) -> Result<(), Error> {
        if self.service || self.admin { Ok(()) } else { Err(Error::Forbidden(reason::FORBIDDEN)) }
    }
}

/// Whether a text can be a `sub`.
pub fn is_user(sub: &str) -> bool {
    (1..=255).contains(&sub.chars().count()) && !sub.chars().any(char::is_control)
}

/// The names in a claim that the gateway rendered: `[a b]` for an array, the text itself for a string.
///
/// A rendering that could mean more than one list of names means none.
fn groups(claim: &str) -> Vec<&str> {
    let names = match claim.strip_prefix('[').map(|rest| rest.strip_suffix(']')) {
        Some(Some(list)) => list,
        Some(None) => return Vec::new(),
        None if claim.contains(char::is_whitespace) => return Vec::new(),
        None => claim,
    };
    if names.contains(['[', ']']) {
        return Vec::new();
    }
    names.split(' ').filter(|name| !name.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(claims: &[(&str, &str)]) -> Result<Caller, Error> {
        let claims = claims.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Caller::from_claims(&claims, "cognito:groups")
    }

    #[test]
    fn roles_come_from_groups_and_scopes() {
        let teacher = caller(&[("sub", "t"), ("cognito:groups", "[instructor staff]")]).unwrap();
        assert!(teacher.instructor && !teacher.admin && !teacher.service);
        assert!(caller(&[("sub", "s"), ("scope", "openid lectern/service")]).unwrap().service);
        assert!(caller(&[("sub", "s"), ("cognito:groups", "[service]")]).unwrap().service);
        assert!(caller(&[("sub", "a"), ("cognito:groups", "admin")]).unwrap().admin);
        let learner = caller(&[("sub", "l"), ("scope", "lectern/service2 xlectern/service")]).unwrap();
        assert!(!learner.instructor && !learner.admin && !learner.service);
    }

    #[test]
    fn a_group_whose_name_plays_with_the_rendering_gives_no_role() {
        for claim in ["[x] [admin]", "[[admin]]", "x admin", "[admin", "admin]", "[]", "", "[administrator]"] {
            assert!(!caller(&[("sub", "x"), ("cognito:groups", claim)]).unwrap().admin, "{claim}");
        }
    }

    #[test]
    fn only_access_tokens_with_a_usable_subject_count() {
        assert!(caller(&[("sub", "x"), ("token_use", "access")]).is_ok());
        assert!(caller(&[("sub", "🦀".repeat(255).as_str())]).is_ok());
        for claims in [
            &[("sub", "x"), ("token_use", "id")][..],
            &[("sub", "")],
            &[("sub", "a\u{7}b")],
            &[("sub", "x".repeat(256).as_str())],
            &[("iss", "x")],
        ] {
            assert!(caller(claims).is_err(), "{claims:?}");
        }
    }
}
