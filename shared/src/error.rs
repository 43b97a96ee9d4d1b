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
pub mod reason {
    use super::Reason;

    macro_rules! reasons {
        ($($(#[$doc:meta])* $name:ident = $code:literal, $detail:literal;)*) => {
            $($(#[$doc])* pub const $name: Reason = Reason { code: $code, detail: $detail };)*
        };
    }

    reasons! {
        /// The body is not JSON.
        MALFORMED_JSON = "malformed_json", "The body is not well-formed JSON in UTF-8.";
        /// The body is JSON of the wrong shape.
        INVALID_BODY = "invalid_body", "The body does not have the expected shape; `errors` lists every fault.";
        /// A query parameter is out of range.
        INVALID_PARAMETER = "invalid_parameter", "A query parameter cannot be used; `errors` says which and why.";
        /// The path names somebody who cannot be.
        INVALID_USER_ID = "invalid_user_id", "This is no user id; `errors` says why.";
        /// A header is missing or malformed.
        INVALID_HEADER = "invalid_header", "A header is missing or cannot be used; `errors` says which and why.";
        /// A cursor is not one of ours, or belongs to another list.
        INVALID_CURSOR = "invalid_cursor",
            "This cursor was not made for this list and these filters. Start again without `cursor`.";
        /// There are no claims in the request.
        UNAUTHENTICATED = "unauthenticated", "This route needs a valid access token in the `Authorization` header.";
        /// The token is no access token, or its subject cannot be used.
        INVALID_TOKEN = "invalid_token", "The token is not an access token with a usable `sub`. Send the access token.";
        /// The role is missing.
        FORBIDDEN = "forbidden", "The token's groups or scopes do not allow this.";
        /// The course belongs to somebody else.
        NOT_OWNER = "not_owner", "Only the course's owner or an admin may do this.";
        /// Events of another learner.
        FOREIGN_USER = "foreign_user", "`userId` may differ from the token's `sub` for the service role only.";
        /// Contents are for the enrolled.
        CONTENT_NOT_ENROLLED = "not_enrolled", "Enrol in the course to read its contents.";
        /// The course is not there for the caller.
        COURSE_NOT_FOUND = "course_not_found", "There is no such course, or it is not visible to you.";
        /// The lesson is not there for the caller.
        LESSON_NOT_FOUND = "lesson_not_found", "There is no such lesson, or it is not visible to you.";
        /// The section is not there for the caller.
        SECTION_NOT_FOUND = "section_not_found", "There is no such section, or it is not visible to you.";
        /// The submission is not there for the caller.
        SUBMISSION_NOT_FOUND = "submission_not_found",
            "There is no such submission of yours, or it was finished long ago.";
        /// There is no progress to show.
        NOT_ENROLLED = "not_enrolled", "You are not enrolled in this course.";
        /// The template routes something here that no function answers.
        ROUTE_NOT_FOUND = "route_not_found", "There is no such route.";
        /// Archived courses take nobody in.
        ARCHIVED = "archived", "The course is archived and takes no new enrollments.";
        /// Siblings have different places.
        ORDER_TAKEN = "order_taken",
            "A lesson of this course has that `order` already. Read the course, and choose places that are free.";
        /// Drafts take nobody in.
        NOT_PUBLISHED = "not_published", "The course is not published yet.";
        /// The request is too large.
        REQUEST_TOO_LARGE = "request_too_large", "A request body may have 4 MiB at most. Send it in parts.";
        /// The request has too many parts.
        TOO_MANY_VALUES = "too_many_values", "The body holds more values than this route can use. Send it in parts.";
        /// The answer would be too large.
        ANSWER_TOO_LARGE = "answer_too_large",
            "The answer would be larger than 4 MiB. Ask for less at a time, or send the course in parts.";
    }
}
