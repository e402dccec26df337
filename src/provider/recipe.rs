//! A recipe: how the tokens of one kind of upstream are got, as data.
//!
//! A recipe says what a Workspace must give (secrets, parameters), which requests are made of it, how the answers are
//! read and how the token is presented. It is made once, checked whole when it is made, and shared by all Workspaces
//! of its kind; [`super::exchange`] carries it out. A preset is a recipe that ships with the broker; `kind = "http"`
//! takes one from the configuration. Pure: this module knows no HTTP client and no file format.

mod check;
pub mod template;

pub(crate) use check::{ASSERTION, ENDPOINT, REFRESH_TOKEN, TOKEN};
pub use check::{Problem, Stage};

use crate::failure::Failure;
use std::fmt;
use std::time::Duration;
use template::Template;

/// One way to get a token: a login, and what may follow it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// The secrets that a credential is made of. Never part of a URL.
    pub secrets: Vec<Field>,
    /// What else a Workspace may give: names and choices that are no secret.
    pub parameters: Vec<Field>,
    /// The exchange of the credential for a token.
    pub login: Step,
    /// The exchange of an earlier answer's refresh token, where the upstream gives one. Its templates may use
    /// `refresh_token`. When it is refused, the login follows in the same attempt.
    pub refresh: Option<Refresh>,
    /// A second request that makes of the token another one (emnify's Workspace switch). Its templates may use `token`.
    /// The token, its life and what travels with it are then those of this answer alone; a refresh token is that of
    /// the login.
    pub switch: Option<Step>,
    /// How the token travels in requests to the API.
    pub presentation: Presented,
    /// What the token or its answer must say of the tenant.
    pub tenant: Option<Tenant>,
    /// A credential that is spent by its use can't be kept without a store: such a recipe is refused at load.
    pub needs_store: bool,
}

/// Something that a Workspace gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// `a-z`, `0-9`, `_`; what templates call it.
    pub name: String,
    /// Whether it may be left out.
    pub presence: Presence,
}

/// Whether a field may be left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence {
    /// It must be given.
    Required,
    /// Templates that use it as `{name?}` are left out without it.
    Optional,
    /// This stands in for it; it may use `endpoint` and nothing else. Parameters only: no secret has a default.
    Default(Template),
}

/// One request, and how its answer is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What is sent.
    pub request: Request,
    /// What is made of what comes back.
    pub answer: Answer,
}

/// The exchange of a refresh token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refresh {
    /// The request; a new refresh token in its answer takes the place of the old one, before the token is handed out.
    pub step: Step,
    /// Whether a refresh token is forgotten as soon as it is sent, whatever comes back (RFC 6749 §10.4).
    pub single_use: bool,
}

/// What is sent. Besides fields, each template may use `endpoint`: the URL of this very request, without its query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// Behind the upstream's base URL, from its first `/` on; empty for the base URL itself, without a `/` at its end.
    /// Parameters only; each is percent-encoded as one segment, but for those with the filter `path`.
    pub path: Template,
    /// The query. Parameters only.
    pub query: Vec<(String, Template)>,
    /// Further headers, in lower case.
    pub headers: Vec<(String, Template)>,
    /// `Authorization: Basic`.
    pub basic: Option<Basic>,
    /// The body.
    pub body: Body,
    /// A JWT that is signed for this request; templates call it `assertion`.
    pub assertion: Option<Assertion>,
    /// Whether the extra parameters of the Workspace are added to the body (RFC 6749 §8.2). None may have a name that
    /// the body has already.
    pub extra: bool,
}

/// The method of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// `GET`, without a body.
    Get,
    /// `POST`.
    Post,
}

/// HTTP Basic authentication (RFC 7617).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Basic {
    /// Before the colon.
    pub user: Template,
    /// Behind it.
    pub password: Template,
    /// Whether both are form-encoded first, as RFC 6749 §2.3.1 says.
    pub form_encoded: bool,
}

/// The body of a request. Members whose template is left out are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// None at all.
    Empty,
    /// `application/json`.
    Json(Vec<(String, Json)>),
    /// `application/x-www-form-urlencoded`, in this order.
    Form(Vec<(String, Template)>),
}

/// A JSON value with templates for its texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Json {
    /// A text, or a number where the template says so (`{name|number}`).
    Text(Template),
    /// A constant.
    Number(i64),
    /// A constant.
    Boolean(bool),
    /// An object.
    Object(Vec<(String, Self)>),
    /// An array.
    Array(Vec<Self>),
}

/// An algorithm that assertions are signed with (RFC 7518 §3.1, RFC 8037 §3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

/// What is said of any other name.
pub(crate) const NO_ALGORITHM: &str = "is no algorithm that the broker signs with; expected one of RS256, RS384, \
                                       RS512, PS256, PS384, PS512, ES256, ES384 and EdDSA";

impl Algorithm {
    const ALL: [Self; 9] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::EdDsa,
    ];

    /// The algorithm of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == name)
    }

    /// What it is called in the header of a JWT.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }
}

/// A JWT that the broker signs to prove that it has a key (RFC 7523; GitHub Apps).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assertion {
    /// The secret that is the private key, in PEM form.
    pub key: String,
    /// The algorithm (RFC 7518 §3.1): a constant or a parameter. RS256, RS384, RS512, PS256, PS384, PS512, ES256,
    /// ES384 or `EdDSA`.
    pub algorithm: Template,
    /// Further members of the header, such as `kid`.
    pub header: Vec<(String, Template)>,
    /// The claims but for those below.
    pub claims: Vec<(String, Json)>,
    /// `exp` is so much after the time of signing.
    pub lifetime: Duration,
    /// `iat` is so much before it, for upstreams whose clock is behind.
    pub backdate: Duration,
    /// Whether there is an `iat`.
    pub issued_at: bool,
    /// Whether there is a random `jti`.
    pub id: bool,
}

/// How an answer is read. The status decides first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The statuses of a success.
    pub success: Vec<u16>,
    /// What else must hold of a success; an answer of which it does not is a failure like any other.
    pub when: Vec<Condition>,
    /// What failures mean: the first that fits. Where none fits, the status decides by itself: 400, 401, 403, 422
    /// rejected; 429 throttled; 404, 408, 5xx unavailable; a success status without the success malformed; the rest
    /// malformed.
    pub failures: Vec<Rule>,
    /// Where the token is.
    pub token: Source,
    /// Where the answer names the scheme of the token (`token_type`). Another than that of the presentation, compared
    /// without case, is malformed; none, or null, is taken for it.
    pub scheme: Option<Path>,
    /// Where a refresh token is, if one is given.
    pub refresh_token: Option<Path>,
    /// What says how long the token lives: the earliest of those that are present.
    pub expiry: Vec<Expiry>,
    /// Further secret headers that travel with the token, by their lower-case names.
    pub extra_headers: Vec<(String, Path)>,
    /// What travels with the token and is no secret, such as `instance_url`.
    pub attributes: Vec<(String, Path)>,
}

/// Where a value is in an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The whole body is the value, white space around it cut off.
    Body,
    /// A member of the JSON body.
    Path(Path),
}

/// The way to a member of a JSON body: names, one per level; a name of digits also is a position in an array.
/// Never empty. Written `result.access_token`, or as an array where a name holds a dot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path(pub Vec<String>);

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("."))
    }
}

/// Something that must hold of a JSON body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Of which member.
    pub path: Path,
    /// What of it.
    pub holds: Holds,
}

/// What holds of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holds {
    /// It is there, and not null.
    Present,
    /// It is one of these texts, numbers or booleans. `1` and `"1"` are not the same.
    OneOf(Vec<Constant>),
}

/// A constant to compare with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Constant {
    /// A text.
    Text(String),
    /// A number.
    Number(i64),
    /// A boolean.
    Boolean(bool),
}

/// What a failure means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Of these statuses; empty for any.
    pub statuses: Vec<u16>,
    /// All of these must hold.
    pub when: Vec<Condition>,
    /// Its class. `Retry-After` is read for a throttled one.
    pub class: Class,
    /// What the operator is told, in the recipe's own words; the words of the class if there are none.
    pub says: Option<String>,
}

/// The classes that a rule may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The credential is refused.
    Rejected,
    /// The account is locked for a while.
    LockedOut,
    /// Too many requests.
    Throttled,
    /// The upstream can't answer now.
    Unavailable,
    /// Nothing that can be acted upon.
    Malformed,
}

impl Class {
    /// The failure of an answer that asked to wait so long.
    pub fn failure(self, retry_after: Option<Duration>) -> Failure {
        match self {
            Self::Rejected => Failure::Rejected,
            Self::LockedOut => Failure::LockedOut,
            Self::Throttled => Failure::Throttled { retry_after },
            Self::Unavailable => Failure::Unavailable,
            Self::Malformed => Failure::Malformed,
        }
    }
}

/// Something that says how long a token lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expiry {
    /// `exp`, `iat` of the token, where it is a JWT. One that is none has no life by this.
    Jwt {
        /// Whether a token that is no JWT, or one without `exp`, is refused.
        required: bool,
    },
    /// A time span in the answer, as a number or as a text of digits.
    Relative(Path, Unit),
    /// A point in time in the answer. It is compared with the answer's `Date`.
    Absolute(Path, Format),
    /// What the request asked for: a parameter that is a whole number.
    Asked(String, Unit),
    /// A constant. The upstream's `token_lifetime` in the configuration is one more of these.
    Fixed(Duration),
}

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Milliseconds,
}

impl Unit {
    /// What descriptions call it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Seconds => "s",
            Self::Milliseconds => "ms",
        }
    }
}

/// How a point in time is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A number since 1970 in this unit.
    Unix(Unit),
    /// RFC 3339, with an offset.
    Rfc3339,
}

impl Format {
    /// What descriptions call it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unix(Unit::Seconds) => "unix-s",
            Self::Unix(Unit::Milliseconds) => "unix-ms",
            Self::Rfc3339 => "rfc3339",
        }
    }
}

/// How the token travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presented {
    /// The header, in lower case.
    pub header: String,
    /// The scheme before the token, such as `Bearer`; empty for the bare token.
    pub scheme: String,
}

/// What must be said of the tenant. Checked where the parameter is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Where it is said.
    pub said: TenantSource,
    /// The parameter that it must equal, compared as text.
    pub parameter: String,
}

/// Where the tenant is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TenantSource {
    /// In a claim of the token; dots are part of its name.
    Claim(String),
    /// In the answer that brought the token.
    Answer(Path),
}
