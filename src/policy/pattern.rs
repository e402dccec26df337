//! Patterns of callers and of Workspaces. Each is anchored at both ends, and fits at least one name.
//!
//! `*` stands for one or more characters within a segment, `**` as a whole segment for one or more segments. Segments
//! end at `/`, in DNS names at `.`, in the subjects of bearers at `/` and `:`. The kind of a caller, a trust domain and
//! the name of an issuer stand for themselves.

use super::glob::Glob;
use crate::identity::{self, Caller};
use crate::token::{self, WorkspaceName};
use std::fmt;

/// Every name, of whatever kind it is.
const EVERY: &str = "**";
/// Every user of this machine: a number has no parts worth naming.
const EVERY_USER: &str = "unix:*";

/// Which callers a grant is for.
#[derive(Clone, PartialEq, Eq)]
pub struct CallerPattern(Glob);

/// Which Workspaces a grant is for; they need not exist.
#[derive(Clone, PartialEq, Eq)]
pub struct WorkspacePattern(Glob);

/// Why a text is no pattern. Holds nothing of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPattern {
    /// `**` with something beside it.
    #[error("'**' must be a whole segment; within one use '*'")]
    PartOfSegment,
    /// A wildcard where there may be none.
    #[error("must name its kind, its trust domain and its issuer without '*'; only ** alone stands for every caller")]
    Head,
    /// A part of a user's number.
    #[error("must name one user by number, or every user with unix:*")]
    Uid,
    /// No caller has such a name.
    #[error("fits no caller: a caller's name {0}")]
    Caller(identity::Invalid),
    /// No Workspace has such a name.
    #[error("fits no Workspace: its name {0}")]
    Workspace(token::InvalidName),
}

impl CallerPattern {
    /// Reads a pattern.
    pub fn parse(text: &str) -> Result<Self, InvalidPattern> {
        if text == EVERY || text == EVERY_USER {
            return compile(text, b"").map(Self);
        }
        if text.starts_with(identity::UNIX) && text.contains('*') {
            return Err(InvalidPattern::Uid);
        }
        // What must stand for itself, and what segments end at. A host's name holds no colon but that of its kind.
        let (head, separators): (&str, &[u8]) = if let Some(rest) = text.strip_prefix(identity::SPIFFE) {
            (rest.split('/').next().unwrap_or(rest), b"/")
        } else if text.starts_with(identity::DNS) {
            ("", b".:")
        } else if let Some(rest) = text.strip_prefix(identity::JWT) {
            (rest.split(':').next().unwrap_or(rest), b"/:")
        } else {
            (text, b"")
        };
        if head.contains('*') {
            return Err(InvalidPattern::Head);
        }
        let glob = compile(text, separators)?;
        Caller::parse(&example(text)).map_err(InvalidPattern::Caller)?;
        Ok(Self(glob))
    }

    /// Whether it fits this caller.
    pub fn fits(&self, caller: &Caller) -> bool {
        self.0.fits(caller.as_str())
    }

    /// Whether it fits every caller that the other fits; it may fail to see that it does.
    pub fn covers(&self, other: &Self) -> bool {
        self.0.covers(&other.0)
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Whether it fits whomever somebody else vouches for, and says nothing of who that is.
    pub fn is_anybody(&self) -> bool {
        self.width() != Width::Some
    }

    /// Whether it fits whomever a means of authentication, a trust domain or an issuer vouches for.
    pub(super) fn width(&self) -> Width {
        let text = self.as_str();
        if text == EVERY {
            return Width::Everybody;
        }
        let domain = text.strip_prefix(identity::SPIFFE).and_then(|rest| rest.split_once('/'));
        let issuer = text.strip_prefix(identity::JWT).and_then(|rest| rest.split_once(':'));
        match (domain, issuer, text) {
            (Some((_, EVERY)), _, _) => Width::TrustDomain,
            (_, Some((_, EVERY)), _) => Width::Issuer,
            (_, _, "dns:**") => Width::Hosts,
            (_, _, EVERY_USER) => Width::Users,
            _ => Width::Some,
        }
    }

    pub(super) fn glob(&self) -> &Glob {
        &self.0
    }
}

/// How many callers a pattern fits, as far as its text alone tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// Those of a kind, a trust domain or an issuer that it says more of.
    Some,
    /// Every caller there is.
    Everybody,
    /// Every workload of a trust domain.
    TrustDomain,
    /// Every subject of an issuer.
    Issuer,
    /// Every host.
    Hosts,
    /// Every user of this machine.
    Users,
}

impl WorkspacePattern {
    /// Reads a pattern.
    pub fn parse(text: &str) -> Result<Self, InvalidPattern> {
        let glob = compile(text, b"/")?;
        WorkspaceName::parse(&example(text)).map_err(InvalidPattern::Workspace)?;
        Ok(Self(glob))
    }

    /// Whether it fits this Workspace.
    pub fn fits(&self, workspace: &WorkspaceName) -> bool {
        self.0.fits(workspace.as_str())
    }

    /// Whether it fits every Workspace that the other fits; it may fail to see that it does.
    pub fn covers(&self, other: &Self) -> bool {
        self.0.covers(&other.0)
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Whether it fits every Workspace.
    pub(super) fn is_every(&self) -> bool {
        self.as_str() == EVERY
    }

    pub(super) fn glob(&self) -> &Glob {
        &self.0
    }
}

impl fmt::Debug for CallerPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Debug for WorkspacePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

fn compile(text: &str, separators: &'static [u8]) -> Result<Glob, InvalidPattern> {
    Glob::parse(text, separators).ok_or(InvalidPattern::PartOfSegment)
}

/// The shortest text that a pattern fits.
fn example(text: &str) -> String {
    text.replace("**", "a").replace('*', "a")
}

#[cfg(test)]
mod tests;
