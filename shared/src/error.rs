//! The one error type of Lectern, and every reason a client can be given.
//!
//! Knows nothing of HTTP: [`crate::http`] turns an error into an answer, and nobody else does. Each variant says what
//! that answer will be.

use std::{error::Error as StdError, time::Duration};

/// Anything that can stop a request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// 400: the request is malformed. Nothing was written; every fault that was found is listed.
    #[error("{}: {}", reason.code, faults.first().map_or("", |fault| fault.detail.as_str()))]
    Invalid {
        /// What is wrong on the whole.
        reason: Reason,
        /// What is wrong where.
        faults: Vec<Fault>,
    },
    /// 401: there is no usable identity in the request.
    #[error("{}", .0.code)]
    Unauthenticated(Reason),
    /// 403: the caller sees it but may not do this.
    #[error("{}", .0.code)]
    Forbidden(Reason),
    /// 404: it does not exist, or not for this caller.
    #[error("{}", .0.code)]
    NotFound(Reason),
    /// 409: the request contradicts the state that the thing is in.
    #[error("{}", .0.code)]
    Conflict(Reason),
    /// 412: `If-Match` names a version that is no longer the current one.
    #[error("stale version: {current} is current")]
    Stale {
        /// The version that is.
        current: i64,
        /// What has changed since, latest first, as [`crate::edits`] keeps it.
        changes: Vec<serde_json::Value>,
    },
    /// 428: a write that must not overwrite others' changes came without `If-Match`.
    #[error("missing If-Match")]
    IfMatchRequired,
    /// 413: the request, or the answer it would have, is larger than a function can pass.
    #[error("{}", .0.code)]
    TooLarge(Reason),
    /// 415: the body is not `application/json`.
    #[error("unsupported media type")]
    UnsupportedMediaType,
    /// 422: the idempotency key has been used with another body.
    #[error("idempotency key reused")]
    KeyReused,
    /// 429 with `Retry-After`: the caller sends more than they may. Nothing of the request was looked at.
    #[error("rate limited")]
    RateLimited {
        /// After which there is room again.
        wait: Duration,
    },
    /// 503 with `Retry-After`: something that is needed is away or too slow; trying again may help.
    #[error("unavailable: {context}")]
    Unavailable {
        /// What was being done.
        context: &'static str,
        /// Why it failed, for the log.
        #[source]
        source: Option<Box<dyn StdError + Send + Sync>>,
    },
    /// 500: a fault of ours. The client learns only the request's id.
    #[error("internal: {context}")]
    Internal {
        /// What was being done.
        context: &'static str,
        /// Why it failed, for the log.
        #[source]
        source: Option<Box<dyn StdError + Send + Sync>>,
    },
}

impl Error {
    /// A malformed request with one fault at one place.
    pub fn invalid(reason: Reason, pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Invalid { reason, faults: vec![Fault { pointer: pointer.into(), detail: detail.into() }] }
    }

    /// A query parameter that cannot be used.
    pub fn invalid_parameter(name: &str, detail: impl Into<String>) -> Self {
        Self::invalid(reason::INVALID_PARAMETER, format!("?{name}"), detail)
    }

    /// A header that cannot be used.
    pub fn invalid_header(name: &str, detail: impl Into<String>) -> Self {
        Self::invalid(reason::INVALID_HEADER, name, detail)
    }

    /// A fault of ours, with its cause.
    pub fn internal(context: &'static str, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Internal { context, source: Some(source.into()) }
    }

    /// Something that is away, with the cause.
    pub fn unavailable(context: &'static str, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Unavailable { context, source: Some(source.into()) }
    }

    /// The stable name of what went wrong: for the client's code, the log and the metric alike.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid { reason, .. }
            | Self::Unauthenticated(reason)
            | Self::Forbidden(reason)
            | Self::NotFound(reason)
            | Self::Conflict(reason)
            | Self::TooLarge(reason) => reason.code,
            Self::Stale { .. } => "stale_version",
            Self::IfMatchRequired => "if_match_required",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::KeyReused => "idempotency_key_reused",
            Self::RateLimited { .. } => "rate_limited",
            Self::Unavailable { .. } => "unavailable",
            Self::Internal { .. } => "internal",
        }
    }
}

/// An error as the catalogue in docs/API.md has it.
#[derive(Debug)]
pub struct Documented {
    /// An example of it.
    pub error: Error,
    /// When it happens, in Markdown.
    pub when: &'static str,
}

impl Documented {
    /// All errors that a client can be given.
    pub fn all() -> Vec<Self> {
        let others = [
            (
                Error::Stale { current: 4, changes: vec![] },
                "`If-Match` is not the current version; `currentVersion` is, and `changes` tells what was changed.",
            ),
            (Error::UnsupportedMediaType, "The body is not `application/json`."),
            (Error::KeyReused, "The idempotency key was used with another body."),
            (Error::IfMatchRequired, "`PATCH`, or `PUT …/content`, came without `If-Match`."),
            (
                Error::RateLimited { wait: Duration::from_secs(9) },
                "The caller has sent too many writes; `Retry-After` says when there is room for one again. This one \
                 did nothing and used up no key.",
            ),
            (Error::Internal { context: "", source: None }, "A fault of Lectern's."),
            (
                Error::Unavailable { context: "", source: None },
                "What the request needs is away or too slow; `Retry-After` says when to come back.",
            ),
        ];
        let others = others.into_iter().map(|(error, when)| Self { error, when });
        reason::all().into_iter().chain(others).collect()
    }
}

/// One thing that is wrong in a request.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Fault {
    /// Where: a JSON pointer into the body, `?name` for a query parameter, or a header's name.
    pub pointer: String,
    /// What, in a sentence for the client.
    pub detail: String,
}

/// A stable code and the sentence that goes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reason {
    /// Stable `snake_case`: clients switch on it.
    pub code: &'static str,
    /// Written for the client's developer: what is wrong and what to do.
    pub detail: &'static str,
}

/// Every [`Reason`] there is.
///
/// What is said of each here stands in the catalogue of docs/API.md, too (`make errors`).
pub mod reason {
    use super::{Documented, Error, Reason};

    /// Makes a constant of each reason, and all of them known under the error that they are given with.
    macro_rules! reasons {
        ($($error:expr => { $(#[doc = $when:literal] $name:ident = $code:literal, $detail:literal;)* })*) => {
            $($(#[doc = $when] pub const $name: Reason = Reason { code: $code, detail: $detail };)*)*

            pub(super) fn all() -> Vec<Documented> {
                vec![$($(Documented { error: $error($name), when: $when },)*)*]
            }
        };
    }

    reasons! {
        (|reason| Error::Invalid { reason, faults: vec![] }) => {
            /// The body is not JSON in UTF-8, or goes more than 127 levels deep; `errors` tells line and column.
            MALFORMED_JSON = "malformed_json", "The body is not well-formed JSON in UTF-8. `errors` says where it breaks off.";
            /// The body is JSON of the wrong shape, or a value in it is of the wrong type or out of range.
            INVALID_BODY = "invalid_body", "The body does not have the expected shape; `errors` lists every fault.";
            /// A query parameter is malformed or out of range.
            INVALID_PARAMETER = "invalid_parameter", "A query parameter cannot be used; `errors` says which and why.";
            /// The cursor is not one of ours, or of another list, sort or filter.
            INVALID_CURSOR = "invalid_cursor",
                "This cursor was not made for this list and these filters. Start again without `cursor`.";
            /// The path names nobody who could be: a user's id has 1 to 255 characters and no controls.
            INVALID_USER_ID = "invalid_user_id", "This is no user id; `errors` says why. Encode it as one segment of the path.";
            /// `Idempotency-Key` or `If-Match` is missing or malformed.
            INVALID_HEADER = "invalid_header", "A header is missing or cannot be used; `errors` says which and why.";
        }
        Error::Unauthenticated => {
            /// No claims reached the function.
            UNAUTHENTICATED = "unauthenticated", "This route needs a valid access token in the `Authorization` header.";
            /// The token is no access token, or its `sub` cannot be used.
            INVALID_TOKEN = "invalid_token",
                "The token is not an access token with a usable `sub`. Send the access token.";
        }
        Error::Forbidden => {
            /// The caller lacks the role.
            FORBIDDEN = "forbidden",
                "The token's groups or scopes do not allow this. Ask for the role, and sign in again.";
            /// The course is somebody else's.
            NOT_OWNER = "not_owner", "Only the course's owner or an admin may do this. Ask one of them.";
            /// The events are another learner's, and the caller is no service.
            FOREIGN_USER = "foreign_user",
                "`userId` may differ from the token's `sub` for the service role only. Leave it out, or use such a token.";
            /// Contents are for the enrolled.
            CONTENT_NOT_ENROLLED = "not_enrolled", "Enrol in the course to read its contents.";
        }
        Error::NotFound => {
            /// The course is not there, or not for this caller.
            COURSE_NOT_FOUND = "course_not_found", "There is no such course, or it is not visible to you. Look for it in `GET /courses`.";
            /// The lesson is not there, or not for this caller.
            LESSON_NOT_FOUND = "lesson_not_found", "There is no such lesson, or it is not visible to you. Read its course again for the lessons of today.";
            /// The section is not there, or not for this caller.
            SECTION_NOT_FOUND = "section_not_found", "There is no such section, or it is not visible to you. Read its course again for the sections of today.";
            /// There is no progress of the caller's in this course.
            NOT_ENROLLED = "not_enrolled", "You are not enrolled in this course. Enrol by `PUT /courses/{courseId}/enrollment`.";
            /// There is no such submission of the caller's, or not any more.
            SUBMISSION_NOT_FOUND = "submission_not_found",
                "There is no such submission of yours, or it was finished long ago. The course's progress shows what counted.";
            /// The gateway sent a route here that the function does not know.
            ROUTE_NOT_FOUND = "route_not_found", "There is no such route. Read openapi.yaml for those that there are.";
        }
        Error::Conflict => {
            /// An archived course takes nobody in.
            ARCHIVED = "archived", "The course is archived and takes no new enrollments. Choose another, or ask its owner to publish it again.";
            /// A draft takes nobody in.
            NOT_PUBLISHED = "not_published", "The course is not published yet. Enrol when its owner has published it.";
            /// A lesson of the course stands in that place.
            ORDER_TAKEN = "order_taken",
                "A lesson of this course has that `order` already. Read the course, and choose places that are free.";
        }
        Error::TooLarge => {
            /// The body has more than 4 MiB.
            REQUEST_TOO_LARGE = "request_too_large", "A request body may have 4 MiB at most. Send it in parts.";
            /// The body holds more JSON values than the route can use; see [limits](#limits).
            TOO_MANY_VALUES = "too_many_values",
                "The body holds more values than this route can use. Send it in parts.";
            /// The answer would have more than 4 MiB, or a later one about the course that is to be made.
            ANSWER_TOO_LARGE = "answer_too_large",
                "The answer would be larger than 4 MiB. Ask for less at a time, or send the course in parts.";
        }
    }
}
