//! `#[throughline::tool(…)]`: keeps the function, and puts a maker of the tool beside it.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::spanned::Spanned as _;
use syn::{Attribute, Error, Expr, ExprLit, Ident, ItemFn, Lit, Meta, Type};

use crate::arguments::{self, Argument, Parameter};
use crate::attribute::Settings;
use crate::tool_id;

/// The function, and the maker of its tool.
pub(crate) fn expand(attribute: TokenStream, item: TokenStream) -> Result<TokenStream, Error> {
    let settings: Settings = syn::parse2(attribute)?;
    let mut function: ItemFn = syn::parse2(item).map_err(|error| {
        Error::new(error.span(), format!("expected a function to make a tool of: {error}"))
    })?;
    let (tool_name, version) = tool_id::parse(&settings.id)?;
    refuse(&function)?;
    let parameters: Vec<Parameter> =
        function.sig.inputs.iter_mut().map(arguments::read).collect::<Result<_, _>>()?;
    let description = match &settings.description {
        Some(text) => text.value(),
        None => documentation(&function.attrs),
    };
    if description.is_empty() {
        let message = "expected a doc comment on the function, or description = \"…\": the model chooses the tool by it";
        return Err(Error::new(function.sig.ident.span(), message));
    }
    let maker = maker(&settings, &function, &parameters, &tool_name, version, &description);
    Ok(quote!(#function #maker))
}

fn refuse(function: &ItemFn) -> Result<(), Error> {
    let signature = &function.sig;
    let wrong = match () {
        () if !signature.generics.params.is_empty() => Some((
            signature.generics.span(),
            "expected a function without generics: a tool has one schema",
        )),
        () if signature.unsafety.is_some() => Some((
            signature.unsafety.span(),
            "expected a safe function: a model chooses the arguments",
        )),
        () if signature.variadic.is_some() => {
            Some((signature.variadic.span(), "expected a fixed number of parameters"))
        }
        () => None,
    };
    match wrong {
        Some((span, message)) => Err(Error::new(span, message)),
        None => Ok(()),
    }
}

fn maker(
    settings: &Settings,
    function: &ItemFn,
    parameters: &[Parameter],
    tool_name: &str,
    version: u32,
    description: &str,
) -> TokenStream {
    let (visibility, called) = (&function.vis, &function.sig.ident);
    let maker = settings.name.clone().unwrap_or_else(|| format_ident!("{called}_tool"));
    let documented = format!("The tool `{tool_name}_v{version}`, made of [`{called}`].");
    let fields: Vec<&Argument> = parameters
        .iter()
        .filter_map(|parameter| match parameter {
            Parameter::Argument(argument) => Some(&**argument),
            _ => None,
        })
        .collect();
    let (structure, defaults) = structure(&fields);
    let states: Vec<(&Ident, Type)> = parameters
        .iter()
        .filter_map(|parameter| match parameter {
            Parameter::State { name, kept, is_reference } => {
                let ty = if *is_reference {
                    syn::parse_quote!(::std::sync::Arc<#kept>)
                } else {
                    Type::clone(kept)
                };
                Some((name, ty))
            }
            _ => None,
        })
        .collect();
    let state_parameters = states.iter().map(|(name, ty)| quote!(#name: #ty));
    let clones =
        states.iter().map(|(name, _)| quote!(let #name = ::std::clone::Clone::clone(&#name);));
    let passed = parameters.iter().map(|parameter| match parameter {
        Parameter::Argument(argument) => argument.passed.clone(),
        Parameter::Injected(expression) => expression.clone(),
        Parameter::State { name, is_reference: true, .. } => quote!(&#name),
        Parameter::State { name, .. } => quote!(#name),
    });
    let told = quote! {
        let _ = &arguments;
        #[allow(unused_imports, reason = "one of them fits what the function answers")]
        use ::throughline::__private::{IsAnything as _, IsOutput as _};
    };
    let work = match function.sig.asyncness {
        Some(_) => quote! {
            #told
            let answer = #called(#(#passed),*).await;
            (&answer).told_as().tell(answer)
        },
        // It may wait or calculate for long, and cannot yield: no thread of the runtime is its own.
        None => quote! {
            ::throughline::__private::blocking(move || {
                #told
                let answer = #called(#(#passed),*);
                (&answer).told_as().tell(answer)
            })
            .await
        },
    };
    let needs = settings.needs.iter().map(Ident::to_string);
    let wants = settings.wants.iter().map(Ident::to_string);
    let timeout = settings
        .timeout_secs
        .as_ref()
        .map(|secs| quote!(let made = made.with_timeout(::std::time::Duration::from_secs(#secs));));
    let conditions = function.attrs.iter().filter(|attribute| attribute.path().is_ident("cfg"));
    quote! {
        #(#conditions)*
        #[doc = #documented]
        #visibility fn #maker(#(#state_parameters),*) -> impl ::throughline::Tool + use<> {
            #structure
            #defaults
            let made = ::throughline::__private::made(
                #tool_name,
                #version,
                #description,
                move |arguments: Arguments| {
                    #(#clones)*
                    async move { #work }
                },
            );
            #timeout
            made.with_needs([
                #(::throughline::Need::of(#needs),)*
                #(::throughline::Need::of(#wants).optional(),)*
            ])
        }
    }
}

/// The type that the arguments are read into, and the functions of their defaults.
fn structure(fields: &[&Argument]) -> (TokenStream, TokenStream) {
    let mut members = TokenStream::new();
    let mut defaults = TokenStream::new();
    for Argument { name, owned, attributes, default, .. } in fields {
        let default_attribute = default.as_ref().map(|expression| {
            let function = format_ident!("default_of_{name}");
            let path = function.to_string();
            defaults.extend(quote!(fn #function() -> #owned { #expression }));
            quote!(#[serde(default = #path)])
        });
        members.extend(quote! {
            #(#attributes)*
            #default_attribute
            #name: #owned,
        });
    }
    let structure = quote! {
        #[derive(
            ::throughline::__private::serde::Deserialize,
            ::throughline::__private::schemars::JsonSchema,
        )]
        #[serde(crate = "::throughline::__private::serde", deny_unknown_fields)]
        #[schemars(crate = "::throughline::__private::schemars")]
        struct Arguments { #members }
    };
    (structure, defaults)
}

/// The doc comment as one text, its lines joined as Markdown joins them.
fn documentation(attributes: &[Attribute]) -> String {
    let lines: Vec<String> = attributes
        .iter()
        .filter_map(|attribute| match &attribute.meta {
            Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
                Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text.value()),
                _ => None,
            },
            _ => None,
        })
        .collect();
    let paragraphs = lines.split(|line| line.trim().is_empty());
    let paragraphs = paragraphs
        .map(|lines| lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" "))
        .filter(|paragraph| !paragraph.is_empty());
    paragraphs.collect::<Vec<_>>().join("\n\n")
}
