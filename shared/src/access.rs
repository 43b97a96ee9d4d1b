//! What a caller may see of a course. The rule itself is `course_access_v1` in `migrations/`, because every statement
//! needs it; this is its vocabulary.

use tokio_postgres::Row;

use crate::{
    db,
    error::{Error, Reason, reason},
};

/// The column `access` of a statement over `courses` and the caller's `enrollments`, where $2 is the caller and $3 says
/// whether they are an admin.
macro_rules! access_column {
    () => {
        "course_access_v1(courses.status, $3 or courses.owner_id = $2, enrollments.status) as access"
    };
}

pub(crate) use access_column;

/// The answer of `course_access_v1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Owner or admin: everything.
    Manage,
    /// Actively enrolled: outline, contents, own progress.
    Learn,
    /// Anybody, of a published course: the outline.
    Browse,
    /// Who cancelled, of a published course: the outline and their own progress.
    BrowseFormer,
    /// Who cancelled, of an archived course: their own progress.
    Former,
    /// The course does not exist for them.
    None,
}

impl Access {
    /// Reads the column `access`.
    pub fn of(row: &Row) -> Result<Self, Error> {
        match db::column(row, "access")? {
            "manage" => Ok(Self::Manage),
            "learn" => Ok(Self::Learn),
            "browse" => Ok(Self::Browse),
            "browse_former" => Ok(Self::BrowseFormer),
            "former" => Ok(Self::Former),
            "none" => Ok(Self::None),
            _ => Err(Error::Internal { context: "reading access", source: None }),
        }
    }

    /// Whether the course's outline may be seen; if not, the course does not exist for the caller.
    pub fn sees_outline(self) -> bool {
        !matches!(self, Self::Former | Self::None)
    }

    /// Whether the caller may change the course and see its figures.
    ///
    /// What they cannot even see is missing; what they see and may not do is forbidden.
    pub fn require_manage(self) -> Result<(), Error> {
        match self {
            Self::Manage => Ok(()),
            other if other.sees_outline() => Err(Error::Forbidden(reason::NOT_OWNER)),
            _ => Err(Error::NotFound(reason::COURSE_NOT_FOUND)),
        }
    }

    /// Whether a section's content may be read.
    pub fn require_content(self) -> Result<(), Error> {
        match self {
            Self::Manage | Self::Learn => Ok(()),
            Self::Browse | Self::BrowseFormer => Err(Error::Forbidden(reason::CONTENT_NOT_ENROLLED)),
            Self::Former | Self::None => Err(Error::NotFound(reason::SECTION_NOT_FOUND)),
        }
    }

    /// Whether the caller's own progress may be read; `missing` is said where the thing does not exist for them.
    pub fn require_own_progress(self, enrolled: bool, missing: Reason) -> Result<(), Error> {
        match self {
            Self::None => Err(Error::NotFound(missing)),
            _ if !enrolled => Err(Error::NotFound(reason::NOT_ENROLLED)),
            _ => Ok(()),
        }
    }
}
