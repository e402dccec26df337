//! Reads a JWT's header and claims (RFC 7519) without verifying it. Pure.
//!
//! The broker is not the audience of these tokens and mostly could not verify them: emnify signs with a symmetric key.
//! It reads what the upstream says of a token that came straight from it over TLS. Nothing here may be used to decide
//! who a caller is. Never panics, whatever comes in; errors quote nothing of it.

mod unique;

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value};
use std::fmt;

/// The longest token that is looked at, in bytes.
pub const MAX_LENGTH: usize = 64 * 1024;

/// base64url. RFC 7515 §2 forbids padding; some issuers pad all the same.
const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a token's claims set says.
#[derive(Clone, PartialEq)]
pub struct Claims {
    /// When it expires (RFC 7519 §4.1.4), in Unix seconds, fractions cut off.
    pub exp: Option<i64>,
    /// When it was issued (RFC 7519 §4.1.6), in Unix seconds, fractions rounded up.
    pub iat: Option<i64>,
    all: Map<String, Value>,
}

/// Why a text can't be read as a JWT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// More than [`MAX_LENGTH`].
    #[error("the token is too long")]
    TooLong,
    /// Not three parts with dots between.
    #[error("the token does not have the three parts of a JWT")]
    Parts,
    /// A part is not base64url.
    #[error("a part of the token is not base64url")]
    Base64,
    /// A part does not hold a JSON object.
    #[error("a part of the token is not a JSON object")]
    Json,
    /// `exp` or `iat` is there and is not a number.
    #[error("a date of the token is not a number")]
    Date,
    /// An object has two members of one name, and which of them another reader would take is not ours to guess.
    #[error("a part of the token has two members of one name")]
    Duplicate,
}

/// Reads the claims of a token.
pub fn claims(token: &str) -> Result<Claims, Error> {
    let all = decode(token)?.claims;
    Ok(Claims { exp: numeric_date(all.get("exp"), f64::floor)?, iat: numeric_date(all.get("iat"), f64::ceil)?, all })
}

/// Whether this is a JWT whose header says that nobody signed it (`alg: none`, RFC 7518 §3.6).
pub fn is_unsigned(token: &str) -> bool {
    let says_none = |decoded: Decoded| {
        decoded.header.get("alg").and_then(Value::as_str).is_some_and(|alg| alg.eq_ignore_ascii_case("none"))
    };
    decode(token).is_ok_and(says_none)
}

/// Header and claims as indented JSON, for a person to read. The signature is left out, so that what is printed is not
/// the token; control characters are escaped, so that a claim can't drive the terminal.
pub fn inspect(token: &str) -> Result<String, Error> {
    let Decoded { header, claims } = decode(token)?;
    let both = serde_json::json!({ "header": header, "claims": claims });
    Ok(escape(&format!("{both:#}")))
}

impl Claims {
    /// The claim of this name. Names are whole: the dots in `esc.org` mean nothing.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.all.get(name)
    }
}

/// Names only: emnify's claims hold an `api_key`.
impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claims")
            .field("exp", &self.exp)
            .field("iat", &self.iat)
            .field("names", &self.all.keys().collect::<Vec<_>>())
            .finish()
    }
}

struct Decoded {
    header: Map<String, Value>,
    claims: Map<String, Value>,
}

fn decode(token: &str) -> Result<Decoded, Error> {
    if token.len() > MAX_LENGTH {
        return Err(Error::TooLong);
    }
    let mut parts = token.split('.');
    let (Some(header), Some(claims), Some(_signature), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Error::Parts);
    };
    Ok(Decoded { header: object(header)?, claims: object(claims)? })
}

fn object(part: &str) -> Result<Map<String, Value>, Error> {
    let json = BASE64URL.decode(part).or(Err(Error::Base64))?;
    unique::read(&json)
}

/// The JSON object that these bytes hold; two members of one name are an error, at any depth.
pub fn unique_object(json: &[u8]) -> Result<Map<String, Value>, Error> {
    unique::read(json)
}

/// RFC 7519 §2: seconds since the epoch, possibly with a fraction. Null counts as absent.
fn numeric_date(value: Option<&Value>, round: fn(f64) -> f64) -> Result<Option<i64>, Error> {
    let number = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Number(number)) => number,
        Some(_) => return Err(Error::Date),
    };
    if let Some(whole) = number.as_i64() {
        return Ok(Some(whole));
    }
    let fraction = number.as_f64().ok_or(Error::Date)?;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a cast from a float saturates, which is what 'never' should become"
    )]
    let whole = round(fraction) as i64;
    Ok(Some(whole))
}

fn escape(json: &str) -> String {
    let hidden = |c: char| {
        c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let shown = |c: char| {
        if c != '\n' && hidden(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() }
    };
    json.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
    use proptest::prelude::*;

    fn token(claims: &str) -> String {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS384"}"#);
        format!("{header}.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn reads_what_emnify_sends() {
        let claims = claims(&token(
            r#"{"aud":"/authenticate","esc.app":1,"api_key":"k","esc.org":42,"iss":"x","exp":15400,"iat":1000}"#,
        ))
        .unwrap();
        assert_eq!((claims.exp, claims.iat), (Some(15_400), Some(1_000)));
        assert_eq!(claims.get("esc.org").and_then(Value::as_u64), Some(42));
        assert_eq!(claims.get("esc"), None, "dots are no path");
    }

    #[test]
    fn dates_may_be_any_number_and_err_on_the_short_side() {
        let table = [
            (r"{}", Ok((None, None))),
            (r#"{"exp":null}"#, Ok((None, None))),
            (r#"{"exp":10.9,"iat":1.1}"#, Ok((Some(10), Some(2)))),
            (r#"{"exp":1.5e9}"#, Ok((Some(1_500_000_000), None))),
            (r#"{"exp":1e300}"#, Ok((Some(i64::MAX), None))),
            (r#"{"exp":18446744073709551615}"#, Ok((Some(i64::MAX), None))),
            (r#"{"exp":-5}"#, Ok((Some(-5), None))),
            (r#"{"exp":"10"}"#, Err(Error::Date)),
            (r#"{"exp":1,"iat":[]}"#, Err(Error::Date)),
        ];
        for (json, expected) in table {
            let dates = claims(&token(json)).map(|c| (c.exp, c.iat));
            assert_eq!(dates, expected, "{json}");
        }
    }

    #[test]
    fn two_members_of_one_name_are_refused_at_any_depth() {
        for json in [r#"{"exp":1,"exp":2}"#, r#"{"exp":1,"e\u0078p":1}"#, r#"{"a":[{"b":{"c":1,"c":1}}]}"#] {
            assert_eq!(claims(&token(json)), Err(Error::Duplicate), "{json}");
            assert_eq!(inspect(&token(json)), Err(Error::Duplicate), "{json}");
        }
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","alg":"none"}"#);
        assert_eq!(claims(&format!("{header}.e30.x")), Err(Error::Duplicate));
        assert!(claims(&token(r#"{"a":{"b":1},"b":[{"c":1},{"c":1}]}"#)).is_ok());
        assert_eq!(claims(&token(r#"{"a":1,"a":1} x"#)), Err(Error::Json));
    }

    #[test]
    fn an_unsigned_token_is_told() {
        for (header, expected) in [(r#"{"alg":"none"}"#, true), (r#"{"alg":"NoNe"}"#, true), ("{}", false)] {
            assert_eq!(is_unsigned(&format!("{}.e30.", URL_SAFE_NO_PAD.encode(header))), expected, "{header}");
        }
        assert!(!is_unsigned("none") && !is_unsigned("none.e30."));
    }

    #[test]
    fn padding_is_tolerated() {
        let padded = format!("{}.{}.c2ln", URL_SAFE.encode("{}"), URL_SAFE.encode(r#"{"exp":1}"#));
        assert!(padded.contains('='));
        assert_eq!(claims(&padded).map(|c| c.exp), Ok(Some(1)));
    }

    #[test]
    fn everything_else_is_refused() {
        let deep = token(&"[".repeat(10_000));
        let table = [
            ("", Error::Parts),
            ("a.b", Error::Parts),
            ("a.b.c.d", Error::Parts),
            ("a b.c.d", Error::Base64),
            ("e30.+/+/.x", Error::Base64),
            ("e30.W10.x", Error::Json),
            ("e30..x", Error::Json),
            (deep.as_str(), Error::Json),
            (&"a".repeat(MAX_LENGTH + 1), Error::TooLong),
        ];
        for (text, expected) in table {
            assert_eq!(claims(text), Err(expected));
        }
    }

    #[test]
    fn a_person_sees_header_and_claims_but_not_the_token() {
        let token = token(r#"{"esc.orgName":"A\u001b[31mB\u009b1m","exp":1}"#);
        let shown = inspect(&token).unwrap();
        for part in token.split('.') {
            assert!(!shown.contains(part));
        }
        assert!(shown.contains(r#""alg": "HS384""#) && shown.contains(r#""exp": 1"#));
        assert!(shown.chars().all(|c| c == '\n' || !c.is_control()));
        let again: Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(again["claims"]["esc.orgName"], "A\u{1b}[31mB\u{9b}1m", "escaping loses nothing");
    }

    #[test]
    fn debug_shows_no_values() {
        let claims = claims(&token(r#"{"api_key":"hunter2"}"#)).unwrap();
        let shown = format!("{claims:?}");
        assert!(shown.contains("api_key") && !shown.contains("hunter2"));
    }

    proptest! {
        #[test]
        fn nothing_panics(text in any::<String>(), claims_bytes in any::<Vec<u8>>(), json in "\\PC*") {
            let hostile = [
                text,
                format!("e30.{}.x", URL_SAFE_NO_PAD.encode(&claims_bytes)),
                token(&format!(r#"{{"exp":{json}}}"#)),
            ];
            for token in &hostile {
                prop_assert_eq!(claims(token).is_err() && inspect(token).is_ok(), claims(token) == Err(Error::Date));
            }
        }
    }
}
