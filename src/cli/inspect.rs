//! `inspect`: what a JWT says, decoded here.

use super::{Broker, Failure, print};
use crate::jwt;
use crate::secret::AccessToken;
use std::io::{self, Read as _};

pub(super) async fn inspect(broker: Broker, workspace: String) -> Result<(), Failure> {
    let token = if workspace == "-" {
        from_stdin()?
    } else {
        let client = broker.connect().await?;
        client.get_token(&workspace, None).await?.value
    };
    print(jwt::inspect(token.expose())?)
}

fn from_stdin() -> Result<AccessToken, Failure> {
    let limit = u64::try_from(jwt::MAX_LENGTH).unwrap_or(u64::MAX);
    let mut text = String::new();
    // One more than allowed, so that a longer text is seen to be too long.
    io::stdin().lock().take(limit + 1).read_to_string(&mut text)?;
    Ok(AccessToken::new(text.trim()))
}
