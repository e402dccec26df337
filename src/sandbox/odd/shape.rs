//! The odd shapes: how long their tokens live, and what the answer looks like. Pure.

use super::Token;
use axum::Json;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    SameUntilLate,
    Milliseconds,
    NoExpiry,
    Nested,
    Raw,
    Created,
    Code,
    Nulls,
    Rotating,
    ThreeMinutes,
    TwoYears,
    Float,
    Text,
    Pair,
    EpochMilliseconds,
    Companion,
    HeaderKey,
}

impl Shape {
    const ALL: [Self; 17] = [
        Self::SameUntilLate,
        Self::Milliseconds,
        Self::NoExpiry,
        Self::Nested,
        Self::Raw,
        Self::Created,
        Self::Code,
        Self::Nulls,
        Self::Rotating,
        Self::ThreeMinutes,
        Self::TwoYears,
        Self::Float,
        Self::Text,
        Self::Pair,
        Self::EpochMilliseconds,
        Self::Companion,
        Self::HeaderKey,
    ];

    /// The shape with this name in the path.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|shape| shape.name() == name)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::SameUntilLate => "same-until-late",
            Self::Milliseconds => "milliseconds",
            Self::NoExpiry => "no-expiry",
            Self::Nested => "nested",
            Self::Raw => "raw",
            Self::Created => "created",
            Self::Code => "code",
            Self::Nulls => "nulls",
            Self::Rotating => "rotating",
            Self::ThreeMinutes => "three-minutes",
            Self::TwoYears => "two-years",
            Self::Float => "float",
            Self::Text => "text",
            Self::Pair => "pair",
            Self::EpochMilliseconds => "epoch-milliseconds",
            Self::Companion => "companion",
            Self::HeaderKey => "header-key",
        }
    }

    pub(super) fn method(self) -> Method {
        if self == Self::HeaderKey { Method::GET } else { Method::POST }
    }

    /// How many seconds its tokens live.
    pub(super) fn life(self) -> u64 {
        if self == Self::SameUntilLate {
            7_200
        } else if self == Self::ThreeMinutes {
            180
        } else if self == Self::TwoYears {
            2 * 365 * 86_400
        } else {
            3_600
        }
    }

    /// The same token comes again while it has more seconds than these left.
    pub(super) fn same_while_left(self) -> Option<u64> {
        (self == Self::SameUntilLate).then_some(1_200)
    }

    pub(super) fn is_jwt(self) -> bool {
        matches!(self, Self::Raw | Self::Pair)
    }

    /// What an exchange that went well is answered with, at this time in Unix seconds.
    pub(super) fn answer(self, token: &Token, now: u64) -> Response {
        if self == Self::Raw {
            return token.text.clone().into_response();
        }
        let status = if self == Self::Created { StatusCode::CREATED } else { StatusCode::OK };
        (status, Json(self.body(token, now))).into_response()
    }

    fn body(self, token: &Token, now: u64) -> Value {
        let Token { text, api_key, refresh, exp, .. } = token;
        let left = exp.saturating_sub(now);
        let members =
            |expires_in: Value| json!({ "access_token": text, "token_type": "Bearer", "expires_in": expires_in });
        match self {
            Self::Milliseconds => members(json!(left.saturating_mul(1_000))),
            Self::Float => members(f64::from(u32::try_from(left).unwrap_or(u32::MAX)).into()),
            Self::Text => members(json!(left.to_string())),
            Self::NoExpiry => json!({ "access_token": text, "token_type": "Bearer" }),
            Self::Nested => json!({ "success": true, "result": { "access_token": text, "expire_time": left } }),
            Self::Created => json!({ "token": text, "expires_at": rfc3339(*exp) }),
            Self::Code => json!({ "code": 0, "msg": "ok", "tenant_access_token": text, "expire": left }),
            Self::Nulls => with(members(left.into()), &[("refresh_token", Value::Null), ("id_token", Value::Null)]),
            Self::Rotating => with(members(left.into()), &[("refresh_token", json!(refresh))]),
            Self::Pair => json!({ "apiKey": api_key, "token": text }),
            Self::EpochMilliseconds => json!({ "access_token": text, "expires_at": exp.saturating_mul(1_000) }),
            Self::Companion => {
                json!({ "access_token": text, "token_type": "Bearer", "instance_url": "https://eu1.instance.example" })
            }
            Self::SameUntilLate | Self::ThreeMinutes | Self::TwoYears | Self::HeaderKey | Self::Raw => {
                members(left.into())
            }
        }
    }

    /// What bad credentials are answered with.
    pub(super) fn refused(self) -> Response {
        if self == Self::Code {
            return Json(json!({ "code": 10_014, "msg": "app secret invalid" })).into_response();
        }
        if self == Self::Nested {
            return Json(json!({ "success": false, "code": 1004, "msg": "sign invalid" })).into_response();
        }
        (StatusCode::UNAUTHORIZED, Json(json!({ "message": "Unauthorized" }))).into_response()
    }
}

fn with(mut object: Value, members: &[(&str, Value)]) -> Value {
    if let Some(fields) = object.as_object_mut() {
        fields.extend(members.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    }
    object
}

fn rfc3339(seconds: u64) -> String {
    let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    humantime::format_rfc3339_seconds(at.unwrap_or(SystemTime::UNIX_EPOCH)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn body(shape: Shape, now: u64) -> Value {
        let (text, api_key) = ("t".to_owned(), "k".to_owned());
        shape.body(&Token { shape, text, api_key, refresh: Some("r".to_owned()), exp: 10_000 }, now)
    }

    #[test]
    fn every_shape_has_a_name_of_its_own() {
        let names: BTreeSet<_> = Shape::ALL.iter().map(|shape| shape.name()).collect();
        assert_eq!(names.len(), Shape::ALL.len());
        assert_eq!(Shape::named("nothing"), None);
    }

    #[test]
    fn the_end_of_a_token_is_said_as_the_shape_says_it() {
        for (shape, pointer, expected) in [
            (Shape::Milliseconds, "/expires_in", json!(3_600_000)),
            (Shape::Float, "/expires_in", json!(3_600.0)),
            (Shape::Text, "/expires_in", json!("3600")),
            (Shape::Nested, "/result/expire_time", json!(3_600)),
            (Shape::Created, "/expires_at", json!("1970-01-01T02:46:40Z")),
            (Shape::EpochMilliseconds, "/expires_at", json!(10_000_000)),
            (Shape::Code, "/expire", json!(3_600)),
            (Shape::Nulls, "/expires_in", json!(3_600)),
        ] {
            assert_eq!(body(shape, 6_400).pointer(pointer), Some(&expected), "{shape:?}");
        }
    }

    #[test]
    fn a_float_has_a_point_on_the_wire() {
        assert!(body(Shape::Float, 6_400).to_string().contains("3600.0"));
    }
}
