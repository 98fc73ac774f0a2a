//! The attribute macros of `throughline`, which re-exports them: use them through it. What they make
//! is written in terms of `::throughline`, so users need no other crate.

mod arguments;
mod attribute;
mod tool_id;
mod tool_macro;

use proc_macro::TokenStream;

/// Makes a tool of a function: `throughline::tool`, which tells all of it.
#[proc_macro_attribute]
pub fn tool(attribute: TokenStream, item: TokenStream) -> TokenStream {
    tool_macro::expand(attribute.into(), item.into())
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}
