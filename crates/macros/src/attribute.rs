//! What stands in the parentheses of `#[throughline::tool(…)]`.

use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Error, Ident, LitInt, LitStr, Token, parenthesized};

/// The attribute's settings.
pub(crate) struct Settings {
    pub(crate) id: LitStr,
    pub(crate) description: Option<LitStr>,
    pub(crate) timeout_secs: Option<LitInt>,
    pub(crate) needs: Vec<Ident>,
    pub(crate) wants: Vec<Ident>,
    pub(crate) name: Option<Ident>,
}

impl Parse for Settings {
    fn parse(input: ParseStream<'_>) -> Result<Self, Error> {
        let at = input.span();
        let mut id = None;
        let (mut description, mut timeout_secs, mut name) = (None, None, None);
        let (mut needs, mut wants) = (Vec::new(), Vec::new());
        while !input.is_empty() {
            let key: Ident = input.parse()?;
            match key.to_string().as_str() {
                "id" => set(&mut id, &key, equals(input)?)?,
                "description" => set(&mut description, &key, equals(input)?)?,
                "timeout_secs" => set(&mut timeout_secs, &key, equals(input)?)?,
                "name" => set(&mut name, &key, equals(input)?)?,
                "needs" => needs.extend(list(input)?),
                "wants" => wants.extend(list(input)?),
                other => {
                    let message = format!(
                        "expected id, description, timeout_secs, needs(…), wants(…) or name, got {other}"
                    );
                    return Err(Error::new(key.span(), message));
                }
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        let id = id.ok_or_else(|| {
            Error::new(at, "expected the tool's id with its version: #[throughline::tool(id = \"web_search_v2\")]")
        })?;
        Ok(Self { id, description, timeout_secs, needs, wants, name })
    }
}

fn equals<T: Parse>(input: ParseStream<'_>) -> Result<T, Error> {
    input.parse::<Token![=]>()?;
    input.parse()
}

fn list(input: ParseStream<'_>) -> Result<Punctuated<Ident, Token![,]>, Error> {
    let content;
    parenthesized!(content in input);
    content.parse_terminated(Ident::parse, Token![,])
}

fn set<T>(place: &mut Option<T>, key: &Ident, value: T) -> Result<(), Error> {
    if place.replace(value).is_some() {
        return Err(Error::new(key.span(), format!("expected {key} once")));
    }
    Ok(())
}
