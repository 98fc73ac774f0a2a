//! The parameters of a tool's function: what the model writes, what is injected, what is kept.

use proc_macro2::TokenStream;
use quote::quote;
use syn::spanned::Spanned as _;
use syn::{Attribute, Error, Expr, FnArg, Ident, Pat, PatType, Type, TypeReference};

/// Where a parameter comes from.
pub(crate) enum Parameter {
    /// The model writes it.
    Argument(Box<Argument>),
    /// The context: the expression that gets it.
    Injected(TokenStream),
    /// Whoever makes the tool gives it, once.
    State { name: Ident, kept: Box<Type>, is_reference: bool },
}

/// A parameter that the model writes.
pub(crate) struct Argument {
    pub(crate) name: Ident,
    /// The type of the field that it is read into.
    pub(crate) owned: Type,
    /// How the field becomes the parameter.
    pub(crate) passed: TokenStream,
    /// Documentation, `serde` and `schemars` attributes.
    pub(crate) attributes: Vec<Attribute>,
    /// What it is when the model does not write it.
    pub(crate) default: Option<Expr>,
}

/// Reads a parameter, and takes the attributes off it that no compiler knows.
pub(crate) fn read(input: &mut FnArg) -> Result<Parameter, Error> {
    let typed = match input {
        FnArg::Typed(typed) => typed,
        FnArg::Receiver(receiver) => {
            let message =
                "expected a function without self; a #[state] parameter holds what it needs";
            return Err(Error::new(receiver.span(), message));
        }
    };
    let attributes = std::mem::take(&mut typed.attrs);
    let name = name_of(typed)?;
    let (mut kept, mut default, mut is_state) = (Vec::new(), None, false);
    for attribute in attributes {
        if attribute.path().is_ident("state") {
            attribute.meta.require_path_only()?;
            is_state = true;
        } else if attribute.path().is_ident("default") {
            default = Some(attribute.parse_args::<Expr>()?);
        } else if ["doc", "serde", "schemars"].iter().any(|known| attribute.path().is_ident(known))
        {
            kept.push(attribute);
        } else {
            let message =
                "expected #[state], #[default(…)], #[serde(…)], #[schemars(…)] or a doc comment";
            return Err(Error::new(attribute.span(), message));
        }
    }
    if is_state {
        let (kept, is_reference) = match &*typed.ty {
            Type::Reference(TypeReference { elem, mutability: None, .. }) => {
                ((**elem).clone(), true)
            }
            Type::Reference(reference) => {
                let message = "expected a shared reference: calls of a tool run at the same time";
                return Err(Error::new(reference.span(), message));
            }
            owned => (owned.clone(), false),
        };
        return Ok(Parameter::State { name, kept: Box::new(kept), is_reference });
    }
    if let Some(injected) = injected(&typed.ty) {
        return Ok(Parameter::Injected(injected));
    }
    let (owned, passed) = owned(&typed.ty, &name)?;
    let argument = Argument { name, owned, passed, attributes: kept, default };
    Ok(Parameter::Argument(Box::new(argument)))
}

fn name_of(typed: &PatType) -> Result<Ident, Error> {
    match &*typed.pat {
        Pat::Ident(pattern) if pattern.by_ref.is_none() && pattern.subpat.is_none() => {
            Ok(pattern.ident.clone())
        }
        other => Err(Error::new(
            other.span(),
            "expected a plain name: it is what the model knows the argument by",
        )),
    }
}

/// The expression for a parameter that comes from the context, if its type says so.
fn injected(ty: &Type) -> Option<TokenStream> {
    let (inner, reference) = match ty {
        Type::Reference(reference) => (&*reference.elem, quote!(&)),
        other => (other, TokenStream::new()),
    };
    let Type::Path(path) = inner else { return None };
    let name = path.path.segments.last()?.ident.to_string();
    let injected = match name.as_str() {
        "ContextBag" => quote!(::throughline::ContextBag::current()),
        "Dimensions" => quote!(::throughline::Dimensions::current()),
        _ => return None,
    };
    Some(quote!(#reference #injected))
}

/// The owned type of an argument, and how it is passed.
fn owned(ty: &Type, name: &Ident) -> Result<(Type, TokenStream), Error> {
    let Type::Reference(reference) = ty else {
        return match ty {
            Type::ImplTrait(_) => Err(Error::new(
                ty.span(),
                "expected a type that the schema can be made of, got impl Trait",
            )),
            _ => Ok((ty.clone(), quote!(arguments.#name))),
        };
    };
    if reference.mutability.is_some() {
        return Err(Error::new(ty.span(), "expected a shared reference or an owned type"));
    }
    let passed = quote!(&arguments.#name);
    match &*reference.elem {
        Type::Path(path) if path.path.is_ident("str") => {
            Ok((syn::parse_quote!(::std::string::String), passed))
        }
        Type::Slice(slice) => {
            let element = &slice.elem;
            Ok((syn::parse_quote!(::std::vec::Vec<#element>), passed))
        }
        element => Ok((element.clone(), passed)),
    }
}
